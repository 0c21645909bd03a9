//! AVML images: ranges of memory, each a snappy stream between a header and its length.
//!
//! Owns: the walk over the ranges from the end of the file, the chunks of each range. Must not know: files, what lies in the memory.
//! Keeps: opening reads a header and a length for each range; the chunks of a range are listed when it is touched first; a range may not
//! claim more than its stream can unpack to.
//!
//! Sources: AVML (Acquire Volatile Memory for Linux), `src/image.rs`: magic "AVML", version 2, first and last address (inclusive), eight
//! bytes of zeros, a stream, the stream's length, all little-endian; blocks of 16 MiB at most, of which those of zeros are left out.
//! The stream: snappy, `framing_format.txt`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    io::{self, Read},
    ops::Range,
    sync::{Arc, OnceLock},
};

use memflow_core::{
    Error, PhysAddr, PhysRange, Result,
    memory::{Run, RunMap},
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use crate::{
    blocks::{Block, Blocks, damaged, without_short_holes},
    image::{PackedImage, ParseOptions, ParsedImage},
    input::{ReadAt, View},
};

/// "AVML", as the first four bytes of a header.
const MAGIC: u32 = 0x4c4d_5641;
const VERSION: u32 = 2;
const HEADER: u64 = 32;
const TRAILER: u64 = 8;
/// AVML cuts memory into blocks of this length, and leaves out those of zeros.
const CUT: u64 = 16 << 20;
/// What a chunk unpacks to at most (`framing_format.txt`, section 4.2).
const MAX_CHUNK: u64 = 1 << 16;
/// The first chunk of every stream.
const IDENTIFIER: [u8; 10] = *b"\xff\x06\x00\x00sNaPpY";
/// Number of the one block that stands for all zeros that were left out.
const ZEROS: u64 = u64::MAX;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: U32,
    version: U32,
    first: U64,
    last: U64,
    reserved: [u8; 8],
}

/// Reads the headers of an AVML image.
///
/// # Errors
/// [`Error::Format`] for headers that contradict themselves, each other or the length of the file, unless `options` allow partial
/// images; [`Error::Io`] when the input cannot be read.
pub fn parse(input: Arc<dyn ReadAt>, options: ParseOptions) -> Result<PackedImage> {
    let view = View::new(&*input, "AVML");
    let mut image = ParsedImage::default();
    let mut found = match from_the_end(&view) {
        Ok(found) => found,
        Err(Error::Format { .. }) if options.partial => from_the_start(&view, &mut image.notes)?,
        Err(error) => return Err(error),
    };
    found.sort_by_key(|found| found.range.start());

    let mut runs = Vec::with_capacity(found.len());
    let mut parts: Vec<Part> = Vec::with_capacity(found.len());
    let mut previous: Option<PhysRange> = None;
    let (mut start, mut zeros): (u64, u64) = (0, 0);
    let mut add = |range: PhysRange, stream: Option<Stream>| {
        runs.push(Run { range, offset: start });
        parts.push(Part { start, stream });
        start = start.saturating_add(range.len());
    };
    for Found { range, stream } in found {
        if let Some(gap) = previous.and_then(|previous| left_out(previous, range)) {
            zeros = zeros.saturating_add(gap.len());
            add(gap, None);
        }
        add(range, Some(stream));
        previous = Some(range);
    }
    if zeros > 0 {
        image.notes.push(format!(
            "{zeros:#x} bytes between blocks are read as zeros: AVML leaves out blocks of {CUT:#x} bytes that hold nothing else"
        ));
    }
    image.runs = RunMap::new(runs).map_err(|error| view.bad(0, "each physical address once", error.to_string()))?;
    let image = PackedImage {
        image,
        excluded: RunMap::default(),
        blocks: Box::new(Chunks { input: input.clone(), parts, size: start }),
    };
    Ok(image)
}

/// A range, and where its stream lies.
struct Found {
    range: PhysRange,
    stream: Stream,
}

/// The gap between two ranges, if it has the shape of blocks that were left out because they hold only zeros.
fn left_out(previous: PhysRange, next: PhysRange) -> Option<PhysRange> {
    let gap = PhysRange::between(previous.end()?, next.start())?;
    let whole = |len: u64| len > 0 && len.is_multiple_of(CUT);
    (whole(previous.len()) && whole(gap.len())).then_some(gap)
}

/// The ranges, last first: each stream's length follows it.
fn from_the_end(view: &View<'_>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut end = view.size();
    while end > 0 {
        let short = || view.bad(0, "a range's header", format!("{end:#x} bytes"));
        let at = end.checked_sub(TRAILER).ok_or_else(short)?;
        let len = view.read::<U64>(at, "the length of a stream")?.get();
        let header = at.checked_sub(len).and_then(|stream| stream.checked_sub(HEADER)).ok_or_else(|| {
            view.bad(
                at,
                format!("the length of the stream before it, at most {at:#x}"),
                format!("{len:#x}; the file looks truncated, copy it again or open it as a partial image"),
            )
        })?;
        let range = header_at(view, header)?;
        let stream = Stream { at: header.saturating_add(HEADER), len, bytes: range.len(), chunks: OnceLock::new() };
        stream.check(view)?;
        found.push(Found { range, stream });
        end = header;
    }
    Ok(found)
}

/// The ranges that are whole in a file that was cut short, found chunk by chunk.
fn from_the_start(view: &View<'_>, notes: &mut Vec<String>) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    let mut at: u64 = 0;
    while at < view.size() {
        match whole_range(view, at) {
            Ok((range, next)) => {
                found.push(range);
                at = next;
            }
            Err(error @ Error::Format { .. }) if !found.is_empty() => {
                notes.push(format!("memory after the first {at:#x} bytes of the file is missing: {error}"));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The range at `at`, and where the next one begins.
fn whole_range(view: &View<'_>, at: u64) -> Result<(Found, u64)> {
    let range = header_at(view, at)?;
    let stream = at.saturating_add(HEADER);
    let mut next = stream;
    let mut unpacked: u64 = 0;
    while unpacked < range.len() {
        let chunk = chunk_at(view, next)?;
        unpacked = unpacked.saturating_add(chunk.unpacked);
        next = chunk.next;
    }
    let len = next.saturating_sub(stream);
    let told = view.read::<U64>(next, "the length of a stream")?.get();
    if told != len {
        return Err(view.bad(next, format!("{len:#x}, the length of the stream"), format!("{told:#x}")));
    }
    let stream = Stream { at: stream, len, bytes: range.len(), chunks: OnceLock::new() };
    Ok((Found { range, stream }, next.saturating_add(TRAILER)))
}

fn header_at(view: &View<'_>, at: u64) -> Result<PhysRange> {
    let header: Header = view.read(at, "a range's header")?;
    if (header.magic.get(), header.version.get()) != (MAGIC, VERSION) {
        return Err(view.bad(
            at,
            format!("the magic {MAGIC:#010x} and version {VERSION}"),
            format!("{:#010x} and {}", header.magic.get(), header.version.get()),
        ));
    }
    let (first, last) = (header.first.get(), header.last.get());
    PhysRange::inclusive(PhysAddr::new(first), PhysAddr::new(last)).filter(|range| !range.is_empty()).ok_or_else(|| {
        view.bad(
            at.saturating_add(8),
            "a range whose last address is not below its first",
            format!("{first:#x} to {last:#x}"),
        )
    })
}

/// A chunk of a stream, as its header has it.
struct ChunkHeader {
    /// Bytes that it unpacks to; zero for chunks that hold no data.
    unpacked: u64,
    /// Offset of the chunk behind it.
    next: u64,
}

/// Reads the header of the chunk at `at`.
fn chunk_at(view: &View<'_>, at: u64) -> Result<ChunkHeader> {
    let [kind, len @ ..] = view.read::<[u8; 4]>(at, "a snappy chunk")?;
    let [low, middle, high] = len.map(u64::from);
    let len = low | middle << 8 | high << 16;
    let body = at.saturating_add(4);
    let next = body.saturating_add(len);
    if next > view.size() {
        return Err(view.ends_early(body, len, "a snappy chunk"));
    }
    let bad = |expected: &'static str, found: String| view.bad(at, expected, found);
    let unpacked = match kind {
        // Compressed: a checksum, the length in 7-bit groups, the data.
        0x00 => {
            let mut head = [0; 5];
            let there = usize::try_from(len.saturating_sub(4).min(5)).unwrap_or(0);
            let head = head.get_mut(..there).unwrap_or_default();
            view.fill(body.saturating_add(4), head, "a compressed snappy chunk")?;
            let len = snap::raw::decompress_len(head).map_err(|error| bad("a snappy chunk", error.to_string()))?;
            u64::try_from(len).unwrap_or(u64::MAX)
        }
        // As it is, behind a checksum.
        0x01 => len.checked_sub(4).ok_or_else(|| bad("a chunk with a checksum", format!("{len} bytes")))?,
        0x02..=0x7f => return Err(bad("a snappy chunk of a known kind", format!("{kind:#04x}"))),
        // Padding, identifiers, and what may be skipped.
        _ => 0,
    };
    if unpacked > MAX_CHUNK {
        return Err(bad("a snappy chunk of 0x10000 bytes at most", format!("{unpacked:#x}")));
    }
    Ok(ChunkHeader { unpacked, next })
}

/// The compressed bytes of a range.
#[derive(Debug)]
struct Stream {
    /// Offset in the file.
    at: u64,
    len: u64,
    /// What it unpacks to.
    bytes: u64,
    /// Listed when the range is touched first; or why it cannot be.
    chunks: OnceLock<Result<Vec<Chunk>, String>>,
}

/// A chunk with data.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// Offset in the file, of its header.
    at: u64,
    /// Offset of its first byte in the unpacked stream.
    start: u64,
}

impl Stream {
    /// Refuses a stream that is too short for what it should unpack to.
    fn check(&self, view: &View<'_>) -> Result<()> {
        // Three bytes of a snappy stream stand for 64 at most.
        let most = self.len.saturating_mul(64).checked_div(3).unwrap_or(u64::MAX);
        if self.bytes > most {
            return Err(view.bad(
                self.at,
                format!("a stream that unpacks to {:#x} bytes", self.bytes),
                format!("one of {:#x} bytes, which can hold {most:#x} at most", self.len),
            ));
        }
        Ok(())
    }

    fn chunks(&self, view: &View<'_>) -> io::Result<&[Chunk]> {
        if self.chunks.get().is_none() {
            let listed = match self.list(view) {
                Ok(chunks) => Ok(chunks),
                // Reading may work the next time.
                Err(Error::Io { source, .. }) => return Err(source),
                Err(error) => Err(error.to_string()),
            };
            // Another thread may have listed the same.
            let _ = self.chunks.set(listed);
        }
        match self.chunks.get() {
            Some(Ok(chunks)) => Ok(chunks),
            Some(Err(problem)) => Err(damaged(problem.clone())),
            None => Ok(&[]),
        }
    }

    fn list(&self, view: &View<'_>) -> Result<Vec<Chunk>> {
        let end = self.at.saturating_add(self.len);
        let mut chunks = Vec::new();
        let (mut at, mut start): (u64, u64) = (self.at, 0);
        while at < end {
            let ChunkHeader { unpacked, next } = chunk_at(view, at)?;
            if unpacked > 0 {
                chunks.push(Chunk { at, start });
            }
            start = start.saturating_add(unpacked);
            at = next;
        }
        if (at, start) != (end, self.bytes) {
            return Err(view.bad(
                self.at,
                format!("chunks that unpack to {:#x} bytes and end at {end:#x}", self.bytes),
                format!("{start:#x} bytes, and an end at {at:#x}"),
            ));
        }
        Ok(chunks)
    }
}

/// Consecutive unpacked bytes.
#[derive(Debug)]
struct Part {
    /// Offset among the unpacked bytes.
    start: u64,
    /// Where they come from; `None` for zeros that were left out.
    stream: Option<Stream>,
}

/// The chunks of all ranges.
struct Chunks {
    input: Arc<dyn ReadAt>,
    /// In the order of `start`, the first of which is zero.
    parts: Vec<Part>,
    size: u64,
}

impl Chunks {
    fn view(&self) -> View<'_> {
        View::new(&*self.input, "AVML")
    }

    /// The part with the byte at `offset`, its number, and where the byte is in it.
    fn part(&self, offset: u64) -> io::Result<(u64, &Part, u64)> {
        let index = self.parts.partition_point(|part| part.start <= offset).checked_sub(1);
        index
            .and_then(|index| {
                let part = self.parts.get(index)?;
                Some((u64::try_from(index).ok()?, part, offset.checked_sub(part.start)?))
            })
            .ok_or_else(|| damaged(format!("no range holds offset {offset:#x}")))
    }
}

impl Blocks for Chunks {
    fn size(&self) -> u64 {
        self.size
    }

    fn find(&self, offset: u64) -> io::Result<Block> {
        let (number, part, inside) = self.part(offset)?;
        let Some(stream) = &part.stream else {
            // Zeros come in multiples of it.
            let start = part.start.saturating_add(inside & !(MAX_CHUNK.saturating_sub(1)));
            return Ok(Block { id: ZEROS, start, len: usize::try_from(MAX_CHUNK).unwrap_or(0) });
        };
        let chunks = stream.chunks(&self.view())?;
        let next = chunks.partition_point(|chunk| chunk.start <= inside);
        let index = next.checked_sub(1).ok_or_else(|| damaged("no chunk holds the first byte of a range"))?;
        let start = chunks.get(index).map_or(0, |chunk| chunk.start);
        let end = chunks.get(next).map_or(stream.bytes, |chunk| chunk.start);
        Ok(Block {
            id: number << 32 | u64::try_from(index).unwrap_or(u64::MAX),
            start: part.start.saturating_add(start),
            len: usize::try_from(end.saturating_sub(start)).unwrap_or(0),
        })
    }

    fn populated(&self) -> Option<Vec<Range<u64>>> {
        let ends = self.parts.iter().skip(1).map(|part| part.start).chain([self.size]);
        let parts = self.parts.iter().zip(ends).filter(|(part, _)| part.stream.is_some());
        Some(without_short_holes(parts.map(|(part, end)| part.start..end)))
    }

    fn unpack(&self, block: &Block, bytes: &mut [u8]) -> io::Result<()> {
        let (_, part, inside) = self.part(block.start)?;
        let Some(stream) = &part.stream else { return Ok(()) };
        let view = self.view();
        let chunks = stream.chunks(&view)?;
        let chunk = chunks
            .binary_search_by_key(&inside, |chunk| chunk.start)
            .ok()
            .and_then(|index| chunks.get(index))
            .ok_or_else(|| damaged(format!("no chunk begins at offset {:#x}", block.start)))?;
        let read = |error: Error| match error {
            Error::Io { source, .. } => source,
            error => damaged(error.to_string()),
        };
        let end = chunk_at(&view, chunk.at).map_err(read)?.next;
        let packed = view.bytes(chunk.at, end.saturating_sub(chunk.at), "a snappy chunk").map_err(read)?;
        // The decoder compares the checksum.
        snap::read::FrameDecoder::new(IDENTIFIER.chain(&*packed))
            .read_exact(bytes)
            .map_err(|error| damaged(format!("snappy chunk at {:#x}: {error}", chunk.at)))
    }
}

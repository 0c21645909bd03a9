//! Zstandard: frames, each with its own window and checksum, and skippable ones between them.
//!
//! Owns: the list of frames, from the table at the end of the file or from the headers of frames and blocks; what may follow a frame.
//! Must not know: what is inside; the decoder is the reference library.
//! Keeps: a table is used only where it accounts for every byte of the file and leads to frames; every round consumes or produces something,
//! or is an error; a window above 128 MiB is refused, as the library would reserve it on the word of a header.
//! Sources: RFC 8878; for the table `contrib/seekable_format/zstd_seekable_compression_format.md` of the reference implementation.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{cell::RefCell, sync::Arc};

use memflow_core::{Error, Result};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::{
    Unpacked,
    index::{Index, Scan},
    pieces::{Piece, PieceBlocks, Pieces, Unpack},
    pump::{Finished, Overflow, Sink, Source, UnpackOptions},
};
use crate::{
    detect::{ZSTD_MAGIC, ZSTD_SKIPPABLE_MAGIC},
    input::{ReadAt, View},
};

const NAME: &str = "zstd";
/// The skippable frame in which the table is.
const TABLE_MAGIC: u32 = ZSTD_SKIPPABLE_MAGIC | 0xe;
/// The last four bytes of the table.
const TABLE_END: u32 = 0x8f92_eab1;
/// Length of the header of a skippable frame.
const SKIPPABLE_HEADER: u64 = 8;

/// The end of the table.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TableFooter {
    frames: U32,
    descriptor: u8,
    magic: U32,
}

/// Most bytes that a byte of a frame stands for: a block of four bytes for 128 KiB of one value (RFC 8878, 3.1.1.2).
const MOST_OF_A_BYTE: u64 = 32 << 10;

/// Makes the frames of a Zstandard file readable at random. Zeros after the last are padding.
///
/// # Errors
/// [`Error::Format`] for a stream that is damaged, cut short or followed by something else; [`Error::File`] past the limit;
/// [`Error::Cancelled`].
pub(super) fn open(input: Arc<dyn ReadAt>, options: UnpackOptions<'_>) -> Result<Unpacked> {
    let mut index = Index::new(&*input, NAME, options);
    let view = View::new(&*input, NAME);
    let mut count = 0;
    let scan = match from_table(&view)? {
        Some(pieces) => Scan::Pieces(pieces),
        None => index.scan(|index, pieces| frames(index, pieces, &mut count))?,
    };
    if let Scan::Pieces(pieces) = scan {
        let notes = index.into_notes();
        return Ok(Unpacked::blocks(Box::new(PieceBlocks::new(input, pieces, Frames)), notes));
    }
    if count > 1 {
        // Frames that do not say how long they are: unpacking them once tells.
        let mut source = Source::new(&*input, NAME);
        let mut sink = Sink::new(options, Overflow::Drop, "zstd -d");
        let mut pieces = Some(Pieces::default());
        let result = pass(&mut source, &mut sink, &mut pieces);
        match sink.end(result)? {
            Finished::Unpacked(unpacked) => return Ok(unpacked),
            Finished::Dropped { notes, .. } => {
                if let Some(pieces) = pieces.filter(|pieces| pieces.len() > 1) {
                    return Ok(Unpacked::blocks(Box::new(PieceBlocks::new(input, pieces, Frames)), notes));
                }
            }
        }
    }
    let mut source = Source::new(&*input, NAME);
    let mut sink = Sink::new(options, Overflow::Repack, "zstd -d");
    let result = pass(&mut source, &mut sink, &mut None);
    sink.finish(result)
}

/// The frames as the table at the end of the file lists them; `None` when there is no table that can be trusted.
fn from_table(view: &View<'_>) -> Result<Option<Pieces>> {
    let size = view.size();
    let footer_len = u64::try_from(size_of::<TableFooter>()).unwrap_or(u64::MAX);
    let Some(footer_at) = size.checked_sub(footer_len) else { return Ok(None) };
    let footer: TableFooter = view.read(footer_at, "the end of a table of frames")?;
    if footer.magic.get() != TABLE_END || footer.descriptor & 0b0111_1100 != 0 {
        return Ok(None);
    }
    let entry_len: u64 = if footer.descriptor & 0x80 != 0 { 12 } else { 8 };
    let body = u64::from(footer.frames.get()).saturating_mul(entry_len).saturating_add(footer_len);
    let Some(at) = size.checked_sub(body.saturating_add(SKIPPABLE_HEADER)) else { return Ok(None) };
    let header: [U32; 2] = view.read(at, "a table of frames")?;
    if header.map(|field| u64::from(field.get())) != [u64::from(TABLE_MAGIC), body] {
        return Ok(None);
    }
    let entries =
        view.bytes(at.saturating_add(SKIPPABLE_HEADER), body.saturating_sub(footer_len), "a table of frames")?;
    let mut pieces = Pieces::default();
    let mut next: u64 = 0;
    for entry in entries.chunks(usize::try_from(entry_len).unwrap_or(usize::MAX)) {
        let Ok((fields, _)) = <[U32; 2]>::read_from_prefix(entry) else { return Ok(None) };
        let [packed, len] = fields.map(|field| u64::from(field.get()));
        let end = next.saturating_add(packed);
        if end > at || !leads_to_frame(view, next, packed, len)? || pieces.push(next, packed, len, 0).is_err() {
            log::debug!("{}: the table of frames is wrong at frame {}", view.path().display(), pieces.len());
            return Ok(None);
        }
        next = end;
    }
    // Every byte of the file is accounted for, and there is something to choose from.
    Ok((next == at && pieces.len() > 1).then_some(pieces))
}

/// True for a frame that begins where the table says, and whose own word on its length, if it has one, is the same.
fn leads_to_frame(view: &View<'_>, at: u64, packed: u64, len: u64) -> Result<bool> {
    let mut head = [0; MAX_HEADER];
    let there = usize::try_from(packed).unwrap_or(MAX_HEADER).min(MAX_HEADER);
    let head = head.get_mut(..there).unwrap_or_default();
    view.fill(at, head, "a zstd frame")?;
    let Some(magic) = head.first_chunk().map(|magic| u32::from_le_bytes(*magic)) else { return Ok(false) };
    if magic & !0xf == ZSTD_SKIPPABLE_MAGIC {
        return Ok(len == 0);
    }
    let header = head.get(4..).and_then(FrameHeader::parse);
    // Nobody has to believe a length that its data cannot have.
    let possible = len <= packed.saturating_mul(MOST_OF_A_BYTE);
    let told = header.is_some_and(|header| header.content.is_none_or(|content| content == len));
    Ok(magic == ZSTD_MAGIC && possible && told)
}

/// Magic number and header of a frame at most (RFC 8878, 3.1.1.1).
const MAX_HEADER: usize = 18;

/// What a frame says of itself.
struct FrameHeader {
    /// Length, without the magic number.
    len: u64,
    /// Bytes that it unpacks to, if it says so.
    content: Option<u64>,
    checksum: bool,
}

impl FrameHeader {
    /// Reads what stands behind the magic number.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (&descriptor, rest) = bytes.split_first()?;
        let single_segment = descriptor & 0x20 != 0;
        let window = if single_segment { 0 } else { 1 };
        let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
        let before: usize = [window, dictionary].iter().sum();
        let field = rest.get(before..)?;
        let (content_len, content) = match descriptor >> 6 {
            0 if !single_segment => (0, None),
            0 => (1, Some(u64::from(*field.first()?))),
            1 => (2, Some(u64::from(U16::read_from_prefix(field).ok()?.0.get()).saturating_add(256))),
            2 => (4, Some(u64::from(U32::read_from_prefix(field).ok()?.0.get()))),
            _ => (8, Some(U64::read_from_prefix(field).ok()?.0.get())),
        };
        let len = u64::try_from(before.saturating_add(content_len).saturating_add(1)).ok()?;
        // One bit is reserved, and must be zero.
        (descriptor & 8 == 0).then_some(Self { len, content, checksum: descriptor & 4 != 0 })
    }
}

/// Lists the frames by their headers and those of their blocks, and counts them; false when one does not say how long it is.
fn frames(index: &mut Index<'_>, pieces: &mut Pieces, count: &mut u64) -> Result<bool> {
    let mut all_told = true;
    while !index.only_zeros_left()? {
        let at = index.offset();
        let magic = index.peek(4)?.first_chunk().copied().map_or(0, u32::from_le_bytes);
        if magic != ZSTD_MAGIC && magic & !0xf != ZSTD_SKIPPABLE_MAGIC {
            return Err(index.strange("another zstd frame or the end"));
        }
        index.skip(4, "a zstd frame")?;
        if magic & !0xf == ZSTD_SKIPPABLE_MAGIC {
            let len = u32::from_le_bytes(index.array("a skippable zstd frame")?);
            index.skip(len.into(), "a skippable zstd frame")?;
            continue;
        }
        let head = index.peek(MAX_HEADER)?;
        let Some(FrameHeader { len, content, checksum }) = FrameHeader::parse(head) else { return Ok(false) };
        // Before its blocks are looked at: they may be many.
        if content.is_some_and(|content| Pieces::default().push(at, 0, content, 0).is_err()) {
            return Ok(false);
        }
        index.skip(len, "a zstd frame")?;
        loop {
            let [low, middle, high] = index.array("a zstd block")?.map(u32::from);
            let header = low | middle << 8 | high << 16;
            let len = match header >> 1 & 3 {
                1 => 1,
                3 => return Ok(false),
                _ => header >> 3,
            };
            index.skip(len.into(), "a zstd block")?;
            if header & 1 != 0 {
                break;
            }
        }
        index.skip(if checksum { 4 } else { 0 }, "the checksum of a zstd frame")?;
        *count = count.saturating_add(1);
        let packed = index.offset().saturating_sub(at);
        match content.filter(|_| all_told) {
            Some(content) if content > packed.saturating_mul(MOST_OF_A_BYTE) => return Ok(false),
            Some(content) if pieces.push(at, packed, content, 0).is_err() => return Ok(false),
            Some(_) => {}
            None => {
                // What comes behind such a frame has no place yet.
                all_told = false;
                *pieces = Pieces::default();
            }
        }
        index.report(pieces.size())?;
    }
    Ok(all_told)
}

thread_local! {
    /// Setting up a decoder costs as much as a small frame.
    static DECODER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Unpacks frames.
struct Frames;

impl Unpack for Frames {
    const NAME: &'static str = NAME;

    fn unpack(&self, _: &Piece, packed: &[u8], bytes: &mut [u8]) -> Result<(), String> {
        let count = DECODER
            .with_borrow_mut(|decoder| {
                let decoder = match decoder {
                    Some(decoder) => decoder,
                    None => decoder.insert(zstd::bulk::Decompressor::new()?),
                };
                decoder.decompress_to_buffer(packed, bytes)
            })
            .map_err(|error| error.to_string())?;
        if count == bytes.len() { Ok(()) } else { Err(format!("{count:#x} bytes instead of {:#x}", bytes.len())) }
    }
}

/// Unpacks all frames, one after the other, and lists them in `pieces`, which is `None` from the first on that is too long.
fn pass(source: &mut Source<'_>, sink: &mut Sink<'_>, pieces: &mut Option<Pieces>) -> Result<()> {
    let mut decoder = Decoder::new().map_err(|error| Error::io("setting up a zstd decoder", error))?;
    loop {
        let (at, before) = (source.offset(), sink.unpacked());
        frame(source, sink, &mut decoder)?;
        let (packed, len) = (source.offset().saturating_sub(at), sink.unpacked().saturating_sub(before));
        if pieces.as_mut().is_some_and(|pieces| pieces.push(at, packed, len, 0).is_err()) {
            *pieces = None;
        }
        match source.peek()?.map(u32::from_le_bytes) {
            Some(magic) if magic == ZSTD_MAGIC || magic & !0xf == ZSTD_SKIPPABLE_MAGIC => {}
            _ => {
                return match source.only_zeros_left()? {
                    true => Ok(()),
                    false => Err(source.view.bad(source.offset(), "another zstd frame or the end", "something else")),
                };
            }
        }
    }
}
/// Unpacks one frame, or moves past a skippable one.
fn frame(source: &mut Source<'_>, sink: &mut Sink<'_>, decoder: &mut Decoder<'_>) -> Result<()> {
    loop {
        let bytes = source.fill()?;
        let at_end = bytes.is_empty();
        let mut input = InBuffer::around(bytes);
        let (result, produced) = {
            let mut output = OutBuffer::around(sink.scratch());
            let result = decoder.run(&mut input, &mut output);
            (result, output.pos())
        };
        let consumed = input.pos();
        source.consume(consumed);
        let hint = match result {
            Ok(hint) => hint,
            Err(error) => {
                let text = error.to_string();
                // The library's text for windows above the limit.
                let found = if text.contains("too much memory") {
                    "a frame with a window above 128 MiB; unpack it with `zstd -d --long=31`".to_owned()
                } else {
                    format!("damaged data ({text})")
                };
                return Err(source.view.bad(source.offset(), "a valid zstd frame", found));
            }
        };
        sink.take(produced, source)?;
        // Zero says that the frame is over and all of it was handed out.
        if hint == 0 {
            return Ok(());
        }
        if consumed == 0 && produced == 0 {
            return Err(match at_end {
                true => source.cut_short("the rest of a zstd frame"),
                false => source.view.bad(source.offset(), "a valid zstd frame", "data at which the decoder stops"),
            });
        }
    }
}

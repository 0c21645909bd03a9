//! Files that are written from the first byte to the last: items in, bytes out, compressed if that is wanted.
//!
//! Owns: the cutting of items into pieces of work, zeros that become holes, and Zstandard frames with their seek table.
//! Must not know: formats, what a sink is.
//! Keeps: what is unpacked is the same with and without compression, and with any number of threads.
//!
//! Source: Zstandard, `contrib/seekable_format/zstd_seekable_compression_format.md` (version 0.1.0): frames, then a skippable frame with
//! the packed and the unpacked length of each, then how many there are.

use std::ops::ControlFlow;

use memflow_core::{Error, PhysRange, Result};

use super::{Copied, Sink, WriteOptions, pipeline, source::Source};

/// Unpacked bytes in a piece of work, and in a frame.
const PIECE: u64 = 1 << 20;
/// Zeros are told from other bytes in steps of this: the block of most file systems, the page of most machines.
const STEP: usize = 4096;
static ZEROS: [u8; STEP] = [0; STEP];
/// The level that the `zstd` command takes, too.
const LEVEL: i32 = 3;
/// First bytes of the skippable frame that holds the seek table.
const TABLE_MAGIC: u32 = 0x184d_2a5e;
/// Last bytes of the file.
const SEEKABLE_MAGIC: u32 = 0x8f92_eab1;

/// A part of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Zeros.
    Zeros(u64),
    /// Physical memory of one run.
    Memory(PhysRange),
}

/// Writes the items, one behind the other.
///
/// # Errors
/// What cannot be read or written; [`Error::Cancelled`] when the progress callback asks for it.
pub(super) fn write(
    source: &Source<'_>,
    items: impl IntoIterator<Item = Item, IntoIter: Send>,
    compressed: bool,
    sink: &mut dyn Sink,
    options: &WriteOptions<'_>,
) -> Result<()> {
    let jobs = Pieces { items: items.into_iter(), rest: None, zeros_count: compressed };
    let mut progress = Progress::new(source, options);
    if !compressed {
        let plain = |_: &mut (), job: Vec<Item>| plain(source, job);
        return pipeline::in_order(
            options.threads(),
            jobs,
            || (),
            plain,
            |piece| {
                progress.advance(piece.memory)?;
                piece.into_sink(sink)
            },
        );
    }
    let mut table = Vec::new();
    let packed = |packer: &mut Packer, job: Vec<Item>| packer.frame(source, &job);
    pipeline::in_order(options.threads(), jobs, Packer::default, packed, |frame| {
        progress.advance(frame.memory)?;
        table.push((frame.packed.len() as u32, frame.unpacked));
        sink.write(&frame.packed)
    })?;
    sink.write(&seek_table(&table)?)
}

/// The skippable frame that says where the others are.
fn seek_table(frames: &[(u32, u32)]) -> Result<Vec<u8>> {
    let len = (frames.len() as u64).saturating_mul(8).saturating_add(9);
    let (Ok(len), Ok(count)) = (u32::try_from(len), u32::try_from(frames.len())) else {
        return Err(Error::Unsupported {
            what: "a seek table of so many frames".to_owned(),
            why: "its length has 32 bits; write this much without compression, or as kdump".to_owned(),
        });
    };
    let mut table = Vec::with_capacity(len as usize + 8);
    table.extend(TABLE_MAGIC.to_le_bytes());
    table.extend(len.to_le_bytes());
    for (packed, unpacked) in frames {
        table.extend(packed.to_le_bytes());
        table.extend(unpacked.to_le_bytes());
    }
    table.extend(count.to_le_bytes());
    // No checksums here: each frame has its own.
    table.push(0);
    table.extend(SEEKABLE_MAGIC.to_le_bytes());
    Ok(table)
}

/// How much memory has been written.
pub(super) struct Progress<'a> {
    options: &'a WriteOptions<'a>,
    copied: Copied,
}

impl<'a> Progress<'a> {
    pub(super) fn new(source: &Source<'_>, options: &'a WriteOptions<'a>) -> Self {
        let total = source.ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.len()));
        Self { options, copied: Copied { done: 0, total } }
    }

    /// Says that `bytes` more are done.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the callback asks for it.
    pub(super) fn advance(&mut self, bytes: u64) -> Result<()> {
        self.copied.done = self.copied.done.saturating_add(bytes);
        match self.options.on_progress.map(|tell| tell(self.copied)) {
            Some(ControlFlow::Break(())) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
}

/// Items, cut and put together to pieces of work.
struct Pieces<I> {
    items: I,
    rest: Option<Item>,
    /// Whether zeros cost something.
    zeros_count: bool,
}

impl<I: Iterator<Item = Item>> Iterator for Pieces<I> {
    type Item = Vec<Item>;

    fn next(&mut self) -> Option<Vec<Item>> {
        let mut piece = Vec::new();
        let mut len = 0;
        while len < PIECE && piece.len() < STEP {
            let Some(item) = self.rest.take().or_else(|| self.items.next()) else { break };
            let (item, rest) = split(item, PIECE - len, self.zeros_count);
            self.rest = rest;
            len += match &item {
                Item::Bytes(bytes) => bytes.len() as u64,
                Item::Memory(range) => range.len(),
                Item::Zeros(count) if self.zeros_count => *count,
                Item::Zeros(_) => 0,
            };
            piece.push(item);
        }
        Some(piece).filter(|piece| !piece.is_empty())
    }
}

/// Cuts off what is more than `most` bytes.
fn split(item: Item, most: u64, zeros_count: bool) -> (Item, Option<Item>) {
    match item {
        Item::Memory(range) if range.len() > most => {
            let rest = range.start().checked_add(most).and_then(|start| PhysRange::new(start, range.len() - most));
            match PhysRange::new(range.start(), most) {
                Some(first) => (Item::Memory(first), rest.map(Item::Memory)),
                None => (Item::Memory(range), None),
            }
        }
        Item::Zeros(len) if zeros_count && len > most => (Item::Zeros(most), Some(Item::Zeros(len - most))),
        Item::Bytes(mut bytes) if bytes.len() as u64 > most => {
            // Less than the length, which is a usize.
            let rest = bytes.split_off(most as usize);
            (Item::Bytes(bytes), Some(Item::Bytes(rest)))
        }
        item => (item, None),
    }
}

/// A piece as it is written without compression.
#[derive(Default)]
struct Plain {
    /// All that is not zeros.
    bytes: Vec<u8>,
    /// How many bytes and how many zeros follow each other.
    layout: Vec<(usize, u64)>,
    memory: u64,
}

fn plain(source: &Source<'_>, job: Vec<Item>) -> Result<Plain> {
    let mut piece = Plain::default();
    let mut buf = Vec::new();
    for item in job {
        match item {
            Item::Bytes(bytes) => piece.append(&bytes),
            Item::Zeros(len) => piece.skip(len),
            Item::Memory(range) => {
                buf.clear();
                source.read(range, &mut buf)?;
                piece.memory = piece.memory.saturating_add(range.len());
                for step in buf.chunks(STEP) {
                    match step == ZEROS {
                        true => piece.skip(step.len() as u64),
                        false => piece.append(step),
                    }
                }
            }
        }
    }
    Ok(piece)
}

impl Plain {
    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        match self.layout.last_mut() {
            Some((before, 0)) => *before += bytes.len(),
            _ => self.layout.push((bytes.len(), 0)),
        }
    }

    fn skip(&mut self, len: u64) {
        match self.layout.last_mut() {
            Some((_, zeros)) => *zeros = zeros.saturating_add(len),
            None => self.layout.push((0, len)),
        }
    }

    fn into_sink(self, sink: &mut dyn Sink) -> Result<()> {
        let mut rest = &self.bytes[..];
        for (len, zeros) in self.layout {
            let (bytes, after) = rest.split_at(len.min(rest.len()));
            rest = after;
            if !bytes.is_empty() {
                sink.write(bytes)?;
            }
            if zeros > 0 {
                sink.skip(zeros)?;
            }
        }
        Ok(())
    }
}

/// A piece as it is written with compression.
struct Frame {
    packed: Vec<u8>,
    unpacked: u32,
    memory: u64,
}

/// Packs the pieces of one thread.
#[derive(Default)]
struct Packer {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    unpacked: Vec<u8>,
    /// A whole frame of zeros: of large gaps there are many.
    zeros: Option<Vec<u8>>,
}

impl Packer {
    fn frame(&mut self, source: &Source<'_>, job: &[Item]) -> Result<Frame> {
        if job == [Item::Zeros(PIECE)] {
            if self.zeros.is_none() {
                self.unpacked.clear();
                self.unpacked.resize(PIECE as usize, 0);
                self.zeros = Some(self.pack()?);
            }
            let packed = self.zeros.clone().unwrap_or_default();
            return Ok(Frame { packed, unpacked: PIECE as u32, memory: 0 });
        }
        self.unpacked.clear();
        let mut memory: u64 = 0;
        for item in job {
            match item {
                Item::Bytes(bytes) => self.unpacked.extend_from_slice(bytes),
                // At most a piece.
                Item::Zeros(len) => self.unpacked.resize(self.unpacked.len() + *len as usize, 0),
                Item::Memory(range) => {
                    source.read(*range, &mut self.unpacked)?;
                    memory = memory.saturating_add(range.len());
                }
            }
        }
        let unpacked = self.unpacked.len() as u32;
        Ok(Frame { packed: self.pack()?, unpacked, memory })
    }

    fn pack(&mut self) -> Result<Vec<u8>> {
        let failed = |error| Error::io("compressing", error);
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            None => {
                let mut zstd = zstd::bulk::Compressor::new(LEVEL).map_err(failed)?;
                zstd.include_checksum(true).map_err(failed)?;
                self.zstd.insert(zstd)
            }
        };
        zstd.compress(&self.unpacked).map_err(failed)
    }
}

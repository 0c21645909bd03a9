//! Compressed bytes, read at random: unpacked a block at a time, when they are asked for.
//!
//! A format tells where its blocks begin and unpacks one of them ([`Blocks`]); [`BlockInput`] makes bytes by position of that, which a
//! parser of what is inside reads like any others, and physical memory too
//! ([`PositionedMemory`](memflow_core::memory::PositionedMemory)).
//!
//! Owns: cutting reads at the ends of blocks, and the blocks that were unpacked last. Must not know: formats.
//! Keeps: a block that cannot be unpacked is an error of the reads that touch it and of no other; memory is bounded by the cache and one
//! block for each thread; no lock is held while a block is unpacked, and no block is unpacked by two threads at a time.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod cache;

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use memflow_core::{
    PhysRange,
    memory::{ByteSource, Run, RunMap},
};

use self::cache::BlockCache;
use crate::input::ReadAt;

/// A block of unpacked bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    /// Tells it from all others.
    pub(crate) id: u64,
    /// Offset of its first byte among the unpacked bytes.
    pub(crate) start: u64,
    /// Its length when unpacked; not zero, and at most [`MAX_BLOCK`].
    pub(crate) len: usize,
}

/// Longest block. A format with longer ones has to cut them.
pub(crate) const MAX_BLOCK: usize = 64 << 20;

/// A compressed format, after its index was read.
pub(crate) trait Blocks: Send + Sync {
    /// How many bytes there are when all are unpacked.
    fn size(&self) -> u64;

    /// The length of the longest block, as far as it is known without looking at all of them.
    fn longest(&self) -> usize {
        64 << 10
    }

    /// The block that holds the byte at `offset`, which is below [`size`](Self::size).
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when the index makes no sense there.
    fn find(&self, offset: u64) -> io::Result<Block>;

    /// Fills `bytes`, which are as long as the block.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a block that is damaged; else what the system says.
    fn unpack(&self, block: &Block, bytes: &mut [u8]) -> io::Result<()>;

    /// The unpacked bytes that the index does not know to be zeros, in order and apart; `None` where it knows nothing.
    fn populated(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

impl Blocks for Box<dyn Blocks> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn longest(&self) -> usize {
        (**self).longest()
    }

    fn find(&self, offset: u64) -> io::Result<Block> {
        (**self).find(offset)
    }

    fn unpack(&self, block: &Block, bytes: &mut [u8]) -> io::Result<()> {
        (**self).unpack(block, bytes)
    }

    fn populated(&self) -> Option<Vec<Range<u64>>> {
        (**self).populated()
    }
}

/// Holes shorter than this are looked at like what is around them: a run costs more than a few pages of zeros.
const SHORT_HOLE: u64 = 64 << 10;

/// Puts ranges of bytes in one list, without the short holes between them. They come in order.
pub(crate) fn without_short_holes(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut list: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match list.last_mut().filter(|last| range.start.saturating_sub(last.end) < SHORT_HOLE) {
            Some(last) => last.end = last.end.max(range.end),
            None => list.push(range),
        }
    }
    list
}

/// The parts of `runs` whose bytes are in `held`, which is in order.
pub(crate) fn intersect(runs: &RunMap, held: &[Range<u64>]) -> Vec<Run> {
    let mut parts = Vec::new();
    for run in runs.runs() {
        let end = run.offset.saturating_add(run.range.len());
        let first = held.partition_point(|held| held.end <= run.offset);
        for held in held.iter().skip(first).take_while(|held| held.start < end) {
            let (from, to) = (held.start.max(run.offset), held.end.min(end));
            let start = run.range.start().checked_add(from.saturating_sub(run.offset));
            let range = start.and_then(|start| PhysRange::new(start, to.saturating_sub(from)));
            parts.extend(range.map(|range| Run { range, offset: from }));
        }
    }
    parts
}

/// `runs` without the bytes that are known to be zeros.
pub(crate) fn populated(runs: &Arc<RunMap>, held: Option<Vec<Range<u64>>>) -> Arc<RunMap> {
    // Parts of runs that lie apart lie apart.
    held.and_then(|held| RunMap::new(intersect(runs, &held)).ok()).map_or_else(|| runs.clone(), Arc::new)
}

/// The error for a block that makes no sense.
pub(crate) fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Unpacked bytes by position.
#[derive(Debug)]
pub(crate) struct BlockInput<B> {
    path: PathBuf,
    blocks: B,
    cache: BlockCache,
}

impl<B: Blocks> BlockInput<B> {
    /// Bytes under the name `path`, of which `cache` bytes are kept unpacked.
    pub(crate) fn new(path: &Path, blocks: B, cache: u64) -> Self {
        let cache = BlockCache::new(cache, blocks.longest());
        Self { path: path.to_owned(), blocks, cache }
    }

    /// The blocks, without what is kept of them.
    pub(crate) fn into_blocks(self) -> B {
        self.blocks
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if offset >= self.blocks.size() || buf.is_empty() {
            return Ok(0);
        }
        let block = self.blocks.find(offset)?;
        let inside = offset
            .checked_sub(block.start)
            .and_then(|inside| usize::try_from(inside).ok())
            .filter(|inside| *inside < block.len && block.len <= MAX_BLOCK)
            .ok_or_else(|| damaged(format!("no block holds offset {offset:#x}")))?;
        let held = self.cache.get(block.id, block.len, |bytes| self.blocks.unpack(&block, bytes))?;
        Ok(held.copy_to(inside, buf))
    }
}

impl<B: Blocks> ReadAt for BlockInput<B> {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.blocks.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.read(offset, buf)
    }

    fn populated(&self) -> Option<Vec<Range<u64>>> {
        self.blocks.populated()
    }
}

impl<B: Blocks> ByteSource for BlockInput<B> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.read(offset, buf)
    }

    fn populated(&self, runs: &Arc<RunMap>) -> Arc<RunMap> {
        populated(runs, self.blocks.populated())
    }
}

#[cfg(test)]
mod tests;

//! What is written: memory as its runs say, and what stands for bytes that cannot be read.
//!
//! Owns: reading, and what becomes of failures. Must not know: formats, files.
//! Keeps: a byte that was not read is written only as a zero that was asked for, and is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use memflow_core::{
    Error, PhysAddr, PhysRange, PhysicalMemory, Result,
    error::{AccessKind, Reason},
    memory::{Outcome, PhysRead, TargetFacts},
};

use super::{Gaps, stream::Item};

/// What is filled with zeros is filled page by page.
const PAGE: usize = 4096;

/// Consecutive memory.
pub(super) struct Stretch {
    pub(super) range: PhysRange,
    /// What its bytes are.
    pub(super) items: Vec<Item>,
}

/// The memory that is written.
pub(super) struct Source<'a> {
    memory: &'a dyn PhysicalMemory,
    /// What there is, sorted; runs that touch are one.
    pub(super) ranges: Vec<PhysRange>,
    /// What was left out of the source on purpose, as `ranges`.
    pub(super) excluded: Vec<PhysRange>,
    pub(super) gaps: Option<Gaps>,
    filled: AtomicU64,
}

impl<'a> Source<'a> {
    pub(super) fn new(memory: &'a dyn PhysicalMemory, gaps: Option<Gaps>) -> Result<Self> {
        let ranges = joined(memory.metadata().runs.runs().iter().map(|run| run.range));
        if ranges.is_empty() {
            return Err(Error::Unsupported {
                what: "a dump of no memory".to_owned(),
                why: "the target holds none".to_owned(),
            });
        }
        let excluded = joined(memory.excluded_runs().runs().iter().map(|run| run.range));
        Ok(Self { memory, ranges, excluded, gaps, filled: AtomicU64::new(0) })
    }

    /// Memory without gaps, and between two stretches a gap. What the source left out is zeros, if they are wanted for it, or else a gap.
    pub(super) fn stretches(&self) -> Vec<Stretch> {
        let memory = self.ranges.iter().map(|range| (*range, true));
        let zeros = self.excluded.iter().filter(|_| self.gaps == Some(Gaps::Zero)).map(|range| (*range, false));
        let mut parts: Vec<(PhysRange, bool)> = memory.chain(zeros).collect();
        parts.sort_by_key(|(range, _)| range.start());
        let mut stretches: Vec<Stretch> = Vec::new();
        for (range, memory) in parts {
            let item = if memory {
                Item::Memory(range)
            } else {
                self.count_filled(range.len());
                Item::Zeros(range.len())
            };
            match stretches.last_mut() {
                Some(last) if last.range.end() == Some(range.start()) => {
                    let len = last.range.len().saturating_add(range.len());
                    last.range = PhysRange::new(last.range.start(), len).unwrap_or(last.range);
                    last.items.push(item);
                }
                _ => stretches.push(Stretch { range, items: vec![item] }),
            }
        }
        stretches
    }

    /// How many pages of `page` bytes there are from address zero to the end of all that the machine had.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for memory that is not made of whole pages, or of which there are more than `most`.
    pub(super) fn whole_pages(&self, format: &str, page: u64, most: u64) -> Result<u64> {
        let unsupported =
            |what: String, why: String| Err(Error::Unsupported { what: format!("{format} of {what}"), why });
        let odd =
            |range: &&PhysRange| !range.start().as_u64().is_multiple_of(page) || !range.len().is_multiple_of(page);
        if let Some(range) = self.ranges.iter().chain(&self.excluded).find(odd) {
            let why = format!("the format has whole pages of {page} bytes; LiME and ELF have any range");
            return unsupported(format!("{range}"), why);
        }
        let last = [&self.ranges, &self.excluded].into_iter().filter_map(|ranges| ranges.last()?.last()).max();
        let last = last.unwrap_or(PhysAddr::new(0));
        let pages = last.as_u64() / page + 1;
        if pages > most {
            let why =
                format!("it is for up to {most:#x} pages from address zero on; LiME and ELF have gaps of any size");
            return unsupported(format!("memory up to {last}"), why);
        }
        Ok(pages)
    }

    pub(super) fn facts(&self) -> &'a TargetFacts {
        self.memory.facts()
    }

    /// Bytes for which zeros stand so far.
    pub(super) fn filled(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }

    /// Counts bytes for which a format writes zeros itself.
    pub(super) fn count_filled(&self, len: u64) {
        self.filled.fetch_add(len, Ordering::Relaxed);
    }

    /// Reads `range`, which lies in one run, behind what `buf` holds already.
    ///
    /// # Errors
    /// The first bytes that cannot be read, unless zeros are wanted there.
    pub(super) fn read(&self, range: PhysRange, buf: &mut Vec<u8>) -> Result<()> {
        let from = buf.len();
        let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
        buf.resize(from.saturating_add(len), 0);
        let Some(bytes) = buf.get_mut(from..) else { return Ok(()) };
        let whole = self.memory.read_batch(&mut [PhysRead::new(range.start(), bytes)]);
        match whole {
            Ok(()) => Ok(()),
            Err(error @ Error::Unanswered { .. }) => Err(error),
            Err(_) => self.read_pages(range.start(), bytes),
        }
    }

    /// Reads page by page, to know which of them fail.
    fn read_pages(&self, start: PhysAddr, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        let to_edge = PAGE.saturating_sub(start.as_u64() as usize % PAGE).min(bytes.len());
        let (first, rest) = bytes.split_at_mut(to_edge);
        let mut at = start;
        let mut ops = Vec::new();
        for page in std::iter::once(first).chain(rest.chunks_mut(PAGE)) {
            let len = page.len() as u64;
            ops.push(PhysRead::new(at, page));
            at = at.wrapping_add(len);
        }
        let called = self.memory.read_batch(&mut ops);
        let mut failed: Option<(PhysAddr, u64, Reason)> = None;
        for op in &ops {
            let (offset, reason) = match op.outcome {
                Outcome::Done => continue,
                Outcome::Failed { offset, reason } => (offset, reason),
                Outcome::NotAttempted => {
                    called?;
                    return Err(Error::Unanswered { who: self.memory.metadata().name.to_string(), index: 0 });
                }
            };
            let (at, len) = (op.addr.wrapping_add(offset), (op.buf.len() as u64).saturating_sub(offset));
            if self.gaps == Some(Gaps::Zero) {
                self.count_filled(len);
                continue;
            }
            match &mut failed {
                None => failed = Some((at, len, reason)),
                Some((first, before, _)) if first.wrapping_add(*before) == at => *before = before.saturating_add(len),
                Some(_) => break,
            }
        }
        match failed {
            Some((address, len, reason)) => {
                Err(Error::Access { kind: AccessKind::Read, address: address.into(), len, reason })
            }
            None => Ok(()),
        }
    }
}

/// The ranges, sorted, with those that touch as one. No byte is in two of them.
pub(super) fn joined(ranges: impl IntoIterator<Item = PhysRange>) -> Vec<PhysRange> {
    let mut sorted: Vec<PhysRange> = ranges.into_iter().collect();
    sorted.sort_by_key(PhysRange::start);
    let mut joined: Vec<PhysRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if last.end() == Some(range.start()) => {
                let len = last.len().saturating_add(range.len());
                *last = PhysRange::new(last.start(), len).unwrap_or(*last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

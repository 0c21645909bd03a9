//! Which bytes answers were worked out from, so that a write to them is noticed.
//!
//! Owns: a mark for each 4 KiB page that was looked at, many pages to a mark.
//! Must not know: what was worked out.
//! Keeps: a page that was looked at in this epoch is told as such; others may be, too, which costs no more than the answers.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};

use crate::address::{PageSize, PhysRange};

/// Marks, each the last epoch in which one of its pages was looked at.
#[derive(Debug)]
pub(super) struct Sources {
    epochs: Box<[AtomicU64]>,
}

impl Sources {
    /// So many marks; `None` when this machine does not have the memory.
    pub(super) fn new(count: usize) -> Option<Self> {
        let count = count.max(1);
        let mut epochs = Vec::new();
        epochs.try_reserve_exact(count).ok()?;
        epochs.resize_with(count, || AtomicU64::new(0));
        Some(Self { epochs: epochs.into() })
    }

    /// Marks the pages of these ranges. Called before they are read: either a writer sees the marks, or the reader sees the bytes
    /// that it wrote.
    pub(super) fn mark(&self, ranges: impl Iterator<Item = PhysRange>, epoch: u64) {
        for range in ranges {
            let Some((first, last)) = pages(range) else { continue };
            if last.wrapping_sub(first) < self.epochs.len() as u64 {
                (first..=last).for_each(|page| raise(self.mark_of(page), epoch));
            } else {
                self.epochs.iter().for_each(|mark| raise(mark, epoch));
            }
        }
        fence(SeqCst);
    }

    /// Whether a page of the range may have been looked at in this epoch or a later one. Called after it was written to, and after
    /// a fence.
    pub(super) fn is_marked(&self, range: PhysRange, epoch: u64) -> bool {
        let Some((first, last)) = pages(range) else { return false };
        if last.wrapping_sub(first) >= self.epochs.len() as u64 {
            return true;
        }
        (first..=last).any(|page| self.mark_of(page).load(Relaxed) >= epoch)
    }

    #[inline]
    fn mark_of(&self, page: u64) -> &AtomicU64 {
        let hash = page.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = u128::from(hash).wrapping_mul(self.epochs.len() as u128) >> 64;
        #[expect(clippy::indexing_slicing, reason = "a share of the length, and there is at least one")]
        &self.epochs[index as usize]
    }
}

#[inline]
fn raise(mark: &AtomicU64, epoch: u64) {
    if mark.load(Relaxed) < epoch {
        mark.fetch_max(epoch, Relaxed);
    }
}

/// The numbers of the first and the last page of a range.
fn pages(range: PhysRange) -> Option<(u64, u64)> {
    let number = |addr: crate::address::PhysAddr| addr.as_u64() >> PageSize::KIB_4.shift();
    Some((number(range.start()), number(range.last()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::PhysAddr;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    #[test]
    fn writes_to_any_byte_of_a_marked_page_are_told() {
        let sources = Sources::new(4096).unwrap();
        sources.mark([range(0x5ff8, 0x10), range(u64::MAX - 7, 8)].into_iter(), 3);
        for (start, len) in [(0x5000, 1), (0x6fff, 1), (0x4fff, 2), (0, 0x10_0000), (u64::MAX, 1)] {
            assert!(sources.is_marked(range(start, len), 3), "{start:#x}");
        }
        for (start, len) in [(0x4000, 0x1000), (0x7000, 0x1000), (0x5000, 0)] {
            assert!(!sources.is_marked(range(start, len), 3), "{start:#x}");
        }
        assert!(!sources.is_marked(range(0x5000, 1), 4), "what was worked out in an earlier epoch is gone");
        assert!(sources.is_marked(range(0, u64::MAX), 4), "too long to look at every page");
    }

    #[test]
    fn late_mark_of_an_earlier_epoch_takes_nothing_away() {
        let sources = Sources::new(16).unwrap();
        sources.mark([range(0x5000, 8)].into_iter(), 4);
        sources.mark([range(0x5000, 8)].into_iter(), 3);
        assert!(sources.is_marked(range(0x5000, 8), 4));
    }

    #[test]
    fn range_longer_than_all_marks_marks_all_of_them() {
        let sources = Sources::new(4).unwrap();
        sources.mark([range(0, u64::MAX)].into_iter(), 1);
        assert!((0..64).all(|page| sources.is_marked(range(page << 12, 1), 1)));
    }
}

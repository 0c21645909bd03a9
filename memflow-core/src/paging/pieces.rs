//! From pages to the fewest pieces of physical memory.
//!
//! Owns: the rule what is one piece: consecutive virtual and physical addresses of one operation, whatever the pages.
//! Must not know: buffers, how memory is read.
//! Keeps: pieces of an operation come in order of address and cover it without overlap, failed parts included.

use super::walk::Walked;
use crate::{
    address::{PhysAddr, VirtAddr},
    error::Reason,
};

/// Consecutive addresses of one operation that are one copy, or that failed for one reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// The operation.
    pub(crate) op: usize,
    /// The first virtual address.
    pub(crate) first: VirtAddr,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Where it lies, or why it lies nowhere.
    pub(crate) result: Result<PhysAddr, Reason>,
}

/// Joins what walks found, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    open: Option<Piece>,
}

impl Merge {
    /// Takes the next part; returns the piece before it when the two are not one.
    #[inline]
    pub(crate) fn push(&mut self, walked: &Walked<Reason>) -> Option<Piece> {
        let next = Piece {
            op: walked.op,
            first: VirtAddr::new(walked.first),
            // A part is never all 2^64 addresses: operations have buffers.
            len: walked.last.wrapping_sub(walked.first).saturating_add(1),
            result: walked.result.map(|found| found.phys),
        };
        if let Some(open) = &mut self.open
            && open.is_followed_by(&next)
        {
            open.len = open.len.saturating_add(next.len);
            return None;
        }
        self.open.replace(next)
    }

    /// The last piece.
    #[inline]
    pub(crate) fn finish(self) -> Option<Piece> {
        self.open
    }
}

impl Piece {
    #[inline]
    fn is_followed_by(&self, next: &Self) -> bool {
        self.op == next.op
            && self.first.checked_add(self.len) == Some(next.first)
            && match (self.result, next.result) {
                (Ok(here), Ok(there)) => here.checked_add(self.len) == Some(there),
                _ => false,
            }
    }
}

/// Sorts the parts of many walks and joins them.
pub(super) fn merge(mut parts: Vec<Walked<Reason>>) -> Vec<Piece> {
    parts.sort_unstable_by_key(|part| (part.op, part.first));
    let mut merge = Merge::default();
    let mut pieces: Vec<Piece> = parts.iter().filter_map(|part| merge.push(part)).collect();
    pieces.extend(merge.finish());
    pieces
}

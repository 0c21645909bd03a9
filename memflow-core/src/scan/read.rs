//! Bytes of memory, and which of them could not be read.
//!
//! Owns: reads of several pieces into one buffer that go on behind what fails. Must not know: patterns, page tables.
//! Keeps: a byte that was not read is in a gap; where a piece fails, its pages are asked for one by one, in one call.

use crate::{
    address::{PageSize, PhysAddr},
    error::Reason,
    memory::{Outcome, PhysRead, PhysicalMemory},
};

/// Bytes of a window that could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    /// Offset of the first.
    pub(super) offset: usize,
    /// How many.
    pub(super) len: usize,
    /// Why the first could not.
    pub(super) reason: Reason,
}

/// Fills `buf` with pieces of physical memory, one behind the other, each with its length; what could not be read is added to `gaps`.
pub(super) fn read_pieces(
    memory: &dyn PhysicalMemory,
    pieces: impl Iterator<Item = (PhysAddr, usize)>,
    buf: &mut [u8],
    gaps: &mut Vec<Gap>,
) {
    let mut ops: Vec<PhysRead<'_>> = Vec::new();
    let mut rest = buf;
    for (phys, len) in pieces {
        let (piece, after) = rest.split_at_mut(len.min(rest.len()));
        ops.push(PhysRead::new(phys, piece));
        rest = after;
    }
    // The outcomes say the same.
    let _ = memory.read_batch(&mut ops);
    let mut offset = 0;
    for op in ops {
        let len = op.buf.len();
        match op.outcome {
            Outcome::Done => {}
            _ => read_pages(memory, op, offset, gaps),
        }
        offset += len;
    }
}

/// Reads a piece that could not be read whole, page by page.
#[cold]
fn read_pages(memory: &dyn PhysicalMemory, piece: PhysRead<'_>, start: usize, gaps: &mut Vec<Gap>) {
    let page = PageSize::KIB_4;
    let to_edge = usize::try_from(page.bytes() - piece.addr.page_offset(page)).unwrap_or(usize::MAX);
    let (first, rest) = piece.buf.split_at_mut(to_edge.min(piece.buf.len()));
    let size = usize::try_from(page.bytes()).unwrap_or(usize::MAX);
    let mut at = piece.addr;
    let mut ops = Vec::new();
    for part in std::iter::once(first).chain(rest.chunks_mut(size)) {
        let len = part.len() as u64;
        ops.push(PhysRead::new(at, part));
        at = at.wrapping_add(len);
    }
    let _ = memory.read_batch(&mut ops);
    let mut offset = start;
    for op in ops {
        let len = op.buf.len();
        let failed = match op.outcome {
            Outcome::Done => None,
            Outcome::Failed { offset, reason } => Some((usize::try_from(offset).unwrap_or(len).min(len), reason)),
            // Whoever was asked broke the contract, and said nothing of the reason.
            Outcome::NotAttempted => Some((0, Reason::Unknown { status: 0 })),
        };
        if let Some((good, reason)) = failed {
            add_gap(gaps, Gap { offset: offset + good, len: len - good, reason });
        }
        offset += len;
    }
}

/// Adds a gap, joined with the one before it when they touch and have the same kind of reason.
pub(super) fn add_gap(gaps: &mut Vec<Gap>, gap: Gap) {
    match gaps.last_mut() {
        _ if gap.len == 0 => {}
        Some(last) if last.offset + last.len == gap.offset && same_kind(&last.reason, &gap.reason) => {
            last.len += gap.len
        }
        _ => gaps.push(gap),
    }
}

/// True when two reasons differ in addresses only.
pub(super) fn same_kind(a: &Reason, b: &Reason) -> bool {
    match (a, b) {
        (Reason::NotMapped(a), Reason::NotMapped(b)) => a.cause == b.cause && a.level == b.level,
        (Reason::Io { errno: a }, Reason::Io { errno: b }) => a == b,
        (Reason::Unknown { status: a }, Reason::Unknown { status: b }) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

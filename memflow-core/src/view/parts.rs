//! Operations on one view that are carried out on another, at other addresses.
//!
//! Owns: the cut of operations into parts, one call for all of them, and the way of outcomes back. Must not know: why addresses differ.
//! Keeps: what no run holds is never asked for and never done; an outcome counts bytes from the start of the caller's operation.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use super::MemoryView;
use crate::{
    address::{Address, PhysAddr, VirtAddr},
    error::{AnyAddr, Error, Reason, Result},
    memory::{Outcome, Part, ReadOp, RunMap, ViewRead, ViewWrite, WriteOp, finish_reads, finish_writes},
};

/// Where the outcome of a part belongs.
#[derive(Clone, Copy)]
struct Place {
    /// Index of the operation in the caller's batch.
    op: usize,
    /// Bytes from that operation's start.
    offset: u64,
}

/// Addresses of one kind that lead to addresses of a view.
pub(super) struct Parts<'a, A> {
    /// Offsets of the runs are addresses of the view.
    pub(super) runs: &'a RunMap,
    /// Why bytes in no run are missing.
    pub(super) missing: fn(A) -> Reason,
    /// What the view's reason for the byte at an address means to the caller.
    pub(super) reason: fn(Reason, A) -> Reason,
    /// Who answers, for errors.
    pub(super) who: &'a str,
}

impl<A: Address + Into<AnyAddr>> Parts<'_, A> {
    /// Reads a batch from `view`.
    pub(super) fn read(&self, view: &impl MemoryView, ops: &mut [ReadOp<'_, A>]) -> Result<()> {
        let mut reads: Vec<ViewRead<'_>> = Vec::with_capacity(ops.len());
        let mut places: Vec<Place> = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter_mut().enumerate() {
            let (mut rest, mut at) = (&mut *op.buf, 0_usize);
            op.outcome = self.cut(op.addr, rest.len(), |part| {
                let (_, from) = std::mem::take(&mut rest).split_at_mut(part.from.saturating_sub(at));
                let (buf, after) = from.split_at_mut(part.len);
                (rest, at) = (after, part.from.saturating_add(part.len));
                reads.push(ViewRead::new(VirtAddr::new(part.offset), buf));
                places.push(Place::new(index, &part));
            });
        }
        let called = if reads.is_empty() { Ok(()) } else { view.read_batch(&mut reads) };
        let outcomes: Vec<Outcome> = reads.iter().map(|read| read.outcome).collect();
        for (place, outcome) in places.into_iter().zip(outcomes) {
            if let Some(op) = ops.get_mut(place.op) {
                self.fold(&mut op.outcome, op.addr, place.offset, outcome);
            }
        }
        verdict(called, finish_reads(self.who, ops))
    }

    /// Writes a batch to `view`.
    pub(super) fn write(&self, view: &impl MemoryView, ops: &mut [WriteOp<'_, A>]) -> Result<()> {
        let mut writes: Vec<ViewWrite<'_>> = Vec::with_capacity(ops.len());
        let mut places: Vec<Place> = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter_mut().enumerate() {
            let buf = op.buf;
            op.outcome = self.cut(op.addr, buf.len(), |part| {
                let bytes = buf.get(part.from..).and_then(|rest| rest.get(..part.len)).unwrap_or_default();
                writes.push(ViewWrite::new(VirtAddr::new(part.offset), bytes));
                places.push(Place::new(index, &part));
            });
        }
        let called = if writes.is_empty() { Ok(()) } else { view.write_batch(&mut writes) };
        let outcomes: Vec<Outcome> = writes.iter().map(|write| write.outcome).collect();
        for (place, outcome) in places.into_iter().zip(outcomes) {
            if let Some(op) = ops.get_mut(place.op) {
                self.fold(&mut op.outcome, op.addr, place.offset, outcome);
            }
        }
        verdict(called, finish_writes(self.who, ops))
    }

    /// The parts of an operation, and its outcome as far as it is known without asking.
    fn cut(&self, addr: A, len: usize, each: impl FnMut(Part)) -> Outcome {
        let missing = |at: PhysAddr| (self.missing)(A::from_u64(at.as_u64()));
        self.runs.cut(PhysAddr::new(addr.to_u64()), len, missing, each)
    }

    /// Adds the outcome of a part to that of its operation.
    fn fold(&self, whole: &mut Outcome, addr: A, part_at: u64, part: Outcome) {
        let told = match part {
            Outcome::Failed { offset, reason } => {
                let at = A::from_u64(addr.to_u64().wrapping_add(part_at).wrapping_add(offset));
                Outcome::Failed { offset, reason: (self.reason)(reason, at) }
            }
            other => other,
        };
        whole.add_part(part_at, told);
    }
}

impl Place {
    fn new(op: usize, part: &Part) -> Self {
        Self { op, offset: u64::try_from(part.from).unwrap_or(u64::MAX) }
    }
}

/// The error of a batch: what its operations say, or what the view said of the call when it left one unanswered.
fn verdict(called: Result<()>, folded: Result<()>) -> Result<()> {
    match (called, folded) {
        (Err(error), Err(Error::Unanswered { .. })) => Err(error),
        (_, folded) => folded,
    }
}

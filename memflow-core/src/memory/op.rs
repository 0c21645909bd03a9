//! Operations on memory, and the one place that decides whether a batch succeeded.
//!
//! Owns: [`ReadOp`], [`WriteOp`], their outcomes, and the fold of outcomes into a `Result`.
//! Must not know: connectors, paging, who asks.
//! Keeps: an operation starts as "not attempted" and only becomes "done" by somebody saying so; `Ok` means that every byte arrived.

use std::fmt;

use crate::{
    address::{Address, PhysAddr, PhysRange, VirtAddr},
    error::{AccessKind, AnyAddr, Error, Reason, Result},
};

/// What became of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// Nobody has tried yet.
    #[default]
    NotAttempted,
    /// Every byte was copied.
    Done,
    /// At least one byte was not copied. Bytes of other pages may have been.
    Failed {
        /// Bytes from the start of the operation to the first one that failed.
        offset: u64,
        /// Why that byte failed.
        reason: Reason,
    },
}

impl Outcome {
    /// True when every byte was copied.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Records a failure of the byte at `offset`, unless an earlier byte is known to have failed already.
    pub fn fail(&mut self, offset: u64, reason: Reason) {
        match self {
            Self::Failed { offset: earlier, .. } if *earlier <= offset => {}
            _ => *self = Self::Failed { offset, reason },
        }
    }

    /// Adds what became of the part of the operation that starts at `offset`. A part that nobody answered for keeps the whole from
    /// counting as done.
    #[inline]
    pub fn add_part(&mut self, offset: u64, part: Self) {
        match part {
            Self::Done => {}
            Self::Failed { offset: inside, reason } => self.fail(offset.saturating_add(inside), reason),
            // Whoever was asked broke the contract.
            Self::NotAttempted => *self = Self::NotAttempted,
        }
    }
}

/// One read of a batch: from where, into what, and what became of it.
pub struct ReadOp<'a, A> {
    /// First address.
    pub addr: A,
    /// Where the bytes go. After a failure it holds the bytes that could be read; the others are left as they were.
    pub buf: &'a mut [u8],
    /// What became of it; set by whoever carries the read out.
    pub outcome: Outcome,
}

/// One write of a batch: to where, from what, and what became of it.
pub struct WriteOp<'a, A> {
    /// First address.
    pub addr: A,
    /// The bytes to write.
    pub buf: &'a [u8],
    /// What became of it; set by whoever carries the write out.
    pub outcome: Outcome,
}

/// A read of physical memory.
pub type PhysRead<'a> = ReadOp<'a, PhysAddr>;
/// A write to physical memory.
pub type PhysWrite<'a> = WriteOp<'a, PhysAddr>;
/// A read through a view.
pub type ViewRead<'a> = ReadOp<'a, VirtAddr>;
/// A write through a view.
pub type ViewWrite<'a> = WriteOp<'a, VirtAddr>;

impl<'a, A> ReadOp<'a, A> {
    /// A read that nobody has tried yet.
    pub fn new(addr: A, buf: &'a mut [u8]) -> Self {
        Self { addr, buf, outcome: Outcome::NotAttempted }
    }
}

impl<'a, A> WriteOp<'a, A> {
    /// A write that nobody has tried yet.
    pub fn new(addr: A, buf: &'a [u8]) -> Self {
        Self { addr, buf, outcome: Outcome::NotAttempted }
    }
}

impl PhysWrite<'_> {
    /// The addresses that it may change: also those before the end of the address space, if it runs over that.
    pub(super) fn touched(&self) -> Option<PhysRange> {
        let rest = (self.buf.len() as u64).checked_sub(1)?;
        PhysRange::inclusive(self.addr, self.addr.checked_add(rest).unwrap_or(PhysAddr::new(u64::MAX)))
    }
}

impl<A: fmt::Debug> fmt::Debug for ReadOp<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadOp({:?}, {} bytes, {:?})", self.addr, self.buf.len(), self.outcome)
    }
}

impl<A: fmt::Debug> fmt::Debug for WriteOp<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteOp({:?}, {} bytes, {:?})", self.addr, self.buf.len(), self.outcome)
    }
}

/// Folds the outcomes of a batch of reads: `Ok` when all are done, else an error for the first that is not.
///
/// `who` names the connector or view for [`Error::Unanswered`] and [`Reason::Panicked`].
pub fn finish_reads<A: Address + Into<AnyAddr>>(who: &str, ops: &[ReadOp<'_, A>]) -> Result<()> {
    match ops.iter().position(|op| !op.outcome.is_done()) {
        None => Ok(()),
        Some(index) => Err(failure(
            who,
            AccessKind::Read,
            index,
            ops.get(index).map(|op| (op.addr.into(), op.buf.len(), op.outcome)),
        )),
    }
}

/// Folds the outcomes of a batch of writes: `Ok` when all are done, else an error for the first that is not.
///
/// `who` names the connector or view for [`Error::Unanswered`] and [`Reason::Panicked`].
pub fn finish_writes<A: Address + Into<AnyAddr>>(who: &str, ops: &[WriteOp<'_, A>]) -> Result<()> {
    match ops.iter().position(|op| !op.outcome.is_done()) {
        None => Ok(()),
        Some(index) => Err(failure(
            who,
            AccessKind::Write,
            index,
            ops.get(index).map(|op| (op.addr.into(), op.buf.len(), op.outcome)),
        )),
    }
}

/// Refuses every write of a batch with [`Reason::ReadOnly`]. An empty batch is done.
///
/// `who` names the connector or view, as for [`finish_writes`].
pub fn refuse_writes<A: Address + Into<AnyAddr>>(who: &str, ops: &mut [WriteOp<'_, A>]) -> Result<()> {
    for op in &mut *ops {
        op.outcome = Outcome::Failed { offset: 0, reason: Reason::ReadOnly };
    }
    finish_writes(who, ops)
}

#[cold]
fn failure(who: &str, kind: AccessKind, index: usize, op: Option<(AnyAddr, usize, Outcome)>) -> Error {
    match op {
        Some((address, len, Outcome::Failed { reason, .. })) => {
            let error = Error::Access { kind, address, len: len as u64, reason };
            // A defect has an owner; of everything else it is the address that matters.
            if reason == Reason::Panicked { error.context(who.to_owned()) } else { error }
        }
        _ => Error::Unanswered { who: who.to_owned(), index },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unanswered_operation_is_an_error() {
        let mut byte = [0];
        let ops = [PhysRead::new(PhysAddr::new(0), &mut byte)];
        assert!(matches!(finish_reads("test", &ops), Err(Error::Unanswered { index: 0, .. })));
    }

    #[test]
    fn first_failing_byte_wins() {
        let mut outcome = Outcome::Done;
        outcome.fail(0x2000, Reason::ReadOnly);
        outcome.fail(0x1000, Reason::OutOfRange);
        outcome.fail(0x3000, Reason::ReadOnly);
        assert_eq!(outcome, Outcome::Failed { offset: 0x1000, reason: Reason::OutOfRange });
    }

    #[test]
    fn parts_count_from_the_start_of_the_whole() {
        let mut outcome = Outcome::Done;
        outcome.add_part(0, Outcome::Done);
        assert!(outcome.is_done());
        outcome.add_part(0x1000, Outcome::Failed { offset: 8, reason: Reason::OutOfRange });
        outcome.add_part(0x2000, Outcome::Failed { offset: 0, reason: Reason::ReadOnly });
        assert_eq!(outcome, Outcome::Failed { offset: 0x1008, reason: Reason::OutOfRange });
        outcome.add_part(0x3000, Outcome::NotAttempted);
        assert_eq!(outcome, Outcome::NotAttempted);
    }

    #[test]
    fn empty_batch_is_done() {
        assert!(finish_reads::<PhysAddr>("test", &[]).is_ok());
    }
}

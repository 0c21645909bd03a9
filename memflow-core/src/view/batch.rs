//! Reads and writes that are collected and carried out together.
//!
//! Owns: [`Batch`], and the order of its operations. Must not know: what a structure is; that is [`Batcher`]'s.
//! Keeps: nothing is carried out before it is committed, and nothing twice: committing consumes the batch.

use dataview::Pod;

use super::MemoryView;
use crate::{
    address::VirtAddr,
    error::{AccessKind, Error, Result},
    memory::{Outcome, ViewRead, ViewWrite},
};

/// Reads and writes for one view, carried out in the order in which they were added.
///
/// Reads that follow each other are one call, and so are writes. What is read after a write sees it.
///
/// ```
/// # use std::sync::Arc;
/// # use memflow_core::{memory::*, view::{Batch, PhysicalView}, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x2000), facts: TargetFacts::default() };
/// # let mut bytes = vec![0; 0x2000];
/// # (bytes[0x10], bytes[0x1800]) = (7, 9);
/// # let view = PhysicalView::new(Arc::new(BufferMemory::new(config, bytes)?));
/// let (mut number, mut name, mut far) = (0_u32, [0; 8], 0_u64);
/// let mut batch = Batch::new();
/// batch.read(VirtAddr::new(0x10), &mut number).read_into(VirtAddr::new(0x1800), &mut name);
/// batch.read(VirtAddr::new(0x7000), &mut far);
/// let committed = batch.commit(&view);
/// assert_eq!((number, name[0]), (7, 9));
/// let failed: Vec<usize> = committed.failures().map(|failure| failure.index).collect();
/// assert_eq!(failed, [2]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing is read or written before it is committed"]
pub struct Batch<'a> {
    steps: Vec<Step<'a>>,
    count: usize,
}

/// Operations of one kind that follow each other.
#[derive(Debug)]
enum Step<'a> {
    Reads(Vec<ViewRead<'a>>),
    Writes(Vec<ViewWrite<'a>>),
}

/// What became of a [`Batch`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "operations may have failed"]
pub struct Committed {
    failures: Vec<Failure>,
    count: usize,
}

/// An operation that is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Its number, in the order of adding, from zero on.
    pub index: usize,
    /// Whether it was a read or a write.
    pub kind: AccessKind,
    /// Its first address.
    pub addr: VirtAddr,
    /// Bytes.
    pub len: usize,
    /// What became of it. [`Outcome::NotAttempted`] when the view gave no answer.
    pub outcome: Outcome,
}

/// A structure whose members are read and written in one batch; made by `#[derive(Batcher)]` of `memflow-derive`.
pub trait Batcher {
    /// Adds a read of each member, of a structure that lies at `addr`.
    fn add_reads<'a>(&'a mut self, addr: VirtAddr, batch: &mut Batch<'a>);

    /// Adds a write of each member.
    fn add_writes<'a>(&'a self, addr: VirtAddr, batch: &mut Batch<'a>);

    /// Reads all members from a structure at `addr`.
    ///
    /// # Errors
    /// The first member that could not be read; the others are read all the same.
    fn read_members(&mut self, view: &(impl MemoryView + ?Sized), addr: VirtAddr) -> Result<()> {
        let mut batch = Batch::new();
        self.add_reads(addr, &mut batch);
        batch.commit(view).into_result()
    }

    /// Writes all members to a structure at `addr`.
    ///
    /// # Errors
    /// The first member that could not be written; the others are written all the same.
    fn write_members(&self, view: &(impl MemoryView + ?Sized), addr: VirtAddr) -> Result<()> {
        let mut batch = Batch::new();
        self.add_writes(addr, &mut batch);
        batch.commit(view).into_result()
    }
}

impl<'a> Batch<'a> {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True before anything was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a read of a value.
    pub fn read<T: Pod>(&mut self, addr: VirtAddr, value: &'a mut T) -> &mut Self {
        self.read_into(addr, dataview::bytes_mut(value))
    }

    /// Adds a read of bytes.
    pub fn read_into(&mut self, addr: VirtAddr, buf: &'a mut [u8]) -> &mut Self {
        let op = ViewRead::new(addr, buf);
        self.count = self.count.saturating_add(1);
        match self.steps.last_mut() {
            Some(Step::Reads(reads)) => reads.push(op),
            _ => self.steps.push(Step::Reads(vec![op])),
        }
        self
    }

    /// Adds a write of a value.
    pub fn write<T: Pod>(&mut self, addr: VirtAddr, value: &'a T) -> &mut Self {
        self.write_from(addr, dataview::bytes(value))
    }

    /// Adds a write of bytes.
    pub fn write_from(&mut self, addr: VirtAddr, bytes: &'a [u8]) -> &mut Self {
        let op = ViewWrite::new(addr, bytes);
        self.count = self.count.saturating_add(1);
        match self.steps.last_mut() {
            Some(Step::Writes(writes)) => writes.push(op),
            _ => self.steps.push(Step::Writes(vec![op])),
        }
        self
    }

    /// Adds a read of each member of a structure at `addr`.
    pub fn read_members(&mut self, addr: VirtAddr, structure: &'a mut impl Batcher) -> &mut Self {
        structure.add_reads(addr, self);
        self
    }

    /// Carries everything out, also what comes after a failure.
    pub fn commit(self, view: &(impl MemoryView + ?Sized)) -> Committed {
        let mut committed = Committed { failures: Vec::new(), count: self.count };
        let mut first = 0usize;
        for step in self.steps {
            // Failures are in the outcomes.
            match step {
                Step::Reads(mut ops) => {
                    let _ = view.read_batch(&mut ops);
                    let outcomes = ops.iter().map(|op| (op.addr, op.buf.len(), op.outcome));
                    first = committed.add(first, AccessKind::Read, outcomes);
                }
                Step::Writes(mut ops) => {
                    let _ = view.write_batch(&mut ops);
                    let outcomes = ops.iter().map(|op| (op.addr, op.buf.len(), op.outcome));
                    first = committed.add(first, AccessKind::Write, outcomes);
                }
            }
        }
        committed
    }
}

impl Committed {
    /// Adds operations of which the first has the number `first`; gives the number after the last.
    fn add(
        &mut self,
        first: usize,
        kind: AccessKind,
        outcomes: impl Iterator<Item = (VirtAddr, usize, Outcome)>,
    ) -> usize {
        let mut index = first;
        for (addr, len, outcome) in outcomes {
            if !outcome.is_done() {
                self.failures.push(Failure { index, kind, addr, len, outcome });
            }
            index = index.saturating_add(1);
        }
        index
    }

    /// True when every operation is done.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// Operations of the batch.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when the batch had no operation.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Operations that are not done, in order.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.failures.iter()
    }

    /// `Ok` when every operation is done.
    ///
    /// # Errors
    /// [`Error::Access`] of the first that failed; [`Error::Unanswered`] when the view gave no answer for it.
    pub fn into_result(self) -> Result<()> {
        let Some(Failure { index, kind, addr, len, outcome }) = self.failures.first().copied() else { return Ok(()) };
        match outcome {
            Outcome::Failed { reason, .. } => {
                Err(Error::Access { kind, address: addr.into(), len: len as u64, reason })
            }
            _ => Err(Error::Unanswered { who: "view".to_owned(), index }),
        }
    }
}

//! Physical memory that is read through a process.
//!
//! Owns: [`ProcessMemory`]: the way from operations on inner physical addresses to operations on the process, and back.
//! Must not know: how the process was found, how its memory is translated.
//! Keeps: one call of the process for a whole batch; an outcome names inner addresses only, as nobody above knows the outer ones;
//! what the process cannot give is never zeros; nothing that was worked out from the bytes outlives a write to them.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::Arc;

use memflow_core::{
    Error, PhysAddr, PhysRange, PhysicalMemory, Reason, Result, VirtAddr,
    memory::{
        Lookaside, Metadata, Outcome, PhysRead, PhysWrite, Piece, RunMap, TargetFacts, ViewRead, ViewWrite,
        finish_reads, finish_writes,
    },
    os::Process,
};

/// The RAM of a machine that is held by a process of another machine.
pub struct ProcessMemory {
    process: Box<dyn Process>,
    name: Arc<str>,
    /// Offsets of the runs are virtual addresses of the process.
    runs: Arc<RunMap>,
    facts: TargetFacts,
    lookaside: Lookaside,
}

/// Where the outcome of an operation on the process belongs.
#[derive(Clone, Copy)]
struct Place {
    /// Index of the operation in the caller's batch.
    op: usize,
    /// Bytes from that operation's start.
    offset: u64,
}

/// Part of an operation: bytes from its start, length, and where they lie in the process.
struct Part {
    offset: u64,
    len: usize,
    virt: VirtAddr,
}

impl std::fmt::Debug for ProcessMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessMemory({})", self.name)
    }
}

impl ProcessMemory {
    pub(crate) fn new(process: Box<dyn Process>, name: String, runs: RunMap) -> Self {
        let lookaside = Lookaside::by_liveness(process.physical_memory().metadata().liveness);
        Self { process, name: name.into(), runs: Arc::new(runs), facts: TargetFacts::default(), lookaside }
    }

    /// The process that holds the memory.
    pub fn process(&self) -> &dyn Process {
        &*self.process
    }

    /// Where an inner physical address lies in the process; `None` when the machine has no memory there.
    pub fn virtual_address(&self, phys: PhysAddr) -> Option<VirtAddr> {
        let run = self.runs.find(phys)?;
        run.offset.checked_add(phys.offset_from(run.range.start())?).map(VirtAddr::new)
    }

    /// The parts of an operation that lie in the process, and its outcome as far as it is known without asking.
    fn parts(&self, addr: PhysAddr, len: usize) -> (Vec<Part>, Outcome) {
        let mut outcome = Outcome::Done;
        let (mut parts, mut offset) = (Vec::new(), 0_u64);
        let wanted = u64::try_from(len).unwrap_or(u64::MAX);
        let range = PhysRange::new(addr, wanted).or_else(|| {
            // It runs over the last address, and fails from there on.
            let range = PhysRange::inclusive(addr, PhysAddr::new(u64::MAX))?;
            outcome.fail(range.len(), Reason::OutOfRange);
            Some(range)
        });
        for piece in range.into_iter().flat_map(|range| self.runs.pieces(range)) {
            let range = match piece {
                Piece::Present { range, offset: virt, .. } => {
                    let len = usize::try_from(range.len()).unwrap_or(len);
                    parts.push(Part { offset, len, virt: VirtAddr::new(virt) });
                    range
                }
                Piece::Gap { range } => {
                    outcome.fail(offset, Reason::NotInImage { phys: range.start() });
                    range
                }
            };
            offset = offset.saturating_add(range.len());
        }
        (parts, outcome)
    }
}

/// Adds the outcome of a part to that of its operation, in the terms of inner addresses.
fn fold(whole: &mut Outcome, addr: PhysAddr, part_at: u64, part: Outcome) {
    match part {
        Outcome::Done => {}
        Outcome::Failed { offset, reason } => {
            let offset = part_at.saturating_add(offset);
            let phys = addr.wrapping_add(offset);
            whole.fail(offset, inner_reason(reason, phys));
        }
        // The process broke its contract: the operation must not count as done.
        Outcome::NotAttempted => *whole = Outcome::NotAttempted,
    }
}

/// What the reason of an outer failure means for the byte at an inner address.
fn inner_reason(outer: Reason, phys: PhysAddr) -> Reason {
    match outer {
        // A page that the process does not have, or that the outer target does not hold.
        Reason::NotMapped(_) | Reason::OutOfRange | Reason::NotInImage { .. } => Reason::NotInImage { phys },
        Reason::Truncated { .. } => Reason::Truncated { phys },
        // The rest holds no address, or an entry that says where the outer system put the page.
        other => other,
    }
}

/// The error of a batch: what its operations say, or what the process said of the call when it left one unanswered.
fn verdict(called: Result<()>, folded: Result<()>) -> Result<()> {
    match (called, folded) {
        (Err(error), Err(Error::Unanswered { .. })) => Err(error),
        (_, folded) => folded,
    }
}

impl PhysicalMemory for ProcessMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let mut reads: Vec<ViewRead<'_>> = Vec::with_capacity(ops.len());
        let mut places: Vec<Place> = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter_mut().enumerate() {
            let (parts, outcome) = self.parts(op.addr, op.buf.len());
            op.outcome = outcome;
            let (mut rest, mut at) = (&mut *op.buf, 0_u64);
            for part in parts {
                let skip = usize::try_from(part.offset.saturating_sub(at)).unwrap_or(usize::MAX);
                let taken = std::mem::take(&mut rest).split_at_mut_checked(skip);
                let Some((buf, after)) = taken.and_then(|(_, from)| from.split_at_mut_checked(part.len)) else { break };
                rest = after;
                at = part.offset.saturating_add(u64::try_from(part.len).unwrap_or(u64::MAX));
                reads.push(ViewRead::new(part.virt, buf));
                places.push(Place { op: index, offset: part.offset });
            }
        }
        let called = if reads.is_empty() { Ok(()) } else { self.process.read_batch(&mut reads) };
        let outcomes: Vec<Outcome> = reads.iter().map(|read| read.outcome).collect();
        for (place, outcome) in places.into_iter().zip(outcomes) {
            if let Some(op) = ops.get_mut(place.op) {
                fold(&mut op.outcome, op.addr, place.offset, outcome);
            }
        }
        verdict(called, finish_reads(&self.name, ops))
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        // Dropped when the writes have been carried out.
        let _writing = self.lookaside.writing(ops);
        let mut writes: Vec<ViewWrite<'_>> = Vec::with_capacity(ops.len());
        let mut places: Vec<Place> = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter_mut().enumerate() {
            let (parts, outcome) = self.parts(op.addr, op.buf.len());
            op.outcome = outcome;
            for part in parts {
                let from = usize::try_from(part.offset).unwrap_or(usize::MAX);
                let Some(bytes) = op.buf.get(from..).and_then(|rest| rest.get(..part.len)) else { break };
                writes.push(ViewWrite::new(part.virt, bytes));
                places.push(Place { op: index, offset: part.offset });
            }
        }
        let called = if writes.is_empty() { Ok(()) } else { self.process.write_batch(&mut writes) };
        let outcomes: Vec<Outcome> = writes.iter().map(|write| write.outcome).collect();
        for (place, outcome) in places.into_iter().zip(outcomes) {
            if let Some(op) = ops.get_mut(place.op) {
                fold(&mut op.outcome, op.addr, place.offset, outcome);
            }
        }
        verdict(called, finish_writes(&self.name, ops))
    }

    fn metadata(&self) -> Metadata {
        let outer = self.process.physical_memory().metadata();
        Metadata {
            name: self.name.clone(),
            runs: self.runs.clone(),
            liveness: outer.liveness,
            read_only: self.process.metadata().read_only,
            ideal_batch: outer.ideal_batch,
        }
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        Some(&self.lookaside)
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

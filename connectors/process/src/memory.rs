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
    Error, PhysAddr, PhysicalMemory, Reason, Result, VirtAddr,
    memory::{
        Lookaside, Metadata, Outcome, Part, PhysRead, PhysWrite, RunMap, TargetFacts, ViewRead, ViewWrite,
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

impl Place {
    fn new(op: usize, part: &Part) -> Self {
        Self { op, offset: u64::try_from(part.from).unwrap_or(u64::MAX) }
    }
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
        let mut parts = Vec::new();
        let outcome = self.runs.cut(addr, len, |phys| Reason::NotInImage { phys }, |part| parts.push(part));
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
            let (mut rest, mut at) = (&mut *op.buf, 0_usize);
            for part in parts {
                let (_, from) = std::mem::take(&mut rest).split_at_mut(part.from.saturating_sub(at));
                let (buf, after) = from.split_at_mut(part.len);
                (rest, at) = (after, part.from.saturating_add(part.len));
                reads.push(ViewRead::new(VirtAddr::new(part.offset), buf));
                places.push(Place::new(index, &part));
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
                let bytes = op.buf.get(part.from..).and_then(|rest| rest.get(..part.len)).unwrap_or_default();
                writes.push(ViewWrite::new(VirtAddr::new(part.offset), bytes));
                places.push(Place::new(index, &part));
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

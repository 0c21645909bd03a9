//! Physical memory that is read through a kcore file.
//!
//! Owns: the way from a batch of operations to parts of the file, and back to outcomes.
//! Must not know: how the runs were found.
//! Keeps: a failure is one of its operation and page; an address outside of the runs is an outcome, never zeros.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fs::File, sync::Arc};

use memflow_core::{
    PhysicalMemory, Reason, Result,
    memory::{Liveness, Lookaside, Metadata, PhysRead, PhysWrite, RunMap, TargetFacts, finish_reads, refuse_writes},
};

use crate::transfer::{self, Part};

/// Operations per call at which the kernel is busy copying rather than with being called.
const IDEAL_BATCH: usize = 64;

/// The memory of the machine that wrote a kcore file. Shared by threads: each read names its place in the file.
#[derive(Debug)]
pub struct KcoreMemory {
    file: File,
    name: Arc<str>,
    runs: Arc<RunMap>,
    facts: TargetFacts,
    lookaside: Lookaside,
}

impl KcoreMemory {
    pub(crate) fn new(file: File, name: String, runs: RunMap, facts: TargetFacts) -> Self {
        let lookaside = Lookaside::by_liveness(Liveness::Live);
        Self { file, name: name.into(), runs: Arc::new(runs), facts, lookaside }
    }
}

/// Cuts an operation into the parts that the file holds, and says what became of the rest of it.
fn cut<'a>(runs: &RunMap, index: usize, op: &'a mut PhysRead<'_>, parts: &mut Vec<Part<'a>>) {
    let missing = |phys| Reason::NotInImage { phys };
    let (mut rest, mut at) = (&mut *op.buf, 0_usize);
    op.outcome = runs.cut(op.addr, rest.len(), missing, |part| {
        let (_, from) = std::mem::take(&mut rest).split_at_mut(part.from.saturating_sub(at));
        let (buf, after) = from.split_at_mut(part.len);
        (rest, at) = (after, part.from.saturating_add(part.len));
        let from = u64::try_from(part.from).unwrap_or(u64::MAX);
        parts.push(Part { op: index, from, offset: part.offset, buf, failed: None });
    });
}

impl PhysicalMemory for KcoreMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let mut parts = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter_mut().enumerate() {
            cut(&self.runs, index, op, &mut parts);
        }
        transfer::read(&self.file, &mut parts);
        let failed: Vec<_> =
            parts.iter().filter_map(|part| part.failed.map(|failed| (part.op, part.from, failed))).collect();
        for (index, from, (inside, error)) in failed {
            let Some(op) = ops.get_mut(index) else { continue };
            let offset = from.saturating_add(inside);
            let reason = match error {
                Some(errno) => Reason::Io { errno },
                None => Reason::Truncated { phys: op.addr.wrapping_add(offset) },
            };
            op.outcome.fail(offset, reason);
        }
        finish_reads(&self.name, ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        refuse_writes(&self.name, ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: self.name.clone(),
            runs: self.runs.clone(),
            liveness: Liveness::Live,
            read_only: true,
            ideal_batch: IDEAL_BATCH,
        }
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        Some(&self.lookaside)
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

//! Generated machines as physical memory that can be written to.
//!
//! Owns: [`memory`]. Must not know: what is in a machine, how anything in it is found.

use std::sync::{Arc, PoisonError, RwLock};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory, Reason, Result,
    memory::{Liveness, Metadata, Outcome, PhysRead, PhysWrite, Run, RunMap, TargetFacts, finish_reads, finish_writes},
};
use memflow_windows_images::Windows;

const PAGE: u64 = 0x1000;

/// A machine that changes only when it is written to.
struct Memory {
    windows: RwLock<Windows>,
    runs: Arc<RunMap>,
    facts: TargetFacts,
}

/// The memory of a machine of which nobody knows anything.
pub(crate) fn memory(windows: Windows) -> Arc<dyn PhysicalMemory> {
    memory_with(windows, TargetFacts::default())
}

/// The same with what its connector knows.
pub(crate) fn memory_with(windows: Windows, facts: TargetFacts) -> Arc<dyn PhysicalMemory> {
    let runs = windows.runs();
    let runs = runs.iter().map(|run| {
        let start = PhysAddr::new(run.start * PAGE);
        Run { range: PhysRange::new(start, (run.end - run.start) * PAGE).unwrap(), offset: start.as_u64() }
    });
    let runs = Arc::new(RunMap::new(runs).unwrap());
    Arc::new(Memory { windows: RwLock::new(windows), runs, facts })
}

/// Calls `each` for the part of every page.
fn parts(start: PhysAddr, len: usize, mut each: impl FnMut(u64, std::ops::Range<usize>) -> bool) {
    let mut done = 0;
    while done < len {
        let at = start.as_u64() + done as u64;
        let here = (len - done).min((PAGE - at % PAGE) as usize);
        if !each(at, done..done + here) {
            return;
        }
        done += here;
    }
}

impl PhysicalMemory for Memory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let windows = self.windows.read().unwrap_or_else(PoisonError::into_inner);
        for op in &mut *ops {
            op.outcome = Outcome::Done;
            let (len, outcome) = (op.buf.len(), &mut op.outcome);
            parts(op.addr, len, |at, part| match windows.read(at, part.len()) {
                Some(bytes) => {
                    op.buf[part].copy_from_slice(&bytes);
                    true
                }
                None => {
                    outcome.fail(part.start as u64, Reason::NotInImage { phys: PhysAddr::new(at) });
                    false
                }
            });
        }
        finish_reads("a generated machine", ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        let mut windows = self.windows.write().unwrap_or_else(PoisonError::into_inner);
        for op in &mut *ops {
            windows.write(op.addr.as_u64(), op.buf);
            op.outcome = Outcome::Done;
        }
        finish_writes("a generated machine", ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: "a generated machine".into(),
            runs: self.runs.clone(),
            liveness: Liveness::Live,
            read_only: false,
            ideal_batch: 64,
        }
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

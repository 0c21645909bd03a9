//! Memory that takes writes.
//!
//! Owns: [`LockedMemory`], bytes behind a lock. Must not know: paging, views.
//! Keeps: no direct map and no unsafe code; a batch is carried out whole under the lock, in order.

use std::sync::{Arc, Mutex};

use crate::{
    address::PhysAddr,
    error::{Error, Reason, Result},
    memory::{
        Liveness, Metadata, Outcome, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts, finish_reads,
        finish_writes,
    },
};

/// Writable physical memory in a buffer.
#[derive(Debug)]
pub struct LockedMemory {
    runs: Arc<RunMap>,
    bytes: Mutex<Vec<u8>>,
    facts: TargetFacts,
}

impl LockedMemory {
    /// Memory whose runs lie in `bytes`.
    ///
    /// # Errors
    /// [`Error::Range`] when a run reaches past the end of the buffer.
    pub fn new(runs: RunMap, bytes: Vec<u8>) -> Result<Self> {
        for run in runs.runs() {
            if run.offset.checked_add(run.range.len()).is_none_or(|end| end > bytes.len() as u64) {
                return Err(Error::Range { address: run.range.start().into(), len: run.range.len() });
            }
        }
        Ok(Self { runs: Arc::new(runs), bytes: Mutex::new(bytes), facts: TargetFacts::default() })
    }

    /// Calls `each` with the part of the buffer and the offset in the operation for every piece that is held; the outcome.
    fn for_each_piece(&self, addr: PhysAddr, len: usize, mut each: impl FnMut(&mut [u8], usize)) -> Outcome {
        let mut bytes = self.bytes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let missing = |phys| Reason::NotInImage { phys };
        self.runs.cut(addr, len, missing, |part| {
            let start = part.offset as usize;
            if let Some(bytes) = bytes.get_mut(start..start + part.len) {
                each(bytes, part.from);
            }
        })
    }
}

impl PhysicalMemory for LockedMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        for op in &mut *ops {
            let buf = &mut *op.buf;
            op.outcome = self.for_each_piece(op.addr, buf.len(), |part, from| {
                buf[from..from + part.len()].copy_from_slice(part);
            });
        }
        finish_reads("locked memory", ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        for op in &mut *ops {
            op.outcome = self.for_each_piece(op.addr, op.buf.len(), |part, from| {
                let len = part.len();
                part.copy_from_slice(&op.buf[from..from + len]);
            });
        }
        finish_writes("locked memory", ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: "locked memory".into(),
            runs: self.runs.clone(),
            liveness: Liveness::Live,
            read_only: false,
            ideal_batch: usize::MAX,
        }
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

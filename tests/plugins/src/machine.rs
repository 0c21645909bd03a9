//! A machine of 64 KiB: page tables whose entries are not present, and bytes that tell their address.
//!
//! Must not know: operating systems.

use std::sync::{Arc, Mutex, PoisonError};

use memflow_core::{
    Error, Reason, Result,
    memory::{
        DirectMap, Liveness, Metadata, Outcome, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts, finish_reads,
        finish_writes,
    },
};

use crate::fault::{Fault, done};

/// Number of bytes.
const SIZE: u64 = 0x1_0000;
/// Where the table lies whose entries are not present and not zero: only the operating system knows what they mean.
pub(crate) const ROOT: u64 = 0x1000;
/// The first address after it.
const ROOT_END: u64 = 0x2000;
/// The entries.
const ENTRY: u8 = 0x10;

pub(crate) struct Machine {
    fault: Fault,
    bytes: Mutex<Vec<u8>>,
    facts: TargetFacts,
    runs: Arc<RunMap>,
}

impl Machine {
    pub(crate) fn new(fault: Fault) -> Self {
        let byte = |at: u64| if (ROOT..ROOT_END).contains(&at) { ENTRY } else { (at / 16) as u8 };
        let bytes = Mutex::new((0..SIZE).map(byte).collect());
        Self { fault, bytes, facts: TargetFacts::default(), runs: Arc::new(RunMap::flat(SIZE)) }
    }

    /// What becomes of an operation of `len` bytes at `at`, and where its bytes are.
    fn place(at: u64, len: usize) -> std::result::Result<std::ops::Range<usize>, Outcome> {
        let end = at.saturating_add(len as u64);
        if end > SIZE {
            let phys = memflow_core::PhysAddr::new(at.max(SIZE));
            return Err(Outcome::Failed { offset: SIZE.saturating_sub(at), reason: Reason::NotInImage { phys } });
        }
        Ok(at as usize..end as usize)
    }
}

impl PhysicalMemory for Machine {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.fault.carried_out("memory.read", ops.len());
        for op in ops.iter_mut().take(count) {
            op.outcome = match Self::place(op.addr.as_u64(), op.buf.len()) {
                Ok(place) => {
                    op.buf.copy_from_slice(&bytes[place]);
                    Outcome::Done
                }
                Err(outcome) => outcome,
            };
        }
        drop(bytes);
        if self.fault.contradicts("memory.read") {
            done(ops.iter_mut().map(|op| &mut op.outcome));
            return Err(Error::Cancelled);
        }
        self.fault.trip("memory.read")?;
        finish_reads("faulty", ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        if self.fault.contradicts("memory.write") {
            done(ops.iter_mut().map(|op| &mut op.outcome));
            return Err(Error::Cancelled);
        }
        self.fault.trip("memory.write")?;
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.fault.carried_out("memory.write", ops.len());
        for op in ops.iter_mut().take(count) {
            op.outcome = match Self::place(op.addr.as_u64(), op.buf.len()) {
                Ok(place) => {
                    bytes[place].copy_from_slice(op.buf);
                    Outcome::Done
                }
                Err(outcome) => outcome,
            };
        }
        finish_writes("faulty", ops)
    }

    fn metadata(&self) -> Metadata {
        self.fault.trip_or_not("memory.info");
        Metadata {
            name: "faulty machine".into(),
            runs: self.runs.clone(),
            liveness: Liveness::Live,
            read_only: false,
            ideal_batch: usize::MAX,
        }
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        self.fault.trip_or_not("memory.populated_runs");
        self.runs.clone()
    }

    fn direct_map(&self) -> Option<&DirectMap> {
        self.fault.trip_or_not("memory.direct_map");
        None
    }

    fn facts(&self) -> &TargetFacts {
        self.fault.trip_or_not("memory.facts");
        &self.facts
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.fault.trip_or_not("memory.drop");
    }
}

//! Memory that has to be called, remembers how it was called, and fails on demand.
//!
//! Owns: [`ScriptedMemory`]. Must not know: paging, views.
//! Keeps: no direct map, whatever lies below; a failure is an outcome, never a panic; what is not planned to fail does what the memory below does.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    address::{PhysAddr, PhysRange},
    error::{Reason, Result},
    memory::{
        Lookaside, Metadata, Outcome, PhysRead, PhysWrite, PhysicalMemory, TargetFacts, finish_reads, finish_writes,
    },
};

/// Error number of planned failures: `EIO`.
const EIO: i32 = 5;

/// One call that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// True for [`PhysicalMemory::write_batch`].
    pub write: bool,
    /// Operations in the batch.
    pub ops: usize,
    /// Bytes of all operations.
    pub bytes: u64,
}

/// Physical memory without a direct map: every access is a call that is counted, logged, and possibly failed.
#[derive(Debug)]
pub struct ScriptedMemory<M> {
    inner: M,
    calls: AtomicU64,
    log: Mutex<Vec<Call>>,
    failing_calls: BTreeSet<u64>,
    silent_calls: BTreeSet<u64>,
    failing_addresses: Vec<PhysRange>,
}

impl<M: PhysicalMemory> ScriptedMemory<M> {
    /// Calls go to `inner`.
    pub fn new(inner: M) -> Self {
        Self {
            inner,
            calls: AtomicU64::new(0),
            log: Mutex::default(),
            failing_calls: BTreeSet::new(),
            silent_calls: BTreeSet::new(),
            failing_addresses: Vec::new(),
        }
    }

    /// The `nth` call, counted from zero, fails whole, with an input/output error in every operation.
    #[must_use]
    pub fn with_failing_call(mut self, nth: u64) -> Self {
        self.failing_calls.insert(nth);
        self
    }

    /// The `nth` call, counted from zero, breaks the contract: it answers no operation and says so to nobody.
    #[must_use]
    pub fn with_silent_call(mut self, nth: u64) -> Self {
        self.silent_calls.insert(nth);
        self
    }

    /// These addresses fail with an input/output error.
    #[must_use]
    pub fn with_failing_addresses(mut self, range: PhysRange) -> Self {
        self.failing_addresses.push(range);
        self
    }

    /// The memory below.
    pub fn inner(&self) -> &M {
        &self.inner
    }

    /// Calls made so far.
    pub fn call_count(&self) -> usize {
        self.log().len()
    }

    /// Forgets the calls made so far and returns them. Planned calls count on from here.
    pub fn take_log(&self) -> Vec<Call> {
        std::mem::take(&mut *self.log())
    }

    fn log(&self) -> MutexGuard<'_, Vec<Call>> {
        self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Logs a call and returns its number.
    fn enter(&self, call: Call) -> u64 {
        self.log().push(call);
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// The bytes of an operation before, in and after the addresses that fail, as offsets; all of them are before where none fails.
    fn failing_part(&self, addr: PhysAddr, len: usize) -> Option<Range<usize>> {
        let range = PhysRange::new(addr, len as u64)?;
        let failing = self.failing_addresses.iter().filter_map(|failing| failing.intersection(&range));
        let parts = failing.filter_map(|part| {
            let from = part.start().offset_from(addr)? as usize;
            Some(from..from + part.len() as usize)
        });
        parts.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end))
    }
}

impl<M: PhysicalMemory> PhysicalMemory for ScriptedMemory<M> {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let bytes = ops.iter().map(|op| op.buf.len() as u64).sum();
        let nth = self.enter(Call { write: false, ops: ops.len(), bytes });
        if self.silent_calls.contains(&nth) {
            return Ok(());
        }
        if self.failing_calls.contains(&nth) {
            ops.iter_mut().for_each(|op| op.outcome = Outcome::Failed { offset: 0, reason: Reason::Io { errno: EIO } });
            return finish_reads("scripted memory", ops);
        }
        if self.failing_addresses.is_empty() {
            return self.inner.read_batch(ops);
        }
        for op in &mut *ops {
            let Some(failing) = self.failing_part(op.addr, op.buf.len()) else {
                // What failed is in the outcome.
                let _ = self.inner.read_batch(std::slice::from_mut(op));
                continue;
            };
            let (before, rest) = op.buf.split_at_mut(failing.start);
            let (_, after) = rest.split_at_mut(failing.len());
            let mut parts =
                [PhysRead::new(op.addr, before), PhysRead::new(op.addr.wrapping_add(failing.end as u64), after)];
            let _ = self.inner.read_batch(&mut parts);
            op.outcome = Outcome::Failed { offset: failing.start as u64, reason: Reason::Io { errno: EIO } };
            op.outcome.add_part(0, parts[0].outcome);
            op.outcome.add_part(failing.end as u64, parts[1].outcome);
        }
        finish_reads("scripted memory", ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        let bytes = ops.iter().map(|op| op.buf.len() as u64).sum();
        let nth = self.enter(Call { write: true, ops: ops.len(), bytes });
        if self.silent_calls.contains(&nth) {
            return Ok(());
        }
        if self.failing_calls.contains(&nth) {
            ops.iter_mut().for_each(|op| op.outcome = Outcome::Failed { offset: 0, reason: Reason::Io { errno: EIO } });
            return finish_writes("scripted memory", ops);
        }
        for op in &mut *ops {
            let Some(failing) = self.failing_part(op.addr, op.buf.len()) else {
                let _ = self.inner.write_batch(std::slice::from_mut(op));
                continue;
            };
            let mut parts = [
                PhysWrite::new(op.addr, &op.buf[..failing.start]),
                PhysWrite::new(op.addr.wrapping_add(failing.end as u64), &op.buf[failing.end..]),
            ];
            let _ = self.inner.write_batch(&mut parts);
            op.outcome = Outcome::Failed { offset: failing.start as u64, reason: Reason::Io { errno: EIO } };
            op.outcome.add_part(0, parts[0].outcome);
            op.outcome.add_part(failing.end as u64, parts[1].outcome);
        }
        finish_writes("scripted memory", ops)
    }

    fn metadata(&self) -> Metadata {
        self.inner.metadata()
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        self.inner.lookaside()
    }

    fn facts(&self) -> &TargetFacts {
        self.inner.facts()
    }
}

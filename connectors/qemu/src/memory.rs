//! The physical memory of a guest.
//!
//! Owns: [`QemuMemory`]. Must not know: how the guest was found.
//! Keeps: what is read is the guest's, or an error: of a guest that has ended, system calls give errors for good, and mapped
//! memory stays what it was at the end. Once control has said that a guest stands, no translation is used that was worked out while it ran.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use memflow_core::{
    Error, PhysAddr, PhysicalMemory, Reason, Result,
    memory::{
        Control, DirectMap, Liveness, Lookaside, Metadata, Outcome, PhysRead, PhysWrite, RunMap, RunState,
        SourceConfig, TargetFacts, VcpuRegisters, finish_reads, finish_writes, refuse_writes,
    },
};

use crate::{
    access::{Access, AccessKind},
    control::Monitored,
    plugged::Plugged,
};

/// Operations per call from which on more do not pay: what one system call takes.
const IDEAL_BATCH: usize = 1024;

/// The physical memory of a running guest.
pub struct QemuMemory {
    name: Arc<str>,
    runs: Arc<RunMap>,
    facts: TargetFacts,
    access: Access,
    control: Option<Monitored>,
    /// What may be unplugged; then nothing is read in place, where it would seem to stay.
    plugged: Option<Plugged>,
    writable: bool,
    calls: AtomicU64,
    /// For guests whose memory has to be called for.
    lookaside: Lookaside,
}

impl fmt::Debug for QemuMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QemuMemory({}, {})", self.name, self.access.kind())
    }
}

impl QemuMemory {
    pub(crate) fn new(
        config: SourceConfig,
        runs: Arc<RunMap>,
        access: Access,
        (control, plugged): (Option<Monitored>, Option<Plugged>),
        writable: bool,
    ) -> Self {
        let SourceConfig { name, facts, .. } = config;
        Self {
            name,
            runs,
            facts,
            access,
            control,
            plugged,
            writable,
            calls: AtomicU64::new(0),
            lookaside: Lookaside::by_liveness(Liveness::Live),
        }
    }

    /// The runs of what is there.
    fn present(&self) -> Arc<RunMap> {
        self.plugged.as_ref().map_or_else(|| self.runs.clone(), Plugged::runs)
    }

    /// How the memory is reached.
    pub fn access(&self) -> AccessKind {
        self.access.kind()
    }

    /// Batches that this connector was called with. What is read in place needs no call.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The guest's monitors.
    fn monitored(&self) -> Result<&Monitored> {
        self.control.as_ref().ok_or_else(|| Error::Unsupported {
            what: format!("control over {}", self.name),
            why: "no monitor of the guest has answered".to_owned(),
        })
    }
}

/// Why bytes that are in no run are not there.
fn not_in_image(phys: PhysAddr) -> Reason {
    Reason::NotInImage { phys }
}

impl PhysicalMemory for QemuMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match &self.access {
            Access::Mapped(mapped) if self.plugged.is_none() => return mapped.read_batch(ops),
            Access::Mapped(mapped) => {
                let runs = self.present();
                for op in &mut *ops {
                    let (buf, mut read) = (&mut *op.buf, Outcome::Done);
                    op.outcome = runs.cut(op.addr, buf.len(), not_in_image, |part| {
                        let bytes = buf.get_mut(part.from..).and_then(|rest| rest.get_mut(..part.len));
                        let mut reads = [PhysRead::new(part.range.start(), bytes.unwrap_or_default())];
                        // What went wrong is in the outcome.
                        let _ = mapped.read_batch(&mut reads);
                        let [done] = reads;
                        read.add_part(part.from as u64, done.outcome);
                    });
                    op.outcome.add_part(0, read);
                }
            }
            Access::System(system) => system.read_batch(&self.present(), ops),
        }
        finish_reads(&self.name, ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // Dropped when the writes have been carried out.
        let _writing = self.lookaside.writing(ops);
        match &self.access {
            Access::Mapped(mapped) if self.plugged.is_none() => return mapped.write_batch(ops),
            _ if !self.writable => return refuse_writes(&self.name, ops),
            Access::Mapped(mapped) => {
                let runs = self.present();
                for op in &mut *ops {
                    let mut written = Outcome::Done;
                    op.outcome = runs.cut(op.addr, op.buf.len(), not_in_image, |part| {
                        let bytes = op.buf.get(part.from..).and_then(|rest| rest.get(..part.len)).unwrap_or_default();
                        let mut writes = [PhysWrite::new(part.range.start(), bytes)];
                        // What went wrong is in the outcome.
                        let _ = mapped.write_batch(&mut writes);
                        let [write] = writes;
                        written.add_part(part.from as u64, write.outcome);
                    });
                    op.outcome.add_part(0, written);
                }
            }
            Access::System(system) => system.write_batch(&self.present(), ops),
        }
        finish_writes(&self.name, ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: self.name.clone(),
            runs: self.present(),
            liveness: Liveness::Live,
            read_only: !self.writable,
            ideal_batch: match &self.access {
                Access::Mapped(mapped) => mapped.metadata().ideal_batch,
                Access::System(_) => IDEAL_BATCH,
            },
        }
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        match &self.access {
            Access::Mapped(mapped) if self.plugged.is_none() => mapped.populated_runs(),
            Access::Mapped(_) | Access::System(_) => self.present(),
        }
    }

    fn direct_map(&self) -> Option<&DirectMap> {
        match &self.access {
            Access::Mapped(mapped) if self.plugged.is_none() => mapped.direct_map(),
            Access::Mapped(_) | Access::System(_) => None,
        }
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        match &self.access {
            Access::Mapped(_) if self.plugged.is_none() => None,
            Access::Mapped(_) | Access::System(_) => Some(&self.lookaside),
        }
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    fn control(&self) -> Option<&dyn Control> {
        self.control.as_ref().map(|_| self as &dyn Control)
    }
}

impl Control for QemuMemory {
    fn run_state(&self) -> Result<RunState> {
        let state = self.monitored()?.run_state()?;
        // Somebody else may have paused it.
        if state == RunState::Paused {
            self.lookaside.flush();
        }
        Ok(state)
    }

    fn pause(&self) -> Result<()> {
        self.monitored()?.pause()?;
        self.lookaside.flush();
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        self.monitored()?.resume()
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        self.monitored()?.registers()
    }
}

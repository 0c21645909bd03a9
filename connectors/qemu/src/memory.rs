//! The physical memory of a guest.
//!
//! Owns: [`QemuMemory`]. Must not know: how the guest was found.
//! Keeps: what is read is the guest's, or an error: of a guest that has ended, system calls give errors for good, and mapped
//! memory stays what it was at the end.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use memflow_core::{
    PhysicalMemory, Reason, Result,
    memory::{
        Control, DirectMap, Liveness, Metadata, Outcome, PhysRead, PhysWrite, RunMap, SourceConfig, TargetFacts,
        finish_reads, finish_writes,
    },
};

use crate::{
    access::{Access, AccessKind, within},
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
        Self { name, runs, facts, access, control, plugged, writable, calls: AtomicU64::new(0) }
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
}

impl PhysicalMemory for QemuMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match &self.access {
            Access::Mapped(mapped) if self.plugged.is_none() => return mapped.read_batch(ops),
            Access::Mapped(mapped) => {
                let runs = self.present();
                for op in &mut *ops {
                    let (outcome, inside) = within(&runs, op.addr, op.buf.len());
                    op.outcome = outcome;
                    for (offset, len) in inside {
                        let at = op.addr.wrapping_add(offset as u64);
                        let mut part = [PhysRead::new(at, &mut op.buf[offset..][..len])];
                        // What went wrong is in the outcome.
                        let _ = mapped.read_batch(&mut part);
                        op.outcome.add_part(offset as u64, part[0].outcome);
                    }
                }
            }
            Access::System(system) => system.read_batch(&self.present(), ops),
        }
        finish_reads(&self.name, ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match &self.access {
            Access::Mapped(mapped) if self.plugged.is_none() => return mapped.write_batch(ops),
            Access::Mapped(mapped) if self.writable => {
                let runs = self.present();
                for op in &mut *ops {
                    let (outcome, inside) = within(&runs, op.addr, op.buf.len());
                    op.outcome = outcome;
                    for (offset, len) in inside {
                        let at = op.addr.wrapping_add(offset as u64);
                        let mut part = [PhysWrite::new(at, &op.buf[offset..][..len])];
                        let _ = mapped.write_batch(&mut part);
                        op.outcome.add_part(offset as u64, part[0].outcome);
                    }
                }
            }
            Access::System(system) if self.writable => system.write_batch(&self.present(), ops),
            Access::Mapped(_) | Access::System(_) => {
                for op in &mut *ops {
                    op.outcome = Outcome::Failed { offset: 0, reason: Reason::ReadOnly };
                }
            }
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

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    fn control(&self) -> Option<&dyn Control> {
        self.control.as_ref().map(|control| control as &dyn Control)
    }
}

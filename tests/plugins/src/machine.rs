//! A machine of 64 KiB or more: page tables whose entries are not present, and bytes that tell their address.
//!
//! It can be paused, and notes what is asked of it. Must not know: operating systems.

use std::{
    fs::OpenOptions,
    io::Write,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use memflow_core::{
    Error, Reason, Result,
    memory::{
        AArch64Registers, Control, DirectMap, Liveness, MachineKind, Metadata, Outcome, PhysRead, PhysWrite,
        PhysicalMemory, RunMap, RunState, TargetFacts, VcpuRegisters, finish_reads, finish_writes,
    },
    plugin::args::Args,
};

use crate::fault::{Fault, done};

/// Number of bytes unless another is asked for.
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
    size: u64,
    /// Reads that do not reach beyond this go well.
    from: u64,
    controlled: bool,
    running: AtomicBool,
    events: Option<PathBuf>,
}

impl Machine {
    pub(crate) fn new(fault: Fault, args: &Args) -> Result<Self> {
        let byte = |at: u64| if (ROOT..ROOT_END).contains(&at) { ENTRY } else { (at / 16) as u8 };
        let size = args.size("size")?.unwrap_or(SIZE);
        let mut facts = TargetFacts::default();
        facts.machine = Some(MachineKind::AArch64);
        facts.vcpus = vec![registers()];
        Ok(Self {
            fault,
            bytes: Mutex::new((0..size).map(byte).collect()),
            facts,
            runs: Arc::new(RunMap::flat(size)),
            size,
            from: args.size("from")?.unwrap_or(0),
            controlled: args.flag("control")?.unwrap_or(true),
            running: AtomicBool::new(args.text("state")? != Some("paused")),
            events: args.path("events")?,
        })
    }

    /// What becomes of an operation of `len` bytes at `at`, and where its bytes are.
    fn place(&self, at: u64, len: usize) -> std::result::Result<std::ops::Range<usize>, Outcome> {
        let end = at.saturating_add(len as u64);
        if end > self.size {
            let phys = memflow_core::PhysAddr::new(at.max(self.size));
            return Err(Outcome::Failed { offset: self.size.saturating_sub(at), reason: Reason::NotInImage { phys } });
        }
        Ok(at as usize..end as usize)
    }

    /// Appends a line to the file of events.
    fn note(&self, what: &str) -> Result<()> {
        let Some(path) = &self.events else { return Ok(()) };
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{what}")).map_err(|error| Error::io(path.display().to_string(), error))
    }
}

/// Those of the only vCPU.
fn registers() -> VcpuRegisters {
    let mut registers = AArch64Registers::default();
    registers.ttbr1_el1 = Some(ROOT);
    registers.pc = Some(0xffff_8000_0000_0010);
    VcpuRegisters::AArch64(registers)
}

impl Control for Machine {
    fn run_state(&self) -> Result<RunState> {
        self.fault.trip("memory.run_state")?;
        Ok(if self.running.load(Ordering::SeqCst) { RunState::Running } else { RunState::Paused })
    }

    fn pause(&self) -> Result<()> {
        self.fault.trip("memory.pause")?;
        self.note("pause")?;
        self.running.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        self.fault.trip("memory.resume")?;
        self.note("resume")?;
        self.running.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        self.fault.trip("memory.registers")?;
        Ok(vec![registers()])
    }
}

impl PhysicalMemory for Machine {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.fault.carried_out("memory.read", ops.len());
        for op in ops.iter_mut().take(count) {
            op.outcome = match self.place(op.addr.as_u64(), op.buf.len()) {
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
        if ops.iter().any(|op| op.addr.as_u64().saturating_add(op.buf.len() as u64) > self.from) {
            if self.fault.hangs("memory.read") {
                self.note("read")?;
            }
            self.fault.trip("memory.read")?;
        }
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
            op.outcome = match self.place(op.addr.as_u64(), op.buf.len()) {
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

    fn excluded_runs(&self) -> Arc<RunMap> {
        self.fault.trip_or_not("memory.excluded_runs");
        Arc::default()
    }

    fn direct_map(&self) -> Option<&DirectMap> {
        self.fault.trip_or_not("memory.direct_map");
        None
    }

    fn facts(&self) -> &TargetFacts {
        self.fault.trip_or_not("memory.facts");
        &self.facts
    }

    fn control(&self) -> Option<&dyn Control> {
        self.controlled.then_some(self)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.fault.trip_or_not("memory.drop");
    }
}

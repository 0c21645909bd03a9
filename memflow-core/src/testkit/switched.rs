//! Memory of a machine that stands still on request.
//!
//! Owns: [`SwitchedMemory`], the switch over other memory. Must not know: what the memory is.
//! Keeps: what a switch does beside stopping and starting is the test's own; it is done before anybody is told that it stands or runs.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::{
    error::Result,
    memory::{Control, Metadata, PhysRead, PhysWrite, PhysicalMemory, RunState, TargetFacts, VcpuRegisters},
};

/// What happens at a switch; the argument is whether the machine runs from now on.
type OnSwitch<M> = Box<dyn FnMut(&M, bool) -> Result<()> + Send>;

/// Memory with control over whether its machine runs.
pub struct SwitchedMemory<M> {
    memory: M,
    running: AtomicBool,
    pauses: AtomicUsize,
    resumes: AtomicUsize,
    on_switch: Mutex<OnSwitch<M>>,
    registers: Vec<VcpuRegisters>,
}

impl<M> std::fmt::Debug for SwitchedMemory<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwitchedMemory").field("running", &self.running).finish_non_exhaustive()
    }
}

impl<M: PhysicalMemory> SwitchedMemory<M> {
    /// A machine that runs, or stands still.
    pub fn new(memory: M, running: bool) -> Self {
        Self {
            memory,
            running: AtomicBool::new(running),
            pauses: AtomicUsize::new(0),
            resumes: AtomicUsize::new(0),
            on_switch: Mutex::new(Box::new(|_, _| Ok(()))),
            registers: Vec::new(),
        }
    }

    /// The same with something that happens at each switch. The switch is made also when that fails, as when an answer is lost.
    #[must_use]
    pub fn on_switch(mut self, on_switch: impl FnMut(&M, bool) -> Result<()> + Send + 'static) -> Self {
        self.on_switch = Mutex::new(Box::new(on_switch));
        self
    }

    /// The same with registers.
    #[must_use]
    pub fn with_registers(mut self, registers: Vec<VcpuRegisters>) -> Self {
        self.registers = registers;
        self
    }

    /// The memory below.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// How often it was asked to stop.
    pub fn pauses(&self) -> usize {
        self.pauses.load(Ordering::SeqCst)
    }

    /// How often it was asked to run.
    pub fn resumes(&self) -> usize {
        self.resumes.load(Ordering::SeqCst)
    }

    fn switch(&self, running: bool) -> Result<()> {
        self.running.store(running, Ordering::SeqCst);
        (self.on_switch.lock().unwrap_or_else(PoisonError::into_inner))(&self.memory, running)
    }
}

impl<M: PhysicalMemory> Control for SwitchedMemory<M> {
    fn run_state(&self) -> Result<RunState> {
        Ok(if self.running.load(Ordering::SeqCst) { RunState::Running } else { RunState::Paused })
    }

    fn pause(&self) -> Result<()> {
        self.pauses.fetch_add(1, Ordering::SeqCst);
        self.switch(false)
    }

    fn resume(&self) -> Result<()> {
        self.resumes.fetch_add(1, Ordering::SeqCst);
        self.switch(true)
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        Ok(self.registers.clone())
    }
}

impl<M: PhysicalMemory> PhysicalMemory for SwitchedMemory<M> {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.memory.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.memory.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.memory.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        self.memory.facts()
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }
}

//! Physical memory that is read through a process.
//!
//! Owns: [`ProcessMemory`]: which process it is, and what its memory is to the inner machine.
//! Must not know: how the process was found, how its memory is translated, how an operation is cut into parts.

use memflow_core::{
    PhysAddr, PhysicalMemory, Result, VirtAddr,
    memory::{Lookaside, Metadata, PhysRead, PhysWrite, RunMap, SourceConfig, TargetFacts},
    os::Process,
    view::ViewMemory,
};

/// The RAM of a machine that is held by a process of another machine.
pub struct ProcessMemory(ViewMemory<Box<dyn Process>>);

impl std::fmt::Debug for ProcessMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessMemory({})", self.0.metadata().name)
    }
}

impl ProcessMemory {
    pub(crate) fn new(process: Box<dyn Process>, name: String, runs: RunMap) -> Self {
        let outer = process.physical_memory().metadata();
        let config = SourceConfig { name: name.into(), runs, facts: TargetFacts::default() };
        Self(ViewMemory::new(process, config, outer.liveness).with_ideal_batch(outer.ideal_batch))
    }

    /// The process that holds the memory.
    pub fn process(&self) -> &dyn Process {
        &**self.0.view()
    }

    /// Where an inner physical address lies in the process; `None` when the machine has no memory there.
    pub fn virtual_address(&self, phys: PhysAddr) -> Option<VirtAddr> {
        self.0.address_of(phys)
    }
}

impl PhysicalMemory for ProcessMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.0.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.0.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        self.0.lookaside()
    }

    fn facts(&self) -> &TargetFacts {
        self.0.facts()
    }
}

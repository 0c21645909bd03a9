//! A process and an operating system around address spaces that are built in code.

use std::sync::Arc;

use memflow_core::{
    Error, MemoryView, PageSize, PhysicalMemory, Result, VirtAddr, VirtRange,
    memory::{ViewRead, ViewWrite},
    os::{
        KernelInfo, Listing, LogRecord, MemoryRegion, ModuleInfo, Os, Permissions, Process, ProcessInfo, RegionKind,
        SymbolInfo, ThreadInfo,
    },
    paging::AddressSpace,
    testkit::{Machine, MachineBuilder, PagingMode, entry_bits},
    view::{SpaceView, ViewMetadata},
};

/// Where the monitor's RAM is mapped: six pages, the one at [`HOLE`] missing.
pub(crate) const RAM: u64 = 0x7f00_0000_0000;
/// A page of the RAM that is not there.
pub(crate) const HOLE: u64 = RAM + 0x3000;
/// Another place in the process.
pub(crate) const OTHER: u64 = 0x7e00_0000_0000;

/// An outer machine without memory for the process yet.
pub(crate) fn builder() -> MachineBuilder {
    MachineBuilder::new(PagingMode::X64, 0x10_0000).unwrap()
}

/// Maps the RAM, in frames that do not follow each other; each page holds its own number.
pub(crate) fn fill(builder: &mut MachineBuilder) {
    let page = PageSize::from_shift(12).unwrap();
    for index in [5_u8, 0, 2, 4, 1] {
        let frame = builder.frame().unwrap();
        builder.write(frame, &[index; 0x1000]).unwrap();
        let virt = VirtAddr::new(RAM + u64::from(index) * 0x1000);
        let bits = entry_bits::PRESENT | entry_bits::WRITABLE | entry_bits::USER;
        builder.map(virt, frame, page, bits).unwrap();
    }
}

/// The outer machine.
pub(crate) fn machine() -> Machine {
    let mut builder = builder();
    fill(&mut builder);
    builder.build().unwrap()
}

/// A region; permissions as `/proc/PID/maps` writes them.
pub(crate) fn region(start: u64, len: u64, permissions: &str, kind: RegionKind) -> MemoryRegion {
    let has = |letter| permissions.contains(letter);
    let permissions = Permissions { read: has('r'), write: has('w'), execute: has('x'), shared: has('s') };
    MemoryRegion::new(VirtRange::new(VirtAddr::new(start), len).unwrap(), permissions, kind)
}

/// A process around a view.
pub(crate) struct TestProcess {
    info: ProcessInfo,
    view: SpaceView,
    regions: Vec<MemoryRegion>,
    map_problem: Option<String>,
    has_space: bool,
}

impl TestProcess {
    pub(crate) fn new(view: impl IntoView) -> Self {
        Self {
            info: ProcessInfo::new(VirtAddr::new(0), 612, "monitor"),
            view: view.into_view(),
            regions: Vec::new(),
            map_problem: None,
            has_space: true,
        }
    }

    pub(crate) fn with_regions(mut self, regions: Vec<MemoryRegion>) -> Self {
        self.regions = regions;
        self
    }

    pub(crate) fn with_map_problem(mut self, problem: &str) -> Self {
        self.map_problem = Some(problem.to_owned());
        self
    }

    pub(crate) fn without_space(mut self) -> Self {
        self.has_space = false;
        self
    }
}

/// What a process can be made of.
pub(crate) trait IntoView {
    fn into_view(self) -> SpaceView;
}

impl IntoView for SpaceView {
    fn into_view(self) -> SpaceView {
        self
    }
}

impl IntoView for Machine {
    fn into_view(self) -> SpaceView {
        self.view()
    }
}

impl MemoryView for TestProcess {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        self.view.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        self.view.write_batch(ops)
    }

    fn metadata(&self) -> ViewMetadata {
        self.view.metadata()
    }
}

impl Process for TestProcess {
    fn info(&self) -> &ProcessInfo {
        &self.info
    }

    fn address_space(&self) -> Option<&AddressSpace> {
        self.has_space.then(|| self.view.space())
    }

    fn physical_memory(&self) -> &dyn PhysicalMemory {
        self.view.memory()
    }

    fn executable(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn command_line(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn environment(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn memory_map(&self) -> Result<Listing<MemoryRegion>> {
        let problem = |name: &String| Error::NotFound { what: "mapping", name: name.clone() };
        let problems = self.map_problem.iter().map(problem).collect();
        Ok(Listing { items: self.regions.clone(), problems })
    }

    fn threads(&self) -> Result<Listing<ThreadInfo>> {
        Ok(Listing::new())
    }
}

/// An operating system that knows processes and nothing else.
pub(crate) struct TestOs {
    machine: Machine,
    memory: Arc<dyn PhysicalMemory>,
    view: SpaceView,
    kernel: KernelInfo,
    processes: Vec<(u32, &'static str)>,
    torn: bool,
}

impl TestOs {
    pub(crate) fn new(machine: Machine, processes: &[(u32, &'static str)]) -> Self {
        Self {
            memory: machine.memory.clone(),
            view: machine.view(),
            machine,
            kernel: KernelInfo::new("Test", "1", "1", "x86-64", VirtAddr::new(0)),
            processes: processes.to_vec(),
            torn: false,
        }
    }

    /// The list of processes is not complete.
    pub(crate) fn with_problem(mut self) -> Self {
        self.torn = true;
        self
    }
}

impl Os for TestOs {
    fn kernel(&self) -> &KernelInfo {
        &self.kernel
    }

    fn kernel_space(&self) -> &AddressSpace {
        &self.machine.space
    }

    fn kernel_view(&self) -> &dyn MemoryView {
        &self.view
    }

    fn physical_memory(&self) -> &Arc<dyn PhysicalMemory> {
        &self.memory
    }

    fn processes(&self) -> Result<Listing<ProcessInfo>> {
        let items = self.processes.iter().map(|(pid, name)| ProcessInfo::new(VirtAddr::new(0), *pid, *name)).collect();
        let problem = Error::NotFound { what: "process", name: "after the tear".to_owned() };
        Ok(Listing { items, problems: self.torn.then_some(problem).into_iter().collect() })
    }

    fn open(&self, process: &ProcessInfo) -> Result<Box<dyn Process>> {
        let mut opened = TestProcess::new(self.machine.clone());
        opened.info = process.clone();
        Ok(Box::new(opened))
    }

    fn modules(&self) -> Result<Listing<ModuleInfo>> {
        Ok(Listing::new())
    }

    fn symbols(&self) -> Result<Listing<SymbolInfo>> {
        Ok(Listing::new())
    }

    fn symbols_named(&self, _: &str) -> Result<Vec<SymbolInfo>> {
        Ok(Vec::new())
    }

    fn symbol_at(&self, _: VirtAddr) -> Result<Option<(SymbolInfo, u64)>> {
        Ok(None)
    }

    fn kernel_log(&self) -> Result<Listing<LogRecord>> {
        Ok(Listing::new())
    }
}

//! A system of one process, one module, one symbol and one log record.
//!
//! Must not know: memory, but for the address of its page table.

use std::{sync::Arc, time::Duration};

use memflow_core::{
    Error, MemoryView, PhysAddr, PhysicalMemory, Result, VirtAddr, VirtRange,
    memory::{Outcome, ViewRead, ViewWrite, finish_reads, finish_writes},
    os::{
        KernelInfo, Listing, LogRecord, MemoryRegion, ModuleInfo, Os, Permissions, Process, ProcessInfo, ProcessState,
        RegionKind, SymbolInfo, ThreadInfo,
    },
    paging::{AddressSpace, Architecture, PageFlags, SoftFault, SoftFaultAnswer, SoftFaults},
    view::{SpaceView, ViewMetadata},
};

use crate::{
    fault::{Fault, done},
    machine::ROOT,
};

pub(crate) struct System {
    fault: Fault,
    memory: Arc<dyn PhysicalMemory>,
    kernel: KernelInfo,
    view: SpaceView,
}

impl System {
    pub(crate) fn new(memory: Arc<dyn PhysicalMemory>, fault: Fault) -> Self {
        let architecture = Architecture::named("x86-64 4-level").expect("it is one of the library's");
        let space = AddressSpace::new(architecture, ROOT).with_soft_faults(Arc::new(Answers(fault.clone())));
        let view = SpaceView::new(memory.clone(), space);
        let mut kernel = KernelInfo::new("Faulty", "1", "version 1", architecture.name, VirtAddr::new(0x1000));
        kernel.evidence = vec!["it says so".to_owned()];
        Self { fault, memory, kernel, view }
    }

    fn list<T>(&self, at: &str, item: T) -> Result<Listing<T>> {
        self.fault.trip(at)?;
        let mut listing = Listing::new();
        listing.items.push(item);
        Ok(listing)
    }

    fn symbol() -> SymbolInfo {
        SymbolInfo { address: VirtAddr::new(0x1000), kind: 'T', name: "start".to_owned(), module: None }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.fault.trip_or_not("os.drop");
    }
}

/// Says of every entry that it means the page at 0x3000.
struct Answers(Fault);

impl SoftFaults for Answers {
    fn resolve(&self, _: &dyn PhysicalMemory, faults: &mut [SoftFault]) {
        self.0.trip_or_not("soft_faults.resolve");
        for fault in faults {
            let base = PhysAddr::new(0x3000);
            fault.answer = SoftFaultAnswer::Page { base, flags: PageFlags::USER };
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.trip_or_not("soft_faults.drop");
    }
}

impl Os for System {
    fn kernel(&self) -> &KernelInfo {
        self.fault.trip_or_not("os.kernel");
        &self.kernel
    }

    fn kernel_space(&self) -> &AddressSpace {
        self.fault.trip_or_not("os.kernel_space");
        self.view.space()
    }

    fn kernel_view(&self) -> &dyn MemoryView {
        &self.view
    }

    fn physical_memory(&self) -> &Arc<dyn PhysicalMemory> {
        self.fault.trip_or_not("os.memory");
        &self.memory
    }

    fn processes(&self) -> Result<Listing<ProcessInfo>> {
        self.list("os.processes", task())
    }

    fn open(&self, process: &ProcessInfo) -> Result<Box<dyn Process>> {
        self.fault.trip("os.open_process")?;
        let memory = self.memory.clone();
        Ok(Box::new(Task { fault: self.fault.clone(), info: process.clone(), view: self.view.clone(), memory }))
    }

    fn modules(&self) -> Result<Listing<ModuleInfo>> {
        self.list("os.modules", ModuleInfo::new(VirtAddr::new(1), VirtAddr::new(2), 3, "module"))
    }

    fn symbols(&self) -> Result<Listing<SymbolInfo>> {
        self.list("os.symbols", Self::symbol())
    }

    fn symbols_named(&self, _: &str) -> Result<Vec<SymbolInfo>> {
        self.list("os.symbols_named", Self::symbol())?.into_complete()
    }

    fn symbol_at(&self, address: VirtAddr) -> Result<Option<(SymbolInfo, u64)>> {
        self.fault.trip("os.symbol_at")?;
        let symbol = Self::symbol();
        Ok(address.as_u64().checked_sub(symbol.address.as_u64()).map(|distance| (symbol, distance)))
    }

    fn kernel_log(&self) -> Result<Listing<LogRecord>> {
        self.list("os.kernel_log", LogRecord::new(Duration::ZERO, 1, 0, 6, "hello"))
    }
}

/// The record of the one process.
fn task() -> ProcessInfo {
    let mut info = ProcessInfo::new(VirtAddr::new(0x5000), 7, "task");
    info.state = ProcessState::Running;
    info
}

/// The process. Its memory is read by calls: it is not said to be a walk.
struct Task {
    fault: Fault,
    info: ProcessInfo,
    view: SpaceView,
    memory: Arc<dyn PhysicalMemory>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.fault.trip_or_not("process.drop");
        self.fault.trip_or_not("view.drop");
    }
}

impl MemoryView for Task {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        if self.fault.contradicts("view.read") {
            done(ops.iter_mut().map(|op| &mut op.outcome));
            return Err(Error::Cancelled);
        }
        self.fault.trip("view.read")?;
        let count = self.fault.carried_out("view.read", ops.len());
        for op in ops.iter_mut().take(count) {
            op.buf.fill(0x5a);
            op.outcome = Outcome::Done;
        }
        finish_reads("faulty", ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        if self.fault.contradicts("view.write") {
            done(ops.iter_mut().map(|op| &mut op.outcome));
            return Err(Error::Cancelled);
        }
        self.fault.trip("view.write")?;
        let count = self.fault.carried_out("view.write", ops.len());
        done(ops.iter_mut().take(count).map(|op| &mut op.outcome));
        finish_writes("faulty", ops)
    }

    fn metadata(&self) -> ViewMetadata {
        self.fault.trip_or_not("view.info");
        ViewMetadata { last_address: VirtAddr::new(u64::MAX), pointer_size: 8, read_only: false }
    }
}

impl Process for Task {
    fn info(&self) -> &ProcessInfo {
        self.fault.trip_or_not("process.record");
        &self.info
    }

    fn address_space(&self) -> Option<&AddressSpace> {
        self.fault.trip_or_not("process.space");
        Some(self.view.space())
    }

    fn space_view(&self) -> Option<&SpaceView> {
        self.fault.trip_or_not("process.walk");
        None
    }

    fn physical_memory(&self) -> &dyn PhysicalMemory {
        &*self.memory
    }

    fn executable(&self) -> Result<Option<String>> {
        self.fault.trip("process.executable")?;
        Ok(Some("/bin/task".to_owned()))
    }

    fn command_line(&self) -> Result<Vec<String>> {
        self.fault.trip("process.command_line")?;
        Ok(vec!["task".to_owned()])
    }

    fn environment(&self) -> Result<Vec<String>> {
        self.fault.trip("process.environment")?;
        Ok(vec!["A=b".to_owned()])
    }

    fn memory_map(&self) -> Result<Listing<MemoryRegion>> {
        self.fault.trip("process.memory_map")?;
        let mut listing = Listing::new();
        if let Some(range) = VirtRange::new(VirtAddr::new(0x1000), 0x1000) {
            let permissions = Permissions { read: true, write: false, execute: false, shared: false };
            listing.items.push(MemoryRegion::new(range, permissions, RegionKind::Anonymous));
        }
        Ok(listing)
    }

    fn threads(&self) -> Result<Listing<ThreadInfo>> {
        self.fault.trip("process.threads")?;
        let mut listing = Listing::new();
        listing.items.push(ThreadInfo::new(VirtAddr::new(0x5000), 7, 7, "task", ProcessState::Running));
        Ok(listing)
    }
}

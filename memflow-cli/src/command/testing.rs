//! A target for the tests of commands: lists that are given, and two pages of memory.
//!
//! Owns: [`FakeOs`], whose lists may be incomplete, which a sound image never shows. Must not know: any command.

use std::sync::Arc;

use memflow_core::{
    Error, MemoryView, PhysAddr, PhysRange, PhysicalMemory, Result, VirtAddr,
    memory::{BufferMemory, Run, RunMap, SourceConfig, TargetFacts},
    os::{KernelInfo, Listing, LogRecord, ModuleInfo, Os, Process, ProcessInfo, SymbolInfo},
    paging::{AddressSpace, x86},
    view::PhysicalView,
};

use crate::{
    failure::{Outcome, Status},
    output::{Io, Verbosity},
};

/// What a command left.
pub(super) struct Left {
    pub(super) status: Status,
    pub(super) out: String,
    pub(super) err: String,
}

/// Runs a command's `show`.
pub(super) fn shown(json: bool, show: impl FnOnce(&mut Io<'_>) -> Outcome) -> Left {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = show(&mut Io::new(&mut out, &mut err, json, Verbosity::Normal)).unwrap();
    Left { status, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// A problem that a list may have.
pub(super) fn torn() -> Error {
    Error::Cycle { what: "list", address: VirtAddr::new(0x1000).into(), entries: 3 }
}

/// An operating system that knows what it was told.
pub(super) struct FakeOs {
    kernel: KernelInfo,
    space: AddressSpace,
    memory: Arc<dyn PhysicalMemory>,
    view: PhysicalView,
    pub(super) symbols: Vec<SymbolInfo>,
}

impl FakeOs {
    /// Two pages of memory, at 0x1000 and 0x3000, filled with `a` and `b`, and nothing in any list.
    pub(super) fn new() -> Self {
        let run = |start, offset| Run { range: PhysRange::new(PhysAddr::new(start), 0x1000).unwrap(), offset };
        let runs = RunMap::new([run(0x1000, 0), run(0x3000, 0x1000)]).unwrap();
        let config = SourceConfig { name: "fake".into(), runs, facts: TargetFacts::default() };
        let memory: Arc<dyn PhysicalMemory> =
            Arc::new(BufferMemory::new(config, [[b'a'; 0x1000], [b'b'; 0x1000]].concat()).unwrap());
        Self {
            kernel: KernelInfo::new("Fake", "1", "Fake 1", "x86-64 4-level", VirtAddr::new(0)),
            space: AddressSpace::new(&x86::X64, 0x1000),
            view: PhysicalView::new(memory.clone()),
            memory,
            symbols: Vec::new(),
        }
    }
}

/// A list of one item that is not complete.
fn incomplete<T>(item: T) -> Listing<T> {
    Listing { items: vec![item], problems: vec![torn()] }
}

impl Os for FakeOs {
    fn kernel(&self) -> &KernelInfo {
        &self.kernel
    }

    fn kernel_space(&self) -> &AddressSpace {
        &self.space
    }

    fn kernel_view(&self) -> &dyn MemoryView {
        &self.view
    }

    fn physical_memory(&self) -> &Arc<dyn PhysicalMemory> {
        &self.memory
    }

    fn processes(&self) -> Result<Listing<ProcessInfo>> {
        Ok(incomplete(ProcessInfo::new(VirtAddr::new(0x10), 7, "seven")))
    }

    fn open(&self, _: &ProcessInfo) -> Result<Box<dyn Process>> {
        Err(torn())
    }

    fn modules(&self) -> Result<Listing<ModuleInfo>> {
        Ok(incomplete(ModuleInfo::new(VirtAddr::new(0x10), VirtAddr::new(0x20), 5, "five")))
    }

    fn symbols(&self) -> Result<Listing<SymbolInfo>> {
        Ok(Listing { items: self.symbols.clone(), problems: vec![torn()] })
    }

    fn symbols_named(&self, name: &str) -> Result<Vec<SymbolInfo>> {
        Ok(self.symbols.iter().filter(|symbol| symbol.name == name).cloned().collect())
    }

    fn symbol_at(&self, _: VirtAddr) -> Result<Option<(SymbolInfo, u64)>> {
        Ok(None)
    }

    fn kernel_log(&self) -> Result<Listing<LogRecord>> {
        Ok(incomplete(LogRecord::new(std::time::Duration::ZERO, 0, 0, 6, "six")))
    }
}

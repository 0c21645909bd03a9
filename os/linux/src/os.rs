//! The OS layer's front: a found kernel with its processes, modules, symbols and log.
//!
//! Owns: [`LinuxOs`], which hands each question to the module that answers it, and the layouts those modules need, each derived once.
//! Must not know: how anything is read.

use std::sync::{Arc, OnceLock};

use memflow_core::{
    MemoryView, VirtAddr,
    error::{Result, ResultExt},
    memory::{Liveness, PhysicalMemory},
    os::{KernelInfo, Listing, LogRecord, ModuleInfo, Os, Process, ProcessInfo, SymbolInfo},
    paging::AddressSpace,
};

use crate::{
    kernel::{Kernel, LinuxOptions},
    mm::{MmLayout, NameSources},
    modules::{self, Module, ModuleLayout},
    process::LinuxProcess,
    symbols::module_symbols,
    task::{self, TaskLayout},
    vfs::{DynamicNames, Vfs, VfsLayout},
};

/// Looks at a list of a running system before its problems are taken for real.
const LIVE_LOOKS: u32 = 3;

/// A recognised Linux.
#[derive(Debug)]
pub struct LinuxOs {
    system: Arc<System>,
}

/// What the OS and the processes that were opened from it share. Layouts that not every use needs are derived when first asked for.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) kernel: Kernel,
    pub(crate) tasks: TaskLayout,
    init_task: VirtAddr,
    mm: OnceLock<MmLayout>,
    names: OnceLock<NameSources>,
    vfs: OnceLock<(VfsLayout, DynamicNames)>,
    modules: OnceLock<ModuleLayout>,
}

/// The value of the cell; made when it is first asked for, and again after a failure.
fn derived<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(value) => Ok(value),
        None => {
            let value = make()?;
            Ok(cell.get_or_init(|| value))
        }
    }
}

impl System {
    /// The value of the root register for the top page table at `pgd`.
    pub(crate) fn root_of(&self, pgd: VirtAddr) -> Result<u64> {
        self.kernel.space_of_pgd(pgd).map(|space| space.root().as_u64())
    }

    pub(crate) fn mm_layout(&self) -> Result<&MmLayout> {
        derived(&self.mm, || MmLayout::new(&self.kernel.types))
    }

    pub(crate) fn name_sources(&self) -> Result<&NameSources> {
        let Kernel { types, symbols, info, .. } = &self.kernel;
        derived(&self.names, || NameSources::new(types, symbols, &info.release))
    }

    pub(crate) fn vfs(&self) -> Result<Vfs<'_>> {
        let Kernel { types, symbols, view, .. } = &self.kernel;
        let (layout, names) = derived(&self.vfs, || Ok((VfsLayout::new(types)?, DynamicNames::new(symbols))))?;
        Ok(Vfs::new(view, layout, *names))
    }

    fn modules(&self) -> Result<Listing<Module>> {
        let Kernel { types, symbols, view, .. } = &self.kernel;
        if !types.has("module") {
            // A kernel without loadable modules only knows that there is such a structure.
            return Ok(Listing::new());
        }
        let layout = derived(&self.modules, || ModuleLayout::new(types))?;
        let head = symbols.require("modules")?;
        self.settled(|| Ok(modules::modules(view, layout, head)))
    }

    /// A listing without problems, if one of a few looks gives it; else the last. What changes while it is read looks damaged for a
    /// moment; a snapshot is looked at once.
    pub(crate) fn settled<T>(&self, look: impl Fn() -> Result<Listing<T>>) -> Result<Listing<T>> {
        let looks = match self.kernel.memory.metadata().liveness {
            Liveness::Live => LIVE_LOOKS,
            Liveness::Frozen => 1,
        };
        let mut listing = look();
        for _ in 1..looks {
            if listing.as_ref().is_ok_and(Listing::is_complete) {
                break;
            }
            listing = look();
        }
        listing
    }
}

impl LinuxOs {
    /// Finds the Linux kernel in `memory` and derives from its own type information where its processes lie.
    ///
    /// # Errors
    /// [`Error::NotRecognised`](memflow_core::Error::NotRecognised) that lists each thing that was looked for and what became of it,
    /// when there is no Linux kernel; otherwise the step that failed, down to a structure or field that the kernel does not describe.
    pub fn open(memory: Arc<dyn PhysicalMemory>, options: &LinuxOptions<'_>) -> Result<Self> {
        let kernel = Kernel::open(memory, options)?;
        let tasks = TaskLayout::new(&kernel.types).context(|| "layout of a task".into())?;
        let init_task = kernel.symbols.require("init_task")?;
        Ok(Self {
            system: Arc::new(System {
                kernel,
                tasks,
                init_task,
                mm: OnceLock::new(),
                names: OnceLock::new(),
                vfs: OnceLock::new(),
                modules: OnceLock::new(),
            }),
        })
    }

    /// The found kernel: its types and symbols, for questions that [`Os`] does not ask.
    pub fn found(&self) -> &Kernel {
        &self.system.kernel
    }
}

impl Os for LinuxOs {
    fn kernel(&self) -> &KernelInfo {
        &self.system.kernel.info
    }

    fn kernel_space(&self) -> &AddressSpace {
        self.system.kernel.view.space()
    }

    fn kernel_view(&self) -> &dyn MemoryView {
        &self.system.kernel.view
    }

    fn physical_memory(&self) -> &Arc<dyn PhysicalMemory> {
        &self.system.kernel.memory
    }

    fn processes(&self) -> Result<Listing<ProcessInfo>> {
        let System { kernel, tasks, init_task, .. } = &*self.system;
        let root_of = |pgd| self.system.root_of(pgd);
        self.system.settled(|| Ok(task::processes(&kernel.view, tasks, *init_task, &root_of)))
    }

    fn open(&self, process: &ProcessInfo) -> Result<Box<dyn Process>> {
        Ok(Box::new(LinuxProcess::open(self.system.clone(), process)?))
    }

    fn modules(&self) -> Result<Listing<ModuleInfo>> {
        let Listing { items, problems } = self.system.modules()?;
        Ok(Listing { items: items.into_iter().map(|module| module.info).collect(), problems })
    }

    /// The kernel's own symbols by address, then those of each module, in the order of the module list and of the module's table.
    fn symbols(&self) -> Result<Listing<SymbolInfo>> {
        let kernel = &self.system.kernel;
        let table = kernel.symbols.table()?;
        let modules = self.system.modules()?;
        let mut listing = Listing { items: table.all(), problems: modules.problems };
        for module in &modules.items {
            match module_symbols(kernel, module.info.address) {
                Ok(symbols) => listing.items.extend(symbols),
                Err(error) => listing.problems.push(error.context(format!("symbols of module {}", module.info.name))),
            }
        }
        Ok(listing)
    }

    fn symbols_named(&self, name: &str) -> Result<Vec<SymbolInfo>> {
        let kernel = &self.system.kernel;
        let mut found = kernel.symbols.table()?.named(name);
        for module in self.system.modules()?.into_complete()? {
            let symbols = module_symbols(kernel, module.info.address)
                .context(|| format!("symbols of module {}", module.info.name).into())?;
            found.extend(symbols.into_iter().filter(|symbol| symbol.name == name));
        }
        Ok(found)
    }

    fn symbol_at(&self, address: VirtAddr) -> Result<Option<(SymbolInfo, u64)>> {
        let kernel = &self.system.kernel;
        if let Some(found) = kernel.symbols.table()?.at(address) {
            return Ok(Some(found));
        }
        let modules = self.system.modules()?;
        let Some(module) = modules.items.iter().find(|module| module.contains(address)) else {
            // Only a complete list can say that no module holds the address.
            return modules.into_complete().map(|_| None);
        };
        let symbols = module_symbols(kernel, module.info.address)
            .context(|| format!("symbols of module {}", module.info.name).into())?;
        // Of several symbols at one address the first counts.
        let nearest = symbols
            .into_iter()
            .filter(|symbol| symbol.address <= address && module.contains(symbol.address))
            .reduce(|best, symbol| if symbol.address > best.address { symbol } else { best });
        Ok(nearest.map(|symbol| {
            let distance = address.offset_from(symbol.address).unwrap_or_default();
            (symbol, distance)
        }))
    }

    fn kernel_log(&self) -> Result<Listing<LogRecord>> {
        self.system.kernel.log()
    }
}

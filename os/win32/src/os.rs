//! The OS layer's front: a found kernel with its processes, modules and exports.
//!
//! Owns: [`Win32Os`], which hands each question to the module that answers it. Must not know: how anything is read.

use std::{collections::HashSet, sync::Arc};

use memflow_core::{
    Error, MemoryView, VirtAddr,
    error::{Result, ResultExt},
    memory::{Liveness, PhysicalMemory},
    os::{KernelInfo, Keyboard, Listing, LogRecord, ModuleInfo, Os, Process, ProcessInfo, SymbolInfo},
    paging::AddressSpace,
};

use crate::{
    eprocess::{self, EprocessLayout, ProcessDetails},
    hidden,
    image::LoadedImage,
    kernel::{Kernel, Win32Options},
    modules::{self, LoadedModule, Origin},
    pe::{Exports, Image},
    process::Win32Process,
    processors::{self, Running},
    reader::Reader,
    shared_data::SystemData,
    token::{self, Token},
};

/// Looks at a list of a running system before its problems are taken for real.
const LIVE_LOOKS: u32 = 3;

/// A recognised Windows.
#[derive(Debug)]
pub struct Win32Os {
    system: Arc<System>,
}

/// What the OS and the processes that were opened from it share.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) kernel: Kernel,
}

impl System {
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

    pub(crate) fn eprocess(&self) -> Result<EprocessLayout> {
        EprocessLayout::new(&self.kernel.layout).context(|| {
            format!("layout of a process of {} {}", self.kernel.info.system, self.kernel.info.release).into()
        })
    }
}

impl Win32Os {
    /// Finds the Windows kernel in `memory`.
    ///
    /// # Errors
    /// [`Error::NotRecognised`] that lists each thing that was looked for and what became of it, when there is no Windows kernel.
    pub fn open(memory: Arc<dyn PhysicalMemory>, options: &Win32Options<'_>) -> Result<Self> {
        Ok(Self { system: Arc::new(System { kernel: Kernel::open(memory, options)? }) })
    }

    /// The found kernel, for questions that [`Os`] does not ask.
    pub fn found(&self) -> &Kernel {
        &self.system.kernel
    }

    /// What the kernel tells every process of the system; `None` when its page cannot be read.
    pub fn system_data(&self) -> Option<SystemData> {
        SystemData::read(&self.system.kernel.view)
    }

    /// What runs on the processors whose control blocks can be found.
    pub fn running(&self) -> Vec<Running> {
        processors::running(&self.system.kernel)
    }

    /// The processes, with what only Windows knows of them: those of the kernel's list, in its order, then those that are not in the list,
    /// or not in what could be read of it, and that the table of process numbers, threads or processors know. Each says who told of it.
    ///
    /// # Errors
    /// When the list cannot be started, or the layout of a process is not known; later problems are in the listing.
    pub fn process_details(&self) -> Result<Listing<ProcessDetails>> {
        let kernel = &self.system.kernel;
        let layout = self.system.eprocess()?;
        self.system.settled(|| {
            let mut listing = eprocess::list(kernel, &layout, kernel.active_processes()?);
            let known: HashSet<VirtAddr> = listing.items.iter().map(|process| process.info.address).collect();
            let system = listing.items.iter().find(|process| process.info.pid == 4).map(|process| process.info.address);
            for (found_by, at) in hidden::candidates(kernel, system, &known, &mut listing.problems) {
                match eprocess::read_in_part(kernel, &layout, at) {
                    // The idle process is in no list.
                    Ok((process, _)) if process.info.pid == 0 => {}
                    Ok((process, missing)) => {
                        listing.items.push(ProcessDetails { found_by, ..process });
                        listing.problems.extend(missing);
                    }
                    Err(error) => listing.problems.push(error.context(format!("process at {at}, told by {found_by}"))),
                }
            }
            Ok(listing)
        })
    }

    /// What Windows knows of one process that was listed.
    ///
    /// # Errors
    /// When it cannot be read, or is no process any more.
    pub fn details(&self, process: &ProcessInfo) -> Result<ProcessDetails> {
        eprocess::read(&self.system.kernel, &self.system.eprocess()?, process.address)
    }

    /// Opens a process that was listed, with what only Windows knows of it.
    ///
    /// # Errors
    /// When it cannot be read, or is another process by now.
    pub fn open_process(&self, process: &ProcessInfo) -> Result<Win32Process> {
        Win32Process::open(self.system.clone(), process)
    }

    /// The modules of the kernel, with the paths of their files.
    ///
    /// # Errors
    /// When the list cannot be found; later problems are in the listing.
    pub fn kernel_modules(&self) -> Result<Listing<LoadedModule>> {
        let kernel = &self.system.kernel;
        let head = kernel.loaded_modules()?;
        self.system
            .settled(|| Ok(modules::modules(Reader::new(&kernel.view), "list of loaded modules", head, Origin::Kernel)))
    }

    /// The image at an address of the kernel, such as the base of one of its modules.
    ///
    /// # Errors
    /// When its headers cannot be read.
    pub fn image(&self, base: VirtAddr) -> Result<LoadedImage<'_>> {
        LoadedImage::open(&self.system.kernel.view, base)
    }

    /// Who a process runs as.
    ///
    /// # Errors
    /// When its token is not known, or cannot be read.
    pub fn token(&self, process: &ProcessDetails) -> Result<Token> {
        let ProcessInfo { pid, name, .. } = &process.info;
        token::read(&self.system.kernel.view, process.token).context(|| format!("process {pid} ({name}): token").into())
    }

    /// The exports of a module, as symbols.
    fn exports_of(&self, base: VirtAddr, name: &str) -> Result<Vec<SymbolInfo>> {
        let kernel = &self.system.kernel;
        let image = Image::read(&kernel.view, base)?;
        let exports = Exports::read(&kernel.view, &image)?;
        let module = (base != kernel.info.base).then(|| name.to_owned());
        let own = exports.named.into_iter().filter(|export| !export.forwarded);
        let symbol = |export: crate::pe::Export| {
            // Code is in sections that may be executed.
            let inside = |section: &&crate::Section| {
                let start = image.at(section.offset);
                export.address.offset_from(start).is_some_and(|offset| offset < section.size.into())
            };
            let section = image.sections.iter().find(inside);
            let kind = if section.is_some_and(|section| section.flags & 0x2000_0000 != 0) { 'T' } else { 'D' };
            SymbolInfo { address: export.address, kind, name: export.name, module: module.clone() }
        };
        Ok(own.map(symbol).collect())
    }
}

impl Os for Win32Os {
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
        let Listing { items, problems } = self.process_details()?;
        Ok(Listing { items: items.into_iter().map(|process| process.info).collect(), problems })
    }

    fn open(&self, process: &ProcessInfo) -> Result<Box<dyn Process>> {
        Ok(Box::new(self.open_process(process)?))
    }

    fn modules(&self) -> Result<Listing<ModuleInfo>> {
        let Listing { items, problems } = self.kernel_modules()?;
        Ok(Listing { items: items.into_iter().map(|module| module.info).collect(), problems })
    }

    /// What the kernel and its modules export, by module in load order, by address in each.
    fn symbols(&self) -> Result<Listing<SymbolInfo>> {
        let modules = self.kernel_modules()?;
        let mut listing = Listing { items: Vec::new(), problems: modules.problems };
        for LoadedModule { info, .. } in &modules.items {
            match self.exports_of(info.base, &info.name) {
                Ok(mut symbols) => {
                    symbols.sort_by_key(|symbol| symbol.address);
                    listing.items.extend(symbols);
                }
                Err(error) => listing.problems.push(error.context(format!("exports of {}", info.name))),
            }
        }
        Ok(listing)
    }

    fn symbols_named(&self, name: &str) -> Result<Vec<SymbolInfo>> {
        let Listing { items, problems } = self.symbols()?;
        let found: Vec<SymbolInfo> = items.into_iter().filter(|symbol| symbol.name == name).collect();
        match problems.into_iter().next() {
            // Only complete tables can say that there is none.
            Some(problem) if found.is_empty() => Err(problem),
            _ => Ok(found),
        }
    }

    fn symbol_at(&self, address: VirtAddr) -> Result<Option<(SymbolInfo, u64)>> {
        let modules = self.kernel_modules()?;
        let inside = |module: &&LoadedModule| {
            address.offset_from(module.info.base).is_some_and(|offset| offset < module.info.size)
        };
        let Some(module) = modules.items.iter().find(inside) else {
            return modules.into_complete().map(|_| None);
        };
        let symbols = self.exports_of(module.info.base, &module.info.name);
        let symbols = symbols.context(|| format!("exports of {}", module.info.name).into())?;
        let nearest =
            symbols.into_iter().filter(|symbol| symbol.address <= address).max_by_key(|symbol| symbol.address);
        Ok(nearest.map(|symbol| {
            let distance = address.offset_from(symbol.address).unwrap_or_default();
            (symbol, distance)
        }))
    }

    fn keyboard(&self) -> Option<&dyn Keyboard> {
        Some(self)
    }

    fn kernel_log(&self) -> Result<Listing<LogRecord>> {
        Err(Error::Unsupported {
            what: "the kernel log of Windows".to_owned(),
            why: "Windows keeps messages of its kernel for debuggers only; its event log is in files".to_owned(),
        })
    }
}

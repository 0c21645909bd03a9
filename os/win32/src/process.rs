//! An opened process of Windows: its memory as a view, and what the kernel and the process itself know of it.
//!
//! Owns: [`Win32Process`]. Must not know: how lists and trees are walked.
//! Keeps: the record is as of the opening; every other question looks again, and a process that is gone is told. Reads find pages of
//! which only the process' regions know, so they are more than a walk of its tables, which others could do by themselves.

use std::sync::Arc;

use memflow_core::{
    Error, MemoryView, PhysicalMemory, VirtAddr,
    error::{Result, ResultExt},
    memory::{ViewRead, ViewWrite, finish_reads},
    os::{Listing, MemoryRegion, ModuleInfo, Process, ProcessInfo, RegionKind, ThreadInfo},
    paging::AddressSpace,
    view::{SpaceView, ViewMetadata},
};

use crate::{
    eprocess::{self, ProcessDetails},
    image::LoadedImage,
    modules::{LoadedModule, Origin},
    os::System,
    page::{PageDetails, ProcessPages},
    peb::Peb,
    reader::Reader,
    thread::{self, EthreadLayout, ThreadDetails},
    token::{self, Token},
    vad::{self, Vad, VadLayout},
};

/// An opened process.
#[derive(Debug)]
pub struct Win32Process {
    system: Arc<System>,
    details: ProcessDetails,
    pages: Arc<ProcessPages>,
    view: SpaceView,
}

impl Win32Process {
    /// Opens a process that was listed.
    pub(crate) fn open(system: Arc<System>, process: &ProcessInfo) -> Result<Self> {
        let details = eprocess::read(&system.kernel, &system.eprocess()?, process.address)
            .context(|| format!("process {} ({})", process.pid, process.name).into())?;
        if details.info.pid != process.pid {
            return Err(Error::NotFound { what: "process with pid", name: process.pid.to_string() });
        }
        let root = details.info.root.unwrap_or_default();
        let pages = Arc::new(ProcessPages::new(system.clone(), details.info.address));
        let space = system.kernel.space_of_root(root).with_soft_faults(pages.clone());
        let view = SpaceView::new(system.kernel.memory.clone(), space);
        Ok(Self { system, details, pages, view })
    }

    /// What Windows knows of the process, as it was when it was opened.
    pub fn details(&self) -> &ProcessDetails {
        &self.details
    }

    /// What it shares with the OS.
    pub(crate) fn system(&self) -> &System {
        &self.system
    }

    /// Where the bytes of the page of an address are.
    ///
    /// # Errors
    /// When the tables that lead to it cannot be read, or it is no address of this paging mode.
    pub fn page(&self, address: VirtAddr) -> Result<PageDetails> {
        self.pages.page(self.view.space(), address)
    }

    /// Who the process runs as.
    ///
    /// # Errors
    /// When its token is not known, or cannot be read.
    pub fn token(&self) -> Result<Token> {
        self.named("token", token::read(&self.system.kernel.view, self.details.token))
    }

    /// The image at an address of the process, such as the base of one of its modules.
    ///
    /// # Errors
    /// When its headers cannot be read.
    pub fn image(&self, base: VirtAddr) -> Result<LoadedImage<'_>> {
        self.named("image", LoadedImage::open(self, base))
    }

    /// The current directory of the process, by its own parameters; `None` for processes of the kernel.
    ///
    /// # Errors
    /// When the pages that hold it cannot be read.
    pub fn current_directory(&self) -> Result<Option<String>> {
        let path = self.own_block().map(|peb| peb.current_directory()).transpose();
        self.named("current directory", path)
    }

    /// The regions of its address space, with what only Windows knows of them.
    ///
    /// # Errors
    /// When the layout of regions is not known, or the tree cannot be started; later problems are in the listing.
    pub fn regions(&self) -> Result<Listing<Vad>> {
        let kernel = &self.system.kernel;
        let listing = VadLayout::new(&kernel.layout)
            .and_then(|layout| self.system.settled(|| vad::regions(&kernel.view, &layout, self.details.info.address)));
        self.named("memory map", listing)
    }

    /// Its threads, with what only Windows knows of them.
    ///
    /// # Errors
    /// When the layout of threads is not known; problems of the list are in the listing.
    pub fn thread_details(&self) -> Result<Listing<ThreadDetails>> {
        let kernel = &self.system.kernel;
        let listing = EthreadLayout::new(&kernel.layout)
            .and_then(|layout| self.system.settled(|| Ok(thread::list(&kernel.view, &layout, &self.details.info))));
        self.named("threads", listing)
    }

    /// The modules that the loader of the process lists, those of 64-bit code first; then images that are mapped and in no list of the
    /// loader, by the names of their files. Processes of the kernel have none.
    ///
    /// # Errors
    /// When nothing can be read of any list or map; other problems are in the listing.
    pub fn modules(&self) -> Result<Listing<LoadedModule>> {
        let mut listing: Listing<LoadedModule> = Listing::new();
        for (what, origin, peb) in [
            ("modules", Origin::Loader, self.own_block()),
            ("32-bit modules", Origin::NarrowLoader, self.narrow_block()),
        ] {
            let Some(peb) = peb else { continue };
            match self.named(what, self.system.settled(|| peb.modules(origin))) {
                Ok(more) => {
                    // The main image is in both lists.
                    let new = |one: &LoadedModule| listing.items.iter().all(|known| known.info.base != one.info.base);
                    let new: Vec<LoadedModule> = more.items.into_iter().filter(new).collect();
                    listing.items.extend(new);
                    listing.problems.extend(more.problems);
                }
                Err(error) => listing.problems.push(error),
            }
        }
        match self.regions() {
            Ok(regions) => {
                let unlisted = regions.items.iter().filter(|vad| {
                    vad.is_image() && listing.items.iter().all(|known| known.info.base != vad.region.range.start())
                });
                let unlisted: Vec<LoadedModule> = unlisted.filter_map(|vad| self.unlisted(vad)).collect();
                listing.items.extend(unlisted);
                listing.problems.extend(regions.problems);
            }
            Err(error) => listing.problems.push(error),
        }
        Ok(listing)
    }

    /// The module of a region that no list of the loader has.
    fn unlisted(&self, vad: &Vad) -> Option<LoadedModule> {
        let RegionKind::File { path, .. } = &vad.region.kind else { return None };
        let range = vad.region.range;
        let name = path.rsplit('\\').next().unwrap_or_default();
        let mut info = ModuleInfo::new(vad.address, range.start(), range.len(), name);
        info.state = Some("not in the loader's list".to_owned());
        Some(LoadedModule { info, path: Some(path.clone()), entry_point: None, origin: Origin::Region })
    }

    /// The process' block in its own memory; processes of the kernel have none.
    fn own_block(&self) -> Option<Peb<'_>> {
        self.details.peb.map(|peb| Peb::new(Reader::new(&self.view), peb))
    }

    /// The block for 32-bit code, of a process that runs such on x64.
    fn narrow_block(&self) -> Option<Peb<'_>> {
        let wow64 = self.details.wow64?;
        let kernel = Reader::new(&self.system.kernel.view);
        // Since Windows 10 the kernel keeps a structure of its own, which begins with the block's address.
        let peb = match kernel.is_kernel(wow64) {
            true => {
                let offset = self.system.kernel.layout.find("_EWOW64PROCESS.Peb").unwrap_or_default();
                kernel.pointer(wow64, offset).ok()?
            }
            false => wow64,
        };
        let reader = Reader::new(&self.view).narrow();
        reader.is_user(peb).then(|| Peb::new(reader, peb))
    }

    fn named<T>(&self, what: &'static str, result: Result<T>) -> Result<T> {
        result.context(|| format!("process {} ({}): {what}", self.details.info.pid, self.details.info.name).into())
    }
}

impl MemoryView for Win32Process {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        self.view.read_batch(ops).or_else(|_| {
            self.pages.complete(&self.view, ops);
            finish_reads("process", ops)
        })
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        self.view.write_batch(ops)
    }

    fn metadata(&self) -> ViewMetadata {
        self.view.metadata()
    }
}

impl Process for Win32Process {
    fn info(&self) -> &ProcessInfo {
        &self.details.info
    }

    fn address_space(&self) -> Option<&AddressSpace> {
        Some(self.view.space())
    }

    fn physical_memory(&self) -> &dyn PhysicalMemory {
        &*self.system.kernel.memory
    }

    fn executable(&self) -> Result<Option<String>> {
        if let Some(path) = &self.details.image_path {
            return Ok(Some(path.clone()));
        }
        let path = self.own_block().map(|peb| peb.image_path()).transpose();
        self.named("executable", path)
    }

    /// One string: Windows keeps the command line as it was given, and each program takes it apart by itself.
    fn command_line(&self) -> Result<Vec<String>> {
        let line = self.own_block().map(|peb| peb.command_line()).transpose();
        self.named("command line", line).map(|line| line.into_iter().filter(|line| !line.is_empty()).collect())
    }

    fn environment(&self) -> Result<Vec<String>> {
        let strings = self.own_block().map_or(Ok(Vec::new()), |peb| peb.environment());
        self.named("environment", strings)
    }

    fn memory_map(&self) -> Result<Listing<MemoryRegion>> {
        let Listing { items, problems } = self.regions()?;
        Ok(Listing { items: items.into_iter().map(|vad| vad.region).collect(), problems })
    }

    fn modules(&self) -> Result<Listing<ModuleInfo>> {
        let Listing { items, problems } = Self::modules(self)?;
        Ok(Listing { items: items.into_iter().map(|module| module.info).collect(), problems })
    }

    fn threads(&self) -> Result<Listing<ThreadInfo>> {
        let Listing { items, problems } = self.thread_details()?;
        Ok(Listing { items: items.into_iter().map(|thread| thread.info).collect(), problems })
    }
}

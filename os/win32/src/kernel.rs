//! A found kernel: its memory, identity, layout and lists' heads. What everything else of this crate stands on.
//!
//! Owns: the order of finding (page tables, image, version, offsets) and what is kept of it.
//! Must not know: processes, modules, how each step searches.
//! Keeps: what was found says from where; what was not found is left out, and asked for by name is an error.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    fmt,
    ops::ControlFlow,
    sync::{Arc, OnceLock},
};

use memflow_core::{
    Error, MemoryView, MemoryViewExt, Result, VirtAddr, memory::PhysicalMemory, os::KernelInfo, paging::AddressSpace,
    view::SpaceView,
};

use crate::{
    derive, eprocess, find,
    kdbg::Kdbg,
    modules,
    offsets::{self, Layout, Row},
    page_file::{PageFile, PageFiles, PagedMemory},
    pe::{CodeView, Exports, Image},
    reader::Reader,
    soft_fault::WindowsSoftFaults,
    version::{self, SharedData, Version},
};

/// How far a search is: what is done, bytes done, bytes in all. Breaks to cancel the search.
type ProgressFn<'a> = dyn Fn(&'static str, u64, u64) -> ControlFlow<()> + Sync + 'a;

/// The architecture of a Windows kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Arch {
    /// 64-bit x86.
    X64,
    /// 32-bit x86 with page tables of 64-bit entries.
    X86Pae,
    /// 32-bit x86 with page tables of 32-bit entries.
    X86,
}

/// Where offsets of the kernel's structures may come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum OffsetSources {
    /// The row of this build in the table of known builds; without one, what the kernel tells, and a row that agrees with that.
    #[default]
    All,
    /// Only what this kernel's memory tells.
    Derived,
}

/// How a kernel is looked for.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Win32Options<'a> {
    /// Value of the page-table root register (CR3) to start from, instead of what the target or its memory says.
    pub root: Option<u64>,
    /// An address in the kernel's image, such as its base.
    pub kernel: Option<u64>,
    /// The architecture, where it is known.
    pub arch: Option<Arch>,
    /// Where offsets may come from.
    pub offsets: OffsetSources,
    /// Numbers of the kernel's layout that are known from elsewhere, by the names of the table of builds: `("_EPROCESS.Peb", 0x550)`.
    /// They come before all others.
    pub known: &'a [(&'a str, u64)],
    /// Page files of the target, from which pages that are not in memory are read.
    pub page_files: &'a [PageFile],
    /// Called now and then, from several threads, while memory is searched: what is done, bytes done, bytes in all. When it breaks, the
    /// search ends with [`Error::Cancelled`].
    pub progress: Option<&'a ProgressFn<'a>>,
}

impl fmt::Debug for Win32Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Win32Options")
            .field("root", &self.root)
            .field("kernel", &self.kernel)
            .field("arch", &self.arch)
            .field("offsets", &self.offsets)
            .field("known", &self.known)
            .field("page_files", &self.page_files)
            .finish_non_exhaustive()
    }
}

/// A Windows kernel found in physical memory.
pub struct Kernel {
    /// The target's memory.
    pub memory: Arc<dyn PhysicalMemory>,
    /// The kernel's address space.
    pub view: SpaceView,
    /// The kernel's identity, and how it was found.
    pub info: KernelInfo,
    /// Its version; numbers that nobody told are zero.
    pub version: Version,
    /// Which file of symbols belongs to it, where that can be read.
    pub symbols: Option<CodeView>,
    pub(crate) image: Option<Image>,
    pub(crate) kdbg: Option<Kdbg>,
    pub(crate) shared: Option<SharedData>,
    pub(crate) layout: Layout,
    /// Where the variable of the table of process numbers was found, once it was looked for.
    pub(crate) process_numbers: OnceLock<Option<VirtAddr>>,
    exports: OnceLock<Option<Exports>>,
    soft_faults: Arc<WindowsSoftFaults>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("info", &self.info).field("view", &self.view).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Finds the kernel in `memory`.
    ///
    /// # Errors
    /// [`Error::NotRecognised`] that lists each thing that was looked for and what became of it.
    pub fn open(memory: Arc<dyn PhysicalMemory>, options: &Win32Options<'_>) -> Result<Self> {
        let (found, mut evidence) = find::find(&memory, options)?;
        let plain = found.view;
        let files = PageFiles::new(options.page_files);
        let memory = match files.is_empty() {
            true => memory,
            false => Arc::new(PagedMemory::new(memory, files.clone())),
        };
        let soft_faults = Arc::new(WindowsSoftFaults::new(plain.space().clone(), files));
        let space = plain.space().clone().with_soft_faults(soft_faults.clone());
        let view = SpaceView::new(memory.clone(), space);
        let find::KernelImage { base, image, codeview, .. } = found.kernel;
        let row = codeview.as_ref().filter(|_| options.offsets == OffsetSources::All);
        let row = row.and_then(|codeview| offsets::exact(&codeview.guid, codeview.age));
        let kdbg = kdbg(&view, base, image.as_ref(), row, &memory);
        let shared = SharedData::read(&view);
        let architecture = view.space().architecture().name;
        let mut kernel = Self {
            info: KernelInfo::new("Windows", "", "", architecture, base),
            version: Version::default(),
            symbols: codeview,
            image,
            kdbg,
            shared,
            layout: Layout::default(),
            process_numbers: OnceLock::new(),
            exports: OnceLock::new(),
            soft_faults,
            memory,
            view,
        };
        kernel.tell_finds(&mut evidence);
        kernel.version = kernel.find_version(row);
        kernel.soft_faults.set_build(kernel.version.build);
        kernel.find_layout(row, options, &mut evidence);
        evidence.extend(kernel.layout.summary());
        if let Some(view) = kernel.system_view() {
            evidence.push(format!("page tables of System: {}", find::describe(view.space())));
            kernel.view = view;
        }
        kernel.name(evidence);
        Ok(kernel)
    }

    fn tell_finds(&self, evidence: &mut Vec<String>) {
        match &self.kdbg {
            Some(kdbg) => {
                evidence.push(format!("KDBG: at {}{}", kdbg.at, if kdbg.encoded { ", encoded" } else { "" }));
            }
            None => evidence.push("KDBG: not found".to_owned()),
        }
        if self.shared.is_none() {
            evidence.push("KUSER_SHARED_DATA: cannot be read".to_owned());
        }
    }

    /// The version, from the shared page; its build where older systems tell it: in the table, in `NtBuildNumber`, in the text that
    /// KDBG leads to, in the header of the dump. What none of them tells, from the image's resources.
    fn find_version(&self, row: Option<Row>) -> Version {
        let exported = || {
            let at = self.symbol("NtBuildNumber")?;
            let build: u32 = self.view.read(at).ok()?;
            Some(build & 0xffff).filter(|build| *build != 0)
        };
        let lab = || {
            let mut text = [0; 16];
            self.view.read_into(self.kdbg.as_ref()?.build_lab()?, &mut text).ok()?;
            version::of_build_lab(&text)
        };
        let dumped = || self.memory.facts().windows.map(|windows| windows.build).filter(|build| *build != 0);
        let build = self.shared.as_ref().and_then(|shared| shared.build).or_else(|| row.and_then(Row::build));
        let build = build.or_else(exported).or_else(lab).or_else(dumped);
        let numbers = self.shared.as_ref().map(|shared| (shared.major, shared.minor));
        if let (Some((major, minor)), Some(build)) = (numbers, build) {
            return Version { major, minor, build };
        }
        let resources = || {
            let image = self.image.as_ref()?;
            let section = image.sections.iter().find(|section| section.name == ".rsrc")?;
            version::of_resources(&image.readable(&self.view, section))
        };
        let other = resources().unwrap_or_default();
        let (major, minor) = numbers.unwrap_or((other.major, other.minor));
        Version { major, minor, build: build.unwrap_or(other.build) }
    }

    /// Offsets: of this very build, else what the kernel itself tells and a build that is near and agrees with that.
    fn find_layout(&mut self, row: Option<Row>, options: &Win32Options<'_>, evidence: &mut Vec<String>) {
        let derived_only = options.offsets == OffsetSources::Derived;
        let mut layout = Layout::default();
        for (name, value) in options.known {
            layout.add((*name).to_owned(), *value, "the caller");
        }
        if let Some(row) = row {
            row.add_to(&mut layout);
        }
        if let Some(kdbg) = &self.kdbg {
            for (name, value) in kdbg.layout() {
                layout.add(name, value, "KDBG");
            }
        }
        if row.is_none() {
            if let Some(exports) = self.exports() {
                offsets::accessors(&self.view, exports, &mut layout);
            }
            derive::derive(self, &mut layout);
            let check = |layout: &Layout| eprocess::check(self, layout);
            // The table has 64-bit systems only.
            if !derived_only && self.view.metadata().pointer_size == 8 {
                layout = offsets::nearest(self.version.build, layout, &check, evidence);
            }
        }
        self.layout = layout;
    }

    fn name(&mut self, evidence: Vec<String>) {
        self.info.release = self.version.to_string();
        let symbols = self.symbols.as_ref().map_or("symbols unknown".to_owned(), CodeView::to_string);
        self.info.version = format!("Windows {} ({symbols})", self.version);
        self.info.build_id = self.symbols.as_ref().map(|codeview| format!("{}{:X}", codeview.guid, codeview.age));
        self.info.evidence = evidence;
    }

    /// The kernel's memory by the page tables of System, if they are others than those by which it was found: those of a process go when
    /// it ends, and have memory of users.
    fn system_view(&self) -> Option<SpaceView> {
        let reader = Reader::new(&self.view);
        let (links, pid) =
            (self.layout.find("_EPROCESS.ActiveProcessLinks")?, self.layout.find("_EPROCESS.UniqueProcessId")?);
        let by_symbol = || reader.pointer(self.symbol("PsInitialSystemProcess")?, 0).ok();
        let by_list = || Some(reader.links(self.active_processes().ok()?).ok()?.0.wrapping_sub(links));
        let is_system =
            |at: &VirtAddr| reader.is_kernel(*at) && reader.pointer(*at, pid).is_ok_and(|pid| pid.as_u64() == 4);
        let system = by_symbol().filter(is_system).or_else(|| by_list().filter(is_system))?;
        let root = reader.pointer(system, self.layout.find("_KPROCESS.DirectoryTableBase")?).ok()?.as_u64();
        let space = self.space_of_root(root);
        let place = |space: &AddressSpace| space.translate(&*self.memory, self.info.base).ok().map(|found| found.phys);
        let same = place(&space).is_some_and(|own| Some(own) == place(self.view.space()));
        (same && space.root() != self.view.space().root()).then(|| SpaceView::new(self.memory.clone(), space))
    }

    /// What the kernel exports, if its table is there.
    pub(crate) fn exports(&self) -> Option<&Exports> {
        let read = || {
            let exports = Exports::read(&self.view, self.image.as_ref()?);
            exports.inspect_err(|error| log::debug!("exports of the kernel: {error}")).ok()
        };
        self.exports.get_or_init(read).as_ref()
    }

    /// The address of a variable or function, from the table of this very build or the export table.
    pub(crate) fn symbol(&self, name: &str) -> Option<VirtAddr> {
        let of_table = || self.layout.find(&format!("rva:{name}")).map(|offset| self.info.base.wrapping_add(offset));
        of_table().or_else(|| self.exports()?.address_of(name))
    }

    /// Head of the list of loaded modules: the first of several sources that leads to a list.
    pub(crate) fn loaded_modules(&self) -> Result<VirtAddr> {
        let facts = self.memory.facts().windows.and_then(|windows| windows.loaded_modules);
        let named = [self.symbol("PsLoadedModuleList"), self.kdbg.as_ref().and_then(Kdbg::loaded_modules), facts];
        named
            .into_iter()
            .flatten()
            .find(|head| self.is_list(*head))
            .or_else(|| modules::find_head(&self.view, self.image.as_ref()?))
            .ok_or_else(|| Error::NotFound { what: "list", name: "PsLoadedModuleList".to_owned() })
    }

    /// Head of the list of processes.
    pub(crate) fn active_processes(&self) -> Result<VirtAddr> {
        let facts = self.memory.facts().windows.and_then(|windows| windows.active_processes);
        let named = [self.symbol("PsActiveProcessHead"), self.kdbg.as_ref().and_then(Kdbg::active_processes), facts];
        named
            .into_iter()
            .flatten()
            .find(|head| self.is_list(*head))
            .or_else(|| eprocess::find_head(self))
            .ok_or_else(|| Error::NotFound { what: "list", name: "PsActiveProcessHead".to_owned() })
    }

    /// Whether there are links at an address, and one of the neighbours that can be read leads back.
    fn is_list(&self, head: VirtAddr) -> bool {
        let reader = Reader::new(&self.view);
        let Ok((next, previous)) = reader.links(head) else { return false };
        let forward = reader.links(next).map(|(_, back)| back == head);
        let backward = reader.links(previous).map(|(onwards, _)| onwards == head);
        reader.is_kernel(next) && reader.is_kernel(previous) && forward.or(backward).unwrap_or(false)
    }

    /// The address space of a process, by the value of its page-table root register. Pages that Windows keeps in memory without the
    /// processor knowing are found in it, others are told.
    pub fn space_of_root(&self, root: u64) -> AddressSpace {
        AddressSpace::new(self.view.space().architecture(), root).with_soft_faults(self.soft_faults.clone())
    }

    /// What is known of entries of page tables.
    pub(crate) fn soft_faults(&self) -> &WindowsSoftFaults {
        &self.soft_faults
    }

    /// An offset of a structure's member, or another number of the kernel's layout: `_EPROCESS.Peb`, `sizeof(_EPROCESS)`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not known of this kernel.
    pub fn offset(&self, name: &'static str) -> Result<u64> {
        self.layout.get(name)
    }
}

/// The block for debuggers: where the table or the dump says, else in the image's data.
fn kdbg(
    view: &SpaceView,
    base: VirtAddr,
    image: Option<&Image>,
    row: Option<Row>,
    memory: &Arc<dyn PhysicalMemory>,
) -> Option<Kdbg> {
    let of_row = row.and_then(|row| row.numbers().find(|(name, _)| *name == "rva:KdDebuggerDataBlock"));
    let named = [
        of_row.map(|(_, offset)| base.wrapping_add(offset)),
        memory.facts().windows.and_then(|windows| windows.debugger_data),
    ];
    let read = named.into_iter().flatten().find_map(|at| Kdbg::read(view, at, base));
    read.or_else(|| Kdbg::search(view, image?))
}

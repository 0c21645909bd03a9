//! From a description to an image: the order in which a machine is built.
//!
//! Owns: what all parts share while the machine is built, and the kernel's own lists. Must not know: bits of page table entries.
//! Keeps: nothing is drawn from anywhere but the description's seed.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::{
    Error, Windows,
    description::{Architecture, Description, REGISTRY},
    images::{Shared, image},
    kernel::{KernelImage, kernel},
    machine::{KERNEL, Machine},
    object::Entries,
    physical::{PAGE, Physical},
    pool::{Pool, Pools, Region},
    processor::Running,
    program::module,
    section::SectionObject,
    soft::Soft,
    tables::{Paging, Rights},
    truth::{self, Module, Process, SharedData, Truth},
    windows::PageFiles,
};

/// When the machine was started: 2021-05-04, in units of 100 ns since 1601.
const STARTED: u64 = 132_645_600_000_000_000;

/// A machine, and what its parts share while it is built.
pub(crate) struct Builder<'a> {
    pub(crate) description: &'a Description,
    pub(crate) machine: Machine,
    pub(crate) kernel: KernelImage,
    pub(crate) soft: Soft,
    pub(crate) shadow: bool,
    pub(crate) page_files: PageFiles,
    pub(crate) images: BTreeMap<(String, bool), Shared>,
    pub(crate) files: BTreeMap<String, SectionObject>,
    pub(crate) sessions: BTreeMap<u32, u64>,
    /// Events by name.
    pub(crate) events: Vec<(String, u64)>,
    pub(crate) shared_data: (u64, SharedData),
    /// Time at which the next thing happens.
    pub(crate) time: u64,
    pub(crate) next_in_file: u32,
    pub(crate) next_wide_image: u64,
    pub(crate) next_narrow_image: u64,
    /// How many of a hundred pages of images are in transition.
    pub(crate) trimmed_images: u8,
    free_ids: Vec<u32>,
}

/// Where the kernel's regions are, and the index of the self-reference.
fn regions(description: &Description, rng: &mut Rng) -> (Pools, u64, Vec<u64>) {
    let region = Region::new;
    let offsets = &description.offsets;
    if !description.wide() {
        let pools = Pools {
            non_paged: region(0x8400_0000 + rng.u64(0..0x100) * PAGE, 0x0400_0000),
            paged: region(0x9000_0000 + rng.u64(0..0x100) * PAGE, 0x0800_0000),
            system: region(0xa000_0000 + rng.u64(0..0x100) * PAGE, 0x0800_0000),
            drivers: region(0x8b80_0000 + rng.u64(0..0x100) * PAGE, 0x0200_0000),
            pfn_database: 0x83c0_0000,
        };
        // Tables that are there before anything is in them.
        let tables = (0..20).map(|at| 0xb000_0000 + at * 0x40_0000).collect();
        return (pools, 0, tables);
    }
    let slot = |index: u64| 0xffff_0000_0000_0000 | index << 39;
    let near = |rng: &mut Rng, start: u64| start + rng.u64(0..0x4000) * PAGE;
    if offsets.seven() {
        let pools = Pools {
            non_paged: region(near(rng, 0xffff_fa80_0100_0000), 1 << 30),
            paged: region(near(rng, 0xffff_f8a0_0000_0000), 1 << 30),
            system: region(near(rng, 0xffff_f880_0800_0000), 1 << 30),
            drivers: region(near(rng, 0xffff_f880_0100_0000), 0x0400_0000),
            pfn_database: 0xffff_fa80_0000_0000,
        };
        return (pools, 0x1ed, vec![slot(0x1ee), 0xffff_ffff_ffd0_0000]);
    }
    // Since 1607 these lie at random; the slots of the kernel's image, of shared data and of the HAL stay.
    let mut slots: Vec<u64> = (0x101..0x1ec).collect();
    rng.shuffle(&mut slots);
    let old = offsets.version.build < 14393;
    let [own, non_paged, paged, system, cache, frames] = if old {
        [0x1ed, 0x1c0, 0x180, 0x1a0, 0x160, 0x1f4]
    } else {
        [slots[0], slots[1], slots[2], slots[3], slots[4], slots[5]]
    };
    let pools = Pools {
        non_paged: region(near(rng, slot(non_paged)), 1 << 30),
        paged: region(near(rng, slot(paged)), 1 << 30),
        system: region(near(rng, slot(system)), 1 << 30),
        drivers: region(near(rng, 0xffff_f80f_0000_0000), 1 << 30),
        pfn_database: slot(frames),
    };
    (pools, own, vec![slot(cache), slot(frames), 0xffff_ffff_ffd0_0000])
}

/// Builds a machine.
pub(crate) fn build(description: &Description) -> Result<Windows, Error> {
    description.check()?;
    let mut rng = Rng::with_seed(description.seed);
    let paging = match description.architecture {
        Architecture::X64 | Architecture::X64Shadow => Paging::Four,
        Architecture::Pae => Paging::Pae,
        Architecture::X86 => Paging::Two,
    };
    let (pools, self_reference, tables) = regions(description, &mut rng);
    let mut memory = Physical::new(description.ram)?;
    if let Some(frames) = &description.frames {
        memory.only(frames);
    }
    // Recent systems have it around 1.6 MiB.
    let root = description.low_table.then(|| rng.u64(0x180..0x1c0));
    let offsets = description.offsets.clone();
    let mut machine = Machine::new(memory, rng, paging, offsets, self_reference, pools, root)?;
    machine.cluttered = description.cluttered;
    for address in tables {
        machine.prepare(address)?;
    }
    let soft = Soft::new(paging, &description.offsets, description.invalid_pte_mask);
    let kernel = kernel(&mut machine, description, soft)?;
    let now = STARTED + 3600 * 10_000_000;
    let shared_data = machine.shared_data(now)?;
    let threads: u32 = description.processes.iter().map(|process| process.threads).sum();
    let mut free_ids: Vec<u32> = (25..2000 + threads + description.processes.len() as u32).map(|id| id * 4).collect();
    free_ids.retain(|id| description.processes.iter().all(|process| process.pid != *id && process.parent != *id));
    machine.rng.shuffle(&mut free_ids);
    let trimmed_images = description.processes.iter().map(|process| process.trimmed).max().unwrap_or(0) / 2;
    let builder = Builder {
        description,
        machine,
        kernel,
        soft,
        shadow: description.architecture == Architecture::X64Shadow,
        page_files: PageFiles::default(),
        images: BTreeMap::new(),
        files: BTreeMap::new(),
        sessions: BTreeMap::new(),
        events: Vec::new(),
        shared_data,
        time: STARTED,
        next_in_file: 0x100,
        next_wide_image: 0,
        next_narrow_image: 0,
        trimmed_images,
        free_ids,
    };
    builder.all()
}

impl Builder<'_> {
    /// A number that no process or thread has.
    pub(crate) fn next_id(&mut self) -> u32 {
        self.free_ids.pop().unwrap_or(0)
    }

    fn all(mut self) -> Result<Windows, Error> {
        let types = self.kernel.symbol("ObTypeIndexTable")?;
        self.machine.types(types, !self.description.events.is_empty())?;
        if let Some(cookie) = self.machine.cookie {
            let at = self.kernel.symbol("ObHeaderCookie")?;
            self.machine.put(KERNEL, at, 1, u64::from(cookie))?;
        }
        for name in &self.description.events {
            let event = self.machine.event(name)?;
            self.events.push((name.clone(), event));
        }
        if self.shadow {
            self.machine.give_shadow(KERNEL)?;
        }
        let mut processes = vec![self.kernel_process(4, 0, "System", KERNEL, 3)?];
        if self.machine.offsets.version.build >= 17134 {
            let space = self.machine.space(false)?;
            processes.push(self.kernel_process(REGISTRY, 4, "Registry", space, 1)?);
        }
        for process in &self.description.processes {
            processes.push(self.process(process)?);
        }
        let window_system = self.window_system(&processes)?;
        let hives = self.hives()?;
        let drivers = self.drivers(&window_system.drivers)?;
        self.variables(&processes)?;
        let pae = self.machine.paging == Paging::Pae;
        let kdbg = self.machine.kdbg(&self.kernel, self.description.kdbg, pae)?;
        let entry = self.entry()?;
        let processors = self.processors(&mut processes, entry)?;
        let low_stub = if self.description.low_stub && self.description.wide() {
            Some(self.machine.start_block(entry)?)
        } else {
            None
        };
        let mut windows = vec![(entry & !(PAGE - 1), Rights::CODE)];
        for processor in &processors {
            windows.extend([(processor.kpcr, Rights::KERNEL), (processor.idt, Rights::KERNEL)]);
        }
        self.machine.share_kernel(&windows)?;
        self.machine.share_sessions(&window_system.spaces, &processes);
        let mut windows = self.into_windows(processes, drivers, kdbg, processors, low_stub);
        windows.truth.keyboards = window_system.keyboards;
        windows.truth.hives = hives;
        Ok(windows)
    }

    /// Where system calls enter.
    fn entry(&self) -> Result<u64, Error> {
        self.kernel.symbol(if self.description.wide() { "KiSystemCall64" } else { "KiFastCallEntry" })
    }

    /// The kernel's own variables.
    fn variables(&mut self, processes: &[Process]) -> Result<(), Error> {
        let width = self.machine.pointer();
        let wide = width == 8;
        let links = self.machine.offsets.need("_EPROCESS.ActiveProcessLinks")?;
        let head = self.kernel.symbol("PsActiveProcessHead")?;
        let listed: Vec<u64> = processes.iter().filter(|p| p.listed).map(|p| p.eprocess + links).collect();
        self.machine.link(KERNEL, width, head, &listed)?;
        for hidden in processes.iter().filter(|process| !process.listed) {
            self.machine.link(KERNEL, width, hidden.eprocess + links, &[])?;
        }
        self.machine.put_pointer(self.kernel.symbol("PsInitialSystemProcess")?, processes[0].eprocess)?;

        let mut entries = Entries::new();
        for process in processes {
            entries.insert(u64::from(process.pid) / 4, self.machine.handle_entry(process.eprocess, 0));
            for thread in &process.threads {
                entries.insert(u64::from(thread.tid) / 4, self.machine.handle_entry(thread.ethread, 0));
            }
        }
        let table = self.machine.handle_table((0, 0), &entries)?;
        self.machine.put_pointer(self.kernel.symbol("PspCidTable")?, table)?;

        let ram = self.machine.memory.ram.clone();
        let block = self.machine.pool(Pool::NonPaged, 2 * width + 2 * width * ram.len() as u64, b"MmPb")?;
        self.machine.put(KERNEL, block, 4, ram.len() as u64)?;
        let pages: u64 = ram.iter().map(|run| run.end - run.start).sum();
        self.machine.put_pointer(block + width, pages)?;
        for (at, run) in (block + 2 * width..).step_by(2 * width as usize).zip(&ram) {
            self.machine.put_pointer(at, run.start)?;
            self.machine.put_pointer(at + width, run.end - run.start)?;
        }
        self.machine.put_pointer(self.kernel.symbol("MmPhysicalMemoryBlock")?, block)?;

        let frames = self.machine.pools.pfn_database;
        self.machine.put_pointer(self.kernel.symbol("MmPfnDatabase")?, frames)?;
        let build = 0xf000_0000 | u64::from(self.machine.offsets.version.build);
        let lab = self.kernel.build_lab.clone();
        self.machine.put(KERNEL, self.kernel.symbol("NtBuildNumber")?, 4, build)?;
        self.machine.write(KERNEL, self.kernel.symbol("NtBuildLab")?, lab.as_bytes())?;
        let top = if !wide {
            0x7ffe_ffff
        } else if self.machine.offsets.seven() {
            0x7ff_fffe_ffff
        } else {
            0x7fff_fffe_ffff
        };
        self.machine.put_pointer(self.kernel.symbol("MmHighestUserAddress")?, top)?;
        self.machine.put_pointer(self.kernel.symbol("MmUserProbeAddress")?, top & !0xffff)?;
        let start = if wide { 0xffff_8000_0000_0000 } else { 0x8000_0000 };
        self.machine.put_pointer(self.kernel.symbol("MmSystemRangeStart")?, start)?;
        let processors = u64::from(self.description.processors);
        self.machine.put(KERNEL, self.kernel.symbol("KeNumberProcessors")?, 1, processors)?;
        let services = self.kernel.symbol("KiServiceTable")?;
        let table = self.kernel.symbol("KeServiceDescriptorTable")?;
        self.machine.put_pointer(table, services)?;
        self.machine.put_pointer(table + 2 * width, 0x191)
    }

    /// Drivers and the list of all modules of the kernel, with those that are `mapped` already behind the others.
    fn drivers(&mut self, mapped: &[Shared]) -> Result<Vec<Module>, Error> {
        let wide = self.machine.offsets.wide;
        let version = self.machine.offsets.version;
        let kernel = Shared {
            path: r"\SystemRoot\system32\ntoskrnl.exe".to_owned(),
            base: self.kernel.base,
            pe: self.kernel.pe.clone(),
            version: self.kernel.texts.clone(),
            section: None,
        };
        let mut images = vec![kernel];
        let names = std::iter::once("hal.dll").chain(self.description.drivers.iter().map(String::as_str));
        for name in names.collect::<Vec<_>>() {
            let folder = if name == "hal.dll" { r"\SystemRoot\system32" } else { r"\SystemRoot\System32\drivers" };
            // Its size is known only when it is made, which takes its place into account.
            let at = self.machine.driver_pages(0x1_0000)?;
            let imports: Vec<&Shared> = images.iter().take(2).collect();
            let (pe, texts) = image(&mut self.machine.rng, name, wide, true, at, version, &imports);
            for page in (0..pe.size).step_by(PAGE as usize) {
                let (write, execute) = pe.rights(page);
                let address = at + u64::from(page);
                self.machine.map(KERNEL, address, Rights { user: false, write, execute })?;
                if let Some(bytes) = pe.page(page) {
                    self.machine.write(KERNEL, address, &bytes[..])?;
                }
            }
            images.push(Shared { path: format!(r"{folder}\{name}"), base: at, pe, version: texts, section: None });
        }
        images.extend_from_slice(mapped);
        let width = self.machine.pointer();
        let mut entries = Vec::new();
        for image in &images {
            let entry = self.machine.pool(Pool::NonPaged, 0x14 * width, b"MmLd")?;
            let base = entry + 6 * width;
            self.machine.put_pointer(base, image.base)?;
            self.machine.put_pointer(base + width, image.base + u64::from(image.pe.entry))?;
            self.machine.put(KERNEL, base + 2 * width, 4, u64::from(image.pe.size))?;
            let name = crate::images::file_name(&image.path);
            let text = self.machine.pool(Pool::Paged, image.path.len() as u64 * 2 + 2, b"MmLd")?;
            self.machine.string(KERNEL, width, base + 3 * width, text, &image.path)?;
            let text = self.machine.pool(Pool::NonPaged, name.len() as u64 * 2 + 2, b"MmLd")?;
            self.machine.string(KERNEL, width, base + 5 * width, text, name)?;
            self.machine.put(KERNEL, base + 7 * width, 4, 0x0900_4000)?;
            self.machine.put(KERNEL, base + 7 * width + 4, 2, 1)?;
            entries.push(entry);
        }
        let head = self.kernel.symbol("PsLoadedModuleList")?;
        self.machine.link(KERNEL, width, head, &entries)?;
        Ok(images.iter().zip(entries).map(|(image, entry)| module(image, entry, true)).collect())
    }

    /// Processors, each with a thread that runs.
    fn processors(&mut self, processes: &mut [Process], entry: u64) -> Result<Vec<truth::Processor>, Error> {
        let mut processors = Vec::new();
        for number in 0..self.description.processors {
            let waiting: Vec<(usize, usize)> = processes
                .iter()
                .enumerate()
                .flat_map(|(at, process)| (0..process.threads.len()).map(move |thread| (at, thread)))
                .filter(|(at, thread)| processes[*at].threads[*thread].state != crate::thread::RUNNING)
                .collect();
            if waiting.is_empty() {
                return Err(Error::Description { what: "more processors than threads".to_owned() });
            }
            let (at, thread) = waiting[self.machine.rng.usize(0..waiting.len())];
            let process = &mut processes[at];
            self.machine.run_thread(&mut process.threads[thread])?;
            let running =
                Running { thread: process.threads[thread].ethread, process: process.eprocess, cr3: process.dtb };
            processors.push(self.machine.processor(number, entry, running)?);
        }
        Ok(processors)
    }

    fn into_windows(
        self,
        processes: Vec<Process>,
        drivers: Vec<Module>,
        kdbg: Option<truth::Kdbg>,
        processors: Vec<truth::Processor>,
        low_stub: Option<u64>,
    ) -> Windows {
        let machine = self.machine;
        let kernel = truth::Kernel {
            base: self.kernel.base,
            size: u64::from(self.kernel.pe.size),
            version: machine.offsets.version,
            guid: self.kernel.guid,
            age: machine.offsets.age,
            pdb: self.kernel.pdb,
            build_lab: self.kernel.build_lab,
            pfn_database: machine.pools.pfn_database,
            symbols: self.kernel.symbols,
            kdbg,
            exports_missing: !self.kernel.missing.is_empty(),
            exports: self.kernel.pe.exports,
        };
        let truth = Truth {
            paging: machine.paging,
            kva_shadow: self.shadow,
            dtb: machine.of(KERNEL).root,
            self_reference: machine.self_reference,
            low_stub,
            ram: machine.memory.ram.iter().map(|run| (run.start * PAGE, run.end * PAGE)).collect(),
            invalid_pte_mask: self.soft.mask,
            kernel,
            shared_data: self.shared_data.1,
            processors,
            drivers,
            keyboards: Vec::new(),
            hives: Vec::new(),
            processes,
        };
        Windows::new(truth, machine.memory, self.page_files, &self.kernel.missing)
    }
}

//! What user mode has in its memory: images, lists of modules, PEB, parameters, TEBs, stacks, regions as described.
//!
//! Owns: the order in which a process is filled. Must not know: structures of the kernel.
//! Keeps: under WoW64, everything lies below 2 GiB but for the libraries of 64 bits.

use crate::{
    Error,
    builder::Builder,
    description::ProcessDescription,
    images::{file_name, image},
    machine::SpaceId,
    peb::{self, Layout, Loaded, NARROW, Peb, Teb, WIDE},
    physical::PAGE,
    section::PagePlan,
    thread::ThreadPlan,
    truth::{Module, PageState, Process, Through},
    user::{Blob, UserSpace},
};

/// A program in memory.
pub(crate) struct Program {
    pub(crate) user: UserSpace,
    pub(crate) image_base: u64,
    pub(crate) peb: u64,
    pub(crate) peb32: Option<u64>,
    pub(crate) modules: Vec<Module>,
    pub(crate) modules32: Vec<Module>,
    /// Threads, but for the process that they are of.
    pub(crate) threads: Vec<ThreadPlan>,
    pub(crate) file_object: u64,
}

/// Lists of modules of one width, with the process's parameters.
struct Lists {
    ldr: u64,
    parameters: u64,
    modules: Vec<Module>,
}

impl Builder<'_> {
    /// Fills the memory of a process.
    pub(crate) fn program(
        &mut self,
        space: SpaceId,
        description: &ProcessDescription,
        process: &Process,
    ) -> Result<Program, Error> {
        let wide_system = self.machine.pointer() == 8;
        let wow64 = description.wow64;
        let seven = self.machine.offsets.seven();
        let first = match (wide_system && !wow64, seven) {
            (true, false) => 0xc0_0000_0000 + self.machine.rng.u64(0..0x4000) * 0x1_0000,
            (true, true) => 0x20_0000,
            (false, _) => 0x90_0000,
        };
        let trimmed = description.trimmed;
        let mut user = UserSpace::new(space, first, self.soft, trimmed, self.next_in_file);
        user.shared_page(&mut self.machine, self.shared_data.1.user_address, self.shared_data.0)?;

        // Images, in the order in which they are loaded.
        let own_width = wide_system && !wow64;
        let folder = if wow64 { "SysWOW64" } else { "System32" };
        let mut paths = vec![(description.path.clone(), true)];
        paths.push((format!(r"C:\Windows\{folder}\ntdll.dll"), true));
        let listed = description.modules.iter().map(|name| (name, true));
        for (name, listed) in listed.chain(description.unlinked_modules.iter().map(|name| (name, false))) {
            paths.push((format!(r"C:\Windows\{folder}\{name}"), listed));
        }
        self.load(&mut user, &paths, own_width)?;
        let mut wide_paths = Vec::new();
        if wow64 {
            let names = ["ntdll.dll", "wow64.dll", "wow64win.dll", "wow64cpu.dll"];
            wide_paths = names.map(|name| (format!(r"C:\Windows\System32\{name}"), true)).to_vec();
            self.load(&mut user, &wide_paths, true)?;
            wide_paths.insert(0, paths[0].clone());
        }

        let layout = if own_width { WIDE } else { NARROW };
        let own = self.lists(&mut user, layout, &paths, description)?;
        let other = if wow64 { Some(self.lists(&mut user, WIDE, &wide_paths, description)?) } else { None };
        let image_base = own.modules[0].base;
        let heap = user.address(&mut self.machine, 2 * PAGE);
        user.private(&mut self.machine, heap, &[0xee; 0x1100], 4)?;

        // PEBs: before Windows 8 at places of their own.
        let narrow_count = u64::from(wow64);
        let at = match (seven, wow64, wide_system) {
            (false, ..) => user.address(&mut self.machine, 2 * PAGE),
            (true, true, _) => 0x7efd_e000,
            (true, false, true) => 0x7ff_fffd_0000 + self.machine.rng.u64(3..9) * PAGE,
            (true, false, false) => 0x7ffd_0000 + self.machine.rng.u64(3..9) * PAGE,
        };
        let (peb_at, peb32) = match (wow64, seven) {
            (false, _) => (at, None),
            (true, true) => (at + PAGE, Some(at)),
            (true, false) => (at, Some(at + PAGE)),
        };
        let say = |lists: &Lists| Peb {
            image_base,
            ldr: lists.ldr,
            parameters: lists.parameters,
            heap,
            processors: self.description.processors,
            version: self.machine.offsets.version,
            session: description.session.unwrap_or(0),
        };
        let mut bytes = vec![0; ((1 + narrow_count) * PAGE) as usize];
        let mut place = |address: u64, page: &[u8]| {
            let from = (address - at) as usize;
            bytes[from..from + page.len()].copy_from_slice(page);
        };
        if let Some((peb32, other)) = peb32.zip(other.as_ref()) {
            place(peb32, &peb::peb(NARROW, say(&own)));
            place(peb_at, &peb::peb(WIDE, say(other)));
        } else {
            place(peb_at, &peb::peb(layout, say(&own)));
        }
        user.private(&mut self.machine, at, &bytes, 4)?;

        let pebs = (peb_at, peb32);
        let threads = (0..description.threads)
            .map(|_| self.user_thread(&mut user, &own, pebs, process))
            .collect::<Result<_, _>>()?;
        for region in &description.private {
            user.described(&mut self.machine, &mut self.page_files, region)?;
        }
        self.next_in_file += 0x100;
        for file in &description.mapped {
            self.map_file(&mut user, file)?;
        }
        if description.large_pages > 0 {
            let size = self.machine.paging.large();
            user.large(&mut self.machine, size, u64::from(description.large_pages))?;
        }
        if description.huge_page {
            user.large(&mut self.machine, 1 << 30, 1)?;
        }
        let key = description.path.to_lowercase();
        let file_object =
            self.images.get(&(key, own_width)).and_then(|image| image.section.as_ref()).map_or(0, |s| s.file_object);
        let (modules, modules32) = match other {
            Some(other) => (other.modules, own.modules),
            None => (own.modules, Vec::new()),
        };
        Ok(Program { user, image_base, peb: peb_at, peb32, modules, modules32, threads, file_object })
    }

    /// Maps images, which are made when the first process wants them.
    fn load(&mut self, user: &mut UserSpace, paths: &[(String, bool)], wide: bool) -> Result<(), Error> {
        for (path, _) in paths {
            self.shared_image(path, wide);
            let key = (path.to_lowercase(), wide);
            let Some(mut shared) = self.images.remove(&key) else { continue };
            let pages = shared.pe.size / PAGE as u32;
            let protections: Vec<u8> = (0..pages)
                .map(|page| match shared.pe.rights(page * PAGE as u32) {
                    (true, _) => 5,
                    (false, true) => 3,
                    (false, false) => 1,
                })
                .collect();
            if shared.section.is_none() {
                let mut plans = Vec::new();
                for (page, protection) in (0..pages).zip(&protections) {
                    let bytes = shared.pe.page(page * PAGE as u32).map_or_else(Vec::new, |page| page.to_vec());
                    let trimmed = self.machine.rng.u8(0..100) < self.trimmed_images;
                    let state = if trimmed { PageState::Transition } else { PageState::Valid };
                    plans.push(PagePlan { state, protection: *protection, bytes });
                }
                let section = self.machine.section(self.soft, &mut self.page_files, path, true, &plans)?;
                shared.section = Some(section);
            }
            if let Some(section) = &shared.section {
                user.section(&mut self.machine, shared.base, section, true, None, &protections)?;
            }
            self.images.insert(key, shared);
        }
        Ok(())
    }

    /// Makes the image of a path, if there is none yet.
    fn shared_image(&mut self, path: &str, wide: bool) {
        let key = (path.to_lowercase(), wide);
        if self.images.contains_key(&key) {
            return;
        }
        let name = file_name(path);
        let program = !name.ends_with(".dll");
        let rng = &mut self.machine.rng;
        let random = rng.u64(0..0x100) * 0x1_0000;
        let ten = !self.machine.offsets.seven();
        let base = match (wide, program, ten) {
            (true, true, true) => 0x7ff6_0000_0000 + random * 0x100,
            (true, true, false) => 0x1_3f00_0000 + random,
            (true, false, _) => {
                let start = if ten { 0x7ff8_0000_0000 } else { 0x7fe_f800_0000 };
                self.next_wide_image += 0x10_0000;
                start + self.next_wide_image + random % 0x8_0000
            }
            (false, true, _) => 0x40_0000 + random % 0x40_0000,
            (false, false, _) => {
                self.next_narrow_image += 0x4_0000;
                0x7000_0000 + self.next_narrow_image + random % 0x2_0000
            }
        };
        let folder = path.rsplit_once('\\').map_or("", |parts| parts.0);
        let libraries = ["ntdll.dll", "kernel32.dll"].map(|library| format!(r"{folder}\{library}").to_lowercase());
        let system = if wide || self.machine.pointer() == 4 { "system32" } else { "syswow64" };
        let common = ["ntdll.dll", "kernel32.dll"].map(|library| format!(r"c:\windows\{system}\{library}"));
        let imports: Vec<_> = libraries
            .into_iter()
            .chain(common)
            .filter(|library| *library != key.0)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .filter_map(|library| self.images.get(&(library, wide)))
            .collect();
        let version = self.machine.offsets.version;
        let (pe, texts) = image(&mut self.machine.rng, name, wide, false, base, version, &imports);
        let shared = crate::images::Shared { path: path.to_owned(), base, pe, version: texts, section: None };
        self.images.insert(key, shared);
    }

    /// Lists of modules and parameters in one region.
    fn lists(
        &mut self,
        user: &mut UserSpace,
        layout: Layout,
        paths: &[(String, bool)],
        description: &ProcessDescription,
    ) -> Result<Lists, Error> {
        let wide = layout.width == 8;
        // The program of a process under WoW64 has 32 bits in both lists.
        let own_width = self.machine.pointer() == 8 && !description.wow64;
        let images: Vec<_> = paths
            .iter()
            .enumerate()
            .filter_map(|(index, (path, listed))| {
                let width = if index == 0 { own_width } else { wide };
                Some((self.images.get(&(path.to_lowercase(), width))?, *listed))
            })
            .collect();
        let loaded: Vec<Loaded<'_>> = images
            .iter()
            .map(|(image, listed)| Loaded {
                base: image.base,
                size: image.pe.size,
                entry: image.pe.entry,
                timestamp: image.pe.timestamp,
                path: &image.path,
                name: file_name(&image.path),
                listed: *listed,
            })
            .collect();
        let mut blob = Blob { base: user.address(&mut self.machine, 0x8000), bytes: Vec::new() };
        blob.take(0x40);
        let (ldr, entries) = peb::lists(&mut blob, layout, &loaded);
        let parameters = peb::parameters(&mut blob, layout, description);
        let modules = images
            .iter()
            .zip(entries)
            .map(|((image, listed), list_entry)| module(image, list_entry, *listed))
            .collect();
        user.private(&mut self.machine, blob.base, &blob.bytes, 4)?;
        Ok(Lists { ldr, parameters, modules })
    }

    /// Stack and TEB of a thread.
    fn user_thread(
        &mut self,
        user: &mut UserSpace,
        lists: &Lists,
        pebs: (u64, Option<u64>),
        process: &Process,
    ) -> Result<ThreadPlan, Error> {
        let wide = self.machine.pointer() == 8;
        let tid = self.next_id();
        let stack = user.address(&mut self.machine, PAGE);
        user.private(&mut self.machine, stack, &[0; PAGE as usize], 4)?;
        let bounds = (stack, stack + PAGE);
        let pages = match (wide, pebs.1) {
            (true, Some(_)) => 3,
            (true, None) => 2,
            (false, _) => 1,
        };
        let mut blob = user.blob(&mut self.machine, pages * PAGE);
        blob.take(pages * PAGE);
        let at = blob.base;
        let narrow = if pebs.1.is_some() { at + 2 * PAGE } else { 0 };
        let layout = if wide { WIDE } else { NARROW };
        peb::teb(&mut blob, layout, Teb { at, peb: pebs.0, pid: process.pid, tid, stack: bounds, narrow });
        if let Some(peb32) = pebs.1 {
            let teb = Teb { at: narrow, peb: peb32, pid: process.pid, tid, stack: bounds, narrow: 0 };
            peb::teb(&mut blob, NARROW, teb);
        }
        user.private(&mut self.machine, at, &blob.bytes, 4)?;
        let (program, library) = (&lists.modules[0], &lists.modules[1]);
        let create_time = self.time;
        self.time += self.machine.rng.u64(1000..100_000);
        Ok(ThreadPlan {
            process: 0,
            pid: process.pid,
            tid,
            teb: at,
            start: library.base + 0x1400,
            win32_start: program.entry,
            create_time,
            user_ip: library.base + 0x1000 + self.machine.rng.u64(0..0x80) * 16,
            user_sp: stack + 0xf00,
        })
    }

    /// A mapped file; the first process that maps it says in which state its pages are.
    fn map_file(&mut self, user: &mut UserSpace, file: &crate::MappedFile) -> Result<(), Error> {
        let protection = 4;
        let key = file.path.to_lowercase();
        if !self.files.contains_key(&key) {
            let mut plans = Vec::new();
            for (state, _) in &file.pages {
                let mut bytes = vec![0; 64];
                self.machine.rng.fill(&mut bytes);
                plans.push(PagePlan { state: *state, protection, bytes });
            }
            let section = self.machine.section(self.soft, &mut self.page_files, &file.path, false, &plans)?;
            self.files.insert(key.clone(), section);
        }
        let Some(section) = self.files.get(&key) else { return Ok(()) };
        if section.pages.iter().map(|page| page.state).ne(file.pages.iter().map(|page| page.0)) {
            return Err(Error::Description {
                what: format!("{} is mapped twice, with pages in different states", file.path),
            });
        }
        let start = user.address(&mut self.machine, section.pages.len() as u64 * PAGE);
        let through: Vec<Through> = file.pages.iter().map(|page| page.1).collect();
        let protections = vec![protection; file.pages.len()];
        user.section(&mut self.machine, start, section, false, Some(&through), &protections)
    }
}

/// What is known of a module.
pub(crate) fn module(image: &crate::images::Shared, list_entry: u64, listed: bool) -> Module {
    Module {
        base: image.base,
        size: u64::from(image.pe.size),
        entry: image.base + u64::from(image.pe.entry),
        name: file_name(&image.path).to_owned(),
        path: image.path.clone(),
        list_entry,
        exports: image.pe.exports.clone(),
        imports: image.pe.imports.clone(),
        sections: image.pe.sections.clone(),
        version: image.version.clone(),
        listed,
    }
}

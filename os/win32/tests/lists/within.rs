//! Lists of a machine of which something is missing, compared with what was built.
//!
//! Owns: what may be absent, and what must not be. Must not know: what is missing.
//! Keeps: whatever is listed was built; a field is right or left out; a list is short only if it says so.

use memflow_core::{
    MemoryViewExt, PhysAddr, VirtAddr,
    os::{Listing, Os, Process as _, RegionKind},
};
use memflow_win32::{LoadedImage, LoadedModule, Origin, PageState, ProcessDetails, Win32Os, Win32Process};
use memflow_windows_images::{
    Windows,
    truth::{self, Module, Process, UserPage},
};

/// A listing that is short of `expected` says so.
fn short<T>(what: &str, listing: &Listing<T>, expected: usize) {
    assert!(listing.items.len() <= expected, "{what}: {} listed, {expected} built", listing.items.len());
    assert!(
        listing.items.len() == expected || !listing.problems.is_empty(),
        "{what}: {} of {expected} listed, and nothing said",
        listing.items.len()
    );
}

/// A field that is there is right.
fn right<T: PartialEq + std::fmt::Debug>(what: &str, found: Option<T>, built: T) {
    assert!(found.as_ref().is_none_or(|found| *found == built), "{what}: {found:?}, built {built:?}");
}

/// A field that is there is right, and there only if it was built.
fn right_if<T: PartialEq + std::fmt::Debug>(what: &str, found: Option<T>, built: Option<T>) {
    assert!(found.is_none() || found == built, "{what}: {found:?}, built {built:?}");
}

/// Compares all lists. `turn` chooses the pages whose bytes are compared: one of eight.
pub(crate) fn compare(os: &Win32Os, windows: &Windows, missing: u64, turn: usize) {
    let truth = &windows.truth;
    assert_eq!(os.kernel().base.as_u64(), truth.kernel.base, "base of the kernel");
    if let Ok(found) = os.process_details() {
        // Hidden ones are found where it is known who else knows of processes.
        let witness = os.found().offset("rva:PspCidTable").is_ok();
        let expected = truth.processes.iter().filter(|process| process.listed || witness).count();
        assert!(found.items.len() <= truth.processes.len());
        assert!(found.items.len() >= expected || !found.problems.is_empty(), "{} of {expected}", found.items.len());
        let said = !found.problems.is_empty();
        for details in &found.items {
            let at = details.info.address.as_u64();
            let built = truth.processes.iter().find(|process| process.eprocess == at);
            let built = built.unwrap_or_else(|| panic!("process at {at:#x} was not built: {details:?}"));
            process_is_right(os, windows, details, built, said);
            if let Ok(opened) = os.open_process(&details.info) {
                opened_is_right(&opened, windows, built, missing, turn);
            }
        }
    }
    kernel_modules_are_right(os, windows);
    for running in os.running() {
        let (thread, process) = (running.thread.as_u64(), running.process.as_u64());
        let built = truth.processors.iter().find(|processor| processor.thread == thread);
        assert_eq!(built.map(|processor| processor.process), Some(process), "running thread");
    }
}

fn process_is_right(os: &Win32Os, windows: &Windows, details: &ProcessDetails, process: &Process, said: bool) {
    let info = &details.info;
    let long = process.device_path.rsplit('\\').next().filter(|name| !name.is_empty()).unwrap_or(&process.short_name);
    assert_eq!(info.pid, process.pid);
    // These have no way to be left out: whoever lists them says that a process is known in part, unless nothing at all is known of them.
    let unknown = |name| os.found().offset(name).is_err();
    let cut = info.name == process.short_name && (said || unknown("_EPROCESS.SeAuditProcessCreationInfo"));
    assert!(info.name == long || cut, "name {:?} of {long}", info.name);
    let wow64 = unknown("_EPROCESS.WoW64Process") && unknown("_EPROCESS.Wow64Process");
    let parts = [
        info.parent_pid == process.parent || unknown("_EPROCESS.InheritedFromUniqueProcessId"),
        info.threads as usize == process.threads.len() || unknown("_EPROCESS.ActiveThreads"),
        details.narrow == (windows.truth.kernel.base < 1 << 32 || process.peb32.is_some()) || wow64,
        info.kernel_thread == (process.peb == 0 && process.exit_time.is_none()) || unknown("_EPROCESS.Peb"),
    ];
    assert!(said || parts.iter().all(|part| *part), "parts of {info:?} are wrong, and nothing is said: {parts:?}");
    assert_eq!(info.root, Some(process.dtb));
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let some = |address: u64| Some(VirtAddr::new(address)).filter(|address| !address.is_null());
    right_if("path", details.image_path.clone(), text(&process.device_path));
    right_if("root of user mode", details.user_root, process.user_dtb.filter(|root| *root > 1));
    right_if("block", details.peb, some(process.peb));
    right_if("session", details.session, process.session);
    right("creation", details.create_time, process.create_time);
    right_if("end", details.exit_time, process.exit_time);
    right("exit status", details.exit_status, process.exit_status);
    right_if("base", details.image_base, some(process.section_base));
    right_if("table of handles", details.handle_table, some(process.object_table));
    right("token", details.token, VirtAddr::new(process.token.address));
    if let Ok(token) = os.token(details) {
        assert_eq!((&token.user, &token.groups), (&process.token.user, &process.token.groups));
        assert_eq!((token.integrity, token.session), (Some(process.token.integrity), process.token.session));
    }
}

fn opened_is_right(opened: &Win32Process, windows: &Windows, process: &Process, missing: u64, turn: usize) {
    if let Ok(strings) = opened.environment()
        && opened.details().peb.is_some()
    {
        let built = process.environment.iter().map(|(name, value)| format!("{name}={value}"));
        assert_eq!(strings, built.collect::<Vec<_>>(), "environment");
    }
    right_if("command line", opened.command_line().ok().and_then(|line| line.into_iter().next()), {
        Some(process.command_line.clone()).filter(|line| !line.is_empty())
    });
    let directory = opened.current_directory().ok().flatten();
    right("directory", directory, process.current_directory.clone());
    if let Some(path) = opened.executable().ok().flatten() {
        assert!(path == process.device_path || path == process.path, "{path}");
    }
    threads_are_right(opened, process);
    regions_are_right(opened, process);
    modules_are_right(opened, process);
    for (number, page) in process.pages.iter().enumerate() {
        page_is_right(opened, windows, page, missing, (number + turn).is_multiple_of(8));
    }
}

fn threads_are_right(opened: &Win32Process, process: &Process) {
    let Ok(found) = opened.thread_details() else { return };
    short("threads", &found, process.threads.len());
    for thread in &found.items {
        let built = process.threads.iter().find(|built| built.ethread == thread.info.address.as_u64()).unwrap();
        let some = |address: u64| Some(VirtAddr::new(address)).filter(|address| !address.is_null());
        assert_eq!((thread.info.tid, thread.info.pid), (built.tid, process.pid));
        right_if("thread's block", thread.teb, some(built.teb));
        right_if("start", thread.start, some(built.start_address));
        right_if("program's start", thread.win32_start, some(built.win32_start_address));
        right("state", thread.kernel_state, built.state);
        right("creation", thread.create_time, built.create_time);
    }
}

fn regions_are_right(opened: &Win32Process, process: &Process) {
    let Ok(found) = opened.regions() else { return };
    short("regions", &found, process.vads.len());
    for vad in &found.items {
        let built = process.vads.iter().find(|built| built.node == vad.address.as_u64()).unwrap();
        let range = vad.region.range;
        assert_eq!((range.start().as_u64(), range.last().unwrap().as_u64()), (built.start, built.last));
        assert_eq!((vad.kind, vad.protection, vad.private), (built.vad_type, built.protection, built.private));
        match &vad.region.kind {
            RegionKind::File { path, .. } => assert_eq!(Some(path), built.file.as_ref()),
            _ => assert!(built.file.is_none() || !found.problems.is_empty(), "file of {built:?}"),
        }
    }
}

fn modules_are_right(opened: &Win32Process, process: &Process) {
    let Ok(found) = opened.modules() else { return };
    let all: Vec<&Module> = process.modules.iter().chain(&process.modules32).collect();
    let bases: std::collections::BTreeSet<u64> = all.iter().map(|module| module.base).collect();
    if opened.details().peb.is_some() {
        short("modules", &found, bases.len());
    }
    for module in &found.items {
        let base = module.info.base.as_u64();
        let built = all.iter().find(|built| built.base == base).unwrap();
        assert_eq!((&module.info.name, module.info.size), (&built.name, built.size));
        if module.origin == Origin::Region {
            let path = module.path.as_ref().unwrap();
            assert!(built.path.ends_with(path) && path.starts_with('\\'), "{path}");
            assert!(!built.listed || !found.problems.is_empty(), "{} is in a list", built.name);
        } else {
            let entries = all.iter().filter(|built| built.base == base).map(|built| built.list_entry);
            assert!(entries.into_iter().any(|entry| entry == module.info.address.as_u64()));
            module_is_right(module, built);
        }
        if let Ok(image) = opened.image(module.info.base) {
            image_is_right(&image, built);
        }
    }
}

fn module_is_right(found: &LoadedModule, built: &Module) {
    assert_eq!((&found.info.name, found.info.size), (&built.name, built.size));
    right("path", found.path.as_ref(), &built.path);
    right_if("entry point", found.entry_point.map(VirtAddr::as_u64), Some(built.entry).filter(|entry| *entry != 0));
}

fn image_is_right(image: &LoadedImage<'_>, built: &Module) {
    let name = &built.name;
    assert_eq!(image.size(), built.size, "{name}");
    let sections = image.sections().iter().map(|section| truth::Section {
        name: section.name.clone(),
        rva: section.offset,
        size: section.size,
        characteristics: section.flags,
    });
    assert_eq!(sections.collect::<Vec<_>>(), built.sections, "{name}");
    let offset = |address: VirtAddr| (address.as_u64() - built.base) as u32;
    if let Ok(exports) = image.exports() {
        short("exports", &exports, built.exports.len());
        for export in &exports.items {
            let rva = offset(export.address);
            let export = truth::Export { rva, name: export.name.clone(), ordinal: export.ordinal };
            assert!(built.exports.contains(&export), "{export:?} of {name}");
        }
    }
    if let Ok(imports) = image.imports() {
        short("imports", &imports, built.imports.len());
        for import in &imports.items {
            let slot = offset(import.slot);
            let (module, name) = (import.module.clone(), import.name.clone().unwrap());
            assert!(built.imports.contains(&truth::Import { module, name, slot }), "{import:?}");
        }
    }
    if let Ok(version) = image.version() {
        assert_eq!(version.map(|version| version.texts), Some(built.version.clone()), "{name}");
    }
}

fn kernel_modules_are_right(os: &Win32Os, windows: &Windows) {
    let truth = &windows.truth;
    let Ok(found) = os.kernel_modules() else { return };
    short("kernel modules", &found, truth.drivers.len());
    for module in &found.items {
        let built = truth.drivers.iter().find(|built| built.base == module.info.base.as_u64()).unwrap();
        assert_eq!(module.info.address.as_u64(), built.list_entry);
        module_is_right(module, built);
        if let Ok(image) = os.image(module.info.base) {
            image_is_right(&image, built);
        }
    }
    if let Ok(symbols) = os.symbols() {
        for symbol in &symbols.items {
            let at = symbol.address.as_u64();
            let owner = truth.drivers.iter().find(|built| (built.base..built.base + built.size).contains(&at)).unwrap();
            let right = |export: &truth::Export| export.name == symbol.name && owner.base + u64::from(export.rva) == at;
            assert!(owner.exports.iter().any(right), "{symbol:?}");
        }
    }
}

fn page_is_right(opened: &Win32Process, windows: &Windows, page: &UserPage, missing: u64, read: bool) {
    let at = VirtAddr::new(page.address);
    let what = || format!("page {:#x}, {:?} through {:?}", page.address, page.state, page.through);
    let base = page.physical.map(PhysAddr::new);
    if let Ok(found) = opened.page(at) {
        let right = match (page.state, found.state) {
            (truth::PageState::Valid, PageState::Valid { base: found })
            | (truth::PageState::Valid | truth::PageState::Transition, PageState::Transition { base: found }) => {
                Some(found) == base
            }
            (truth::PageState::DemandZero, PageState::DemandZero) | (truth::PageState::File, PageState::File) => true,
            (truth::PageState::PageFile { file, page }, PageState::PageFile { file: found, page: number, .. }) => {
                file == found && number.is_none_or(|number| number == u64::from(page))
            }
            (truth::PageState::PageFile { file: 2, page }, PageState::CompressedStore { page: number }) => {
                number.is_none_or(|number| number == u64::from(page))
            }
            // The form of such entries depends on the build, which may be unknown.
            (truth::PageState::PageFile { .. }, PageState::Elsewhere) | (_, PageState::Unreadable) => true,
            _ => false,
        };
        assert!(right, "{}: found {found:x?}", what());
    }
    if !read {
        return;
    }
    let mut bytes = vec![0; 0x1000];
    if opened.read_into(at, &mut bytes).is_ok() {
        let base = base.unwrap_or_else(|| panic!("{} was read", what())).as_u64();
        assert_ne!(base >> 12, missing, "{} was read", what());
        assert!(windows.read(base, 0x1000) == Some(bytes), "{}: other bytes", what());
    }
}

//! Lists of a machine, compared with what was built.
//!
//! Owns: what "equal" means for each list. Must not know: how a machine is opened, which one it is.
//! Keeps: every field is compared, and nothing may be listed that was not built.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use memflow_core::{
    MemoryViewExt, PhysAddr, VirtAddr,
    os::{Listing, Os, Process as _, ProcessState, RegionKind},
};
use memflow_win32::{FoundBy, LoadedImage, LoadedModule, Origin, PageState, ProcessDetails, Win32Os, Win32Process};
use memflow_windows_images::{
    Paging, Windows,
    truth::{self, Module, Process, UserPage, VadKind},
};

/// Which page files are at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageFiles {
    None,
    First,
}

/// The items of a listing that must be complete.
fn complete<T>(what: &str, listing: memflow_core::Result<Listing<T>>) -> Vec<T> {
    let listing = listing.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(listing.problems.is_empty(), "{what}: {:?}", listing.problems);
    listing.items
}

fn some(address: u64) -> Option<VirtAddr> {
    Some(VirtAddr::new(address)).filter(|address| !address.is_null())
}

/// Compares all lists. Tells which kinds of pages there were.
pub(crate) fn compare(os: &Win32Os, windows: &Windows, page_files: PageFiles) -> BTreeSet<&'static str> {
    let mut kinds = BTreeSet::new();
    let truth = &windows.truth;
    assert_eq!(os.kernel().base.as_u64(), truth.kernel.base);
    let found = complete("processes", os.process_details());
    let (listed, hidden): (Vec<&Process>, Vec<&Process>) = truth.processes.iter().partition(|process| process.listed);
    let pids = |processes: &[&Process]| processes.iter().map(|process| process.pid).collect::<Vec<_>>();
    let by_list = found.iter().filter(|process| process.found_by == FoundBy::List);
    assert_eq!(by_list.map(|process| process.info.pid).collect::<Vec<_>>(), pids(&listed));
    let others = found.iter().filter(|process| process.found_by != FoundBy::List);
    let mut others: Vec<u32> = others.map(|process| process.info.pid).collect();
    others.sort_unstable();
    let mut expected = pids(&hidden);
    expected.sort_unstable();
    assert_eq!(others, expected, "hidden processes");
    for details in &found {
        let process = truth.processes.iter().find(|process| process.eprocess == details.info.address.as_u64()).unwrap();
        process_is_right(os, windows, details, process);
        let opened = os.open_process(&details.info).unwrap();
        user_is_right(&opened, process);
        threads_are_right(&opened, process);
        regions_are_right(&opened, process);
        modules_are_right(&opened, process);
        for page in &process.pages {
            kinds.insert(page_is_right(&opened, windows, page, page_files));
        }
    }
    kernel_modules_are_right(os, windows);
    let running: HashSet<(u64, u64)> =
        os.running().iter().map(|running| (running.thread.as_u64(), running.process.as_u64())).collect();
    // A processor is found by its GS base, which 32-bit kernels do not use.
    let known = truth.processors.iter().filter(|_| windows.truth.paging == Paging::Four);
    let expected = known.map(|processor| (processor.thread, processor.process));
    assert_eq!(running, expected.collect());
    kinds
}

fn process_is_right(os: &Win32Os, windows: &Windows, details: &ProcessDetails, process: &Process) {
    let wide = windows.truth.kernel.base > u64::from(u32::MAX);
    let info = &details.info;
    let name = match process.device_path.rsplit('\\').next() {
        Some("") | None => &process.short_name,
        Some(name) => name,
    };
    assert_eq!((info.pid, info.parent_pid, &*info.name), (process.pid, process.parent, name));
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    assert_eq!(details.image_path, text(&process.device_path));
    assert_eq!(info.root, Some(process.dtb));
    assert_eq!(details.user_root, process.user_dtb.filter(|root| *root > 1), "{name}");
    assert_eq!(details.peb, some(process.peb));
    assert_eq!(details.wow64.is_some(), process.peb32.is_some());
    assert_eq!(details.narrow, !wide || process.peb32.is_some());
    assert_eq!(details.session, process.session);
    assert_eq!(details.create_time, Some(process.create_time));
    assert_eq!(details.exit_time, process.exit_time);
    let ended = process.exit_time.is_some();
    assert_eq!(details.exit_status, Some(process.exit_status).filter(|_| ended));
    assert_eq!(info.state, if ended { ProcessState::Zombie } else { ProcessState::Running });
    assert_eq!(info.kernel_thread, process.peb == 0 && !ended);
    assert_eq!(info.threads as usize, process.threads.len());
    assert_eq!(details.image_base, some(process.section_base));
    assert_eq!(details.handle_table, some(process.object_table));
    assert_eq!(details.token, some(process.token.address));
    let token = os.token(details).unwrap();
    assert_eq!((&token.user, &token.groups), (&process.token.user, &process.token.groups));
    assert_eq!((token.integrity, token.session), (Some(process.token.integrity), process.token.session));
    // A tick is 15.625 ms. A process that is older than the boot, as the clocks say, is as old as that.
    let shared = &windows.truth.shared_data;
    let boot = shared.system_time.saturating_sub(shared.tick_count * 156_250);
    assert_eq!(info.start_time.as_nanos(), u128::from(process.create_time.saturating_sub(boot)) * 100);
}

/// What the process itself says.
fn user_is_right(opened: &Win32Process, process: &Process) {
    let strings = process.environment.iter().map(|(name, value)| format!("{name}={value}"));
    assert_eq!(opened.environment().unwrap(), strings.collect::<Vec<_>>());
    let line: Vec<String> = Some(process.command_line.clone()).into_iter().filter(|line| !line.is_empty()).collect();
    assert_eq!(opened.command_line().unwrap(), line);
    let directory = opened.current_directory().unwrap().unwrap_or_default();
    assert_eq!(directory, process.current_directory);
    let path = Some(process.device_path.clone()).filter(|path| !path.is_empty());
    assert_eq!(opened.executable().unwrap(), path);
}

fn threads_are_right(opened: &Win32Process, process: &Process) {
    let found: Vec<truth::Thread> = complete("threads", opened.thread_details())
        .into_iter()
        .map(|thread| {
            let address = |address: Option<VirtAddr>| address.unwrap_or_default().as_u64();
            assert_eq!(thread.info.pid, process.pid);
            let built = process.threads.iter().find(|built| built.tid == thread.info.tid).unwrap();
            truth::Thread {
                ethread: thread.info.address.as_u64(),
                tid: thread.info.tid,
                teb: address(thread.teb),
                start_address: address(thread.start),
                win32_start_address: address(thread.win32_start),
                state: thread.kernel_state.unwrap(),
                create_time: thread.create_time.unwrap(),
                ..built.clone()
            }
        })
        .collect();
    assert_eq!(found, process.threads);
}

fn regions_are_right(opened: &Win32Process, process: &Process) {
    let found: Vec<truth::Vad> = complete("regions", opened.regions())
        .into_iter()
        .map(|vad| truth::Vad {
            node: vad.address.as_u64(),
            start: vad.region.range.start().as_u64(),
            last: vad.region.range.last().unwrap().as_u64(),
            kind: match (vad.private, vad.is_image()) {
                (true, _) => VadKind::Private,
                (false, true) => VadKind::Image,
                (false, false) => VadKind::Mapped,
            },
            vad_type: vad.kind,
            protection: vad.protection,
            private: vad.private,
            file: match vad.region.kind {
                RegionKind::File { path, .. } => Some(path),
                _ => None,
            },
        })
        .collect();
    assert_eq!(found, process.vads);
    for region in complete("memory map", opened.memory_map()) {
        let vad = process.vads.iter().find(|vad| vad.start == region.range.start().as_u64()).unwrap();
        let rights = match vad.protection {
            1 => (true, false, false),
            3 => (true, false, true),
            4 => (true, true, false),
            6 | 7 => (true, true, true),
            0x18 => (false, false, false),
            other => panic!("protection {other:#x}"),
        };
        let found = region.permissions;
        assert_eq!((found.read, found.write, found.execute), rights);
        assert_eq!(found.shared, vad.kind == VadKind::Mapped);
    }
}

fn modules_are_right(opened: &Win32Process, process: &Process) {
    let found = complete("modules", opened.modules());
    let mut expected: Vec<(u64, Origin, &Module)> = Vec::new();
    let lists = [(&process.modules, Origin::Loader), (&process.modules32, Origin::NarrowLoader)];
    for (modules, origin) in lists {
        for module in modules.iter().filter(|module| module.listed) {
            // The main image is in both lists.
            if expected.iter().all(|(base, ..)| *base != module.base) {
                expected.push((module.base, origin, module));
            }
        }
    }
    let unlisted = lists.iter().flat_map(|(modules, _)| modules.iter()).filter(|module| !module.listed);
    let mut unlisted: Vec<&Module> = unlisted.collect();
    unlisted.sort_by_key(|module| module.base);
    expected.extend(unlisted.into_iter().map(|module| (module.base, Origin::Region, module)));
    let seen: Vec<(u64, Origin)> = found.iter().map(|module| (module.info.base.as_u64(), module.origin)).collect();
    assert_eq!(seen, expected.iter().map(|(base, origin, _)| (*base, *origin)).collect::<Vec<_>>());
    for (found, (.., built)) in found.iter().zip(&expected) {
        assert_eq!((&found.info.name, found.info.size), (&built.name, built.size));
        if found.origin == Origin::Region {
            let path = found.path.as_ref().unwrap();
            assert!(built.path.ends_with(path) && path.starts_with('\\'), "{path}");
        } else {
            module_is_right(found, built);
        }
        image_is_right(&opened.image(found.info.base).unwrap(), built);
    }
}

fn module_is_right(found: &LoadedModule, built: &Module) {
    assert_eq!(found.info.address.as_u64(), built.list_entry);
    assert_eq!((&found.info.name, found.path.as_ref(), found.info.size), (&built.name, Some(&built.path), built.size));
    assert_eq!(found.entry_point, some(built.entry));
}

fn image_is_right(image: &LoadedImage<'_>, built: &Module) {
    assert_eq!(image.size(), built.size);
    let sections: Vec<truth::Section> = image
        .sections()
        .iter()
        .map(|section| truth::Section {
            name: section.name.clone(),
            rva: section.offset,
            size: section.size,
            characteristics: section.flags,
        })
        .collect();
    assert_eq!(sections, built.sections);
    let offset = |address: VirtAddr| (address.as_u64() - built.base) as u32;
    let exports: Vec<truth::Export> = complete("exports", image.exports())
        .into_iter()
        .map(|export| {
            assert!(!export.forwarded);
            truth::Export { rva: offset(export.address), name: export.name, ordinal: export.ordinal }
        })
        .collect();
    assert_eq!(exports, built.exports, "{}", built.name);
    imports_and_version_are_right(image, built);
}

fn imports_and_version_are_right(image: &LoadedImage<'_>, built: &Module) {
    let offset = |address: VirtAddr| (address.as_u64() - built.base) as u32;
    let imports: Vec<truth::Import> = complete("imports", image.imports())
        .into_iter()
        .map(|import| truth::Import {
            module: import.module.clone(),
            name: import.name.clone().unwrap(),
            slot: offset(import.slot),
        })
        .collect();
    assert_eq!(imports, built.imports, "{}", built.name);
    let version = image.version().unwrap();
    assert_eq!(version.map(|version| version.texts).unwrap_or_default(), built.version);
}

fn kernel_modules_are_right(os: &Win32Os, windows: &Windows) {
    let truth = &windows.truth;
    let found = complete("kernel modules", os.kernel_modules());
    assert_eq!(found.len(), truth.drivers.len());
    for (found, built) in found.iter().zip(&truth.drivers) {
        assert_eq!((found.info.base.as_u64(), found.origin), (built.base, Origin::Kernel));
        module_is_right(found, built);
        let image = os.image(found.info.base).unwrap();
        if truth.kernel.exports_missing && built.base == truth.kernel.base {
            if let Ok(exports) = image.exports() {
                assert!(!exports.problems.is_empty(), "{} exports", exports.items.len());
            }
            imports_and_version_are_right(&image, built);
        } else {
            image_is_right(&image, built);
        }
    }
    if truth.kernel.exports_missing {
        return;
    }
    let mut symbols: BTreeMap<(Option<String>, String), u64> = BTreeMap::new();
    for symbol in complete("symbols", os.symbols()) {
        assert!(symbols.insert((symbol.module, symbol.name), symbol.address.as_u64()).is_none());
    }
    let mut expected = BTreeMap::new();
    for module in &truth.drivers {
        let owner = (module.base != truth.kernel.base).then(|| module.name.clone());
        for export in &module.exports {
            expected.insert((owner.clone(), export.name.clone()), module.base + u64::from(export.rva));
        }
    }
    assert_eq!(symbols, expected);
}

fn page_is_right(opened: &Win32Process, windows: &Windows, page: &UserPage, page_files: PageFiles) -> &'static str {
    let at = VirtAddr::new(page.address);
    let found = opened.page(at).unwrap();
    let what = format!("{page:x?}, found {found:x?}");
    let base = page.physical.map(PhysAddr::new);
    let store = windows.truth.kernel.version.build >= 10240;
    // The number may be one of two, unless the file is at hand.
    let number_is = |found: Option<u64>, page: u32| match found {
        Some(found) => found == u64::from(page),
        None => windows.truth.invalid_pte_mask != 0 && page.is_multiple_of(2),
    };
    let right = match (page.state, found.state) {
        (truth::PageState::Valid, PageState::Valid { base: found }) => {
            page.through == truth::Through::Entry && Some(found) == base
        }
        (truth::PageState::Valid, PageState::Transition { base: found }) => {
            page.through != truth::Through::Entry && Some(found) == base
        }
        (truth::PageState::Transition, PageState::Transition { base: found }) => Some(found) == base,
        (truth::PageState::DemandZero, PageState::DemandZero) | (truth::PageState::File, PageState::File) => true,
        (truth::PageState::PageFile { file: 2, page }, PageState::CompressedStore { page: found }) => {
            store && number_is(found, page)
        }
        (truth::PageState::PageFile { file, page }, PageState::PageFile { file: found, page: number, at_hand }) => {
            let is_at_hand = page_files == PageFiles::First && file == 0;
            file == found
                && number_is(number, page)
                && at_hand == (is_at_hand && number.is_some())
                && !(file == 2 && store)
        }
        _ => false,
    };
    assert!(right, "{what}");
    assert_eq!((found.address.as_u64(), found.size.bytes()), (page.address, page.size), "{what}");
    let mut bytes = vec![0; 0x1000];
    let read = opened.read_into(at, &mut bytes);
    match (base, found.state) {
        (Some(base), _) => {
            read.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(Some(bytes), windows.read(base.as_u64(), 0x1000), "{what}");
        }
        (None, PageState::PageFile { file, page: Some(number), at_hand: true }) => {
            read.unwrap_or_else(|error| panic!("{what}: {error}"));
            let content = windows.page_file(file).find(|(page, _)| u64::from(*page) == number).unwrap().1;
            assert!(bytes.starts_with(content), "{what}");
            assert!(bytes[content.len()..].iter().all(|byte| *byte == 0));
        }
        (None, state) => {
            let error = read.expect_err(&what).to_string();
            let said = if state == PageState::DemandZero { "not present" } else { "paged out" };
            assert!(error.contains(said), "{what}: {error}");
        }
    }
    match found.state {
        PageState::Valid { .. } => "valid",
        PageState::Transition { .. } => "in transition",
        PageState::DemandZero => "zeros",
        PageState::PageFile { at_hand: true, .. } => "in a page file at hand",
        PageState::PageFile { .. } => "in a page file",
        PageState::CompressedStore { .. } => "compressed",
        PageState::File => "in a file",
        other => panic!("{what}: {other:?}"),
    }
}

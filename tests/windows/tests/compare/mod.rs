//! The lists of an image, compared with its truth.
//!
//! Owns: what "equal" means for each list. Must not know: how images are built, and which image it is given.
//! Keeps: all is read through `reader`, from bytes and offsets.

use std::collections::BTreeMap;

use goblin::pe::{PE, options::ParseOptions};
use memflow_windows_images::{
    Offsets, Paging, Windows,
    truth::{Module, PageState, Process, Through, VadKind},
};

use crate::reader::{Reader, Walk};

/// Address of a variable of the kernel.
pub(crate) fn symbol(windows: &Windows, name: &str) -> u64 {
    windows.truth.kernel.symbols[name]
}

/// Compares all lists.
pub(crate) fn compare(offsets: &Offsets, windows: &Windows) {
    let system = Reader::system(windows, offsets);
    let truth = &windows.truth;
    // Processes.
    let links = system.offset("_EPROCESS.ActiveProcessLinks");
    let found: Vec<u64> =
        system.list(symbol(windows, "PsActiveProcessHead"), system.width()).iter().map(|entry| entry - links).collect();
    let listed: Vec<u64> =
        truth.processes.iter().filter(|process| process.listed).map(|process| process.eprocess).collect();
    assert_eq!(found, listed);
    assert_eq!(system.pointer(symbol(windows, "PsInitialSystemProcess")), Some(truth.processes[0].eprocess));
    for process in &truth.processes {
        process_is_right(&system, process);
        regions_are_right(&system, process);
        modules_are_right(&system, process);
    }
    // Modules of the kernel.
    let entries = system.list(symbol(windows, "PsLoadedModuleList"), system.width());
    assert_eq!(entries, truth.drivers.iter().map(|driver| driver.list_entry).collect::<Vec<_>>());
    for driver in &truth.drivers {
        module_is_right(&system, driver, system.width());
        image_is_right(&system, driver, truth.kernel.exports_missing && driver.base == truth.kernel.base);
    }
    processors_are_right(&system);
    cid_table_is_right(&system);
    shared_data_is_right(&system);
    // The kernel's own idea of RAM.
    let width = system.width();
    let block = system.pointer(symbol(windows, "MmPhysicalMemoryBlock")).unwrap();
    let runs: Vec<(u64, u64)> = (0..system.number(block, 4).unwrap())
        .map(|run| {
            let at = block + (2 + 2 * run) * width;
            let (first, count) = (system.pointer(at).unwrap(), system.pointer(at + width).unwrap());
            (first * 0x1000, (first + count) * 0x1000)
        })
        .collect();
    assert_eq!(runs, truth.ram);
}

fn shared_data_is_right(system: &Reader<'_>) {
    let shared = &system.windows.truth.shared_data;
    let at = shared.kernel_address;
    assert_eq!(system.physical(at), system.physical(shared.user_address));
    let version = system.offsets.version;
    assert_eq!(system.number(at + 0x26c, 4), Some(u64::from(version.major)));
    assert_eq!(system.number(at + 0x270, 4), Some(u64::from(version.minor)));
    assert_eq!(system.number(at + 0x320, 8), Some(shared.tick_count));
    assert_eq!(system.number(at + 0x14, 8), Some(shared.system_time));
    let root = system.bytes(at + 0x30, 20).unwrap();
    assert!(root.chunks(2).map(|unit| unit[0]).eq(shared.system_root.bytes()));
}

fn process_is_right(system: &Reader<'_>, process: &Process) {
    let (at, width) = (process.eprocess, system.width());
    assert_eq!(system.number(at, 1), Some(3), "a process is a dispatcher object of its type");
    assert_eq!(system.field(at, "_EPROCESS.UniqueProcessId"), u64::from(process.pid));
    assert_eq!(system.field(at, "_EPROCESS.InheritedFromUniqueProcessId"), u64::from(process.parent));
    assert_eq!(system.field(at, "_KPROCESS.DirectoryTableBase"), process.dtb);
    assert_eq!(system.field(at, "_EPROCESS.Peb"), process.peb);
    assert_eq!(system.field(at, "_EPROCESS.SectionBaseAddress"), process.section_base);
    assert_eq!(system.field(at, "_EPROCESS.ObjectTable"), process.object_table);
    let name = system.bytes(at + system.offset("_EPROCESS.ImageFileName"), 15).unwrap();
    let name: Vec<u8> = name.into_iter().take_while(|byte| *byte != 0).collect();
    assert!(process.short_name.as_bytes().starts_with(&name) && !name.is_empty(), "{:?}", process.short_name);
    let audit = system.field(at, "_EPROCESS.SeAuditProcessCreationInfo");
    assert_eq!(system.string(audit, width), process.device_path);
    let session = match system.field(at, "_EPROCESS.Session") {
        0 => None,
        session => Some(system.number(session + 8, 4).unwrap() as u32),
    };
    assert_eq!(session, process.session);
    assert_eq!(system.number(at + system.offset("_EPROCESS.ExitStatus"), 4), Some(u64::from(process.exit_status)));
    assert_eq!(system.number(at + system.offset("_EPROCESS.CreateTime"), 8), Some(process.create_time));
    let token = system.field(at, "_EPROCESS.Token") & !(2 * width - 1);
    assert_eq!(token, process.token.address);
    token_is_right(system, process);
    handles_are_right(system, process);
    // Threads, in both lists.
    for (head, entry) in [
        ("_EPROCESS.ThreadListHead", "_ETHREAD.ThreadListEntry"),
        ("_KPROCESS.ThreadListHead", "_KTHREAD.ThreadListEntry"),
    ] {
        let entry = system.offset(entry);
        let threads: Vec<u64> =
            system.list(at + system.offset(head), width).iter().map(|thread| thread - entry).collect();
        assert_eq!(threads, process.threads.iter().map(|thread| thread.ethread).collect::<Vec<_>>());
    }
    let space = Reader::new(system.windows, system.offsets, process.dtb);
    for thread in &process.threads {
        let at = thread.ethread;
        assert_eq!(system.field(at, "_KTHREAD.Process"), process.eprocess);
        assert_eq!(system.field(at, "_ETHREAD.Cid"), u64::from(process.pid));
        assert_eq!(system.pointer(at + system.offset("_ETHREAD.Cid") + width), Some(u64::from(thread.tid)));
        assert_eq!(system.field(at, "_KTHREAD.Teb"), thread.teb);
        assert_eq!(system.field(at, "_ETHREAD.Win32StartAddress"), thread.win32_start_address);
        assert_eq!(system.number(at + system.offset("_KTHREAD.State"), 1), Some(u64::from(thread.state)));
        if thread.teb != 0 {
            let (own, peb) = if width == 8 { (0x30, 0x60) } else { (0x18, 0x30) };
            assert_eq!(space.pointer(thread.teb + own), Some(thread.teb));
            assert_eq!(space.pointer(thread.teb + peb), Some(process.peb));
            if let Some(peb32) = process.peb32 {
                let teb32 = space.pointer(thread.teb).unwrap();
                assert_eq!(teb32, thread.teb + 0x2000);
                assert_eq!(space.number(teb32 + 0x30, 4), Some(peb32));
            }
            let ip = thread.trap_frame + if width == 8 { 0x168 } else { 0x68 };
            assert_eq!(system.pointer(ip), Some(thread.user_ip));
        }
    }
    if let Some(peb32) = process.peb32 {
        let name = ["_EPROCESS.WoW64Process", "_EPROCESS.Wow64Process"]
            .into_iter()
            .find(|name| system.offsets.get(name).is_some());
        let value = system.field(at, name.unwrap());
        let found =
            if system.offsets.get("_EWOW64PROCESS.Peb").is_some() { system.pointer(value) } else { Some(value) };
        assert_eq!(found, Some(peb32));
    }
}

fn token_is_right(system: &Reader<'_>, process: &Process) {
    let (width, seven, at) = (system.width(), system.offsets.version.build < 9200, process.token.address);
    let (count, groups, label) = match (seven, width) {
        (true, 8) => (0x78, 0x90, 0xc8),
        (false, 8) => (0x7c, 0x98, 0xd0),
        (true, _) => (0x78, 0x90, 0xb4),
        (false, _) => (0x7c, 0x94, 0xb8),
    };
    let groups = system.pointer(at + groups).unwrap();
    let sids: Vec<String> = (0..system.number(at + count, 4).unwrap())
        .map(|index| {
            let sid = system.pointer(groups + index * 2 * width).unwrap();
            let parts = system.number(sid + 1, 1).unwrap();
            let authority = system.number(sid + 7, 1).unwrap();
            let parts = (0..parts).map(|part| format!("-{}", system.number(sid + 8 + part * 4, 4).unwrap()));
            format!("S-1-{authority}{}", parts.collect::<String>())
        })
        .collect();
    assert_eq!(sids[0], process.token.user);
    assert_eq!(sids[1..], process.token.groups);
    let label = system.number(at + label, 4).unwrap() as usize;
    assert_eq!(sids[label], format!("S-1-16-{}", process.token.integrity));
}

fn handles_are_right(system: &Reader<'_>, process: &Process) {
    if process.handles.is_empty() {
        return;
    }
    let width = system.width();
    let table = process.object_table;
    let code = system.field(table, "_HANDLE_TABLE.TableCode");
    assert_eq!(code & 3, 0);
    let types = symbol(system.windows, "ObTypeIndexTable");
    for handle in &process.handles {
        let entry = system.pointer(code + u64::from(handle.value) / 4 * 2 * width).unwrap();
        let old = system.offsets.version.minor == 1 || width == 4;
        let header = if old { entry & !7 } else { (entry as i64 >> 20 << 4) as u64 };
        assert_eq!(header + system.offset("_OBJECT_HEADER.Body"), handle.object);
        let mut index = system.number(header + system.offset("_OBJECT_HEADER.TypeIndex"), 1).unwrap();
        if let Some(cookie) = system.windows.truth.kernel.symbols.get("ObHeaderCookie") {
            index ^= system.number(*cookie, 1).unwrap() ^ (header >> 8 & 0xff);
        }
        let kind = system.pointer(types + index * width).unwrap();
        assert_eq!(system.string(kind + 2 * width, width), handle.kind);
        let access = system.number(code + u64::from(handle.value) / 4 * 2 * width + width, 4);
        assert_eq!(access, Some(u64::from(handle.access)));
    }
}

fn regions_are_right(system: &Reader<'_>, process: &Process) {
    let (offsets, width) = (system.offsets, system.width());
    let seven = offsets.version.major == 6 && offsets.version.minor == 1;
    let root_at = process.eprocess + system.offset("_EPROCESS.VadRoot");
    let (root, left, right) = if seven {
        (system.pointer(root_at + 2 * width).unwrap(), width, 2 * width)
    } else {
        (system.pointer(root_at).unwrap(), 0, width)
    };
    let mut found = Vec::new();
    let depth = in_order(system, root, left, right, &mut found);
    assert!(
        f64::from(depth) <= 1.45 * f64::from(found.len() as u32 + 2).log2(),
        "the tree is as flat as AVL trees are"
    );
    assert_eq!(found, process.vads.iter().map(|vad| vad.node).collect::<Vec<_>>());
    let number_bytes = if offsets.get("_MMVAD_SHORT.StartingVpnHigh").is_some() { 4 } else { width };
    for vad in &process.vads {
        let high = |name| offsets.get(name).map_or(0, |at| system.number(vad.node + at, 1).unwrap() << 32);
        let number = |name| system.number(vad.node + system.offset(name), number_bytes).unwrap();
        let start = number("_MMVAD_SHORT.StartingVpn") | high("_MMVAD_SHORT.StartingVpnHigh");
        let last = number("_MMVAD_SHORT.EndingVpn") | high("_MMVAD_SHORT.EndingVpnHigh");
        assert_eq!((start << 12, last << 12 | 0xfff), (vad.start, vad.last));
        let flags = system.field(vad.node, "_MMVAD_SHORT.u");
        let bits = |name: &str| {
            flags >> system.offset(&format!("_MMVAD_FLAGS.{name}@bit"))
                & ((1 << system.offset(&format!("_MMVAD_FLAGS.{name}@bits"))) - 1)
        };
        assert_eq!(bits("VadType"), u64::from(vad.vad_type));
        assert_eq!(bits("Protection"), u64::from(vad.protection));
        assert_eq!(bits("PrivateMemory") == 1, vad.private);
        if let Some(file) = &vad.file {
            let area = system.field(system.field(vad.node, "_MMVAD.Subsection"), "_SUBSECTION.ControlArea");
            let object = system.field(area, "_CONTROL_AREA.FilePointer") & !(2 * width - 1);
            let at = object + system.offset("_FILE_OBJECT.FileName");
            assert_eq!(&system.string(at, width), file);
        }
    }
    assert!(process.vads.windows(2).all(|pair| pair[0].last < pair[1].start), "regions do not overlap");
    pages_are_right(system, process);
}

fn pages_are_right(system: &Reader<'_>, process: &Process) {
    let space = Reader::new(system.windows, system.offsets, process.dtb);
    let size = if system.windows.truth.paging == Paging::Two { 4 } else { 8 };
    for page in &process.pages {
        let vad = process.vads.iter().find(|vad| (vad.start..=vad.last).contains(&page.address)).unwrap();
        let by_vad = || {
            let first = system.field(vad.node, "_MMVAD.FirstPrototypePte");
            system.number(first + (page.address - vad.start) / 0x1000 * size, size).unwrap()
        };
        match (page.through, space.walk(page.address)) {
            (Through::Entry, Walk::Page(at, size)) => {
                assert_eq!((Some(at), size, page.state), (page.physical, page.size, PageState::Valid));
            }
            (Through::Entry, Walk::Entry(entry)) => match page.state {
                PageState::Transition => assert_eq!(space.physical(page.address), page.physical),
                PageState::DemandZero => assert!(entry != 0 && entry & 0xc01 == 0 && entry >> 12 == 0),
                PageState::PageFile { page, .. } => {
                    assert_eq!(entry & 0xc01, 0);
                    let mask = system.windows.truth.invalid_pte_mask;
                    let entry = if entry & 0x10 == 0 { entry ^ mask } else { entry };
                    let (at, pages) = if size == 4 { (12, 0xf_ffff) } else { (32, u32::MAX) };
                    assert_eq!((entry >> at) as u32 & pages, page);
                }
                state => panic!("{state:?} by its own entry {entry:#x}"),
            },
            (Through::Prototype, Walk::Entry(_)) if page.physical.is_some() => {
                assert_eq!(space.physical(page.address), page.physical);
            }
            (Through::Prototype, Walk::Entry(entry)) => assert_eq!(entry & 0x401, 0x400),
            (Through::Vad, Walk::Entry(entry)) => {
                assert_eq!(entry & 0x401, 0x400);
                assert_eq!(entry >> if size == 4 { 12 } else { 32 }, if size == 4 { 0xf_ffff } else { 0xffff_ffff });
                assert_eq!(by_vad() & 0x401 == 0x400, page.state == PageState::File);
            }
            (Through::Nothing, walk) => {
                assert!(matches!(walk, Walk::Entry(0) | Walk::NoTable), "{walk:?}");
                assert_eq!(by_vad() & 1 == 1, page.state == PageState::Valid);
            }
            (through, walk) => panic!("{through:?} of {:#x}: {walk:?}", page.address),
        }
    }
}

fn in_order(system: &Reader<'_>, node: u64, left: u64, right: u64, found: &mut Vec<u64>) -> u32 {
    if node == 0 {
        return 0;
    }
    let left_depth = in_order(system, system.pointer(node + left).unwrap(), left, right, found);
    found.push(node);
    let right_depth = in_order(system, system.pointer(node + right).unwrap(), left, right, found);
    assert!(left_depth.abs_diff(right_depth) <= 1);
    left_depth.max(right_depth) + 1
}

fn modules_are_right(system: &Reader<'_>, process: &Process) {
    if process.peb == 0 {
        return;
    }
    let space = Reader::new(system.windows, system.offsets, process.dtb);
    let lists = [(process.peb, system.width(), &process.modules), (process.peb32.unwrap_or(0), 4, &process.modules32)];
    for (peb, width, modules) in lists.into_iter().filter(|list| list.0 != 0) {
        let (base_at, ldr_at, lists_at) = if width == 8 { (0x10, 0x18, 0x10) } else { (8, 0xc, 0xc) };
        assert_eq!(space.number(peb + base_at, width), Some(process.section_base));
        let ldr = space.number(peb + ldr_at, width).unwrap();
        let listed: Vec<u64> = modules.iter().filter(|module| module.listed).map(|module| module.list_entry).collect();
        assert_eq!(space.list(ldr + lists_at, width), listed);
        for list in 1..3 {
            let mut others: Vec<u64> = space
                .list(ldr + lists_at + list * 2 * width, width)
                .iter()
                .map(|entry| entry - list * 2 * width)
                .collect();
            others.sort_unstable();
            let mut expected = listed[usize::from(list == 2)..].to_vec();
            expected.sort_unstable();
            assert_eq!(others, expected);
        }
        for module in modules {
            module_is_right(&space, module, width);
            let vad = process.vads.iter().find(|vad| vad.start == module.base).unwrap();
            assert_eq!(vad.kind, VadKind::Image);
            assert!(module.path.ends_with(vad.file.as_ref().unwrap()));
        }
        let parameters = space.number(peb + ldr_at + width, width).unwrap();
        let (directory, image, line) = if width == 8 { (0x38, 0x60, 0x70) } else { (0x24, 0x38, 0x40) };
        assert_eq!(space.string(parameters + directory, width), process.current_directory);
        assert_eq!(space.string(parameters + image, width), process.path);
        assert_eq!(space.string(parameters + line, width), process.command_line);
        let (text, size) = if width == 8 { (0x80, 0x3f0) } else { (0x48, 0x290) };
        let length = space.number(parameters + size, width).unwrap();
        let bytes = space.bytes(space.number(parameters + text, width).unwrap(), length).unwrap();
        let units: Vec<u16> = bytes.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        let pairs: Vec<String> = process.environment.iter().map(|(name, value)| format!("{name}={value}\0")).collect();
        assert_eq!(String::from_utf16(&units).unwrap(), format!("{}\0", pairs.concat()));
    }
}

fn module_is_right(space: &Reader<'_>, module: &Module, width: u64) {
    let base = module.list_entry + if width == 8 { 0x30 } else { 0x18 };
    assert_eq!(space.number(base, width), Some(module.base));
    assert_eq!(space.number(base + width, width), Some(module.entry));
    assert_eq!(space.number(base + 2 * width, 4), Some(module.size));
    assert_eq!(space.string(base + 3 * width, width), module.path);
    assert_eq!(space.string(base + 5 * width, width), module.name);
}

/// Images lie in memory by relative address, not as in their file.
pub(crate) fn loaded() -> ParseOptions {
    let mut options = ParseOptions::default();
    options.resolve_rva = false;
    options
}

/// goblin, told that the image lies in memory as in a file, finds what the truth says.
pub(crate) fn image_is_right(space: &Reader<'_>, module: &Module, no_exports: bool) {
    let bytes = space.padded(module.base, module.size);
    let pe = PE::parse_with_opts(&bytes, &loaded()).unwrap_or_else(|error| panic!("{}: {error}", module.name));
    assert_eq!(pe.image_base, module.base);
    assert_eq!(pe.entry as u64, module.entry - module.base);
    let sections: Vec<(String, u32, u32)> = pe
        .sections
        .iter()
        .map(|section| (section.name().unwrap().to_owned(), section.virtual_address, section.virtual_size))
        .collect();
    let expected: Vec<(String, u32, u32)> =
        module.sections.iter().map(|section| (section.name.clone(), section.rva, section.size)).collect();
    assert_eq!(sections, expected);
    let version = pe.resource_data.as_ref().unwrap().version_info.as_ref().unwrap();
    let strings = &version.string_info;
    assert_eq!(strings.product_version(), module.version.get("ProductVersion").cloned());
    assert_eq!(strings.original_filename(), module.version.get("OriginalFilename").cloned());
    assert_eq!(strings.file_description(), module.version.get("FileDescription").cloned());
    let kernel = space.windows.truth.kernel.version;
    assert_eq!(version.fixed_info.unwrap().file_version_ms >> 16, u32::from(kernel.major));
    if no_exports {
        assert!(pe.exports.is_empty());
        return;
    }
    let exports: BTreeMap<String, u32> =
        pe.exports.iter().map(|export| (export.name.unwrap_or_default().to_owned(), export.rva as u32)).collect();
    let expected: BTreeMap<String, u32> =
        module.exports.iter().map(|export| (export.name.clone(), export.rva)).collect();
    assert_eq!(exports, expected, "{}", module.name);
    let imports: Vec<(String, String)> =
        pe.imports.iter().map(|import| (import.dll.to_owned(), import.name.clone().into_owned())).collect();
    let expected: Vec<(String, String)> =
        module.imports.iter().map(|import| (import.module.clone(), import.name.clone())).collect();
    assert_eq!(imports, expected, "{}", module.name);
}

fn processors_are_right(system: &Reader<'_>) {
    for processor in &system.windows.truth.processors {
        let at = processor.kpcr;
        assert_eq!(system.field(at, "_KPCR.Self"), at);
        let prcb = system.field(at, "_KPCR.CurrentPrcb");
        assert_eq!(prcb, at + system.offset("_KPCR.Prcb"));
        assert_eq!(system.field(prcb, "_KPRCB.CurrentThread"), processor.thread);
        assert_eq!(system.field(processor.thread, "_KTHREAD.Process"), processor.process);
        assert_eq!(system.field(processor.process, "_KPROCESS.DirectoryTableBase"), processor.cr3);
        let special = prcb + system.offset("_KPRCB.ProcessorState") + if system.width() == 8 { 0 } else { 0x2cc };
        assert_eq!(system.pointer(special + 2 * system.width()), Some(processor.cr3));
        assert!(system.number(processor.idt, 2).is_some());
        let process = Reader::new(system.windows, system.offsets, processor.cr3);
        assert_eq!(process.physical(at), system.physical(at), "all processes share the kernel's half");
    }
}

fn cid_table_is_right(system: &Reader<'_>) {
    let width = system.width();
    let table = system.pointer(symbol(system.windows, "PspCidTable")).unwrap();
    let code = system.field(table, "_HANDLE_TABLE.TableCode");
    let per_page = 0x1000 / (2 * width);
    let object = |id: u32| {
        let index = u64::from(id) / 4;
        let page = match code & 3 {
            0 => code,
            1 => system.pointer((code & !3) + index / per_page * width)?,
            level => panic!("level {level}"),
        };
        let entry = system.pointer(page + index % per_page * 2 * width)?;
        if system.offsets.version.minor == 1 || width == 4 {
            return Some(entry & !7);
        }
        Some((entry as i64 >> 20 << 4) as u64)
    };
    for process in &system.windows.truth.processes {
        assert_eq!(object(process.pid), Some(process.eprocess));
        for thread in &process.threads {
            assert_eq!(object(thread.tid), Some(thread.ethread));
        }
    }
}

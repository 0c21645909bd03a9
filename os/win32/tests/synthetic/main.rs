//! Windows made by hand: each paging mode, and a kernel of no known build, whose offsets are derived.

mod world;

use std::sync::Arc;

use memflow_core::{
    PhysicalMemory,
    os::{Os, RegionKind},
    testkit::PagingMode,
};
use memflow_win32::{OffsetSources, Win32Options, Win32Os};

use crate::world::World;

const WIDE_BASE: u64 = 0xffff_f803_1234_0000;
const SHARED: u64 = 0xffff_f780_0000_0000;
const POOL: u64 = 0xffff_e000_0000_0000;

/// Offsets of a build that never was.
mod at {
    pub(crate) const ROOT: u64 = 0x28;
    pub(crate) const USER_ROOT: u64 = 0x288;
    pub(crate) const PID: u64 = 0x300;
    pub(crate) const LINKS: u64 = 0x308;
    pub(crate) const CREATED: u64 = 0x320;
    pub(crate) const IMAGE: u64 = 0x3d0;
    pub(crate) const PARENT: u64 = 0x3f0;
    pub(crate) const PEB: u64 = 0x408;
    pub(crate) const NAME: u64 = 0x460;
    pub(crate) const AUDIT: u64 = 0x478;
    pub(crate) const THREADS: u64 = 0x4a8;
    pub(crate) const COUNT: u64 = 0x4b8;
    pub(crate) const REGIONS: u64 = 0x648;
    pub(crate) const STATUS: u64 = 0x66c;
    pub(crate) const OWNER: u64 = 0x228;
    pub(crate) const CID: u64 = 0x658;
    pub(crate) const THREAD_LINKS: u64 = 0x6c8;
}

fn shared_page(world: &mut World, at: u64) {
    world.put(at, &[0; 0x1000]).u32(at + 0x260, 17763).u32(at + 0x26c, 10).u32(at + 0x270, 0);
    world.u64(at + 0x8, 100_000_000).u64(at + 0x14, 132_639_181_000_000_000);
}

/// What a process has.
struct Made {
    pid: u64,
    parent: u64,
    name: &'static str,
    user: bool,
}

const PROCESSES: [Made; 4] = [
    Made { pid: 4, parent: 0, name: "System", user: false },
    Made { pid: 0x1a4, parent: 4, name: "smss.exe", user: true },
    Made { pid: 0x2c8, parent: 0x1a4, name: "csrss.exe", user: true },
    Made { pid: 0x1f40, parent: 0x2c8, name: "notepad.exe", user: true },
];

fn process_at(number: u64) -> u64 {
    POOL + 0x10_0000 + number * 0x1_0000
}

fn put_process(world: &mut World, number: u64, made: &Made, roots: (u64, u64)) {
    let at = process_at(number);
    world.put(at, &[0; 0x1000]).put(at, &[3]);
    world.u64(at + at::ROOT, roots.0).u64(at + at::PID, made.pid).u64(at + at::PARENT, made.parent);
    world.u64(at + at::CREATED, 132_639_181_000_000_000 - 10_000_000).u32(at + at::STATUS, 0x103);
    world.put(at + at::NAME, made.name.as_bytes());
    // Two threads for each process, behind it.
    let mut threads = vec![at + at::THREADS];
    for thread in 0..2 {
        let thread_at = at + 0x2000 + thread * 0x1000;
        world.put(thread_at, &[0; 0xa00]).put(thread_at, &[6]).u64(thread_at + at::OWNER, at);
        world.u64(thread_at + at::CID, made.pid).u64(thread_at + at::CID + 8, made.pid + 0x1000 + thread * 4);
        threads.push(thread_at + at::THREAD_LINKS);
    }
    world.ring(&threads).u32(at + at::COUNT, 2);
    if !made.user {
        return;
    }
    world.u64(at + at::USER_ROOT, roots.1 | 1);
    let user = 0x7ff6_0000_0000 + number * 0x1_0000_0000;
    let (peb, image) = (0x50_0000_0000 + number * 0x1000_0000, user);
    world.u64(at + at::PEB, peb).u64(at + at::IMAGE, image).put(image, b"MZ");
    let path = format!("\\Device\\HarddiskVolume2\\Windows\\{}", made.name);
    world.u64(at + at::AUDIT, at + 0x5000).string(at + 0x5000, at + 0x5100, &path);
    // Block, parameters and command line.
    world.put(peb, &[0; 0x1000]).u64(peb + 0x10, image).u64(peb + 0x18, peb + 0x2000).u64(peb + 0x20, peb + 0x1000);
    world.put(peb + 0x1000, &[0; 0x1000]).string(peb + 0x1070, peb + 0x1800, &format!("{} -x", made.name));
    // The loader's list: one module, the image.
    let entry = peb + 0x3000;
    world.put(entry, &[0; 0x100]).u64(entry + 0x30, image).u32(entry + 0x40, 0x1000);
    world.string(entry + 0x48, entry + 0x200, &path).string(entry + 0x58, entry + 0x600, made.name);
    world.ring(&[peb + 0x2010, entry]);
    // Two regions: the block, private; the image, with a file.
    let (first, second) = (at + 0x6000, at + 0x7000);
    let mut node = |node: u64, children: (u64, u64), pages: (u64, u64), flags: u32| {
        world.put(node, &[0; 0x80]).u64(node, children.0).u64(node + 8, children.1);
        world.u32(node + 0x18, pages.0 as u32).u32(node + 0x1c, pages.1 as u32);
        world.put(node + 0x20, &[(pages.0 >> 32) as u8, (pages.1 >> 32) as u8]).u32(node + 0x30, flags);
    };
    node(first, (0, second), (peb >> 12, (peb >> 12) + 7), 1 << 14 | 4 << 3);
    node(second, (0, 0), (image >> 12, image >> 12), 2 | 7 << 3);
    let (subsection, control, file) = (at + 0x8000, at + 0x8100, at + 0x8200);
    world.u64(second + 0x48, subsection).u64(subsection, control).u64(subsection + 8, 0).u64(control + 0x40, file | 3);
    world.string(file + 0x58, file + 0x100, &format!("\\Windows\\{}", made.name));
    world.u64(at + at::REGIONS, first).u64(at + at::REGIONS + 8, second);
}

/// `mov rax, [rcx+offset]; ret`, or with `lea` the address.
fn accessor(offset: u64, address: bool) -> Vec<u8> {
    let mut code = vec![0x48, if address { 0x8d } else { 0x8b }, 0x81];
    code.extend((offset as u32).to_le_bytes());
    code.push(0xc3);
    code
}

fn whole() -> Arc<dyn PhysicalMemory> {
    let mut world = World::new(PagingMode::X64, WIDE_BASE);
    shared_page(&mut world, SHARED);
    world.modules(POOL, &[("ntoskrnl.exe", WIDE_BASE), ("hal.dll", WIDE_BASE + 0x100_0000)]);
    for (name, offset, address) in [
        ("PsGetProcessId", at::PID, false),
        ("PsGetProcessImageFileName", at::NAME, true),
        ("PsGetProcessExitStatus", at::STATUS, false),
        ("PsGetProcessCreateTimeQuadPart", at::CREATED, false),
        ("PsGetThreadProcess", at::OWNER, false),
    ] {
        world.function(name, &accessor(offset, address));
    }
    // The user's root has the lower half of the kernel's, once that is complete.
    let second = world.builder.frame().unwrap();
    let first = world.builder.root();
    for (number, made) in (0u64..).zip(&PROCESSES) {
        put_process(&mut world, number, made, (first.as_u64(), second.as_u64()));
    }
    for entry in 0..256 {
        let value = world.builder.entry(first.wrapping_add(entry * 8)).unwrap();
        world.builder.set_entry(second.wrapping_add(entry * 8), value).unwrap();
    }
    let head = WIDE_BASE + 0x4f00;
    let nodes: Vec<u64> = (0..PROCESSES.len() as u64).map(|number| process_at(number) + at::LINKS).collect();
    world.ring(&[&[head][..], &nodes].concat());
    let system = world.variable("PsInitialSystemProcess");
    world.u64(system, process_at(0));
    world.map_tables();
    world.memory()
}

fn derived() -> Win32Os {
    let mut options = Win32Options::default();
    options.offsets = OffsetSources::Derived;
    Win32Os::open(whole(), &options).unwrap()
}

#[test]
fn derived_offsets_are_those_it_was_built_with() {
    let os = derived();
    let evidence = &os.kernel().evidence;
    for (name, value) in [
        ("_KPROCESS.DirectoryTableBase", at::ROOT),
        ("_KPROCESS.UserDirectoryTableBase", at::USER_ROOT),
        ("_EPROCESS.UniqueProcessId", at::PID),
        ("_EPROCESS.ActiveProcessLinks", at::LINKS),
        ("_EPROCESS.ImageFileName", at::NAME),
        ("_EPROCESS.InheritedFromUniqueProcessId", at::PARENT),
        ("_EPROCESS.Peb", at::PEB),
        ("_EPROCESS.SectionBaseAddress", at::IMAGE),
        ("_EPROCESS.SeAuditProcessCreationInfo", at::AUDIT),
        ("_EPROCESS.ThreadListHead", at::THREADS),
        ("_EPROCESS.ActiveThreads", at::COUNT),
        ("_EPROCESS.VadRoot", at::REGIONS),
        ("_EPROCESS.ExitStatus", at::STATUS),
        ("_EPROCESS.CreateTime", at::CREATED),
        ("_KTHREAD.Process", at::OWNER),
        ("_ETHREAD.ThreadListEntry", at::THREAD_LINKS),
        ("_ETHREAD.Cid", at::CID),
        ("_MMVAD_FLAGS.PrivateMemory@bit", 14),
    ] {
        match os.found().offset(name) {
            Ok(found) => assert_eq!(found, value, "{name}: {evidence:#?}"),
            Err(error) => panic!("{name}: {error}: {evidence:#?}"),
        }
    }
}

#[test]
fn processes_with_derived_offsets_are_those_that_were_made() {
    let os = derived();
    let list = os.processes().unwrap().into_complete().unwrap();
    let seen: Vec<_> = list.iter().map(|one| (u64::from(one.pid), u64::from(one.parent_pid), &*one.name)).collect();
    assert_eq!(seen, PROCESSES.map(|made| (made.pid, made.parent, made.name)));
    assert_eq!(
        list.iter().map(|one| (one.threads, one.kernel_thread)).collect::<Vec<_>>()[..2],
        [(2, true), (2, false)]
    );
    assert_eq!(list[3].start_time.as_secs(), 9);

    let process = os.open(&list[3]).unwrap();
    assert_eq!(process.executable().unwrap().unwrap(), "\\Device\\HarddiskVolume2\\Windows\\notepad.exe");
    assert_eq!(process.command_line().unwrap(), ["notepad.exe -x"]);
    let threads = process.threads().unwrap().into_complete().unwrap();
    assert_eq!(threads.iter().map(|thread| thread.tid).collect::<Vec<_>>(), [0x2f40, 0x2f44]);
    let regions = process.memory_map().unwrap().into_complete().unwrap();
    let shown: Vec<_> = regions.iter().map(|region| (region.range.len(), region.permissions.to_string())).collect();
    assert_eq!(shown, [(0x8000, "rw-p".to_owned()), (0x1000, "rwxp".to_owned())]);
    assert!(matches!(&regions[1].kind, RegionKind::File { path, .. } if path == "\\Windows\\notepad.exe"));
}

#[test]
fn modules_of_a_process_are_those_of_its_loader() {
    let os = derived();
    let list = os.process_details().unwrap().into_complete().unwrap();
    assert_eq!(list[0].peb, None);
    assert!(os.open_process(&list[0].info).unwrap().modules().unwrap().items.is_empty());
    let process = os.open_process(&list[3].info).unwrap();
    let modules = process.modules().unwrap().into_complete().unwrap();
    // Its image is also a region, and comes up once.
    let seen: Vec<_> = modules.iter().map(|one| (Some(one.info.base), &*one.info.name)).collect();
    assert_eq!(seen, [(list[3].image_base, "notepad.exe")]);
    assert_eq!(process.details().user_root.map(|root| root & 1), Some(1));
}

#[test]
fn each_missing_page_costs_no_truth() {
    // Pages of the kernel, the pool and the tables, one after the other: what is listed was made, and nothing panics.
    let memory = whole();
    let full = memory.metadata().runs.total_bytes();
    let mut listed = 0;
    for page in (0..full).step_by(0x1000) {
        let holed = world::without_page(&*memory, page);
        if world::is_zero(&*memory, page) {
            continue;
        }
        let mut options = Win32Options::default();
        options.offsets = OffsetSources::Derived;
        let Ok(os) = Win32Os::open(holed, &options) else { continue };
        let Ok(list) = os.processes() else { continue };
        listed += 1;
        for process in &list.items {
            let made = PROCESSES.iter().find(|made| made.pid == u64::from(process.pid));
            assert!(made.is_some_and(|made| made.name == process.name), "without {page:#x}: {process:?}");
        }
        assert!(list.items.len() == PROCESSES.len() || !list.problems.is_empty(), "without {page:#x}: {list:?}");
    }
    assert!(listed > 50, "{listed}");
}

#[test]
fn kernels_of_every_paging_mode_are_found_by_their_tables() {
    for (mode, base, shared, pool) in [
        (PagingMode::X64, WIDE_BASE, SHARED, POOL),
        (PagingMode::La57, WIDE_BASE, SHARED, POOL),
        (PagingMode::Pae, 0x8280_0000, 0xffdf_0000, 0x8c00_0000),
        (PagingMode::X86, 0x8280_0000, 0xffdf_0000, 0x8c00_0000),
    ] {
        let mut world = World::new(mode, base);
        shared_page(&mut world, shared);
        world.modules(pool, &[("ntoskrnl.exe", base), ("hal.dll", base + 0x10_0000)]);
        // Something in each quarter.
        world.put(0x1_0000, b"user").put(0x4001_0000, b"user");
        if mode == PagingMode::Pae {
            world.put(0xc800_0000, b"kernel");
        }
        world.map_tables();
        let os =
            Win32Os::open(world.memory(), &Win32Options::default()).unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        assert_eq!((os.kernel().base.as_u64(), &*os.kernel().release), (base, "10.0.17763"), "{mode:?}");
        let modules = os.modules().unwrap().into_complete().unwrap();
        assert_eq!(modules.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["ntoskrnl.exe", "hal.dll"], "{mode:?}");
    }
}

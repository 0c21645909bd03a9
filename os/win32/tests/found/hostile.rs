//! Machines that lie, and memory that is no Windows: a clear answer in bounded time, never a wrong one.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory, VirtAddr,
    memory::{BufferMemory, Run, RunMap, SourceConfig, TargetFacts},
    os::Os,
};
use memflow_win32::{Arch, OffsetSources, Win32Options, Win32Os};
use memflow_windows_images::{Architecture, Description, KdbgForm, OffsetTable, Windows};

use crate::machine::{Image, UNKNOWN, description, machines};

/// The longest that one attempt takes; each takes far below a second.
const LIMIT: Duration = Duration::from_secs(20);

fn offsets() -> memflow_windows_images::Offsets {
    OffsetTable::embedded().unwrap().build("10.0.17763").unwrap().clone()
}

fn open(windows: &Windows, options: &Win32Options<'_>) -> memflow_core::Result<Win32Os> {
    let started = Instant::now();
    let memory = Image::memory(Arc::new(windows.clone()), TargetFacts::default());
    let os = Win32Os::open(memory, options);
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    os
}

/// A machine without hints, of a build that no table knows.
fn plain(seed: u64, prepare: impl FnOnce(&mut Description)) -> Windows {
    let mut one = description(seed, Architecture::X64, offsets());
    one.low_stub = false;
    one.guid = Some(UNKNOWN.to_owned());
    prepare(&mut one);
    one.build().unwrap()
}

/// Frames of RAM that nobody wrote to.
fn free_frames(windows: &Windows) -> impl Iterator<Item = u64> {
    let runs = windows.runs();
    let touched = windows.touched();
    let free = move |frame: &u64| !touched.iter().any(|run| run.contains(frame));
    runs.into_iter().flatten().filter(free)
}

/// A page that looks more like the root of a system than any root: it maps itself, and two hundred tables that are not there.
fn decoy(frame: u64) -> Vec<u8> {
    let mut entries = [0_u64; 512];
    for (number, entry) in entries[256..456].iter_mut().enumerate() {
        *entry = (0x4000 + number as u64) << 12 | 0x63;
    }
    entries[480] = frame << 12 | 0x8000_0000_0000_0063;
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

#[test]
fn hundreds_of_tables_that_map_themselves_hide_nothing() {
    let mut windows = plain(50_000, |_| {});
    let frames: Vec<u64> = free_frames(&windows).take(600).collect();
    for frame in frames {
        windows.write(frame << 12, &decoy(frame));
    }
    let os = open(&windows, &Win32Options::default()).unwrap();
    assert_eq!(os.kernel().base.as_u64(), windows.truth.kernel.base);
    let line = os.kernel().evidence.iter().find(|line| line.starts_with("low memory: ")).unwrap();
    // All are counted; the system's own come first.
    assert!(line.contains("of them map the shared page: "), "{line}");
    let count: usize = line["low memory: ".len()..].split(' ').next().unwrap().parse().unwrap();
    assert!(count >= 600, "{line}");
}

#[test]
fn decoys_alone_are_told_and_cost_little() {
    let mut windows = plain(50_001, |_| {});
    let frames: Vec<u64> = free_frames(&windows).take(600).collect();
    let tables: Vec<u64> = windows.truth.processes.iter().map(|process| process.dtb >> 12).collect();
    for frame in frames {
        windows.write(frame << 12, &decoy(frame));
    }
    tables.iter().for_each(|frame| windows.remove(*frame));
    let error = open(&windows, &Win32Options::default()).unwrap_err().to_string();
    assert!(error.starts_with("no Windows kernel found; looked for low memory: "), "{error}");
    assert!(error.contains("tables that map themselves"), "{error}");
}

#[test]
fn wrong_arguments_are_told() {
    for (_, windows) in machines() {
        let wide = windows.truth.paging == memflow_windows_images::Paging::Four;
        let error = |change: &dyn Fn(&mut Win32Options<'_>)| {
            let mut options = Win32Options::default();
            change(&mut options);
            open(windows, &options).unwrap_err().to_string()
        };
        for root in [0, 0x1000, 0x7fff_f000, 0xffff_ffff_ffff_f000, windows.truth.dtb + 0x1000] {
            let text = error(&|options| options.root = Some(root));
            assert!(text.contains("page tables given by the caller: page tables at physical"), "{text}");
            assert!(text.ends_with("leave out `dtb` to search all memory"), "{text}");
        }
        let other = if wide { Arch::X86 } else { Arch::X64 };
        let text = error(&|options| options.arch = Some(other));
        assert!(text.contains(&format!("architecture: {other:?}, as the caller says")), "{text}");
        // A kernel that does not hold the address is told, and not taken.
        for address in [0, 0x1000, u64::MAX, windows.truth.drivers[1].base, 0xffff_8000_0000_0000] {
            let text = error(&|options| options.kernel = Some(address));
            let (base, address) = (VirtAddr::new(windows.truth.kernel.base), VirtAddr::new(address));
            let expected = format!("kernel at {base}: does not hold {address}, which the caller gave");
            assert!(text.contains(&expected), "{text}");
        }
    }
}

/// Where a byte of the kernel's memory lies.
fn physical(os: &Win32Os, address: u64) -> u64 {
    os.kernel_space().translate(&**os.physical_memory(), VirtAddr::new(address)).unwrap().phys.as_u64()
}

/// Numbers at which arithmetic goes wrong.
const LIES: [u32; 8] = [0, 1, 0x28, 0xfff, 0x1000, 0x7fff_ffff, 0xffff_fff0, 0xffff_ffff];

/// Puts each lie at each place, opens, asks for everything, and puts back what was there.
fn lie_at(windows: &Windows, places: &[u64], options: &Win32Options<'_>) -> (u32, u32) {
    let mut windows = windows.clone();
    let (mut found, mut refused) = (0, 0);
    for place in places {
        let before = windows.read(*place, 4).unwrap();
        for lie in LIES {
            windows.write(*place, &lie.to_le_bytes());
            match open(&windows, options) {
                Ok(os) => {
                    found += 1;
                    assert_eq!(os.kernel().base.as_u64(), windows.truth.kernel.base, "{place:#x} {lie:#x}");
                    let _ = os.processes();
                    let _ = os.modules();
                    let _ = os.symbols();
                    let _ = os.symbol_at(VirtAddr::new(windows.truth.kernel.base + 0x1000));
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().starts_with("no Windows kernel found"), "{error}");
                }
            }
        }
        windows.write(*place, &before);
    }
    (found, refused)
}

#[test]
fn headers_that_lie_are_no_kernel_or_the_right_one() {
    let windows = plain(51_000, |one| one.kdbg = KdbgForm::Plain);
    let os = open(&windows, &Win32Options::default()).unwrap();
    let base = windows.truth.kernel.base;
    let read =
        |at: u64| u64::from(u32::from_le_bytes(windows.read(physical(&os, base + at), 4).unwrap().try_into().unwrap()));
    let pe = read(0x3c);
    // Start of the headers, sections, kind, sizes, number of directories, exports, debug, and the first section.
    let fields = [
        0x3c,
        pe + 4,
        pe + 20,
        pe + 24,
        pe + 80,
        pe + 132,
        pe + 136,
        pe + 140,
        pe + 184,
        pe + 188,
        pe + 264 + 8,
        pe + 276,
    ];
    let places: Vec<u64> = fields.iter().map(|at| physical(&os, base + at)).collect();
    let (found, _) = lie_at(&windows, &places, &Win32Options::default());
    assert!(found > 40, "{found}");
}

#[test]
fn exports_that_lie_cost_nothing_but_themselves() {
    let windows = plain(52_000, |_| {});
    let os = open(&windows, &Win32Options::default()).unwrap();
    let base = windows.truth.kernel.base;
    let section = windows.truth.drivers[0].sections.iter().find(|section| section.name == ".edata").unwrap();
    let places: Vec<u64> = (12..40).step_by(4).map(|at| physical(&os, base + u64::from(section.rva) + at)).collect();
    let (found, refused) = lie_at(&windows, &places, &Win32Options::default());
    assert_eq!((found, refused), (56, 0));
    // Every word of the tables behind it, one lie each.
    let mut damaged = windows.clone();
    for at in (40..0x400).step_by(4) {
        damaged.write(physical(&os, base + u64::from(section.rva) + at), &LIES[(at / 4 % 8) as usize].to_le_bytes());
    }
    let os = open(&damaged, &Win32Options::default()).unwrap();
    assert_eq!(os.kernel().base.as_u64(), base);
    let listed: Vec<u32> = os.processes().unwrap().items.iter().map(|process| process.pid).collect();
    let built: Vec<u32> = windows.truth.processes.iter().map(|process| process.pid).collect();
    assert_eq!(listed, built);
}

#[test]
fn kdbg_that_lies_does_not_hide_the_lists() {
    let windows = plain(53_000, |one| one.kdbg = KdbgForm::Plain);
    let os = open(&windows, &Win32Options::default()).unwrap();
    let kdbg = windows.truth.kernel.kdbg.as_ref().unwrap().address;
    // Heads of lists, then offsets.
    let heads: Vec<u64> =
        [0x48, 0x4c, 0x50, 0x54, 0x208, 0x20c, 0x218, 0x21c].iter().map(|at| physical(&os, kdbg + at)).collect();
    let mut derived = Win32Options::default();
    derived.offsets = OffsetSources::Derived;
    for options in [Win32Options::default(), derived] {
        let (found, refused) = lie_at(&windows, &heads, &options);
        assert_eq!((found, refused), (64, 0));
    }
    let mut damaged = windows.clone();
    let loop_back = kdbg + 0x48;
    for at in [0x48, 0x50] {
        // The lists' heads are in the block itself, which is no list.
        damaged.write(physical(&os, kdbg + at), &loop_back.to_le_bytes());
    }
    let os = open(&damaged, &Win32Options::default()).unwrap();
    assert_eq!(os.processes().unwrap().items.len(), windows.truth.processes.len());
    assert_eq!(os.modules().unwrap().items.len(), windows.truth.drivers.len());
}

#[test]
fn offsets_of_kdbg_that_lie_are_told_where_others_know_better() {
    let windows = plain(54_000, |one| one.kdbg = KdbgForm::Plain);
    let os = open(&windows, &Win32Options::default()).unwrap();
    let kdbg = windows.truth.kernel.kdbg.as_ref().unwrap().address;
    let mut damaged = windows.clone();
    damaged.write(physical(&os, kdbg + 0x2aa), &0x123_u16.to_le_bytes());
    let os = open(&damaged, &Win32Options::default()).unwrap();
    let told = os.kernel().evidence.iter().any(|line| line.contains("_EPROCESS.Peb is 0x123 by KDBG, 0x3f8 by code"));
    assert!(told, "{:#?}", os.kernel().evidence);
}

#[test]
fn random_damage_is_survived() {
    let windows = plain(55_000, |_| {});
    let frames: Vec<u64> = windows.pages().map(|(frame, _)| frame).collect();
    let mut state = 1_u64;
    let mut next = |limit: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % limit
    };
    for _ in 0..60 {
        let mut damaged = windows.clone();
        for _ in 0..400 {
            let at = frames[next(frames.len())] << 12 | (next(512) * 8) as u64;
            let value = [0, u64::MAX, at, 0xffff_f800_0000_0000, at ^ 0xfff][next(5)];
            damaged.write(at, &value.to_le_bytes());
        }
        if let Ok(os) = open(&damaged, &Win32Options::default()) {
            for process in os.processes().map(|found| found.items).unwrap_or_default() {
                if let Ok(open) = os.open_process(&process) {
                    let _ = open.modules();
                }
            }
        }
    }
}

/// The loads of an ELF core of 64 bits as memory.
fn elf(path: &Path) -> Arc<dyn PhysicalMemory> {
    let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let number =
        |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let headers = (0..number(56, 2)).map(|header| (number(32, 8) + header * 56) as usize);
    let runs = headers.filter(|at| number(*at, 4) == 1).map(|at| {
        let range = PhysRange::new(PhysAddr::new(number(at + 24, 8)), number(at + 32, 8)).unwrap();
        Run { range, offset: number(at + 8, 8) }
    });
    let runs = RunMap::new(runs.collect::<Vec<_>>()).unwrap();
    let config = SourceConfig { name: "a Linux machine".into(), runs, facts: TargetFacts::default() };
    Arc::new(BufferMemory::new(config, bytes).unwrap())
}

#[test]
fn linux_is_no_windows() {
    let memory = elf(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../memflow-cli/demo/demo.elf.zst"));
    let started = Instant::now();
    let error = Win32Os::open(memory, &Win32Options::default()).unwrap_err().to_string();
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    assert!(error.starts_with("no Windows kernel found; looked for low memory: "), "{error}");
    assert!(error.contains("all memory: "), "{error}");
}

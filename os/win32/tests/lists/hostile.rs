//! Machines with structures that lie: what they say is refused, what is beside them is still read, and every list ends.
//!
//! Owns: the lies. Must not know: how lists are read.
//! Keeps: whatever is listed was built; a list that is short says so.

use std::time::{Duration, Instant};

use memflow_core::{
    MemoryViewExt, VirtAddr,
    os::{Listing, Os, Process as _},
};
use memflow_win32::{Win32Options, Win32Os, Win32Process};
use memflow_windows_images::{Architecture, Offsets, Windows, truth::Process, windows_7_x86};

use crate::{damage::small, image, table, within};

/// All that is asked of one machine takes milliseconds.
const BOUND: Duration = Duration::from_secs(20);

/// A machine that can be written to by virtual address.
struct Victim {
    windows: Windows,
    offsets: Offsets,
}

impl Victim {
    fn all() -> Vec<Self> {
        let table = table();
        let builds = ["6.1.7601", "10.0.19041"];
        let mut kinds: Vec<(Architecture, Offsets)> =
            builds.iter().map(|build| (Architecture::X64, table.build(build).unwrap().clone())).collect();
        kinds.push((Architecture::Pae, windows_7_x86()));
        let built = kinds.into_iter().map(|(architecture, offsets)| {
            let windows = small(300, architecture, offsets.clone()).build().unwrap();
            Self { windows, offsets }
        });
        built.collect()
    }

    fn open(&self) -> Win32Os {
        let memory = image::memory(&self.windows, &[], image::processors(&self.windows));
        // What lies is not to be what offsets come from.
        let known: Vec<(&str, u64)> = if self.offsets.wide { Vec::new() } else { self.offsets.iter().collect() };
        let mut options = Win32Options::default();
        options.known = &known;
        Win32Os::open(memory, &options).unwrap()
    }

    fn width(&self) -> u64 {
        if self.offsets.wide { 8 } else { 4 }
    }

    fn at(&self, name: &str) -> u64 {
        self.offsets.get(name).unwrap()
    }

    fn process(&self, name: &str) -> &Process {
        let path = |process: &&Process| process.path.ends_with(name) || process.short_name == name;
        self.windows.truth.processes.iter().find(path).unwrap()
    }

    /// The program that is full of everything.
    fn program(&self) -> Process {
        self.process("a game with a long name.exe").clone()
    }

    /// Writes to the kernel's memory.
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let os = self.open();
        let found = os.kernel_space().translate(&**os.physical_memory(), VirtAddr::new(at)).unwrap();
        self.windows.write(found.phys.as_u64(), bytes);
    }

    /// Writes to a process' memory.
    fn put_user(&mut self, process: &Process, at: u64, bytes: &[u8]) {
        let os = self.open();
        let opened = os.open_process(&opened_info(&os, process)).unwrap();
        let space = opened.address_space().unwrap();
        let found = space.translate(&**os.physical_memory(), VirtAddr::new(at)).unwrap();
        self.windows.write(found.phys.as_u64(), bytes);
    }

    /// A pointer of the target's width.
    fn pointer(&self, value: u64) -> Vec<u8> {
        value.to_le_bytes()[..self.width() as usize].to_vec()
    }

    /// Addresses that lead nowhere, or to something else.
    fn garbage(&self) -> Vec<u64> {
        let truth = &self.windows.truth;
        let other = self.process("smss.exe");
        let mut all = vec![0, 1, 8, 0x1000, truth.kernel.base, truth.processors[0].kpcr, other.eprocess];
        all.extend([truth.drivers[0].list_entry, other.threads[0].ethread, other.vads[0].node, other.peb]);
        all.extend(if self.offsets.wide {
            vec![1 << 63, u64::MAX, u64::MAX - 7, 0xffff_8000_0000_0000, 0x7fff_ffff_fff8]
        } else {
            vec![0x8000_0000, 0xffff_ffff, 0xffff_fff8, 0x7fff_fff8]
        });
        all
    }

    /// Looks at everything of the damaged machine.
    fn look(&self, what: &str) -> Win32Os {
        let started = Instant::now();
        let os = self.open();
        within::compare(&os, &self.windows, u64::MAX, 0);
        let took = started.elapsed();
        assert!(took < BOUND, "{what}: {took:?}");
        os
    }
}

fn opened_info(os: &Win32Os, process: &Process) -> memflow_core::os::ProcessInfo {
    let list = os.process_details().unwrap();
    let found = list.items.into_iter().find(|details| details.info.address.as_u64() == process.eprocess);
    found.unwrap().info
}

fn opened(os: &Win32Os, process: &Process) -> Win32Process {
    os.open_process(&opened_info(os, process)).unwrap()
}

fn pids(listing: &Listing<memflow_win32::ProcessDetails>) -> Vec<u32> {
    let mut pids: Vec<u32> = listing.items.iter().map(|process| process.info.pid).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn list_of_processes_that_loops_or_leads_anywhere_loses_none() {
    for victim in Victim::all() {
        let links = victim.at("_EPROCESS.ActiveProcessLinks");
        let mut all: Vec<u32> = victim.windows.truth.processes.iter().map(|process| process.pid).collect();
        all.sort_unstable();
        let program = victim.program();
        let heads = [program.eprocess + links, victim.windows.truth.processes[0].eprocess + links];
        for value in victim.garbage().into_iter().chain(heads) {
            let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
            // Both directions: to be found from neither end.
            let bytes = damaged.pointer(value);
            damaged.put(program.eprocess + links, &bytes);
            let os = damaged.look("list of processes");
            let listing = os.process_details().unwrap();
            assert_eq!(pids(&listing), all, "{value:#x}");
            assert!(value == program.eprocess + links || !listing.problems.is_empty(), "{value:#x}");
            let backward = damaged.width();
            damaged.put(program.eprocess + links + backward, &bytes);
            let listing = damaged.look("list of processes").process_details().unwrap();
            assert_eq!(pids(&listing), all, "{value:#x}: the table of numbers still knows");
            assert!(!listing.problems.is_empty());
        }
    }
}

#[test]
fn loader_list_that_loops_or_leads_anywhere_is_made_up_by_regions() {
    for victim in Victim::all() {
        let program = victim.program();
        let modules = if program.modules32.is_empty() { &program.modules } else { &program.modules32 };
        let entry = modules[1].list_entry;
        let bases = program.modules.iter().chain(&program.modules32).map(|module| module.base);
        let bases: std::collections::BTreeSet<u64> = bases.collect();
        let narrow = program.peb32.is_some() || !victim.offsets.wide;
        for value in victim.garbage().into_iter().chain([entry, modules[0].list_entry, program.peb]) {
            let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
            let bytes = value.to_le_bytes()[..if narrow { 4 } else { 8 }].to_vec();
            damaged.put_user(&program, entry, &bytes);
            damaged.put_user(&program, entry + bytes.len() as u64, &bytes);
            let os = damaged.look("loader's list");
            let listing = opened(&os, &program).modules().unwrap();
            let found: std::collections::BTreeSet<u64> =
                listing.items.iter().map(|module| module.info.base.as_u64()).collect();
            assert_eq!(found, bases, "{value:#x}");
            assert!(!listing.problems.is_empty(), "{value:#x}");
        }
    }
}

#[test]
fn tree_of_regions_with_cycles_ends_and_tells() {
    for victim in Victim::all() {
        let program = victim.program();
        let seven = victim.offsets.version.minor == 1;
        let (left, right) = if seven { (victim.width(), 2 * victim.width()) } else { (0, victim.width()) };
        let nodes: Vec<u64> = program.vads.iter().map(|vad| vad.node).collect();
        let middle = nodes[nodes.len() / 2];
        let targets = [middle, nodes[0], nodes[nodes.len() - 1], nodes[nodes.len() / 2 + 1]];
        for value in targets.into_iter().chain(victim.garbage()) {
            for side in [left, right] {
                let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
                let bytes = damaged.pointer(value);
                damaged.put(middle + side, &bytes);
                // A node that is not there any more leaves no trace.
                let started = Instant::now();
                let os = damaged.open();
                let listing = opened(&os, &program).regions().unwrap();
                let own = listing.items.iter().all(|vad| nodes.contains(&vad.address.as_u64()));
                let whole = own && listing.items.len() == nodes.len();
                assert!(value == 0 || whole || !listing.problems.is_empty(), "{value:#x} at {side}: {own}");
                assert!(started.elapsed() < BOUND);
            }
        }
    }
}

#[test]
fn names_that_are_no_strings_cost_no_more_than_themselves() {
    for victim in Victim::all() {
        let program = victim.program();
        let (width, name) = (victim.width(), victim.at("_EPROCESS.ImageFileName"));
        for bytes in [[0xff; 15], [1; 15], [0; 15]] {
            let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
            damaged.put(program.eprocess + name, &bytes);
            let listing = damaged.open().process_details().unwrap();
            let seen = listing.items.iter().find(|process| process.info.pid == program.pid);
            // Text of no characters is no name; what is no UTF-8 is shown as such.
            match bytes[0] {
                0xff => assert!(seen.unwrap().info.name.starts_with(char::REPLACEMENT_CHARACTER)),
                _ => assert!(seen.is_none() && !listing.problems.is_empty()),
            }
            assert_eq!(listing.items.len() + usize::from(seen.is_none()), damaged.windows.truth.processes.len());
        }
        // Lengths that are odd, longer than the room, as long as can be; texts that lie elsewhere.
        let driver = victim.windows.truth.drivers[1].clone();
        let string = driver.list_entry + if width == 8 { 0x58 } else { 0x2c };
        for (len, room) in [(7_u16, 8_u16), (0xfffe, 2), (0xfffe, 0xfffe), (0xffff, 0xffff)] {
            let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
            damaged.put(string, &[len.to_le_bytes(), room.to_le_bytes()].concat());
            let os = damaged.open();
            let modules = os.kernel_modules().unwrap();
            assert_eq!(modules.items.len(), victim.windows.truth.drivers.len());
            // The path tells the name too. A length that could be true may lead to more text.
            let name = &modules.items[1].info.name;
            assert!(*name == driver.name || (len == 0xfffe && room == 0xfffe), "{len:#x} of {room:#x}: {name:?}");
        }
        for value in victim.garbage().into_iter().filter(|value| !value.is_multiple_of(2) || *value < 0x1_0000) {
            let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
            let bytes = damaged.pointer(value);
            damaged.put(string + width, &bytes);
            damaged.look("name of a module");
        }
    }
}

#[test]
fn sizes_of_everything_end_in_errors() {
    for victim in Victim::all() {
        let program = victim.program();
        let huge = victim.pointer(1 << 63 | 1 << 31);
        // Environment, in both widths.
        let (peb, narrow) = match program.peb32 {
            Some(_) => (program.peb, false),
            None => (program.peb, !victim.offsets.wide),
        };
        let (parameters_at, size_at) = if narrow { (0x10, 0x290) } else { (0x20, 0x3f0) };
        let os = victim.open();
        let process = opened(&os, &program);
        let parameters = match narrow {
            true => u64::from(process.read::<u32>(VirtAddr::new(peb + parameters_at)).unwrap()),
            false => process.read::<u64>(VirtAddr::new(peb + parameters_at)).unwrap(),
        };
        let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
        damaged.put_user(&program, parameters + size_at, &huge);
        let os = damaged.open();
        let process = opened(&os, &program);
        assert!(process.environment().is_err());
        assert_eq!(process.command_line().unwrap(), std::slice::from_ref(&program.command_line));

        // Sizes of modules and of images.
        let driver = victim.windows.truth.drivers[1].clone();
        let size_at = if victim.offsets.wide { 0x40 } else { 0x20 };
        for size in [0_u32, 1 << 31, u32::MAX] {
            let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
            damaged.put(driver.list_entry + size_at, &size.to_le_bytes());
            let modules = damaged.open().kernel_modules().unwrap();
            assert_eq!(modules.items.len() + 1, victim.windows.truth.drivers.len());
            assert!(!modules.problems.is_empty());
        }
        // Regions as long as the address space, and longer.
        let vad = program.vads[program.vads.len() / 2].clone();
        for at in ["_MMVAD_SHORT.StartingVpn", "_MMVAD_SHORT.EndingVpn"] {
            let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
            damaged.put(vad.node + victim.at(at), &[0xff; 4]);
            let os = damaged.open();
            let listing = opened(&os, &program).regions().unwrap();
            assert!(!listing.problems.is_empty(), "{at}");
            // What ends late may be right, and those behind it wrong; what begins behind its end is wrong.
            let seen = listing.items.iter().any(|found| found.address.as_u64() == vad.node);
            assert!(!seen || at == "_MMVAD_SHORT.EndingVpn");
        }
        // Counts of groups and handles.
        let count_at = if victim.offsets.version.build < 9200 { 0x78 } else { 0x7c };
        let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
        damaged.put(program.token.address + count_at, &u32::MAX.to_le_bytes());
        let os = damaged.open();
        assert!(opened(&os, &program).token().is_err());
    }
}

#[test]
fn images_that_lie_end_in_errors() {
    for victim in Victim::all() {
        let driver = victim.windows.truth.drivers[1].clone();
        let image = victim.open();
        let header: [u8; 0x400] = image.kernel_view().read(VirtAddr::new(driver.base)).unwrap();
        let pe = u32::from_le_bytes(header[0x3c..0x40].try_into().unwrap()) as usize;
        let directories = pe + 24 + if victim.offsets.wide { 112 } else { 96 };
        let directory = |number: usize| {
            let at = directories + number * 8;
            u64::from(u32::from_le_bytes(header[at..at + 4].try_into().unwrap()))
        };
        for number in 0..3 {
            let start = driver.base + directory(number);
            for at in (0..40).step_by(4) {
                for value in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, directory(number) as u32] {
                    let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
                    damaged.put(start + at, &value.to_le_bytes());
                    let os = damaged.open();
                    let started = Instant::now();
                    let image = os.image(VirtAddr::new(driver.base)).unwrap();
                    let _ = (image.exports(), image.imports(), image.version());
                    assert!(started.elapsed() < BOUND, "directory {number}, {value:#x} at {at}");
                }
            }
        }
    }
}

#[test]
fn table_of_process_numbers_that_lies_lists_nothing_that_is_not() {
    for victim in Victim::all() {
        let Some(variable) = victim.windows.truth.kernel.symbols.get("PspCidTable").copied() else { continue };
        let os = victim.open();
        let pointer = |at: u64| match victim.width() {
            8 => os.kernel_view().read::<u64>(VirtAddr::new(at)).unwrap(),
            _ => u64::from(os.kernel_view().read::<u32>(VirtAddr::new(at)).unwrap()),
        };
        let table = pointer(variable);
        let code_at = table + victim.at("_HANDLE_TABLE.TableCode");
        let code = pointer(code_at);
        let hidden = victim.process("hidden.exe").clone();
        for value in victim.garbage().into_iter().chain([code | 3, code ^ 1, code ^ 2, (code & !3) + 8]) {
            let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
            let bytes = damaged.pointer(value);
            damaged.put(code_at, &bytes);
            damaged.look("table of process numbers");
        }
        // An entry that names another process, and a thread's that names a process.
        let page = if code & 3 == 0 { code } else { pointer(code & !3) };
        let entry = |id: u64| page + id / 4 * 2 * victim.width();
        let system = pointer(entry(4)).to_le_bytes();
        for id in [8, 12, 308, u64::from(hidden.pid) % 1024 / 4 * 4] {
            let mut damaged = Victim { windows: victim.windows.clone(), offsets: victim.offsets.clone() };
            let bytes = system[..victim.width() as usize].to_vec();
            damaged.put(entry(id), &bytes);
            damaged.look("entry of the table of process numbers");
        }
    }
}

#[test]
fn random_damage_ends_without_a_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    for victim in Victim::all() {
        let frames: Vec<u64> = victim.windows.pages().map(|(frame, _)| frame).collect();
        for _ in 0..40 {
            let mut windows = victim.windows.clone();
            for _ in 0..random.u32(1..200) {
                let frame = frames[random.usize(0..frames.len())];
                let at = frame * 0x1000 + random.u64(0..0x1000 / 8) * 8;
                let value = match random.u8(0..4) {
                    0 => random.u64(..),
                    1 => 0,
                    2 => u64::MAX,
                    _ => {
                        u64::from_le_bytes(victim.windows.read(at, 8).unwrap().try_into().unwrap())
                            ^ 1 << random.u8(0..64)
                    }
                };
                windows.write(at, &value.to_le_bytes());
            }
            let started = Instant::now();
            let memory = image::memory(&windows, &[], image::processors(&windows));
            if let Ok(os) = Win32Os::open(memory, &Win32Options::default()) {
                everything(&os);
            }
            assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
        }
    }
}

/// Asks for everything, of which nothing need be right.
fn everything(os: &Win32Os) {
    let modules = os.kernel_modules().map(|listing| listing.items).unwrap_or_default();
    for module in &modules {
        if let Ok(image) = os.image(module.info.base) {
            let _ = (image.exports(), image.imports(), image.version());
        }
    }
    let _ = (os.symbols(), os.running());
    for details in os.process_details().map(|listing| listing.items).unwrap_or_default() {
        let _ = os.token(&details);
        let Ok(opened) = os.open_process(&details.info) else { continue };
        let _ = (opened.environment(), opened.command_line(), opened.executable(), opened.current_directory());
        let _ = (opened.threads(), opened.modules());
        for region in opened.memory_map().map(|listing| listing.items).unwrap_or_default() {
            let _ = opened.page(region.range.start());
            let _ = opened.read::<u64>(region.range.start());
        }
    }
}

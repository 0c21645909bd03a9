//! The sparse image of a real Windows 10 (17763): most of its memory is missing. What is expected is from `tests/data/README.md` and from
//! walking the image with the offsets of 17763.379 by hand.

use std::{path::Path, sync::Arc};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory,
    memory::{BufferMemory, Run, RunMap, SourceConfig, TargetFacts, VcpuRegisters, X86Registers},
    os::{Os, ProcessState},
};
use memflow_win32::{Arch, Win32Options, Win32Os};

const BASE: u64 = 0xffff_f805_1a09_f000;
const CR3: u64 = 0x2_3550_0002;
const GS_BASE: u64 = 0xffff_f805_18eb_a000;
const LSTAR: u64 = 0xffff_f805_1a3c_e140;

/// The image, read by hand: ranges of a header of 32 bytes (magic, version, first and last address) and their bytes.
fn image_with(facts: TargetFacts) -> Arc<dyn PhysicalMemory> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/win10-17763-x64-sparse.lime.zst");
    let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let (mut runs, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let number = |offset: usize| u64::from_le_bytes(bytes[at + offset..at + offset + 8].try_into().unwrap());
        let range = PhysRange::inclusive(PhysAddr::new(number(8)), PhysAddr::new(number(16))).unwrap();
        runs.push(Run { range, offset: at as u64 + 32 });
        at += 32 + range.len() as usize;
    }
    assert_eq!(runs.iter().map(|run| run.range.len() / 0x1000).sum::<u64>(), 933);
    let config = SourceConfig { name: "sparse image".into(), runs: RunMap::new(runs).unwrap(), facts };
    Arc::new(BufferMemory::new(config, bytes).unwrap())
}

fn image() -> Arc<dyn PhysicalMemory> {
    image_with(TargetFacts::default())
}

/// The registers of the vCPU that took the image, as far as they are asked for.
fn registers(change: impl FnOnce(&mut X86Registers)) -> TargetFacts {
    let mut registers = X86Registers::default();
    change(&mut registers);
    let mut facts = TargetFacts::default();
    facts.vcpus = vec![VcpuRegisters::X86(registers)];
    facts
}

fn options(change: impl FnOnce(&mut Win32Options<'_>)) -> Win32Options<'static> {
    let mut options = Win32Options::default();
    change(&mut options);
    options
}

fn check(os: &Win32Os) {
    let kernel = os.kernel();
    assert_eq!(kernel.base.as_u64(), BASE, "{:#?}", kernel.evidence);
    assert_eq!(kernel.release, "10.0.17763");
    let symbols = os.found().symbols.as_ref().unwrap();
    assert_eq!((&*symbols.name, &*symbols.guid, symbols.age), ("ntkrnlmp.pdb", "20C711BBD4C21AA5C45BC774BC7E0472", 1));
}

#[test]
fn kernel_is_found_with_no_hint_and_with_each() {
    let memory = image();
    for options in [
        options(|_| {}),
        options(|options| options.root = Some(CR3)),
        options(|options| options.kernel = Some(BASE)),
        options(|options| options.kernel = Some(0xffff_f805_1a3c_e140)),
        options(|options| options.arch = Some(Arch::X64)),
    ] {
        let os = Win32Os::open(memory.clone(), &options).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        println!("{:#?}", os.kernel());
        check(&os);
    }
    for facts in [
        registers(|registers| registers.cr3 = Some(CR3)),
        registers(|registers| {
            (registers.cr0, registers.cr3, registers.cr4) = (Some(0x8005_0033), Some(CR3), Some(0x17_0678));
            (registers.efer, registers.lstar) = (Some(0xd01), Some(LSTAR));
        }),
        registers(|registers| registers.lstar = Some(LSTAR)),
        registers(|registers| (registers.cr3, registers.idtr_base) = (Some(CR3), Some(0xffff_f805_1cad_c000))),
    ] {
        let what = format!("{facts:?}");
        let os = Win32Os::open(image_with(facts), &Win32Options::default())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        println!("{:#?}", os.kernel().evidence[0]);
        check(&os);
    }
}

#[test]
fn modules_are_listed_by_name() {
    let os = Win32Os::open(image(), &Win32Options::default()).unwrap();
    let modules = os.modules().unwrap();
    println!("{:?}", modules.problems);
    for m in &modules.items {
        println!("{:x} {:x} {}", m.base, m.size, m.name);
    }
    assert_eq!(modules.items.len(), 198);
    assert_eq!((&*modules.items[0].name, modules.items[0].base.as_u64()), ("ntoskrnl.exe", BASE));
}

#[test]
fn current_process_and_the_gap_in_the_list_are_told() {
    for facts in [TargetFacts::default(), registers(|registers| registers.gs_base = Some(GS_BASE))] {
        let os = Win32Os::open(image_with(facts), &Win32Options::default()).unwrap();
        let list = os.process_details().unwrap();
        println!("{list:#?} {:#?}", os.running());
        assert_eq!(list.items.len(), 1);
        assert_eq!((list.items[0].info.pid, &*list.items[0].info.name), (7088, "cng.exe"));
        let process = os.open(&list.items[0].info).unwrap();
        println!("{:?} {:?} {:?}", process.executable(), process.command_line(), process.environment());
        println!("{:#?}", process.memory_map());
        println!("{:#?}", process.threads());
        assert_eq!(list.items[0].info.state, ProcessState::Running);
    }
}

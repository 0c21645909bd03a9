//! The sparse image of a real Windows 10 (17763): most of its memory is missing. What is expected is from `tests/data/README.md` and from
//! walking the image with the offsets of 17763.379 by hand.

use std::{path::Path, sync::Arc};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory,
    memory::{BufferMemory, Run, RunMap, SourceConfig, TargetFacts, VcpuRegisters, X86Registers},
    os::{Os, ProcessState},
};
use memflow_win32::{Arch, ProductType, Win32Options, Win32Os};

const BASE: u64 = 0xffff_f805_1a09_f000;
const CR3: u64 = 0x2_3550_0002;
const GS_BASE: u64 = 0xffff_f805_18eb_a000;
const IDTR: u64 = 0xffff_f805_1cad_c000;
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
        check(&os);
    }
    for facts in [
        registers(|registers| registers.cr3 = Some(CR3)),
        registers(|registers| {
            (registers.cr0, registers.cr3, registers.cr4) = (Some(0x8005_0033), Some(CR3), Some(0x17_0678));
            (registers.efer, registers.lstar) = (Some(0xd01), Some(LSTAR));
        }),
        registers(|registers| registers.lstar = Some(LSTAR)),
        // The root of user mode does not map the kernel.
        registers(|registers| (registers.cr3, registers.lstar) = (Some(0x1_e880_0001), Some(LSTAR))),
        registers(|registers| (registers.cr3, registers.idtr_base) = (Some(CR3), Some(IDTR))),
        registers(|registers| registers.idtr_base = Some(IDTR)),
        registers(|registers| registers.gs_base = Some(GS_BASE)),
    ] {
        let what = format!("{facts:?}");
        let os = Win32Os::open(image_with(facts), &Win32Options::default())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        check(&os);
    }
}

#[test]
fn what_was_found_says_from_where() {
    let os = Win32Os::open(image(), &Win32Options::default()).unwrap();
    let evidence = &os.kernel().evidence;
    for said in [
        "a table that maps itself: page tables at physical 0x235500000",
        "KDBG: at 0xfffff8051a49e5e0",
        "offsets of 10.0.17763.379: taken: ",
        "_EPROCESS.Peb 0x3f8",
    ] {
        assert!(evidence.iter().any(|line| line.contains(said)), "{said}: {evidence:#?}");
    }
    // The table's row for this build would be another's: its places in the image are not taken.
    assert!(os.found().offset("rva:PsActiveProcessHead").is_err());
    assert_eq!(os.found().offset("_EPROCESS.VadRoot").unwrap(), 0x628);
}

#[test]
fn wrong_hints_are_told_and_found_nothing() {
    for options in [options(|options| options.root = Some(0x1000)), options(|options| options.arch = Some(Arch::X86))] {
        let error = Win32Os::open(image(), &options).unwrap_err().to_string();
        assert!(error.starts_with("no Windows kernel found; looked for "), "{error}");
    }
}

#[test]
fn modules_are_listed_by_name() {
    let os = Win32Os::open(image(), &Win32Options::default()).unwrap();
    let modules = os.kernel_modules().unwrap().into_complete().unwrap();
    assert_eq!(modules.len(), 198);
    let first = &modules[0];
    assert_eq!((&*first.info.name, first.info.base.as_u64(), first.info.size), ("ntoskrnl.exe", BASE, 0xa7_1000));
    assert!(modules.iter().all(|module| !module.info.name.is_empty()));
    assert!(modules.iter().any(|module| module.info.name == "win32kfull.sys"));
}

/// The list's head leads to System, whose page is missing. From its other end come the two processes whose pages are there.
#[test]
fn current_process_and_the_gap_in_the_list_are_told() {
    let os = Win32Os::open(image(), &Win32Options::default()).unwrap();
    let list = os.process_details().unwrap();
    let seen: Vec<_> = list.items.iter().map(|process| (process.info.pid, &*process.info.name)).collect();
    assert_eq!(seen, [(5288, "svchost.exe"), (7088, "cng.exe")]);
    // The table of process numbers, which could tell of more, is not there either.
    assert_eq!(list.problems.len(), 3, "{:?}", list.problems);
    assert!(list.problems[2].to_string().starts_with("table of process numbers: "), "{:?}", list.problems);
    assert!(list.problems[0].to_string().contains("0xffffe38f36461328"), "{:?}", list.problems);

    let current = &list.items[1];
    assert_eq!((current.info.parent_pid, current.info.threads, current.info.root), (5200, 2, Some(CR3)));
    assert_eq!((current.info.state, current.user_root), (ProcessState::Running, Some(0x1_e880_0001)));
    assert_eq!(current.peb.unwrap().as_u64(), 0x1d_15ae_2000);
    assert_eq!(current.image_base.unwrap().as_u64(), 0x7ff7_480e_0000);
    assert_eq!(current.create_time, Some(0x1d7_3aa2_165d_c136));

    let process = os.open(&current.info).unwrap();
    let threads = process.threads().unwrap();
    assert_eq!(threads.items.iter().map(|thread| thread.tid).collect::<Vec<_>>(), [6288]);
    assert!(!threads.problems.is_empty());
    // The root of the tree of regions and the process' block are missing.
    assert!(!process.memory_map().unwrap().problems.is_empty());
    assert!(process.command_line().unwrap_err().to_string().starts_with("process 7088 (cng.exe): command line: "));
    let missing = os.open_pid(4).err().unwrap();
    assert!(missing.to_string().contains("not in the image"), "{missing}");
}

#[test]
fn gs_base_leads_to_the_current_process() {
    let facts = registers(|registers| registers.gs_base = Some(GS_BASE));
    let os = Win32Os::open(image_with(facts), &Win32Options::default()).unwrap();
    let running = os.running();
    assert_eq!(running.len(), 1, "{running:?}");
    assert_eq!(running[0].thread.as_u64(), 0xffff_e38f_3d5c_4080);
    assert_eq!(running[0].process.as_u64(), 0xffff_e38f_3f3c_f540);
    let processes = os.process_details().unwrap().items;
    let current = processes.iter().find(|process| process.info.address == running[0].process).unwrap();
    assert_eq!((current.info.pid, &*current.info.name), (7088, "cng.exe"));
}

#[test]
fn shared_page_is_there_and_what_is_missing_is_told() {
    let os = Win32Os::open(image(), &Win32Options::default()).unwrap();
    let data = os.system_data().unwrap();
    assert_eq!((data.version.to_string(), &*data.system_root), ("10.0.17763".to_owned(), "C:\\Windows"));
    assert_eq!((data.product_type, data.console_session), (Some(ProductType::Workstation), Some(1)));
    // 2021-04-26.
    assert_eq!(data.unix_time().as_secs() / 86_400, 18_743);

    let list = os.process_details().unwrap();
    let current = os.open_process(&list.items[1].info).unwrap();
    let error = current.handles().unwrap_err().to_string();
    assert!(error.starts_with("process 7088 (cng.exe): handles: "), "{error}");
    let error = os.hives().unwrap_err().to_string();
    assert!(error.contains("CmpHiveListHead"), "{error}");
    let error = os.keyboard().unwrap().state().unwrap_err().to_string();
    assert!(error.starts_with("keyboard: ") || error.contains("session"), "{error}");
}

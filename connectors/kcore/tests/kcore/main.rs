//! Files in the form of `/proc/kcore`, built byte by byte: which addresses they give, what is refused.

mod common;
mod hostile;

use common::{ARM64, Kcore, X86, file, read};
use std::sync::Arc;

use memflow_core::{
    Error, MemoryViewExt, PhysAddr, PhysicalMemory, Reason, VirtAddr,
    memory::{Liveness, MachineKind, MetricsLayer, Outcome, PhysRead, PhysWrite, PhysicalMemoryExt},
    paging::{self, AddressSpace},
    plugin::{Inventory, args::ConnectorSpec},
    view::SpaceView,
};
use memflow_kcore::{Options, open, system_ram};

/// A machine of two ranges of RAM, with the areas that x86-64 kernels show beside them.
fn x86() -> Kcore {
    Kcore::new(X86)
        .note("CORE", 1, &[0; 336])
        .note("CORE", 4, &[1; 9000])
        .note("VMCOREINFO", 0, b"OSRELEASE=6.12.0\nPAGESIZE=4096\n")
        .virtual_only(0xffff_c900_0000_0000, 1 << 40)
        .virtual_only(0xffff_ffff_c000_0000, 1 << 30)
        // The kernel's image, in RAM at 0x2000.
        .area(0xffff_ffff_8100_0000, 0x2000, b'K', 0x1000)
        .area(0xffff_8880_0000_1000, 0x1000, b'a', 0x9000)
        .area(0xffff_8881_0000_0000, 0x1_0000_0000, b'b', 0x4000)
        .virtual_only(0xffff_ea00_0000_0000, 0x1000)
}

#[test]
fn direct_map_is_taken_and_nothing_else() {
    let (_dir, path) = file(&x86());
    let kcore = open(&path, &Options::default()).unwrap();
    let metadata = kcore.memory.metadata();
    let ranges: Vec<String> = metadata.runs.runs().iter().map(|run| run.range.to_string()).collect();
    assert_eq!(ranges, ["0x1000-0x9fff", "0x100000000-0x100003fff"]);
    assert_eq!((metadata.liveness, metadata.read_only), (Liveness::Live, true));
    assert_eq!(metadata.name.to_string(), format!("kcore {}", path.display()));
    // Through the direct map, not through the kernel's image.
    assert_eq!(read(&kcore.memory, 0x2000, 4).unwrap(), b"aaaa");
    assert_eq!(read(&kcore.memory, 0x1_0000_3ffc, 4).unwrap(), b"bbbb");
    assert_eq!(kcore.format, "running kernel's memory, x86-64");
    assert!(kcore.notes.is_empty(), "{:?}", kcore.notes);
}

#[test]
fn vmcoreinfo_and_machine_are_facts() {
    let (_dir, path) = file(&x86());
    let kcore = open(&path, &Options::default()).unwrap();
    let facts = kcore.memory.facts();
    assert_eq!(facts.machine, Some(MachineKind::X86_64));
    assert_eq!(facts.vmcoreinfo.as_deref(), Some(&b"OSRELEASE=6.12.0\nPAGESIZE=4096\n"[..]));
}

#[test]
fn kernel_without_the_note_is_opened_with_a_remark() {
    let (_dir, path) = file(&Kcore::new(X86).area(0xffff_8880_0010_0000, 0x10_0000, b'a', 0x1000));
    let kcore = open(&path, &Options::default()).unwrap();
    assert_eq!(kcore.memory.facts().vmcoreinfo, None);
    assert_eq!(
        kcore.notes,
        ["there is no VMCOREINFO note (kernels before Linux 4.19 write none); the kernel has to be searched for"]
    );
}

#[test]
fn arm64_has_its_memory_where_phys_offset_says() {
    // PAGE_OFFSET of 48 bits, RAM from 1 GiB on.
    let kcore = Kcore::new(ARM64)
        .virtual_only(0xffff_8000_0800_0000, 1 << 40)
        .area(0xffff_8000_0801_0000, 0x4020_0000, b'K', 0x2000)
        .area(0xffff_0000_0000_0000, 0x4000_0000, b'a', 0x8000);
    let (_dir, path) = file(&kcore);
    let kcore = open(&path, &Options::default()).unwrap();
    assert_eq!(kcore.memory.facts().machine, Some(MachineKind::AArch64));
    assert_eq!(kcore.format, "running kernel's memory, arm64");
    assert_eq!(kcore.memory.metadata().runs.total_bytes(), 0x8000);
    assert_eq!(read(&kcore.memory, 0x4000_7ff0, 16).unwrap(), [b'a'; 16]);
}

#[test]
fn five_level_kernel_has_its_direct_map_further_down() {
    let kcore = Kcore::new(X86)
        .virtual_only(0xffa0_0000_0000_0000, 1 << 53)
        .area(0xff11_0000_0000_1000, 0x1000, b'a', 0x2000)
        .area(0xffff_ffff_9100_0000, 0x2000, b'K', 0x1000);
    let (_dir, path) = file(&kcore);
    let kcore = open(&path, &Options::default()).unwrap();
    assert_eq!(read(&kcore.memory, 0x1000, 0x2000).unwrap(), [b'a'; 0x2000]);
}

#[test]
fn memory_from_address_zero_on_is_memory() {
    let kcore = Kcore::new(ARM64)
        .virtual_only(0xffff_8000_0800_0000, 1 << 30)
        .area(0xffff_0000_0000_0000, 0, b'a', 0x2000)
        .area(0xffff_0000_4000_0000, 0x4000_0000, b'b', 0x2000);
    let (_dir, path) = file(&kcore);
    let kcore = open(&path, &Options::default()).unwrap();
    assert_eq!(read(&kcore.memory, 0, 1).unwrap(), b"a");
    assert_eq!(read(&kcore.memory, 0x4000_0000, 1).unwrap(), b"b");
}

#[test]
fn holes_are_outcomes_and_the_rest_of_the_batch_is_read() {
    let (_dir, path) = file(&x86());
    let memory = open(&path, &Options::default()).unwrap().memory;
    let (mut hole, mut edge, mut fine, mut over) = ([7; 8], [7; 8], [7; 8], [7; 8]);
    let mut ops = [
        PhysRead::new(PhysAddr::new(0xfff8), &mut hole),
        PhysRead::new(PhysAddr::new(0x9ffc), &mut edge),
        PhysRead::new(PhysAddr::new(0x1_0000_0000), &mut fine),
        PhysRead::new(PhysAddr::new(u64::MAX - 3), &mut over),
    ];
    let error = memory.read_batch(&mut ops).unwrap_err();
    let outcomes = ops.each_ref().map(|op| op.outcome);
    let not_there = |offset, phys| Outcome::Failed { offset, reason: Reason::NotInImage { phys: PhysAddr::new(phys) } };
    assert_eq!(outcomes[0], not_there(0, 0xfff8));
    assert_eq!(outcomes[1], not_there(4, 0xa000));
    assert_eq!(outcomes[2], Outcome::Done);
    // The first byte that fails is in a hole; those behind the last address come after it.
    assert_eq!(outcomes[3], not_there(0, u64::MAX - 3));
    assert!(matches!(error, Error::Access { .. }), "{error}");
    assert_eq!((hole, edge, fine), ([7; 8], *b"aaaa\x07\x07\x07\x07", [b'b'; 8]));
}

#[test]
fn file_that_ends_early_is_an_outcome() {
    let (_dir, path) = file(&x86());
    let memory = open(&path, &Options::default()).unwrap().memory;
    let run = *memory.metadata().runs.runs().last().unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(run.offset + 0x1800).unwrap();
    let error = read(&memory, 0x1_0000_1000, 0x1000).unwrap_err();
    assert!(error.to_string().contains("no longer reaches physical address 0x100001800"), "{error}");
    assert_eq!(read(&memory, 0x1_0000_1000, 0x800).unwrap(), [b'b'; 0x800]);
}

#[test]
fn writes_are_refused() {
    let (_dir, path) = file(&x86());
    let before = std::fs::read(&path).unwrap();
    let memory = open(&path, &Options::default()).unwrap().memory;
    let mut ops = [PhysWrite::new(PhysAddr::new(0x1000), b"x"), PhysWrite::new(PhysAddr::new(0), b"x")];
    let error = memory.write_batch(&mut ops).unwrap_err();
    assert!(error.to_string().ends_with("the target is read-only"), "{error}");
    assert!(ops.iter().all(|op| op.outcome == Outcome::Failed { offset: 0, reason: Reason::ReadOnly }));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn empty_batches_and_empty_reads_are_done() {
    let (_dir, path) = file(&x86());
    let memory = open(&path, &Options::default()).unwrap().memory;
    memory.read_batch(&mut []).unwrap();
    memory.read_into(PhysAddr::new(0x1000), &mut []).unwrap();
}

#[test]
fn list_of_system_ram_cuts_the_runs() {
    let (dir, path) = file(&x86());
    let list = dir.path().join("iomem");
    let text = "00000000-00000fff : Reserved\n00001000-00002fff : System RAM\n  00002000-00002fff : Kernel code\n\
                00005000-0000ffff : System RAM\nfee00000-fee00fff : Local APIC\n100000000-100000fff : System RAM (kmem)\n";
    std::fs::write(&list, text).unwrap();
    let kcore = open(&path, &Options::default().with_iomem(&list)).unwrap();
    let runs = kcore.memory.metadata().runs;
    let ranges: Vec<String> = runs.runs().iter().map(|run| run.range.to_string()).collect();
    assert_eq!(ranges, ["0x1000-0x2fff", "0x5000-0x9fff", "0x100000000-0x100000fff"]);
    assert_eq!(read(&kcore.memory, 0x5000, 4).unwrap(), b"aaaa");
    assert!(read(&kcore.memory, 0x3000, 4).is_err());

    std::fs::write(&list, "00000000-00000000 : System RAM\n").unwrap();
    let error = open(&path, &Options::default().with_iomem(&list)).unwrap_err().to_string();
    assert!(error.ends_with("tells no addresses of System RAM; it does to readers with CAP_SYS_ADMIN"), "{error}");
    std::fs::write(&list, "2000000000-2000000fff : System RAM\n").unwrap();
    let error = open(&path, &Options::default().with_iomem(&list)).unwrap_err().to_string();
    assert!(error.contains("none of its memory is System RAM of"), "{error}");
    assert!(open(&path, &Options::default().with_iomem(dir.path().join("none"))).is_err());
}

#[test]
fn lists_that_hide_their_addresses_are_none() {
    assert_eq!(system_ram(""), None);
    assert_eq!(system_ram("00000000-00000000 : System RAM\n00000000-00000000 : System RAM\n"), None);
    assert_eq!(system_ram("zz-0 : System RAM\n"), None);
    assert_eq!(system_ram("2000-1000 : System RAM\n"), None);
    assert_eq!(system_ram("1000-2fff : System RAM\n2000-4fff : System RAM\n"), None);
    assert_eq!(system_ram("1000-1fff : System RAM\n2000-2fff : System RAM\n").unwrap().total_bytes(), 0x2000);
}

#[test]
fn threads_share_one_handle() {
    let (_dir, path) = file(&x86());
    let memory = open(&path, &Options::default()).unwrap().memory;
    std::thread::scope(|scope| {
        for (address, byte) in [(0x1000, b'a'), (0x1_0000_0000, b'b'), (0x5000, b'a'), (0x1_0000_2000, b'b')] {
            let memory = &memory;
            scope.spawn(move || {
                for _ in 0..500 {
                    assert_eq!(read(memory, address, 0x1800).unwrap(), [byte; 0x1800]);
                }
            });
        }
    });
}

#[test]
fn plugin_takes_a_path_and_a_list() {
    let (dir, path) = file(&x86());
    let list = dir.path().join("iomem");
    std::fs::write(&list, "1000-1fff : System RAM\n").unwrap();
    let inventory = Inventory::builder().connector::<memflow_kcore::Plugin>().unwrap().build();
    let spec = ConnectorSpec::new("kcore").unwrap().with_target(path.to_str().unwrap());
    let opened = inventory.chain().connector(spec.clone()).unwrap();
    assert_eq!(opened.connection().memory.metadata().runs.total_bytes(), 0xd000);
    let opened = inventory.chain().connector(spec.with_arg("iomem", list.to_str().unwrap())).unwrap();
    assert_eq!(opened.connection().memory.metadata().runs.total_bytes(), 0x1000);
}

/// Where this machine shows its memory to whoever runs the tests, it is compared with what it says elsewhere.
/// `tests/kcore.rs` of the workspace does the same inside guests whose kernels always do.
#[cfg(target_os = "linux")]
#[test]
fn this_machine_if_it_shows_its_memory_is_the_one_that_runs() {
    let kcore = match open(memflow_kcore::KCORE.as_ref(), &Options::default()) {
        Ok(kcore) => kcore,
        Err(error) => {
            let text = error.to_string();
            // Refused as documented, or not there.
            assert!(text.contains(memflow_kcore::KCORE), "{text}");
            return;
        }
    };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let note = String::from_utf8(kcore.memory.facts().vmcoreinfo.clone().unwrap()).unwrap();
    assert!(note.contains(&format!("OSRELEASE={}\n", release.trim())), "{note}");
}

#[test]
fn tables_are_read_once() {
    let (_dir, path) = file(&x86());
    let memory = open(&path, &Options::default()).unwrap().memory;
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let runs = memory.metadata().runs;
    // Two levels of 32-bit x86: the page at 0x8000_0000 lies at 0x4000.
    for (at, entry) in [(0x2800, 0x3003_u32), (0x3000, 0x4003)] {
        let run = runs.find(PhysAddr::new(at)).unwrap();
        let offset = run.offset + (at - run.range.start().as_u64());
        std::os::unix::fs::FileExt::write_all_at(&file, &entry.to_le_bytes(), offset).unwrap();
    }
    let counted = MetricsLayer::new(Arc::new(memory));
    let metrics = counted.metrics();
    let view = SpaceView::new(Arc::new(counted), AddressSpace::new(&paging::x86::X86, 0x2000));
    let reads = || {
        let before = metrics.snapshot();
        assert_eq!(view.read::<u8>(VirtAddr::new(0x8000_0012)).unwrap(), b'a');
        metrics.snapshot().since(&before).reads.calls
    };
    assert_eq!(reads(), 3);
    // What is known of a machine that runs is used for 5 ms, and one that is busy may let them pass.
    assert!((0..100).any(|_| reads() == 1));
}

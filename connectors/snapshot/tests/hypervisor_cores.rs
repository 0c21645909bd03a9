//! ELF cores of VirtualBox and Xen, by their public layouts.

mod common;

use common::{Segment, elf, error_of, note, pattern, prstatus64, read, xen};
use memflow_core::memory::{MachineKind, VcpuRegisters, X86Registers};
use memflow_snapshot::{OpenOptions, Snapshot, open_bytes};

fn opened(bytes: &[u8]) -> Snapshot {
    open_bytes("core", bytes, &OpenOptions::default()).unwrap()
}

fn x86(snapshot: &Snapshot) -> Vec<X86Registers> {
    let x86 = |vcpu: &VcpuRegisters| match vcpu {
        VcpuRegisters::X86(registers) => *registers,
        other => panic!("{other:?}"),
    };
    snapshot.memory.facts().vcpus.iter().map(x86).collect()
}

/// `DBGFCOREDESCRIPTOR` in a format version, and one `DBGFCORECPU` for each vCPU, whose numbers count from `seed` on.
fn virtualbox(version: u32, seeds: &[u64]) -> Vec<u8> {
    let mut descriptor = 0xc01a_c0deu32.to_le_bytes().to_vec();
    for number in [version, 24, 0x0601_0000, 140_961, seeds.len() as u32] {
        descriptor.extend(number.to_le_bytes());
    }
    let mut notes = note("VBCORE", 0xb00, &descriptor);
    for seed in seeds {
        let words: Vec<u8> = (0..72).flat_map(|index| (seed + index).to_le_bytes()).collect();
        notes.extend(note("VBCPU", 0xb01, &[words, vec![0; 0x340]].concat()));
    }
    notes
}

#[test]
fn virtualbox_says_registers_and_leaves_out_devices() {
    let segments = [
        Segment::new(0, pattern(1, 0x2000)),
        // Memory of devices has no bytes.
        Segment { memsz: 0x1000, ..Segment::new(0xe000_0000, Vec::new()) },
        Segment::new(0x1_0000_0000, pattern(2, 0x1000)),
    ];
    for version in [0x1_0005, 0x1_0006] {
        let snapshot = opened(&elf(true, 62, &virtualbox(version, &[1000, 2000]), &segments));
        assert_eq!(snapshot.memory.facts().machine, Some(MachineKind::X86_64));
        let mut expected = X86Registers::default();
        // Their places, counted in numbers of 64 bits; a segment is three of them, of which the first is its base.
        (expected.rip, expected.rsp) = (Some(1014), Some(1015));
        expected.gs_base = Some(1000 + 18 + 4 * 3);
        (expected.cr0, expected.cr2, expected.cr3, expected.cr4) = (Some(1036), Some(1037), Some(1038), Some(1039));
        (expected.gdtr_base, expected.idtr_base) = (Some(1048), Some(1050));
        (expected.efer, expected.lstar, expected.kernel_gs_base) = (Some(1061), Some(1064), Some(1067));
        let found = x86(&snapshot);
        assert_eq!(found[0], expected);
        assert_eq!((found.len(), found[1].cr3), (2, Some(2038)));
        assert_eq!(read(&*snapshot.memory, 0x1_0000_0000, 0x1000).unwrap(), pattern(2, 0x1000));
        assert!(read(&*snapshot.memory, 0xe000_0000, 1).unwrap_err().is_not_in_image());
        assert!(snapshot.notes.iter().all(|note| !note.contains("register")), "{:?}", snapshot.notes);
    }
    // Other versions have other structures.
    let snapshot = opened(&elf(true, 62, &virtualbox(0x1_0000, &[1000]), &segments));
    assert!(x86(&snapshot).is_empty());
    assert!(
        snapshot.notes.iter().any(|note| note.starts_with("1 register notes are left aside")),
        "{:?}",
        snapshot.notes
    );
    // It is no core of a process, although its memory begins at zero.
    let only = [Segment { vaddr: 0x1000, ..Segment::new(0, pattern(1, 0x1000)) }];
    opened(&elf(true, 62, &virtualbox(0x1_0006, &[1]), &only));
}

#[test]
fn hosts_that_xen_crashed_on_have_their_control_registers() {
    let regs = |seed: u64| {
        let words: Vec<u8> = (0..4).flat_map(|index| (seed + index).to_le_bytes()).collect();
        note("Xen", 0x100_0002, &words)
    };
    let notes = [prstatus64(1, 2), regs(100), note("Xen", 0x100_0001, &[0; 80]), prstatus64(3, 4), regs(200)].concat();
    let snapshot = opened(&elf(true, 62, &notes, &[Segment::new(0x1000, pattern(1, 0x1000))]));
    let found = x86(&snapshot);
    let [first, second] = found[..] else { panic!("{found:?}") };
    assert_eq!(
        (first.rip, first.rsp, first.cr0, first.cr2, first.cr3, first.cr4),
        (Some(1), Some(2), Some(100), Some(101), Some(102), Some(103))
    );
    assert_eq!((second.rip, second.cr3), (Some(3), Some(202)));
}

#[test]
fn fully_virtual_guests_of_xen_have_pages_in_any_order() {
    let core = xen::Core {
        pages: vec![
            (5, 0, pattern(5, 0x1000)),
            (6, 0, pattern(6, 0x1000)),
            (0x10_0000, 0, pattern(7, 0x1000)),
            (1, 0, pattern(1, 0x1000)),
            (u64::MAX, 0, pattern(9, 0x1000)),
        ],
        vcpus: vec![(0x1a_d000, 0xffff_8000_0000_1000), (0x1_2345_6000, 7)],
        ..xen::Core::default()
    };
    let snapshot = opened(&core.write());
    for (frame, _, page) in &core.pages[..4] {
        assert_eq!(read(&*snapshot.memory, frame * 0x1000, 0x1000).unwrap(), *page);
    }
    assert_eq!(snapshot.memory.metadata().runs.runs().len(), 3);
    assert!(read(&*snapshot.memory, 0, 1).unwrap_err().is_not_in_image());
    assert_eq!(snapshot.notes, ["0x1 pages have no frame number: Xen could not read them"]);
    assert_eq!(snapshot.format.to_string(), "ELF core");
    assert_eq!(snapshot.memory.facts().machine, Some(MachineKind::X86_64));
    let found = x86(&snapshot);
    assert_eq!((found.len(), found[0].cr3, found[0].rip), (2, Some(0x1a_d000), Some(0xffff_8000_0000_1000)));
    assert_eq!((found[1].cr0, found[1].cr4, found[1].rsp), (Some(0x8005_0033), Some(0x6f0), Some(0x5555)));
}

#[test]
fn paravirtual_guests_of_xen_have_the_frames_of_their_page_tables() {
    let core = xen::Core {
        paravirtual: true,
        pages: vec![(0, 0x777, pattern(5, 0x1000)), (1, 0x111, pattern(6, 0x1000))],
        vcpus: vec![(0x77_7000, 7)],
        ..xen::Core::default()
    };
    let snapshot = opened(&core.write());
    assert_eq!(read(&*snapshot.memory, 0x77_7000, 0x1000).unwrap(), pattern(5, 0x1000));
    assert_eq!(read(&*snapshot.memory, 0x11_1000, 0x1000).unwrap(), pattern(6, 0x1000));
    assert!(snapshot.notes[0].contains("paravirtual: addresses are the machine's"), "{:?}", snapshot.notes);
}

#[test]
fn cores_of_xen_that_contradict_themselves_are_refused() {
    let core =
        xen::Core { pages: vec![(1, 0, pattern(1, 0x1000)), (2, 0, pattern(2, 0x1000))], ..xen::Core::default() };
    let refused = |core: &xen::Core| error_of(&core.write(), &OpenOptions::default());
    let twice = xen::Core { pages: vec![(1, 0, pattern(1, 0x1000)), (1, 0, pattern(2, 0x1000))], ..core.clone() };
    assert!(refused(&twice).contains("expected each frame number once"), "{}", refused(&twice));
    let more = xen::Core { claimed: Some(3), ..core.clone() };
    assert!(refused(&more).contains("expected 0x3 frame numbers of 0x8 bytes, found 0x10 bytes"), "{}", refused(&more));
    let odd = xen::Core { page_size: 0x1001, ..core.clone() };
    assert!(refused(&odd).contains("expected pages of 4 to 64 KiB, found 0x1001 bytes"), "{}", refused(&odd));
    let none = xen::Core { magic: 0xf00f_ebef, ..core.clone() };
    assert!(refused(&none).contains("expected a note with Xen's header, found none"), "{}", refused(&none));
    let other = xen::Core { pages_name: ".other", ..core.clone() };
    assert!(refused(&other).contains("expected program headers, found none"), "{}", refused(&other));
    // A guest of another width has other structures.
    let narrow = opened(&xen::Core { context: 2800, vcpus: vec![(1, 2)], ..core.clone() }.write());
    assert!(narrow.memory.facts().vcpus.is_empty());
    assert!(narrow.notes[0].contains("only those of 64-bit x86 guests are known"), "{:?}", narrow.notes);

    let bytes = core.write();
    let partial = OpenOptions { partial: true, ..OpenOptions::default() };
    for at in (6..bytes.len()).step_by(3) {
        assert!(open_bytes("core", &bytes[..at], &OpenOptions::default()).is_err(), "{at:#x}");
        if let Ok(snapshot) = open_bytes("core", &bytes[..at], &partial) {
            assert_eq!(read(&*snapshot.memory, 0x1000, 0x1000).unwrap(), pattern(1, 0x1000));
            assert!(snapshot.notes.iter().any(|note| note.contains("of 0x2 pages the file holds the first 0x1")));
        }
    }
}

//! ELF cores: what they hold, and what is wrong with damaged ones.

mod common;

use common::{
    Segment, elf as write_elf, error_of, file, note, patched, pattern, qemu_note, read, sample_elf32, sample_elf64,
};
use memflow_core::memory::{Liveness, MachineKind, VcpuRegisters};
use memflow_snapshot::{BytesInput, Container, OpenOptions, ParseOptions, elf, open};

#[test]
fn elf64_holds_segments_registers_and_vmcoreinfo() {
    let (_dir, path) = file(&sample_elf64());
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(snapshot.format.container, Container::ElfCore);
    assert_eq!(snapshot.format.to_string(), "ELF core");
    assert_eq!(snapshot.notes, [""; 0]);
    let memory = &*snapshot.memory;
    assert_eq!(memory.metadata().liveness, Liveness::Frozen);
    assert!(memory.metadata().read_only);
    assert_eq!(read(memory, 0, 0x2000).unwrap(), pattern(0, 0x2000));
    assert_eq!(read(memory, 0x10_0ff0, 0x10).unwrap(), pattern(7, 0x1000)[0xff0..]);
    assert!(read(memory, 0x2000, 1).unwrap_err().is_not_in_image());

    let facts = memory.facts();
    assert_eq!(facts.machine, Some(MachineKind::X86_64));
    assert_eq!(facts.vmcoreinfo.as_deref(), Some(&b"OSRELEASE=6.1.0\n"[..]));
    let [VcpuRegisters::X86(first), VcpuRegisters::X86(second)] = &facts.vcpus[..] else { panic!("{facts:?}") };
    assert_eq!((first.cr0, first.cr2, first.cr3, first.cr4), (Some(0), Some(0x22), Some(0x33), Some(0x44)));
    assert_eq!((first.rip, first.rsp, first.gs_base), (Some(0x4000), Some(0x5000), Some(0x6000)));
    assert_eq!((first.gdtr_base, first.idtr_base, first.kernel_gs_base), (Some(0x7000), Some(0x8000), Some(0x9000)));
    assert_eq!((second.kernel_gs_base, second.efer, second.lstar), (None, None, None));
}

#[test]
fn elf32_holds_segments_and_registers() {
    let (_dir, path) = file(&sample_elf32());
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x8000, 0x1000).unwrap(), pattern(7, 0x1000));
    assert_eq!(snapshot.memory.facts().machine, Some(MachineKind::X86));
    let [VcpuRegisters::X86(vcpu)] = &snapshot.memory.facts().vcpus[..] else { panic!() };
    assert_eq!(vcpu.cr3, Some(0x33));
}

#[test]
fn without_qemu_notes_the_process_status_gives_two_registers() {
    for (wide, machine, notes) in
        [(true, 62, common::prstatus64(0x1111, 0x2222)), (false, 3, common::prstatus32(0x1111, 0x2222))]
    {
        let bytes = write_elf(wide, machine, &notes, &[Segment::new(0x1000, pattern(0, 0x1000))]);
        let (_dir, path) = file(&bytes);
        let snapshot = open(&path, &OpenOptions::default()).unwrap();
        let [VcpuRegisters::X86(vcpu)] = &snapshot.memory.facts().vcpus[..] else { panic!() };
        assert_eq!((vcpu.rip, vcpu.rsp, vcpu.cr3), (Some(0x1111), Some(0x2222), None));
    }
}

#[test]
fn register_notes_that_are_not_understood_are_said() {
    let other_version = {
        let mut note = qemu_note(true);
        note[20] = 9;
        note
    };
    let short = note("CORE", 1, &[0; 100]);
    let bytes = write_elf(true, 62, &[other_version, short].concat(), &[Segment::new(0x1000, pattern(0, 0x1000))]);
    let (_dir, path) = file(&bytes);
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(snapshot.memory.facts().vcpus, []);
    assert_eq!(
        snapshot.notes,
        [
            "2 register notes are left aside: only those of x86 machines, QEMU's in version 1 and those of VirtualBox 5 to 7, are known"
        ]
    );
}

#[test]
fn other_machines_open_too() {
    for (machine, kind, notes) in [(183, Some(MachineKind::AArch64), 0), (243, None, 1)] {
        let (_dir, path) = file(&write_elf(true, machine, &[], &[Segment::new(0x4000_0000, pattern(0, 0x1000))]));
        let snapshot = open(&path, &OpenOptions::default()).unwrap();
        assert_eq!((snapshot.memory.facts().machine, snapshot.notes.len()), (kind, notes));
        assert_eq!(read(&*snapshot.memory, 0x4000_0000, 0x1000).unwrap(), pattern(0, 0x1000));
    }
}

#[test]
fn segment_shorter_in_the_file_ends_in_a_gap_not_in_zeros() {
    let mut segment = Segment::new(0x1000, pattern(0, 0x1000));
    segment.memsz = 0x3000;
    let (_dir, path) = file(&write_elf(true, 62, &[], &[segment]));
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(snapshot.memory.metadata().runs.total_bytes(), 0x1000);
    assert!(read(&*snapshot.memory, 0x2000, 1).unwrap_err().is_not_in_image());
    assert_eq!(snapshot.notes, ["the headers name 0x2000 bytes that the writer left out; they are gaps, not zeros"]);
}

#[test]
fn number_of_segments_may_be_in_section_zero() {
    let mut bytes = sample_elf64();
    let section = bytes.len() as u64;
    bytes.extend([0; 64]);
    bytes[section as usize + 44..][..4].copy_from_slice(&3u32.to_le_bytes());
    bytes[56..58].copy_from_slice(&0xffffu16.to_le_bytes());
    bytes[40..48].copy_from_slice(&section.to_le_bytes());
    bytes[58..60].copy_from_slice(&64u16.to_le_bytes());
    let (_dir, path) = file(&bytes);
    assert_eq!(open(&path, &OpenOptions::default()).unwrap().memory.metadata().runs.runs().len(), 2);

    let far = patched(bytes.clone(), 40, &(1u64 << 60).to_le_bytes());
    assert_eq!(
        error_of(&far, &OpenOptions::default()),
        format!(
            "image: ELF core: at offset 0x1000000000000000: expected 0x30 bytes of section header 0, which counts the segments, \
             found the end of the file at {:#x}; it looks truncated, copy it again",
            far.len()
        )
    );
    let many = patched(bytes, section as usize + 44, &u32::MAX.to_le_bytes());
    assert!(
        error_of(&many, &OpenOptions::default()).contains("expected 0x37ffffffc8 bytes of 4294967295 program headers")
    );
}

#[test]
fn physical_memory_listed_twice_with_the_same_bytes_is_one() {
    // As `dump-guest-memory -p`: the second header points at bytes of the first.
    let mut bytes = write_elf(
        true,
        62,
        &qemu_note(true),
        &[Segment::new(0x1000, pattern(0, 0x3000)), Segment::new(0x2000, pattern(1, 0x1000))],
    );
    let first_offset = u64::from_le_bytes(bytes[64 + 56 + 8..][..8].try_into().unwrap());
    bytes[64 + 2 * 56 + 8..][..8].copy_from_slice(&(first_offset + 0x1000).to_le_bytes());
    let (_dir, path) = file(&bytes);
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(snapshot.memory.metadata().runs.runs().len(), 1);
    assert_eq!(read(&*snapshot.memory, 0x1000, 0x3000).unwrap(), pattern(0, 0x3000));

    // As `/proc/vmcore`: the kernel's text again, elsewhere in the file, and reaching past the first.
    let ram = pattern(0, 0x3000);
    let mut text = ram[0x2000..].to_vec();
    text.extend(pattern(9, 0x1000));
    let bytes = write_elf(true, 62, &[], &[Segment::new(0x1000, ram.clone()), Segment::new(0x3000, text)]);
    let (_dir, path) = file(&bytes);
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x1000, 0x4000).unwrap(), [ram, pattern(9, 0x1000)].concat());
}

#[test]
fn physical_memory_listed_twice_with_other_bytes_is_refused() {
    let segments = [Segment::new(0x1000, pattern(0, 0x2000)), Segment::new(0x2000, pattern(1, 0x2000))];
    let bytes = write_elf(true, 62, &[], &segments);
    let text = error_of(&bytes, &OpenOptions::default());
    assert!(text.contains("segments 1 and 2 hold different bytes for 0x2000-0x2fff"), "{text}");
    let (_dir, path) = file(&bytes);
    let snapshot = open(&path, &OpenOptions { partial: true, ..OpenOptions::default() }).unwrap();
    assert_eq!(
        snapshot.notes,
        ["segments 1 and 2 hold different bytes for 0x2000-0x2fff; those of segment 1 are used"]
    );
    assert_eq!(read(&*snapshot.memory, 0x2000, 0x1000).unwrap(), pattern(0, 0x2000)[0x1000..]);
    assert_eq!(read(&*snapshot.memory, 0x3000, 0x1000).unwrap(), pattern(1, 0x2000)[0x1000..]);
}

#[test]
fn core_of_a_process_is_refused() {
    let mut first = Segment::new(0, pattern(0, 0x1000));
    first.vaddr = 0x40_0000;
    let mut second = Segment::new(0, pattern(1, 0x1000));
    second.vaddr = 0x60_0000;
    let text = error_of(&write_elf(true, 62, &[], &[first.clone(), second.clone()]), &OpenOptions::default());
    assert!(text.starts_with("image: the ELF core of a single process is not supported: it has no physical"), "{text}");
    second.paddr = 0x1000;
    let text = error_of(&write_elf(true, 62, &note("CORE", 6, &[0; 16]), &[first, second]), &OpenOptions::default());
    assert!(text.contains("single process"), "{text}");
}

#[test]
fn segment_without_physical_address_is_left_aside_and_said() {
    let segments = [Segment::new(u64::MAX, pattern(0, 0x1000)), Segment::new(0x1000, pattern(1, 0x1000))];
    let (_dir, path) = file(&write_elf(true, 62, &[], &segments));
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(snapshot.notes, ["1 segments have no physical address and are left aside"]);
    assert_eq!(snapshot.memory.metadata().runs.total_bytes(), 0x1000);
}

#[test]
fn every_refusal_says_what_and_where() {
    let whole = sample_elf64();
    let default = OpenOptions::default();
    let load = 64 + 56;
    let huge = 1u64 << 60;
    let of = |at: usize, with: &[u8]| error_of(&patched(whole.clone(), at, with), &default);
    assert_eq!(
        of(5, &[2]),
        "image: a big-endian ELF core is not supported: only little-endian machines are known here"
    );
    assert_eq!(of(5, &[9]), "image: ELF core: at offset 0x5: expected ELF data encoding 1 (little-endian), found 9");
    assert_eq!(of(4, &[3]), "image: ELF core: at offset 0x4: expected ELF class 1 (32-bit) or 2 (64-bit), found 3");
    assert_eq!(
        of(16, &[2]),
        "image: an ELF program, library or kernel file (e_type 2) is not supported: a memory image is an ELF core \
         (e_type 4), such as QEMU's dump-guest-memory writes"
    );
    assert_eq!(of(54, &[57, 0]), "image: ELF core: at offset 0x36: expected 56 bytes in a program header, found 57");
    assert_eq!(of(56, &[0, 0]), "image: ELF core: at offset 0x40: expected program headers, found none");
    assert_eq!(
        of(load + 32, &huge.to_le_bytes()),
        "image: ELF core: at offset 0x78: expected at most the 0x2000 bytes that segment 1 has in memory, found \
         0x1000000000000000 bytes in the file"
    );
    let size = whole.len();
    assert_eq!(
        of(load + 32, &[huge.to_le_bytes(), huge.to_le_bytes()].concat()),
        format!(
            "image: ELF core: at offset 0x78: expected 0x1000000000000000 bytes of segment 1 at offset 0x768, found the \
             end of the file at {size:#x}; it looks truncated, copy it again or open it as a partial image"
        )
    );
    assert_eq!(
        of(load + 24, &(u64::MAX - 0xfff).to_le_bytes()),
        "image: ELF core: at offset 0x78: expected segment 1 to end within the address space, found 0x2000 bytes from \
         physical 0xfffffffffffff000"
    );
    assert!(of(64 + 32, &huge.to_le_bytes()).contains("bytes of notes in segment 0, found the end of the file"));
    assert!(of(64 + 8, &huge.to_le_bytes()).contains("bytes of notes in segment 0, found the end of the file"));
    let notes = 64 + 3 * 56;
    assert_eq!(
        of(notes, &u32::MAX.to_le_bytes()),
        "image: ELF core: at offset 0xe8: expected a note inside its segment, found one that needs more than 0x680 bytes"
    );
    assert!(of(notes + 4, &u32::MAX.to_le_bytes()).contains("expected a note inside its segment"));
}

#[test]
fn cut_anywhere_it_is_an_error_or_partial_on_request() {
    for whole in [sample_elf64(), sample_elf32()] {
        for len in 0..whole.len() {
            let input = BytesInput::new("image".as_ref(), &whole[..len]);
            assert!(elf::parse(&input, ParseOptions { partial: false }).is_err(), "{len} of {} bytes", whole.len());
            if let Ok(image) = elf::parse(&input, ParseOptions { partial: true }) {
                assert!(!image.notes.is_empty(), "{len} of {} bytes", whole.len());
            }
        }
    }
}

#[test]
fn cut_segment_opens_partially_and_says_what_is_missing() {
    let whole = sample_elf64();
    let (_dir, path) = file(&whole[..whole.len() - 0x1100]);
    let snapshot = open(&path, &OpenOptions { partial: true, ..OpenOptions::default() }).unwrap();
    let end = whole.len() - 0x1100;
    assert_eq!(
        snapshot.notes,
        [
            format!(
                "the file ends at {end:#x}: the last 0x100 of 0x2000 bytes of segment 1 (physical 0x0) are missing"
            ),
            format!(
                "the file ends at {end:#x}: the last 0x1000 of 0x1000 bytes of segment 2 (physical 0x100000) are missing"
            ),
        ]
    );
    assert_eq!(read(&*snapshot.memory, 0, 0x1f00).unwrap(), pattern(0, 0x2000)[..0x1f00]);
    assert!(read(&*snapshot.memory, 0x1eff, 2).unwrap_err().is_not_in_image());
}

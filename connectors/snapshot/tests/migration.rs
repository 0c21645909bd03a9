//! QEMU's migration streams, by an independent writer.

mod common;

use common::{
    error_of,
    migration::{Field, Record, Stream, cpu, description, libvirt, section},
    pattern, read,
};
use memflow_core::{
    error::Reason,
    memory::{AArch64Registers, MachineKind, RunMap, VcpuRegisters, X86Registers},
};
use memflow_snapshot::{Compression, Container, MemoryLayout, OpenOptions, Snapshot, open, open_bytes};

const GIB: u64 = 1 << 30;

fn page(seed: u8) -> Vec<u8> {
    pattern(seed, 0x1000)
}

fn opened(bytes: &[u8]) -> Snapshot {
    let snapshot = open_bytes("stream", bytes, &OpenOptions::default()).unwrap();
    assert_eq!(snapshot.format.container, Container::Migration);
    snapshot
}

/// All pages of `pc.ram`, page 1 in two copies, page 2 filled with a byte, page 3 compressed, the others zeros.
fn whole() -> Stream {
    let mut records = vec![
        Record::Page("pc.ram", 0, page(1)),
        Record::Page("pc.ram", 0x1000, page(99)),
        Record::Page("vga.vram", 0, page(98)),
        Record::Fill("pc.ram", 0x2000, 0xab),
        Record::Zlib("pc.ram", 0x3000, page(3)),
        Record::NextSection,
    ];
    records.extend((4..0x100).map(|number| Record::Fill("pc.ram", number * 0x1000, 0)));
    records.push(Record::NextSection);
    records.push(Record::Page("pc.ram", 0x1000, page(2)));
    records.push(Record::Page("/rom@etc/acpi/tables", 0, page(97)));
    Stream { records, ..Stream::default() }
}

fn check(snapshot: &Snapshot) {
    let memory = &*snapshot.memory;
    assert_eq!(memory.metadata().runs.to_string(), "0x0-0xfffff@0x0");
    let expected = [page(1), page(2), vec![0xab; 0x1000], page(3), vec![0; 0xfc000]].concat();
    assert!(read(memory, 0, 0x10_0000).unwrap() == expected);
    // Across pages, and not at their borders.
    assert_eq!(read(memory, 0xff8, 0x2010).unwrap(), expected[0xff8..0x3008]);
    assert!(read(memory, 0x10_0000, 1).unwrap_err().is_not_in_image());
    assert!(snapshot.alternatives.is_empty());
}

#[test]
fn last_copy_of_each_page_is_what_the_guest_had() {
    let snapshot = opened(&whole().write());
    check(&snapshot);
    assert_eq!(snapshot.memory.populated_runs().to_string(), "0x0-0x3fff@0x0");
    assert_eq!(snapshot.notes, [""; 0]);
    assert_eq!(snapshot.format.to_string(), "QEMU migration stream");
}

#[test]
fn older_and_richer_streams_open_too() {
    check(&opened(&Stream { footers: false, ..whole() }.write()));
    check(&opened(&Stream { stranger: true, ..whole() }.write()));
    let postcopy = Some((0x20_1000, vec![("pc.ram", 0x20_0000)]));
    check(&opened(&Stream { postcopy, ..whole() }.write()));
    check(&opened(&Stream { postcopy: Some((0x1000, Vec::new())), ..whole() }.write()));
    check(&opened(&Stream { capabilities: vec!["x-ignore-shared", "events"], ..whole() }.write()));
    // A device that has to be set up before RAM says how long it is nowhere.
    let bytes = whole().write();
    let ram = bytes.windows(8).position(|window| window == b"\0\0\0\x02\x03ram").unwrap() - 1;
    let early = section(4, 1, "virtio-mem-device-early", 0, 1, &[0x7e, 0, 0, 0, 1, 0x55, 9, 9], true);
    check(&opened(&[&bytes[..ram], &early, &bytes[ram..]].concat()));
}

#[test]
fn pages_at_fixed_places_are_those_of_the_bitmap() {
    let stream = Stream { capabilities: vec!["mapped-ram"], ..Stream::default() };
    let present = [("pc.ram", 0x1000, page(5)), ("pc.ram", 0xff000, page(6)), ("vga.vram", 0, page(7))];
    let bytes = stream.write_mapped(&present);
    let snapshot = opened(&bytes);
    let expected = [vec![0; 0x1000], page(5), vec![0; 0xfd000], page(6)].concat();
    assert!(read(&*snapshot.memory, 0, 0x10_0000).unwrap() == expected);
    assert_eq!(snapshot.memory.populated_runs().to_string(), "0x1000-0x1fff@0x1000,0xff000-0xfffff@0xff000");
    // libvirt's format "sparse": the places count from the beginning of its own file.
    let header = libvirt(b"LibvirtQemudSave", 2, 6, &[b'x'; 1000]);
    let mut bytes = stream.write_mapped_behind(header.len(), &present);
    bytes[..header.len()].copy_from_slice(&header);
    assert!(read(&*opened(&bytes).memory, 0, 0x10_0000).unwrap() == expected);
}

#[test]
fn domains_that_libvirt_saved_open_compressed_too() {
    let stream = whole().write();
    let xml = b"<domain type='kvm'><name>x</name></domain>\0\0\0";
    check(&opened(&[libvirt(b"LibvirtQemudSave", 2, 0, xml), stream.clone()].concat()));
    let zstd = opened(&[libvirt(b"LibvirtQemudSave", 2, 5, xml), zstd::encode_all(&stream[..], 1).unwrap()].concat());
    check(&zstd);
    assert_eq!(zstd.format.compression, Some(Compression::Zstd));
    let gzip = [libvirt(b"LibvirtQemudSave", 2, 1, xml), common::gzip_stored(&stream)].concat();
    let (_dir, path) = common::file(&gzip);
    check(&open(&path, &OpenOptions::default()).unwrap());

    let refused = |bytes: &[u8]| error_of(bytes, &OpenOptions::default());
    let error = refused(&[libvirt(b"LibvirtQemudSave", 2, 3, xml), b"\xfd7zXZ\0".to_vec(), vec![0; 99]].concat());
    assert!(error.contains("xz"), "{error}");
    let error = refused(&[libvirt(b"LibvirtQemudSave", 2, 4, xml), b"\x89LZO\0\r\n".to_vec()].concat());
    assert!(error.contains("a libvirt save file in format lzop") && error.contains("virsh dump"), "{error}");
    let error = refused(&[libvirt(b"LibvirtQemudPart", 2, 0, xml), stream.clone()].concat());
    assert!(error.contains("was not finished"), "{error}");
    let error = refused(&[libvirt(b"LibvirtQemudSave", 3, 0, xml), stream].concat());
    assert!(error.contains("of version 3"), "{error}");
    let error = refused(&libvirt(b"LibvirtQemudSave", 2, 0, xml));
    assert!(error.contains("it looks truncated"), "{error}");
}

/// Nothing but page `number` of each gibibyte of a block of `gib` of them, and zeros before.
fn sparse(machine: &'static str, blocks: Vec<(&'static str, u64)>) -> Vec<u8> {
    let mut records = Vec::new();
    for (block, len) in &blocks {
        for at in (0..*len).step_by(GIB as usize / 2) {
            let mut bytes = page(7);
            bytes[..8].copy_from_slice(&at.to_le_bytes());
            bytes[8..16].copy_from_slice(&len.to_le_bytes());
            records.push(Record::Page(block, at, bytes));
        }
    }
    Stream { machine, blocks, records, ..Stream::default() }.write()
}

fn word(snapshot: &Snapshot, addr: u64) -> Option<u64> {
    read(&*snapshot.memory, addr, 8).ok().map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
}

#[test]
fn memory_lies_where_the_machine_type_has_it() {
    for (machine, low, high) in
        [("pc-i440fx-7.2", 3 * GIB, 4 * GIB), ("pc-q35-10.0", 2 * GIB, 4 * GIB), ("microvm", 3 * GIB, 4 * GIB)]
    {
        let snapshot = opened(&sparse(machine, vec![("pc.ram", 6 * GIB), ("pc.bios", 0x4_0000)]));
        assert_eq!(word(&snapshot, low - GIB), Some(low - GIB), "{machine}");
        assert_eq!(word(&snapshot, low), None, "{machine}");
        assert_eq!(word(&snapshot, high), Some(low), "{machine}");
        assert_eq!(word(&snapshot, high + 6 * GIB - low - GIB / 2), Some(6 * GIB - GIB / 2), "{machine}");
        // What the stream does not hold is no zeros.
        assert!(read(&*snapshot.memory, 0x1000, 1).unwrap_err().is_not_in_image());
        assert!(snapshot.notes.iter().any(|note| note.contains("are not in the stream")), "{:?}", snapshot.notes);
    }
    let snapshot = opened(&sparse("virt-7.2", vec![("mach-virt.ram", 2 * GIB)]));
    assert_eq!((word(&snapshot, 0), word(&snapshot, GIB), word(&snapshot, 2 * GIB)), (None, Some(0), Some(GIB)));
    // A machine that is not known has the choice that a raw image has.
    let snapshot = opened(&sparse("somebox-1", vec![("somebox.ram", 6 * GIB)]));
    assert!(!snapshot.alternatives.is_empty());
    assert!(snapshot.notes.iter().any(|note| note.contains("is assumed")), "{:?}", snapshot.notes);
    let flat = OpenOptions { layout: MemoryLayout::Flat, ..OpenOptions::default() };
    let bytes = sparse("pc-q35-7.2", vec![("pc.ram", 6 * GIB)]);
    assert_eq!(word(&open_bytes("stream", &bytes, &flat).unwrap(), 3 * GIB), Some(3 * GIB));
}

#[test]
fn nodes_follow_each_other_and_a_note_says_so() {
    // QEMU lists the largest first.
    let blocks = vec![("ram-node1", 2 * GIB), ("vga.vram", 0x1000), ("ram-node0", GIB)];
    let snapshot = opened(&sparse("pc-q35-7.2", blocks));
    let lens = |addr| read(&*snapshot.memory, addr + 8, 8).unwrap();
    assert_eq!(
        (lens(0), lens(GIB), lens(4 * GIB)),
        (GIB.to_le_bytes().to_vec(), (2 * GIB).to_le_bytes().to_vec(), (2 * GIB).to_le_bytes().to_vec())
    );
    assert!(
        snapshot.notes[1].contains("ram-node0, ram-node1 are taken for RAM")
            || snapshot.notes[0].contains("ram-node0, ram-node1")
    );
}

#[test]
fn firmware_knows_better_than_the_machine_type() {
    // A hole at 1 GiB, as by the option max-ram-below-4g.
    let mut low = vec![0; 0x10_0000];
    let tables = common::smbios(&[(0, GIB), (4 * GIB, GIB)]);
    low[0xf_0000..][..tables.len()].copy_from_slice(&tables);
    let mut records: Vec<Record> = low
        .chunks(0x1000)
        .zip(0u64..)
        .map(|(page, number)| Record::Page("pc.ram", number * 0x1000, page.to_vec()))
        .collect();
    records.push(Record::Page("pc.ram", GIB, page(3)));
    let stream = Stream { blocks: vec![("pc.ram", 2 * GIB)], records, ..Stream::default() };
    let snapshot = opened(&stream.write());
    assert_eq!(read(&*snapshot.memory, 4 * GIB, 0x1000).unwrap(), page(3));
    assert!(snapshot.notes.iter().any(|note| note.contains("SMBIOS")), "{:?}", snapshot.notes);
}

#[test]
fn what_has_no_memory_is_refused_with_a_way_out() {
    let refused = |stream: &Stream| error_of(&stream.write(), &OpenOptions::default());
    let error = refused(&Stream { capabilities: vec!["x-ignore-shared"], ..Stream::default() });
    assert!(error.contains("without the RAM that is shared") && error.contains("open that file"), "{error}");
    let error = refused(&Stream::default());
    assert!(error.contains("expected pages of the guest's RAM, found none"), "{error}");
    let error = refused(&Stream { blocks: vec![("vga.vram", 0x1000)], ..Stream::default() });
    assert!(error.contains("expected pages of the guest's RAM, found none"), "{error}");
    let error = refused(&Stream { records: vec![Record::Fill("pc.ram", 0x10_0000, 0)], ..Stream::default() });
    assert!(error.contains("a page of the 0x100000 bytes of block pc.ram, found one at 0x100000"), "{error}");
    let error = refused(&Stream { records: vec![Record::Fill("unlisted", 0, 0)], ..Stream::default() });
    assert!(error.contains("a block that the stream lists, found unlisted"), "{error}");
    let mut bytes = whole().write();
    let first = bytes.windows(7).position(|window| window == b"\x06pc.ram").unwrap() + 100;
    let record = first + bytes[first..].windows(7).position(|window| window == b"\x06pc.ram").unwrap() - 1;
    bytes[record] = 0x40;
    let error = error_of(&bytes, &OpenOptions::default());
    assert!(error.contains("XBZRLE") && error.contains("xbzrle off"), "{error}");
    bytes[record] = 0x80;
    assert!(error_of(&bytes, &OpenOptions::default()).contains("by RDMA"));
    let error = error_of(b"QEVM\0\0\0\x02rest", &OpenOptions::default());
    assert!(error.contains("of version 2"), "{error}");
    let writable = OpenOptions { writable: true, ..OpenOptions::default() };
    assert!(error_of(&whole().write(), &writable).contains("cannot be written to"));
}

#[test]
fn streams_cut_anywhere_are_refused_or_open_in_part() {
    let bytes = whole().write();
    let devices = bytes.windows(6).position(|window| window == b"\x05timer").unwrap() - 5;
    let all = open_bytes("stream", &bytes, &OpenOptions::default()).unwrap();
    let partial = OpenOptions { partial: true, ..OpenOptions::default() };
    let mut opened = 0;
    for at in (4..0x200).chain((0x200..bytes.len()).step_by(7)) {
        let strict = open_bytes("stream", &bytes[..at], &OpenOptions::default());
        // Behind RAM nothing is missing.
        assert_eq!(strict.is_ok(), at >= devices, "{at:#x}");
        let Ok(snapshot) = open_bytes("stream", &bytes[..at], &partial) else { continue };
        opened += 1;
        assert!(at >= devices || snapshot.notes.iter().any(|note| note.contains("is missing")), "{:?}", snapshot.notes);
        for run in snapshot.memory.metadata().runs.runs() {
            let start = run.range.start().as_u64();
            let part = read(&*snapshot.memory, start, run.range.len() as usize).unwrap();
            // A page that is written again may have its first copy.
            let whole = read(&*all.memory, start, part.len()).unwrap();
            let pages = part.chunks(0x1000).zip(whole.chunks(0x1000));
            assert!(
                pages.enumerate().all(|(number, (part, whole))| part == whole || (number == 1 && part == page(99)))
            );
        }
    }
    assert!(opened > 1000, "{opened}");

    let mapped = Stream { capabilities: vec!["mapped-ram"], ..Stream::default() };
    let bytes = mapped.write_mapped(&[("pc.ram", 0x1000, page(5)), ("pc.ram", 0xff000, page(6))]);
    let error = error_of(&bytes[..0x8_0000], &OpenOptions::default());
    assert!(error.contains("it looks truncated"), "{error}");
    let snapshot = open_bytes("stream", &bytes[..0x8_0000], &partial).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x1000, 0x1000).unwrap(), page(5));
    let error = read(&*snapshot.memory, 0xff000, 1).unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::Damaged { .. })), "{error:?}");
}

fn numbers(from: u64, count: u64) -> Vec<u64> {
    (from..from + count).collect()
}

fn with_vcpus(fields: &[Field], vcpus: u32) -> Stream {
    let states = (0..vcpus).flat_map(|vcpu| cpu(40 + vcpu, vcpu, fields));
    let devices = section(4, 9, "timer", 0, 2, b"\x03cpu\0\0\0\0", true).into_iter().chain(states);
    Stream { devices: devices.chain(description(vcpus, fields)).collect(), ..whole() }
}

#[test]
fn registers_are_where_the_description_has_them() {
    for (width, count, kind) in [(8, 16, MachineKind::X86_64), (4, 8, MachineKind::X86)] {
        // A segment is a selector, a base, a limit and flags; here a base of 64 bits is two numbers.
        let segment = |from| numbers(from, if width == 8 { 5 } else { 4 });
        let wide = |name, number| (name, width, vec![number]);
        let mut fields: Vec<Field> = vec![("env.regs", width, numbers(100, count)), wide("env.eip", 7)];
        for from in [600, 610, 620, 630, 640, 650] {
            fields.push(("", 4, segment(from)));
        }
        fields.extend([wide("env.cr[0]", 1), wide("env.cr[2]", 2), wide("env.cr[3]", 3), wide("env.cr[4]", 4)]);
        fields.extend([("", 1, numbers(0, 3)), ("env.efer", 8, vec![5])]);
        let snapshot = opened(&with_vcpus(&fields, 3).write());
        check(&snapshot);
        let mut expected = X86Registers::default();
        (expected.cr0, expected.cr2, expected.cr3, expected.cr4) = (Some(1), Some(2), Some(3), Some(4));
        (expected.rip, expected.rsp, expected.efer) = (Some(7), Some(104), Some(5));
        assert_eq!(snapshot.memory.facts().vcpus, vec![VcpuRegisters::X86(expected); 3]);
        assert_eq!(snapshot.memory.facts().machine, Some(kind));
    }
    let fields: Vec<Field> = vec![
        ("env.xregs", 8, numbers(100, 32)),
        ("env.pc", 8, vec![7]),
        ("cpsr", 4, vec![0x3c5]),
        ("env.sp_el", 8, numbers(200, 4)),
        (
            "cpreg_vmstate_indexes",
            8,
            [0x13_0000u64, 0x13_c101, 0x13_c600].map(|low| 0x6030_0000_0000_0000 | low).to_vec(),
        ),
        ("cpreg_vmstate_values", 8, vec![1, 2, 3]),
    ];
    let snapshot = opened(&with_vcpus(&fields, 1).write());
    let mut expected = AArch64Registers::default();
    (expected.ttbr1_el1, expected.vbar_el1) = (Some(2), Some(3));
    (expected.pc, expected.sp, expected.sp_el0, expected.pstate) = (Some(7), Some(131), Some(200), Some(0x3c5));
    assert_eq!(snapshot.memory.facts().vcpus, [VcpuRegisters::AArch64(expected)]);
    assert_eq!(snapshot.memory.facts().machine, Some(MachineKind::AArch64));
}

#[test]
fn states_that_do_not_fit_their_description_give_no_registers() {
    let fields: Vec<Field> = vec![("env.regs", 8, numbers(100, 16)), ("env.cr[3]", 8, vec![3])];
    let longer: Vec<Field> = [fields.clone(), vec![("", 8, vec![1])]].concat();
    let states = cpu(40, 0, &fields);
    for description in
        [description(1, &longer), b"\0\x06\0\0\0\x02{}".to_vec(), b"\0\x06\0\0\0\x01{".to_vec(), Vec::new()]
    {
        let devices = [states.clone(), description].concat();
        let snapshot = opened(&Stream { devices, ..whole() }.write());
        check(&snapshot);
        assert_eq!((snapshot.memory.facts().vcpus.len(), snapshot.memory.facts().machine), (0, None));
    }
}

#[test]
fn index_costs_no_more_than_the_stream() {
    // A megabyte of the shortest records, in an order in which none continues another.
    let count = 100_000u64;
    let records = (0..count)
        .map(|number| Record::Fill("pc.ram", number * 0x2000 % (count * 0x1000), (number % 251) as u8))
        .collect();
    let stream = Stream { blocks: vec![("pc.ram", 1 << 40)], records, ..Stream::default() }.write();
    let started = std::time::Instant::now();
    let snapshot = opened(&stream);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    assert!(snapshot.memory.metadata().runs.runs().len() <= count as usize);
    // Terabytes that are named but not sent cost nothing.
    let claims = Stream {
        blocks: vec![("pc.ram", 1 << 62), ("vga.vram", 1 << 61), ("/rom@etc/acpi/tables", 1 << 60)],
        ..whole()
    }
    .write();
    let runs: &RunMap = &opened(&claims).memory.metadata().runs.clone();
    assert_eq!(runs.total_bytes(), 0x10_0000);
}

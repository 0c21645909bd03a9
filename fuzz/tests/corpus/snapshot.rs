//! Seeds for files that hold physical memory.
//!
//! Source: `images`; for the firmware's tables DMTF DSP0134 (SMBIOS 3.7): 5.2 and 7.20.

use super::{
    Seed,
    images::{
        Segment, avml, beside, crash_dump, elf, gzip_stored, kdump, lime, lime_header, migration, note, packed,
        pattern, prstatus32, prstatus64, qemu_note, xen, zstd_raw, zstd_skippable,
    },
};

/// What `gzip -9` makes of "memory " forty times and the bytes 0 to 39.
const GZIP_DYNAMIC: &str = "1f8b0800000000000203cb4dcdcd2faa54c81da5502906462666165636760e4e2e6e1e5e3e7e0141216111513171094\
                            929691959397905452565155535750028837aa940010000";
/// What `zstd -19 --check` makes of "memory " forty times and the bytes 0 to 39, three times.
const ZSTD_COMPRESSED: &str = "28b52ffd0468dd0100f4026d656d6f727920000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d\
                               1e1f20212223242526270200e8a5d0e220b56c018de39ea0";

const GIB: u64 = 1 << 30;

/// All that the crate's own note can tell, some of it twice.
const FACTS: &str = "\
directory_table=0x1ad000
windows.build=0x4a61
windows.pae=0x1
windows.processors=0x2
windows.system_time=0x1da00f00d000000
windows.debugger_data=0xfffff80012345678
windows.loaded_modules=0xfffff80011112222
windows.active_processes=0xfffff80033334444
windows.pfn_database=0xffffe68000000000
windows.bug_check=0xd1
windows.bug_check.parameter=0x1
windows.bug_check.parameter=0xffffffffffffffff
windows.bug_check.parameter=0x0
windows.bug_check.parameter=0x4
vcpu=x86
cr0=0x80050033
cr3=0x1ad000
cr4=0x6f0
gs_base=0xffff88803ec00000
rip=0xffffffff81000000
rip=0xffffffff81000010
vcpu=aarch64
ttbr1_el1=0x40f3d000
tcr_el1=0x34b5503510
pc=0xffff800010081000
pstate=0x3c5
";

pub(crate) fn seeds() -> Vec<Seed> {
    let (whole64, whole32) = (elf64(), elf32());
    vec![
        ("elf", "elf64", whole64.clone()),
        ("elf", "elf32", whole32),
        ("elf", "gap-in-segment", gap_in_segment()),
        ("elf", "same-bytes-twice", same_bytes_twice()),
        ("elf", "virtualbox", virtualbox()),
        ("elf", "xen-host", xen_host()),
        ("elf", "xen-guest", xen_guest(false)),
        ("elf", "xen-guest-paravirtual", xen_guest(true)),
        ("lime", "three-ranges", small_lime()),
        ("lime", "padding", [small_lime(), vec![0; 40], lime(&[(0x9000, pattern(9, 16))])].concat()),
        ("lime", "last-page", [lime_header(0xffff_ffff_ffff_ffe0, u64::MAX - 1), pattern(4, 31)].concat()),
        ("avml", "three-ranges", small_avml()),
        ("kdump", "zlib", small_kdump(kdump::Method::Zlib, true)),
        ("kdump", "lzo", small_kdump(kdump::Method::Lzo, true)),
        ("kdump", "snappy-32", small_kdump(kdump::Method::Snappy, false)),
        ("kdump", "zstd", small_kdump(kdump::Method::Zstd, true)),
        ("migration", "pages", small_stream().write()),
        ("migration", "older", migration::Stream { footers: false, ..small_stream() }.write()),
        ("migration", "postcopy", postcopy_stream().write()),
        ("migration", "mapped", mapped_stream(0)),
        ("libvirt", "raw", libvirt(0, &small_stream().write())),
        ("libvirt", "gzip", libvirt(1, &gzip_stored(&small_stream().write()))),
        ("libvirt", "zstd", libvirt(5, &zstd_raw(&small_stream().write()))),
        ("libvirt", "sparse", mapped_behind_libvirt()),
        (
            "beside",
            "firecracker",
            state_of(6 * GIB, &beside::vmstate(beside::FIRECRACKER_X86, &[(0, 3 * GIB), (4 * GIB, 3 * GIB)])),
        ),
        ("beside", "firecracker-packed", state_of(6 * GIB, &beside::vmstate(beside::FIRECRACKER_X86, &[]))),
        ("beside", "firecracker-arm", state_of(GIB, &beside::vmstate(beside::FIRECRACKER_ARM, &[]))),
        (
            "beside",
            "cloud-hypervisor",
            state_of(4 * GIB, beside::state_json(&beside::json_ranges(&[(0, 3 * GIB), (4 * GIB, GIB)])).as_bytes()),
        ),
        ("facts_note", "two-vcpus", FACTS.as_bytes().to_vec()),
        (
            "facts_note",
            "nonsense",
            b"rip=0x1\nvcpu=z80\nvcpu=x86\nrip=1\nrip=0x2\nwhat\n\xff=0x1\nwindows.what=0x1\n".to_vec(),
        ),
        ("crash_dump", "complete-64", small_crash_dump(1, &[])),
        ("crash_dump", "bitmap-64", small_crash_dump(5, &crash_dump::bitmap(b"FDMP", 0x2000, &[1], 16))),
        ("crash_dump", "ranges-64", small_crash_dump(10, &crash_dump::ranges(&[(1, 1)], Some(1)))),
        ("crash_dump", "complete-32", [crash_dump::header32(1, 1, &[(1, 1)]), pattern(1, 4096)].concat()),
        ("vmware", "regions", vmware_state()),
        ("runs", "one", b"0-4095@0".to_vec()),
        ("runs", "pc", b"0-0xbfffffff@0,0x100000000-0x13fffffff@0xc0000000".to_vec()),
        ("runs", "unsorted", b"0x3000-0x3fff@0x10, 0-0xfff@0x2000 ,4096-8191@65536".to_vec()),
        ("runs", "ends", b"0xfffffffffffff000-0xffffffffffffffff@0".to_vec()),
        ("gzip", "stored", gzip_stored(&pattern(1, 300))),
        ("gzip", "members", [gzip_stored(&[]), gzip_stored(b"one"), gzip_stored(b"two"), vec![0; 9]].concat()),
        ("gzip", "every-header-field", gzip_with_fields()),
        ("gzip", "dynamic", bytes(GZIP_DYNAMIC)),
        ("zstd", "raw", zstd_raw(&pattern(1, 300))),
        ("zstd", "frames", [zstd_skippable(b"skip"), zstd_raw(b"one"), zstd_raw(&[]), zstd_raw(b"two")].concat()),
        ("zstd", "run-length", zstd_run_length()),
        ("zstd", "compressed", bytes(ZSTD_COMPRESSED)),
        ("gzip", "bgzf", packed::bgzf(&pattern(1, 300), 100)),
        ("zstd", "frames-with-lengths", packed::zstd_frames(&pattern(1, 300), 100)),
        ("zstd", "table", packed::zstd_seekable(&pattern(1, 300), 100, false)),
        ("zstd", "table-of-silent-frames", packed::zstd_seekable(&pattern(1, 300), 100, true)),
        ("lz4", "independent", packed::lz4(&pattern(1, 300), false)),
        ("lz4", "linked", packed::lz4(&pattern(1, 300).repeat(300), true)),
        ("lz4", "legacy", packed::lz4_legacy(&[&pattern(1, 300), &[7; 500]])),
        ("xz", "blocks", packed::xz(&pattern(1, 300), Some(100))),
        ("xz", "one-block", packed::xz(&[pattern(1, 300), vec![0; 5000]].concat(), None)),
        ("xz", "streams", [packed::xz(&[1; 100], None), vec![0; 4], packed::xz(&[2; 200], Some(90))].concat()),
        ("firmware", "entry-32", firmware(entry32, &[range32(0, 0x27_ffff), range32(0x40_0000, 0x4f_ffff)])),
        ("firmware", "entry-64", firmware(entry64, &[range32(0, 0x1fff), range64(0x1_0000_0000, 0x1_7fff_ffff)])),
        ("firmware", "overlap", firmware(entry32, &[range32(0, 0x2000), range32(0x1000, 0x3000)])),
        ("open", "elf64", whole64.clone()),
        ("open", "lime", small_lime()),
        ("open", "avml", small_avml()),
        ("open", "crash-dump", small_crash_dump(1, &[])),
        (
            "open",
            "libvirt",
            [migration::libvirt(b"LibvirtQemudSave", 2, 0, b"<domain/>"), small_stream().write()].concat(),
        ),
        (
            "open",
            "libvirt-zstd",
            [migration::libvirt(b"LibvirtQemudSave", 2, 5, b""), zstd_raw(&small_stream().write())].concat(),
        ),
        ("open", "flattened-elf64", flattened(&whole64)),
        ("open", "raw", pattern(3, 4096)),
        ("open", "gzip-elf64", gzip_stored(&whole64)),
        ("open", "zstd-lime", zstd_raw(&small_lime())),
    ]
}

fn elf64() -> Vec<u8> {
    let notes = [
        prstatus64(0x1111, 0x2222),
        qemu_note(true),
        qemu_note(false),
        note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\nSYMBOL(_stext)=ffffffff81000000\n"),
    ]
    .concat();
    elf(true, 62, &notes, &[Segment::new(0, pattern(0, 0x80)), Segment::new(0x10_0000, pattern(7, 0x40))])
}

fn virtualbox() -> Vec<u8> {
    let words: Vec<u8> = (0..70u64).flat_map(u64::to_le_bytes).collect();
    let descriptor: Vec<u8> =
        [0xc01a_c0deu32, 0x1_0006, 24, 0, 0, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
    let notes = [note("VBCORE", 0xb00, &descriptor), note("VBCPU", 0xb01, &words)].concat();
    elf(true, 62, &notes, &[Segment::new(0, pattern(0, 0x40))])
}

fn xen_host() -> Vec<u8> {
    let notes = [prstatus64(1, 2), note("Xen", 0x100_0002, &[7; 32])].concat();
    elf(true, 62, &notes, &[Segment::new(0x1000, pattern(0, 0x40))])
}

fn xen_guest(paravirtual: bool) -> Vec<u8> {
    let pages = vec![(1, 7, pattern(1, 0x1000)), (3, 8, pattern(2, 0x1000))];
    xen::Core { paravirtual, pages, vcpus: vec![(0x1000, 2)], ..xen::Core::default() }.write()
}

/// A page of each kind, in two sections, one of them twice.
fn small_stream() -> migration::Stream {
    use migration::Record;
    let records = vec![
        Record::Page("pc.ram", 0x1000, pattern(1, 0x1000)),
        Record::Page("pc.ram", 0x2000, pattern(2, 0x1000)),
        Record::Zlib("vga.vram", 0, pattern(3, 0x1000)),
        Record::NextSection,
        Record::Fill("pc.ram", 0x1000, 0),
        Record::Zlib("pc.ram", 0x5000, pattern(3, 0x1000)),
    ];
    let blocks = vec![("pc.ram", 0x8000), ("vga.vram", 0x1000)];
    migration::Stream { blocks, records, ..migration::Stream::default() }
}

fn postcopy_stream() -> migration::Stream {
    let postcopy = Some((0x20_1000, vec![("pc.ram", 0x20_0000)]));
    migration::Stream { postcopy, capabilities: vec!["x-ignore-shared"], stranger: true, ..small_stream() }
}

fn mapped_stream(behind: usize) -> Vec<u8> {
    let blocks = vec![("pc.ram", 0x3000)];
    let stream = migration::Stream { blocks, capabilities: vec!["mapped-ram"], ..migration::Stream::default() };
    stream.write_mapped_behind(behind, &[("pc.ram", 0x1000, pattern(1, 0x1000))])
}

/// A stream in one of libvirt's formats.
fn libvirt(format: u32, stream: &[u8]) -> Vec<u8> {
    [migration::libvirt(b"LibvirtQemudSave", 2, format, b"<domain/>"), stream.to_vec()].concat()
}

/// The stream of libvirt's format "sparse", whose places count from the beginning of the file.
fn mapped_behind_libvirt() -> Vec<u8> {
    let header = migration::libvirt(b"LibvirtQemudSave", 2, 6, b"<domain/>");
    let mut bytes = mapped_stream(header.len());
    bytes[..header.len()].copy_from_slice(&header);
    bytes
}

/// A state beside memory of this length, as the target takes it.
fn state_of(len: u64, state: &[u8]) -> Vec<u8> {
    [&len.to_le_bytes(), state].concat()
}

fn elf32() -> Vec<u8> {
    let notes = [prstatus32(0x1111, 0x2222), qemu_note(true)].concat();
    elf(false, 3, &notes, &[Segment::new(0, pattern(0, 0x40)), Segment::new(0x8000, pattern(7, 0x40))])
}

fn gap_in_segment() -> Vec<u8> {
    let mut low = Segment::new(0x1000, pattern(2, 0x30));
    (low.memsz, low.vaddr) = (0x1000, 0xffff_8880_0000_1000);
    elf(true, 62, &qemu_note(true), &[low, Segment::new(0x2000, pattern(3, 0x20))])
}

/// Segments that overlap and agree, as `/proc/vmcore` has them for the kernel's text.
fn same_bytes_twice() -> Vec<u8> {
    let bytes = pattern(5, 0x60);
    let inner = Segment::new(0x1020, bytes[0x20..0x40].to_vec());
    elf(true, 62, &qemu_note(false), &[Segment::new(0x1000, bytes), inner])
}

fn small_avml() -> Vec<u8> {
    avml(&[(0x1000, pattern(1, 0x40)), (0x2000, vec![7; 0x800]), (0x20_0000, pattern(3, 1))])
}

/// Two pages that compress and one that was left out.
fn small_kdump(method: kdump::Method, wide: bool) -> Vec<u8> {
    let pages = vec![(1, Some(vec![5; 4096])), (2, None), (9, Some(vec![6; 4096]))];
    let machine = if wide { "x86_64" } else { "i686" };
    kdump::Kdump { method, wide, machine, pages, notes: prstatus64(1, 2), max_mapnr: 16, ..Default::default() }.write()
}

/// One page behind a header and a body.
fn small_crash_dump(kind: u32, body: &[u8]) -> Vec<u8> {
    [&crash_dump::header64(0x8664, kind, &[(1, 1)]), body, &pattern(1, 4096)].concat()
}

/// A flattened dump in two pieces, the second first.
fn flattened(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"makedumpfile\0\0\0\0".to_vec();
    out.extend([1u64.to_be_bytes(), 1u64.to_be_bytes()].concat());
    out.resize(4096, 0);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for (at, piece) in [(first.len(), second), (0, first)] {
        out.extend([(at as u64).to_be_bytes(), (piece.len() as u64).to_be_bytes()].concat());
        out.extend(piece);
    }
    out.extend([0xff; 16]);
    out
}

/// A state with a region, the memory itself, and a vCPU.
fn vmware_state() -> Vec<u8> {
    let tag = |size: u8, name: &str, indices: &[u32], value: &[u8]| {
        let mut out = vec![(indices.len() as u8) << 6 | size, name.len() as u8];
        out.extend(name.as_bytes());
        indices.iter().for_each(|index| out.extend(index.to_le_bytes()));
        out.extend(value);
        out
    };
    let number = |name: &str, indices: &[u32], value: u32| tag(4, name, indices, &value.to_le_bytes());
    let block =
        [&64u64.to_le_bytes()[..], &64u64.to_le_bytes(), &3u16.to_le_bytes(), &[0; 3], &pattern(1, 64)].concat();
    let memory = [
        number("regionsCount", &[], 1),
        number("regionPPN", &[0], 1),
        number("regionPageNum", &[0], 0),
        number("regionSize", &[0], 1),
        tag(0x3f, "Memory", &[0, 0], &block),
    ]
    .concat();
    let cpu = [tag(8, "CR64", &[0, 3], &0x1a_d000u64.to_le_bytes()), vec![0, 0]].concat();
    let mut out = 0xbed2_bed2u32.to_le_bytes().to_vec();
    out.extend([8u32.to_le_bytes(), 2u32.to_le_bytes()].concat());
    let mut at = 12 + 2 * 80;
    for (name, tags) in [("memory", &memory), ("cpu", &cpu)] {
        let mut field = name.as_bytes().to_vec();
        field.resize(64, 0);
        out.extend(field);
        out.extend([(at as u64).to_le_bytes(), (tags.len() as u64).to_le_bytes()].concat());
        at += tags.len();
    }
    [out, memory, cpu].concat()
}

fn small_lime() -> Vec<u8> {
    lime(&[(0x1000, pattern(1, 0x40)), (0x2000, pattern(2, 0x20)), (0x20_0000, pattern(3, 1))])
}

/// A member with extra field, name, comment and header checksum (RFC 1952, 2.3). The checksum is not looked at.
fn gzip_with_fields() -> Vec<u8> {
    let mut member = gzip_stored(b"fields");
    member[3] = 0b1_1110;
    member.splice(10..10, *b"\x04\0AB\0\0name\0a comment\0\x12\x34");
    member
}

/// One frame with a block of one byte repeated (RFC 8878, 3.1.1.2).
fn zstd_run_length() -> Vec<u8> {
    let len = 100_000u32;
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    out.extend(len.to_le_bytes());
    out.extend(&(1 | 1 << 1 | len << 3).to_le_bytes()[..3]);
    out.push(0x5a);
    out
}

/// The firmware's area: an entry point at its start, the table 64 bytes behind it.
fn firmware(entry: fn(u64, usize) -> Vec<u8>, structures: &[Vec<u8>]) -> Vec<u8> {
    let mut table = vec![1, 8, 0, 1, 1, 2, 0, 0];
    table.extend(b"maker\0name\0\0");
    table.extend(structures.concat());
    table.extend([127, 4, 0, 9, 0, 0]);
    let mut area = entry(0xf_0040, table.len());
    area.resize(0x40, 0);
    area.extend(table);
    area
}

fn entry32(table: u64, len: usize) -> Vec<u8> {
    let mut entry = b"_SM_\0\x1f\x03\0\x40\0\0\0\0\0\0\0_DMI_\0".to_vec();
    entry.extend((len as u16).to_le_bytes());
    entry.extend((table as u32).to_le_bytes());
    entry.extend([3, 0, 0x30]);
    with_checksum(entry, 4)
}

fn entry64(table: u64, len: usize) -> Vec<u8> {
    let mut entry = b"_SM3_\0\x18\x03\x07\0\x01\0".to_vec();
    entry.extend((len as u32).to_le_bytes());
    entry.extend(table.to_le_bytes());
    with_checksum(entry, 5)
}

fn with_checksum(mut entry: Vec<u8>, at: usize) -> Vec<u8> {
    entry[at] = entry.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
    entry
}

/// Structure type 19 with a range in KiB.
fn range32(first: u32, last: u32) -> Vec<u8> {
    let mut out = vec![19, 15, 0, 2];
    out.extend((first >> 10).to_le_bytes());
    out.extend((last >> 10).to_le_bytes());
    out.extend([0, 0x10, 1, 0, 0]);
    out
}

/// Structure type 19 with a range in bytes.
fn range64(first: u64, last: u64) -> Vec<u8> {
    let mut out = vec![19, 31, 0, 3];
    out.extend([0xff; 8]);
    out.extend([0, 0x10, 1]);
    out.extend(first.to_le_bytes());
    out.extend(last.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

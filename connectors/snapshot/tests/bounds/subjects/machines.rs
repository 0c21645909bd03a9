//! What hypervisors write: migration streams, cores, and memory with its layout beside it.

use std::{fs::File, path::Path};

use super::Subject;
use crate::common::{
    Segment,
    beside::{FIRECRACKER_ARM, FIRECRACKER_X86, json_ranges, state_json, vmstate},
    crash_dump::PAGE,
    elf, gzip_stored,
    migration::{Record, Stream, cpu, description, libvirt, section},
    note, packed, pattern, prstatus64,
    vmware::{cpus, regions, state},
    xen::Core,
    zstd_raw,
};

const GIB: u64 = 1 << 30;

/// A stream with every kind of record.
fn stream() -> Stream {
    Stream {
        blocks: vec![("pc.ram", 0x8000), ("pc.bios", 0x2000), ("ram-node1", 0x4000)],
        records: vec![
            Record::Page("pc.ram", 0x1000, pattern(1, PAGE)),
            Record::Page("pc.ram", 0x2000, pattern(2, PAGE)),
            Record::NextSection,
            Record::Zlib("pc.bios", 0, pattern(3, PAGE)),
            Record::Fill("ram-node1", 0x3000, 7),
            Record::Page("pc.ram", 0x2000, pattern(4, PAGE)),
        ],
        stranger: true,
        ..Stream::default()
    }
}

/// The same with pages at fixed places.
fn mapped(behind: usize) -> Vec<u8> {
    let stream = Stream { capabilities: vec!["mapped-ram"], ..stream() };
    stream.write_mapped_behind(behind, &[("pc.ram", 0x1000, pattern(1, PAGE)), ("pc.ram", 0x3000, pattern(2, PAGE))])
}

/// QEMU's migration streams, as they are and in libvirt's files.
pub(crate) fn migrations() -> Vec<Subject> {
    let pages: Vec<Vec<u8>> = (1..=4).map(|seed| pattern(seed, PAGE)).collect();
    let fields = vec![("env.regs", 8, vec![1; 16]), ("env.cr[3]", 8, vec![3]), ("env.eip", 8, vec![4])];
    let vcpus = [cpu(3, 0, &fields), cpu(4, 1, &fields), description(2, &fields)].concat();
    let postcopy = Stream {
        postcopy: Some((0x20_1000, vec![("pc.bios", 0x20_0000)])),
        capabilities: vec!["x-ignore-shared"],
        devices: section(4, 3, "cpu", 0, 12, &[1; 40], true),
        ..stream()
    };
    let small = Stream { records: vec![Record::Page("pc.ram", 0, pattern(1, PAGE))], ..Stream::default() }.write();
    let saved =
        |format, stream: &[u8]| [libvirt(b"LibvirtQemudSave", 2, format, b"<domain/>"), stream.to_vec()].concat();
    let sparse = {
        let header = libvirt(b"LibvirtQemudSave", 2, 6, b"<domain/>");
        let mut bytes = mapped(header.len());
        bytes[..header.len()].copy_from_slice(&header);
        bytes
    };
    let of = |name, bytes| Subject::around(name, bytes, &pages);
    vec![
        of("migration stream", Stream { devices: vcpus, ..stream() }.write()),
        of("migration stream without footers", Stream { footers: false, ..stream() }.write()),
        of("migration stream with postcopy", postcopy.write()),
        of("migration stream, mapped", mapped(0)),
        of("libvirt, raw", saved(0, &small)),
        of("libvirt, sparse", sparse),
        of("libvirt, gzip", saved(1, &gzip_stored(&small))),
        Subject::whole("libvirt, xz", saved(3, &packed::xz(&small, None))).with_window(),
        of("libvirt, zstd", saved(5, &zstd_raw(&small))).with_window(),
    ]
}

/// ELF cores of Xen, of a host below it, and of VirtualBox; and the note that the crate's own cores have.
pub(crate) fn cores() -> Vec<Subject> {
    let pages: Vec<Vec<u8>> = (1..=3).map(|seed| pattern(seed, PAGE)).collect();
    let xen = |name, paravirtual| {
        let frames =
            [(1, 9), (2, 10), (7, 3)].into_iter().zip(&pages).map(|((pfn, gmfn), page)| (pfn, gmfn, page.clone()));
        let core = Core { paravirtual, pages: frames.collect(), vcpus: vec![(0x1000, 2)], ..Core::default() };
        Subject::around(name, core.write(), &pages)
    };
    let words: Vec<u8> = (0..80u64).flat_map(u64::to_le_bytes).collect();
    let mut descriptor = 0xc01a_c0deu32.to_le_bytes().to_vec();
    descriptor.extend(0x1_0006u32.to_le_bytes());
    descriptor.extend([0; 16]);
    let facts = b"directory_table=0x1000\nwindows.build=0x4a61\nvcpu=x86\ncr3=0x1000\nvcpu=aarch64\npc=0x2\n";
    let core = |name, notes: Vec<u8>| {
        let page = pattern(0, 64);
        Subject::around(name, elf(true, 62, &notes, &[Segment::new(0, page.clone())]), &[page])
    };
    vec![
        xen("core of Xen", false),
        xen("core of Xen, paravirtual", true),
        core("core of a host of Xen", [prstatus64(1, 2), note("Xen", 0x100_0002, &words[..32])].concat()),
        core("core of VirtualBox", [note("VBCORE", 0xb00, &descriptor), note("VBCPU", 0xb01, &words)].concat()),
        core("core of our own", [prstatus64(1, 2), note("MEMFLOW", 1, facts)].concat()),
    ]
}

/// States that are told by what lies beside memory.
pub(crate) fn beside() -> Vec<Subject> {
    let memory =
        |name: &'static str, len: u64| move |dir: &Path| File::create(dir.join(name)).unwrap().set_len(len).unwrap();
    let pc = vmstate(FIRECRACKER_X86, &[(0, 3 * GIB), (4 * GIB, 3 * GIB)]);
    let ranges = state_json(&json_ranges(&[(0, 3 * GIB), (4 * GIB, GIB)]));
    let groups = state(0xbed2_bed2, &[("cpu", cpus()), ("memory", regions())]);
    vec![
        Subject::whole("state of Firecracker", pc).in_folder("state", "memory", memory("memory", 6 * GIB)),
        Subject::whole("state of Firecracker on Arm", vmstate(FIRECRACKER_ARM, &[(2 * GIB, GIB)])).in_folder(
            "state",
            "memory",
            memory("memory", GIB),
        ),
        Subject::whole("state of Cloud Hypervisor", ranges.into_bytes()).in_folder(
            "state.json",
            "memory-ranges",
            memory("memory-ranges", 4 * GIB),
        ),
        // From either of the two.
        Subject::around("VMware state beside memory", groups.clone(), &[]).in_folder(
            "guest.vmss",
            "guest.vmem",
            memory("guest.vmem", 0x4000),
        ),
        Subject::around("VMware state with memory beside it", groups, &[]).in_folder(
            "guest.vmsn",
            "guest.vmsn",
            memory("guest.vmem", 0x4000),
        ),
    ]
}

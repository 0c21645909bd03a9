//! Files of hypervisors: migration streams, cores of Xen and VirtualBox, states beside memory.
//!
//! Owns: one file for each lie, by hand. Must not know: how a format is read.

use std::fs::File;

use memflow_snapshot::{OpenOptions, open};

use super::check::{
    End::{self, Holds, Refused},
    LEN, PAGES, check, padded,
};
use crate::{
    common::{
        Segment,
        beside::{FIRECRACKER_X86, json_ranges, state_json, vmstate},
        crash_dump::put,
        elf,
        migration::{Record, Stream, libvirt, section},
        note, pattern,
        vmware::{number, state},
        xen::Core,
    },
    measure::bounded,
};

const PAGE: u64 = 0x1000;
const GIB: u64 = 1 << 30;

/// A stream of one block, with these records in it.
fn stream(len: u64, records: Vec<Record>) -> Stream {
    Stream { blocks: vec![("pc.ram", len)], records, ..Stream::default() }
}

fn fill(page: u64) -> Record {
    Record::Fill("pc.ram", page * PAGE, 7)
}

/// The header of the block of a mapped stream: version, size of pages, place of the bitmap, place of the pages.
fn mapped(len: u64, bitmap: impl Fn(u64) -> u64, pages: impl Fn(u64) -> u64) -> Vec<u8> {
    let stream = Stream { capabilities: vec!["mapped-ram"], ..stream(PAGE, Vec::new()) };
    let mut bytes = stream.write_mapped(&[("pc.ram", 0, pattern(1, 0x1000))]);
    let header = bytes.windows(7).position(|window| window == b"\x06pc.ram").unwrap() + 7;
    // The length of the block and the sum of all.
    put(&mut bytes, header, &len.to_be_bytes());
    put(&mut bytes, header - 7 - 8, &(len | 4).to_be_bytes());
    let behind = (header + 8 + 28) as u64;
    put(&mut bytes, header + 20, &bitmap(behind).to_be_bytes());
    put(&mut bytes, header + 28, &pages(behind).to_be_bytes());
    padded(bytes)
}

#[test]
fn migration_streams() {
    let large = PAGES * PAGE;
    let most = (LEN as u64 - 0x400) / 9;
    let every_other = (0..most).map(|page| fill(2 * page)).collect();
    let again = (0..most).map(|_| fill(1)).collect();
    let backwards = (0..most).map(|page| fill(most - page)).collect();
    // Each cuts the one that came before in two.
    let halves = (0..most).map(|index| fill(index.reverse_bits() >> 44)).collect();
    let cases = [
        (
            "a page of 64 GiB",
            stream(large, vec![Record::Page("pc.ram", PAGE, pattern(1, 0x1000))]).write(),
            Holds(PAGE),
        ),
        (
            "a page of 2^63 bytes",
            stream(1 << 63, vec![Record::Page("pc.ram", PAGE, pattern(1, 0x1000))]).write(),
            Holds(PAGE),
        ),
        ("a block of 2^64 - 1 bytes", stream(u64::MAX, vec![fill(1)]).write(), Refused("")),
        ("a page behind its block", stream(PAGE, vec![fill(1)]).write(), Refused("a page of the 0x1000 bytes")),
        ("every other page", stream(large, every_other).write(), Holds(most * PAGE)),
        ("the same page again and again", stream(large, again).write(), Holds(PAGE)),
        ("pages from the last to the first", stream(large, backwards).write(), Holds(most * PAGE)),
        ("pages here and there", stream(large, halves).write(), Holds(most * PAGE)),
        ("mapped, 64 GiB", mapped(large, |at| at, |at| at + 0x1000), Refused("a header, its bitmap, its pages")),
        ("mapped, 64 GiB and a bitmap", mapped(large, |at| at, |at| at + large / PAGE / 8), Refused("")),
        ("mapped, 2^63 bytes", mapped(1 << 63, |at| at, |_| 1 << 62), Refused("")),
        (
            "mapped, a bitmap shorter than its pages",
            mapped(64 * PAGE, |at| at, |at| at + 7),
            Refused("a header, its bitmap"),
        ),
        (
            "mapped, a bitmap before its header",
            mapped(PAGE, |at| at - 1, |at| at + 0x1000),
            Refused("a header, its bitmap"),
        ),
        ("mapped, pages before the bitmap", mapped(PAGE, |at| at + 8, |at| at), Refused("a header, its bitmap")),
        ("mapped, pages at the end of all", mapped(PAGE, |at| at, |_| u64::MAX), Refused("")),
    ];
    for (name, bytes, end) in cases {
        check(name, &bytes, &end);
    }
}

#[test]
fn blocks_and_devices_of_migration_streams() {
    // More blocks than there may be, each with a name of its own.
    let mut blocks = Vec::new();
    for index in 0..50_000u32 {
        blocks.push(5);
        blocks.extend(format!("{index:05}").bytes());
        blocks.extend(PAGE.to_be_bytes());
    }
    let list = [((50_000 * PAGE) | 4).to_be_bytes().to_vec(), blocks].concat();
    let many = [b"QEVM\0\0\0\x03".to_vec(), section(1, 2, "ram", 0, 4, &list, true)].concat();
    check("fifty thousand blocks", &padded(many), &Refused("4096 blocks at most"));

    let described = |json: &str| {
        let devices = [&[0, 6][..], &(json.len() as u32).to_be_bytes(), json.as_bytes()].concat();
        Stream { devices, ..stream(4 * PAGE, vec![fill(1)]) }.write()
    };
    let room = LEN - 0x1000;
    let fields = format!(r#"{{"devices":[{{"name":"cpu","fields":[{}{{}}]}}]}}"#, "{},".repeat(room / 3 - 40));
    let devices = format!(r#"{{"devices":[{}{{"name":""}}]}}"#, r#"{"name":""},"#.repeat(room / 12));
    let long = format!(r#"{{"devices":[{{"name":"cpu","fields":[{{"size":{0},"array_len":{0}}}]}}]}}"#, u64::MAX);
    let deep = format!(r#"{{"devices":{}"#, "[".repeat(room));
    for (name, json) in [("fields", fields), ("devices", devices), ("a field of 2^128 bytes", long), ("depth", deep)] {
        check(name, &described(&json), &Holds(PAGE));
    }
    // What looks like the beginning of a description, again and again, each up to the end.
    let mut bytes = described("");
    let len = bytes.len();
    let begins = (LEN - len) / 6;
    for index in 0..begins {
        let rest = (begins - index) * 6 - 5;
        bytes.extend([&[6][..], &(rest as u32).to_be_bytes(), b"{"].concat());
    }
    bytes.push(b'}');
    check("descriptions in descriptions", &bytes, &Holds(PAGE));
}

#[test]
fn libvirt_files() {
    let small = stream(2 * PAGE, vec![fill(1)]).write();
    let header = libvirt(b"LibvirtQemudSave", 2, 0, b"<domain/>");
    let of = |at: usize, value: u32| {
        let mut bytes = [header.clone(), small.clone()].concat();
        put(&mut bytes, at, &value.to_le_bytes());
        padded(bytes)
    };
    let cases = [
        ("libvirt, as it is", of(16, 2), Holds(PAGE)),
        ("libvirt, XML of 4 GiB", of(20, u32::MAX), Refused("the domain's XML, and a stream")),
        ("libvirt, XML that ends inside the stream", of(20, 20), Refused("")),
        ("libvirt, no XML", of(20, 0), Refused("")),
        ("libvirt in libvirt", padded(header.repeat(1000)), Refused("a libvirt save file in format")),
        ("libvirt, a cookie far away", of(32, u32::MAX), Holds(PAGE)),
    ];
    for (name, bytes, end) in cases {
        check(name, &bytes, &end);
    }
}

/// A core of Xen with these frame numbers for its pages, of which it says that there are so many.
fn xen(frames: &[u64], claimed: u64) -> Vec<u8> {
    let pages = frames.iter().map(|frame| (*frame, 0, pattern(*frame as u8, 0x1000))).collect();
    Core { pages, claimed: Some(claimed), ..Core::default() }.write()
}

#[test]
fn cores_of_xen() {
    let every_other: Vec<u64> = (0..200).map(|frame| 2 * frame).collect();
    let cases = [
        ("Xen, 16 million pages", xen(&[1, 2], PAGES), Refused("")),
        ("Xen, 2^63 pages", xen(&[1, 2], 1 << 63), Refused("")),
        ("Xen, a page far away", xen(&[1, 1 << 51], 2), Holds(2 * PAGE)),
        ("Xen, a page that is nowhere", xen(&[1, 1 << 52], 2), Holds(PAGE)),
        ("Xen, unsorted pages", xen(&[9, 3, 7, 1], 4), Holds(4 * PAGE)),
        ("Xen, the same page twice", xen(&[1, 1], 2), Refused("")),
        ("Xen, every other page", xen(&every_other, 200), Holds(200 * PAGE)),
    ];
    for (name, bytes, end) in cases {
        check(name, &bytes, &end);
    }
}

#[test]
fn notes_without_number() {
    let memory = Segment::new(0, pattern(0, 64));
    let core = |notes: &[u8]| elf(true, 62, notes, std::slice::from_ref(&memory));
    let words: Vec<u8> = (0..80u64).flat_map(u64::to_le_bytes).collect();
    let mut descriptor = 0xc01a_c0deu32.to_le_bytes().to_vec();
    descriptor.extend(0x1_0006u32.to_le_bytes());
    descriptor.extend([0; 16]);
    let room = LEN - 0x1000;
    let fitting = |note: Vec<u8>| note.repeat(room / note.len());
    let text = |line: &str| note("MEMFLOW", 1, line.repeat(room / line.len()).as_bytes());
    let cases = [
        ("vCPUs of VirtualBox", [note("VBCORE", 0xb00, &descriptor), fitting(note("VBCPU", 0xb01, &words))].concat()),
        ("CPUs of Xen", fitting(note("Xen", 0x100_0002, &words[..32]))),
        ("vCPUs of our own", text("vcpu=x86\n")),
        ("vCPUs of our own for Arm", text("vcpu=aarch64\n")),
        ("lines that say nothing", text("\n=\n")),
        ("one long line", text("x")),
        ("notes of our own", fitting(note("MEMFLOW", 1, b"vcpu=x86\n"))),
    ];
    for (name, notes) in cases {
        check(name, &core(&notes), &Holds(64));
    }
}

/// Opens `memory` of this length with a state beside it.
fn beside(name: &str, memory: &str, len: u64, state: (&str, &[u8]), end: &End) {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join(memory)).unwrap().set_len(len).unwrap();
    std::fs::write(dir.path().join(state.0), state.1).unwrap();
    let opened = bounded(|| name.to_owned(), || open(&dir.path().join(memory), &OpenOptions::default()));
    match (opened, end) {
        (Ok(snapshot), Holds(expected)) => {
            assert_eq!(snapshot.memory.metadata().runs.total_bytes(), *expected, "{name}");
        }
        (Err(error), Refused(words)) => assert!(error.to_string().contains(words), "{name}: {error}"),
        (Ok(_), Refused(_)) => panic!("{name}: opened"),
        (Err(error), Holds(_)) => panic!("{name}: {error}"),
    }
}

#[test]
fn states_of_cloud_hypervisor() {
    let len = 16 * PAGE;
    // As many as the state may have, of a byte each; those that add up are as many as the memory has bytes.
    let bytes: Vec<(u64, u64)> = (0..30_000).map(|index| (index * 2, 1)).collect();
    let cases = [
        ("unsorted", json_ranges(&[(4 * GIB, PAGE), (0, 15 * PAGE)]), len, Holds(len)),
        ("overlapping", json_ranges(&[(0, 15 * PAGE), (PAGE, PAGE)]), len, Refused("each physical address once")),
        ("64 GiB", json_ranges(&[(0, PAGES * PAGE)]), len, Refused("are both of one snapshot")),
        ("2^63", json_ranges(&[(0, 1 << 63), (1 << 63, 1 << 63)]), len, Refused("below 2^64")),
        ("at the end of all", json_ranges(&[(u64::MAX, len)]), len, Refused("below 2^64")),
        ("bytes", json_ranges(&bytes), 30_000, Holds(30_000)),
        ("shorter than the memory", json_ranges(&[(0, PAGE)]), len, Refused("are both of one snapshot")),
        ("a number that is none", r#"[{"gpa":0,"length":1e400}]"#.to_owned(), len, Holds(len)),
        ("depth", "[".repeat(LEN / 2), len, Holds(len)),
        ("objects", format!("[{}{{}}]", "{},".repeat(LEN / 3)), len, Holds(len)),
    ];
    for (name, ranges, len, end) in cases {
        beside(name, "memory-ranges", len, ("state.json", state_json(&ranges).as_bytes()), &end);
    }
    // Text in text in text.
    let mut text = r#"{"memory_ranges":{"data":[]}}"#.to_owned();
    while text.len() < LEN / 8 {
        text = format!(
            r#"{{"state":"{}","more":"{}"}}"#,
            text.replace('\\', r"\\").replace('"', "\\\""),
            "x".repeat(0x1000)
        );
    }
    beside("texts in texts", "memory-ranges", len, ("state.json", text.as_bytes()), &Holds(len));
}

/// A list of regions: first page in the guest, first page in the memory, pages.
fn vmware(regions: &[[u32; 3]]) -> Vec<u8> {
    let mut tags = number("regionsCount", &[], regions.len() as u32);
    for (index, region) in regions.iter().enumerate() {
        for (name, value) in ["regionPPN", "regionPageNum", "regionSize"].into_iter().zip(region) {
            tags.extend(number(name, &[index as u32], *value));
        }
    }
    state(0xbed2_bed2, &[("memory", tags)])
}

#[test]
fn states_of_vmware() {
    let len = 4 * PAGE;
    let again = vec![[1, 1, 1]; 16_000];
    let cases = [
        ("unsorted", vmware(&[[0x10_0000, 2, 2], [1, 1, 1]]), Holds(3 * PAGE)),
        ("overlapping in the guest", vmware(&[[1, 0, 2], [2, 2, 2]]), Refused("regions of memory that fit each other")),
        ("overlapping in the memory", vmware(&[[1, 0, 2], [8, 1, 2]]), Holds(4 * PAGE)),
        ("the same again and again", vmware(&again), Refused("regions of memory that fit each other")),
        ("16 million pages", vmware(&[[0, 0, 16 << 20]]), Refused("truncated")),
        ("all pages that 32 bits count", vmware(&[[u32::MAX, u32::MAX, u32::MAX]]), Refused("")),
        ("no pages", vmware(&[[1, 1, 0]]), Refused("memory in its regions")),
    ];
    for (name, state, end) in cases {
        beside(name, "guest.vmem", len, ("guest.vmss", &state), &end);
    }
}

#[test]
fn states_of_firecracker() {
    let x86 = |regions: &[(u64, u64)]| padded(vmstate(FIRECRACKER_X86, regions));
    let far = 6 * GIB;
    let cases = [
        ("no regions", x86(&[]), far),
        ("regions of 2^63 bytes", x86(&[(0, 1 << 63), (1 << 63, 1 << 63)]), far),
        ("the same regions again and again", x86(&vec![(4 * GIB, 3 * GIB); 40_000]), far),
        ("nothing but the magic", padded(FIRECRACKER_X86.to_le_bytes().to_vec()), PAGE),
        ("half of the magic", FIRECRACKER_X86.to_le_bytes()[..4].to_vec(), PAGE),
    ];
    for (name, state, len) in cases {
        beside(name, "memory", len, ("state", &state), &Holds(len));
    }
    // 64 GiB of memory that are a hole, and of 2^62 bytes none that a file can have.
    beside("64 GiB", "memory", PAGES * PAGE, ("state", &x86(&[])), &Holds(PAGES * PAGE));
}

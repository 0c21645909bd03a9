//! Files of a dumper: LiME, AVML, ELF, kdump, crash dumps, VMware.
//!
//! Owns: one file for each lie, by hand. Must not know: how a format is read.

use std::io::Write;

use memflow_core::{PhysAddr, memory::PhysicalMemoryExt};
use memflow_snapshot::{BytesInput, OpenOptions, open_bytes, vmware};

use super::check::{
    End::{Holds, Refused},
    LEN, PAGES, check, padded, reads_are_in_proportion,
};
use crate::{
    common::{
        Segment, avml as write_avml, avml_header,
        crash_dump::{PAGE, bitmap, header32, header64, old_bitmap, put, ranges as list_of_ranges},
        elf as write_elf,
        flattened::{END, header as flat_header, piece},
        kdump::{Kdump, Method},
        lime as write_lime, lime_header, pattern, prstatus64, smbios, snappy,
        vmware::{Value, number, state, tag},
    },
    measure::bounded,
    subjects::avml_range,
};

const X64: u32 = 0x8664;

/// Nothing in a raw image claims anything but the tables that firmware left in it.
#[test]
fn raw_images() {
    let tables = |ranges: &[(u64, u64)]| {
        let mut image = pattern(1, LEN);
        let tables = smbios(ranges);
        put(&mut image, 0xf_0000, &tables);
        image
    };
    let all = LEN as u64;
    let many: Vec<(u64, u64)> = (0..1800).map(|index| (index << 20, 1 << 10)).collect();
    let cases = [
        ("the firmware lists 64 GiB", tables(&[(0, PAGES * PAGE as u64)])),
        ("the firmware lists 2^63 bytes", tables(&[(0, 1 << 63), (1 << 63, 1 << 62)])),
        ("the firmware lists ranges that overlap", tables(&[(0, all / 2), (0x1000, all / 2)])),
        ("the firmware lists thousands of ranges", tables(&many)),
    ];
    for (name, bytes) in cases {
        check(name, &bytes, &Holds(all));
    }
    // In any order, they are the layout.
    let split = tables(&[(1 << 32, all / 2), (0, all / 2)]);
    check("the firmware lists unsorted ranges", &split, &Holds(all));
}

#[test]
fn lime_and_avml() {
    let far = PAGES * PAGE as u64 - 1;
    let many = |header: fn(u64, u64) -> Vec<u8>, body: &[u8]| -> Vec<u8> {
        let one = |index: u64| [header(index * 2, index * 2), body.to_vec()].concat();
        let count = LEN / one(0).len();
        (0..count as u64).flat_map(one).collect()
    };
    let cases = [
        ("LiME, a range of 64 GiB", padded(lime_header(0, far)), Refused("truncated")),
        ("LiME, a range of 2^64 - 1 bytes", padded(lime_header(1, u64::MAX)), Refused("")),
        ("LiME, a last address before the first", padded(lime_header(0x2000, 0x1000)), Refused("")),
        ("LiME, ranges of a byte", many(lime_header, &[1]), Holds(LEN as u64 / 33)),
        (
            "LiME, ranges that overlap",
            write_lime(&[(0x1000, pattern(1, 0x1000)), (0x1800, pattern(2, 0x1000))]),
            Refused("each physical address once"),
        ),
        ("AVML, a stream of 64 GiB", avml_range(0, far, &snappy(&vec![0; 0x1_0000])), Refused("")),
        (
            "AVML, chunks that unpack to more than they may",
            avml_range(0, 0xf_ffff, &[&snappy(b"")[..], &[0, 8, 0, 0, 1, 2, 3, 4, 0xff, 0xff, 0xff, 0x7f]].concat()),
            Refused(""),
        ),
        (
            "AVML, a stream with a length of 2^63",
            [avml_header(0, 0xfff), vec![0; 64], (1u64 << 63).to_le_bytes().to_vec()].concat(),
            Refused("the length of the stream before it"),
        ),
        (
            "AVML, ranges that overlap",
            write_avml(&[(0x1000, pattern(1, 0x1000)), (0x1800, pattern(2, 0x1000))]),
            Refused("each physical address once"),
        ),
    ];
    for (name, bytes, end) in cases {
        check(name, &bytes, &end);
    }
}

#[test]
fn ranges_that_are_not_in_order_are_put_in_order() {
    let ranges = [(0x8000, pattern(3, 0x1000)), (0x1000, pattern(1, 0x2000)), (0x4000, pattern(2, 0x1000))];
    let segments: Vec<Segment> = ranges.iter().map(|(at, bytes)| Segment::new(*at, bytes.clone())).collect();
    let content: Vec<u8> = ranges.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let pages = [(8, 1), (1, 2), (4, 1)];
    for (name, bytes) in [
        ("LiME", write_lime(&ranges)),
        ("AVML", write_avml(&ranges)),
        ("ELF", write_elf(true, 62, &prstatus64(1, 2), &segments)),
        ("type 1", [header64(X64, 1, &pages), content.clone()].concat()),
        ("type 1, 32-bit", [header32(1, 1, &[(8, 1), (1, 2), (4, 1)]), content.clone()].concat()),
        ("type 8", [header64(X64, 8, &pages), list_of_ranges(&pages, None), content.clone()].concat()),
    ] {
        let snapshot = bounded(|| name.to_owned(), || open_bytes("unsorted", &bytes, &OpenOptions::default()).unwrap());
        for (at, expected) in &ranges {
            let mut found = vec![0; expected.len()];
            snapshot.memory.read_into(PhysAddr::new(*at), &mut found).unwrap();
            assert!(found == *expected, "{name}: {at:#x}");
        }
        assert_eq!(snapshot.memory.metadata().runs.total_bytes(), 0x4000, "{name}");
    }
}

/// An ELF core whose program headers are made by `header(index)`: kind, offset, physical address, bytes in file and memory.
fn elf_of(count: usize, header: impl Fn(u64) -> (u32, [u64; 5])) -> Vec<u8> {
    let mut bytes = write_elf(true, 62, &[], &[]);
    bytes.truncate(64);
    for index in 0..count as u64 {
        let (kind, [offset, paddr, filesz, memsz, align]) = header(index);
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 4]);
        for value in [offset, 0, paddr, filesz, memsz, align] {
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes[56..58].copy_from_slice(&u16::try_from(count).unwrap().to_le_bytes());
    bytes
}

#[test]
fn elf_cores() {
    let count = (LEN - 64) / 56;
    let end = LEN as u64;
    let notes: Vec<u8> = prstatus64(1, 2).repeat(1000);
    let notes_at = (64 + 56 * 1000) as u64;
    let repeated = elf_of(1000, |index| match index {
        0 => (1, [0, 0, 0x1000, 0x1000, 0]),
        _ => (4, [notes_at, 0, notes.len() as u64, notes.len() as u64, 0]),
    });
    let cases = [
        (
            "ELF, 64 GiB of which a page is there",
            padded(elf_of(1, |_| (1, [0, 0, 0x1000, PAGES * PAGE as u64, 0]))),
            Holds(0x1000),
        ),
        ("ELF, 64 GiB", padded(elf_of(1, |_| (1, [0, 0, PAGES << 12, PAGES << 12, 0]))), Refused("truncated")),
        ("ELF, a segment of 2^63 bytes", padded(elf_of(1, |_| (1, [0, 0, 1 << 63, 1 << 63, 0]))), Refused("truncated")),
        (
            "ELF, segments of a byte",
            padded(elf_of(count, |index| (1, [index, index * 2, 1, 1, 0]))),
            Holds(count as u64),
        ),
        (
            "ELF, segments that each name most of the file again",
            padded(elf_of(count, |index| (1, [index, 0x1000 + index, end - 0x1_0000, end - 0x1_0000, 0]))),
            Refused(""),
        ),
        (
            "ELF, zeros that are there again and again",
            padded(elf_of(1000, |index| (1, [0x1_0000 + index, 0, 0x8_0000, 0x8_0000, 0]))),
            Refused("bytes of physical memory stored twice"),
        ),
        (
            "ELF, the same notes again and again",
            padded([repeated, notes].concat()),
            Refused("bytes of notes in all segments"),
        ),
        (
            "ELF, four thousand million segments",
            padded(extended(elf_of(1, |_| (1, [0; 5])))),
            Refused("program headers"),
        ),
    ];
    for (name, bytes, end) in cases {
        check(name, &bytes, &end);
    }
}

/// The number of program headers in section header 0, which lies where the first program header was.
fn extended(mut bytes: Vec<u8>) -> Vec<u8> {
    put(&mut bytes, 40, &64u64.to_le_bytes());
    put(&mut bytes, 56, &0xffffu16.to_le_bytes());
    put(&mut bytes, 58, &64u16.to_le_bytes());
    bytes.resize(128, 0);
    put(&mut bytes, 64 + 44, &u32::MAX.to_le_bytes());
    bytes
}

/// A kdump whose bitmaps are filled with two bytes, for as many pages as the file has room for.
fn kdump_of(bits: [u8; 2], pages: u64, max_mapnr: u64) -> Vec<u8> {
    let bytes = Kdump { max_mapnr: pages, vmcoreinfo: Vec::new(), ..Kdump::default() }.write();
    let mut bytes = padded(bytes);
    let half = (pages as usize).div_ceil(8).next_multiple_of(PAGE);
    bytes[2 * PAGE..2 * PAGE + half].fill(bits[0]);
    bytes[2 * PAGE + half..2 * PAGE + 2 * half].fill(bits[1]);
    // `max_mapnr_64`, the last field of the sub-header.
    put(&mut bytes, PAGE + 96, &max_mapnr.to_le_bytes());
    bytes
}

#[test]
fn kdumps() {
    let most = 8 * 125 * PAGE as u64;
    let cases = [
        ("kdump, bitmaps of 16 million pages", kdump_of([0, 0], most, PAGES), Refused("bitmaps for 0x1000000 pages")),
        ("kdump, bitmaps of 2^63 pages", kdump_of([0, 0], most, 1 << 63), Refused("bitmaps for")),
        ("kdump, all pages that the bitmaps have", kdump_of([0xff, 0xff], most, most), Refused("descriptors of")),
        ("kdump, every other page", kdump_of([0x55, 0x55], most, most), Refused("descriptors of")),
        ("kdump, every other page left out", kdump_of([0x55, 0], most, most), Holds(0)),
        ("kdump, bitmaps longer than the pages", kdump_of([0xff, 0], most, 64), Holds(0)),
    ];
    for (name, bytes, end) in cases {
        check(name, &bytes, &end);
    }
}

/// A kdump of one page whose bytes in the file are these.
fn kdump_page(method: Method, packed: &[u8]) -> Vec<u8> {
    let page = pattern(1, PAGE);
    let mut bytes = Kdump { method, pages: vec![(1, Some(page))], vmcoreinfo: Vec::new(), ..Kdump::default() }.write();
    bytes.truncate(4 * PAGE + 24);
    let at = bytes.len() as u64;
    put(&mut bytes, 4 * PAGE, &at.to_le_bytes());
    put(&mut bytes, 4 * PAGE + 8, &(packed.len() as u32).to_le_bytes());
    let flag = match method {
        Method::Stored => 0u32,
        Method::Zlib => 1,
        Method::Lzo => 2,
        Method::Snappy => 4,
        Method::Zstd => 0x20,
    };
    put(&mut bytes, 4 * PAGE + 12, &flag.to_le_bytes());
    bytes.extend(packed);
    bytes
}

#[test]
fn pages_that_unpack_without_end_or_not_at_all_are_damaged() {
    let zeros = vec![0u8; 4 << 20];
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&zeros).unwrap();
    let zlib = zlib.finish().unwrap();
    let lzo = lzokay::compress::compress(&zeros[..0x10_0000]).unwrap();
    let snappy = snap::raw::Encoder::new().compress_vec(&zeros[..0x1_8000]).unwrap();
    let zstd = zstd::bulk::compress(&zeros, 19).unwrap();
    for (method, packed) in [(Method::Zlib, zlib), (Method::Lzo, lzo), (Method::Snappy, snappy), (Method::Zstd, zstd)] {
        assert!(packed.len() <= 2 * PAGE, "{method:?}: {} bytes", packed.len());
        let cut = packed[..packed.len() / 2].to_vec();
        let noise = crate::common::noise(5, 2 * PAGE);
        let claims = [&0xffff_ffffu32.to_le_bytes()[..], &[0xff; 32]].concat();
        for (what, packed) in
            [("too much", packed), ("cut", cut), ("noise", noise), ("claims", claims), ("none", vec![])]
        {
            let name = format!("{method:?}, {what}");
            let bytes = kdump_page(method, &packed);
            let snapshot = bounded(|| name.clone(), || open_bytes("kdump", &bytes, &OpenOptions::default()).unwrap());
            let mut page = vec![0; PAGE];
            let read = bounded(|| name.clone(), || snapshot.memory.read_into(PhysAddr::new(0x1000), &mut page));
            let error = read.unwrap_err().to_string();
            assert!(error.contains("damaged"), "{name}: {error}");
        }
    }
    let size = kdump_page(Method::Stored, &pattern(1, PAGE));
    let sound = open_bytes("kdump", &size, &OpenOptions::default()).unwrap();
    let mut page = vec![0; PAGE];
    sound.memory.read_into(PhysAddr::new(0x1000), &mut page).unwrap();
    assert_eq!(page, pattern(1, PAGE));
}

/// A crash dump with a bitmap of `count` bits, filled with a byte, which says of itself what `fields` are.
fn bitmap_of(bits: u8, count: u64, fields: &[(usize, u64)]) -> Vec<u8> {
    let mut body = bitmap(b"FDMP", 0x2000, &[0], count);
    let end = 0x38 + count as usize / 8;
    body[0x38..end].fill(bits);
    fields.iter().for_each(|(at, value)| put(&mut body, *at, &value.to_le_bytes()));
    padded([header64(X64, 5, &[(1, 1)]), body].concat())
}

#[test]
fn crash_dumps() {
    const FIRST: usize = 0x20;
    const COUNT: usize = 0x28;
    const BITS: usize = 0x30;
    let most = 8 * 0xf_0000;
    let large: Vec<(u64, u64)> = (0..60_000).map(|index| (1 + index * (PAGES + 1), PAGES)).collect();
    let same: Vec<(u64, u64)> = vec![(7, 1); 60_000];
    let narrow = [header32(2, 0, &[]), old_bitmap(0x1000, false, &[1, 4], 64)].concat();
    let old = |at: usize, value: u32| {
        let mut bytes = narrow.clone();
        put(&mut bytes, 0x1000 + at, &value.to_le_bytes());
        padded(bytes)
    };
    // The number of all pages wraps, as nobody adds it up for a header that lies.
    let runs = |runs: &[(u64, u64); 2]| {
        let mut header = header64(X64, 1, &[(1, 1); 2]);
        for (index, (first, count)) in runs.iter().enumerate() {
            put(&mut header, 0x98 + index * 16, &first.to_le_bytes());
            put(&mut header, 0xa0 + index * 16, &count.to_le_bytes());
        }
        padded(header)
    };
    let list = |list: &[(u64, u64)]| padded([header64(X64, 8, &[]), list_of_ranges(list, None)].concat());
    let cases = [
        ("bitmap of 16 million pages", bitmap_of(0xff, most, &[(BITS, PAGES)]), Refused("a bitmap that ends before")),
        ("bitmap of 2^63 pages", bitmap_of(0xff, most, &[(BITS, 1 << 63)]), Refused("a bitmap that ends before")),
        ("bitmap that says 2^63 are set", bitmap_of(0xff, most, &[(COUNT, 1 << 63)]), Refused("a bitmap that ends")),
        ("first page far away", bitmap_of(0xff, most, &[(FIRST, 1 << 63)]), Refused("a bitmap that ends before")),
        ("first page inside the bitmap", bitmap_of(0xff, most, &[(FIRST, 0x3000)]), Refused("a bitmap that ends")),
        ("bitmap with all pages", bitmap_of(0xff, most, &[(COUNT, most)]), Refused("room for")),
        ("bitmap with every other page", bitmap_of(0x55, most, &[(COUNT, most / 2)]), Refused("room for")),
        ("bitmap with no page", bitmap_of(0, most, &[(COUNT, 0)]), Refused("pages of memory")),
        ("old bitmap of 2^32 pages", old(0x10, u32::MAX), Refused("a bitmap that ends before")),
        ("old first page far away", old(0xc, u32::MAX), Refused("a bitmap that ends before")),
        ("runs of 16 million pages", runs(&[(1, PAGES), (PAGES + 1, PAGES)]), Refused("truncated")),
        ("runs of 2^63 pages", runs(&[(1, 1 << 63), (2, 1 << 63)]), Refused("runs inside 2^64 bytes")),
        ("runs of 2^51 pages", runs(&[(1, 1 << 51), (1 << 51, 1 << 51)]), Refused("")),
        ("runs that overlap", runs(&[(1, 2), (2, 2)]), Refused("each page once")),
        ("ranges of 16 million pages", list(&large), Refused("truncated")),
        ("the same range again and again", list(&same), Refused("truncated")),
    ];
    for (name, bytes, end) in cases {
        check(name, &bytes, &end);
    }
}

#[test]
fn flattened_dumps() {
    let of = |piece: &dyn Fn(u64) -> Vec<u8>| {
        let count = (LEN - 4096 - 16) / piece(0).len();
        let pieces: Vec<u8> = (0..count as u64).flat_map(piece).collect();
        [flat_header(), pieces, END.to_vec()].concat()
    };
    let head = b"KDUMP   ";
    let cases = [
        ("pieces of a byte", of(&|index| piece(index * 2, &head[..1])), Refused("")),
        ("the same piece again and again", of(&|_| piece(0, head)), Refused("inside a flattened dump")),
        ("pieces that each cut the one before", of(&|index| piece(1_000_000 - index, &[0x7f; 32])), Refused("")),
        ("pieces far apart", of(&|index| piece(index << 47, head)), Refused("inside a flattened dump")),
        (
            "a piece of 2^62 bytes",
            padded([flat_header(), piece(0, head), [1u64.to_be_bytes(), (1u64 << 62).to_be_bytes()].concat()].concat()),
            Refused(""),
        ),
    ];
    for (name, bytes, end) in cases {
        check(name, &bytes, &end);
    }
}

/// A state of VMware whose `groups` all name the same tags.
fn same_groups(groups: u32, tags: &[u8]) -> Vec<u8> {
    let mut bytes = state(0xbed2_bed2, &vec![("cpu", Vec::new()); groups as usize]);
    let at = bytes.len() as u64;
    for group in 0..groups as usize {
        put(&mut bytes, 12 + 80 * group + 64, &at.to_le_bytes());
        put(&mut bytes, 12 + 80 * group + 72, &(tags.len() as u64).to_le_bytes());
    }
    bytes.extend(tags);
    bytes
}

#[test]
fn vmware_states() {
    let parsed = |name: &str, bytes: &[u8]| {
        reads_are_in_proportion(name, bytes);
        bounded(
            || name.to_owned(),
            || vmware::parse(&BytesInput::new("claims".as_ref(), bytes)).map_err(|error| error.to_string()),
        )
    };
    let small = tag(false, "a", &[], &Value::Number(&[1]));
    let error = parsed("the same tags again and again", &same_groups(4000, &small.repeat(140_000))).unwrap_err();
    assert!(error.contains("groups that lie apart in the file"), "{error}");
    let tags = small.repeat((LEN - 92) / small.len());
    parsed("nothing but tags", &state(0xbed2_bed2, &[("cpu", tags)])).unwrap();
    let one = |index: u32| tag(false, "CR64", &[index, 3], &Value::Number(&[1]));
    let vcpus: Vec<u8> = (0..40_000).flat_map(one).collect();
    assert_eq!(parsed("forty thousand vCPUs", &state(0xbed2_bed2, &[("cpu", vcpus)])).unwrap().vcpus.len(), 40_000);
    let error =
        parsed("regions", &state(0xbed2_bed2, &[("memory", number("regionsCount", &[], u32::MAX))])).unwrap_err();
    assert!(error.contains("4294967295 regions of memory"), "{error}");
}

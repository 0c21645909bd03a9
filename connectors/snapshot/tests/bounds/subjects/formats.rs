//! A small, whole file of each format, and where its structures lie.
//!
//! Owns: the table of formats that are made to suffer. Must not know: what is done to them.
//! A format that is read has a line here; the files are written by the builders of `common`, without any code of the crate.

use std::{io::Write, iter::once, ops::Range};

use crate::common::{
    Segment, avml, avml_header,
    crash_dump::{PAGE, bitmap, header32, header64, old_bitmap, ranges},
    elf,
    flattened::flatten,
    gzip_stored,
    kdump::{Kdump, Method},
    lime, noise, note, pattern, prstatus64, qemu_note, snappy,
    vmware::{Value, cpus, regions, state, tag},
    zstd_raw,
};

/// A file, and what in it is not content of memory.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Where its structures lie, in order.
    pub(crate) structures: Vec<Range<usize>>,
}

impl Subject {
    fn new(name: &'static str, bytes: Vec<u8>, structures: impl IntoIterator<Item = Range<usize>>) -> Self {
        let structures: Vec<Range<usize>> = structures.into_iter().collect();
        assert!(
            structures.iter().all(|part| part.start < part.end && part.end <= bytes.len()),
            "{name}: {structures:?}"
        );
        Self { name, bytes, structures }
    }

    /// A file that is structure from end to end.
    fn whole(name: &'static str, bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self::new(name, bytes, once(0..len))
    }

    /// The offsets of all bytes of structures.
    pub(crate) fn places(&self) -> Vec<usize> {
        self.structures.iter().cloned().flatten().collect()
    }
}

/// Raw images, LiME, AVML and ELF.
pub(crate) fn plain() -> Vec<Subject> {
    let ranges: Vec<(u64, Vec<u8>)> = (0..4).map(|index| (index * 0x1000, pattern(index as u8, 40))).collect();
    let image = pattern(1, 4 * PAGE);
    let head = |len: usize| (0..4).map(move |index| index * (len + 40)..index * (len + 40) + len);
    let packed = [(0x1000, pattern(1, 100)), (0x2000, noise(2, 0x1_0100)), (0x8_0000, vec![0; 64])];
    let streams = packed.iter().scan(0, |at, (_, bytes)| {
        let (start, len) = (*at, snappy(bytes).len());
        *at += 32 + len + 8;
        // Header, the first chunks of the stream, and the length behind it.
        Some([start..start + 32 + len.min(24), start + 32 + len..start + 32 + len + 8])
    });
    let streams: Vec<Range<usize>> = streams.flatten().collect();
    vec![
        // Nothing in a raw image is structure; what is put in its place may make it a file of any other format.
        Subject::new("raw", image, once(0..32)),
        Subject::new("LiME", lime(&ranges), head(32)),
        Subject::new("AVML", avml(&packed), streams),
        core("ELF64", true),
        core("ELF32", false),
    ]
}

fn core(name: &'static str, wide: bool) -> Subject {
    let notes = [prstatus64(1, 2), qemu_note(true), note("VMCOREINFO", 0, b"A=1\n")].concat();
    let segments = [
        Segment::new(0, pattern(0, 64)),
        Segment::new(0x1000, pattern(1, 64)),
        Segment::new(0x1020, pattern(1, 64)[32..].to_vec()),
    ];
    let headers = if wide { 64 + 4 * 56 } else { 52 + 4 * 32 };
    let bytes = elf(wide, if wide { 62 } else { 3 }, &notes, &segments);
    Subject::new(name, bytes, once(0..headers + notes.len()))
}

/// kdump in all its ways, flattened files, and what is compressed as a whole.
pub(crate) fn packed() -> Vec<Subject> {
    let kdump = |method, wide, split| Kdump {
        method,
        wide,
        machine: if wide { "x86_64" } else { "i686" },
        split,
        pages: vec![(1, Some(pattern(1, PAGE))), (2, None), (5, Some(vec![7; PAGE]))],
        notes: prstatus64(1, 2),
        ..Kdump::default()
    };
    // Signature, version and sizes; the sub-header with what it leads to; the first bytes of both bitmaps; descriptors and the pages.
    let part = |name, kdump: &Kdump| {
        let bytes = kdump.write();
        let end = bytes.len().min(4 * PAGE + 48 + 64);
        let notes = PAGE..PAGE + 512 + kdump.vmcoreinfo.len() + kdump.notes.len();
        let bitmaps = [2 * PAGE..2 * PAGE + 8, 3 * PAGE..3 * PAGE + 8];
        Subject::new(name, bytes, [0..16, 404..480, notes].into_iter().chain(bitmaps).chain(once(4 * PAGE..end)))
    };
    let stored = kdump(Method::Stored, true, None);
    let image = lime(&[(0x1000, pattern(1, 300)), (0x2000, vec![0; 5000]), (0x8000, pattern(1, 300))]);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Two members and two frames, of which the second is stored as it is.
    let (first, second) = image.split_at(image.len() - 50);
    encoder.write_all(first).unwrap();
    let gzip = [encoder.finish().unwrap(), gzip_stored(second)].concat();
    let zstd = [zstd::encode_all(first, 3).unwrap(), zstd_raw(second)].concat();
    let flat = |name, bytes: &[u8]| {
        let flat = flatten(bytes, bytes.len().div_ceil(4));
        let len = bytes.len().div_ceil(4);
        let last = bytes.len() - 3 * len;
        let heads = [0, last + 16, last + len + 32, last + 2 * len + 48].map(|at| 4096 + at..4096 + at + 16);
        Subject::new(name, flat.clone(), once(0..32).chain(heads).chain(once(flat.len() - 16..flat.len())))
    };
    vec![
        part("kdump, stored", &stored),
        part("kdump, zlib", &kdump(Method::Zlib, true, None)),
        part("kdump, LZO", &kdump(Method::Lzo, true, None)),
        part("kdump, snappy", &kdump(Method::Snappy, true, None)),
        part("kdump, zstd", &kdump(Method::Zstd, true, None)),
        part("kdump, 32-bit", &kdump(Method::Zlib, false, None)),
        part("kdump, a part", &kdump(Method::Zlib, true, Some((0, 3)))),
        flat("flattened kdump", &stored.write()),
        flat("flattened ELF", &core("", true).bytes),
        Subject::whole("gzip", gzip),
        Subject::whole("zstd", zstd),
    ]
}

/// Crash dumps of each type and machine.
pub(crate) fn crash_dumps() -> Vec<Subject> {
    const X64: u32 = 0x8664;
    const ARM64: u32 = 0xaa64;
    let runs = [(1, 1), (4, 1)];
    let narrow = [(1, 1), (4, 1)];
    let content = [pattern(1, PAGE), pattern(4, PAGE)].concat();
    // The fields that say what and where; the context's stack and instruction pointer; type and time.
    let wide_fields = || [0..0xb8, 0x348 + 0x98..0x348 + 0xa0, 0x348 + 0xf8..0x348 + 0x100, 0xf98..0xf9c, 0xfa8..0xfb0];
    let narrow_fields = || [0..0x7c, 0x320 + 0xb8..0x320 + 0xc8, 0xf88..0xf8c, 0xfc0..0xfc8];
    let dump64 = |name, machine, kind, body: Vec<u8>| {
        let head = header64(machine, kind, &runs);
        let body_at = 0x2000..0x2000 + body.len().min(0x60);
        let body_at = Some(body_at).filter(|at| !at.is_empty());
        Subject::new(name, [head, body, content.clone()].concat(), wide_fields().into_iter().chain(body_at))
    };
    let dump32 = |name, kind, body: Vec<u8>| {
        let body_at = Some(0x1000..0x1000 + body.len().min(0x60)).filter(|at| !at.is_empty());
        let bytes = [header32(kind, 1, &narrow), body, content.clone()].concat();
        Subject::new(name, bytes, narrow_fields().into_iter().chain(body_at))
    };
    let bits = |signature| bitmap(signature, 0x2000, &[1, 4], 64);
    vec![
        dump64("crash dump, x64 type 1", X64, 1, Vec::new()),
        dump64("crash dump, ARM64 type 1", ARM64, 1, Vec::new()),
        dump64("crash dump, x64 type 2", X64, 2, old_bitmap(0x2000, true, &[1, 4], 64)),
        dump64("crash dump, x64 type 5", X64, 5, bits(b"FDMP")),
        dump64("crash dump, ARM64 type 5", ARM64, 5, bits(b"FDMP")),
        dump64("crash dump, x64 type 6", X64, 6, bits(b"SDMP")),
        dump64("crash dump, x64 type 7", X64, 7, bits(b"SDMP")),
        dump64("crash dump, x64 type 8", X64, 8, ranges(&runs, None)),
        dump64("crash dump, x64 type 9", X64, 9, ranges(&runs, None)),
        dump64("crash dump, x64 type 10", X64, 10, ranges(&runs, Some(2))),
        dump64("crash dump, ARM64 type 10", ARM64, 10, ranges(&runs, Some(2))),
        dump64("crash dump, x64 type 4", X64, 4, Vec::new()),
        dump32("crash dump, x86 type 1", 1, Vec::new()),
        dump32("crash dump, x86 type 2", 2, old_bitmap(0x1000, false, &[1, 4], 64)),
        dump32("crash dump, x86 type 5", 5, bitmap(b"FDMP", 0x1000, &[1, 4], 64)),
    ]
}

/// States of VMware, with the memory in them.
pub(crate) fn vmware() -> Vec<Subject> {
    let file = |name, magic, narrow| {
        let content = pattern(7, 4 * PAGE);
        let memory = tag(narrow, "Memory", &[0, 0], &Value::Block(&content, 3));
        let bytes = state(magic, &[("cpu", cpus()), ("memory", [regions(), memory].concat())]);
        let end = bytes.len() - content.len();
        Subject::new(name, bytes, once(0..end))
    };
    vec![file("VMware state", 0xbed2_bed2, false), file("VMware state, old", 0xbed0_bed0, true)]
}

/// AVML's header and a length behind its stream that fits, for streams that are no streams.
pub(crate) fn avml_range(first: u64, last: u64, stream: &[u8]) -> Vec<u8> {
    [avml_header(first, last), stream.to_vec(), (stream.len() as u64).to_le_bytes().to_vec()].concat()
}

//! Images whose memory lies in them as it is, and AVML.

use std::{iter::once, ops::Range};

use super::Subject;
use crate::common::{
    Segment, avml, avml_header,
    crash_dump::{PAGE, bitmap, header32, header64, old_bitmap, ranges},
    elf, lime, noise, note, pattern, prstatus64, qemu_note, snappy,
    vmware::{Value, cpus, regions, state, tag},
};

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

pub(super) fn core(name: &'static str, wide: bool) -> Subject {
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

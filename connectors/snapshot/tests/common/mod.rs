//! Writes small images byte by byte, from the formats' documents and without any code of the crate.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod beside;
pub mod crash_dump;
pub mod flattened;
pub mod kdump;
pub mod migration;
pub mod packed;
pub mod vmware;
pub mod xen;

use std::path::{Path, PathBuf};

use memflow_core::{
    PhysAddr,
    memory::{PhysicalMemory, PhysicalMemoryExt},
};
use tempfile::TempDir;

/// A segment of an ELF core.
#[derive(Clone)]
pub struct Segment {
    pub paddr: u64,
    pub vaddr: u64,
    /// Bytes in the file.
    pub bytes: Vec<u8>,
    /// Bytes in memory.
    pub memsz: u64,
}

impl Segment {
    pub fn new(paddr: u64, bytes: Vec<u8>) -> Self {
        Self { paddr, vaddr: 0, memsz: bytes.len() as u64, bytes }
    }
}

/// A note: name, type, descriptor.
pub fn note(name: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((name.len() as u32 + 1).to_le_bytes());
    out.extend((desc.len() as u32).to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(desc);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// The note "QEMU" of one vCPU with recognisable values: rsp 0x5000, rip 0x4000, gs base 0x6000, gdt 0x7000, idt 0x8000, CRn n * 0x11.
pub fn qemu_note(with_kernel_gs: bool) -> Vec<u8> {
    let mut desc = Vec::new();
    desc.extend(1u32.to_le_bytes());
    desc.extend((if with_kernel_gs { 440u32 } else { 432 }).to_le_bytes());
    for register in 0..16u64 {
        // rax, rbx, rcx, rdx, rsi, rdi, rsp
        desc.extend((if register == 6 { 0x5000 } else { register }).to_le_bytes());
    }
    desc.extend(0x4000u64.to_le_bytes());
    desc.extend(2u64.to_le_bytes());
    // cs ds es fs gs ss ldt tr gdt idt
    for base in [0, 0, 0, 0, 0x6000, 0, 0, 0, 0x7000, 0x8000u64] {
        desc.extend([0u8; 16]);
        desc.extend(base.to_le_bytes());
    }
    for cr in 0..5u64 {
        desc.extend((cr * 0x11).to_le_bytes());
    }
    if with_kernel_gs {
        desc.extend(0x9000u64.to_le_bytes());
    }
    note("QEMU", 0, &desc)
}

/// `NT_PRSTATUS` of an x86-64 vCPU.
pub fn prstatus64(rip: u64, rsp: u64) -> Vec<u8> {
    let mut desc = vec![0; 336];
    desc[112 + 16 * 8..][..8].copy_from_slice(&rip.to_le_bytes());
    desc[112 + 19 * 8..][..8].copy_from_slice(&rsp.to_le_bytes());
    note("CORE", 1, &desc)
}

/// `NT_PRSTATUS` of a 32-bit x86 vCPU.
pub fn prstatus32(eip: u32, esp: u32) -> Vec<u8> {
    let mut desc = vec![0; 144];
    desc[72 + 12 * 4..][..4].copy_from_slice(&eip.to_le_bytes());
    desc[72 + 15 * 4..][..4].copy_from_slice(&esp.to_le_bytes());
    note("CORE", 1, &desc)
}

/// An ELF core: header, program headers (notes first), notes, segments.
pub fn elf(wide: bool, machine: u16, notes: &[u8], segments: &[Segment]) -> Vec<u8> {
    let (header, entry) = if wide { (64u64, 56u64) } else { (52, 32) };
    let count = segments.len() as u64 + 1;
    let mut offset = header + entry * count;
    let mut out = b"\x7fELF".to_vec();
    out.extend([if wide { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.extend(4u16.to_le_bytes());
    out.extend(machine.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    let word = |out: &mut Vec<u8>, value: u64| {
        if wide {
            out.extend(value.to_le_bytes());
        } else {
            out.extend(u32::try_from(value).unwrap().to_le_bytes());
        }
    };
    word(&mut out, 0);
    word(&mut out, header);
    word(&mut out, 0);
    out.extend(0u32.to_le_bytes());
    for half in [header as u16, entry as u16, count as u16, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    assert_eq!(out.len() as u64, header);
    let mut program_header = |kind: u32, offset: u64, vaddr: u64, paddr: u64, filesz: u64, memsz: u64| {
        out.extend(kind.to_le_bytes());
        if wide {
            out.extend(0u32.to_le_bytes());
        }
        for value in [offset, vaddr, paddr, filesz, memsz] {
            word(&mut out, value);
        }
        if !wide {
            out.extend(0u32.to_le_bytes());
        }
        word(&mut out, 0);
    };
    program_header(4, offset, 0, 0, notes.len() as u64, notes.len() as u64);
    offset += notes.len() as u64;
    for segment in segments {
        program_header(1, offset, segment.vaddr, segment.paddr, segment.bytes.len() as u64, segment.memsz);
        offset += segment.bytes.len() as u64;
    }
    out.extend(notes);
    for segment in segments {
        out.extend(&segment.bytes);
    }
    out
}

/// A small, whole ELF64 core with two vCPUs, VMCOREINFO, and a hole between its segments.
pub fn sample_elf64() -> Vec<u8> {
    let notes = [
        prstatus64(0x1111, 0x2222),
        prstatus64(0x3333, 0x4444),
        qemu_note(true),
        qemu_note(false),
        note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n"),
    ]
    .concat();
    elf(true, 62, &notes, &[Segment::new(0, pattern(0, 0x2000)), Segment::new(0x10_0000, pattern(7, 0x1000))])
}

/// A small, whole ELF32 core with one vCPU.
pub fn sample_elf32() -> Vec<u8> {
    let notes = [prstatus32(0x1111, 0x2222), qemu_note(true)].concat();
    elf(false, 3, &notes, &[Segment::new(0, pattern(0, 0x1000)), Segment::new(0x8000, pattern(7, 0x1000))])
}

/// LiME, version 1: ranges as first address and bytes.
pub fn lime(ranges: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (start, bytes) in ranges {
        out.extend(lime_header(*start, start + bytes.len() as u64 - 1));
        out.extend(bytes);
    }
    out
}

/// One LiME header; `last` is inclusive.
pub fn lime_header(start: u64, last: u64) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(0x4c69_4d45u32.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend(last.to_le_bytes());
    out.extend([0; 8]);
    out
}

/// AVML: ranges as first address and bytes, each a header, a snappy stream, and the stream's length.
pub fn avml(ranges: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (start, bytes) in ranges {
        out.extend(avml_header(*start, start + bytes.len() as u64 - 1));
        let stream = snappy(bytes);
        out.extend(&stream);
        out.extend((stream.len() as u64).to_le_bytes());
    }
    out
}

/// A snappy stream as the format's own library writes it.
pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.into_inner().unwrap()
}

/// One AVML header; `last` is inclusive.
pub fn avml_header(start: u64, last: u64) -> Vec<u8> {
    let mut out = b"AVML".to_vec();
    out.extend(2u32.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend(last.to_le_bytes());
    out.extend([0; 8]);
    out
}

/// A small, whole AVML image: three ranges of which the second fills several chunks.
pub fn sample_avml() -> Vec<u8> {
    avml(&[(0x1000, pattern(1, 0x2000)), (0x10_0000, noise(2, 0x3_1000)), (0x20_0000, pattern(3, 1))])
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A small, whole LiME image.
pub fn sample_lime() -> Vec<u8> {
    lime(&[(0x1000, pattern(1, 0x2000)), (0x10_0000, pattern(2, 0x1000)), (0x20_0000, pattern(3, 1))])
}

/// Bytes that differ from page to page and inside a page.
pub fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|index| (index as u8).wrapping_mul(31) ^ (index >> 8) as u8 ^ seed.wrapping_mul(101)).collect()
}

/// Puts bytes in a file of a new directory.
pub fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Reads physical memory.
pub fn read(memory: &dyn PhysicalMemory, addr: u64, len: usize) -> memflow_core::Result<Vec<u8>> {
    let mut buf = vec![0; len];
    memory.read_into(PhysAddr::new(addr), &mut buf)?;
    Ok(buf)
}

/// The text of the error that opening gives.
pub fn open_error(path: &Path, options: &memflow_snapshot::OpenOptions<'_>) -> String {
    match memflow_snapshot::open(path, options) {
        Ok(snapshot) => panic!("opened as {}", snapshot.format),
        Err(error) => error.to_string(),
    }
}

/// The text of the error that opening these bytes gives, with the file's name for its path.
pub fn error_of(bytes: &[u8], options: &memflow_snapshot::OpenOptions<'_>) -> String {
    let (dir, path) = file(bytes);
    open_error(&path, options).replace(&format!("{}/", dir.path().display()), "")
}

/// Changes bytes at an offset.
pub fn patched(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// gzip with stored blocks only, as RFC 1952 and 1951 describe it, with a checksum computed bit by bit.
pub fn gzip_stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks: Vec<&[u8]> = if bytes.is_empty() { vec![&[]] } else { bytes.chunks(0xffff).collect() };
    for (index, block) in blocks.iter().enumerate() {
        out.push(u8::from(index + 1 == blocks.len()));
        out.extend((block.len() as u16).to_le_bytes());
        out.extend((!(block.len() as u16)).to_le_bytes());
        out.extend(*block);
    }
    out.extend(crc32(bytes).to_le_bytes());
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// One Zstandard frame of raw blocks, as RFC 8878 describes it: single segment, 4-byte content size, no checksum.
pub fn zstd_raw(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    out.extend((bytes.len() as u32).to_le_bytes());
    let blocks: Vec<&[u8]> = if bytes.is_empty() { vec![&[]] } else { bytes.chunks(0x1_0000).collect() };
    for (index, block) in blocks.iter().enumerate() {
        let header = u32::from(index + 1 == blocks.len()) | (block.len() as u32) << 3;
        out.extend(&header.to_le_bytes()[..3]);
        out.extend(*block);
    }
    out
}

/// A skippable Zstandard frame.
pub fn zstd_skippable(bytes: &[u8]) -> Vec<u8> {
    let mut out = 0x184d_2a53u32.to_le_bytes().to_vec();
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
    out
}

/// SMBIOS 2.8 entry point at 0xf0000 and, at 0xf1000, a table with a "BIOS information" and the given RAM ranges as type 19:
/// first address and length.
pub fn smbios(ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut table = vec![0u8, 4, 0, 0];
    table.extend(b"firmware\0version\0\0");
    for (start, len) in ranges {
        table.extend([19, 31, 0, 19]);
        let last = start + len - 1;
        if last >> 42 == 0 {
            table.extend(((start >> 10) as u32).to_le_bytes());
            table.extend(((last >> 10) as u32).to_le_bytes());
            table.extend([0, 16, 1]);
            table.extend([0; 16]);
        } else {
            table.extend([0xff; 8]);
            table.extend([0, 16, 1]);
            table.extend(start.to_le_bytes());
            table.extend(last.to_le_bytes());
        }
        table.extend([0, 0]);
    }
    table.extend([127, 4, 0, 1, 0, 0]);
    let mut entry = b"_SM_\0\x1f\x02\x08".to_vec();
    entry.resize(0x10, 0);
    entry.extend(b"_DMI_\0");
    entry.extend((table.len() as u16).to_le_bytes());
    entry.extend(0xf_1000u32.to_le_bytes());
    entry.extend([9, 0, 0x28]);
    entry[4] = 0u8.wrapping_sub(entry.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
    entry.resize(0x1000, 0);
    entry.extend(table);
    entry
}

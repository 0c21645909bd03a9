//! Seeds for what a Windows kernel keeps in memory, and for files of symbols.
//!
//! Owns: which seeds there are. Must not know: the parsers.
//! Source: Microsoft, "PE Format"; `wdbgexts.h` of the Windows SDK. Files of symbols are written by the generator of machines.

use memflow_windows_images::{Architecture, Description, OffsetTable};

use crate::Seed;

/// Where the fuzz targets think that an image lies, and the kernels whose blocks for debuggers they parse.
const BASE: u64 = 0x1000_0000;
const WIDE: u64 = 0xffff_f805_1a09_f000;
const NARROW: u64 = 0x8281_0000;

pub(crate) fn seeds() -> Vec<Seed> {
    let plain = block(WIDE);
    vec![
        ("kdbg", "encoded", encoded(&plain, 0x0123_4567_89ab_cd13, 0xfeed_beef_0000, 0xffff_f805_1a4c_0000)),
        ("kdbg", "narrow", block(NARROW)),
        ("kdbg", "plain", plain),
        ("pdb", "members", symbols("_EPROCESS.Peb,_EPROCESS.Token,_MMVAD_FLAGS.Protection@bit", "3f8,358,3")),
        ("pdb", "symbols", symbols("_EPROCESS.Peb,rva:PsActiveProcessHead", "3f8,1040")),
        ("pe", "narrow", image(false)),
        ("pe", "wide", image(true)),
    ]
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}

/// A block for debuggers of the kernel at `base`: two heads of lists, two offsets.
fn block(base: u64) -> Vec<u8> {
    let mut block = vec![0; 0x340];
    put(&mut block, 0x10, b"KDBG\x40\x03\0\0");
    put(&mut block, 0x18, &base.to_le_bytes());
    put(&mut block, 0x48, &(base + 0x2000).to_le_bytes());
    put(&mut block, 0x50, &(base + 0x2010).to_le_bytes());
    put(&mut block, 0x2aa, &0x3f8_u16.to_le_bytes());
    put(&mut block, 0x2ae, &0x28_u16.to_le_bytes());
    block
}

/// The same as a kernel keeps it when nobody debugs it.
fn encoded(block: &[u8], never: u64, always: u64, address: u64) -> Vec<u8> {
    let words = block.as_chunks::<8>().0.iter().map(|word| {
        let word = (u64::from_le_bytes(*word) ^ always).swap_bytes() ^ address;
        word.rotate_right((never & 0x3f) as u32) ^ never
    });
    words.flat_map(u64::to_le_bytes).collect()
}

/// A file of symbols of a build with these columns.
fn symbols(columns: &str, numbers: &str) -> Vec<u8> {
    let table = OffsetTable::embedded().unwrap();
    let windows = Description::new(1, Architecture::X64, table.build("10.0.17763").unwrap().clone()).build().unwrap();
    let text = format!("version,guid,age,{columns}\n10.0.17763.1,{},1,{numbers}\n", "A".repeat(32));
    windows.symbol_file(&OffsetTable::parse(&text).unwrap().rows()[0])
}

/// An image of three pages: headers, two sections, a CodeView record, two exports, a block for debuggers.
fn image(wide: bool) -> Vec<u8> {
    let mut image = vec![0; 0x2400];
    let (magic, optional, directories): (u16, u16, usize) = if wide { (0x20b, 0xf0, 112) } else { (0x10b, 0xe0, 96) };
    let pe = 0x80;
    put(&mut image, 0, b"MZ");
    put32(&mut image, 0x3c, pe as u32);
    put(&mut image, pe, b"PE\0\0");
    put(&mut image, pe + 4, &if wide { 0x8664_u16 } else { 0x14c }.to_le_bytes());
    put(&mut image, pe + 6, &2_u16.to_le_bytes());
    put(&mut image, pe + 20, &optional.to_le_bytes());
    put(&mut image, pe + 24, &magic.to_le_bytes());
    put32(&mut image, pe + 24 + 56, 0x3000);
    put32(&mut image, pe + 24 + directories - 4, 16);
    for (directory, (start, len)) in [(0, (0x1000_u32, 0x200_u32)), (6, (0x1400, 28))] {
        put32(&mut image, pe + 24 + directories + directory * 8, start);
        put32(&mut image, pe + 28 + directories + directory * 8, len);
    }
    for (number, (name, start, flags)) in
        [(".edata", 0x1000_u32, 0x4000_0040_u32), (".data", 0x2000, 0xc000_0040)].iter().enumerate()
    {
        let section = pe + 24 + usize::from(optional) + 40 * number;
        put(&mut image, section, name.as_bytes());
        put32(&mut image, section + 8, 0x1000);
        put32(&mut image, section + 12, *start);
        put32(&mut image, section + 36, *flags);
    }
    // Exports: one of its own, one of another image.
    for (at, value) in [(12, 0x1100_u32), (16, 1), (20, 2), (24, 2), (28, 0x1040), (32, 0x1050), (36, 0x1060)] {
        put32(&mut image, 0x1000 + at, value);
    }
    for (at, value) in [(0x40, 0x2010_u32), (0x44, 0x1140), (0x50, 0x1110), (0x54, 0x1120)] {
        put32(&mut image, 0x1000 + at, value);
    }
    put(&mut image, 0x1062, &1_u16.to_le_bytes());
    for (at, text) in [(0x100, "ntoskrnl.exe"), (0x110, "NtBuildNumber"), (0x120, "RtlFree"), (0x140, "NTDLL.RtlFree")]
    {
        put(&mut image, 0x1000 + at, text.as_bytes());
    }
    for (at, value) in [(12, 2_u32), (16, 0x30), (20, 0x1500)] {
        put32(&mut image, 0x1400 + at, value);
    }
    put(
        &mut image,
        0x1500,
        b"RSDS\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x01\0\0\0ntkrnlmp.pdb\0",
    );
    put(&mut image, 0x2080, &block(BASE)[..0x340]);
    image
}

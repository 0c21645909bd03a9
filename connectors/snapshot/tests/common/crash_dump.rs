//! Writes Windows crash dumps from the public structures, without any code of the crate.

pub const PAGE: usize = 4096;

/// The number of the last fields of a header.
pub fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A header of 0x2000 bytes, filled as Windows fills it: with "PAGE", then field by field.
pub fn header64(machine: u32, kind: u32, runs: &[(u64, u64)]) -> Vec<u8> {
    let mut out: Vec<u8> = b"PAGE".iter().copied().cycle().take(0x2000).collect();
    put(&mut out, 4, b"DU64");
    put(&mut out, 8, &15u32.to_le_bytes());
    put(&mut out, 0xc, &19041u32.to_le_bytes());
    for (at, value) in [
        (0x10, 0x1a_d000u64),
        (0x18, 0xffff_fa80_0000_0000),
        (0x20, 0xffff_f800_1111_1110),
        (0x28, 0xffff_f800_2222_2220),
        (0x80, 0xffff_f800_3333_3330),
        (0xfa8, 0x1d9_0000_0000_0000),
    ] {
        put(&mut out, at, &value.to_le_bytes());
    }
    put(&mut out, 0x30, &machine.to_le_bytes());
    put(&mut out, 0x34, &4u32.to_le_bytes());
    put(&mut out, 0x38, &0xd1u32.to_le_bytes());
    for parameter in 0..4u64 {
        put(&mut out, 0x40 + parameter as usize * 8, &(parameter + 7).to_le_bytes());
    }
    put(&mut out, 0x88, &(runs.len() as u32).to_le_bytes());
    put(&mut out, 0x90, &runs.iter().map(|run| run.1).sum::<u64>().to_le_bytes());
    for (index, (first, count)) in runs.iter().enumerate() {
        put(&mut out, 0x98 + index * 16, &first.to_le_bytes());
        put(&mut out, 0xa0 + index * 16, &count.to_le_bytes());
    }
    put(&mut out, 0x348 + 0x98, &0xffff_f800_4444_4440u64.to_le_bytes());
    put(&mut out, 0x348 + 0xf8, &0xffff_f800_5555_5550u64.to_le_bytes());
    put(&mut out, 0xf98, &kind.to_le_bytes());
    out
}

/// A header of 0x1000 bytes.
pub fn header32(kind: u32, pae: u8, runs: &[(u32, u32)]) -> Vec<u8> {
    let mut out: Vec<u8> = b"PAGE".iter().copied().cycle().take(0x1000).collect();
    put(&mut out, 4, b"DUMP");
    for (at, value) in [
        (8, 15u32),
        (0xc, 2600),
        (0x10, 0x72_8000),
        (0x14, 0x8100_0000),
        (0x18, 0x8055_4940),
        (0x1c, 0x8055_a158),
        (0x20, 0x14c),
        (0x24, 1),
        (0x28, 0xe2),
        (0x60, 0x8054_5be0),
        (0x64, runs.len() as u32),
        (0x68, runs.iter().map(|run| run.1).sum()),
        (0x320 + 0xb8, 0x8052_1111),
        (0x320 + 0xc4, 0x8054_2222),
        (0xf88, kind),
    ] {
        put(&mut out, at, &value.to_le_bytes());
    }
    out[0x5c] = pae;
    for (index, (first, count)) in runs.iter().enumerate() {
        put(&mut out, 0x6c + index * 8, &first.to_le_bytes());
        put(&mut out, 0x70 + index * 8, &count.to_le_bytes());
    }
    out
}

/// The bits of these pages.
fn bits(pages: &[u64], count: u64) -> Vec<u8> {
    let mut bits = vec![0; count.div_ceil(8) as usize];
    for page in pages {
        bits[*page as usize / 8] |= 1 << (page % 8);
    }
    bits
}

/// The bitmap of Windows 8 and later, padded to a page; `at` is where it begins.
pub fn bitmap(signature: &[u8; 4], at: usize, pages: &[u64], count: u64) -> Vec<u8> {
    let bits = bits(pages, count);
    let first_page = (at + 0x38 + bits.len()).next_multiple_of(PAGE);
    let mut out = [&signature[..], b"DUMP", &[0xcc; 0x18]].concat();
    for field in [first_page as u64, pages.len() as u64, count] {
        out.extend(field.to_le_bytes());
    }
    out.extend(bits);
    out.resize(first_page - at, 0);
    out
}

/// The bitmap up to Windows 7.
pub fn old_bitmap(at: usize, wide: bool, pages: &[u64], count: u64) -> Vec<u8> {
    let bits = bits(pages, count);
    let reserved = if wide { 16 } else { 8 };
    let first_page = (at + 0x18 + reserved + bits.len()).next_multiple_of(PAGE);
    let mut out = b"SDMPDUMP".to_vec();
    for field in [0, first_page as u32, count as u32, pages.len() as u32, count as u32] {
        out.extend(field.to_le_bytes());
    }
    out.resize(0x18 + reserved, 0x99);
    out.extend(bits);
    out.resize(first_page - at, 0);
    out
}

/// Ranges of pages, with room for more of them; `total` for complete dumps.
pub fn ranges(ranges: &[(u64, u64)], total: Option<u64>) -> Vec<u8> {
    let room = (0x30 + ranges.len() * 16 + 100).next_multiple_of(PAGE);
    let mut out = 0x40u32.to_le_bytes().to_vec();
    out.extend(b"RDMPDUMP\0\0\0\0");
    out.extend((room as u64 - 0x20).to_le_bytes());
    out.extend((0x2000 + room as u64).to_le_bytes());
    match total {
        Some(total) => {
            out.extend((ranges.len() as u32).to_le_bytes());
            out.extend([0; 4]);
            out.extend(total.to_le_bytes());
        }
        None => out.extend([0; 16]),
    }
    for (first, count) in ranges {
        out.extend(first.to_le_bytes());
        out.extend(count.to_le_bytes());
    }
    out.resize(room, 0);
    out
}

//! Seeds for page tables: a root register, and physical memory with tables.
//!
//! To be small, a page serves as the table of several levels at once: an entry that is a table at one level is a page at
//! another. Source: Intel SDM volume 3A, chapter "Paging".

use super::Seed;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;

pub(crate) fn seeds() -> Vec<Seed> {
    vec![
        ("paging", "four-levels", long_mode(0x7fff_ffff_f123)),
        ("paging", "five-levels", long_mode(0x00ff_ffff_ffff_f123)),
        ("paging", "pae", pae()),
        ("paging", "legacy", legacy()),
        ("paging", "self-map", self_map()),
    ]
}

/// Memory of so many bytes with 64-bit words in it, behind the root register.
fn memory(root: u64, len: usize, words: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (at, word) in words {
        bytes[*at..*at + 8].copy_from_slice(&word.to_le_bytes());
    }
    [root.to_le_bytes().to_vec(), bytes].concat()
}

/// A root in the first page; the second is every other level.
fn long_mode(address: u64) -> Vec<u8> {
    let table = 0x1000 | PRESENT | WRITABLE | USER;
    memory(
        // With a PCID.
        0x5,
        0x2000,
        &[
            (0, table),
            (0x7f8, table),
            (0x800, table & !USER),
            (0xff8, table | NO_EXECUTE),
            // Large pages, one with PAT, one with a reserved bit; at the lowest level the same bit is PAT.
            (0x1000, table),
            (0x1008, 0x4000_0000 | PRESENT | WRITABLE | LARGE | GLOBAL),
            (0x1010, 0x8000_1000 | PRESENT | LARGE | DIRTY),
            (0x1018, 0x0020_2000 | PRESENT | LARGE),
            (0x1020, 0x0012_3000),
            (0x1ff8, table | NO_EXECUTE),
            // The last words are addresses too.
            (0x1fd0, address),
            (0x1fd8, 0x1_0000_0000),
            (0x1fe0, 0xffff_ffff_ffff_f000),
            (0x1fe8, 0x40_2010_0801),
        ],
    )
}

/// Four entries at the end of the first page, then directory and table in one.
fn pae() -> Vec<u8> {
    let table = 0x1000 | PRESENT;
    memory(
        0xfe0,
        0x2000,
        &[
            (0xfe0, table),
            (0xfe8, table),
            // A right, which is reserved here.
            (0xff0, table | WRITABLE),
            (0x1000, table | WRITABLE | USER),
            (0x1008, 0x0060_0000 | PRESENT | LARGE | NO_EXECUTE),
            (0x1010, 0x3000 | PRESENT | DIRTY | (1 << 52)),
            (0x1fe8, 0x4020_1123),
            (0x1ff0, 0xffff_ffff),
        ],
    )
}

/// 32-bit entries, two to a word.
fn legacy() -> Vec<u8> {
    let table = 0x1000 | PRESENT | WRITABLE | USER;
    memory(
        0,
        0x2000,
        &[
            // A table, and a page of 4 MiB above 4 GiB (PSE-36).
            (0, table | (0x0040_0000 | 1 << 13 | PRESENT | LARGE) << 32),
            // A page with the reserved bit, and nothing.
            (0x8, 0x0020_0000 | PRESENT | LARGE),
            (0xff8, table << 32),
            (0x1000, (0x5000 | PRESENT) | (0x6000 | PRESENT | WRITABLE) << 32),
            (0x1ff8, 0xffc0_1ffc << 32 | 0x1008),
        ],
    )
}

/// A page whose entries lead to itself.
fn self_map() -> Vec<u8> {
    let entry = PRESENT | WRITABLE | USER;
    let words: Vec<(usize, u64)> = (0..512).map(|index| (index * 8, entry)).collect();
    memory(0, 0x1000, &words)
}

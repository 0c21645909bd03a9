//! The paging modes of x86. Source: Intel SDM volume 3A, chapter "Paging", tables of each mode's entry formats.

use super::{Architecture, Level};

const PRESENT_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PAGE_SIZE_BIT: u64 = 1 << 7;

const PT: Level = Level {
    shift: 12,
    index_bits: 9,
    table_mask: 0,
    large_bit: Some(0),
    page_mask: PRESENT_ADDRESS,
    page_reserved: 0,
    has_rights: true,
    pse36: false,
};
const PD: Level = Level {
    shift: 21,
    index_bits: 9,
    table_mask: PRESENT_ADDRESS,
    large_bit: Some(PAGE_SIZE_BIT),
    page_mask: 0x000f_ffff_ffe0_0000,
    page_reserved: 0x001f_e000,
    has_rights: true,
    pse36: false,
};
const PDPT: Level = Level {
    shift: 30,
    index_bits: 9,
    table_mask: PRESENT_ADDRESS,
    large_bit: Some(PAGE_SIZE_BIT),
    page_mask: 0x000f_ffff_c000_0000,
    page_reserved: 0x3fff_e000,
    has_rights: true,
    pse36: false,
};
const PML4: Level = Level {
    shift: 39,
    index_bits: 9,
    table_mask: PRESENT_ADDRESS,
    large_bit: None,
    page_mask: 0,
    page_reserved: 0,
    has_rights: true,
    pse36: false,
};
const PML5: Level = Level { shift: 48, ..PML4 };

/// 64-bit with four levels: 48-bit canonical addresses.
pub static X64: Architecture = Architecture {
    name: "x86-64 4-level",
    pointer_size: 8,
    virtual_bits: 48,
    sign_extended: true,
    entry_size: 8,
    root_mask: PRESENT_ADDRESS,
    levels: &[PML4, PDPT, PD, PT],
    no_execute: 1 << 63,
    reserved: 0,
};

/// 64-bit with five levels (LA57): 57-bit canonical addresses.
pub static X64_LA57: Architecture = Architecture {
    name: "x86-64 5-level",
    virtual_bits: 57,
    levels: &[PML5, PML4, PDPT, PD, PT],
    ..Architecture {
        name: "",
        pointer_size: 8,
        virtual_bits: 0,
        sign_extended: true,
        entry_size: 8,
        root_mask: PRESENT_ADDRESS,
        levels: &[],
        no_execute: 1 << 63,
        reserved: 0,
    }
};

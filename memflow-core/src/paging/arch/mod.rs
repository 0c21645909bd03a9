//! Architectures as data: what a walker needs to know of a paging mode.
//!
//! Owns: [`Architecture`] and the tables of each family. Must not know: how a table is read.

pub mod x86;

/// One paging mode.
#[derive(Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Its name in the field ("x86-64 4-level").
    pub name: &'static str,
    /// Size of a pointer in bytes.
    pub pointer_size: u8,
    /// Bits of a virtual address that are translated; bits above must copy the highest of them when `sign_extended`, else be zero.
    pub virtual_bits: u8,
    /// True when the bits above `virtual_bits` copy the highest translated bit (canonical addresses).
    pub sign_extended: bool,
    /// Size of a table entry in bytes: 4 or 8.
    pub entry_size: u8,
    /// The bits of the root register that hold the address of the root table.
    pub root_mask: u64,
    /// The levels, from the root down.
    pub levels: &'static [Level],
    /// Entry bit that says no-execute, zero where there is none.
    pub no_execute: u64,
    /// Entry bits that must be zero in every present entry (physical address bits beyond the architecture's 52).
    pub reserved: u64,
}

/// One level of tables.
#[derive(Debug, PartialEq, Eq)]
pub struct Level {
    /// Lowest bit of the virtual address that indexes this table.
    pub shift: u8,
    /// Number of bits that index it.
    pub index_bits: u8,
    /// The bits of an entry that hold the address of the next table.
    pub table_mask: u64,
    /// For levels whose entries can be large pages: the bit that says so (zero at the lowest level, where every entry is a page).
    pub large_bit: Option<u64>,
    /// The bits of a page entry of this level that hold the page's address.
    pub page_mask: u64,
    /// Bits of a page entry of this level that must be zero.
    pub page_reserved: u64,
    /// True when entries of this level carry the writable, user and accessed bits (the PDPT of PAE does not).
    pub has_rights: bool,
    /// PSE-36: bits 13 to 20 of a 4 MiB entry are bits 32 to 39 of the address.
    pub pse36: bool,
}

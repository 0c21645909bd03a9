//! The structures of a Windows crash dump, as they lie in the file.
//!
//! Owns: layouts and magic numbers, for whoever reads and whoever writes them. Must not know: what they mean.
//!
//! Source: the public structures `DUMP_HEADER32`, `DUMP_HEADER64` and `SUMMARY_DUMP64` of the Windows Driver Kit (`ntdumpdefs`, also in its
//! debugging extensions' `wdbgexts.h`), with the offsets that kdmp-parser and volatility publish.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

/// Size of the pages of every dump.
pub(crate) const PAGE: u64 = 0x1000;
/// First bytes of 64-bit dumps.
pub(crate) const MAGIC_64: &[u8] = b"PAGEDU64";
/// First bytes of 32-bit dumps.
pub(crate) const MAGIC_32: &[u8] = b"PAGEDUMP";
/// What a header is filled with before fields are set: "PAGE".
pub(crate) const UNSET_32: u32 = 0x4547_4150;
pub(crate) const UNSET_64: u64 = 0x4547_4150_4547_4150;
/// `IMAGE_FILE_MACHINE_*`.
pub(crate) const I386: u32 = 0x14c;
pub(crate) const AMD64: u32 = 0x8664;
pub(crate) const ARM64: u32 = 0xaa64;
/// Most runs that fit in the header.
pub(crate) const MAX_RUNS_64: usize = 42;
pub(crate) const MAX_RUNS_32: usize = 86;
/// Kinds of dumps: values of `DumpType`.
pub(crate) const FULL: u32 = 1;
pub(crate) const BITMAP_FULL: u32 = 5;

/// Where parts of a header lie whose place depends on its width.
pub(crate) struct Places {
    /// End of the header, where the pages or their bitmap begin.
    pub(crate) body: u64,
    pub(crate) runs: u64,
    /// `CONTEXT`, and in it the flags, the stack pointer and the instruction pointer.
    pub(crate) context: u64,
    pub(crate) context_flags: u64,
    pub(crate) stack_pointer: u64,
    pub(crate) instruction_pointer: u64,
    pub(crate) kind: u64,
    pub(crate) system_time: u64,
}

pub(crate) const PLACES_64: Places = Places {
    body: 0x2000,
    runs: 0x88,
    context: 0x348,
    context_flags: 0x348 + 0x30,
    stack_pointer: 0x348 + 0x98,
    instruction_pointer: 0x348 + 0xf8,
    kind: 0xf98,
    system_time: 0xfa8,
};
pub(crate) const PLACES_32: Places = Places {
    body: 0x1000,
    runs: 0x64,
    context: 0x320,
    context_flags: 0x320,
    stack_pointer: 0x320 + 0xc4,
    instruction_pointer: 0x320 + 0xb8,
    kind: 0xf88,
    system_time: 0xfc0,
};
/// `RequiredDumpSpace`: the length of the dump, in both widths.
pub(crate) const LENGTH: u64 = 0xfa0;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header64 {
    pub(crate) signature: [u8; 8],
    pub(crate) major: U32,
    pub(crate) minor: U32,
    pub(crate) directory_table: U64,
    pub(crate) pfn_database: U64,
    pub(crate) loaded_modules: U64,
    pub(crate) active_processes: U64,
    pub(crate) machine: U32,
    pub(crate) processors: U32,
    pub(crate) bug_check: U32,
    pub(crate) padding: U32,
    pub(crate) parameters: [U64; 4],
    pub(crate) version_user: [u8; 32],
    pub(crate) debugger_data: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header32 {
    pub(crate) signature: [u8; 8],
    pub(crate) major: U32,
    pub(crate) minor: U32,
    pub(crate) directory_table: U32,
    pub(crate) pfn_database: U32,
    pub(crate) loaded_modules: U32,
    pub(crate) active_processes: U32,
    pub(crate) machine: U32,
    pub(crate) processors: U32,
    pub(crate) bug_check: U32,
    pub(crate) parameters: [U32; 4],
    pub(crate) version_user: [u8; 32],
    pub(crate) pae: u8,
    pub(crate) secondary_version: u8,
    pub(crate) spare: [u8; 2],
    pub(crate) debugger_data: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Runs64 {
    pub(crate) count: U32,
    pub(crate) padding: U32,
    pub(crate) pages: U64,
    pub(crate) runs: [[U64; 2]; MAX_RUNS_64],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Runs32 {
    pub(crate) count: U32,
    pub(crate) pages: U32,
    pub(crate) runs: [[U32; 2]; MAX_RUNS_32],
}

/// What the bitmap of a complete dump begins with.
pub(crate) const BITMAP_MAGIC: &[u8] = b"FDMPDUMP";
/// Where the fields of a bitmap lie, from its beginning on, and behind them the bits; since Windows 8.
pub(crate) const BITMAP_FIELDS: u64 = 0x20;
pub(crate) const BITMAP_BITS: u64 = 0x38;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct BitmapFields {
    /// Offset of the first page.
    pub(crate) first_page: U64,
    /// Number of set bits.
    pub(crate) pages: U64,
    /// Number of bits.
    pub(crate) bits: U64,
}

/// Checked when compiled: the fields lie where the structures have them.
const _: () = assert!(size_of::<Header32>() == 0x64 && size_of::<Header64>() == 0x88);
const _: () = assert!(size_of::<Runs64>() <= 700 && size_of::<Runs32>() <= 700);

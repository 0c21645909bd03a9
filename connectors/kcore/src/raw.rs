//! The structures of an ELF core as they lie in the file, little-endian.
//!
//! Owns: layouts and constants, nothing else. Must not know: what becomes of them.
//! Source: System V ABI, chapters 4 and 5; `elf_kcore_store_hdr` and `read_kcore_iter` of `fs/proc/kcore.c` of Linux, which writes
//! 64-bit headers on 64-bit machines.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};

pub(crate) const MAGIC: [u8; 4] = *b"\x7fELF";
pub(crate) const CLASS_64: u8 = 2;
pub(crate) const LITTLE_ENDIAN: u8 = 1;
pub(crate) const TYPE_CORE: u16 = 4;
pub(crate) const MACHINE_X86_64: u16 = 62;
pub(crate) const MACHINE_AARCH64: u16 = 183;
/// In `phnum`: the real number is elsewhere. The kernel's list never has so many.
pub(crate) const MANY_SEGMENTS: u16 = 0xffff;
pub(crate) const SEGMENT_LOAD: u32 = 1;
pub(crate) const SEGMENT_NOTE: u32 = 4;

/// `Elf64_Ehdr`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 4],
    pub(crate) class: u8,
    pub(crate) data: u8,
    pub(crate) rest_of_ident: [u8; 10],
    pub(crate) kind: U16,
    pub(crate) machine: U16,
    pub(crate) version: U32,
    pub(crate) entry: U64,
    pub(crate) phoff: U64,
    pub(crate) shoff: U64,
    pub(crate) flags: U32,
    pub(crate) ehsize: U16,
    pub(crate) phentsize: U16,
    pub(crate) phnum: U16,
    pub(crate) shentsize: U16,
    pub(crate) shnum: U16,
    pub(crate) shstrndx: U16,
}

/// `Elf64_Phdr`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ProgramHeader {
    pub(crate) kind: U32,
    pub(crate) flags: U32,
    pub(crate) offset: U64,
    pub(crate) vaddr: U64,
    pub(crate) paddr: U64,
    pub(crate) filesz: U64,
    pub(crate) memsz: U64,
    pub(crate) align: U64,
}

/// `Elf64_Nhdr`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct NoteHeader {
    pub(crate) namesz: U32,
    pub(crate) descsz: U32,
    pub(crate) kind: U32,
}

const _: () = assert!(size_of::<Header>() == 64 && size_of::<ProgramHeader>() == 56 && size_of::<NoteHeader>() == 12);

//! ELF cores of machines: 64-bit, a segment for each stretch of memory.
//!
//! ```text
//! 0      ELF header
//! 0x40   program headers    notes first, then memory by address: right behind the ELF header, where makedumpfile looks for them
//! then   section header     one, that counts the segments when there are more than the ELF header can say
//! then   notes              registers, VMCOREINFO, what else is known
//! then   memory             from a page boundary on, so that zeros can be holes
//! ```
//!
//! Owns: the headers. Must not know: files, compression.
//! Source: System V ABI, chapters 4 and 5; `fs/binfmt_elf.c` of Linux for more than 65,534 segments.

use memflow_core::memory::MachineKind;
use zerocopy::{FromZeros, IntoBytes};

use super::{notes::Notes, source::Source, stream::Item};
use crate::elf::raw;

/// Boundary at which memory begins.
const PAGE: u64 = 4096;
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;
/// All of read, write and execute: nothing else is known of physical memory.
const ALL_RIGHTS: u32 = 7;

/// The parts of the file.
pub(super) fn items(source: &Source<'_>) -> Vec<Item> {
    let stretches = source.stretches();
    let notes = Notes::new(source.facts());
    let segments = stretches.len() as u64 + 1;
    let extended = segments >= u64::from(raw::PHNUM_EXTENDED);
    let sections = HEADER + PROGRAM_HEADER * segments;
    let notes_at = sections + if extended { SECTION_HEADER } else { 0 };
    let memory_at = (notes_at + notes.bytes.len() as u64).next_multiple_of(PAGE);

    let ident = raw::Ident { magic: raw::MAGIC, class: raw::CLASS_64, data: raw::DATA_LITTLE_ENDIAN, rest: IDENT_REST };
    let mut header = raw::Header64::new_zeroed();
    header.kind = raw::TYPE_CORE.into();
    header.machine = machine(source).into();
    header.version = 1.into();
    header.phoff = HEADER.into();
    header.ehsize = (HEADER as u16).into();
    header.phentsize = (PROGRAM_HEADER as u16).into();
    header.phnum = u16::try_from(segments).unwrap_or(raw::PHNUM_EXTENDED).into();
    if extended {
        header.shoff = sections.into();
        header.shentsize = (SECTION_HEADER as u16).into();
        header.shnum = 1.into();
    }
    let mut head = [ident.as_bytes(), header.as_bytes()].concat();

    let mut note = raw::ProgramHeader64::new_zeroed();
    note.kind = raw::SEGMENT_NOTE.into();
    note.offset = notes_at.into();
    note.filesz = (notes.bytes.len() as u64).into();
    note.memsz = note.filesz;
    head.extend(note.as_bytes());
    let mut offset = memory_at;
    for stretch in &stretches {
        let mut load = raw::ProgramHeader64::new_zeroed();
        load.kind = raw::SEGMENT_LOAD.into();
        load.flags = ALL_RIGHTS.into();
        load.offset = offset.into();
        load.paddr = stretch.range.start().as_u64().into();
        load.filesz = stretch.range.len().into();
        load.memsz = stretch.range.len().into();
        head.extend(load.as_bytes());
        offset = offset.saturating_add(stretch.range.len());
    }
    if extended {
        let mut section = raw::SectionHeader64::new_zeroed();
        // The ABI's way to count more program headers than 16 bits can.
        section.info = u32::try_from(segments).unwrap_or(u32::MAX).into();
        head.extend(section.as_bytes());
        // Alignment and entry size, which are not among the fields that a reader needs.
        head.extend([0; 16]);
    }
    head.extend(&notes.bytes);
    // Less than a page more.
    head.resize(memory_at as usize, 0);
    std::iter::once(Item::Bytes(head)).chain(stretches.into_iter().flat_map(|stretch| stretch.items)).collect()
}

/// Version 1, and the rest zeros.
const IDENT_REST: [u8; 10] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// `e_machine`; zero for a machine that the source does not tell.
fn machine(source: &Source<'_>) -> u16 {
    match source.facts().machine {
        Some(MachineKind::X86) => raw::MACHINE_386,
        Some(MachineKind::X86_64) => raw::MACHINE_X86_64,
        Some(MachineKind::AArch64) => raw::MACHINE_AARCH64,
        _ => 0,
    }
}

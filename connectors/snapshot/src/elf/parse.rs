//! The headers of an ELF core.
//!
//! Owns: which segments there are, in either class, and what the machine is.
//! Must not know: what notes say, how segments become runs.
//! Keeps: the segment table is read in pieces after its end was found to lie in the file, so it costs no more than its bytes.
//! Source: System V ABI, chapters 4 and 5; `fs/binfmt_elf.c` of Linux for more than 65,534 segments.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{Error, Result, memory::MachineKind};
use zerocopy::FromBytes;

use super::{
    notes::Notes,
    raw::{self, Header32, Header64, Ident, ProgramHeader32, ProgramHeader64, SectionHeader32, SectionHeader64},
    segments, xen,
};
use crate::{
    image::{ParseOptions, ParsedImage},
    input::{ReadAt, View},
};

/// Program headers read at one time.
const HEADERS_PER_READ: u64 = 1024;
/// Bytes of notes that are read, over all segments: room for the registers of some ten thousand vCPUs.
const MAX_NOTE_BYTES: u64 = 16 << 20;

/// One program header, of either class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Its place in the table, for messages.
    pub(super) index: u64,
    /// Where its header lies in the file.
    pub(super) header: u64,
    pub(super) kind: u32,
    pub(super) offset: u64,
    pub(super) vaddr: u64,
    pub(super) paddr: u64,
    pub(super) filesz: u64,
    pub(super) memsz: u64,
}

/// What the file header says.
pub(super) struct Header {
    pub(super) wide: bool,
    kind: u16,
    pub(super) machine: u16,
    phoff: u64,
    phentsize: u16,
    pub(super) phnum: u16,
    pub(super) shoff: u64,
    pub(super) shentsize: u16,
    pub(super) shnum: u16,
    pub(super) shstrndx: u16,
}

/// Reads the headers and notes of an ELF core of a machine.
///
/// # Errors
/// [`Error::Format`] for anything that contradicts itself or the length of the file, unless `options` allow partial
/// images; [`Error::Unsupported`] for ELF files that are no core of a machine; [`Error::Io`] when the input cannot be read.
pub fn parse(input: &dyn ReadAt, options: ParseOptions) -> Result<ParsedImage> {
    let view = View::new(input, "ELF core");
    let header = read_header(&view)?;
    check_kind(&view, header.kind)?;
    let mut image = ParsedImage::default();
    let class = if header.wide { raw::CLASS_64 } else { raw::CLASS_32 };
    image.facts.machine = machine(header.machine, class);
    if image.facts.machine.is_none() {
        image.notes.push(format!("the ELF header names machine {}, which is unknown here", header.machine));
    }
    if xen::parse(&view, &header, options, &mut image)? {
        return Ok(image);
    }
    let mut notes = Notes::new(header.machine);
    let mut loads = Vec::new();
    // Segments that all name the same notes would cost more than the file has bytes.
    let mut note_bytes = MAX_NOTE_BYTES.min(view.size());
    for_each_segment(&view, &header, |segment| {
        match segment.kind {
            raw::SEGMENT_LOAD => loads.push(segment),
            raw::SEGMENT_NOTE => read_notes(&view, options, &segment, &mut notes, &mut note_bytes, &mut image.notes)?,
            _ => {}
        }
        Ok(())
    })?;
    refuse_process(&view, &notes, &loads)?;
    image.runs = segments::to_runs(&view, options, &loads, &mut image.notes)?;
    notes.into_facts(&mut image.facts, &mut image.notes);
    Ok(image)
}

fn machine(machine: u16, class: u8) -> Option<MachineKind> {
    match (machine, class) {
        (raw::MACHINE_386, _) => Some(MachineKind::X86),
        (raw::MACHINE_X86_64, _) => Some(MachineKind::X86_64),
        (raw::MACHINE_AARCH64, raw::CLASS_64) => Some(MachineKind::AArch64),
        _ => None,
    }
}

fn read_header(view: &View<'_>) -> Result<Header> {
    const AFTER_IDENT: u64 = 16;
    let ident: Ident = view.read(0, "ELF header")?;
    if ident.magic != raw::MAGIC {
        return Err(view.bad(0, "the ELF magic 7f 45 4c 46", format!("{:02x?}", ident.magic)));
    }
    match ident.data {
        raw::DATA_LITTLE_ENDIAN => {}
        raw::DATA_BIG_ENDIAN => {
            return Err(Error::Unsupported {
                what: format!("{}: a big-endian ELF core", view.path().display()),
                why: "only little-endian machines are known here".to_owned(),
            });
        }
        other => return Err(view.bad(5, "ELF data encoding 1 (little-endian)", other.to_string())),
    }
    match ident.class {
        raw::CLASS_64 => {
            let raw: Header64 = view.read(AFTER_IDENT, "ELF header")?;
            Ok(Header {
                wide: true,
                kind: raw.kind.get(),
                machine: raw.machine.get(),
                phoff: raw.phoff.get(),
                phentsize: raw.phentsize.get(),
                phnum: raw.phnum.get(),
                shoff: raw.shoff.get(),
                shentsize: raw.shentsize.get(),
                shnum: raw.shnum.get(),
                shstrndx: raw.shstrndx.get(),
            })
        }
        raw::CLASS_32 => {
            let raw: Header32 = view.read(AFTER_IDENT, "ELF header")?;
            Ok(Header {
                wide: false,
                kind: raw.kind.get(),
                machine: raw.machine.get(),
                phoff: raw.phoff.get().into(),
                phentsize: raw.phentsize.get(),
                phnum: raw.phnum.get(),
                shoff: raw.shoff.get().into(),
                shentsize: raw.shentsize.get(),
                shnum: raw.shnum.get(),
                shstrndx: raw.shstrndx.get(),
            })
        }
        other => Err(view.bad(4, "ELF class 1 (32-bit) or 2 (64-bit)", other.to_string())),
    }
}

/// Programs and object files are ELF too.
fn check_kind(view: &View<'_>, kind: u16) -> Result<()> {
    let name = match kind {
        raw::TYPE_CORE => return Ok(()),
        1 => "object file",
        2 | 3 => "program, library or kernel file",
        _ => "file of unknown type",
    };
    Err(Error::Unsupported {
        what: format!("{}: an ELF {name} (e_type {kind})", view.path().display()),
        why: "a memory image is an ELF core (e_type 4), such as QEMU's dump-guest-memory writes".to_owned(),
    })
}

/// How many program headers there are.
fn segment_count(view: &View<'_>, header: &Header) -> Result<u64> {
    if header.phnum != raw::PHNUM_EXTENDED {
        return Ok(header.phnum.into());
    }
    let info = if header.wide {
        expect_entry_size::<SectionHeader64>(view, 58, header.shentsize, 64, "section")?;
        view.read::<SectionHeader64>(header.shoff, "section header 0, which counts the segments")?.info
    } else {
        expect_entry_size::<SectionHeader32>(view, 46, header.shentsize, 40, "section")?;
        view.read::<SectionHeader32>(header.shoff, "section header 0, which counts the segments")?.info
    };
    Ok(info.get().into())
}

/// Refuses tables with entries of another size than the ABI's. `T` is only named to tie the size to its structure.
fn expect_entry_size<T>(view: &View<'_>, at: u64, found: u16, expected: u16, what: &str) -> Result<()> {
    debug_assert!(size_of::<T>() <= usize::from(expected), "the structure is part of the entry");
    if found != expected {
        return Err(view.bad(at, format!("{expected} bytes in a {what} header"), found.to_string()));
    }
    Ok(())
}

/// Calls `each` with every program header, in file order.
fn for_each_segment(view: &View<'_>, header: &Header, mut each: impl FnMut(Segment) -> Result<()>) -> Result<()> {
    let count = segment_count(view, header)?;
    if count == 0 {
        return Err(view.bad(header.phoff, "program headers", "none"));
    }
    let entry: u64 = if header.wide {
        expect_entry_size::<ProgramHeader64>(view, 54, header.phentsize, 56, "program")?;
        56
    } else {
        expect_entry_size::<ProgramHeader32>(view, 42, header.phentsize, 32, "program")?;
        32
    };
    let table_end = count.checked_mul(entry).and_then(|len| header.phoff.checked_add(len));
    if table_end.is_none_or(|end| end > view.size()) {
        return Err(view.ends_early(header.phoff, count.saturating_mul(entry), &format!("{count} program headers")));
    }
    let mut index: u64 = 0;
    while index < count {
        let step = count.saturating_sub(index).min(HEADERS_PER_READ);
        let at = header.phoff.saturating_add(index.saturating_mul(entry));
        let table = view.bytes(at, step.saturating_mul(entry), "program headers")?;
        for bytes in table.chunks_exact(usize::from(header.phentsize)) {
            let at = header.phoff.saturating_add(index.saturating_mul(entry));
            let segment = if header.wide { segment64(index, at, bytes) } else { segment32(index, at, bytes) };
            // The chunk has the size of the structure.
            if let Some(segment) = segment {
                each(segment)?;
            }
            index = index.saturating_add(1);
        }
    }
    Ok(())
}

fn segment64(index: u64, header: u64, bytes: &[u8]) -> Option<Segment> {
    let raw = ProgramHeader64::read_from_bytes(bytes).ok()?;
    Some(Segment {
        index,
        header,
        kind: raw.kind.get(),
        offset: raw.offset.get(),
        vaddr: raw.vaddr.get(),
        paddr: raw.paddr.get(),
        filesz: raw.filesz.get(),
        memsz: raw.memsz.get(),
    })
}

fn segment32(index: u64, header: u64, bytes: &[u8]) -> Option<Segment> {
    let raw = ProgramHeader32::read_from_bytes(bytes).ok()?;
    let paddr = raw.paddr.get();
    Some(Segment {
        index,
        header,
        kind: raw.kind.get(),
        offset: raw.offset.get().into(),
        vaddr: raw.vaddr.get().into(),
        // "No physical address" is all ones in either class.
        paddr: if paddr == u32::MAX { u64::MAX } else { paddr.into() },
        filesz: raw.filesz.get().into(),
        memsz: raw.memsz.get().into(),
    })
}

/// Reads one note segment; damage ends the image, or in a partial image only the notes.
fn read_notes(
    view: &View<'_>,
    options: ParseOptions,
    segment: &Segment,
    notes: &mut Notes,
    budget: &mut u64,
    remarks: &mut Vec<String>,
) -> Result<()> {
    let mut read = || {
        // What leaves the file is told as that, below.
        let inside = segment.filesz <= view.size();
        match budget.checked_sub(segment.filesz) {
            Some(rest) => *budget = rest,
            None if inside => {
                return Err(view.bad(
                    segment.header,
                    format!("at most {:#x} bytes of notes in all segments", MAX_NOTE_BYTES.min(view.size())),
                    format!("more, with the {:#x} of segment {}", segment.filesz, segment.index),
                ));
            }
            None => {}
        }
        view.bytes(segment.offset, segment.filesz, &format!("notes in segment {}", segment.index))
    };
    match read().and_then(|bytes| notes.add(view, segment.offset, &bytes)) {
        Err(error @ Error::Format { .. }) if options.partial => {
            remarks.push(format!("notes (registers, VMCOREINFO) are incomplete: {error}"));
            Ok(())
        }
        other => other,
    }
}

/// A core of one process has virtual addresses only. Its `p_paddr` are zero, or it has notes that no machine has.
fn refuse_process(view: &View<'_>, notes: &Notes, loads: &[Segment]) -> Result<()> {
    let without_paddr = loads.iter().all(|load| load.paddr == 0) && loads.iter().any(|load| load.vaddr != 0);
    if notes.of_machine() || !(notes.of_process() || without_paddr) {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("{}: the ELF core of a single process", view.path().display()),
        why: "it has no physical addresses; a debugger such as gdb opens it, and memory of a whole machine is dumped with \
              QEMU's dump-guest-memory"
            .to_owned(),
    })
}

//! kdump-compressed dumps: what makedumpfile, QEMU and older diskdump tools write.
//!
//! ```text
//! block 0            header            what wrote it, block size, lengths of what follows
//! block 1..          sub-header        physical base, what was left out, where VMCOREINFO and notes are
//! then               two bitmaps       a bit per page: which are memory, which are in the file
//! then               descriptors       one per page in the file: where its bytes are, how they are compressed
//! ```
//!
//! A dump may be split into files, each with all bitmaps and the descriptors of some of the pages.
//!
//! Owns: the order in which the parts are read. Must not know: files, what lies in the memory.

mod header;
mod pages;
mod parts;

use std::sync::Arc;

use memflow_core::{
    Error, Result,
    memory::{MachineKind, Run, RunMap},
};

pub(crate) use self::parts::{belong_together, is_part};
use self::{
    header::Header,
    parts::{DumpFile, Parts, missing, stranger},
};
use crate::{
    elf::{self, Notes},
    image::{PackedImage, ParseOptions, ParsedImage},
    input::{ReadAt, View},
};

/// Largest VMCOREINFO or notes that are read; the kernel's own are a few KiB, and a note per vCPU.
const MAX_NOTES: u64 = 16 << 20;

/// Reads header, bitmaps and notes of a kdump-compressed dump.
///
/// # Errors
/// [`Error::Format`] for parts that contradict each other or leave the file, unless `options` allow partial images;
/// [`Error::Unsupported`] for what another architecture's tools wrote; [`Error::Io`] when the input cannot be read.
pub fn parse(input: Arc<dyn ReadAt>, options: ParseOptions) -> Result<PackedImage> {
    parse_parts(input, Vec::new(), options)
}

/// Reads the files of a dump that was split, in any order. What is known of the machine comes from the first.
///
/// # Errors
/// As [`parse`], and [`Error::Format`] for files that do not belong together.
pub(crate) fn parse_parts(
    first: Arc<dyn ReadAt>,
    others: Vec<Arc<dyn ReadAt>>,
    options: ParseOptions,
) -> Result<PackedImage> {
    let mut image = ParsedImage::default();
    let first = DumpFile::read(first)?;
    let header = first.header.clone();
    image.facts.machine = header.machine;
    notes(&first.view(), &header, options, &mut image)?;

    let mut files = vec![first];
    for other in others {
        let file = DumpFile::read(other)?;
        for known in &files {
            if !file.belongs_to(known)? {
                return Err(stranger(&file, known));
            }
        }
        files.push(file);
    }
    let (mut runs, mut excluded, mut parts) = (Vec::new(), Vec::new(), Parts::default());
    for file in &files {
        let held = file.pages(parts.end(), options, &mut image.notes)?;
        append(&mut runs, held.runs);
        append(&mut excluded, held.excluded);
        parts.push(held.pages);
    }
    image.runs = RunMap::new(runs)?;
    let excluded = RunMap::new(excluded)?;
    if let Some(missing) = missing(&files, header.pages, header.block_size) {
        image.notes.push(format!(
            "this is one part of a dump that was split; pages in {missing} are in files that are not beside it and were not named"
        ));
    }
    if files.iter().any(|file| file.header.incomplete) {
        image.notes.push("the dump was not finished when it was written; some of its pages are missing".to_owned());
    }
    let left_out = excluded.total_bytes();
    if left_out > 0 {
        image.notes.push(format!(
            "{left_out:#x} bytes of memory were left out when the dump was written{}",
            header.why_left_out()
        ));
    }
    Ok(PackedImage { image, excluded, blocks: Box::new(parts) })
}

/// Adds a list; the first, which is the only one but for split dumps, is not copied.
fn append(list: &mut Vec<Run>, mut more: Vec<Run>) {
    if list.is_empty() {
        *list = more;
    } else {
        list.append(&mut more);
    }
}

/// Takes VMCOREINFO and the registers, which have places of their own.
fn notes(view: &View<'_>, header: &Header, options: ParseOptions, image: &mut ParsedImage) -> Result<()> {
    let mut read = |at: u64, len: u64, what: &'static str| -> Result<Vec<u8>> {
        if at == 0 || len == 0 {
            return Ok(Vec::new());
        }
        let bytes = match len <= MAX_NOTES {
            true => view.bytes(at, len, what),
            false => Err(view.bad(at, format!("{MAX_NOTES:#x} bytes of {what} at most"), format!("{len:#x}"))),
        };
        match bytes {
            Err(error @ Error::Format { .. }) if options.partial => {
                image.notes.push(format!("{what} cannot be used: {error}"));
                Ok(Vec::new())
            }
            other => other,
        }
    };
    let vmcoreinfo = read(header.vmcoreinfo.0, header.vmcoreinfo.1, "VMCOREINFO")?;
    let notes = read(header.notes.0, header.notes.1, "notes")?;
    let mut parsed = Notes::new(match header.machine {
        Some(MachineKind::X86) => elf::MACHINE_386,
        Some(MachineKind::X86_64) => elf::MACHINE_X86_64,
        _ => 0,
    });
    match parsed.add(view, header.notes.0, &notes) {
        Err(error @ Error::Format { .. }) if options.partial => image.notes.push(format!("notes are damaged: {error}")),
        other => other?,
    }
    parsed.into_facts(&mut image.facts, &mut image.notes);
    if !vmcoreinfo.is_empty() {
        image.facts.vmcoreinfo = Some(vmcoreinfo);
    }
    Ok(())
}

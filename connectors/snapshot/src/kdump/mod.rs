//! kdump-compressed dumps: what makedumpfile, QEMU and older diskdump tools write.
//!
//! ```text
//! block 0            header            what wrote it, block size, lengths of what follows
//! block 1..          sub-header        physical base, what was left out, where VMCOREINFO and notes are
//! then               two bitmaps       a bit per page: which are memory, which are in the file
//! then               descriptors       one per page in the file: where its bytes are, how they are compressed
//! ```
//!
//! Owns: the order in which the parts are read. Must not know: files, what lies in the memory.

mod header;
mod pages;

use std::sync::Arc;

use memflow_core::{
    Error, Result,
    memory::{MachineKind, RunMap},
};

use self::{
    header::{DESCRIPTOR, Header},
    pages::Pages,
};
use crate::{
    bitmap::Bitmap,
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
    let view = View::new(&*input, "kdump");
    let header = Header::read(&view)?;
    let mut image = ParsedImage::default();
    image.facts.machine = header.machine;
    notes(&view, &header, options, &mut image)?;

    let memory = Bitmap::read(&view, header.bitmap, header.pages, "the bitmap of memory")?;
    let dumped = match header.second_bitmap {
        Some(at) => Bitmap::read(&view, at, header.pages, "the bitmap of pages in the file")?,
        None => memory.clone(),
    };
    let part = header.part.clone().unwrap_or(0..header.pages);
    let dumped = dumped.within(part.clone());
    let room = view.size().saturating_sub(header.descriptors).checked_div(DESCRIPTOR).unwrap_or(0);
    let count = dumped.count();
    if count > room {
        let expected = format!("descriptors of {count:#x} pages");
        let found = format!("room for {room:#x} before the end of the file; it looks truncated, copy it again");
        if !options.partial {
            return Err(view.bad(header.descriptors, expected, found));
        }
        image.notes.push(format!("pages are missing: expected {expected}, found {found}"));
    }
    let runs = dumped.listed(header.block_size, 0, room);
    image.runs = RunMap::new(runs)?;
    let excluded = RunMap::new(memory.within(part).without(&dumped).listed(header.block_size, 0, u64::MAX))?;
    if header.part.is_some() {
        image.notes.push(format!(
            "this is one part of a dump that was split; pages from {} are in it",
            image.runs.runs().first().map_or_else(|| "none".to_owned(), |run| run.range.start().to_string())
        ));
    }
    if header.incomplete {
        image.notes.push("the dump was not finished when it was written; some of its pages are missing".to_owned());
    }
    let left_out = excluded.total_bytes();
    if left_out > 0 {
        image.notes.push(format!(
            "{left_out:#x} bytes of memory were left out when the dump was written{}",
            header.why_left_out()
        ));
    }
    let blocks = Box::new(Pages::new(input.clone(), header.descriptors, header.block_size, count.min(room)));
    Ok(PackedImage { image, excluded, blocks })
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

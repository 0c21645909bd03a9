//! The files of a dump that was split: which belong together, and the pages of all of them as one.
//!
//! Owns: what tells a dump from others, which pages are in which file. Must not know: how pages are compressed, file names.
//! Keeps: files are of one dump only if they say so in every field that all of them have, and share no page.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{io, ops::Range, sync::Arc};

use memflow_core::{Error, PhysAddr, PhysRange, Result, memory::Run};

use super::{
    header::{DESCRIPTOR, Header},
    pages::Pages,
};
use crate::{
    bitmap::Bitmap,
    blocks::{Block, Blocks, damaged},
    image::ParseOptions,
    input::{ReadAt, View},
};

/// Most bytes of VMCOREINFO that are compared.
const MAX_COMPARED: u64 = 64 << 10;

/// A file of a dump.
pub(super) struct DumpFile {
    pub(super) input: Arc<dyn ReadAt>,
    pub(super) header: Header,
}

/// What a file holds of a dump.
pub(super) struct Held {
    pub(super) runs: Vec<Run>,
    pub(super) excluded: Vec<Run>,
    pub(super) pages: Pages,
}

impl DumpFile {
    pub(super) fn read(input: Arc<dyn ReadAt>) -> Result<Self> {
        let header = Header::read(&View::new(&*input, "kdump"))?;
        Ok(Self { input, header })
    }

    pub(super) fn view(&self) -> View<'_> {
        View::new(&*self.input, "kdump")
    }

    /// The page frame numbers for which this file is the one to ask.
    pub(super) fn part(&self) -> Range<u64> {
        self.header.part.clone().unwrap_or(0..self.header.pages)
    }

    /// True for two files of the same dump with different pages.
    pub(super) fn belongs_to(&self, other: &Self) -> Result<bool> {
        let (Some(part), Some(others)) = (&self.header.part, &other.header.part) else { return Ok(false) };
        let apart = part.end <= others.start || others.end <= part.start;
        Ok(apart && self.header.same_dump(&other.header) && self.vmcoreinfo()? == other.vmcoreinfo()?)
    }

    /// VMCOREINFO, which has the time of the crash in it.
    fn vmcoreinfo(&self) -> Result<Vec<u8>> {
        let (at, len) = self.header.vmcoreinfo;
        self.view().bytes(at, len.min(MAX_COMPARED), "VMCOREINFO")
    }

    /// The pages of the file, whose offsets begin at `start`.
    pub(super) fn pages(&self, start: u64, options: ParseOptions, notes: &mut Vec<String>) -> Result<Held> {
        let (view, header) = (self.view(), &self.header);
        let memory = Bitmap::read(&view, header.bitmap, header.pages, "the bitmap of memory")?;
        let dumped = match header.second_bitmap {
            Some(at) => Bitmap::read(&view, at, header.pages, "the bitmap of pages in the file")?,
            None => memory.clone(),
        };
        let dumped = dumped.within(self.part());
        let room = view.size().saturating_sub(header.descriptors).checked_div(DESCRIPTOR).unwrap_or(0);
        let count = dumped.count();
        if count > room {
            let expected = format!("descriptors of {count:#x} pages");
            let found = format!("room for {room:#x} before the end of the file; it looks truncated, copy it again");
            if !options.partial {
                return Err(view.bad(header.descriptors, expected, found));
            }
            notes.push(format!("pages are missing: expected {expected}, found {found}"));
        }
        let left_out = memory.within(self.part()).without(&dumped);
        Ok(Held {
            runs: dumped.listed(header.block_size, start, room),
            excluded: left_out.listed(header.block_size, 0, u64::MAX),
            pages: Pages::new(self.input.clone(), header.descriptors, header.block_size, count.min(room)),
        })
    }
}

/// True for two files of the same dump with different pages.
///
/// # Errors
/// As [`parse`](super::parse).
pub(crate) fn belong_together(first: &Arc<dyn ReadAt>, second: &Arc<dyn ReadAt>) -> Result<bool> {
    DumpFile::read(first.clone())?.belongs_to(&DumpFile::read(second.clone())?)
}

/// True for a file that has a part of a dump only.
///
/// # Errors
/// As [`parse`](super::parse).
pub(crate) fn is_part(input: &Arc<dyn ReadAt>) -> Result<bool> {
    Ok(DumpFile::read(input.clone())?.header.part.is_some())
}

/// The error for a file that is not of the same dump as another.
pub(super) fn stranger(file: &DumpFile, other: &DumpFile) -> Error {
    file.view().bad(
        0,
        format!("a part of the same dump as {}, with other pages", other.input.path().display()),
        match (&file.header.part, &other.header.part) {
            (Some(part), Some(others)) if file.header.same_dump(&other.header) => {
                format!(
                    "pages {:#x} to {:#x}, and {:#x} to {:#x} there",
                    part.start, part.end, others.start, others.end
                )
            }
            (Some(_), Some(_)) => "a part of another dump".to_owned(),
            _ => "a dump that was not split".to_owned(),
        },
    )
}

/// What no file has of the first `pages` pages, as text; `None` when there is nothing.
pub(super) fn missing(files: &[DumpFile], pages: u64, block_size: u64) -> Option<String> {
    let mut parts: Vec<Range<u64>> = files.iter().map(DumpFile::part).collect();
    parts.sort_by_key(|part| part.start);
    parts.push(pages..pages);
    let mut gaps = Vec::new();
    let mut next = 0;
    for part in parts {
        let len = part.start.saturating_sub(next).saturating_mul(block_size);
        let start = PhysAddr::new(next.saturating_mul(block_size));
        gaps.extend(PhysRange::new(start, len).filter(|gap| !gap.is_empty()).map(|gap| gap.to_string()));
        next = next.max(part.end);
    }
    (!gaps.is_empty()).then(|| gaps.join(", "))
}

/// The pages of all files, one after the other.
#[derive(Default)]
pub(super) struct Parts {
    parts: Vec<(u64, Pages)>,
    size: u64,
}

/// Bits of a block's number that are its number in a file.
const IN_FILE: u32 = 48;

impl Parts {
    /// Offset at which the next file's pages begin.
    pub(super) fn end(&self) -> u64 {
        self.size
    }

    pub(super) fn push(&mut self, pages: Pages) {
        let end = self.size.saturating_add(pages.size());
        self.parts.push((self.size, pages));
        self.size = end;
    }

    /// The file with the page at `offset`, its number, and where its pages begin.
    fn part(&self, offset: u64) -> io::Result<(u64, u64, &Pages)> {
        let index = self.parts.partition_point(|(start, _)| *start <= offset).checked_sub(1);
        index
            .and_then(|index| {
                let (start, pages) = self.parts.get(index)?;
                Some((u64::try_from(index).ok()?, *start, pages))
            })
            .ok_or_else(|| damaged(format!("no file holds offset {offset:#x}")))
    }
}

impl Blocks for Parts {
    fn size(&self) -> u64 {
        self.size
    }

    fn find(&self, offset: u64) -> io::Result<Block> {
        let (number, start, pages) = self.part(offset)?;
        let Block { id, start: inside, len } = pages.find(offset.saturating_sub(start))?;
        Ok(Block { id: number << IN_FILE | id, start: start.saturating_add(inside), len })
    }

    fn unpack(&self, block: &Block, page: &mut [u8]) -> io::Result<()> {
        let (_, start, pages) = self.part(block.start)?;
        let id = block.id & !(u64::MAX << IN_FILE);
        pages.unpack(&Block { id, start: block.start.saturating_sub(start), len: block.len }, page)
    }
}

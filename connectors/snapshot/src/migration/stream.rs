//! The sections of a migration stream, as far as the end of RAM.
//!
//! Owns: the walk over sections, and over the records in those of RAM. Must not know: addresses of the guest, what devices say.
//! Keeps: each step moves on; a page lies inside its block and, if the stream has its bytes, inside the file.
//!
//! Source: QEMU, `migration/savevm.c` (sections, `vmstate_configuration`, commands), `migration/ram.c` (`ram_save_setup`, records and
//! their flags, `MappedRamHeader`), `docs/devel/migration/main.rst`. Numbers are big-endian, but for the words of a mapped block's bitmap,
//! which are as the host has them.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::HashMap;

use memflow_core::{Error, Result};

use super::{
    pages::{Listed, Pages, Place},
    reader::Reader,
};
use crate::{bitmap::Bitmap, image::ParseOptions, input::View};

/// The version of the whole stream; version 2 is from before 2010.
const VERSION: u32 = 3;
/// Versions of the section "ram".
const RAM_VERSIONS: [u32; 2] = [3, 4];
/// More blocks than any machine has; they are some dozens.
const MAX_BLOCKS: usize = 4096;
/// Longest name of a machine type that is read.
const MAX_MACHINE: u32 = 1024;

/// Kinds of sections.
mod kind {
    pub(super) const EOF: u8 = 0;
    pub(super) const START: u8 = 1;
    pub(super) const PART: u8 = 2;
    pub(super) const END: u8 = 3;
    pub(super) const FULL: u8 = 4;
    pub(super) const SUBSECTION: u8 = 5;
    pub(super) const CONFIGURATION: u8 = 7;
    pub(super) const COMMAND: u8 = 8;
    pub(super) const FOOTER: u8 = 0x7e;
}

/// The command that announces postcopy, and the sizes of pages with it.
const POSTCOPY_ADVISE: u16 = 3;

/// Flags of a record of RAM, in the bits below the page.
mod flag {
    pub(super) const ZERO: u64 = 0x02;
    pub(super) const MEM_SIZE: u64 = 0x04;
    pub(super) const PAGE: u64 = 0x08;
    pub(super) const EOS: u64 = 0x10;
    pub(super) const CONTINUE: u64 = 0x20;
    pub(super) const XBZRLE: u64 = 0x40;
    pub(super) const COMPRESS_PAGE: u64 = 0x100;
    pub(super) const MULTIFD_FLUSH: u64 = 0x200;
}

/// A block of memory.
#[derive(Debug)]
pub(super) struct RamBlock {
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) pages: Pages,
}

/// What a stream holds.
#[derive(Debug)]
pub(super) struct Stream {
    /// The machine type, if the stream names it.
    pub(super) machine: Option<String>,
    pub(super) blocks: Vec<RamBlock>,
    pub(super) page_size: u64,
    /// Memory that others share is not in it (`x-ignore-shared`).
    pub(super) without_shared: bool,
    /// Where the states of devices begin.
    pub(super) devices: Option<u64>,
    /// What is wrong with it, in a partial image.
    pub(super) notes: Vec<String>,
}

/// Reads the stream that begins at `start`.
///
/// # Errors
/// [`Error::Format`] for sections that make no sense or leave the file; [`Error::Unsupported`] for ways of migrating that leave no pages
/// in the stream; [`Error::Io`] when the input cannot be read.
pub(super) fn read(view: &View<'_>, start: u64, options: ParseOptions) -> Result<Stream> {
    let mut walk = Walk {
        view: *view,
        reader: Reader::new(*view, start),
        stream: Stream {
            machine: None,
            blocks: Vec::new(),
            page_size: 0x1000,
            without_shared: false,
            devices: None,
            notes: Vec::new(),
        },
        by_name: HashMap::new(),
        last: None,
        ram: None,
        mapped: false,
        postcopy: None,
    };
    match walk.sections() {
        Err(error @ Error::Format { .. }) if options.partial && !walk.stream.blocks.is_empty() => {
            let at = walk.reader.at();
            walk.stream.notes.push(format!("what came after the first {at:#x} bytes of the file is missing: {error}"));
        }
        other => other?,
    }
    let mut stream = walk.stream;
    for block in &mut stream.blocks {
        if let Pages::Listed(listed) = &mut block.pages {
            listed.close();
        }
        check_mapped(view, options, stream.page_size, block, &mut stream.notes)?;
    }
    Ok(stream)
}

/// Refuses a block whose mapped pages are not all in the file.
fn check_mapped(
    view: &View<'_>,
    options: ParseOptions,
    page_size: u64,
    block: &RamBlock,
    notes: &mut Vec<String>,
) -> Result<()> {
    let Pages::Mapped { set, at, .. } = &block.pages else { return Ok(()) };
    let Some(last) = set.last() else { return Ok(()) };
    let end = last.checked_add(1).and_then(|pages| pages.checked_mul(page_size)).and_then(|len| at.checked_add(len));
    if end.is_some_and(|end| end <= view.size()) {
        return Ok(());
    }
    let found = format!("the end of the file at {:#x}; it looks truncated, copy it again", view.size());
    if options.partial {
        notes.push(format!("some pages of block {} are missing: {found}", block.name));
        return Ok(());
    }
    Err(view.bad(*at, format!("the pages of block {}, up to page {last:#x}", block.name), found))
}

struct Walk<'a> {
    view: View<'a>,
    reader: Reader<'a>,
    stream: Stream,
    /// Places in `stream.blocks`.
    by_name: HashMap<String, usize>,
    /// The block of the last record.
    last: Option<usize>,
    /// Number of the section of RAM.
    ram: Option<u32>,
    /// Pages are at fixed places in the file (`mapped-ram`).
    mapped: bool,
    /// Sizes of pages, of which each is a bit, when postcopy was announced.
    postcopy: Option<u64>,
}

impl Walk<'_> {
    fn sections(&mut self) -> Result<()> {
        let (magic, version) = (self.reader.be32("the magic")?, self.reader.be32("the version")?);
        if (magic, version) != (super::MAGIC, VERSION) {
            return Err(Error::Unsupported {
                what: format!("{}: a QEMU migration stream of version {version}", self.view.path().display()),
                why: format!("version {VERSION} is known, which QEMU has written since 2010"),
            });
        }
        loop {
            let at = self.reader.at();
            match self.reader.byte("a section")? {
                kind::CONFIGURATION => self.configuration()?,
                kind::COMMAND => self.command()?,
                kind @ (kind::START | kind::FULL) => {
                    let number = self.reader.be32("the number of a section")?;
                    let name = self.reader.short_text("the name of a section")?;
                    let _instance = self.reader.be32("the instance of a section")?;
                    let version = self.reader.be32("the version of a section")?;
                    if name == "ram" && kind == kind::START {
                        self.start_ram(at, number, version)?;
                    } else {
                        self.pass_over(at, number, &name)?;
                    }
                }
                kind @ (kind::PART | kind::END) => {
                    let number = self.reader.be32("the number of a section")?;
                    if self.ram != Some(number) {
                        self.pass_over(at, number, "that is not of RAM")?;
                        continue;
                    }
                    self.records()?;
                    self.footer(number)?;
                    if kind == kind::END {
                        // What comes now are devices, whose length nothing says.
                        self.stream.devices = Some(self.reader.at());
                        return Ok(());
                    }
                }
                kind::EOF => return Err(self.view.bad(at, "the end of RAM", "the end of the stream")),
                other => return Err(self.view.bad(at, "a section of a known kind", format!("one of kind {other:#x}"))),
            }
        }
    }

    /// The machine type, and what of the way of migrating matters to the format.
    fn configuration(&mut self) -> Result<()> {
        let at = self.reader.at();
        let len = self.reader.be32("the machine type")?;
        if len > MAX_MACHINE {
            return Err(self.view.bad(at, "the name of a machine type", format!("one of {len:#x} bytes")));
        }
        let name = self.reader.bytes(usize::try_from(len).unwrap_or(0), "the machine type")?;
        self.stream.machine = Some(String::from_utf8_lossy(name).into_owned());
        while self.reader.peek(1, "a subsection")?.first() == Some(&kind::SUBSECTION) {
            let at = self.reader.at();
            self.reader.skip(1, "a subsection")?;
            let name = self.reader.short_text("the name of a subsection")?;
            let _version = self.reader.be32("the version of a subsection")?;
            match name.as_str() {
                "configuration/target-page-bits" => {
                    let bits = self.reader.be32("the size of pages")?;
                    let size =
                        Some(bits).filter(|bits| (10..=16).contains(bits)).and_then(|bits| 1u64.checked_shl(bits));
                    self.stream.page_size =
                        size.ok_or_else(|| self.view.bad(at, "pages of 10 to 16 bits", bits.to_string()))?;
                }
                "configuration/capabilities" => {
                    for _ in 0..self.reader.be32("the number of capabilities")? {
                        match self.reader.short_text("a capability")?.as_str() {
                            "mapped-ram" => self.mapped = true,
                            "x-ignore-shared" => self.stream.without_shared = true,
                            _ => {}
                        }
                    }
                }
                "configuration/uuid" => self.reader.skip(16, "the uuid")?,
                _ => return Err(self.view.bad(at, "a known part of the configuration", name)),
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<()> {
        let (command, len) = (self.reader.be16("a command")?, self.reader.be16("the length of a command")?);
        let next = self.reader.at().saturating_add(len.into());
        if command == POSTCOPY_ADVISE && len >= 8 {
            self.postcopy = Some(self.reader.be64("the sizes of pages")?);
        }
        let at = self.reader.at();
        self.reader.skip(next.saturating_sub(at), "a command")
    }

    fn start_ram(&mut self, at: u64, number: u32, version: u32) -> Result<()> {
        if !RAM_VERSIONS.contains(&version) {
            return Err(self.view.bad(at, "RAM in version 3 or 4", version.to_string()));
        }
        if self.ram.replace(number).is_some() {
            return Err(self.view.bad(at, "one section of RAM", "a second one"));
        }
        self.records()?;
        self.footer(number)
    }

    /// Takes the mark behind a section. Machine types before 2.3 have none.
    fn footer(&mut self, number: u32) -> Result<()> {
        let at = self.reader.at();
        let [b0, b1, b2, b3] = number.to_be_bytes();
        match self.reader.peek(5, "the end of a section")? {
            found if found == [kind::FOOTER, b0, b1, b2, b3] => self.reader.skip(5, "the end of a section"),
            [kind::FOOTER, ..] => Err(self.view.bad(at, format!("the end of section {number}"), "that of another")),
            _ => Ok(()),
        }
    }

    /// Goes behind a section of unknown length: to the mark at its end that another section follows.
    fn pass_over(&mut self, at: u64, number: u32, name: &str) -> Result<()> {
        const STEP: u64 = 64 << 10;
        let [b0, b1, b2, b3] = number.to_be_bytes();
        let mark = [kind::FOOTER, b0, b1, b2, b3];
        loop {
            let from = self.reader.at();
            let window = self.reader.peek(STEP, "a section")?;
            let known =
                |next: Option<&u8>| next.is_some_and(|kind| *kind <= kind::COMMAND && *kind != kind::SUBSECTION);
            let found = window
                .windows(mark.len().saturating_add(1))
                .position(|bytes| bytes.starts_with(&mark) && known(bytes.last()));
            let read = u64::try_from(window.len()).unwrap_or(0);
            if let Some(found) = found {
                let end = u64::try_from(found).unwrap_or(u64::MAX).saturating_add(5);
                self.reader.seek(from.saturating_add(end));
                return Ok(());
            }
            if read < STEP {
                return Err(self.view.bad(at, "the end of RAM", format!("section {name} without an end")));
            }
            // A mark may lie across the border.
            self.reader.seek(from.saturating_add(read).saturating_sub(5));
        }
    }

    /// The records of one section of RAM, up to the one that ends it.
    fn records(&mut self) -> Result<()> {
        const WHAT: &str = "a record of RAM";
        let low = self.stream.page_size.saturating_sub(1);
        loop {
            let at = self.reader.at();
            let word = self.reader.be64(WHAT)?;
            let (address, flags) = (word & !low, word & low);
            match flags & !flag::CONTINUE {
                flag::EOS => return Ok(()),
                flag::MEM_SIZE => self.blocks(at, address)?,
                flag::MULTIFD_FLUSH => {}
                kind @ (flag::ZERO | flag::PAGE | flag::COMPRESS_PAGE) => {
                    let block = self.block_of(at, flags)?;
                    let place = match kind {
                        flag::ZERO => Place::Fill(self.reader.byte(WHAT)?),
                        flag::PAGE => {
                            let place = Place::Stored(self.reader.at());
                            self.reader.skip(self.stream.page_size, "a page")?;
                            place
                        }
                        _ => {
                            let len = self.reader.be32(WHAT)?;
                            let place = Place::Packed { at: self.reader.at(), len };
                            // zlib adds little to what does not compress.
                            if u64::from(len) > self.stream.page_size.saturating_mul(2) {
                                return Err(self.view.bad(at, "a compressed page", format!("one of {len:#x} bytes")));
                            }
                            self.reader.skip(len.into(), "a compressed page")?;
                            place
                        }
                    };
                    self.page(at, block, address, place)?;
                }
                flag::XBZRLE => {
                    return Err(Error::Unsupported {
                        what: format!("{}: pages as changes to earlier ones (XBZRLE)", self.view.path().display()),
                        why: "migrate again with `migrate_set_capability xbzrle off`; a file gains nothing by it"
                            .to_owned(),
                    });
                }
                other => {
                    return Err(self.view.bad(
                        at,
                        "a record of RAM with known flags",
                        format!(
                            "{other:#x}; pages of a migration by RDMA or over several channels are not in the file"
                        ),
                    ));
                }
            }
        }
    }

    /// The block that a record is about.
    fn block_of(&mut self, at: u64, flags: u64) -> Result<usize> {
        if flags & flag::CONTINUE == 0 {
            let name = self.reader.short_text("the name of a block")?;
            self.last = self.by_name.get(&name).copied();
            if self.last.is_none() {
                return Err(self.view.bad(at, "a block that the stream lists", name));
            }
        }
        self.last.ok_or_else(|| self.view.bad(at, "the name of a block", "a record that goes on with the last"))
    }

    fn page(&mut self, at: u64, block: usize, address: u64, place: Place) -> Result<()> {
        let page_size = self.stream.page_size;
        let Some(block) = self.stream.blocks.get_mut(block) else { return Ok(()) };
        let inside = address.checked_add(page_size).is_some_and(|end| end <= block.len);
        match (&mut block.pages, address.checked_div(page_size)) {
            (Pages::Listed(listed), Some(page)) if inside => {
                listed.add(page, place);
                Ok(())
            }
            _ => Err(self.view.bad(
                at,
                format!("a page of the {:#x} bytes of block {}", block.len, block.name),
                format!("one at {address:#x}"),
            )),
        }
    }

    /// The list of all blocks, `total` bytes together.
    fn blocks(&mut self, at: u64, total: u64) -> Result<()> {
        let mut left = total;
        while left > 0 {
            let name = self.reader.short_text("the name of a block")?;
            let at = self.reader.at();
            let len = self.reader.be64("the length of a block")?;
            left = left.checked_sub(len).filter(|_| len > 0).ok_or_else(|| {
                self.view.bad(at, format!("at most {left:#x} bytes of block {name}"), format!("{len:#x}"))
            })?;
            self.page_size_of_block()?;
            if self.stream.without_shared {
                self.reader.skip(8, "the address of a block")?;
            }
            let pages = if self.mapped { self.mapped_pages(len)? } else { Pages::Listed(Listed::default()) };
            if self.stream.blocks.len() >= MAX_BLOCKS {
                return Err(self.view.bad(at, format!("{MAX_BLOCKS} blocks at most"), "more"));
            }
            if self.by_name.insert(name.clone(), self.stream.blocks.len()).is_some() {
                return Err(self.view.bad(at, "each block once", format!("{name} twice")));
            }
            self.stream.blocks.push(RamBlock { name, len, pages });
        }
        match self.stream.blocks.is_empty() {
            true => Err(self.view.bad(at, "blocks of RAM", "none")),
            false => Ok(()),
        }
    }

    /// Where postcopy was announced, blocks with larger pages than the host's say so.
    fn page_size_of_block(&mut self) -> Result<()> {
        let Some(sizes) = self.postcopy else { return Ok(()) };
        let next = self.reader.peek(8, "the size of a block's pages")?.first_chunk().copied().map(u64::from_be_bytes);
        // Nothing else that can follow is one of these numbers: a name has its length in the highest byte, and an address of a record
        // flags in the low bits.
        if next.is_some_and(|next| next.is_power_of_two() && next > self.stream.page_size && next & sizes != 0) {
            self.reader.skip(8, "the size of a block's pages")?;
        }
        Ok(())
    }

    /// The pages of a block that have fixed places.
    fn mapped_pages(&mut self, len: u64) -> Result<Pages> {
        let at = self.reader.at();
        let version = self.reader.be32("the header of a mapped block")?;
        let page_size = self.reader.be64("the header of a mapped block")?;
        let bitmap = self.reader.be64("the header of a mapped block")?;
        let pages_at = self.reader.be64("the header of a mapped block")?;
        if version != 1 || page_size != self.stream.page_size {
            return Err(self.view.bad(
                at,
                format!("a mapped block of version 1 with pages of {:#x} bytes", self.stream.page_size),
                format!("version {version}, {page_size:#x} bytes"),
            ));
        }
        // A block that is left out has no place.
        if (bitmap, pages_at) == (0, 0) {
            return Ok(Pages::none());
        }
        // In this order, so no two bitmaps are the same bytes.
        let count = len.checked_div(page_size).unwrap_or(0);
        let end = pages_at.checked_add(len).filter(|_| {
            bitmap >= self.reader.at() && bitmap.checked_add(count.div_ceil(8)).is_some_and(|end| end <= pages_at)
        });
        let end = end.ok_or_else(|| {
            self.view.bad(
                at,
                "a header, its bitmap, its pages",
                format!("a bitmap at {bitmap:#x}, pages at {pages_at:#x}"),
            )
        })?;
        let set = Bitmap::read(&self.view, bitmap, count, "the bitmap of a mapped block")?;
        self.reader.seek(end);
        Ok(Pages::Mapped { set, at: pages_at, count })
    }
}

//! QEMU's migration streams, which are also what `savevm` and libvirt's saved domains hold.
//!
//! ```text
//! header              magic, version
//! configuration       machine type, capabilities
//! RAM                 names and lengths of the blocks, then pages one by one; or (mapped-ram) pages at fixed places in the file
//! devices             of which only the last part says how long they are: a description in JSON
//! ```
//!
//! Owns: the order in which the parts are read, and how they become memory. Must not know: files.

mod devices;
mod layout;
mod pages;
mod reader;
mod stream;

use std::{io, path::Path, sync::Arc};

use memflow_core::{Error, Result, memory::RunMap};

use self::{
    pages::{Part, Ram},
    stream::Stream,
};
use crate::{
    blocks::{Blocks, intersect},
    image::{PackedImage, ParseOptions, ParsedImage},
    input::{ReadAt, View},
    raw::{Choice, MemoryLayout},
};

/// "QEVM", the first four bytes, big-endian.
const MAGIC: u32 = 0x5145_564d;

/// Reads the pages of a migration stream, laid out as its machine type says.
///
/// # Errors
/// [`Error::Format`] for a stream that contradicts itself or ends early, unless `options` allow partial images; [`Error::Unsupported`] for
/// ways of migrating that leave no memory in the file; [`Error::Io`] when the input cannot be read.
pub fn parse(input: Arc<dyn ReadAt>, options: ParseOptions) -> Result<PackedImage> {
    parse_at(input, 0, options, &MemoryLayout::Auto).map(|(image, _)| image)
}

/// The same for a stream that begins at `start`, laid out as `layout` says; with the layouts that it may have instead.
pub(crate) fn parse_at(
    input: Arc<dyn ReadAt>,
    start: u64,
    options: ParseOptions,
    layout: &MemoryLayout,
) -> Result<(PackedImage, Vec<MemoryLayout>)> {
    let view = View::new(&*input, "QEMU migration stream");
    let Stream { machine, mut blocks, page_size, without_shared, devices, notes } =
        stream::read(&view, start, options)?;
    let mut image = ParsedImage { notes, ..ParsedImage::default() };
    if let Some(devices) = devices {
        (image.facts.machine, image.facts.vcpus) = devices::vcpus(&view, devices)?;
    }

    let mut ram = Ram { input: input.clone(), parts: Vec::new(), size: 0, page_size };
    let mut held = Vec::new();
    for index in layout::guest_ram(&blocks, &mut image.notes) {
        let Some(block) = blocks.get_mut(index) else { continue };
        if !block.len.is_multiple_of(page_size) {
            let expected = format!("whole pages of {page_size:#x} bytes in block {}", block.name);
            return Err(view.bad(start, expected, format!("{:#x} bytes", block.len)));
        }
        let first = ram.size;
        let pages = std::mem::replace(&mut block.pages, pages::Pages::none());
        let part = Part { start: first, pages };
        held.extend(part.bytes(part.pages.held(), page_size));
        ram.parts.push(part);
        ram.size =
            first.checked_add(block.len).ok_or_else(|| view.bad(start, "RAM of less than 2^64 bytes", "more"))?;
    }
    let bytes = held.iter().fold(0, |sum: u64, held| sum.saturating_add(held.end.saturating_sub(held.start)));
    if bytes == 0 {
        return Err(no_ram(&view, start, without_shared));
    }
    let missing = ram.size.saturating_sub(bytes);
    if missing > 0 {
        image.notes.push(format!(
            "{missing:#x} bytes of RAM are not in the stream: the guest had given them back, they are shared with others, or the file ends before them"
        ));
    }
    let Choice { runs, notes, alternatives, .. } =
        layout::choose(&Evidence { ram: &ram, path: input.path() }, machine.as_deref(), layout)?;
    image.notes.extend(notes);
    image.runs = RunMap::new(intersect(&runs, &held))?;
    if image.runs.is_empty() {
        return Err(view.bad(start, "RAM where the layout has addresses", format!("none in {runs}")));
    }
    Ok((PackedImage { image, excluded: RunMap::default(), blocks: Box::new(ram) }, alternatives))
}

fn no_ram(view: &View<'_>, start: u64, without_shared: bool) -> Error {
    if without_shared {
        return Error::Unsupported {
            what: format!("{}: a migration stream without the RAM that is shared with others", view.path().display()),
            why: "it lies in the file that backs it; open that file".to_owned(),
        };
    }
    view.bad(start, "pages of the guest's RAM", "none")
}

/// RAM in which the firmware's tables are looked for; what is not in the stream is zeros here.
struct Evidence<'a> {
    ram: &'a Ram,
    path: &'a Path,
}

impl ReadAt for Evidence<'_> {
    fn path(&self) -> &Path {
        self.path
    }

    fn size(&self) -> u64 {
        self.ram.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if offset >= self.size() {
            return Ok(0);
        }
        let Ok(block) = self.ram.find(offset) else {
            let inside = offset.checked_rem(self.ram.page_size).unwrap_or(0);
            let left = usize::try_from(self.ram.page_size.saturating_sub(inside)).unwrap_or(0);
            let len = left.min(buf.len());
            buf.get_mut(..len).unwrap_or_default().fill(0);
            return Ok(len);
        };
        let mut page = vec![0; block.len];
        match self.ram.unpack(&block, &mut page) {
            Ok(()) => {}
            // It says nothing then.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => page.fill(0),
            Err(error) => return Err(error),
        }
        let inside = usize::try_from(offset.saturating_sub(block.start)).unwrap_or(usize::MAX);
        let from = page.get(inside..).unwrap_or_default();
        let len = from.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), from.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }
}

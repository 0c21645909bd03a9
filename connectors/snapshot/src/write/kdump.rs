//! kdump-compressed dumps, version 6: each page by itself, those of zeros stored once, what was left out told apart from what never was.
//!
//! ```text
//! block 0            header            lengths of what follows
//! block 1..          sub-header        then the notes, with VMCOREINFO among them
//! then               two bitmaps       which pages are memory, which are in the file
//! then               descriptors       known when the pages are, so written over what was skipped
//! then               pages             a page of zeros first, for all that are
//! ```
//!
//! Owns: the layout. Must not know: files.
//! Keeps: a page that does not get smaller is stored as it is; bitmaps cost holes where there is no memory.
//!
//! Source: makedumpfile, `diskdump_mod.h` (`disk_dump_header`, `kdump_sub_header`, `page_desc`) and `IMPLEMENTATION`.

use std::io;

use flate2::{Compress, Compression, FlushCompress, Status};
use memflow_core::{Error, PhysRange, Result, memory::MachineKind};

use super::{
    DumpCompression, Sink, WriteOptions,
    bits::{MAX_BITMAP, bitmap},
    notes::Notes,
    pipeline,
    source::{Source, joined},
    stream::{Item, Progress},
};

/// The block of the file, and the page: what every tool takes.
const BLOCK: u64 = 4096;
/// Pages in a piece of work.
const PIECE: u64 = 256 * BLOCK;
/// Length of a page descriptor.
const DESCRIPTOR: u64 = 24;
/// Where the sub-header ends and notes may begin.
const SUB_HEADER: u64 = 512;
/// Descriptors that are written at a time.
const DESCRIPTORS_AT_ONCE: usize = 1 << 16;
static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// Where everything lies.
struct Layout {
    pages: u64,
    sub_blocks: u64,
    /// Of one bitmap.
    bitmap_blocks: u64,
    descriptors: u64,
    data: u64,
}

/// Writes the dump.
///
/// # Errors
/// [`Error::Unsupported`] for memory that is not made of pages or too far apart, and for sinks that take bytes in order only; what cannot
/// be read or written; [`Error::Cancelled`] when the progress callback asks for it.
pub(super) fn write(source: &Source<'_>, sink: &mut dyn Sink, options: &WriteOptions<'_>) -> Result<()> {
    let pages = source.whole_pages("kdump", BLOCK, MAX_BITMAP * 8)?;
    if !sink.can_patch() {
        return Err(Error::Unsupported {
            what: "kdump of anything to a pipe or a device".to_owned(),
            why: "its index is written last; name a file, or take LiME or ELF, which are written in order".to_owned(),
        });
    }
    let notes = Notes::new(source.facts());
    let sub_blocks = (SUB_HEADER + notes.bytes.len() as u64).div_ceil(BLOCK);
    let bitmap_blocks = pages.div_ceil(8).div_ceil(BLOCK);
    let descriptors = (1 + sub_blocks + 2 * bitmap_blocks) * BLOCK;
    let count = source.ranges.iter().map(|range| range.len() / BLOCK).sum::<u64>();
    let layout = Layout { pages, sub_blocks, bitmap_blocks, descriptors, data: descriptors + count * DESCRIPTOR };
    let method = options.compression.unwrap_or(DumpCompression::Zlib);

    sink.write(&header(source, &layout, method))?;
    sink.write(&sub_header(source, &layout, &notes))?;
    let memory = joined(source.ranges.iter().chain(&source.excluded).copied());
    write_bitmap(&memory, &layout, sink)?;
    write_bitmap(&source.ranges, &layout, sink)?;
    sink.skip(count * DESCRIPTOR)?;
    bodies(source, &layout, method, sink, options)
}

/// Writes the pages, and their descriptors over what was skipped.
fn bodies(
    source: &Source<'_>,
    layout: &Layout,
    method: DumpCompression,
    sink: &mut dyn Sink,
    options: &WriteOptions<'_>,
) -> Result<()> {
    let mut zeros = Pages::default();
    Packer::new(method).page(&ZEROS, &mut zeros)?;
    let (zeros_at, mut at) = (layout.data, layout.data + zeros.bytes.len() as u64);
    sink.write(&zeros.bytes)?;
    let Some(&zero_page) = zeros.index.first() else { return Ok(()) };
    let mut progress = Progress::new(source, options);
    let mut index: Vec<u8> = Vec::new();
    let mut index_at = layout.descriptors;
    let jobs = source.ranges.iter().flat_map(|range| {
        let (start, len) = (range.start(), range.len());
        (0..len.div_ceil(PIECE)).filter_map(move |piece| {
            PhysRange::new(start.checked_add(piece * PIECE)?, (len - piece * PIECE).min(PIECE))
        })
    });
    pipeline::in_order(
        options.threads(),
        jobs,
        || Packer::new(method),
        |packer, range| packer.pages(source, range),
        |pages| {
            progress.advance(pages.memory)?;
            sink.write(&pages.bytes)?;
            for page in pages.index {
                let (offset, page) = match page.size {
                    0 => (zeros_at, zero_page),
                    size => {
                        at += u64::from(size);
                        (at - u64::from(size), page)
                    }
                };
                index.extend(offset.to_le_bytes());
                index.extend(page.size.to_le_bytes());
                index.extend(page.flags.to_le_bytes());
                index.extend([0; 8]);
            }
            if index.len() >= DESCRIPTORS_AT_ONCE * DESCRIPTOR as usize {
                sink.patch(index_at, &index)?;
                index_at += index.len() as u64;
                index.clear();
            }
            Ok(())
        },
    )?;
    sink.patch(index_at, &index)
}

/// Bits of `status` and of a descriptor's `flags`.
fn flag(method: DumpCompression) -> u32 {
    match method {
        DumpCompression::None => 0,
        DumpCompression::Zlib => 1,
        DumpCompression::Lzo => 2,
        DumpCompression::Snappy => 4,
        DumpCompression::Zstd => 0x20,
    }
}

/// The value of a line of VMCOREINFO.
fn told<'a>(source: &Source<'a>, key: &str) -> Option<&'a str> {
    let text = source.facts().vmcoreinfo.as_deref()?;
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b"="));
    std::str::from_utf8(line?).ok()
}

fn header(source: &Source<'_>, layout: &Layout, method: DumpCompression) -> Vec<u8> {
    let mut out = b"KDUMP   ".to_vec();
    out.extend(6u32.to_le_bytes());
    let machine = match source.facts().machine {
        Some(MachineKind::X86) => "i686",
        Some(MachineKind::X86_64) => "x86_64",
        Some(MachineKind::AArch64) => "aarch64",
        _ => "",
    };
    // Readers take nothing of this, not even the machine, if one of the names is empty. What Linux has itself for those that nobody set.
    let (system, unset) = if source.facts().vmcoreinfo.is_some() { ("Linux", "(none)") } else { ("", "") };
    for name in [system, unset, told(source, "OSRELEASE").unwrap_or(unset), unset, machine, unset] {
        let name = name.as_bytes();
        let mut field = [0; 65];
        // The last byte ends the text.
        field[..64].iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        out.extend(field);
    }
    // The time of the crash, where the layout of a 64-bit writer has it.
    out.resize(if narrow(source) { 404 } else { 408 }, 0);
    let seconds: u64 = told(source, "CRASHTIME").and_then(|text| text.parse().ok()).unwrap_or(0);
    if narrow(source) {
        out.extend((seconds as u32).to_le_bytes());
        out.extend([0; 4]);
    } else {
        out.extend(seconds.to_le_bytes());
        out.extend([0; 8]);
    }
    let short = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let sizes = [flag(method), BLOCK as u32, short(layout.sub_blocks), short(2 * layout.bitmap_blocks)];
    // The end of page numbers, RAM blocks, what a crash kernel's tool counted, and the number of vCPUs.
    let counts = [short(layout.pages), 0, 0, 0, 0, short(source.facts().vcpus.len().max(1) as u64)];
    sizes.into_iter().chain(counts).for_each(|field| out.extend(field.to_le_bytes()));
    out.resize(BLOCK as usize, 0);
    out
}

/// True for machines whose tools write the 32-bit layout, which their readers expect.
fn narrow(source: &Source<'_>) -> bool {
    source.facts().machine == Some(MachineKind::X86)
}

fn sub_header(source: &Source<'_>, layout: &Layout, notes: &Notes) -> Vec<u8> {
    let narrow = narrow(source);
    let notes_at = BLOCK + SUB_HEADER;
    let word = |out: &mut Vec<u8>, value: u64| match narrow {
        true => out.extend((value as u32).to_le_bytes()),
        false => out.extend(value.to_le_bytes()),
    };
    let mut out = Vec::new();
    let phys_base = told(source, "NUMBER(phys_base)").and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    word(&mut out, phys_base as u64);
    // What was left out by which rule, nobody tells; not split.
    out.extend([0; 8]);
    word(&mut out, 0);
    word(&mut out, 0);
    let (vmcoreinfo_at, vmcoreinfo_len) =
        notes.vmcoreinfo.map_or((0, 0), |(at, len)| (notes_at + at as u64, len as u64));
    out.extend(vmcoreinfo_at.to_le_bytes());
    word(&mut out, vmcoreinfo_len);
    out.extend(if notes.bytes.is_empty() { 0 } else { notes_at }.to_le_bytes());
    word(&mut out, notes.bytes.len() as u64);
    // Nothing was erased.
    out.extend([0; 8]);
    word(&mut out, 0);
    for field in [0, 0, layout.pages] {
        out.extend(field.to_le_bytes());
    }
    out.resize(SUB_HEADER as usize, 0);
    out.extend(&notes.bytes);
    out.resize((layout.sub_blocks * BLOCK) as usize, 0);
    out
}

/// Writes a bitmap with the pages of `ranges`, which are sorted.
fn write_bitmap(ranges: &[PhysRange], layout: &Layout, sink: &mut dyn Sink) -> Result<()> {
    for item in bitmap(ranges, BLOCK, layout.bitmap_blocks * BLOCK) {
        match item {
            Item::Bytes(bits) => sink.write(&bits)?,
            Item::Zeros(len) => sink.skip(len)?,
            Item::Memory(_) => {}
        }
    }
    Ok(())
}

/// A page in the file: its size there, and how it is compressed. One of zeros has no size.
#[derive(Clone, Copy)]
struct Page {
    size: u32,
    flags: u32,
}

/// Pages that follow each other.
#[derive(Default)]
struct Pages {
    bytes: Vec<u8>,
    index: Vec<Page>,
    memory: u64,
}

/// Packs the pages of one thread.
struct Packer {
    method: DumpCompression,
    unpacked: Vec<u8>,
    packed: Vec<u8>,
    zlib: Compress,
    lzo: Box<lzokay::compress::Dict>,
    snappy: snap::raw::Encoder,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Packer {
    fn new(method: DumpCompression) -> Self {
        Self {
            method,
            unpacked: Vec::new(),
            packed: vec![0; 2 * BLOCK as usize],
            zlib: Compress::new(Compression::fast(), true),
            lzo: lzokay::compress::Dict::new(),
            snappy: snap::raw::Encoder::new(),
            zstd: None,
        }
    }

    fn pages(&mut self, source: &Source<'_>, range: PhysRange) -> Result<Pages> {
        let mut unpacked = std::mem::take(&mut self.unpacked);
        unpacked.clear();
        source.read(range, &mut unpacked)?;
        let mut pages = Pages { memory: range.len(), ..Pages::default() };
        for page in unpacked.chunks(BLOCK as usize) {
            match page == ZEROS {
                true => pages.index.push(Page { size: 0, flags: 0 }),
                false => self.page(page, &mut pages)?,
            }
        }
        self.unpacked = unpacked;
        Ok(pages)
    }

    /// Adds one page, packed if that makes it smaller.
    fn page(&mut self, page: &[u8], pages: &mut Pages) -> Result<()> {
        let len = self.pack(page).map_err(|error| Error::io("compressing a page", error))?;
        let (flags, bytes) =
            match self.packed.get(..len).filter(|packed| !packed.is_empty() && packed.len() < page.len()) {
                Some(packed) => (flag(self.method), packed),
                None => (0, page),
            };
        pages.bytes.extend_from_slice(bytes);
        pages.index.push(Page { size: bytes.len() as u32, flags });
        Ok(())
    }

    /// Packs a page into `packed`; zero for one that is not.
    fn pack(&mut self, page: &[u8]) -> io::Result<usize> {
        match self.method {
            DumpCompression::None => Ok(0),
            DumpCompression::Zlib => {
                self.zlib.reset();
                let status = self.zlib.compress(page, &mut self.packed, FlushCompress::Finish)?;
                Ok(if status == Status::StreamEnd { self.zlib.total_out() as usize } else { 0 })
            }
            DumpCompression::Lzo => lzokay::compress::compress_no_alloc(page, &mut self.packed, &mut self.lzo)
                .map_err(|error| io::Error::other(error.to_string())),
            DumpCompression::Snappy => Ok(self.snappy.compress(page, &mut self.packed)?),
            DumpCompression::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    None => self.zstd.insert(zstd::bulk::Compressor::new(1)?),
                };
                zstd.compress_to_buffer(page, &mut self.packed)
            }
        }
    }
}

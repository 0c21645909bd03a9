//! Which pages a crash dump holds, and where.
//!
//! Owns: the three ways to say it: the header's runs, a bitmap, a list of ranges. Must not know: what the pages hold.
//! Keeps: nothing is allocated on the word of a count before the bytes that it counts are known to be there.
//!
//! Sources: `FULL_DUMP64`, `SUMMARY_DUMP32` and `SUMMARY_DUMP64` of the Windows Driver Kit; for bitmaps since Windows 8 and for lists of
//! ranges the layouts that kdmp-parser and rizin publish (`BMP_HEADER64`, `RDMP_HEADER64`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{PhysAddr, PhysRange, Result, memory::Run};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use super::{
    COMPLETE, PAGE,
    header::Header,
    raw::{BITMAP_BITS, BITMAP_FIELDS, BitmapFields},
};
use crate::{bitmap::Bitmap, image::ParseOptions, input::View};

/// The pages of a dump.
pub(super) struct Body {
    pub(super) runs: Vec<Run>,
    /// Pages that are counted somewhere and are in no run.
    pub(super) missing: u64,
}

/// What a bitmap begins with, in all its layouts.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct BitmapStart {
    signature: [u8; 4],
    valid: [u8; 4],
    options: U32,
    /// Offset of the first page, up to Windows 7.
    old_first_page: U32,
    /// Number of bits, up to Windows 7.
    old_bits: U32,
    /// Number of set bits, up to Windows 7.
    old_pages: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RangesHeader {
    marker: U32,
    signature: [u8; 4],
    valid: [u8; 4],
    reserved: U32,
    metadata: U64,
    first_page: U64,
    /// Complete dumps: the number of ranges.
    count: U32,
    reserved_too: U32,
    /// Complete dumps: the number of pages.
    pages: U64,
}

/// Ranges are read in pieces of this many.
const RANGES_AT_ONCE: u64 = 4096;

/// The pages of the runs in the header, one after the other.
pub(super) fn complete(view: &View<'_>, header: &Header) -> Result<Body> {
    if header.runs.is_empty() {
        return Err(view.bad(if header.wide { 0x88 } else { 0x64 }, "runs of memory in the header", "none"));
    }
    let mut offset = header.body;
    let mut runs = Vec::with_capacity(header.runs.len());
    for &[first, count] in &header.runs {
        let run = pages(first, count, offset).ok_or_else(|| {
            view.bad(0x88, "runs inside 2^64 bytes", format!("{count:#x} pages from page {first:#x} on"))
        })?;
        offset = offset.saturating_add(run.range.len());
        runs.push(run);
    }
    Ok(Body { runs, missing: 0 })
}

/// The pages whose bits are set.
pub(super) fn bitmap(view: &View<'_>, header: &Header, options: ParseOptions) -> Result<Body> {
    let at = header.body;
    let start: BitmapStart = view.read(at, "the header of the bitmap")?;
    if !matches!(&start.signature, b"SDMP" | b"FDMP") || &start.valid != b"DUMP" {
        let found: Vec<u8> = [start.signature, start.valid].concat();
        return Err(view.bad(at, "SDMPDUMP or FDMPDUMP", String::from_utf8_lossy(&found).into_owned()));
    }
    let layout = layouts(view, header, &start)?.into_iter().find(|layout| layout.fits(view));
    let Some(Layout { bits_at, bits, first_page, pages }) = layout else {
        return Err(view.bad(
            at,
            "a bitmap that ends before the first page, both in the file",
            "sizes that fit neither the layout of Windows 8 and later nor the one before",
        ));
    };
    let bitmap = Bitmap::read(view, bits_at, bits, "the bitmap")?;
    let room = view.size().saturating_sub(first_page).div_ceil(PAGE);
    let count = bitmap.count();
    // Before any run is made: a bitmap can list more of them than the file has room for pages.
    if count > room && !options.partial {
        return Err(view.bad(
            first_page,
            format!("the {count:#x} pages of the bitmap"),
            format!(
                "room for {room:#x} before the end of the file at {:#x}; it looks truncated, copy it again or open it as a partial image",
                view.size()
            ),
        ));
    }
    let runs = bitmap.listed(PAGE, first_page, room);
    Ok(Body { runs, missing: pages.saturating_sub(count).saturating_add(count.saturating_sub(room)) })
}

/// Where a bitmap and its pages are.
struct Layout {
    bits_at: u64,
    bits: u64,
    first_page: u64,
    pages: u64,
}

impl Layout {
    /// The bitmap lies before the first page, and both in the file.
    fn fits(&self, view: &View<'_>) -> bool {
        let end = self.bits_at.checked_add(self.bits.div_ceil(8));
        self.bits > 0
            && self.pages <= self.bits
            && self.first_page <= view.size()
            && end.is_some_and(|end| end <= self.first_page)
    }
}

/// How the sizes may be laid out, the likelier first.
fn layouts(view: &View<'_>, header: &Header, start: &BitmapStart) -> Result<Vec<Layout>> {
    let at = header.body;
    // RTL_BITMAP follows, and before the bits a word that is a pointer in memory; 64-bit writers align it.
    let bits_at = at.saturating_add(if header.wide { 0x28 } else { 0x20 });
    let old = Layout {
        bits_at,
        bits: start.old_bits.get().into(),
        first_page: start.old_first_page.get().into(),
        pages: start.old_pages.get().into(),
    };
    let fields: BitmapFields = view.read(at.saturating_add(BITMAP_FIELDS), "the header of the bitmap")?;
    let new = Layout {
        bits_at: at.saturating_add(BITMAP_BITS),
        bits: fields.bits.get(),
        first_page: fields.first_page.get(),
        pages: fields.pages.get(),
    };
    Ok(if header.wide { vec![new, old] } else { vec![old, new] })
}

/// The pages of a list of ranges.
pub(super) fn ranges(view: &View<'_>, header: &Header, options: ParseOptions) -> Result<Body> {
    let at = header.body;
    let raw: RangesHeader = view.read(at, "the header of the ranges")?;
    if (raw.marker.get(), &raw.signature, &raw.valid) != (0x40, b"RDMP", b"DUMP") {
        let found: Vec<u8> = [raw.signature, raw.valid].concat();
        return Err(view.bad(
            at,
            "0x40 and RDMPDUMP",
            format!("{:#x} and {}", raw.marker.get(), String::from_utf8_lossy(&found)),
        ));
    }
    let list = at.saturating_add(0x30);
    let (metadata, first_page) = (raw.metadata.get(), raw.first_page.get());
    // The list of ranges ends where the pages begin.
    if at.checked_add(0x20).and_then(|start| start.checked_add(metadata)) != Some(first_page) || first_page < list {
        return Err(view.bad(
            at.saturating_add(0x10),
            "ranges that end where the pages begin",
            format!("{metadata:#x} bytes of them, and pages from {first_page:#x} on"),
        ));
    }
    if first_page > view.size() {
        return Err(view.ends_early(list, first_page.saturating_sub(list), "ranges"));
    }
    let promised = (header.kind == COMPLETE).then(|| raw.pages.get());
    let mut body = Body { runs: Vec::new(), missing: 0 };
    let (mut offset, mut found): (u64, u64) = (first_page, 0);
    let mut left = first_page.saturating_sub(list).checked_div(16).unwrap_or(0);
    let mut from = list;
    'all: while left > 0 {
        let step = left.min(RANGES_AT_ONCE);
        let bytes = view.bytes(from, step.saturating_mul(16), "ranges")?;
        for range in bytes.chunks_exact(16) {
            let Ok([first, count]) = <[U64; 2]>::read_from_bytes(range) else { break 'all };
            let (first, count) = (first.get(), count.get());
            // The rest of the room for the list is empty.
            if count == 0 || (promised.is_none() && first == 0) || promised.is_some_and(|promised| found >= promised) {
                break 'all;
            }
            let run = pages(first, count, offset).ok_or_else(|| {
                view.bad(from, "ranges inside 2^64 bytes", format!("{count:#x} pages from page {first:#x} on"))
            })?;
            offset = offset.saturating_add(run.range.len());
            found = found.saturating_add(count);
            body.runs.push(run);
        }
        left = left.saturating_sub(step);
        from = from.saturating_add(step.saturating_mul(16));
    }
    body.missing = promised.unwrap_or(0).saturating_sub(found);
    if body.missing > 0 && !options.partial {
        return Err(view.bad(
            list,
            format!("ranges of {:#x} pages", promised.unwrap_or(0)),
            format!("{found:#x} pages"),
        ));
    }
    Ok(body)
}

/// A run of pages at an offset of the file.
fn pages(first: u64, count: u64, offset: u64) -> Option<Run> {
    let range = PhysRange::new(PhysAddr::new(first.checked_mul(PAGE)?), count.checked_mul(PAGE)?)?;
    offset.checked_add(range.len()).map(|_| Run { range, offset })
}

//! LiME images, version 1: ranges of memory, each behind a header of 32 bytes.
//!
//! Owns: the walk over the headers. Must not know: files, what lies in the memory.
//! Keeps: one step per header, each of which moves on; runs are never more than the headers in the file.
//! Source: `doc/README.md` of LiME (Linux Memory Extractor), "lime" format: magic, version, first address, last address
//! (inclusive), eight reserved bytes, all little-endian. Zeros between ranges are tolerated, as some writers align headers.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    Error, PhysAddr, PhysRange, Result,
    memory::{Run, RunMap},
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use crate::{
    image::{ParseOptions, ParsedImage},
    input::{ReadAt, View},
};

/// "EMiL", as the first four bytes of a header.
pub(crate) const MAGIC: u32 = 0x4c69_4d45;
/// "AVML", the first four bytes of what AVML calls version 2.
const AVML_MAGIC: u32 = 0x4c4d_5641;
pub(crate) const VERSION: u32 = 1;
const HEADER: u64 = 32;
/// Most zeros between two ranges, or after the last.
const MAX_PADDING: u64 = 1 << 20;

/// `lime_mem_range_header`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: U32,
    version: U32,
    first: U64,
    last: U64,
    reserved: [u8; 8],
}

/// Reads the headers of a LiME image.
///
/// # Errors
/// [`Error::Format`] for headers that contradict themselves, each other or the length of the file, unless `options` allow
/// partial images; [`Error::Unsupported`] for other versions; [`Error::Io`] when the input cannot be read.
pub fn parse(input: &dyn ReadAt, options: ParseOptions) -> Result<ParsedImage> {
    let view = View::new(input, "LiME");
    let mut image = ParsedImage::default();
    let mut runs = Vec::new();
    let mut at = 0;
    while at < view.size() {
        match next_range(&view, options, at, &mut image.notes) {
            Ok(Some((run, next))) => {
                runs.push(run);
                at = next;
            }
            Ok(None) => break,
            Err(error @ Error::Format { .. }) if options.partial && !runs.is_empty() => {
                image.notes.push(format!("memory after the first {at:#x} bytes of the file is missing: {error}"));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    image.runs = RunMap::new(disjoint(&view, options, runs, &mut image.notes)?)?;
    if image.runs.is_empty() {
        return Err(view.bad(0, "a range of memory", "none"));
    }
    Ok(image)
}

/// The range whose header is at `at` or after padding there, and where to go on; `None` when only padding is left.
fn next_range(view: &View<'_>, options: ParseOptions, at: u64, notes: &mut Vec<String>) -> Result<Option<(Run, u64)>> {
    let Some(at) = skip_padding(view, at)? else { return Ok(None) };
    let header: Header = view.read(at, "a range's header")?;
    check_kind(view, at, &header)?;
    let (first, last) = (header.first.get(), header.last.get());
    let Some(range) = PhysRange::inclusive(PhysAddr::new(first), PhysAddr::new(last)) else {
        return Err(view.bad(
            at.saturating_add(8),
            "a range whose last address is not below its first",
            format!("{first:#x} to {last:#x}"),
        ));
    };
    let (offset, size) = (at.saturating_add(HEADER), view.size());
    if let Some(next) = offset.checked_add(range.len()).filter(|next| *next <= size) {
        return Ok(Some((Run { range, offset }, next)));
    }
    let held = PhysRange::new(range.start(), size.saturating_sub(offset)).filter(|held| !held.is_empty());
    if let (true, Some(held)) = (options.partial, held) {
        let missing = range.len().saturating_sub(held.len());
        notes.push(format!(
            "the file ends at {size:#x}: the last {missing:#x} of {:#x} bytes of {range} are missing",
            range.len()
        ));
        return Ok(Some((Run { range: held, offset }, size)));
    }
    Err(view.bad(
        at,
        format!("the {:#x} bytes of {range} after the header", range.len()),
        format!("the end of the file at {size:#x}; it looks truncated, copy it again or open it as a partial image"),
    ))
}

/// Refuses what is not LiME, version 1.
fn check_kind(view: &View<'_>, at: u64, header: &Header) -> Result<()> {
    let (magic, version) = (header.magic.get(), header.version.get());
    let unsupported = |what: &str, why: &str| {
        Err(Error::Unsupported { what: format!("{}: {what}", view.path().display()), why: why.to_owned() })
    };
    match (magic, version) {
        (MAGIC, VERSION) => Ok(()),
        (MAGIC, other) => unsupported(&format!("LiME version {other} at offset {at:#x}"), "version 1 is known here"),
        (AVML_MAGIC, _) => unsupported(
            &format!("an AVML range (LiME version 2, compressed) at offset {at:#x}, behind ranges of version 1"),
            "a file has one version; convert it with `avml-convert --source-format lime_compressed --format lime IN OUT`",
        ),
        _ => Err(view.bad(at, format!("the LiME magic {MAGIC:#010x}"), format!("{magic:#010x}"))),
    }
}

/// Offset of the first byte at or after `at` that is not zero; `None` when there is none. Costs in proportion to the zeros.
fn skip_padding(view: &View<'_>, at: u64) -> Result<Option<u64>> {
    let (mut from, mut step): (u64, u64) = (at, 32);
    while from < view.size() {
        if from.saturating_sub(at) >= MAX_PADDING {
            return Err(view.bad(at, format!("a range's header within {MAX_PADDING:#x} bytes"), "zeros"));
        }
        let len = step.min(view.size().saturating_sub(from));
        let bytes = view.bytes(from, len, "a range's header")?;
        if let Some(zeros) = bytes.iter().position(|byte| *byte != 0) {
            return Ok(u64::try_from(zeros).ok().and_then(|zeros| from.checked_add(zeros)));
        }
        from = from.saturating_add(len);
        step = step.saturating_mul(2).min(64 << 10);
    }
    Ok(None)
}

/// Refuses ranges that overlap; in a partial image the bytes of the one that starts lower are used.
fn disjoint(view: &View<'_>, options: ParseOptions, mut runs: Vec<Run>, notes: &mut Vec<String>) -> Result<Vec<Run>> {
    runs.sort_by_key(|run| (run.range.start(), run.offset));
    let mut last: Option<PhysRange> = None;
    let mut kept: Vec<Run> = Vec::with_capacity(runs.len());
    for mut run in runs {
        if let Some(previous) = last
            && let Some(shared) = previous.intersection(&run.range)
        {
            if !options.partial {
                return Err(view.bad(
                    run.offset.saturating_sub(HEADER),
                    "each physical address once",
                    format!("{} although {previous} came before", run.range),
                ));
            }
            notes.push(format!("{} and {previous} overlap; the bytes of the latter are used", run.range));
            let rest = run.range.start().checked_add(shared.len()).and_then(|start| {
                PhysRange::new(start, run.range.len().checked_sub(shared.len())?).filter(|rest| !rest.is_empty())
            });
            let Some(range) = rest else { continue };
            run = Run { range, offset: run.offset.saturating_add(shared.len()) };
        }
        last = Some(run.range);
        kept.push(run);
    }
    Ok(kept)
}

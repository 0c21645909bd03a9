//! From `PT_LOAD` segments to runs of physical memory.
//!
//! Owns: what happens where segments are short, cut off or overlap.
//! Must not know: ELF classes, notes.
//! Keeps: an address has one place in the file. Segments that name the same physical memory twice are common and harmless:
//! `dump-guest-memory -p` lists a frame once for each of its mappings, with the same place in the file; `/proc/vmcore` repeats
//! the kernel's text, with the same bytes elsewhere in the file. Anything else is refused, never decided silently.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    PhysAddr, PhysRange, Result,
    memory::{Run, RunMap},
};

use super::parse::Segment;
use crate::{image::ParseOptions, input::View};

/// Bytes compared, over all segments, to see whether memory that is there twice is the same; several times a kernel's image. A file in
/// which segments lie apart has no more of them than it is long.
const MAX_COMPARED: u64 = 256 << 20;

/// A piece of a segment that was accepted.
struct Placed {
    run: Run,
    /// The segment's place in the table.
    index: u64,
}

/// The runs of all `PT_LOAD` segments.
pub(super) fn to_runs(
    view: &View<'_>,
    options: ParseOptions,
    loads: &[Segment],
    remarks: &mut Vec<String>,
) -> Result<RunMap> {
    let mut pieces = Vec::new();
    let mut left_out: u64 = 0;
    let mut virtual_only: u64 = 0;
    for segment in loads {
        if segment.paddr == u64::MAX {
            virtual_only = virtual_only.saturating_add(1);
            continue;
        }
        let held = check(view, options, segment, remarks)?;
        left_out = left_out.saturating_add(segment.memsz.saturating_sub(segment.filesz));
        if let Some(range) = PhysRange::new(PhysAddr::new(segment.paddr), held).filter(|range| !range.is_empty()) {
            pieces.push(Placed { run: Run { range, offset: segment.offset }, index: segment.index });
        }
    }
    if virtual_only > 0 {
        remarks.push(format!("{virtual_only} segments have no physical address and are left aside"));
    }
    if left_out > 0 {
        remarks
            .push(format!("the headers name {left_out:#x} bytes that the writer left out; they are gaps, not zeros"));
    }
    let runs = RunMap::new(resolve_overlaps(view, options, pieces, remarks)?)?;
    if runs.is_empty() {
        return Err(view.bad(0, "segments with physical memory (PT_LOAD)", "none"));
    }
    Ok(runs)
}

/// Checks one segment against itself and the file; says how many of its bytes the file holds.
fn check(view: &View<'_>, options: ParseOptions, segment: &Segment, remarks: &mut Vec<String>) -> Result<u64> {
    let Segment { index, header, offset, paddr, filesz, memsz, .. } = *segment;
    if filesz > memsz {
        return Err(view.bad(
            header,
            format!("at most the {memsz:#x} bytes that segment {index} has in memory"),
            format!("{filesz:#x} bytes in the file"),
        ));
    }
    if PhysRange::new(PhysAddr::new(paddr), memsz).is_none() {
        return Err(view.bad(
            header,
            format!("segment {index} to end within the address space"),
            format!("{memsz:#x} bytes from physical {paddr:#x}"),
        ));
    }
    // The writer sets no offset for memory that it leaves out.
    if filesz == 0 {
        return Ok(0);
    }
    let size = view.size();
    if offset.checked_add(filesz).is_some_and(|end| end <= size) {
        return Ok(filesz);
    }
    if options.partial {
        let held = size.saturating_sub(offset).min(filesz);
        let missing = filesz.saturating_sub(held);
        remarks.push(format!(
            "the file ends at {size:#x}: the last {missing:#x} of {filesz:#x} bytes of segment {index} (physical {paddr:#x}) are missing"
        ));
        return Ok(held);
    }
    Err(view.bad(
        header,
        format!("{filesz:#x} bytes of segment {index} at offset {offset:#x}"),
        format!("the end of the file at {size:#x}; it looks truncated, copy it again or open it as a partial image"),
    ))
}

/// Makes the pieces disjoint.
fn resolve_overlaps(
    view: &View<'_>,
    options: ParseOptions,
    mut pieces: Vec<Placed>,
    remarks: &mut Vec<String>,
) -> Result<Vec<Run>> {
    pieces.sort_by_key(|piece| (piece.run.range.start(), piece.index));
    let mut runs: Vec<Run> = Vec::with_capacity(pieces.len());
    let mut last: Option<Placed> = None;
    let most = MAX_COMPARED.min(view.size());
    let mut budget = most;
    for mut piece in pieces {
        if let Some(previous) = &last
            && let Some(shared) = previous.run.range.intersection(&piece.run.range)
        {
            // `runs` is disjoint and sorted, so its last run is the only one that reaches up to this piece.
            let same = same_memory(view, &previous.run, &piece.run, shared, &mut budget, most)?;
            if !same {
                let text = format!("segments {} and {} hold different bytes for {shared}", previous.index, piece.index);
                if !options.partial {
                    return Err(view.bad(
                        piece.run.offset,
                        "each physical address once",
                        format!("{text}; a partial image takes those of segment {}", previous.index),
                    ));
                }
                remarks.push(format!("{text}; those of segment {} are used", previous.index));
            }
            let skip = shared.len();
            let rest = piece.run.range.start().checked_add(skip).and_then(|start| {
                PhysRange::new(start, piece.run.range.len().checked_sub(skip)?).filter(|rest| !rest.is_empty())
            });
            let Some(range) = rest else { continue };
            piece.run = Run { range, offset: piece.run.offset.saturating_add(skip) };
        }
        runs.push(piece.run);
        last = Some(piece);
    }
    Ok(runs)
}

/// Whether two runs have the same bytes for the addresses in `shared`.
fn same_memory(
    view: &View<'_>,
    first: &Run,
    second: &Run,
    shared: PhysRange,
    budget: &mut u64,
    most: u64,
) -> Result<bool> {
    let place =
        |run: &Run| shared.start().offset_from(run.range.start()).and_then(|inside| run.offset.checked_add(inside));
    let (Some(a), Some(b)) = (place(first), place(second)) else { return Ok(false) };
    if a == b {
        return Ok(true);
    }
    match budget.checked_sub(shared.len()) {
        Some(rest) => *budget = rest,
        None => {
            return Err(view.bad(
                b,
                format!("at most {most:#x} bytes of physical memory stored twice"),
                format!("more, at {shared}"),
            ));
        }
    }
    view.same_bytes(a, b, shared.len())
}

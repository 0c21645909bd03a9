//! Which segments are physical memory.
//!
//! Owns: the rule that tells the kernel's mapping of all memory from its other areas.
//! Must not know: files, notes.
//! Keeps: an address has one place in the file, or the file is refused.
//! Source: `fs/proc/kcore.c` of Linux. `kcore_ram_list` makes an area for each range of System RAM, at the virtual address where the
//! direct map has it, so virtual minus physical address is one number for all of them (`PAGE_OFFSET` on x86-64, `PAGE_OFFSET` minus
//! `PHYS_OFFSET` on arm64). `read_kcore_iter` writes for them, and for the kernel's own image, a `p_paddr`; for vmalloc, modules,
//! vmemmap and vsyscall it writes all ones. Before Linux 4.11 (commit 464920104bf7) it wrote zero for every area.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{collections::BTreeMap, path::Path};

use memflow_core::{
    Error, PhysAddr, PhysRange, Result,
    memory::{Run, RunMap},
};

use crate::headers::{FORMAT, Segment};

/// The runs of physical memory, with places in the file as offsets. `path` names the file in messages.
///
/// Of the segments with a physical address, those whose virtual and physical addresses lie the same distance apart belong
/// together. The largest such set is the direct map: the kernel's own image, the other one, is part of System RAM and so in it.
///
/// # Errors
/// [`Error::Unsupported`] when no segment says its physical address; [`Error::Format`] for segments that leave an address space or
/// the file, [`Error::Overlap`] for those that hold one address twice.
pub fn physical_runs(segments: &[Segment], path: &Path) -> Result<RunMap> {
    let with_address = || segments.iter().filter(|segment| segment.paddr != u64::MAX);
    if with_address().filter(|segment| segment.paddr == 0).count() > 1 {
        return Err(Error::Unsupported {
            what: format!("{}: a kcore with several segments at physical address 0", path.display()),
            why: "kernels before Linux 4.11 do not say where memory lies; open a dump of the machine instead"
                .to_owned(),
        });
    }
    let mut maps: BTreeMap<u64, Vec<Segment>> = BTreeMap::new();
    for segment in with_address() {
        maps.entry(segment.vaddr.wrapping_sub(segment.paddr)).or_default().push(*segment);
    }
    let total = |map: &[Segment]| map.iter().fold(0, |sum: u64, segment| sum.saturating_add(segment.len));
    let Some(direct) = maps.into_values().max_by_key(|map| total(map)) else {
        return Err(Error::Unsupported {
            what: format!("{}: {} segments, none of them with a physical address", path.display(), segments.len()),
            why: "it holds no machine's memory; is it a kcore, and whole?".to_owned(),
        });
    };
    let runs: Vec<Run> = direct.iter().map(|segment| run(segment, path)).collect::<Result<_>>()?;
    RunMap::new(runs)
}

/// A segment as a run.
fn run(segment: &Segment, path: &Path) -> Result<Run> {
    let bad = |expected: &'static str, found: String| Error::Format {
        path: path.to_owned(),
        format: FORMAT,
        offset: segment.offset,
        expected: expected.into(),
        found: found.into(),
    };
    let Segment { index, offset, paddr, len, .. } = *segment;
    let range = PhysRange::new(PhysAddr::new(paddr), len).ok_or_else(|| {
        bad("a segment within the address space", format!("{len:#x} bytes at physical {paddr:#x} in segment {index}"))
    })?;
    // A file has at most 2^63 - 1 bytes (`loff_t`).
    if offset.checked_add(len).is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(bad("a segment within a file", format!("{len:#x} bytes at offset {offset:#x} in segment {index}")));
    }
    Ok(Run { range, offset })
}

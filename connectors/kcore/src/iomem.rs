//! The kernel's list of physical addresses, as far as it is RAM.
//!
//! Owns: the text format, and runs cut to it. Must not know: where the text comes from.
//! Keeps: a list that hides its addresses is no list.
//! Source: `r_show` in `kernel/resource.c` of Linux: `START-LAST : NAME`, indented by depth; both addresses are zero for readers without
//! CAP_SYS_ADMIN.
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
    memory::{Piece, Run, RunMap},
};

/// What RAM is called there; a driver that adds some puts its name behind.
const RAM: &str = "System RAM";

/// The ranges of System RAM in the text of `/proc/iomem`, or `None` when it does not tell them.
pub fn system_ram(text: &str) -> Option<RunMap> {
    let mut ranges = Vec::new();
    for line in text.lines() {
        let Some((range, name)) = line.trim().split_once(" : ") else { continue };
        if !name.starts_with(RAM) {
            continue;
        }
        let (first, last) = range.split_once('-')?;
        let address = |text: &str| u64::from_str_radix(text, 16).ok().map(PhysAddr::new);
        let range = PhysRange::inclusive(address(first)?, address(last)?)?;
        if range.last() == Some(PhysAddr::new(0)) {
            return None;
        }
        ranges.push(range);
    }
    // Offsets mean nothing here.
    let runs = RunMap::new(ranges.into_iter().map(|range| Run { range, offset: 0 })).ok()?;
    (!runs.is_empty()).then_some(runs)
}

/// What `runs` hold inside of `ram`.
///
/// # Errors
/// None that runs from a [`RunMap`] could cause.
pub(crate) fn inside(runs: &RunMap, ram: &RunMap) -> Result<RunMap> {
    let pieces = ram.runs().iter().flat_map(|run| runs.pieces(run.range));
    RunMap::new(pieces.filter_map(|piece| match piece {
        Piece::Present { range, offset, .. } => Some(Run { range, offset }),
        Piece::Gap { .. } => None,
    }))
}

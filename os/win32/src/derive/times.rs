//! Members that tell when a process was made and how it ended.
//!
//! Owns: what a time and a status of a process look like. Must not know: threads, regions.
//! Keeps: as `process`.
//! Source: times in units of 100 ns since 1601; `STATUS_PENDING` (0x103) as the exit status of a process that runs.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use super::process::{FROM, LEN, Sample, only};
use crate::{kernel::Kernel, offsets::Layout, structure::Structure};

/// Exit status of a process that runs.
const RUNS: u32 = 0x103;
/// Clocks are set while a system starts; a day covers every time zone.
const DAY: u64 = 24 * 3600 * 10_000_000;

/// When a process of this system can have been made or ended.
pub(super) fn times(kernel: &Kernel) -> Option<std::ops::RangeInclusive<u64>> {
    let shared = kernel.shared.as_ref()?;
    (shared.now > DAY).then(|| shared.boot().saturating_sub(DAY)..=shared.now.saturating_add(DAY))
}

/// Adds what is found.
pub(super) fn members(kernel: &Kernel, layout: &mut Layout, system: &Structure, samples: &[Sample]) {
    let all = || std::iter::once(system).chain(samples.iter().map(|sample| &sample.bytes));
    let running = || {
        let with_block = samples.iter().filter(|sample| sample.peb.is_some());
        std::iter::once(system).chain(with_block.map(|sample| &sample.bytes))
    };
    if samples.is_empty() {
        return;
    }
    let runs = |offset: &u64| running().all(|one| one.u32(*offset).is_ok_and(|status| status == RUNS));
    if let Some(offset) = only((0x80..LEN.saturating_sub(4)).step_by(4).filter(runs)) {
        layout.add("_EPROCESS.ExitStatus", offset, FROM);
    }
    let Some(times) = times(kernel) else { return };
    let is_time = |one: &Structure, offset: u64| one.u64(offset).is_ok_and(|time| times.contains(&time));
    let places = || (0x80..LEN.saturating_sub(8)).step_by(8);
    let created = only(places().filter(|offset| all().all(|one| is_time(one, *offset))));
    if let Some(offset) = created {
        layout.add("_EPROCESS.CreateTime", offset, FROM);
    }
    let Some(created) = layout.find("_EPROCESS.CreateTime") else { return };
    // Only processes that have ended tell where that stands.
    let ended = |one: &Structure, offset: u64| {
        let (Ok(start), Ok(end)) = (one.u64(created), one.u64(offset)) else { return false };
        end >= start && times.contains(&end)
    };
    let runs_still = |one: &Structure, offset: u64| one.u64(offset).is_ok_and(|time| time == 0);
    let fits = |offset: &u64| {
        *offset != created
            && running().all(|one| runs_still(one, *offset))
            && all().all(|one| runs_still(one, *offset) || ended(one, *offset))
            && all().any(|one| ended(one, *offset))
    };
    if let Some(offset) = only(places().filter(fits)) {
        layout.add("_EPROCESS.ExitTime", offset, FROM);
    }
}

//! The layout as QEMU itself tells it.
//!
//! Owns: which commands are run, and how their answers go together. Must not know: what is spoken at the monitor.
//! Keeps: each run's place in the process comes from QEMU, asked for that run; names of blocks serve only where QEMU cannot be
//! asked by address.
//! Source: QEMU's human monitor: `info mtree -f`, `gpa2hva`, `info ramblock`, `info memdev`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{Error, Result};

use super::{GuestRun, RunKind};
use crate::monitor::{FlatRange, Session, parse_backends, parse_blocks, parse_flat_view, parse_host_address};

/// Tries before a layout that changes while it is asked for is given up: firmware at work moves the boundaries of ROM.
const TRIES: usize = 3;

/// The memory of a guest, as QEMU tells it.
pub(super) fn runs(session: &mut Session) -> Result<Vec<GuestRun>> {
    let mut before = parse_flat_view(&session.run("info mtree -f")?)?;
    let backends = parse_backends(&session.run("info memdev").unwrap_or_default());
    for _ in 0..TRIES {
        let runs = located(session, &before, &backends)?;
        let after = parse_flat_view(&session.run("info mtree -f")?)?;
        if after == before {
            return Ok(runs);
        }
        before = after;
    }
    Err(Error::Unsupported {
        what: "a layout that changes while it is read".to_owned(),
        why: "the guest may be starting; try again".to_owned(),
    })
}

fn located(session: &mut Session, ranges: &[FlatRange], backends: &[String]) -> Result<Vec<GuestRun>> {
    let mut blocks = None;
    let mut runs = Vec::with_capacity(ranges.len());
    for flat in ranges {
        let answer = session.run(&format!("gpa2hva {}", flat.range.start()))?;
        let virt = match parse_host_address(&answer) {
            Ok((_, address)) => address,
            Err(error) => {
                if blocks.is_none() {
                    blocks = Some(session.run("info ramblock").and_then(|text| parse_blocks(&text)));
                }
                let Some(Ok(blocks)) = &blocks else { return Err(error) };
                block_address(blocks, flat).ok_or(error)?
            }
        };
        runs.push(GuestRun { range: flat.range, virt, kind: kind(flat, backends), region: flat.region.clone() });
    }
    Ok(runs)
}

/// Where a run lies by the block that has its region's name, alone or behind the device it belongs to.
fn block_address(blocks: &[(String, u64)], flat: &FlatRange) -> Option<u64> {
    let exact = blocks.iter().filter(|(name, _)| *name == flat.region);
    let suffix = format!("/{}", flat.region);
    let found: Vec<_> = exact.chain(blocks.iter().filter(|(name, _)| name.ends_with(&suffix))).collect();
    match found.as_slice() {
        [(_, address)] => address.checked_add(flat.offset),
        _ => None,
    }
}

/// RAM of the machine is what a memory backend holds; other RAM belongs to a device.
fn kind(flat: &FlatRange, backends: &[String]) -> RunKind {
    let object = flat.region.strip_prefix("/objects/").unwrap_or(&flat.region);
    let of_backend = backends.iter().any(|id| id == object) || backends.is_empty();
    match flat.kind {
        RunKind::Ram if !of_backend => RunKind::Device,
        // Shadowed firmware is RAM that is write-protected for now; it lies in the machine's RAM.
        RunKind::Rom if of_backend && !backends.is_empty() => RunKind::Ram,
        kind => kind,
    }
}

//! Raw images: physical memory byte by byte, with nothing that says which addresses it holds.
//!
//! Owns: the layouts a raw image can have, the choice between them, and the run list given by hand.
//! Must not know: files, operating systems.
//! Keeps: a layout serves every byte of the file exactly once.
//! Source: `hw/i386/pc_q35.c` (`pc_q35_init`) and `hw/i386/pc_piix.c` (`pc_init1`) of QEMU for the PC memory hole.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fmt, str::FromStr};

use memflow_core::{
    Error, PhysAddr, PhysRange, Result,
    address::GIB,
    memory::{Run, RunMap},
};

use crate::{
    firmware::ram_ranges,
    input::{ReadAt, View},
};

/// The address at which a PC's memory goes on after the hole.
const ABOVE_HOLE: u64 = 4 * GIB;
/// Where the hole of each PC layout has begun, and where devices with fixed addresses begin.
const HOLE_OF_ALL: u64 = 0xe000_0000;
const HOLE_END: u64 = 0xfc00_0000;
/// Physical address of the local APIC after reset: never RAM.
const LOCAL_APIC: u64 = 0xfee0_0000;

/// Which physical addresses the bytes of a raw image stand for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum MemoryLayout {
    /// Found out from the image; see [`open`](crate::open) for the rule.
    #[default]
    Auto,
    /// Offset and address are the same: what `pmemsave` or a copy of `/dev/mem` gives.
    Flat,
    /// The RAM of a QEMU q35 machine: from 2.75 GiB on, what does not fit below 2 GiB lies from 4 GiB on.
    Q35,
    /// The RAM of a QEMU i440fx ("pc") machine: from 3.5 GiB on, what does not fit below 3 GiB lies from 4 GiB on.
    /// VMware's `.vmem` files are split at the same place.
    I440fx,
    /// Given by hand; [`RunMap`] says how people write it.
    Runs(RunMap),
}

impl fmt::Display for MemoryLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Flat => f.write_str("flat"),
            Self::Q35 => f.write_str("q35"),
            Self::I440fx => f.write_str("i440fx"),
            Self::Runs(map) => map.fmt(f),
        }
    }
}

impl FromStr for MemoryLayout {
    type Err = Error;

    /// A name of a layout, or the text of a [`RunMap`].
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "auto" => Self::Auto,
            "flat" => Self::Flat,
            "q35" => Self::Q35,
            "i440fx" => Self::I440fx,
            _ if text.starts_with(|first: char| first.is_ascii_digit()) => Self::Runs(text.parse()?),
            _ => {
                return Err(bad_argument(
                    "memory layout",
                    text,
                    "auto, flat, q35, i440fx, or runs such as 0-0xbfffffff@0",
                ));
            }
        })
    }
}

impl MemoryLayout {
    /// The runs of a raw image of `len` bytes in this layout; `None` for [`Auto`](Self::Auto).
    pub fn runs(&self, len: u64) -> Option<RunMap> {
        match self {
            Self::Auto => None,
            Self::Flat => Some(RunMap::flat(len)),
            Self::Q35 => Some(split(len, if len >= 0xb000_0000 { 0x8000_0000 } else { 0xb000_0000 })),
            Self::I440fx => Some(split(len, if len >= 0xe000_0000 { 0xc000_0000 } else { 0xe000_0000 })),
            Self::Runs(map) => Some(map.clone()),
        }
    }
}

/// RAM of `len` bytes of which `low` lie below the hole and the rest from 4 GiB on.
pub(crate) fn split(len: u64, low: u64) -> RunMap {
    split_from(0, len, low)
}

/// The same, with bytes that begin at an offset.
fn split_from(base: u64, len: u64, low: u64) -> RunMap {
    let run = |start, len, offset: u64| {
        PhysRange::new(PhysAddr::new(start), len).map(|range| Run { range, offset: offset.saturating_add(base) })
    };
    let below = len.min(low);
    let runs = [run(0, below, 0), run(ABOVE_HOLE, len.saturating_sub(below), below)];
    // `below` is at most 4 GiB, so the two are disjoint; a length near 2^64 is no file, and serves its low part only.
    RunMap::new(runs.into_iter().flatten()).unwrap_or_else(|_| RunMap::flat(below))
}

/// The memory of a PC of VMware without a list of its regions: the hole begins at 3 GiB.
pub(crate) fn vmware_pc(base: u64, len: u64) -> RunMap {
    split_from(base, len, 3 * GIB)
}

/// The layouts that a raw image of `len` bytes can have by its length, each with its runs. One that would be the same as
/// another is not repeated: an image below 2.75 GiB has only the flat one.
pub fn raw_layouts(len: u64) -> Vec<(MemoryLayout, RunMap)> {
    let mut layouts: Vec<(MemoryLayout, RunMap)> = Vec::new();
    for layout in [MemoryLayout::Flat, MemoryLayout::Q35, MemoryLayout::I440fx] {
        if let Some(runs) = layout.runs(len)
            && layouts.iter().all(|(_, other)| *other != runs)
        {
            layouts.push((layout, runs));
        }
    }
    layouts
}

/// The layout chosen for a raw image.
pub(crate) struct Choice {
    pub(crate) layout: MemoryLayout,
    pub(crate) runs: RunMap,
    /// What the choice rests on, for people; none when there was nothing to choose.
    pub(crate) notes: Vec<String>,
    /// Layouts it may have instead, the likelier first.
    pub(crate) alternatives: Vec<MemoryLayout>,
}

/// Finds out the layout of a raw image. The rule is told to callers at [`open`](crate::open).
pub(crate) fn choose_layout(input: &dyn ReadAt) -> Result<Choice> {
    let len = input.size();
    let mut layouts = raw_layouts(len);
    let ranges = ram_ranges(input)?;
    if let Some(choice) = firmware_choice(&ranges, len) {
        return Ok(choice);
    }
    let mut notes = Vec::new();
    let total = total(&ranges);
    if total > len {
        notes.push(format!(
            "the image holds {len:#x} bytes, the firmware's SMBIOS tables in it list {total:#x} bytes of RAM: it looks cut short"
        ));
    }
    if layouts.len() > 1 && !carries_hole(input)? {
        // Memory of a PC of this size has a hole, so the file is not flat unless the machine is no PC.
        layouts.rotate_left(1);
    }
    let (layout, runs) = layouts.remove(0);
    let alternatives: Vec<MemoryLayout> = layouts.into_iter().map(|(layout, _)| layout).collect();
    if !alternatives.is_empty() {
        let others: Vec<String> = alternatives.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "the memory layout {layout} is assumed; by its size the image may also be {}",
            others.join(" or ")
        ));
    }
    Ok(Choice { layout, runs, notes, alternatives })
}

/// The layout that the firmware's RAM ranges make of an image of `len` bytes.
pub(crate) fn firmware_choice(ranges: &[PhysRange], len: u64) -> Option<Choice> {
    let (layout, runs) = firmware_layout(ranges, total(ranges), len)?;
    let mut notes = Vec::new();
    if raw_layouts(len).len() > 1 || layout != MemoryLayout::Flat {
        notes.push(format!("the memory layout is {layout}: so say the firmware's SMBIOS tables in the image"));
    }
    Some(Choice { layout, runs, notes, alternatives: Vec::new() })
}

fn total(ranges: &[PhysRange]) -> u64 {
    ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.len()))
}

/// The layout that makes the firmware's RAM ranges, `total` bytes in all, fit an image of `len` bytes.
fn firmware_layout(ranges: &[PhysRange], total: u64, len: u64) -> Option<(MemoryLayout, RunMap)> {
    let last = ranges.last()?.last()?.as_u64();
    // Some hypervisors list one range from zero and forget the hole in which the local APIC lies. That says nothing.
    if ranges.iter().any(|range| range.contains(PhysAddr::new(LOCAL_APIC))) {
        return None;
    }
    if total == len {
        let mut offset: u64 = 0;
        let mut runs = Vec::new();
        for range in ranges {
            runs.push(Run { range: *range, offset });
            offset = offset.checked_add(range.len())?;
        }
        let runs = RunMap::new(runs).ok()?;
        let named = raw_layouts(len).into_iter().find(|(_, named)| *named == runs);
        return Some(named.unwrap_or_else(|| (MemoryLayout::Runs(runs.clone()), runs)));
    }
    (last >= ABOVE_HOLE && last < len).then(|| (MemoryLayout::Flat, RunMap::flat(len)))
}

/// True when the image is longer than 4 GiB and empty where a PC's hole is, as far as samples tell.
fn carries_hole(input: &dyn ReadAt) -> Result<bool> {
    const STEP: u64 = 1 << 20;
    let view = View::new(input, "raw image");
    let mut at = HOLE_OF_ALL;
    while at < HOLE_END {
        if at >= view.size() || view.read::<[u8; 64]>(at, "memory")? != [0; 64] {
            return Ok(false);
        }
        at = at.saturating_add(STEP);
    }
    Ok(view.size() > ABOVE_HOLE)
}

fn bad_argument(what: &'static str, found: &str, expected: &'static str) -> Error {
    Error::Argument { what: what.into(), expected: expected.into(), found: found.to_owned() }
}

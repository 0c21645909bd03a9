//! Where the inner machine's physical addresses lie in the process.
//!
//! Owns: [`GuestRun`], the checks of a given layout, and the choice of a layout where none is given.
//! Must not know: how memory is read.
//! Keeps: a layout that could be wrong without being noticed is refused: two mappings that could both be the RAM, or one so large
//! that a PC's memory hole lies in it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    Error, PhysAddr, PhysRange, Result, VirtAddr, VirtRange,
    memory::{Run, RunMap},
    os::{MemoryRegion, Process, RegionKind},
};

/// From this size on RAM may continue above 4 GiB: QEMU's Q35 splits it here (QEMU hw/i386/pc_q35.c, `pc_q35_init`), other
/// monitors at 3 GiB or later.
const MAY_BE_SPLIT: u64 = 0xb000_0000;

/// Consecutive physical addresses of the inner machine, and where they lie in the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestRun {
    /// First physical address of the inner machine.
    pub phys: PhysAddr,
    /// Where that lies in the process.
    pub virt: VirtAddr,
    /// Length in bytes.
    pub len: u64,
}

/// The runs as a map from physical addresses to virtual ones.
///
/// # Errors
/// There is no run, a run is empty or leaves an address space, or two hold the same physical address.
pub(crate) fn given(runs: &[GuestRun], last: VirtAddr) -> Result<RunMap> {
    if runs.iter().all(|run| run.len == 0) {
        return Err(Error::Argument {
            what: "runs of guest memory".into(),
            expected: "at least one that is not empty".into(),
            found: format!("{} empty ones", runs.len()),
        });
    }
    let run = |run: &GuestRun| {
        let phys = PhysRange::new(run.phys, run.len);
        let range = phys.ok_or(Error::Range { address: run.phys.into(), len: run.len })?;
        let virt = VirtRange::new(run.virt, run.len).filter(|virt| virt.last().is_none_or(|end| end <= last));
        virt.ok_or(Error::Range { address: run.virt.into(), len: run.len })?;
        Ok(Run { range, offset: run.virt.as_u64() })
    };
    RunMap::new(runs.iter().map(run).collect::<Result<Vec<Run>>>()?)
}

/// The process' largest mapping that can be RAM, from physical address zero on.
///
/// # Errors
/// The memory map cannot be read whole; no mapping can be RAM; two could; or it is so large that it may be split.
pub(crate) fn largest_mapping(process: &dyn Process) -> Result<GuestRun> {
    let mut regions = process.memory_map()?.into_complete()?;
    regions.retain(can_be_ram);
    let len = regions.iter().map(|region| region.range.len()).max().unwrap_or(0);
    regions.retain(|region| region.range.len() == len);
    let (Some(found), 0..=1) = (regions.first(), regions.len()) else {
        let expected = "one writable mapping that is larger than all others; name the runs of guest memory instead";
        let found = match regions.first() {
            None => "no writable mapping".to_owned(),
            Some(first) => format!("{} mappings of {len} bytes, the first at {}", regions.len(), first.range),
        };
        return Err(Error::Argument { what: "memory map".into(), expected: expected.into(), found });
    };
    if len >= MAY_BE_SPLIT {
        return Err(Error::Argument {
            what: "largest mapping".into(),
            expected: format!(
                "less than {MAY_BE_SPLIT:#x} bytes, as more may continue above the memory hole of a PC; name the runs of guest memory instead"
            )
            .into(),
            found: format!("{} of {len:#x} bytes", found.range),
        });
    }
    Ok(GuestRun { phys: PhysAddr::new(0), virt: found.range.start(), len })
}

/// Whether a monitor could hold RAM here: anonymous memory or a file, private or shared, that is written to.
fn can_be_ram(region: &MemoryRegion) -> bool {
    let kind = match &region.kind {
        // Heap, stack and what the kernel puts into each process have names too; what the program named itself starts like this.
        RegionKind::Special { name } => name.starts_with("[anon"),
        RegionKind::Anonymous | RegionKind::File { .. } => true,
        _ => false,
    };
    kind && region.permissions.write
}

//! Images of real machines.
//!
//! Owns: which guest, and which of its address spaces. Must not know: how a guest is made.
//! Keeps: a machine that is not there is not made here: the benchmark says what it used instead.

use std::path::{Path, PathBuf};

use memflow_core::{
    PhysRange, PhysicalMemory,
    memory::Liveness,
    os::Os,
    paging::{AddressSpace, MapBudget, MappedRun},
};
use memflow_guests::Guests;
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_snapshot::{OpenOptions, Snapshot};

use crate::{
    Result,
    image::{Area, Image},
};

/// The demo machine of this repository.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../memflow-cli/demo/demo.elf.zst");
/// Addresses of a real machine: its tables fit the caches, as they do in use.
const WORKING_SET: usize = 1 << 14;

impl Image {
    /// The captured guest of this name (`cargo xtask guests` makes them); the demo machine when it is not there.
    ///
    /// # Errors
    /// The image cannot be opened, or no Linux is found in it.
    pub fn real(guest: &str) -> Result<Self> {
        Self::open(&Self::real_path(guest))
    }

    /// The file that [`real`](Self::real) opens.
    pub fn real_path(guest: &str) -> PathBuf {
        let captured = Guests::locate().and_then(|guests| guests.captured(guest));
        captured.map_or_else(|_| DEMO.into(), |guest| guest.ram())
    }

    /// The demo machine.
    ///
    /// # Errors
    /// As [`real`](Self::real).
    pub fn demo() -> Result<Self> {
        Self::open(Path::new(DEMO))
    }

    /// How many processes the machine in an image file has; nobody may write to it meanwhile.
    ///
    /// # Errors
    /// As [`real`](Self::real).
    pub fn count_processes(path: &Path) -> Result<usize> {
        let options = OpenOptions { live: Some(false), ..OpenOptions::default() };
        let memory = memflow_snapshot::open(path, &options)?.memory;
        let os = LinuxOs::open(memory, &LinuxOptions::default())?;
        Ok(os.processes()?.items.len())
    }

    /// An image file of a Linux machine. Nobody may write to it meanwhile.
    ///
    /// # Errors
    /// As [`real`](Self::real).
    pub fn open(path: &Path) -> Result<Self> {
        let options = OpenOptions { live: Some(false), ..OpenOptions::default() };
        let Snapshot { memory, .. } = memflow_snapshot::open(path, &options)?;
        let os = LinuxOs::open(memory.clone(), &LinuxOptions::default())?;
        let map = memory.direct_map().ok_or("the image cannot be mapped")?;
        if map.liveness() != Liveness::Frozen {
            return Err("the image may change while it is read".into());
        }
        let ram = map.regions().first().ok_or("the image is empty")?.range;
        // The process that has most.
        let mut best: Option<(u64, AddressSpace, Vec<Area>, Vec<Area>)> = None;
        for info in os.processes()?.items {
            let process = os.open(&info)?;
            let Some(space) = process.address_space() else { continue };
            let (user, kernel) = areas(space, &*memory, ram)?;
            let pages = user.iter().map(|area| area.weight).sum();
            if best.as_ref().is_none_or(|(most, ..)| pages > *most) {
                // Walks that stop end at the tables, whatever the system knows.
                let plain = AddressSpace::new(space.architecture(), space.root().as_u64());
                best = Some((pages, plain, user, kernel));
            }
        }
        let (_, space, user, kernel) = best.ok_or("the machine has no process")?;
        let size = ram.len() >> 20;
        let levels = space.architecture().levels.len();
        let name = format!("{size}MiB-{levels}level-real");
        Ok(Self { name, memory, space, user, kernel, working_set: WORKING_SET })
    }
}

/// What is mapped in both halves, as far as it leads to RAM. Each page counts alike.
fn areas(space: &AddressSpace, memory: &dyn PhysicalMemory, ram: PhysRange) -> Result<(Vec<Area>, Vec<Area>)> {
    let (mut user, mut kernel) = (Vec::new(), Vec::new());
    let _holes = space.map(memory, None, MapBudget::default(), &mut |run| {
        if let Some(area) = area(&run, ram) {
            let half = if area.start.as_u64() >> 63 == 0 { &mut user } else { &mut kernel };
            half.push(area);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    Ok((user, kernel))
}

fn area(run: &MappedRun, ram: PhysRange) -> Option<Area> {
    let phys = PhysRange::new(run.phys, run.virt.len())?;
    let inside = phys.intersection(&ram)?;
    let skipped = inside.start().offset_from(phys.start())?;
    let start = run.virt.start().wrapping_add(skipped);
    Some(Area { start, len: inside.len(), page: run.page, weight: inside.len().div_ceil(run.page.bytes()) })
}

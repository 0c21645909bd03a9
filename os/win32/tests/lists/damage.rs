//! Machines without one page, each in turn: no panic, nothing that was not built, an end in time.
//!
//! Owns: which machines, and the way through their pages. Must not know: what is compared.
//! Keeps: every page that holds anything is left out once; machines are small, so none is skipped.

use std::{
    collections::BTreeMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory,
    memory::{MapMode, MappedMemory, Run, RunMap, SourceConfig},
};
use memflow_win32::{Win32Options, Win32Os};
use memflow_windows_images::{Architecture, Description, Offsets, Windows};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::{derived, full, image, narrow, table, within};

const PAGE: u64 = 0x1000;
/// All that is asked of one machine takes some milliseconds; a machine whose tables are searched for everywhere, some hundred.
const BOUND: Duration = Duration::from_secs(20);

/// A machine with five processes, of which one is full of everything, one hidden and one has ended.
pub(crate) fn small(seed: u64, architecture: Architecture, offsets: Offsets) -> Description {
    let mut description = full(seed, architecture, offsets);
    description.processes.retain(|process| [308, 5000, 6000, 6004].contains(&process.pid));
    description.drivers.truncate(1);
    description
}

/// The machine's memory in a file, to be mapped without a page.
struct OnDisk {
    file: File,
    windows: Windows,
}

impl OnDisk {
    fn new(windows: Windows) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory");
        windows.write_raw(&path).unwrap();
        Self { file: File::open(path).unwrap(), windows }
    }

    fn without(&self, frame: u64) -> Arc<dyn PhysicalMemory> {
        let parts = self.windows.runs().into_iter().flat_map(|run| {
            let (first, second) = (run.start..run.end.min(frame), run.start.max(frame + 1)..run.end);
            [first, second].into_iter().filter(|part| part.start < part.end)
        });
        let run = |part: std::ops::Range<u64>| Run {
            range: PhysRange::new(PhysAddr::new(part.start * PAGE), (part.end - part.start) * PAGE).unwrap(),
            offset: part.start * PAGE,
        };
        let runs = RunMap::new(parts.map(run)).unwrap();
        let config = SourceConfig { name: "without a page".into(), runs, facts: image::processors(&self.windows) };
        Arc::new(MappedMemory::new(config, &self.file, MapMode::Private).unwrap())
    }
}

/// What became of a machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Became {
    Read,
    NotFound,
    Wrong(String),
}

/// Leaves out each page of a machine in turn.
fn each_page_left_out(name: &str, windows: Windows, options: &Win32Options<'_>) {
    let frames: Vec<u64> = windows.pages().map(|(frame, _)| frame).collect();
    let disk = OnDisk::new(windows);
    let became: Vec<(u64, Became)> = frames
        .into_par_iter()
        .map(|frame| {
            let started = Instant::now();
            let looked = catch_unwind(AssertUnwindSafe(|| match Win32Os::open(disk.without(frame), options) {
                Ok(os) => {
                    within::compare(&os, &disk.windows, frame, frame as usize);
                    Became::Read
                }
                Err(_) => Became::NotFound,
            }));
            let told = |panic: Box<dyn std::any::Any + Send>| match panic.downcast_ref::<String>() {
                Some(text) => Became::Wrong(text.clone()),
                None => Became::Wrong((*panic.downcast_ref::<&str>().unwrap_or(&"panicked")).to_owned()),
            };
            let became = looked.unwrap_or_else(told);
            let took = started.elapsed();
            assert!(took < BOUND, "{name} without frame {frame:#x} took {took:?}");
            (frame, became)
        })
        .collect();
    let wrong: Vec<_> = became.iter().filter(|(_, became)| matches!(became, Became::Wrong(_))).collect();
    let mut counts: BTreeMap<bool, usize> = BTreeMap::new();
    became.iter().for_each(|(_, became)| *counts.entry(*became == Became::Read).or_default() += 1);
    assert!(wrong.is_empty(), "{name}: {} of {}: {:#x?}", wrong.len(), became.len(), &wrong[..wrong.len().min(8)]);
    // Without a table of the kernel, or the first page of its image, there may be nothing to be found.
    let lost = counts.get(&false).copied().unwrap_or_default();
    assert!(lost * 10 < became.len(), "{name}: no kernel in {lost} of {}", became.len());
}

fn of_families(seed: u64, options: &Win32Options<'_>) {
    let table = table();
    for (seed, offsets) in (seed..).zip(table.families()) {
        let architecture = if seed % 2 == 0 { Architecture::X64 } else { Architecture::X64Shadow };
        let windows = small(seed, architecture, offsets.clone()).build().unwrap();
        each_page_left_out(&format!("{} {architecture:?}", offsets.version), windows, options);
    }
}

#[test]
fn each_missing_page_of_64_bit_systems_costs_no_truth() {
    of_families(40, &Win32Options::default());
}

#[test]
fn each_missing_page_of_systems_that_no_table_has_costs_no_truth() {
    of_families(80, &derived());
}

#[test]
fn each_missing_page_of_32_bit_systems_costs_no_truth() {
    for (seed, (architecture, offsets)) in (60..).zip(narrow()) {
        let windows = small(seed, architecture, offsets.clone()).build().unwrap();
        each_page_left_out(&format!("{} {architecture:?}", offsets.version), windows, &Win32Options::default());
    }
}

//! Where a guest's physical memory lies in its QEMU process.
//!
//! Owns: [`Layout`], and the order of sources: given by hand, the monitor, the command line with the process' own mappings.
//! Must not know: how memory is read.
//! Keeps: what is taken lies in mappings that the process has; a source that gives nothing says why, and the next is asked. Nothing
//! is taken for its size alone being the largest.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod machine;
mod mappings;
mod monitored;

use std::fmt;

use memflow_core::{
    Error, PhysRange, Result,
    error::ResultExt,
    memory::{Run, RunMap},
};

pub use self::machine::MachineType;
use crate::{
    discover::Guest,
    host::Mapping,
    monitor::{self, MonitorConfig},
};

/// What guest memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunKind {
    /// The machine's RAM.
    Ram,
    /// Memory of a device, such as a display.
    Device,
    /// Firmware and what else the guest cannot write to now.
    Rom,
}

/// Consecutive guest memory, and where it lies in the QEMU process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestRun {
    /// The physical addresses.
    pub range: PhysRange,
    /// Where the first byte lies in the process.
    pub virt: u64,
    /// What it is.
    pub kind: RunKind,
    /// Name of QEMU's memory region.
    pub region: String,
}

/// Which source a layout is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutSource {
    /// The argument `map`.
    Given,
    /// QEMU itself said it.
    Monitor,
    /// The rules of its machine, and its mappings.
    CommandLine,
}

impl fmt::Display for LayoutSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "layout as given",
            Self::Monitor => "layout from the monitor",
            Self::CommandLine => "layout from command line and mappings",
        })
    }
}

/// Where guest memory lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The runs, in no particular order; none overlap.
    pub runs: Vec<GuestRun>,
    /// Who said so.
    pub source: LayoutSource,
}

impl Layout {
    /// The runs of those kinds that `wanted` accepts, with addresses of the process as offsets.
    ///
    /// # Errors
    /// Runs overlap, or leave the address space.
    pub fn run_map(&self, wanted: impl Fn(&GuestRun) -> bool) -> Result<RunMap> {
        let runs = self.runs.iter().filter(|run| wanted(run));
        RunMap::new(runs.map(|run| Run { range: run.range, offset: run.virt }))
    }

    /// Finds out where the memory of a guest lies; what a source could not say is added to `notes`.
    pub(crate) fn of(
        guest: &Guest,
        given: Option<&RunMap>,
        monitors: &[MonitorConfig],
        limit: std::time::Duration,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let maps = guest.process.mappings()?;
        if let Some(given) = given {
            let runs = given.runs().iter().map(|run| GuestRun {
                range: run.range,
                virt: run.offset,
                kind: RunKind::Ram,
                region: "given".to_owned(),
            });
            let layout = Self { runs: runs.collect(), source: LayoutSource::Given };
            return layout.checked(&maps).context(|| "map".into());
        }
        let (mut problems, asked) = (Vec::new(), monitors.len());
        let monitored = monitor::with_first(&guest.process, monitors, limit, &mut problems, |session| {
            // Memory may have been plugged in since, so mappings are read anew.
            let runs = monitored::runs(session)?;
            Self { runs, source: LayoutSource::Monitor }.checked(&guest.process.mappings()?)
        });
        notes.append(&mut problems);
        let error = match monitored {
            Ok(layout) => return Ok(layout),
            Err(error) if !guest.process.is_alive() => return Err(error),
            Err(error) => error,
        };
        if asked == 0 {
            notes.push(error.to_string());
        }
        let found = mappings::runs(guest, &maps, notes).and_then(|runs| {
            let layout = Self { runs, source: LayoutSource::CommandLine };
            layout.checked(&maps)
        });
        found.context(|| "layout from command line and mappings".into())
    }

    /// The same, if every run lies in memory that the process can read, and none overlap.
    fn checked(self, maps: &[Mapping]) -> Result<Self> {
        self.run_map(|_| true)?;
        for run in &self.runs {
            if !is_mapped(maps, run.virt, run.range.len()) {
                return Err(Error::Argument {
                    what: "guest memory".into(),
                    expected: "addresses that the process has mapped".into(),
                    found: format!("{}@{:#x} ({})", run.range, run.virt, run.region),
                });
            }
        }
        if self.runs.is_empty() {
            return Err(Error::NotFound { what: "guest memory", name: "of any kind".to_owned() });
        }
        Ok(self)
    }
}

/// Whether all of `len` bytes from `start` are mapped readable.
fn is_mapped(maps: &[Mapping], start: u64, len: u64) -> bool {
    let Some(end) = start.checked_add(len) else { return false };
    let mut at = start;
    for map in maps {
        if map.read && (map.start..map.end).contains(&at) {
            at = map.end;
        }
    }
    at >= end
}

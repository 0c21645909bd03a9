//! Memory that can be unplugged while it is open.
//!
//! Owns: which runs memory devices hold, and whether they are still plugged. Must not know: how memory is read.
//! Keeps: what was unplugged once is gone for good: what is plugged at its addresses later is other memory, which the next open
//! finds. QEMU is asked at most every [`INTERVAL`], and only while the memory is used.
//! Source: QEMU hw/core/machine-hmp-cmds.c (`hmp_info_memory_devices`), docs/memory-hotplug.txt.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock, TryLockError},
    time::{Duration, Instant},
};

use memflow_core::{
    PhysAddr, PhysRange,
    memory::{Piece, Run, RunMap},
};

use crate::{
    host::{HostProcess, Mapping},
    layout::Layout,
    monitor::{MonitorConfig, with_first},
};

/// How old an answer may be that memory is still plugged.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);
/// Longest time that a read waits for a monitor.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a monitor that did not answer is left alone: somebody else may be using it.
const LEFT_ALONE: Duration = Duration::from_secs(10);
/// Memory devices that one guest may have; QEMU allows 256 slots.
const MAX_DEVICES: usize = 4096;

/// A memory device, as QEMU lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryDevice {
    /// Kind and id, as QEMU prints them: `[dimm]: "dimm1"`.
    pub name: String,
    /// Its first physical address.
    pub address: PhysAddr,
    /// Its memory backend.
    pub backend: String,
}

/// Reads `info memory-devices`. What is no device of memory at an address is left out.
pub fn parse_memory_devices(text: &str) -> Vec<MemoryDevice> {
    let mut devices: Vec<MemoryDevice> = Vec::new();
    let mut name = "";
    let mut address = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(next) = line.strip_prefix("Memory device ") {
            (name, address) = (next, None);
        } else if let Some(digits) = line.strip_prefix("addr: 0x").or_else(|| line.strip_prefix("memaddr: 0x")) {
            address = u64::from_str_radix(digits, 16).ok().map(PhysAddr::new);
        } else if let (Some(backend), Some(address)) = (line.strip_prefix("memdev: "), address)
            && devices.len() < MAX_DEVICES
        {
            devices.push(MemoryDevice { name: name.to_owned(), address, backend: backend.to_owned() });
        }
    }
    devices
}

/// A device, and where its memory lies.
#[derive(Debug)]
struct Held {
    device: MemoryDevice,
    range: PhysRange,
    /// The mapping of the process that it lies in.
    mapping: Mapping,
}

/// The memory devices of an open guest.
#[derive(Debug)]
pub(crate) struct Plugged {
    process: Arc<HostProcess>,
    monitors: Vec<MonitorConfig>,
    limit: Duration,
    /// The runs whose devices were there when they were last asked for.
    present: RwLock<Arc<RunMap>>,
    watch: Mutex<Watch>,
}

#[derive(Debug)]
struct Watch {
    held: Vec<Held>,
    /// When to look again.
    next: Instant,
    /// When to ask a monitor again.
    ask: Instant,
}

impl Plugged {
    /// Watches over the devices whose memory is among the runs; `None` where nothing can be unplugged.
    pub(crate) fn new(
        process: &Arc<HostProcess>,
        monitors: &[MonitorConfig],
        limit: Duration,
        devices: Vec<MemoryDevice>,
        layout: &Layout,
        runs: &Arc<RunMap>,
    ) -> Option<Self> {
        let maps = process.mappings().ok()?;
        let held = devices.into_iter().filter_map(|device| {
            runs.find(device.address)?;
            let run = layout.runs.iter().find(|run| run.range.contains(device.address))?;
            let mapping = maps.iter().find(|map| (map.start..map.end).contains(&run.virt))?.clone();
            Some(Held { device, range: run.range, mapping })
        });
        let held: Vec<Held> = held.collect();
        let now = Instant::now();
        (!held.is_empty()).then(|| Self {
            process: process.clone(),
            monitors: monitors.to_vec(),
            limit: limit.min(PATIENCE),
            present: RwLock::new(runs.clone()),
            watch: Mutex::new(Watch { held, next: later(now, INTERVAL), ask: now }),
        })
    }

    /// The runs of what is plugged, known anew if the last answer is too old.
    pub(crate) fn runs(&self) -> Arc<RunMap> {
        let watch = match self.watch.try_lock() {
            Ok(watch) => Some(watch),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            // Somebody else is asking right now.
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut watch) = watch
            && Instant::now() >= watch.next
            && !watch.held.is_empty()
        {
            self.look(&mut watch);
        }
        self.present.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, watch: &mut Watch) {
        let mut listed = None;
        if Instant::now() >= watch.ask {
            let asked = with_first(&self.process, &self.monitors, self.limit, &mut Vec::new(), |session| {
                session.run("info memory-devices")
            });
            match asked {
                Ok(text) => listed = Some(parse_memory_devices(&text)),
                Err(error) => {
                    log::debug!("memory devices of process {}: {error}", self.process.pid());
                    watch.ask = later(Instant::now(), LEFT_ALONE);
                }
            }
        }
        // Without an answer it is still seen whether the process has let go of the memory.
        let maps = if listed.is_none() { self.process.mappings().ok() } else { None };
        let is_there = |held: &Held| match (&listed, &maps) {
            (Some(listed), _) => listed.contains(&held.device),
            (None, Some(maps)) => maps.contains(&held.mapping),
            // The process is gone, which each way to its memory tells by itself.
            (None, None) => true,
        };
        let gone: Vec<PhysRange> = watch.held.iter().filter(|held| !is_there(held)).map(|held| held.range).collect();
        if !gone.is_empty() {
            watch.held.retain(|held| !gone.contains(&held.range));
            let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
            *present = Arc::new(without(&present, &gone));
            for range in &gone {
                log::debug!("memory of process {} at {range} was unplugged", self.process.pid());
            }
        }
        watch.next = later(Instant::now(), INTERVAL);
    }
}

/// The time after `wait`.
fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

/// The runs, without what lies in one of the ranges.
pub(crate) fn without(runs: &RunMap, gone: &[PhysRange]) -> RunMap {
    let mut rest: Vec<Run> = runs.runs().to_vec();
    for range in gone {
        let taken = RunMap::new([Run { range: *range, offset: 0 }]);
        let Ok(taken) = taken else { continue };
        rest = rest
            .iter()
            .flat_map(|run| {
                taken.pieces(run.range).filter_map(|piece| match piece {
                    Piece::Present { .. } => None,
                    Piece::Gap { range } => {
                        let inside = range.start().offset_from(run.range.start())?;
                        Some(Run { range, offset: run.offset.checked_add(inside)? })
                    }
                })
            })
            .collect();
    }
    // Parts of runs that did not overlap do not either.
    RunMap::new(rest).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn devices_of_every_kind_are_listed() {
        let text = "Memory device [dimm]: \"dimm1\"\n  addr: 0x100000000\n  slot: 0\n  node: 0\n  size: 134217728\n  memdev: /objects/m1\n  \
            hotplugged: true\n  hotpluggable: true\nMemory device [nvdimm]: \"nv\"\r\n  addr: 0x140000000\r\n  memdev: /objects/nv\r\n\
            Memory device [virtio-mem]: \"vmem\"\n  memaddr: 0x180000000\n  node: 0\n  memdev: /objects/v\n\
            Memory device [sgx-epc]: \"\"\n  memaddr: 0x1c0000000\n  size: 1\n  node: 0\n  memdev: /objects/epc\n";
        let devices = parse_memory_devices(text);
        let found: Vec<_> = devices.iter().map(|device| (device.address.as_u64(), device.backend.as_str())).collect();
        let wanted = [
            (0x1_0000_0000, "/objects/m1"),
            (0x1_4000_0000, "/objects/nv"),
            (0x1_8000_0000, "/objects/v"),
            (0x1_c000_0000, "/objects/epc"),
        ];
        assert_eq!(found, wanted);
        assert_eq!(devices.first().unwrap().name, "[dimm]: \"dimm1\"");
    }

    #[test]
    fn text_that_is_no_list_names_no_device() {
        assert!(parse_memory_devices("").is_empty());
        assert!(parse_memory_devices("unknown command: 'info memory-devices'").is_empty());
        assert!(parse_memory_devices("  memdev: /objects/m1\n").is_empty());
        assert!(parse_memory_devices("Memory device [dimm]: \"a\"\n  addr: 0xzz\n  memdev: /objects/m1\n").is_empty());
        // The address of one device is not that of the next.
        let text = "Memory device [dimm]: \"a\"\n addr: 0x1000\nMemory device [dimm]: \"b\"\n memdev: /objects/b\n";
        assert!(parse_memory_devices(text).is_empty());
    }

    #[test]
    fn what_is_unplugged_is_cut_out_of_runs() {
        let runs: RunMap = "0x0-0xffff@0x1000,0x100000-0x1fffff@0x90000".parse().unwrap();
        let gone = |text: &str| {
            let ranges: RunMap = text.parse().unwrap();
            let ranges: Vec<PhysRange> = ranges.runs().iter().map(|run| run.range).collect();
            without(&runs, &ranges).to_string()
        };
        assert_eq!(gone("0x100000-0x1fffff@0x0"), "0x0-0xffff@0x1000");
        assert_eq!(gone("0x4000-0x4fff@0x0"), "0x0-0x3fff@0x1000,0x5000-0xffff@0x6000,0x100000-0x1fffff@0x90000");
        assert_eq!(gone("0x0-0xffffffff@0x0"), "");
        assert_eq!(gone("0x10000-0xfffff@0x0"), runs.to_string());
    }
}

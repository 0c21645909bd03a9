//! Targets for connectors of live machines: what the kernel or a user says about where memory lies.
//!
//! Owns: what must be true of anything that a parser accepted. Must not know: formats.

use memflow_core::memory::RunMap;
use memflow_kcore::{Headers, physical_runs, system_ram};
use memflow_pcileech::parse_map;

use crate::snapshot::assert_readable;

/// Headers of a kcore, and the direct map among its segments.
pub fn kcore(data: &[u8]) {
    let read = Headers::read(data, "input".as_ref());
    match read.and_then(|headers| physical_runs(&headers.segments, "input".as_ref())) {
        // The file may be as long as files get, but no longer.
        Ok(runs) => assert_runs(&runs, i64::MAX as u64),
        Err(error) => assert_readable(&error),
    }
}

/// Lists like /proc/iomem.
pub fn iomem(data: &[u8]) {
    if let Some(runs) = system_ram(&String::from_utf8_lossy(data)) {
        assert!(!runs.is_empty());
        assert_runs(&runs, u64::MAX);
    }
}

/// Memory maps for devices that read by DMA.
pub fn dma_map(data: &[u8]) {
    match parse_map(&String::from_utf8_lossy(data)) {
        Ok(runs) => {
            assert_runs(&runs, u64::MAX);
            let printed = runs.to_string();
            assert_eq!(parse_map(&printed).ok(), Some(runs), "{printed}");
        }
        Err(error) => assert_readable(&error),
    }
}

/// Runs are not empty, lie in order and apart, and have places up to `last`.
fn assert_runs(runs: &RunMap, last: u64) {
    assert!(runs.runs().iter().all(|run| !run.range.is_empty()));
    assert!(runs.runs().iter().all(|run| run.offset.checked_add(run.range.len()).is_some_and(|end| end <= last)));
    assert!(runs.runs().is_sorted_by(|first, second| first.range.end().is_some_and(|end| end <= second.range.start())));
}

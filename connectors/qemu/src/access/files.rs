//! The files behind mappings, as parts that this process can map.
//!
//! Owns: the way from addresses of the other process to offsets in parts. Must not know: layouts.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    Error, PhysRange, Result,
    memory::{FilePart, Run, RunMap},
};

use crate::host::{HostProcess, Mapping};

/// The parts of files that `mappings` show, and the runs with offsets into them, one behind the other.
///
/// # Errors
/// A file cannot be opened, or ends before its mapping does.
pub(super) fn parts(
    process: &HostProcess,
    mappings: &[&Mapping],
    runs: &RunMap,
    writable: bool,
) -> Result<(Vec<FilePart>, RunMap)> {
    let (mut parts, mut moved, mut first) = (Vec::with_capacity(mappings.len()), Vec::new(), 0_u64);
    for mapping in mappings {
        let file = process.mapped_file(mapping, writable)?;
        let size = file.metadata().map_err(|error| Error::io(format!("file {}", mapping.path), error))?.len();
        if mapping.offset.checked_add(mapping.len()).is_none_or(|end| end > size) {
            return Err(Error::File {
                path: mapping.file_path().to_owned(),
                problem: format!("holds {size:#x} bytes, less than the guest has mapped").into(),
            });
        }
        for run in runs.runs() {
            // What of the run lies in this mapping.
            let start = run.offset.max(mapping.start);
            let len = run.offset.saturating_add(run.range.len()).min(mapping.end).saturating_sub(start);
            let phys = run.range.start().checked_add(start.saturating_sub(run.offset));
            if let Some(range) = phys.and_then(|phys| PhysRange::new(phys, len)).filter(|range| !range.is_empty()) {
                let inside = start.saturating_sub(mapping.start);
                moved.push(Run { range, offset: first.saturating_add(inside) });
            }
        }
        parts.push(FilePart { file, offset: mapping.offset, len: mapping.len() });
        first = first.saturating_add(mapping.len());
    }
    Ok((parts, RunMap::new(moved)?))
}

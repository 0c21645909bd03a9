//! Where a sparse file holds data.
//!
//! Owns: the question to the file system, and the runs without its holes.
//! Must not know: what the data means. Keeps: whatever is not known to be a hole counts as data.
//! Source: `lseek(2)`, SEEK_DATA and SEEK_HOLE.

use std::{fs::File, sync::Arc};

use super::super::{Run, RunMap};
use crate::address::PhysRange;

/// Extents that are told apart at most; a file in more pieces is taken as data from there on.
const MAX_EXTENTS: usize = 1 << 16;

/// The parts of the runs that lie in the data of `file`; all of them where the file system cannot tell.
pub(super) fn populated(file: &File, runs: &Arc<RunMap>) -> Arc<RunMap> {
    let Some(data) = runs_with_data(file, runs) else {
        return runs.clone();
    };
    RunMap::new(data).map_or_else(|_| runs.clone(), Arc::new)
}

#[cfg(unix)]
fn runs_with_data(file: &File, runs: &RunMap) -> Option<Vec<Run>> {
    use rustix::{
        fs::{SeekFrom, seek},
        io::Errno,
    };

    let mut data: Vec<Run> = Vec::new();
    for run in runs.runs() {
        let end = run.offset.checked_add(run.range.len())?;
        let mut at = run.offset;
        while at < end {
            let start = match seek(file, SeekFrom::Data(at)) {
                Ok(start) if start < end => start,
                // No data up to the end of the file.
                Ok(_) | Err(Errno::NXIO) => break,
                Err(_) => return None,
            };
            let hole = if data.len() < MAX_EXTENTS { seek(file, SeekFrom::Hole(start)).ok()?.min(end) } else { end };
            let len = hole.checked_sub(start).filter(|len| *len > 0)?;
            let first = run.range.start().checked_add(start.checked_sub(run.offset)?)?;
            data.push(Run { range: PhysRange::new(first, len)?, offset: start });
            at = hole;
        }
    }
    Some(data)
}

#[cfg(not(unix))]
fn runs_with_data(_: &File, _: &RunMap) -> Option<Vec<Run>> {
    None
}

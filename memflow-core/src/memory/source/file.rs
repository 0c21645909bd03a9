//! Physical memory in a file that is read by position.
//!
//! Owns: the file handle. Must not know: formats.
//! Keeps: no shared seek position, so threads cannot disturb each other; a file that ends early is an error of the operation.

use std::{fs::File, io, sync::Arc};

use super::{
    super::{
        Liveness, Metadata, Outcome, PhysRead, PhysWrite, PhysicalMemory, Piece, RunMap, TargetFacts, finish_reads,
        finish_writes,
    },
    SourceConfig, extents,
};
use crate::{
    address::PhysRange,
    error::{Reason, Result},
};

/// Physical memory in a file that is read and written by position. The fallback where a file cannot be mapped.
#[derive(Debug)]
pub struct FileMemory {
    name: Arc<str>,
    runs: Arc<RunMap>,
    facts: TargetFacts,
    file: File,
    liveness: Liveness,
    read_only: bool,
}

impl FileMemory {
    /// Physical memory in `file`, which must be open for reading, and for writing too unless `read_only`.
    pub fn new(config: SourceConfig, file: File, liveness: Liveness, read_only: bool) -> Self {
        Self { name: config.name, runs: Arc::new(config.runs), facts: config.facts, file, liveness, read_only }
    }
}

impl PhysicalMemory for FileMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        for op in &mut *ops {
            let buf = &mut *op.buf;
            op.outcome = for_each_run(&self.runs, op.addr, buf.len(), |from, len, offset| {
                let part = buf.get_mut(from..from.saturating_add(len)).unwrap_or_default();
                read_fully_at(&self.file, part, offset)
            });
        }
        finish_reads(&self.name, ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        for op in &mut *ops {
            op.outcome = if self.read_only {
                Outcome::Failed { offset: 0, reason: Reason::ReadOnly }
            } else {
                for_each_run(&self.runs, op.addr, op.buf.len(), |from, len, offset| {
                    let part = op.buf.get(from..from.saturating_add(len)).unwrap_or_default();
                    write_fully_at(&self.file, part, offset)
                })
            };
        }
        finish_writes(&self.name, ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: self.name.clone(),
            runs: self.runs.clone(),
            liveness: self.liveness,
            read_only: self.read_only,
            ideal_batch: 64,
        }
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        extents::populated(&self.file, &self.runs)
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

/// Cuts an operation at run boundaries and calls `transfer(offset in the operation, length, offset in the file)` for what the
/// file holds. `transfer` says how many bytes it moved, and which error stopped it.
fn for_each_run(
    runs: &RunMap,
    addr: crate::address::PhysAddr,
    len: usize,
    mut transfer: impl FnMut(usize, usize, u64) -> (usize, Option<io::Error>),
) -> Outcome {
    let Some(range) = PhysRange::new(addr, len as u64) else {
        return Outcome::Failed { offset: 0, reason: Reason::OutOfRange };
    };
    let mut outcome = Outcome::Done;
    for piece in runs.pieces(range) {
        match piece {
            Piece::Gap { range } => {
                outcome.fail(range.start().offset_from(addr).unwrap_or(0), Reason::NotInImage { phys: range.start() });
            }
            Piece::Present { range, offset, .. } => {
                let from = range.start().offset_from(addr).unwrap_or(0);
                // Both are at most `len`, which is a usize.
                let (moved, error) = transfer(from as usize, range.len() as usize, offset);
                if (moved as u64) < range.len() {
                    let reason = match error {
                        Some(error) => Reason::Io { errno: error.raw_os_error().unwrap_or(0) },
                        None => Reason::Truncated { phys: range.start().wrapping_add(moved as u64) },
                    };
                    outcome.fail(from.saturating_add(moved as u64), reason);
                }
            }
        }
    }
    outcome
}

/// Reads until `buf` is full, the file ends, or an error comes; says how far it got.
fn read_fully_at(file: &File, buf: &mut [u8], offset: u64) -> (usize, Option<io::Error>) {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read_at(file, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

/// Writes until `buf` is written or an error comes; says how far it got.
fn write_fully_at(file: &File, buf: &[u8], offset: u64) -> (usize, Option<io::Error>) {
    let mut done = 0;
    while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
        match write_at(file, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

#[cfg(unix)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(unix)]
fn write_at(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, buf, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

#[cfg(windows)]
fn write_at(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, buf, offset)
}

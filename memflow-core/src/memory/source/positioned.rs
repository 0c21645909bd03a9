//! Physical memory in bytes that are read by position: a file, or what a connector unpacks on demand.
//!
//! Owns: [`ByteSource`], and the cutting of operations at the ends of runs. Must not know: formats.
//! Keeps: no shared seek position, so threads cannot disturb each other; bytes that end early, are damaged or were left out are each an
//! error of the operation with its own reason.

use std::{fmt, fs::File, io, sync::Arc};

use super::{
    super::{
        Liveness, Metadata, Outcome, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts, finish_reads,
        finish_writes,
    },
    SourceConfig, extents,
};
use crate::{
    address::PhysAddr,
    error::{Reason, Result},
};

/// Bytes that are read, and perhaps written, by position.
pub trait ByteSource: Send + Sync {
    /// Reads some bytes from `offset` on; zero when there are none.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for bytes that are there and make no sense (then the operation fails as
    /// [`Reason::Damaged`]); else what the system says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes some bytes from `offset` on. Asked only where memory was made writable.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, _offset: u64, _buf: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// The parts of the runs that are not known to be all zeros; see [`PhysicalMemory::populated_runs`].
    fn populated(&self, runs: &Arc<RunMap>) -> Arc<RunMap> {
        runs.clone()
    }
}

/// Physical memory in a file that is read and written by position. The fallback where a file cannot be mapped.
pub type FileMemory = PositionedMemory<File>;

/// Physical memory in bytes that are read and written by position.
pub struct PositionedMemory<S> {
    name: Arc<str>,
    runs: Arc<RunMap>,
    excluded: Arc<RunMap>,
    facts: TargetFacts,
    source: S,
    liveness: Liveness,
    read_only: bool,
}

impl<S: ByteSource> PositionedMemory<S> {
    /// Physical memory in `source`, which must take writes unless `read_only`.
    pub fn new(config: SourceConfig, source: S, liveness: Liveness, read_only: bool) -> Self {
        Self {
            name: config.name,
            runs: Arc::new(config.runs),
            excluded: Arc::default(),
            facts: config.facts,
            source,
            liveness,
            read_only,
        }
    }

    /// The same, knowing which addresses the target had and whoever wrote the bytes left out on purpose: they fail as
    /// [`Reason::Excluded`]. What is also in a run is not left out.
    #[must_use]
    pub fn with_excluded(mut self, excluded: RunMap) -> Self {
        self.excluded = Arc::new(excluded);
        self
    }

    /// Cuts an operation at the ends of runs and calls `transfer(offset in the operation, length, offset in the source)` for what the
    /// source holds. `transfer` says how many bytes it moved, and which error stopped it.
    fn for_each_run(
        &self,
        addr: PhysAddr,
        len: usize,
        mut transfer: impl FnMut(usize, usize, u64) -> (usize, Option<io::Error>),
    ) -> Outcome {
        let missing = |phys| match self.excluded.find(phys) {
            Some(_) => Reason::Excluded { phys },
            None => Reason::NotInImage { phys },
        };
        let mut transferred = Outcome::Done;
        let mut outcome = self.runs.cut(addr, len, missing, |part| {
            let (moved, error) = transfer(part.from, part.len, part.offset);
            if moved < part.len {
                let phys = part.range.start().wrapping_add(moved as u64);
                let reason = match error {
                    Some(error) if error.kind() == io::ErrorKind::InvalidData => Reason::Damaged { phys },
                    Some(error) => Reason::Io { errno: error.raw_os_error().unwrap_or(0) },
                    None => Reason::Truncated { phys },
                };
                transferred.fail(part.from.saturating_add(moved) as u64, reason);
            }
        });
        outcome.add_part(0, transferred);
        outcome
    }
}

impl<S: ByteSource> PhysicalMemory for PositionedMemory<S> {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        for op in &mut *ops {
            let buf = &mut *op.buf;
            op.outcome = self.for_each_run(op.addr, buf.len(), |from, len, offset| {
                let part = buf.get_mut(from..from.saturating_add(len)).unwrap_or_default();
                read_fully_at(&self.source, part, offset)
            });
        }
        finish_reads(&self.name, ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        for op in &mut *ops {
            op.outcome = if self.read_only {
                Outcome::Failed { offset: 0, reason: Reason::ReadOnly }
            } else {
                self.for_each_run(op.addr, op.buf.len(), |from, len, offset| {
                    let part = op.buf.get(from..from.saturating_add(len)).unwrap_or_default();
                    write_fully_at(&self.source, part, offset)
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
        self.source.populated(&self.runs)
    }

    fn excluded_runs(&self) -> Arc<RunMap> {
        self.excluded.clone()
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

impl<S> fmt::Debug for PositionedMemory<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PositionedMemory")
            .field("name", &self.name)
            .field("runs", &self.runs)
            .field("liveness", &self.liveness)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

impl ByteSource for File {
    #[cfg(unix)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buf, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, buf, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(self, buf, offset)
    }

    fn populated(&self, runs: &Arc<RunMap>) -> Arc<RunMap> {
        extents::populated(self, runs)
    }
}

/// Reads until `buf` is full, the source ends, or an error comes; says how far it got.
fn read_fully_at(source: &impl ByteSource, buf: &mut [u8], offset: u64) -> (usize, Option<io::Error>) {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read_at(offset.saturating_add(done as u64), rest) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

/// Writes until `buf` is written or an error comes; says how far it got.
fn write_fully_at(source: &impl ByteSource, buf: &[u8], offset: u64) -> (usize, Option<io::Error>) {
    let mut done = 0;
    while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
        match source.write_at(offset.saturating_add(done as u64), rest) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

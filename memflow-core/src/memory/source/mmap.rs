//! Physical memory in a mapped file.
//!
//! Owns: the mapping and the decision to map. Must not know: formats.
//! Keeps: every region lies inside the file as it was when mapped; if the file shrinks later, the guard turns the missing pages
//! into errors instead of a SIGBUS.

use std::{
    fs::File,
    sync::{Arc, atomic::AtomicU64},
};

use memmap2::{Mmap, MmapMut, MmapOptions};

#[cfg(unix)]
use super::bus_guard::Guarded;
use super::{
    super::{
        Backing, DirectMap, DirectRegion, Liveness, Metadata, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts,
    },
    SourceConfig, extents,
};
use crate::error::{Error, Result};

/// How a file is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapMode {
    /// A snapshot: nobody writes to the file while it is open. Frozen, read-only.
    Private,
    /// A file that others write to, such as the shared memory backend of a running guest. Live, read-only.
    Shared,
    /// As [`Shared`](Self::Shared), and writes go to the file.
    SharedWritable,
}

impl MapMode {
    /// Whether bytes change while they are read.
    pub fn liveness(self) -> Liveness {
        match self {
            Self::Private => Liveness::Frozen,
            Self::Shared | Self::SharedWritable => Liveness::Live,
        }
    }
}

/// Physical memory in a mapped file.
#[derive(Debug)]
pub struct MappedMemory {
    name: Arc<str>,
    runs: Arc<RunMap>,
    facts: TargetFacts,
    map: DirectMap,
    mode: MapMode,
    /// A handle of its own, to ask where the file has holes.
    file: File,
}

/// The mapping. Fields are dropped in order: the guard lets go before the mapping does.
#[derive(Debug)]
struct Mapping {
    #[cfg(unix)]
    guard: Guarded,
    #[expect(dead_code, reason = "keeps the pages mapped that the map points into")]
    pages: Pages,
}

#[derive(Debug)]
enum Pages {
    ReadOnly(#[expect(dead_code, reason = "owns the mapping")] Mmap),
    Writable(#[expect(dead_code, reason = "owns the mapping")] MmapMut),
}

// SAFETY: a mapping stays at its address until it is dropped; the guard keeps it readable when the file shrinks.
unsafe impl Backing for Mapping {
    #[inline]
    fn lost_from(&self) -> Option<&AtomicU64> {
        #[cfg(unix)]
        return self.guard.lost_from();
        // Windows refuses to shorten a mapped file.
        #[cfg(not(unix))]
        None
    }
}

impl MappedMemory {
    /// Maps `file` whole and serves the runs of `config` from it.
    ///
    /// # Errors
    /// [`Error::Io`] when the system does not map the file (then [`FileMemory`](super::FileMemory) is the way), [`Error::Range`]
    /// when a run reaches past the end of the file.
    pub fn new(config: SourceConfig, file: &File, mode: MapMode) -> Result<Self> {
        let failed = |source| Error::io(format!("mapping {}", config.name), source);
        let options = MmapOptions::new();
        let (pages, base, len) = match mode {
            MapMode::SharedWritable => {
                // SAFETY: the pages are reached by volatile copies only (`DirectMap` with `Live`), so others may change them.
                let mut pages = unsafe { options.map_mut(file) }.map_err(failed)?;
                let (base, len) = (pages.as_mut_ptr(), pages.len());
                (Pages::Writable(pages), base, len)
            }
            MapMode::Shared | MapMode::Private => {
                // SAFETY: as above for shared mappings; for private ones the caller of `Private` promises that the file rests.
                let pages = unsafe { options.map(file) }.map_err(failed)?;
                let (base, len) = (pages.as_ptr().cast_mut(), pages.len());
                (Pages::ReadOnly(pages), base, len)
            }
        };
        #[cfg(unix)]
        let Some(guard) = Guarded::register(base as usize, len) else {
            return Err(failed(std::io::Error::other("too many files are mapped at one time")));
        };
        let regions = DirectRegion::of_runs(&config.runs, base, len)?;
        let backing = Arc::new(Mapping {
            #[cfg(unix)]
            guard,
            pages,
        });
        // SAFETY:
        // - every region lies in the mapping (just checked), which the backing owns;
        // - it is writable when `mode` says so;
        // - `Frozen` is the promise of `MapMode::Private`; live pages are referenced by nobody in this process.
        let map = unsafe { DirectMap::new(regions, mode.liveness(), mode == MapMode::SharedWritable, backing) }?;
        let file = file.try_clone().map_err(failed)?;
        Ok(Self { name: config.name, runs: Arc::new(config.runs), facts: config.facts, map, mode, file })
    }
}

impl PhysicalMemory for MappedMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.map.read_batch(&self.name, ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.map.write_batch(&self.name, ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: self.name.clone(),
            runs: self.runs.clone(),
            liveness: self.mode.liveness(),
            read_only: self.mode != MapMode::SharedWritable,
            ideal_batch: usize::MAX,
        }
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        extents::populated(&self.file, &self.runs)
    }

    fn direct_map(&self) -> Option<&DirectMap> {
        Some(&self.map)
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

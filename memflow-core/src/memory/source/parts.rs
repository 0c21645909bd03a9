//! Physical memory in several mapped files.
//!
//! Owns: one reservation of addresses, the mappings of files in it. Must not know: whose files they are.
//! Keeps: as [`MappedMemory`](super::MappedMemory): a file that shrinks later gives errors and no SIGBUS. The guard notes one place
//! from which on bytes are lost, so what lies behind a file that shrank counts as lost, too.
//! Source: POSIX `mmap(2)`; Linux `Documentation/admin-guide/mm/hugetlbpage.rst` (alignment).

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    ptr,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    super::{
        Backing, DirectMap, DirectRegion, Metadata, PhysRead, PhysWrite, PhysicalMemory, Run, RunMap, TargetFacts,
    },
    MapMode, SourceConfig,
    bus_guard::Guarded,
    extents,
};
use crate::{
    address::PhysRange,
    error::{Error, Result},
};

/// The largest pages of x86 and, with base pages of 4 KiB, of Arm.
const MAX_ALIGNMENT: usize = 1 << 30;

/// Part of a file that holds physical memory.
#[derive(Debug)]
pub struct FilePart {
    /// The file.
    pub file: File,
    /// Offset of the first byte, a multiple of the file's page size.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Physical memory in parts of several mapped files.
#[derive(Debug)]
pub struct MappedParts {
    name: Arc<str>,
    runs: Arc<RunMap>,
    facts: TargetFacts,
    map: DirectMap,
    mode: MapMode,
    parts: Vec<Placed>,
}

/// A part, where it begins in the parts put one behind the other, and where in the reservation.
#[derive(Debug)]
struct Placed {
    part: FilePart,
    first: u64,
    at: usize,
}

/// The mappings. Fields are dropped in order: the guard lets go before the mappings do.
#[derive(Debug)]
struct Mapping {
    guard: Guarded,
    #[expect(dead_code, reason = "keeps the pages mapped that the map points into")]
    reservation: Reservation,
}

// SAFETY: the reservation stays at its address until it is dropped; the guard keeps it readable when a file shrinks.
unsafe impl Backing for Mapping {
    #[inline]
    fn lost_from(&self) -> Option<&AtomicU64> {
        self.guard.lost_from()
    }
}

/// Addresses of this process that are ours.
#[derive(Debug)]
struct Reservation {
    // INVARIANT: `len` bytes from here on were mapped by `new`, and are unmapped by nobody but `drop`.
    base: *mut u8,
    len: usize,
}

// SAFETY: it only holds an address; nothing is read or written through it.
unsafe impl Send for Reservation {}
// SAFETY: as for Send.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Addresses behind which there is nothing yet.
    fn new(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without an address, the system picks one where nothing is; no bytes are reachable through it.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { base: base.cast(), len }) }
    }

    /// Maps a part of a file at an offset of the reservation.
    fn place(&self, part: &FilePart, at: usize, writable: bool) -> io::Result<()> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
        let len = usize::try_from(part.len).map_err(|_| wrong())?;
        let offset = libc::off_t::try_from(part.offset).map_err(|_| wrong())?;
        at.checked_add(len).filter(|end| *end <= self.len).ok_or_else(wrong)?;
        let rights = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let address = self.base.wrapping_add(at).cast();
        // SAFETY: the bytes from `address` lie in the reservation (just checked), which is ours alone (INVARIANT); no region
        // points to them yet.
        let placed = unsafe {
            libc::mmap(address, len, rights, libc::MAP_SHARED | libc::MAP_FIXED, part.file.as_raw_fd(), offset)
        };
        if placed == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this (INVARIANT), and whoever points into it has let go of the backing.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

impl MappedParts {
    /// Maps parts of files, which others may write to. Offsets of the runs in `config` are into the parts put one behind the other.
    ///
    /// # Errors
    /// [`Error::Io`] when the system does not map a file, [`Error::Range`] when a run reaches past the last part.
    pub fn new(config: SourceConfig, parts: Vec<FilePart>, mode: MapMode) -> Result<Self> {
        let failed = |source| Error::io(format!("mapping {}", config.name), source);
        let (placed, len) = arrange(parts).map_err(failed)?;
        let reservation = Reservation::new(len).map_err(failed)?;
        let mode = if mode == MapMode::Private { MapMode::Shared } else { mode };
        for Placed { part, at, .. } in &placed {
            reservation.place(part, *at, mode == MapMode::SharedWritable).map_err(failed)?;
        }
        let base = reservation.base;
        let Some(guard) = Guarded::register(base as usize, len) else {
            return Err(failed(io::Error::other("too many files are mapped at one time")));
        };
        let mut regions = Vec::new();
        for run in config.runs.runs() {
            let pieces: Vec<DirectRegion> = placed.iter().filter_map(|placed| placed.region(run, base)).collect();
            let covered = pieces.iter().fold(0, |sum: u64, piece| sum.saturating_add(piece.range.len()));
            if covered != run.range.len() {
                return Err(Error::Range { address: run.range.start().into(), len: run.range.len() });
            }
            regions.extend(pieces);
        }
        let backing = Arc::new(Mapping { guard, reservation });
        // SAFETY:
        // - every region lies in a part that was mapped into the reservation, which the backing owns;
        // - it is writable when `mode` says so;
        // - the map is live, and live pages are referenced by nobody in this process.
        let map = unsafe { DirectMap::new(regions, mode.liveness(), mode == MapMode::SharedWritable, backing) }?;
        Ok(Self { name: config.name, runs: Arc::new(config.runs), facts: config.facts, map, mode, parts: placed })
    }
}

/// Places parts behind each other, each at a multiple of its file's page size; and how much room they take.
fn arrange(parts: Vec<FilePart>) -> io::Result<(Vec<Placed>, usize)> {
    let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
    let (mut placed, mut first, mut end, mut largest) = (Vec::with_capacity(parts.len()), 0_u64, 0_usize, 0_usize);
    for part in parts {
        let alignment = alignment(&part.file)?;
        largest = largest.max(alignment);
        let at = end.checked_next_multiple_of(alignment).ok_or_else(too_large)?;
        let len = usize::try_from(part.len).map_err(|_| too_large())?;
        end = at.checked_add(len).ok_or_else(too_large)?;
        let next = first.checked_add(part.len).ok_or_else(too_large)?;
        placed.push(Placed { part, first, at });
        first = next;
    }
    // The system aligns mappings of pages by itself, and larger ones not.
    let slack = if largest > 4096 { largest } else { 0 };
    end.checked_add(slack).filter(|len| *len > 0).map(|len| (placed, len)).ok_or_else(too_large)
}

/// Size of the pages that a file is mapped in: of huge pages, their file system says it as the size of blocks.
fn alignment(file: &File) -> io::Result<usize> {
    const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
    let system = rustix::fs::fstatfs(file)?;
    if system.f_type as i64 != HUGETLBFS_MAGIC {
        return Ok(4096);
    }
    let size = usize::try_from(system.f_bsize).ok().filter(|size| size.is_power_of_two() && *size <= MAX_ALIGNMENT);
    size.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Placed {
    /// What of a run lies in this part.
    fn region(&self, run: &Run, base: *mut u8) -> Option<DirectRegion> {
        let start = run.offset.max(self.first);
        let end = run.offset.checked_add(run.range.len())?.min(self.first.checked_add(self.part.len)?);
        let len = end.checked_sub(start).filter(|len| *len > 0)?;
        let inside = usize::try_from(start.checked_sub(self.first)?).ok()?;
        let at = self.at.checked_add(inside)?;
        let phys = run.range.start().checked_add(start.checked_sub(run.offset)?)?;
        Some(DirectRegion { range: PhysRange::new(phys, len)?, ptr: base.wrapping_add(at), offset: at as u64 })
    }

    /// The runs whose bytes lie in this part, with offsets into its file.
    fn file_runs(&self, runs: &RunMap) -> Option<RunMap> {
        let run = |run: &Run| {
            let region = self.region(run, ptr::null_mut())?;
            let inside = (region.offset as usize).checked_sub(self.at)? as u64;
            Some(Run { range: region.range, offset: self.part.offset.checked_add(inside)? })
        };
        RunMap::new(runs.runs().iter().filter_map(run)).ok()
    }
}

impl PhysicalMemory for MappedParts {
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
        let mut populated = Vec::new();
        for placed in &self.parts {
            let Some(runs) = placed.file_runs(&self.runs) else { return self.runs.clone() };
            populated.extend_from_slice(extents::populated(&placed.part.file, &Arc::new(runs)).runs());
        }
        RunMap::new(populated).map_or_else(|_| self.runs.clone(), Arc::new)
    }

    fn direct_map(&self) -> Option<&DirectMap> {
        Some(&self.map)
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::address::PhysAddr;

    fn part(byte: u8, pages: u64, offset: u64) -> FilePart {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![byte; 4096 * (pages + offset) as usize], 0).unwrap();
        FilePart { file, offset: offset * 4096, len: pages * 4096 }
    }

    fn parts(runs: &str, parts: Vec<FilePart>, mode: MapMode) -> Result<MappedParts> {
        let config = SourceConfig { name: "parts".into(), runs: runs.parse()?, facts: TargetFacts::default() };
        MappedParts::new(config, parts, mode)
    }

    fn byte(memory: &MappedParts, at: u64) -> Result<u8> {
        let mut byte = [0];
        memory.read_batch(&mut [PhysRead::new(PhysAddr::new(at), &mut byte)]).map(|()| byte[0])
    }

    #[test]
    fn run_goes_on_from_one_file_to_the_next() {
        let memory = parts("0x0-0x3fff@0x0", vec![part(1, 2, 0), part(2, 2, 3)], MapMode::Shared).unwrap();
        assert_eq!((byte(&memory, 0x1fff).unwrap(), byte(&memory, 0x2000).unwrap()), (1, 2));
        let mut bytes = [0; 4];
        memory.read_batch(&mut [PhysRead::new(PhysAddr::new(0x1ffe), &mut bytes)]).unwrap();
        assert_eq!(bytes, [1, 1, 2, 2]);
        assert_eq!(memory.populated_runs().total_bytes(), 0x4000);
    }

    #[test]
    fn writes_reach_the_right_file() {
        let (first, second) = (part(1, 1, 0), part(2, 1, 1));
        let file = second.file.try_clone().unwrap();
        let memory =
            parts("0x0-0xfff@0x1000,0x10000-0x10fff@0x0", vec![first, second], MapMode::SharedWritable).unwrap();
        memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(8), b"here")]).unwrap();
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, 4096 + 8).unwrap();
        assert_eq!(&bytes, b"here");
        assert_eq!(byte(&memory, 0x10008).unwrap(), 1);
    }

    #[test]
    fn runs_past_the_last_part_are_refused() {
        assert!(matches!(parts("0x0-0x1fff@0x0", vec![part(1, 1, 0)], MapMode::Shared), Err(Error::Range { .. })));
        assert!(parts("0x0-0xfff@0x0", Vec::new(), MapMode::Shared).is_err());
    }

    #[test]
    fn file_that_shrinks_is_an_error_and_those_before_it_stay() {
        let (first, second) = (part(1, 1, 0), part(2, 2, 0));
        let file = second.file.try_clone().unwrap();
        let memory = parts("0x0-0x2fff@0x0", vec![first, second], MapMode::Shared).unwrap();
        file.set_len(4096).unwrap();
        assert_eq!((byte(&memory, 0).unwrap(), byte(&memory, 0x1000).unwrap()), (1, 2));
        assert!(byte(&memory, 0x2000).is_err());
        assert_eq!(byte(&memory, 0x1000).unwrap(), 2);
    }
}

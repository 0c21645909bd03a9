//! Physical memory in an owned buffer: what came out of a compressed file.
//!
//! Owns: the buffer. Must not know: formats.
//! Keeps: runs lie inside the buffer (checked when it is made); the bytes never change.

use std::sync::{Arc, atomic::AtomicU64};

use memmap2::MmapMut;

use super::{
    super::{
        Backing, DirectMap, DirectRegion, Liveness, Metadata, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts,
    },
    PageBuffer, SourceConfig,
};
use crate::error::Result;

/// Frozen physical memory in a buffer of this process. Clones are not needed: one handle serves every thread.
#[derive(Debug)]
pub struct BufferMemory {
    name: Arc<str>,
    runs: Arc<RunMap>,
    facts: TargetFacts,
    map: DirectMap,
}

/// Bytes that a [`BufferMemory`] takes over: a `Vec` or a [`PageBuffer`].
#[derive(Debug)]
pub struct OwnedBytes(Bytes);

/// The buffer, never touched again except through the map's pointers.
#[derive(Debug)]
enum Bytes {
    Heap(Vec<u8>),
    Pages { pages: MmapMut, len: usize },
}

impl OwnedBytes {
    /// Where the bytes start and how many there are.
    fn parts(&mut self) -> (*mut u8, usize) {
        match &mut self.0 {
            Bytes::Heap(bytes) => (bytes.as_mut_ptr(), bytes.len()),
            Bytes::Pages { pages, len } => (pages.as_mut_ptr(), *len),
        }
    }
}

impl From<Vec<u8>> for OwnedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::Heap(bytes))
    }
}

impl From<PageBuffer> for OwnedBytes {
    fn from(buffer: PageBuffer) -> Self {
        Self(match buffer.into_pages() {
            Some((pages, len)) => Bytes::Pages { pages, len },
            None => Bytes::Heap(Vec::new()),
        })
    }
}

// SAFETY: the heap block of a `Vec` that nobody changes stays where it is until the `Vec` is dropped with this backing; so
// does an anonymous mapping.
unsafe impl Backing for OwnedBytes {
    fn lost_from(&self) -> Option<&AtomicU64> {
        None
    }
}

impl BufferMemory {
    /// Physical memory whose runs lie in `bytes`.
    ///
    /// # Errors
    /// [`Error::Range`](crate::Error::Range) when a run reaches past the end of the buffer.
    pub fn new(config: SourceConfig, bytes: impl Into<OwnedBytes>) -> Result<Self> {
        let mut bytes = bytes.into();
        let (base, len) = bytes.parts();
        let regions = DirectRegion::of_runs(&config.runs, base, len)?;
        // SAFETY: every region lies in the buffer (just checked), which the backing owns; nothing writes to it, as the map is
        // not writable and the buffer is not reachable in any other way.
        let map = unsafe { DirectMap::new(regions, Liveness::Frozen, false, Arc::new(bytes)) }?;
        Ok(Self { name: config.name, runs: Arc::new(config.runs), facts: config.facts, map })
    }
}

impl PhysicalMemory for BufferMemory {
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
            liveness: Liveness::Frozen,
            read_only: true,
            ideal_batch: usize::MAX,
        }
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
    use super::*;
    use crate::{
        Error,
        address::{PhysAddr, PhysRange},
        error::Reason,
        memory::{Outcome, PhysicalMemoryExt, Run},
    };

    fn memory() -> BufferMemory {
        let runs = RunMap::new([
            Run { range: PhysRange::new(PhysAddr::new(0x1000), 0x10).unwrap(), offset: 0 },
            Run { range: PhysRange::new(PhysAddr::new(0x1010), 0x10).unwrap(), offset: 0x20 },
            Run { range: PhysRange::new(PhysAddr::new(0x2000), 0x10).unwrap(), offset: 0x10 },
        ])
        .unwrap();
        let config = SourceConfig { name: "test".into(), runs, facts: TargetFacts::default() };
        BufferMemory::new(config, (0..0x30).collect::<Vec<u8>>()).unwrap()
    }

    #[test]
    fn read_across_adjacent_runs_is_whole() {
        let mut buf = [0; 4];
        memory().read_into(PhysAddr::new(0x100e), &mut buf).unwrap();
        assert_eq!(buf, [0xe, 0xf, 0x20, 0x21]);
    }

    #[test]
    fn gap_is_not_zero_and_what_surrounds_it_arrives() {
        let memory = memory();
        let mut buf = [0xaa; 0x1000];
        let mut ops = [PhysRead::new(PhysAddr::new(0x1018), &mut buf)];
        assert!(memory.read_batch(&mut ops).unwrap_err().is_not_in_image());
        assert_eq!(
            ops[0].outcome,
            Outcome::Failed { offset: 8, reason: Reason::NotInImage { phys: PhysAddr::new(0x1020) } }
        );
        assert_eq!(buf[..8], [0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f]);
        assert_eq!(buf[8], 0xaa);
        assert_eq!(buf[0xfe8..0xfea], [0x10, 0x11]);
        assert_eq!(buf[0xff7..0xff9], [0x1f, 0xaa]);
    }

    #[test]
    fn last_address_and_zero_length_are_ordinary() {
        let memory = memory();
        memory.read_into(PhysAddr::new(0x1000), &mut []).unwrap();
        memory.read_into(PhysAddr::new(0xdead_0000), &mut []).unwrap();
        let mut buf = [0; 16];
        let error = memory.read_into(PhysAddr::new(u64::MAX - 7), &mut buf).unwrap_err();
        assert!(error.is_not_in_image(), "{error}");
    }

    #[test]
    fn frozen_memory_lends_slices_and_refuses_writes() {
        let memory = memory();
        let map = memory.direct_map().unwrap();
        assert_eq!(map.slice(PhysRange::new(PhysAddr::new(0x2000), 2).unwrap()), Some(&[0x10, 0x11][..]));
        assert_eq!(map.slice(PhysRange::new(PhysAddr::new(0x200f), 2).unwrap()), None);
        assert_eq!(map.load_u32(PhysAddr::new(0x2004)), Ok(0x1716_1514));
        let error = memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(0x1000), &[1])]).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::ReadOnly));
    }

    #[test]
    fn page_buffer_serves_what_was_added_and_no_more() {
        let buffer = || {
            let mut buffer = PageBuffer::new();
            buffer.append(&[1, 2, 3]).unwrap();
            buffer
        };
        let config = |len| SourceConfig { name: "test".into(), runs: RunMap::flat(len), facts: TargetFacts::default() };
        let memory = BufferMemory::new(config(3), buffer()).unwrap();
        let mut buf = [0; 3];
        memory.read_into(PhysAddr::new(0), &mut buf).unwrap();
        assert_eq!(buf, [1, 2, 3]);
        assert!(matches!(BufferMemory::new(config(4), buffer()), Err(Error::Range { .. })));
        assert!(BufferMemory::new(config(0), PageBuffer::new()).is_ok());
    }

    #[test]
    fn run_past_the_end_is_refused() {
        let config = SourceConfig { name: "test".into(), runs: RunMap::flat(2), facts: TargetFacts::default() };
        assert!(matches!(BufferMemory::new(config, vec![0]), Err(Error::Range { .. })));
    }
}

//! Page files beside memory: one physical memory in which pages of page files have addresses too, far above those of any machine.
//!
//! Owns: these addresses, and who answers for them. Must not know: page tables, whose pages they are.
//! Keeps: what is asked of memory reaches it unchanged; page files are not written.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fs::File, path::Path, sync::Arc};

use memflow_core::{
    Error, PhysAddr, Reason, Result,
    memory::{
        Control, FileMemory, Liveness, Lookaside, Metadata, Outcome, PhysRead, PhysWrite, PhysicalMemory, RunMap,
        SourceConfig, TargetFacts, finish_reads, finish_writes,
    },
};

/// The first address of page files: half of what entries of page tables could reach, which is more than any machine has.
const FIRST: u64 = 1 << 51;
/// Bits of a page's number and the offset in it: numbers have 32 bits.
const FILE_SHIFT: u32 = 44;
/// A page, in bytes and bits.
const PAGE: u64 = 0x1000;
const PAGE_SHIFT: u32 = 12;

/// A page file, by the number that Windows gives it: what is at physical address 0 of it is its first byte.
#[derive(Clone)]
#[non_exhaustive]
pub struct PageFile {
    /// Its number: 0 is `pagefile.sys` of the first disk, 1 mostly `swapfile.sys`.
    pub number: u8,
    /// Its bytes.
    pub bytes: Arc<dyn PhysicalMemory>,
}

impl PageFile {
    /// A page file whose first byte is at physical address 0 of `bytes`.
    pub fn new(number: u8, bytes: Arc<dyn PhysicalMemory>) -> Self {
        Self { number, bytes }
    }

    /// The page file in a file.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(number: u8, path: &Path) -> Result<Self> {
        let opening = |error| Error::io(format!("page file {}", path.display()), error);
        let file = File::open(path).map_err(opening)?;
        let len = file.metadata().map_err(opening)?.len();
        let config = SourceConfig {
            name: format!("page file {}", path.display()).into(),
            runs: RunMap::flat(len),
            facts: TargetFacts::default(),
        };
        Ok(Self { number, bytes: Arc::new(FileMemory::new(config, file, Liveness::Frozen, true)) })
    }
}

impl std::fmt::Debug for PageFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageFile({}: {})", self.number, self.bytes.metadata().name)
    }
}

/// Which pages of page files there are.
#[derive(Clone, Default, Debug)]
pub(crate) struct PageFiles(Arc<[PageFile]>);

impl PageFiles {
    pub(crate) fn new(files: &[PageFile]) -> Self {
        Self(files.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn file(&self, number: u64) -> Option<&PageFile> {
        self.0.iter().find(|file| u64::from(file.number) == number)
    }

    /// Where a page of a page file lies, if the file is there and long enough.
    pub(crate) fn place(&self, file: u8, page: u64) -> Option<PhysAddr> {
        let start = page.checked_mul(PAGE).filter(|start| start >> FILE_SHIFT == 0)?;
        let runs = self.file(file.into())?.bytes.metadata().runs;
        runs.find(PhysAddr::new(start))?;
        runs.find(PhysAddr::new(start).wrapping_add(PAGE.wrapping_sub(1)))?;
        Some(PhysAddr::new(FIRST | u64::from(file) << FILE_SHIFT | page << PAGE_SHIFT))
    }
}

/// Memory with page files.
pub(crate) struct PagedMemory {
    below: Arc<dyn PhysicalMemory>,
    files: PageFiles,
}

impl PagedMemory {
    pub(crate) fn new(below: Arc<dyn PhysicalMemory>, files: PageFiles) -> Self {
        Self { below, files }
    }

    fn read_paged(&self, op: &mut PhysRead<'_>) {
        let at = op.addr.as_u64() ^ FIRST;
        let Some(file) = self.files.file(at >> FILE_SHIFT) else {
            op.outcome.fail(0, Reason::NotInImage { phys: op.addr });
            return;
        };
        let inside = PhysAddr::new(at & (1u64 << FILE_SHIFT).wrapping_sub(1));
        let mut reads = [PhysRead::new(inside, &mut *op.buf)];
        // Its outcome says the same.
        let _ = file.bytes.read_batch(&mut reads);
        let [PhysRead { outcome, .. }] = reads;
        op.outcome = outcome;
    }
}

/// Whether an address is one of a page file.
fn is_paged(addr: PhysAddr) -> bool {
    addr.as_u64() >> FILE_SHIFT >= FIRST >> FILE_SHIFT
}

impl PhysicalMemory for PagedMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        if !ops.iter().any(|op| is_paged(op.addr)) {
            return self.below.read_batch(ops);
        }
        let mut below: Vec<PhysRead<'_>> =
            ops.iter_mut().filter(|op| !is_paged(op.addr)).map(|op| PhysRead::new(op.addr, &mut *op.buf)).collect();
        let called = if below.is_empty() { Ok(()) } else { self.below.read_batch(&mut below) };
        let mut outcomes: Vec<Outcome> = below.iter().map(|read| read.outcome).collect();
        outcomes.reverse();
        for op in &mut *ops {
            if is_paged(op.addr) {
                op.outcome = Outcome::NotAttempted;
                self.read_paged(op);
            } else if let Some(outcome) = outcomes.pop() {
                op.outcome = outcome;
            }
        }
        called?;
        finish_reads("memory with page files", ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        if !ops.iter().any(|op| is_paged(op.addr)) {
            return self.below.write_batch(ops);
        }
        for op in &mut *ops {
            if is_paged(op.addr) {
                op.outcome = Outcome::Failed { offset: 0, reason: Reason::ReadOnly };
            } else {
                let mut writes = [PhysWrite::new(op.addr, op.buf)];
                // Its outcome says the same.
                let _ = self.below.write_batch(&mut writes);
                let [PhysWrite { outcome, .. }] = writes;
                op.outcome = outcome;
            }
        }
        finish_writes("memory with page files", ops)
    }

    fn metadata(&self) -> Metadata {
        self.below.metadata()
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        self.below.populated_runs()
    }

    fn excluded_runs(&self) -> Arc<RunMap> {
        self.below.excluded_runs()
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        self.below.lookaside()
    }

    fn facts(&self) -> &TargetFacts {
        self.below.facts()
    }

    fn control(&self) -> Option<&dyn Control> {
        self.below.control()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use memflow_core::memory::{BufferMemory, PhysicalMemoryExt, SourceConfig};

    use super::*;

    fn flat(bytes: Vec<u8>) -> Arc<dyn PhysicalMemory> {
        let runs = RunMap::flat(bytes.len() as u64);
        let config = SourceConfig { name: "flat".into(), runs, facts: TargetFacts::default() };
        Arc::new(BufferMemory::new(config, bytes).unwrap())
    }

    fn memory() -> (PagedMemory, PageFiles) {
        let file = [vec![0xaa; 0x1000], vec![0xbb; 0x1000], vec![0xcc; 10]].concat();
        let files = PageFiles::new(&[PageFile { number: 1, bytes: flat(file) }]);
        (PagedMemory::new(flat(vec![1; 0x2000]), files.clone()), files)
    }

    #[test]
    fn pages_of_a_file_are_read_beside_those_of_memory() {
        let (memory, files) = memory();
        let place = files.place(1, 1).unwrap();
        let (mut first, mut second, mut third) = ([0; 4], [0; 4], [0; 4]);
        let mut ops = [
            PhysRead::new(PhysAddr::new(0x1ffe), &mut first),
            PhysRead::new(place, &mut second),
            PhysRead::new(PhysAddr::new(0x10), &mut third),
        ];
        let error = memory.read_batch(&mut ops).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::NotInImage { phys: PhysAddr::new(0x2000) }));
        assert!(ops[1].outcome.is_done() && ops[2].outcome.is_done());
        assert_eq!((second, third), ([0xbb; 4], [1; 4]));
        let mut both = [0; 4];
        memory.read_into(place.wrapping_sub(2), &mut both).unwrap();
        assert_eq!(both, [0xaa, 0xaa, 0xbb, 0xbb]);
    }

    #[test]
    fn pages_that_are_in_no_file_have_no_place() {
        let (memory, files) = memory();
        assert_eq!((files.place(0, 1), files.place(1, 2), files.place(1, u64::MAX)), (None, None, None));
        let mut bytes = [0; 4];
        let outside = files.place(1, 0).unwrap().wrapping_add(0x10_0000);
        assert!(memory.read_into(outside, &mut bytes).is_err());
        assert!(memory.read_into(PhysAddr::new(u64::MAX - 1), &mut bytes).is_err());
        let refused = memory.write_batch(&mut [PhysWrite::new(files.place(1, 0).unwrap(), &[1])]).unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::ReadOnly));
    }
}

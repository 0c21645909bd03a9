//! Pages of a process: what each is, and those that only the process' regions know.
//!
//! Owns: the record of a page, the way from an address without an entry to its region's prototypes. Must not know: bits of entries.
//! Keeps: what is read here is in memory by the word of an entry that Windows itself would follow; the regions of a snapshot are looked
//! at once, those of a running system each time.
//! Source: `_MMVAD.FirstPrototypePte` and `LastContiguousPte` in the kernel's symbols.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    borrow::Cow,
    cell::LazyCell,
    fmt,
    sync::{Arc, OnceLock},
};

use memflow_core::{
    MemoryView, PageSize, PhysAddr, Reason, VirtAddr,
    error::{AccessKind, Error, Result, Stop, StopCause},
    memory::{Liveness, Outcome, PhysRead, PhysicalMemory, ViewRead},
    paging::{AddressSpace, SoftFault, SoftFaults},
    view::SpaceView,
};

use crate::{
    bytes::index,
    os::System,
    soft_fault::{Behind, InMemory, InRegion},
    vad::{self, VadLayout},
};

/// Where the bytes of a page are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PageState {
    /// In memory, and the processor knows.
    Valid {
        /// Physical address of the page.
        base: PhysAddr,
    },
    /// In memory, on the list of standby or modified pages, or of another process that has the same file mapped.
    Transition {
        /// Physical address of the page.
        base: PhysAddr,
    },
    /// Zeros when it is first used.
    DemandZero,
    /// In a page file. It can be read if the page file is at hand.
    PageFile {
        /// Number of the page file.
        file: u8,
        /// Number of the page in it; `None` where a bit of it may be inverted and nothing tells.
        page: Option<u64>,
        /// Whether it can be read from a page file that is at hand.
        at_hand: bool,
    },
    /// In the store of compressed pages, which Windows 10 and later have as page file 2.
    CompressedStore {
        /// Number of the page in it.
        page: Option<u64>,
    },
    /// In the file that is mapped.
    File,
    /// Somewhere else, in a way that is not known of this build.
    Elsewhere,
    /// What would tell cannot be read.
    Unreadable,
    /// Nothing was ever there: the address is free or reserved, or its region as a whole is zeros when first used.
    Nothing,
}

/// A page of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PageDetails {
    /// Its address in the process.
    pub address: VirtAddr,
    /// Its size.
    pub size: PageSize,
    /// Where its bytes are.
    pub state: PageState,
}

/// Pages of a region that are told by prototypes.
#[derive(Clone, Copy, Debug)]
struct Shared {
    first: u64,
    last: u64,
    /// Address of the prototype of the first page, and of the last one that stands in the same array.
    prototypes: (VirtAddr, VirtAddr),
}

/// The regions of a process that prototypes tell, by address.
#[derive(Clone, Debug, Default)]
struct Regions {
    shared: Vec<Shared>,
    /// No region is missing.
    complete: bool,
}

/// What is known of pages of one process.
pub(crate) struct ProcessPages {
    system: Arc<System>,
    process: VirtAddr,
    kept: OnceLock<Regions>,
}

impl fmt::Debug for ProcessPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessPages({})", self.process)
    }
}

impl ProcessPages {
    pub(crate) fn new(system: Arc<System>, process: VirtAddr) -> Self {
        Self { system, process, kept: OnceLock::new() }
    }

    fn regions(&self) -> Cow<'_, Regions> {
        match self.system.kernel.memory.metadata().liveness {
            Liveness::Frozen => Cow::Borrowed(self.kept.get_or_init(|| self.look())),
            Liveness::Live => Cow::Owned(self.look()),
        }
    }

    fn look(&self) -> Regions {
        let kernel = &self.system.kernel;
        let regions =
            VadLayout::new(&kernel.layout).and_then(|layout| vad::regions(&kernel.view, &layout, self.process));
        let Ok(regions) = regions else { return Regions::default() };
        let shared = |vad: &vad::Vad| {
            let prototypes = vad.prototypes?;
            let range = vad.region.range;
            Some(Shared { first: range.start().as_u64(), last: range.last()?.as_u64(), prototypes })
        };
        Regions { shared: regions.items.iter().filter_map(shared).collect(), complete: regions.problems.is_empty() }
    }

    /// The prototype of the page of an address, by its region.
    fn prototype(&self, regions: &Regions, at: VirtAddr) -> InRegion {
        let Regions { shared, complete } = regions;
        let next = shared.partition_point(|region| region.first <= at.as_u64());
        let region = next.checked_sub(1).and_then(|index| shared.get(index));
        let Some(region) = region.filter(|region| at.as_u64() <= region.last) else {
            return if *complete { InRegion::None } else { InRegion::Unknown };
        };
        let (first, last) = region.prototypes;
        let page = at.as_u64().saturating_sub(region.first).checked_div(PageSize::KIB_4.bytes());
        let entry = page.and_then(|page| page.checked_mul(self.system.kernel.soft_faults().form().size));
        // What is behind the last one stands elsewhere.
        let prototype = entry.and_then(|entry| first.checked_add(entry)).filter(|prototype| *prototype <= last);
        prototype.map_or(InRegion::Unknown, InRegion::Prototype)
    }

    /// What is at an address, by its entry if there is one.
    fn behind(&self, regions: &Regions, stop: &Stop, at: VirtAddr) -> Behind {
        let faults = self.system.kernel.soft_faults();
        let memory = &*self.system.kernel.memory;
        let region = || self.prototype(regions, at);
        match (stop.level, stop.entry) {
            (1, entry) => faults.behind(memory, entry, Some(stop.table), &region),
            // There is no table of entries.
            (_, 0) => faults.behind(memory, 0, None, &region),
            _ => Behind::Nothing,
        }
    }

    /// The page of an address.
    pub(crate) fn page(&self, space: &AddressSpace, at: VirtAddr) -> Result<PageDetails> {
        let plain = AddressSpace::new(space.architecture(), space.root().as_u64());
        let small = |state| {
            let address = at.page_base(PageSize::KIB_4);
            Ok(PageDetails { address, size: PageSize::KIB_4, state })
        };
        let reason = match plain.translate(&*self.system.kernel.memory, at) {
            Ok(found) => {
                let (address, base) = (at.page_base(found.page), found.phys.page_base(found.page));
                return Ok(PageDetails { address, size: found.page, state: PageState::Valid { base } });
            }
            Err(reason) => reason,
        };
        let Some(stop) = not_present(reason) else {
            return Err(Error::Access { kind: AccessKind::Read, address: at.into(), len: 1, reason });
        };
        small(match self.behind(&self.regions(), &stop, at) {
            Behind::Page { base, state: InMemory::Valid | InMemory::Transition, .. } => PageState::Transition { base },
            Behind::Page { state: InMemory::PageFile { file, page }, .. } => {
                PageState::PageFile { file, page: Some(page), at_hand: true }
            }
            Behind::DemandZero => PageState::DemandZero,
            Behind::PageFile { file, page } => PageState::PageFile { file, page, at_hand: false },
            Behind::Store { page } => PageState::CompressedStore { page },
            Behind::File => PageState::File,
            Behind::Elsewhere => PageState::Elsewhere,
            Behind::Unreadable => PageState::Unreadable,
            Behind::Nothing => PageState::Nothing,
        })
    }

    /// Reads again what a read through the tables left out: pages without an entry whose region knows them.
    pub(crate) fn complete(&self, view: &SpaceView, ops: &mut [ViewRead<'_>]) {
        let mut regions = None;
        for op in ops {
            let Outcome::Failed { offset, reason: Reason::NotMapped(stop) } = op.outcome else { continue };
            if stop.cause != StopCause::NotPresent || stop.entry != 0 {
                continue;
            }
            // One look serves the whole batch.
            let regions = regions.get_or_insert_with(|| self.regions());
            let start = op.addr.as_u64().saturating_add(offset);
            let end = op.addr.as_u64().saturating_add(crate::bytes::number(op.buf.len()));
            if regions.shared.iter().any(|region| region.first < end && start <= region.last) {
                self.complete_one(regions, view, op, offset);
            }
        }
    }

    fn complete_one(&self, regions: &Regions, view: &SpaceView, op: &mut ViewRead<'_>, from: u64) {
        let len = crate::bytes::number(op.buf.len());
        let page = PageSize::KIB_4.bytes();
        op.outcome = Outcome::Done;
        let mut offset = from;
        while offset < len {
            let at = op.addr.wrapping_add(offset);
            let here = page.saturating_sub(at.page_offset(PageSize::KIB_4)).min(len.saturating_sub(offset));
            let range = index(offset)..index(offset.saturating_add(here));
            let Some(buf) = op.buf.get_mut(range) else { break };
            let outcome = self.read_in_page(regions, view, at, buf);
            op.outcome.add_part(offset, outcome);
            offset = offset.saturating_add(here);
        }
    }

    fn read_in_page(&self, regions: &Regions, view: &SpaceView, at: VirtAddr, buf: &mut [u8]) -> Outcome {
        let mut reads = [ViewRead::new(at, &mut *buf)];
        // Its outcome says the same.
        let _ = view.read_batch(&mut reads);
        let [ViewRead { outcome, .. }] = reads;
        let Outcome::Failed { reason: Reason::NotMapped(stop), .. } = outcome else { return outcome };
        if stop.cause != StopCause::NotPresent || stop.entry != 0 {
            return outcome;
        }
        match self.behind(regions, &stop, at) {
            Behind::Page { base, .. } => {
                let phys = base.page_base(PageSize::KIB_4).wrapping_add(at.page_offset(PageSize::KIB_4));
                let mut reads = [PhysRead::new(phys, buf)];
                // Its outcome says the same.
                let _ = self.system.kernel.memory.read_batch(&mut reads);
                let [PhysRead { outcome, .. }] = reads;
                outcome
            }
            Behind::Nothing | Behind::DemandZero => outcome,
            _ => Outcome::Failed { offset: 0, reason: Reason::PagedOut { entry: 0 } },
        }
    }
}

impl SoftFaults for ProcessPages {
    fn resolve(&self, memory: &dyn PhysicalMemory, faults: &mut [SoftFault]) {
        // One look serves the whole batch, and most batches need none.
        let regions = LazyCell::new(|| self.regions());
        for fault in faults {
            let at = fault.addr;
            let region = || self.prototype(&regions, at);
            fault.answer = self.system.kernel.soft_faults().answer(memory, fault, &region);
        }
    }
}

/// Where a walk stopped at an entry that is not present.
fn not_present(reason: Reason) -> Option<Stop> {
    match reason {
        Reason::NotMapped(stop) if stop.cause == StopCause::NotPresent => Some(stop),
        _ => None,
    }
}

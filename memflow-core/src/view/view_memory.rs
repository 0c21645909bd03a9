//! A view as physical memory: a machine whose RAM is held by somebody else's memory.
//!
//! Owns: [`ViewMemory`]: what the view's reasons mean for inner physical addresses. Must not know: how the view's bytes are found.
//! Keeps: one call of the view for a whole batch; an outcome names inner addresses only, as nobody above knows the outer ones;
//! what the view cannot give is never zeros; nothing that was worked out from the bytes outlives a write to them.

use std::{fmt, sync::Arc};

use super::{MemoryView, parts::Parts};
use crate::{
    address::{PhysAddr, VirtAddr},
    error::{Reason, Result},
    memory::{Liveness, Lookaside, Metadata, PhysRead, PhysWrite, PhysicalMemory, RunMap, SourceConfig, TargetFacts},
};

/// Physical memory whose bytes lie in a view: the RAM of a virtual machine in the process that runs it, an image of memory that a
/// program holds.
///
/// An inner physical address becomes an address of the view, which becomes a physical address of the outer machine: two translations,
/// one call each for a whole batch.
///
/// ```
/// # use std::sync::Arc;
/// # use memflow_core::{memory::*, view::{PhysicalView, ViewMemory}, *};
/// # let config = SourceConfig { name: "outer".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
/// # let mut bytes = vec![0; 0x4000];
/// # bytes[0x2010] = 7;
/// # let view = PhysicalView::new(Arc::new(BufferMemory::new(config, bytes)?));
/// // A machine with 4 KiB, which lie at 0x2000 of the view.
/// let runs: RunMap = "0-0xfff@0x2000".parse()?;
/// let config = SourceConfig { name: "inner".into(), runs, facts: TargetFacts::default() };
/// let inner = ViewMemory::new(view, config, Liveness::Frozen);
/// let mut byte = [0];
/// inner.read_into(PhysAddr::new(0x10), &mut byte)?;
/// assert_eq!(byte, [7]);
/// # Ok::<(), Error>(())
/// ```
pub struct ViewMemory<V> {
    view: V,
    name: Arc<str>,
    /// Offsets of the runs are addresses of the view.
    runs: Arc<RunMap>,
    facts: TargetFacts,
    liveness: Liveness,
    ideal_batch: usize,
    lookaside: Lookaside,
}

impl<V> fmt::Debug for ViewMemory<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ViewMemory({})", self.name)
    }
}

impl<V: MemoryView> ViewMemory<V> {
    /// Physical memory in `view`: the offset of each run is the address at which its bytes lie there. `liveness` is that of the view's
    /// bytes.
    pub fn new(view: V, config: SourceConfig, liveness: Liveness) -> Self {
        let SourceConfig { name, runs, facts } = config;
        let lookaside = Lookaside::by_liveness(liveness);
        Self { view, name, runs: Arc::new(runs), facts, liveness, ideal_batch: usize::MAX, lookaside }
    }

    /// The same, with the number of operations per call at which the view works best.
    #[must_use]
    pub fn with_ideal_batch(mut self, ideal_batch: usize) -> Self {
        self.ideal_batch = ideal_batch;
        self
    }

    /// The view that holds the bytes.
    pub fn view(&self) -> &V {
        &self.view
    }

    /// Where an inner physical address lies in the view; `None` when the machine has no memory there.
    pub fn address_of(&self, phys: PhysAddr) -> Option<VirtAddr> {
        let run = self.runs.find(phys)?;
        run.offset.checked_add(phys.offset_from(run.range.start())?).map(VirtAddr::new)
    }

    fn parts(&self) -> Parts<'_, PhysAddr> {
        Parts { runs: &self.runs, missing: |phys| Reason::NotInImage { phys }, reason: inner_reason, who: &self.name }
    }
}

/// What the reason of an outer failure means for the byte at an inner address.
fn inner_reason(outer: Reason, phys: PhysAddr) -> Reason {
    match outer {
        // A page that the view does not have, or that the outer target does not hold.
        Reason::NotMapped(_) | Reason::OutOfRange | Reason::NotInImage { .. } => Reason::NotInImage { phys },
        Reason::Excluded { .. } => Reason::Excluded { phys },
        Reason::Damaged { .. } => Reason::Damaged { phys },
        Reason::Truncated { .. } => Reason::Truncated { phys },
        // The rest holds no address, or an entry that says where the outer system put the page.
        other => other,
    }
}

impl<V: MemoryView> PhysicalMemory for ViewMemory<V> {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.parts().read(&self.view, ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        // Dropped when the writes have been carried out.
        let _writing = self.lookaside.writing(ops);
        self.parts().write(&self.view, ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: self.name.clone(),
            runs: self.runs.clone(),
            liveness: self.liveness,
            read_only: self.view.metadata().read_only,
            ideal_batch: self.ideal_batch,
        }
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        Some(&self.lookaside)
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

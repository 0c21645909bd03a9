//! A memory beside which what was worked out from its bytes is kept.
//!
//! Owns: [`LookasideLayer`]. Must not know: what is kept (`memory/lookaside`), who works it out.
//! Keeps: nothing from before a write is kept after it; reads are untouched.

use std::{fmt, sync::Arc};

use super::super::{
    Control, DirectMap, Lookaside, LookasideConfig, Metadata, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts,
};
use super::control::Keeps;
use crate::error::Result;

/// Gives a memory a [`Lookaside`], so that what page tables said once is not asked for again: for memory that is slow to call.
///
/// The connectors of this tree have a lookaside of their own where it helps, and the inventory of plugins puts this layer over each
/// other one whose bytes have to be called for. Elsewhere, [`over`](Self::over) does that.
///
/// A cache belongs above it: what the cache forgets, and [flushes](super::CacheLayer::flush), this then forgets too. Answers that were
/// worked out from cached bytes are as old as those, and may be used for as long again as they are valid.
///
/// ```
/// # use std::sync::Arc;
/// # use memflow_core::{memory::*, paging::{x86, AddressSpace}, view::SpaceView, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
/// # let mut bytes = vec![0; 0x4000];
/// # bytes[0x1800..0x1804].copy_from_slice(&0x2003_u32.to_le_bytes());
/// # bytes[0x2000..0x2004].copy_from_slice(&0x3003_u32.to_le_bytes());
/// # let memory = Arc::new(BufferMemory::new(config, bytes)?);
/// let device = MetricsLayer::new(memory);
/// let metrics = device.metrics();
/// let view = SpaceView::new(LookasideLayer::over(Arc::new(device)), AddressSpace::new(&x86::X86, 0x1000));
///
/// // Two levels of tables and the bytes, then only the bytes.
/// for calls in [3, 4] {
///     view.read::<u64>(VirtAddr::new(0x8000_0010))?;
///     assert_eq!(metrics.snapshot().reads.calls, calls);
/// }
/// # Ok::<(), Error>(())
/// ```
pub struct LookasideLayer {
    below: Arc<dyn PhysicalMemory>,
    lookaside: Lookaside,
}

impl fmt::Debug for LookasideLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookasideLayer({}, {:?})", self.below.metadata().name, self.lookaside)
    }
}

impl LookasideLayer {
    /// A layer over `below`.
    ///
    /// # Errors
    /// As [`Lookaside::new`].
    pub fn new(below: Arc<dyn PhysicalMemory>, config: LookasideConfig) -> Result<Self> {
        let lookaside = Lookaside::new(config, below.metadata().liveness)?;
        Ok(Self { below, lookaside })
    }

    /// A layer over `below` where there is something to gain: not where its bytes can be used in place, or where it has a lookaside
    /// already.
    pub fn over(below: Arc<dyn PhysicalMemory>) -> Arc<dyn PhysicalMemory> {
        if below.direct_map().is_some() || below.lookaside().is_some() {
            return below;
        }
        let lookaside = Lookaside::by_liveness(below.metadata().liveness);
        Arc::new(Self { below, lookaside })
    }
}

#[cfg(test)]
impl LookasideLayer {
    /// A layer whose answers are valid for so many nanoseconds by a clock that the test turns on.
    pub(crate) fn by_hand(
        below: Arc<dyn PhysicalMemory>,
        answers: usize,
        valid_for: u64,
    ) -> (Self, Arc<std::sync::atomic::AtomicU64>) {
        let (age, hand) = super::super::validity::AgeLimit::by_hand(valid_for);
        (Self { below, lookaside: Lookaside::with_age(answers, age) }, hand)
    }
}

impl Keeps for LookasideLayer {
    fn below(&self) -> &dyn PhysicalMemory {
        &*self.below
    }

    fn forget_all(&self) {
        self.lookaside.flush();
    }
}

impl PhysicalMemory for LookasideLayer {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.below.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        // Dropped after the call, also when it panics.
        let _writing = self.lookaside.writing(ops);
        self.below.write_batch(ops)
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

    fn direct_map(&self) -> Option<&DirectMap> {
        self.below.direct_map()
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        Some(&self.lookaside)
    }

    fn facts(&self) -> &TargetFacts {
        self.below.facts()
    }

    fn control(&self) -> Option<&dyn Control> {
        self.control_below()
    }
}

//! A view whose pages are kept and served again.
//!
//! Owns: [`CachedView`]: the view below as memory that a [`CacheLayer`] can keep. Must not know: how pages are kept.
//! Keeps: every outcome is the view's own; what the view is (pointers, its last address) stays as it is.

use std::{fmt, sync::Arc};

use super::{MemoryView, ViewMetadata};
use crate::{
    address::{PhysAddr, PhysRange, VirtAddr, VirtRange},
    error::{AnyAddr, Error, Result},
    memory::{
        CacheConfig, CacheLayer, CacheStats, Liveness, Metadata, PhysRead, PhysWrite, PhysicalMemory, Run, RunMap,
        TargetFacts, ViewRead, ViewWrite, finish_reads, finish_writes,
    },
};

/// A view that keeps pages of another: for many looks at the same few pages of a process whose memory is slow to reach.
///
/// What is kept, and for how long, is as with a [`CacheLayer`]; where the liveness of the memory would decide, pages are served as those
/// of live memory, as a view does not tell. Where bytes lie in this process, and for memory that has a cache already, there is nothing to
/// gain.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use memflow_core::{memory::*, view::{CachedView, PhysicalView}, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
/// let device = MetricsLayer::new(Arc::new(BufferMemory::new(config, vec![7; 0x4000])?));
/// let metrics = device.metrics();
/// let config = CacheConfig { validity: Validity::For(Duration::from_secs(60)), ..CacheConfig::default() };
/// let view = CachedView::new(PhysicalView::new(Arc::new(device)), config)?;
/// for addr in 0x1000..0x1100 {
///     assert_eq!(view.read::<u8>(VirtAddr::new(addr))?, 7);
/// }
/// assert_eq!(metrics.snapshot().reads.calls, 1);
/// # Ok::<(), Error>(())
/// ```
pub struct CachedView<V> {
    cache: CacheLayer,
    below: Arc<Below<V>>,
}

/// A view as memory whose addresses are the view's.
struct Below<V> {
    view: V,
    runs: Arc<RunMap>,
    facts: TargetFacts,
}

impl<V> fmt::Debug for CachedView<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedView({:?})", self.cache.stats())
    }
}

impl<V: MemoryView + 'static> CachedView<V> {
    /// A cache over `view`.
    ///
    /// # Errors
    /// As [`CacheLayer::new`].
    pub fn new(view: V, config: CacheConfig) -> Result<Self> {
        let last = view.metadata().last_address.as_u64();
        // A range has at most 2^64 - 1 bytes: the last byte of the widest space is read past the cache.
        let range = PhysRange::new(PhysAddr::new(0), last.saturating_add(1));
        let runs = RunMap::new(range.map(|range| Run { range, offset: 0 }))?;
        let below = Arc::new(Below { view, runs: Arc::new(runs), facts: TargetFacts::default() });
        Ok(Self { cache: CacheLayer::new(below.clone(), config)?, below })
    }

    /// The view below. What is written to it directly is not seen here until the page is too old.
    pub fn view(&self) -> &V {
        &self.below.view
    }

    /// Forgets all pages.
    pub fn flush(&self) {
        self.cache.flush();
    }

    /// Forgets the pages of these addresses: for bytes that others wrote to.
    pub fn forget(&self, range: VirtRange) {
        if let Some(range) = PhysRange::new(PhysAddr::new(range.start().as_u64()), range.len()) {
            self.cache.forget(range);
        }
    }

    /// What the cache did so far.
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }
}

/// An error of a call, in terms of the view.
fn of_view(error: Error) -> Error {
    match error {
        Error::Access { kind, address: AnyAddr::Phys(at), len, reason } => {
            Error::Access { kind, address: VirtAddr::new(at.as_u64()).into(), len, reason }
        }
        other => other,
    }
}

impl<V: MemoryView + 'static> MemoryView for CachedView<V> {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        let mut inner: Vec<PhysRead<'_>> = ops
            .iter_mut()
            .map(|op| PhysRead { addr: PhysAddr::new(op.addr.as_u64()), buf: &mut *op.buf, outcome: op.outcome })
            .collect();
        let called = self.cache.read_batch(&mut inner);
        let outcomes: Vec<_> = inner.iter().map(|op| op.outcome).collect();
        for (op, outcome) in ops.iter_mut().zip(outcomes) {
            op.outcome = outcome;
        }
        called.map_err(of_view)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        let mut inner: Vec<PhysWrite<'_>> = ops
            .iter()
            .map(|op| PhysWrite { addr: PhysAddr::new(op.addr.as_u64()), buf: op.buf, outcome: op.outcome })
            .collect();
        let called = self.cache.write_batch(&mut inner);
        for (op, inner) in ops.iter_mut().zip(&inner) {
            op.outcome = inner.outcome;
        }
        called.map_err(of_view)
    }

    fn metadata(&self) -> ViewMetadata {
        self.below.view.metadata()
    }
}

impl<V: MemoryView> PhysicalMemory for Below<V> {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let mut inner: Vec<ViewRead<'_>> = ops
            .iter_mut()
            .map(|op| ViewRead { addr: VirtAddr::new(op.addr.as_u64()), buf: &mut *op.buf, outcome: op.outcome })
            .collect();
        let called = self.view.read_batch(&mut inner);
        let outcomes: Vec<_> = inner.iter().map(|op| op.outcome).collect();
        for (op, outcome) in ops.iter_mut().zip(outcomes) {
            op.outcome = outcome;
        }
        called.and_then(|()| finish_reads("view", ops))
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        let mut inner: Vec<ViewWrite<'_>> = ops
            .iter()
            .map(|op| ViewWrite { addr: VirtAddr::new(op.addr.as_u64()), buf: op.buf, outcome: op.outcome })
            .collect();
        let called = self.view.write_batch(&mut inner);
        for (op, inner) in ops.iter_mut().zip(&inner) {
            op.outcome = inner.outcome;
        }
        called.and_then(|()| finish_writes("view", ops))
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: "view".into(),
            runs: self.runs.clone(),
            liveness: Liveness::Live,
            read_only: self.view.metadata().read_only,
            ideal_batch: usize::MAX,
        }
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

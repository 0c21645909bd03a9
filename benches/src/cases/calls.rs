//! How often memory that has to be called is called.
//!
//! Owns: counting calls of a slow connector. Must not know: how calls are reported.
//! Keeps: every call takes as long as one to a device would.

use std::{sync::Arc, time::Duration};

use memflow_core::{
    MemoryView, PhysicalMemory, VirtAddr,
    memory::{DelayLayer, LookasideLayer, Metadata, MetricsLayer, PhysRead, PhysWrite, TargetFacts, ViewRead},
};

use super::{Case, OURS};
use crate::{Image, Order, Result, measure::Contender};

/// What a call takes.
const DELAY: Duration = Duration::from_micros(100);

/// Memory whose direct map nobody sees.
struct Called(Arc<dyn PhysicalMemory>);

impl PhysicalMemory for Called {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> memflow_core::Result<()> {
        self.0.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> memflow_core::Result<()> {
        self.0.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        self.0.facts()
    }
}

/// A batch of reads of eight bytes through memory that has to be called and answers at once: what the library itself takes for tables
/// that it does not know (`cold`), or has just read.
///
/// # Errors
/// None that an image could cause.
pub fn called(image: &Image, count: usize, cold: bool) -> Result<Case<'static>> {
    let memory = LookasideLayer::over(Arc::new(Called(image.memory.clone())));
    let addresses = image.addresses(Order::Random, count, 8);
    let view = image.with_memory(memory.clone()).view();
    let mut bytes = vec![[0; 8]; count];
    let ours = Contender::new(OURS, move || {
        if let Some(lookaside) = memory.lookaside().filter(|_| cold) {
            lookaside.flush();
        }
        let at = addresses.iter().map(|address| VirtAddr::new(*address));
        let mut ops: Vec<_> = at.zip(&mut bytes).map(|(at, buf)| ViewRead::new(at, buf)).collect();
        assert!(view.read_batch(&mut ops).is_ok(), "mapped memory could not be read");
    });
    let name = format!("called/{}/{}/{count}", image.name, if cold { "cold" } else { "warm" });
    Ok(Case { name, per: "address", items: count, contenders: vec![ours], references: 0, peers: Vec::new() })
}

/// Calls of a connector that takes 100 µs for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Calls {
    /// To read eight bytes at each of `addresses` addresses for the first time.
    pub cold: u64,
    /// To read them once more.
    pub warm: u64,
    /// How many addresses.
    pub addresses: usize,
}

impl Calls {
    /// Counts the calls that a batch of `count` random addresses takes.
    ///
    /// # Errors
    /// The reads fail.
    pub fn count(image: &Image, count: usize) -> Result<Self> {
        let delayed = DelayLayer::new(Arc::new(Called(image.memory.clone())), DELAY)?;
        let counted = MetricsLayer::new(Arc::new(delayed));
        let metrics = counted.metrics();
        // As the inventory of plugins gives it to each connector without a direct map.
        let view = image.with_memory(LookasideLayer::over(Arc::new(counted))).view();
        let addresses = image.addresses(Order::Random, count, 8);
        let read = || -> Result<u64> {
            let before = metrics.snapshot();
            let mut bytes = vec![[0; 8]; count];
            let at = addresses.iter().map(|address| VirtAddr::new(*address));
            let mut ops: Vec<_> = at.zip(&mut bytes).map(|(at, buf)| ViewRead::new(at, buf)).collect();
            view.read_batch(&mut ops)?;
            Ok(metrics.snapshot().since(&before).reads.calls)
        };
        Ok(Self { cold: read()?, warm: read()?, addresses: count })
    }
}

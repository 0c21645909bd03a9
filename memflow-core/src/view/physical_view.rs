//! Physical memory as a view.
//!
//! Owns: [`PhysicalView`]. Must not know: paging.

use std::sync::Arc;

use super::{MemoryView, ViewMetadata};
use crate::{
    address::{PhysAddr, VirtAddr},
    error::Result,
    memory::{PhysRead, PhysWrite, PhysicalMemory, ViewRead, ViewWrite, finish_reads, finish_writes},
};

/// Physical memory as a view: its addresses are the physical ones.
#[derive(Clone)]
pub struct PhysicalView {
    memory: Arc<dyn PhysicalMemory>,
}

impl std::fmt::Debug for PhysicalView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PhysicalView({})", self.memory.metadata().name)
    }
}

impl PhysicalView {
    /// A view of all of `memory`.
    pub fn new(memory: Arc<dyn PhysicalMemory>) -> Self {
        Self { memory }
    }
}

impl MemoryView for PhysicalView {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        if let [op] = ops {
            let mut inner =
                [PhysRead { addr: PhysAddr::new(op.addr.as_u64()), buf: &mut *op.buf, outcome: op.outcome }];
            let result = self.memory.read_batch(&mut inner);
            let [inner] = inner;
            op.outcome = inner.outcome;
            return result;
        }
        let mut inner: Vec<PhysRead<'_>> = ops
            .iter_mut()
            .map(|op| PhysRead { addr: PhysAddr::new(op.addr.as_u64()), buf: &mut *op.buf, outcome: op.outcome })
            .collect();
        // Failures are in the outcomes; the fold below reports the first in terms of this view.
        let called = self.memory.read_batch(&mut inner);
        let outcomes: Vec<_> = inner.iter().map(|op| op.outcome).collect();
        for (op, outcome) in ops.iter_mut().zip(outcomes) {
            op.outcome = outcome;
        }
        called.and_then(|()| finish_reads("physical view", ops))
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        let mut inner: Vec<PhysWrite<'_>> = ops
            .iter()
            .map(|op| PhysWrite { addr: PhysAddr::new(op.addr.as_u64()), buf: op.buf, outcome: op.outcome })
            .collect();
        let called = self.memory.write_batch(&mut inner);
        for (op, inner) in ops.iter_mut().zip(&inner) {
            op.outcome = inner.outcome;
        }
        called.and_then(|()| finish_writes("physical view", ops))
    }

    fn metadata(&self) -> ViewMetadata {
        let metadata = self.memory.metadata();
        ViewMetadata {
            last_address: VirtAddr::new(metadata.runs.last_address().map_or(0, PhysAddr::as_u64)),
            pointer_size: 8,
            read_only: metadata.read_only,
        }
    }
}

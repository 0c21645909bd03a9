//! An address space over physical memory: the view that processes and kernels are read through.
//!
//! Owns: [`SpaceView`]: zero lengths, the end of the range, pages of one operation. Must not know: page-table formats, who owns the space.

use std::sync::Arc;

use super::{MemoryView, ViewMetadata};
use crate::{
    address::{VirtAddr, VirtRange},
    error::{Reason, Result},
    memory::{Outcome, PhysRead, PhysWrite, PhysicalMemory, ViewRead, ViewWrite, finish_reads, finish_writes},
    paging::AddressSpace,
};

/// A virtual address space as a view. Cheap to clone: the memory is shared.
#[derive(Clone)]
pub struct SpaceView {
    memory: Arc<dyn PhysicalMemory>,
    space: AddressSpace,
}

impl std::fmt::Debug for SpaceView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpaceView({} of {})", self.space.root(), self.memory.metadata().name)
    }
}

impl SpaceView {
    /// The view of `space` over `memory`.
    pub fn new(memory: Arc<dyn PhysicalMemory>, space: AddressSpace) -> Self {
        Self { memory, space }
    }

    /// The physical memory below.
    pub fn memory(&self) -> &Arc<dyn PhysicalMemory> {
        &self.memory
    }

    /// The address space.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }
}

impl MemoryView for SpaceView {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        for op in &mut *ops {
            op.outcome = Outcome::Done;
            let mut from = 0;
            while from < op.buf.len() {
                let Some(at) = op.addr.checked_add(from as u64) else {
                    op.outcome.fail(from as u64, Reason::OutOfRange);
                    break;
                };
                let translated = self.space.translate(&*self.memory, at);
                let page = translated.map_or(crate::PageSize::KIB_4, |found| found.page);
                let step =
                    usize::try_from(page.bytes() - at.page_offset(page)).unwrap_or(usize::MAX).min(op.buf.len() - from);
                match translated {
                    Ok(found) => {
                        let mut inner = [PhysRead::new(found.phys, &mut op.buf[from..from + step])];
                        let _ = self.memory.read_batch(&mut inner);
                        if let Outcome::Failed { offset, reason } = inner[0].outcome {
                            op.outcome.fail(from as u64 + offset, reason);
                        }
                    }
                    Err(reason) => op.outcome.fail(from as u64, reason),
                }
                from += step;
            }
        }
        finish_reads("address space", ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        for op in &mut *ops {
            op.outcome = Outcome::Done;
            let mut from = 0;
            while from < op.buf.len() {
                let Some(at) = op.addr.checked_add(from as u64) else {
                    op.outcome.fail(from as u64, Reason::OutOfRange);
                    break;
                };
                let translated = self.space.translate(&*self.memory, at);
                let page = translated.map_or(crate::PageSize::KIB_4, |found| found.page);
                let step =
                    usize::try_from(page.bytes() - at.page_offset(page)).unwrap_or(usize::MAX).min(op.buf.len() - from);
                match translated {
                    Ok(found) => {
                        let mut inner = [PhysWrite::new(found.phys, &op.buf[from..from + step])];
                        let _ = self.memory.write_batch(&mut inner);
                        if let Outcome::Failed { offset, reason } = inner[0].outcome {
                            op.outcome.fail(from as u64 + offset, reason);
                        }
                    }
                    Err(reason) => op.outcome.fail(from as u64, reason),
                }
                from += step;
            }
        }
        finish_writes("address space", ops)
    }

    fn metadata(&self) -> ViewMetadata {
        let arch = self.space.architecture();
        let last = if arch.sign_extended {
            u64::MAX
        } else {
            VirtRange::new(VirtAddr::new(0), 1 << arch.virtual_bits)
                .and_then(|r| r.last())
                .map_or(u64::MAX, VirtAddr::as_u64)
        };
        ViewMetadata {
            last_address: VirtAddr::new(last),
            pointer_size: arch.pointer_size,
            read_only: self.memory.metadata().read_only,
        }
    }
}

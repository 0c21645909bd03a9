//! A view as another architecture sees it.
//!
//! Owns: [`ArchOverlay`]. Must not know: what the view below is.

use super::{MemoryView, MissingValue, ViewMetadata};
use crate::{
    address::VirtAddr,
    error::Result,
    memory::{ViewRead, ViewWrite},
    paging::Architecture,
};

/// A view whose pointers are those of another architecture: 32-bit code in a 64-bit process, a 64-bit structure in a 32-bit one.
///
/// Bytes and addresses are those of the view below. What depends on the size of a pointer does not:
/// [`read_pointer`](super::MemoryViewExt::read_pointer), [`follow`](super::MemoryViewExt::follow), strings that are found by pointers.
///
/// ```
/// # use std::sync::Arc;
/// # use memflow_core::{memory::*, paging::x86, view::{ArchOverlay, PhysicalView}, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x1000), facts: TargetFacts::default() };
/// # let mut bytes = vec![0; 0x1000];
/// # bytes[..8].copy_from_slice(&0x1111_2222_3333_4444_u64.to_le_bytes());
/// # let view = PhysicalView::new(Arc::new(BufferMemory::new(config, bytes)?));
/// assert_eq!(view.read_pointer(VirtAddr::new(0))?, VirtAddr::new(0x1111_2222_3333_4444));
/// let narrow = ArchOverlay::new(view, &x86::X86);
/// assert_eq!(narrow.read_pointer(VirtAddr::new(0))?, VirtAddr::new(0x3333_4444));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ArchOverlay<V> {
    view: V,
    pointer_size: u8,
}

impl<V: MemoryView> ArchOverlay<V> {
    /// `view`, with the pointers of `arch`.
    pub fn new(view: V, arch: &Architecture) -> Self {
        Self { view, pointer_size: arch.pointer_size }
    }

    /// The view below.
    pub fn view(&self) -> &V {
        &self.view
    }
}

impl<V: MemoryView> MemoryView for ArchOverlay<V> {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        self.view.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        self.view.write_batch(ops)
    }

    fn read_sized(
        &self,
        addresses: &[VirtAddr],
        size: usize,
        values: &mut [u8],
        missing: &mut Vec<MissingValue>,
    ) -> Result<()> {
        self.view.read_sized(addresses, size, values, missing)
    }

    fn metadata(&self) -> ViewMetadata {
        ViewMetadata { pointer_size: self.pointer_size, ..self.view.metadata() }
    }
}

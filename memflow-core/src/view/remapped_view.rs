//! Parts of a view at other addresses.
//!
//! Owns: [`RemappedView`]. Must not know: what the view below is.
//! Keeps: what no part covers is an error, never bytes of the view below.

use std::fmt;

use super::{MemoryView, ViewMetadata, parts::Parts};
use crate::{
    address::{Address, PhysAddr, PhysRange, VirtAddr, VirtRange},
    error::{Error, Reason, Result},
    memory::{Run, RunMap, ViewRead, ViewWrite},
};

/// A view of parts of another: each at an address of its own, and nothing between them.
///
/// For structures that are read as if they lay at zero, for a module that is looked at alone, for files that are put together of pieces
/// of memory. A read of what no part covers fails with [`Reason::OutOfRange`].
///
/// ```
/// # use std::sync::Arc;
/// # use memflow_core::{memory::*, view::{PhysicalView, RemappedView}, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
/// # let mut bytes = vec![0; 0x4000];
/// # bytes[0x1ffe..0x2000].copy_from_slice(b"go");
/// # bytes[0x3000..0x3002].copy_from_slice(b"od");
/// # let view = PhysicalView::new(Arc::new(BufferMemory::new(config, bytes)?));
/// let range = |start, len| VirtRange::new(VirtAddr::new(start), len).unwrap();
/// let joined = RemappedView::new(view, [
///     (range(0, 2), VirtAddr::new(0x1ffe)),
///     (range(2, 0x1000), VirtAddr::new(0x3000)),
/// ])?;
/// assert_eq!(joined.read_bytes(VirtAddr::new(0), 4)?, b"good");
/// assert!(joined.read_bytes(VirtAddr::new(0x1000), 4).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct RemappedView<V> {
    view: V,
    /// Addresses of this view are taken for physical ones, offsets are addresses of the view below.
    runs: RunMap,
}

impl<V> fmt::Debug for RemappedView<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemappedView({})", self.runs)
    }
}

impl<V: MemoryView> RemappedView<V> {
    /// Parts of `view`: the addresses of each, and where its first byte lies in `view`.
    ///
    /// # Errors
    /// [`Error::Argument`] when two parts have the same address; [`Error::Range`] when one leaves the addresses of `view`.
    pub fn new(view: V, parts: impl IntoIterator<Item = (VirtRange, VirtAddr)>) -> Result<Self> {
        let runs = parts.into_iter().filter_map(|(range, at)| {
            let range = PhysRange::new(PhysAddr::new(range.start().as_u64()), range.len())?;
            Some(Run { range, offset: at.as_u64() })
        });
        let runs = RunMap::new(runs).map_err(|error| match error {
            // In terms of this view.
            Error::Overlap { first, second } => Error::Argument {
                what: "parts of a remapped view".into(),
                expected: "parts that have no address in common".into(),
                found: format!("{first} and {second}"),
            },
            Error::Range { address, len } => {
                let address = match address {
                    crate::error::AnyAddr::Phys(at) => VirtAddr::new(at.as_u64()).into(),
                    other => other,
                };
                Error::Range { address, len }
            }
            other => other,
        })?;
        Ok(Self { view, runs })
    }

    /// The view below.
    pub fn view(&self) -> &V {
        &self.view
    }

    /// Where an address lies in the view below, if a part covers it.
    pub fn address_of(&self, addr: VirtAddr) -> Option<VirtAddr> {
        let phys = PhysAddr::new(addr.as_u64());
        let run = self.runs.find(phys)?;
        run.offset.checked_add(phys.offset_from(run.range.start())?).map(VirtAddr::new)
    }

    fn parts(&self) -> Parts<'_, VirtAddr> {
        Parts { runs: &self.runs, missing: |_| Reason::OutOfRange, reason: |reason, _| reason, who: "remapped view" }
    }
}

impl<V: MemoryView> MemoryView for RemappedView<V> {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        self.parts().read(&self.view, ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        self.parts().write(&self.view, ops)
    }

    fn metadata(&self) -> ViewMetadata {
        let last = self.runs.last_address().unwrap_or_default();
        ViewMetadata { last_address: VirtAddr::new(last.to_u64()), ..self.view.metadata() }
    }
}

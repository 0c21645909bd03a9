//! The core of every view.
//!
//! Owns: [`MemoryView`], small and object-safe. Everything a user calls daily is in [`MemoryViewExt`](super::MemoryViewExt).
//! Must not know: how an address becomes bytes.

use std::sync::Arc;

use crate::{
    address::VirtAddr,
    error::Result,
    memory::{ViewRead, ViewWrite},
};

/// What a view covers, and how numbers lie in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ViewMetadata {
    /// The highest address that can be asked for.
    pub last_address: VirtAddr,
    /// Size of a pointer in bytes: 4 or 8.
    pub pointer_size: u8,
    /// True when writes are refused.
    pub read_only: bool,
}

/// Memory that is read and written by address.
///
/// Addresses are those of the view: virtual for a process, equal to the physical ones for [`PhysicalView`](super::PhysicalView).
pub trait MemoryView: Send + Sync {
    /// Reads a batch, in any order, and records an outcome in every operation.
    ///
    /// # Errors
    /// The first operation that is not done; the others are carried out all the same. After a failure of one operation its
    /// buffer holds the bytes that could be read.
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()>;

    /// Writes a batch and records an outcome in every operation.
    ///
    /// # Errors
    /// The first operation that is not done; the others are carried out all the same.
    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()>;

    /// What the view covers.
    fn metadata(&self) -> ViewMetadata;
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<V: MemoryView + ?Sized> MemoryView for $pointer {
            fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
                (**self).read_batch(ops)
            }

            fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
                (**self).write_batch(ops)
            }

            fn metadata(&self) -> ViewMetadata {
                (**self).metadata()
            }
        }
    )*};
}

forward!(&V, Arc<V>, Box<V>);

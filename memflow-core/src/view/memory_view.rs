//! The core of every view.
//!
//! Owns: [`MemoryView`], small and object-safe. Everything a user calls daily is in [`MemoryViewExt`](super::MemoryViewExt).
//! Must not know: how an address becomes bytes.

use std::sync::Arc;

use crate::{
    address::VirtAddr,
    error::{Error, Reason, Result},
    memory::{Outcome, ViewRead, ViewWrite},
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

    /// Reads values of one size, one at each address: the first bytes of `values` for the first address, and so on, as many as both
    /// have. Adds what could not be read to `missing`, in order; its bytes are then left as they were or hold those that could be read.
    ///
    /// What [`MemoryViewExt::read_values`](super::MemoryViewExt::read_values) is made of. Views whose bytes lie in this process have a
    /// quicker way than an operation for each value.
    ///
    /// # Errors
    /// [`Error::Unanswered`](crate::Error::Unanswered), when the view left a read without an outcome.
    fn read_sized(
        &self,
        addresses: &[VirtAddr],
        size: usize,
        values: &mut [u8],
        missing: &mut Vec<MissingValue>,
    ) -> Result<()> {
        let all = addresses.iter().copied().enumerate();
        read_as_operations(self, all.zip(values.chunks_exact_mut(size.max(1))), missing)
    }

    /// What the view covers.
    fn metadata(&self) -> ViewMetadata;
}

/// A value that could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MissingValue {
    /// Its number, from zero on.
    pub index: usize,
    /// Why its first byte that is missing is.
    pub reason: Reason,
}

/// Reads values by operations: number and address, and place of each.
pub(super) fn read_as_operations<'v, V: MemoryView + ?Sized>(
    view: &V,
    values: impl Iterator<Item = ((usize, VirtAddr), &'v mut [u8])>,
    missing: &mut Vec<MissingValue>,
) -> Result<()> {
    let (indices, mut ops): (Vec<usize>, Vec<ViewRead<'v>>) =
        values.map(|((index, addr), value)| (index, ViewRead::new(addr, value))).unzip();
    // What failed is in the outcomes.
    let called = view.read_batch(&mut ops);
    for (index, op) in indices.into_iter().zip(&ops) {
        match op.outcome {
            Outcome::Done => {}
            Outcome::Failed { reason, .. } => missing.push(MissingValue { index, reason }),
            Outcome::NotAttempted => {
                return called.and(Err(Error::Unanswered { who: "view".to_owned(), index }));
            }
        }
    }
    Ok(())
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

            fn read_sized(
                &self,
                addresses: &[VirtAddr],
                size: usize,
                values: &mut [u8],
                missing: &mut Vec<MissingValue>,
            ) -> Result<()> {
                (**self).read_sized(addresses, size, values, missing)
            }

            fn metadata(&self) -> ViewMetadata {
                (**self).metadata()
            }
        }
    )*};
}

forward!(&V, Arc<V>, Box<V>);

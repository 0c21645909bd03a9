//! Pointers as they lie in a target's memory.
//!
//! Owns: [`Ptr32`], [`Ptr64`] and how a chain of pointers is followed. Must not know: what is pointed to.
//! Keeps: a pointer is a number until it is read through a view; null leads nowhere.

use std::{fmt, marker::PhantomData};

use dataview::Pod;

use super::{MemoryView, MemoryViewExt};
use crate::{
    address::VirtAddr,
    error::{Error, Result, ResultExt},
};

macro_rules! pointer {
    ($name:ident, $number:ident, $bits:literal, $example:literal) => {
        #[doc = concat!("A pointer of ", $bits, " bits to a `T`, in little-endian order, as a member of a structure that is read.")]
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use memflow_core::{memory::*, view::{PhysicalView, Ptr32, Ptr64}, *};
        /// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x1000), facts: TargetFacts::default() };
        /// # let mut bytes = vec![0; 0x1000];
        /// # (bytes[0x11], bytes[0x100], bytes[0x104]) = (1, 7, 9);
        /// # let view = PhysicalView::new(Arc::new(BufferMemory::new(config, bytes)?));
        #[doc = concat!("let numbers: ", $example, " = view.read(VirtAddr::new(0x10))?;")]
        /// assert_eq!(numbers.address(), VirtAddr::new(0x100));
        /// assert_eq!((numbers.read(&view)?, numbers.at(1).read(&view)?), (7, 9));
        /// # Ok::<(), Error>(())
        /// ```
        #[repr(transparent)]
        pub struct $name<T: 'static> {
            number: $number,
            to: PhantomData<T>,
        }

        // SAFETY: transparent over a number of which every pattern of bits is valid and no byte is padding.
        unsafe impl<T: 'static> Pod for $name<T> {}

        impl<T> $name<T> {
            /// Address zero.
            pub const NULL: Self = Self { number: 0, to: PhantomData };

            /// The pointer to an address, if it has room for it.
            pub fn new(addr: VirtAddr) -> Option<Self> {
                let number = $number::try_from(addr.as_u64()).ok()?;
                Some(Self { number: number.to_le(), to: PhantomData })
            }

            /// Where it points to.
            pub fn address(self) -> VirtAddr {
                VirtAddr::new($number::from_le(self.number).into())
            }

            /// True for address zero.
            pub fn is_null(self) -> bool {
                self.number == 0
            }

            /// The same address as a pointer to something else.
            pub fn cast<U>(self) -> $name<U> {
                $name { number: self.number, to: PhantomData }
            }

            /// The pointer so many bytes further on, in the arithmetic of its size.
            pub fn byte_add(self, bytes: $number) -> Self {
                Self { number: $number::from_le(self.number).wrapping_add(bytes).to_le(), to: PhantomData }
            }

            /// The pointer to the element with this number, of an array that starts here.
            pub fn at(self, index: $number) -> Self {
                let size = $number::try_from(size_of::<T>()).unwrap_or($number::MAX);
                self.byte_add(index.wrapping_mul(size))
            }
        }

        impl<T: Pod> $name<T> {
            /// Reads what it points to.
            ///
            /// # Errors
            /// [`Error::Access`] unless every byte arrived; also for null, unless something is mapped there.
            pub fn read(self, view: &(impl MemoryView + ?Sized)) -> Result<T> {
                view.read(self.address())
            }

            /// Writes what it points to.
            ///
            /// # Errors
            /// [`Error::Access`] unless every byte was written.
            pub fn write(self, view: &(impl MemoryView + ?Sized), value: &T) -> Result<()> {
                view.write(self.address(), value)
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        impl<T> PartialEq for $name<T> {
            fn eq(&self, other: &Self) -> bool {
                self.number == other.number
            }
        }

        impl<T> Eq for $name<T> {}

        impl<T> Default for $name<T> {
            fn default() -> Self {
                Self::NULL
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.address())
            }
        }
    };
}

pointer!(Ptr32, u32, "32", "Ptr32<u32>");
pointer!(Ptr64, u64, "64", "Ptr64<u32>");

/// Follows pointers of the view's size: from `base` plus the first offset to a pointer, from there plus the second to the next, and so
/// on. The last offset is added and not read.
pub(super) fn follow(view: &(impl MemoryView + ?Sized), base: VirtAddr, offsets: &[u64]) -> Result<VirtAddr> {
    let Some((last, hops)) = offsets.split_last() else { return Ok(base) };
    let mut at = base;
    for (index, offset) in hops.iter().enumerate() {
        let place = at.wrapping_add(*offset);
        let hop = || format!("pointer {} of {}, at {place}", index.saturating_add(1), hops.len());
        at = view.read_pointer(place).context(|| hop().into())?;
        if at.is_null() {
            let (address, found) = (place.into(), "null".into());
            let null = Error::Corrupt {
                what: "chain of pointers",
                address,
                expected: "a pointer that leads on".into(),
                found,
            };
            return Err(null.context(hop()));
        }
    }
    Ok(at.wrapping_add(*last))
}

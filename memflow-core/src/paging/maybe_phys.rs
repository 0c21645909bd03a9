//! The short answer of a translation: a physical address, or none, in eight bytes.
//!
//! Owns: [`MaybePhys`]. Must not know: how an address is translated, why one leads nowhere.
//! Keeps: whoever reads an answer has to look whether there is one.

use std::fmt;

use crate::address::PhysAddr;

/// Stands for "none": no paging mode that there is has physical addresses of 64 bits.
const NONE: u64 = u64::MAX;

/// The physical address of a virtual one, or none, in the eight bytes of an address: what
/// [`AddressSpace::translate_to`](super::AddressSpace::translate_to) answers with.
///
/// `None` means "no address is known here", not why: [`AddressSpace::translate`](super::AddressSpace::translate) has the whole answer.
/// The last of all 64-bit addresses is the one that cannot be told; it, too, is left to that call.
///
/// ```
/// # use memflow_core::{paging::MaybePhys, PhysAddr};
/// assert_eq!(MaybePhys::new(PhysAddr::new(0x1234)).get(), Some(PhysAddr::new(0x1234)));
/// assert_eq!(MaybePhys::NONE.get(), None);
/// assert_eq!(size_of::<MaybePhys>(), 8);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct MaybePhys(u64);

impl MaybePhys {
    /// No address.
    pub const NONE: Self = Self(NONE);

    /// This address.
    #[inline(always)]
    pub const fn new(phys: PhysAddr) -> Self {
        Self(phys.as_u64())
    }

    /// As a number.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// The address, if there is one.
    #[inline(always)]
    pub const fn get(self) -> Option<PhysAddr> {
        if self.0 == NONE { None } else { Some(PhysAddr::new(self.0)) }
    }
}

impl Default for MaybePhys {
    fn default() -> Self {
        Self::NONE
    }
}

impl From<Option<PhysAddr>> for MaybePhys {
    #[inline]
    fn from(phys: Option<PhysAddr>) -> Self {
        phys.map_or(Self::NONE, Self::new)
    }
}

impl fmt::Debug for MaybePhys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(phys) => write!(f, "MaybePhys({phys})"),
            None => f.write_str("MaybePhys(none)"),
        }
    }
}

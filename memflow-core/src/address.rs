//! Addresses, ranges and sizes.
//!
//! Owns: the newtypes that keep physical and virtual addresses apart, and ranges whose last byte is known to exist.
//! Must not know: memory, paging, anything that reads.
//! Keeps: arithmetic only through named checked methods; a range never wraps, so code that holds one need not check again.

use std::fmt;

/// Bytes in a kibibyte.
pub const KIB: u64 = 1 << 10;
/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;
/// Bytes in a gibibyte.
pub const GIB: u64 = 1 << 30;

/// What every address type can do; the ranges below are written once over it.
pub trait Address: Copy + Ord + fmt::Debug + fmt::Display {
    /// The address with this number.
    fn from_u64(value: u64) -> Self;
    /// The number of this address.
    fn to_u64(self) -> u64;
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with this number.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number of this address.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// True for address zero.
            pub const fn is_null(self) -> bool {
                self.0 == 0
            }

            /// The address `bytes` further on, or `None` past the last address.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The address `bytes` before this one, or `None` below address zero.
            pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
                match self.0.checked_sub(bytes) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The address `bytes` further on, modulo 2^64: for arithmetic that is defined to wrap, such as relative
            /// pointers and per-CPU offsets.
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// The address `bytes` before this one, modulo 2^64: for a structure found by one of its members.
            pub const fn wrapping_sub(self, bytes: u64) -> Self {
                Self(self.0.wrapping_sub(bytes))
            }

            /// Bytes from `base` up to this address, or `None` when this address lies below `base`.
            pub const fn offset_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }

            /// The first address of the page that holds this one.
            pub const fn page_base(self, page: PageSize) -> Self {
                Self(self.0 & !page.offset_mask())
            }

            /// Bytes from the start of its page to this address.
            pub const fn page_offset(self, page: PageSize) -> u64 {
                self.0 & page.offset_mask()
            }

            /// True when this address is the first of a page of this size.
            pub const fn is_page_aligned(self, page: PageSize) -> bool {
                self.page_offset(page) == 0
            }
        }

        impl Address for $name {
            fn from_u64(value: u64) -> Self {
                Self(value)
            }

            fn to_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// An address in the physical memory of a target.
    PhysAddr
}

address! {
    /// An address in an address space of a target, or in any other [`MemoryView`](crate::view::MemoryView).
    VirtAddr
}

/// The size of a page: a power of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize {
    shift: u8,
}

impl PageSize {
    /// 4 KiB, the base page of x86 and of most AArch64 systems.
    pub const KIB_4: Self = Self { shift: 12 };
    /// 2 MiB, the large page of PAE, 4-level and 5-level x86.
    pub const MIB_2: Self = Self { shift: 21 };
    /// 4 MiB, the large page of 32-bit x86 without PAE.
    pub const MIB_4: Self = Self { shift: 22 };
    /// 1 GiB, the huge page of 4-level and 5-level x86.
    pub const GIB_1: Self = Self { shift: 30 };

    /// The page of `1 << shift` bytes; `None` from 64 on.
    pub const fn from_shift(shift: u8) -> Option<Self> {
        if shift < 64 { Some(Self { shift }) } else { None }
    }

    /// The page of `1 << shift` bytes, which is a size that was checked before.
    #[inline(always)]
    pub(crate) const fn of_known_shift(shift: u8) -> Self {
        debug_assert!(shift < 64);
        Self { shift }
    }

    /// Binary logarithm of the size.
    pub const fn shift(self) -> u8 {
        self.shift
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        // `shift` is below 64 by construction, so the shift keeps its bit.
        1u64.wrapping_shl(self.shift as u32)
    }

    /// The bits of an address that lie inside one page.
    pub const fn offset_mask(self) -> u64 {
        self.bytes().wrapping_sub(1)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes();
        match self.shift {
            0..10 => write!(f, "{bytes} B"),
            10..20 => write!(f, "{} KiB", bytes / KIB),
            20..30 => write!(f, "{} MiB", bytes / MIB),
            _ => write!(f, "{} GiB", bytes / GIB),
        }
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageSize({self})")
    }
}

/// Consecutive addresses: a start and a length in bytes, with the last byte known to exist.
///
/// A range may end with the last address there is; its `end` would then be 2^64, so ranges are asked for their [`last`](Self::last) byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range<A> {
    start: A,
    len: u64,
}

/// Consecutive physical addresses.
pub type PhysRange = Range<PhysAddr>;
/// Consecutive virtual addresses.
pub type VirtRange = Range<VirtAddr>;

impl<A: Address> Range<A> {
    /// `len` bytes from `start`; `None` when the last of them would lie past the last address.
    pub fn new(start: A, len: u64) -> Option<Self> {
        match len.checked_sub(1) {
            Some(rest) => start.to_u64().checked_add(rest).map(|_| Self { start, len }),
            None => Some(Self { start, len }),
        }
    }

    /// From `start` up to and including `last`; `None` when `last` lies below `start`, or for all 2^64 addresses,
    /// whose length no `u64` holds.
    pub fn inclusive(start: A, last: A) -> Option<Self> {
        let len = last.to_u64().checked_sub(start.to_u64())?.checked_add(1)?;
        Some(Self { start, len })
    }

    /// From `start` up to, not including, `end`; `None` when `end` lies below `start`.
    pub fn between(start: A, end: A) -> Option<Self> {
        let len = end.to_u64().checked_sub(start.to_u64())?;
        Some(Self { start, len })
    }

    /// The first address.
    pub fn start(&self) -> A {
        self.start
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when the range holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The last address of the range; `None` when it is empty.
    pub fn last(&self) -> Option<A> {
        let rest = self.len.checked_sub(1)?;
        // `new` checked that this sum exists.
        Some(A::from_u64(self.start.to_u64().wrapping_add(rest)))
    }

    /// The address after the last; `None` when the range ends with the last address there is.
    pub fn end(&self) -> Option<A> {
        self.start.to_u64().checked_add(self.len).map(A::from_u64)
    }

    /// True when `address` lies in the range.
    pub fn contains(&self, address: A) -> bool {
        address.to_u64().checked_sub(self.start.to_u64()).is_some_and(|offset| offset < self.len)
    }

    /// The addresses in both ranges; `None` when there are none.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let last = self.last()?.min(other.last()?);
        Self::inclusive(start, last)
    }
}

impl<A: Address> fmt::Display for Range<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last() {
            Some(last) => write!(f, "{}-{}", self.start, last),
            None => write!(f, "{}-(empty)", self.start),
        }
    }
}

impl<A: Address> fmt::Debug for Range<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_may_end_with_the_last_address() {
        let range = VirtRange::new(VirtAddr::new(u64::MAX), 1).unwrap();
        assert_eq!(range.last(), Some(VirtAddr::new(u64::MAX)));
        assert_eq!(range.end(), None);
        assert!(range.contains(VirtAddr::new(u64::MAX)));
        assert!(!range.contains(VirtAddr::new(0)));
    }

    #[test]
    fn range_never_wraps() {
        assert_eq!(PhysRange::new(PhysAddr::new(u64::MAX), 2), None);
        assert_eq!(PhysRange::inclusive(PhysAddr::new(5), PhysAddr::new(4)), None);
        assert_eq!(PhysRange::inclusive(PhysAddr::new(0), PhysAddr::new(u64::MAX)), None);
    }

    #[test]
    fn empty_range_holds_nothing() {
        let range = PhysRange::new(PhysAddr::new(u64::MAX), 0).unwrap();
        assert!(range.is_empty());
        assert_eq!(range.last(), None);
        assert!(!range.contains(PhysAddr::new(u64::MAX)));
        assert_eq!(range.intersection(&range), None);
    }

    #[test]
    fn intersection_is_what_both_hold() {
        let a = PhysRange::new(PhysAddr::new(0x1000), 0x2000).unwrap();
        let b = PhysRange::new(PhysAddr::new(0x2000), 0x2000).unwrap();
        assert_eq!(a.intersection(&b), PhysRange::new(PhysAddr::new(0x2000), 0x1000));
        let c = PhysRange::new(PhysAddr::new(0x3000), 1).unwrap();
        assert_eq!(a.intersection(&c), None);
    }

    #[test]
    fn page_arithmetic_and_text() {
        let address = VirtAddr::new(0x0020_1234);
        assert_eq!(address.page_base(PageSize::MIB_2), VirtAddr::new(0x0020_0000));
        assert_eq!(address.page_offset(PageSize::KIB_4), 0x234);
        assert_eq!(address.to_string(), "0x201234");
        assert_eq!(PageSize::GIB_1.to_string(), "1 GiB");
        assert_eq!(PageSize::from_shift(64), None);
        assert_eq!(PageSize::from_shift(63).unwrap().bytes(), 1 << 63);
    }
}

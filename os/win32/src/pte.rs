//! Entries of page tables that the processor refuses, and prototypes of entries: what Windows means by their bits.
//!
//! Owns: the bits. Must not know: how tables are walked, whose they are, where page files are.
//! Keeps: an entry whose meaning is not certain is said to be so.
//! Source: `_MMPTE_TRANSITION`, `_MMPTE_PROTOTYPE`, `_MMPTE_SUBSECTION`, `_MMPTE_SOFTWARE` in the kernel's symbols. The number of a page
//! file moved from bit 1 to bit 12 with build 17134, which also began to invert a high bit of entries against speculative loads; bit 4
//! says that an entry was left as it is.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{PhysAddr, VirtAddr, paging::PageFlags};

/// The processor may use it.
pub(crate) const VALID: u64 = 1;
/// A page in transition: on the list of standby or modified pages, still in memory.
const TRANSITION: u64 = 1 << 11;
/// The entry leads to a prototype of itself, which several processes share.
const PROTOTYPE: u64 = 1 << 10;
/// No bit of the entry is inverted.
const AS_IT_IS: u64 = 1 << 4;
/// Frame of an entry of 64 bits. Where the processor may speculate past an entry that is not present, Windows sets a high bit that no
/// memory has; bit 45 and above are none of a frame here.
const FRAME: u64 = 0x0000_1fff_ffff_f000;
/// Frame of an entry of 32 bits.
const NARROW_FRAME: u64 = 0xffff_f000;
/// The protection in a software entry: execute and write of Windows' own code.
const PROTECTION_SHIFT: u32 = 5;
/// The first build with the newer form.
const NEWER: u32 = 17134;

/// How entries are written by one kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PteForm {
    /// Pointers have 64 bits.
    pub(crate) wide: bool,
    /// Bytes of an entry.
    pub(crate) size: u64,
    /// The kernel's build; 0 when it is not known.
    pub(crate) build: u32,
}

/// What an entry means that is not valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meaning {
    /// Nothing is said of the page; the region may know.
    Nothing,
    /// In memory.
    Page { base: PhysAddr, protection: u64 },
    /// Another entry knows, at an address of the kernel. In a prototype: a part of a file.
    Prototype(VirtAddr),
    /// The region knows the prototype.
    InRegion,
    /// In a page file. `inverted` when a bit of the page's number may be inverted.
    PageFile { file: u8, page: u64, inverted: bool },
    /// In a page file of this system; which and where is not known of this build.
    PagedOut,
    /// Zeros when it is first used.
    DemandZero,
}

impl PteForm {
    /// The meaning of an entry.
    pub(crate) fn meaning(self, entry: u64) -> Meaning {
        if entry == 0 {
            return Meaning::Nothing;
        }
        if entry & PROTOTYPE != 0 {
            return self.prototype(entry);
        }
        if entry & TRANSITION != 0 {
            let protection = entry >> PROTECTION_SHIFT & 0x1f;
            return Meaning::Page { base: self.frame(entry), protection };
        }
        let page = if self.size == 8 { entry >> 32 } else { entry >> 12 };
        if page == 0 {
            return Meaning::DemandZero;
        }
        let newer = self.build >= NEWER;
        let file = match (self.size, self.build) {
            // Which form it is.
            (8, 0) => return Meaning::PagedOut,
            (8, _) if newer => entry >> 12 & 0xf,
            _ => entry >> 1 & 0xf,
        };
        let inverted = newer && self.wide && entry & AS_IT_IS == 0;
        Meaning::PageFile { file: u8::try_from(file).unwrap_or_default(), page, inverted }
    }

    fn prototype(self, entry: u64) -> Meaning {
        // All ones where the address stands: it is in the record of the region.
        match (self.wide, self.size) {
            (true, _) if entry >> 32 == 0xffff_ffff => Meaning::InRegion,
            (true, _) => Meaning::Prototype(VirtAddr::new(entry >> 16 | 0xffff_0000_0000_0000)),
            (false, 8) if entry >> 32 == 0xffff_ffff => Meaning::InRegion,
            (false, 8) => Meaning::Prototype(VirtAddr::new(entry >> 32)),
            _ if entry >> 12 == 0xf_ffff => Meaning::InRegion,
            // Entries of 32 bits scatter the address, from a base that is not known.
            _ => Meaning::PagedOut,
        }
    }

    /// The frame of an entry that is valid or in transition.
    pub(crate) fn frame(self, entry: u64) -> PhysAddr {
        PhysAddr::new(entry & if self.size == 8 { FRAME } else { NARROW_FRAME })
    }

    /// Bits above those of any frame in an entry in transition: what is inverted, if anything is.
    pub(crate) fn inverted_bits(self, entry: u64) -> Option<u64> {
        let subject = self.wide && self.build >= NEWER && entry & (VALID | PROTOTYPE | AS_IT_IS) == 0;
        (subject && entry & TRANSITION != 0).then_some(entry & 0x0000_ffff_ffff_f000 & !FRAME)
    }
}

/// What a protection of Windows allows (`MM_EXECUTE` 2, `MM_READWRITE` 4).
pub(crate) fn flags(protection: u64) -> PageFlags {
    let mut flags = PageFlags::USER;
    flags.set(PageFlags::WRITABLE, matches!(protection & 7, 4..=7));
    flags.set(PageFlags::NO_EXECUTE, !matches!(protection & 7, 2 | 3 | 6 | 7));
    flags
}

/// What a valid entry allows. What the process may do is in its own records; a prototype says what the file allows.
pub(crate) fn valid_flags(entry: u64) -> PageFlags {
    let mut flags = PageFlags::USER;
    flags.set(PageFlags::WRITABLE, entry & 2 != 0);
    flags.set(PageFlags::NO_EXECUTE, entry >> 63 != 0);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: PteForm = PteForm { wide: true, size: 8, build: 19041 };
    const OLDER: PteForm = PteForm { wide: true, size: 8, build: 7601 };
    const PAE: PteForm = PteForm { wide: false, size: 8, build: 7601 };
    const NARROW: PteForm = PteForm { wide: false, size: 4, build: 7601 };

    #[test]
    fn entries_mean_what_windows_means_by_them() {
        let page = Meaning::Page { base: PhysAddr::new(0x1234_5000), protection: 4 };
        assert_eq!(WIDE.meaning(0x1234_5000 | TRANSITION | 4 << 5), page);
        // The bit that keeps processors from speculating.
        assert_eq!(WIDE.meaning(0x1234_5000 | TRANSITION | 4 << 5 | 1 << 45), page);
        let prototype = Meaning::Prototype(VirtAddr::new(0xffff_e000_1234_5678));
        assert_eq!(WIDE.meaning(0xe000_1234_5678 << 16 | PROTOTYPE), prototype);
        assert_eq!(WIDE.meaning(0xffff_ffff << 32 | PROTOTYPE), Meaning::InRegion);
        assert_eq!(WIDE.meaning(4 << 5), Meaning::DemandZero);
        assert_eq!(WIDE.meaning(0), Meaning::Nothing);
        assert_eq!(flags(4), PageFlags::USER | PageFlags::WRITABLE | PageFlags::NO_EXECUTE);
        assert_eq!(flags(6), PageFlags::USER | PageFlags::WRITABLE);
        assert_eq!(flags(1), PageFlags::USER | PageFlags::NO_EXECUTE);
    }

    #[test]
    fn page_files_are_numbered_as_the_build_does() {
        let entry = 0x77 << 32 | 2 << 12 | 4 << 5;
        assert_eq!(WIDE.meaning(entry), Meaning::PageFile { file: 2, page: 0x77, inverted: true });
        assert_eq!(WIDE.meaning(entry | AS_IT_IS), Meaning::PageFile { file: 2, page: 0x77, inverted: false });
        let entry = 0x77 << 32 | 3 << 1 | 4 << 5;
        assert_eq!(OLDER.meaning(entry), Meaning::PageFile { file: 3, page: 0x77, inverted: false });
        assert_eq!(PteForm { build: 0, ..WIDE }.meaning(entry), Meaning::PagedOut);
        assert_eq!(NARROW.meaning(0x77 << 12 | 1 << 1), Meaning::PageFile { file: 1, page: 0x77, inverted: false });
    }

    #[test]
    fn prototypes_of_32_bits_are_told_where_the_form_is_known() {
        assert_eq!(PAE.meaning(0x9012_3458 << 32 | PROTOTYPE), Meaning::Prototype(VirtAddr::new(0x9012_3458)));
        assert_eq!(PAE.meaning(0xffff_ffff << 32 | PROTOTYPE), Meaning::InRegion);
        assert_eq!(NARROW.meaning(0xffff_f000 | PROTOTYPE), Meaning::InRegion);
        assert_eq!(NARROW.meaning(0x1234_5000 | PROTOTYPE), Meaning::PagedOut);
    }

    #[test]
    fn inverted_bits_come_from_entries_in_transition_alone() {
        assert_eq!(WIDE.inverted_bits(0x1234_5000 | TRANSITION | 1 << 45), Some(1 << 45));
        assert_eq!(WIDE.inverted_bits(0x1234_5000 | TRANSITION), Some(0));
        assert_eq!(WIDE.inverted_bits(0x1234_5000 | TRANSITION | AS_IT_IS), None);
        assert_eq!(WIDE.inverted_bits(0x77 << 32), None);
        assert_eq!(OLDER.inverted_bits(0x1234_5000 | TRANSITION), None);
    }
}

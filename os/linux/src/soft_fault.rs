//! Entries of a process' page tables that the processor refuses and Linux understands (x86-64).
//!
//! Owns: the bits of such entries. Must not know: how tables are walked, which process they belong to.
//! Keeps: an entry is a page only when Linux itself takes it for one (`pte_present`, `pmd_present`), never by how it looks.
//! Source: Linux `arch/x86/include/asm/{pgtable.h,pgtable_64.h,pgtable-invert.h}`, `include/linux/swap.h`. Page frames of entries that
//! are not present are stored inverted since v4.18, which is before any kernel that has type information.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    PhysAddr, PhysicalMemory,
    paging::{PageFlags, SoftFault, SoftFaultAnswer, SoftFaults},
};

const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// A large page; kept when Linux makes one not present for a moment.
const LARGE: u64 = 1 << 7;
/// `_PAGE_PROTNONE`: a page that may not be touched (`PROT_NONE`, or to notice who uses it). The bit is that of global pages.
const PROT_NONE: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// The bits of an entry that hold the page frame.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Lowest bit of the type of a swap entry.
const SWAP_TYPE_SHIFT: u32 = 59;
/// Types from here on are no swap but notes of the kernel to itself (migration, poisoned, markers): `MAX_SWAPFILES` is 23 where
/// everything is configured, more elsewhere.
const FIRST_SPECIAL_TYPE: u64 = 23;

/// The rules of Linux on x86-64.
#[derive(Debug)]
pub(crate) struct LinuxSoftFaults;

impl SoftFaults for LinuxSoftFaults {
    fn resolve(&self, _: &dyn PhysicalMemory, faults: &mut [SoftFault]) {
        for fault in faults {
            fault.answer = answer(fault.stop.entry, fault.stop.level);
        }
    }
}

/// What an entry of this level means that is not present and not zero.
fn answer(entry: u64, level: u8) -> SoftFaultAnswer {
    let page = match level {
        1 => entry & PROT_NONE != 0,
        2 | 3 => entry & (PROT_NONE | LARGE) != 0,
        _ => false,
    };
    if page {
        let mut flags = PageFlags::empty();
        for (bit, flag) in [
            (WRITABLE, PageFlags::WRITABLE),
            (USER, PageFlags::USER),
            (ACCESSED, PageFlags::ACCESSED),
            (DIRTY, PageFlags::DIRTY),
            (NO_EXECUTE, PageFlags::NO_EXECUTE),
        ] {
            flags.set(flag, entry & bit != 0);
        }
        return SoftFaultAnswer::Page { base: PhysAddr::new(!entry & FRAME), flags };
    }
    // Swap entries stand where pages do, large ones in the level above too.
    if matches!(level, 1 | 2) && entry >> SWAP_TYPE_SHIFT < FIRST_SPECIAL_TYPE {
        return SoftFaultAnswer::PagedOut;
    }
    SoftFaultAnswer::NotMapped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a `PROT_NONE` entry for a frame, as `pfn_pte(pfn, PAGE_NONE)` makes it: every bit of the frame inverted.
    fn prot_none(frame: u64) -> u64 {
        (!frame & FRAME) | PROT_NONE | ACCESSED
    }

    #[test]
    fn prot_none_page_is_where_it_was() {
        let page = |base| SoftFaultAnswer::Page { base: PhysAddr::new(base), flags: PageFlags::ACCESSED };
        assert_eq!(answer(prot_none(0x1234_5000), 1), page(0x1234_5000));
        assert_eq!(answer(prot_none(0x0040_0000) | LARGE, 2), page(0x0040_0000));
        assert_eq!(answer(prot_none(0), 4), SoftFaultAnswer::NotMapped);
    }

    #[test]
    fn swap_entry_is_paged_out_and_markers_are_not() {
        // `__swp_entry(type, offset)`: type in bits 59 to 63, inverted offset from bit 14 on.
        let swap = |kind: u64, offset: u64| (kind << 59) | ((!offset << 14) & 0x07ff_ffff_ffff_c000);
        assert_eq!(answer(swap(0, 0x1234), 1), SoftFaultAnswer::PagedOut);
        assert_eq!(answer(swap(2, 1), 2), SoftFaultAnswer::PagedOut);
        assert_eq!(answer(swap(31, 0), 1), SoftFaultAnswer::NotMapped);
        assert_eq!(answer(swap(27, 0x77), 1), SoftFaultAnswer::NotMapped);
    }
}

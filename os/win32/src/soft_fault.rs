//! Entries of page tables that the processor refuses and Windows understands.
//!
//! Owns: the bits of such entries. Must not know: how tables are walked, which process they belong to.
//! Keeps: a page is told only where an entry says so that Windows itself would use; an entry of a prototype is read through the kernel's
//! own tables without asking here again, so that nothing goes in circles.
//! Source: `_MMPTE_TRANSITION`, `_MMPTE_PROTOTYPE`, `_MMPTE_SOFTWARE` in the kernel's symbols; x64, and x86 with PAE for transition.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    PageSize, PhysAddr, VirtAddr,
    memory::{PhysRead, PhysicalMemory},
    paging::{AddressSpace, PageFlags, SoftFault, SoftFaultAnswer, SoftFaults},
};

const VALID: u64 = 1;
/// A page in transition: on the list of standby or modified pages, still in memory.
const TRANSITION: u64 = 1 << 11;
/// The entry leads to a prototype of itself, which several processes share.
const PROTOTYPE: u64 = 1 << 10;
/// Frame of an entry of 64 bits. Where the processor may speculate past an entry that is not present, Windows sets a high bit that no
/// memory has; bit 45 and above are none of a frame here.
const FRAME: u64 = 0x0000_1fff_ffff_f000;
/// Frame of an entry of 32 bits.
const NARROW_FRAME: u64 = 0xffff_f000;
/// The protection in a software entry: execute and write of Windows' own code.
const PROTECTION_SHIFT: u32 = 5;

/// The rules of Windows.
#[derive(Debug)]
pub(crate) struct WindowsSoftFaults {
    /// The kernel's tables.
    kernel: AddressSpace,
}

/// What an entry means that is not valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meaning {
    Page {
        base: PhysAddr,
        protection: u64,
    },
    Prototype(VirtAddr),
    PagedOut,
    /// Zeros when it is first used.
    DemandZero,
}

impl WindowsSoftFaults {
    /// The rules, with the kernel's own tables.
    pub(crate) fn new(kernel: AddressSpace) -> Self {
        Self { kernel }
    }

    fn is_wide(&self) -> bool {
        self.kernel.architecture().pointer_size == 8
    }

    /// Size of an entry in bytes.
    fn entry_size(&self) -> usize {
        usize::try_from(self.kernel.architecture().entry_size.bytes()).unwrap_or(8)
    }

    fn meaning(&self, entry: u64) -> Meaning {
        let frame = if self.entry_size() == 8 { FRAME } else { NARROW_FRAME };
        let protection = entry >> PROTECTION_SHIFT & 0x1f;
        if entry & PROTOTYPE != 0 {
            // 32-bit entries scatter the address over the entry.
            return if self.is_wide() { Meaning::Prototype(sign_extended(entry >> 16)) } else { Meaning::PagedOut };
        }
        if entry & TRANSITION != 0 {
            return Meaning::Page { base: PhysAddr::new(entry & frame), protection };
        }
        // The upper half is the offset in the paging file; without one the page has never been written.
        let offset = if self.entry_size() == 8 { entry >> 32 } else { entry >> 12 };
        if offset == 0 { Meaning::DemandZero } else { Meaning::PagedOut }
    }

    /// What the prototype at an address means.
    fn prototype(&self, memory: &dyn PhysicalMemory, at: VirtAddr) -> SoftFaultAnswer {
        let mut bytes = [0; 8];
        let Ok(found) = self.kernel.translate(memory, at) else { return SoftFaultAnswer::PagedOut };
        if memory.read_batch(&mut [PhysRead::new(found.phys, &mut bytes)]).is_err() {
            return SoftFaultAnswer::PagedOut;
        }
        let entry = u64::from_le_bytes(bytes);
        if entry & VALID != 0 {
            let base = PhysAddr::new(entry & FRAME);
            // What the process may do is in its own records; the prototype says what the file allows.
            let mut flags = PageFlags::USER;
            flags.set(PageFlags::WRITABLE, entry & 2 != 0);
            flags.set(PageFlags::NO_EXECUTE, entry >> 63 != 0);
            return SoftFaultAnswer::Page { base, flags };
        }
        match self.meaning(entry) {
            Meaning::Page { base, protection } => SoftFaultAnswer::Page { base, flags: flags(protection) },
            // The prototype of a file leads to a part of the file.
            Meaning::Prototype(_) | Meaning::PagedOut => SoftFaultAnswer::PagedOut,
            Meaning::DemandZero => SoftFaultAnswer::NotMapped,
        }
    }

    fn answer(&self, memory: &dyn PhysicalMemory, fault: &SoftFault) -> SoftFaultAnswer {
        // Tables can be in transition too; large pages cannot.
        if fault.page != PageSize::KIB_4 {
            return SoftFaultAnswer::NotMapped;
        }
        match self.meaning(fault.stop.entry) {
            Meaning::Page { base, protection } => SoftFaultAnswer::Page { base, flags: flags(protection) },
            // All ones: the address of the prototype stands in the record of the region.
            Meaning::Prototype(at) if at.as_u64() >= 0xffff_ffff_0000_0000 => SoftFaultAnswer::PagedOut,
            Meaning::Prototype(at) => self.prototype(memory, at),
            Meaning::PagedOut => SoftFaultAnswer::PagedOut,
            Meaning::DemandZero => SoftFaultAnswer::NotMapped,
        }
    }
}

/// The 48 bits of an address of the kernel.
fn sign_extended(bits: u64) -> VirtAddr {
    VirtAddr::new(bits | 0xffff_0000_0000_0000)
}

/// What a protection of Windows allows (`MM_EXECUTE` 2, `MM_READWRITE` 4).
fn flags(protection: u64) -> PageFlags {
    let mut flags = PageFlags::USER;
    flags.set(PageFlags::WRITABLE, matches!(protection & 7, 4..=7));
    flags.set(PageFlags::NO_EXECUTE, !matches!(protection & 7, 2 | 3 | 6 | 7));
    flags
}

impl SoftFaults for WindowsSoftFaults {
    fn resolve(&self, memory: &dyn PhysicalMemory, faults: &mut [SoftFault]) {
        for fault in faults {
            fault.answer = self.answer(memory, fault);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use memflow_core::{
        MemoryViewExt, PhysAddr, VirtAddr,
        paging::x86,
        testkit::{
            MachineBuilder, PagingMode,
            entry_bits::{PRESENT, USER, WRITABLE},
        },
        view::SpaceView,
    };

    use super::*;

    #[test]
    fn entries_mean_what_windows_means_by_them() {
        let rules = WindowsSoftFaults::new(AddressSpace::new(&x86::X64, 0x1000));
        let page = Meaning::Page { base: PhysAddr::new(0x1234_5000), protection: 4 };
        assert_eq!(rules.meaning(0x1234_5000 | TRANSITION | 4 << 5), page);
        // The bit that keeps processors from speculating.
        assert_eq!(rules.meaning(0x1234_5000 | TRANSITION | 4 << 5 | 1 << 45), page);
        let prototype = Meaning::Prototype(VirtAddr::new(0xffff_e000_1234_5678));
        assert_eq!(rules.meaning(0xe000_1234_5678 << 16 | PROTOTYPE), prototype);
        assert_eq!(rules.meaning(0x77 << 32 | 4 << 5), Meaning::PagedOut);
        assert_eq!(rules.meaning(4 << 5), Meaning::DemandZero);
        assert_eq!(flags(4), PageFlags::USER | PageFlags::WRITABLE | PageFlags::NO_EXECUTE);
        assert_eq!(flags(6), PageFlags::USER | PageFlags::WRITABLE);
        assert_eq!(flags(1), PageFlags::USER | PageFlags::NO_EXECUTE);
    }

    #[test]
    fn pages_in_transition_and_behind_prototypes_are_read() {
        let mut builder = MachineBuilder::new(PagingMode::X64, 1 << 20).unwrap();
        let page = PageSize::KIB_4;
        let (data, prototypes, other) = (builder.frame().unwrap(), builder.frame().unwrap(), builder.frame().unwrap());
        builder.write(data, b"transition").unwrap();
        builder.write(other, b"prototype").unwrap();
        let at = VirtAddr::new(0xffff_e000_0000_0000);
        builder.map(at, prototypes, page, PRESENT | WRITABLE).unwrap();
        builder.write(prototypes, &(other.as_u64() | PRESENT | USER).to_le_bytes()).unwrap();
        builder.write(prototypes.wrapping_add(8), &(data.as_u64() | TRANSITION | 1 << 5).to_le_bytes()).unwrap();
        let entries = [
            data.as_u64() | TRANSITION | 4 << 5,
            at.as_u64() << 16 | PROTOTYPE,
            at.wrapping_add(8).as_u64() << 16 | PROTOTYPE,
            0x5_0000_0080,
            u64::MAX << 32 | PROTOTYPE,
            at.wrapping_add(0x10_0000).as_u64() << 16 | PROTOTYPE,
        ];
        for (index, entry) in (0u64..).zip(entries) {
            let mapped = builder.map(VirtAddr::new(0x10_0000 + index * 0x1000), data, page, PRESENT | USER).unwrap();
            builder.set_entry(mapped.entries.last().unwrap().at, entry).unwrap();
        }
        let machine = builder.build().unwrap();
        let rules = std::sync::Arc::new(WindowsSoftFaults::new(machine.space.clone()));
        let view = SpaceView::new(machine.memory.clone(), machine.space.clone().with_soft_faults(rules));
        let text = |index: u64| view.read_utf8_lossy(VirtAddr::new(0x10_0000 + index * 0x1000), 64);
        assert_eq!(text(0).unwrap(), "transition");
        assert_eq!(text(1).unwrap(), "prototype");
        assert_eq!(text(2).unwrap(), "transition");
        for paged_out in 3..6 {
            let error = text(paged_out).unwrap_err();
            assert!(error.to_string().contains("paged out"), "{paged_out}: {error}");
        }
    }
}

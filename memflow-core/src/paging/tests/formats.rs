//! Entries of each mode, by hand from the Intel SDM, volume 3A, chapter "Paging".

use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr},
    error::{Reason, Stop, StopCause},
    paging::{
        AddressSpace, Architecture, BitTest, EntryFormat, EntrySize, Level, MovedBits, PageFlags, PageState,
        Translation,
    },
    testkit::{Machine, MachineBuilder, PagingMode, entry_bits::*},
};

/// A machine with one page, whose entries were changed by `change`.
fn machine(mode: PagingMode, virt: u64, phys: u64, page: PageSize, bits: u64, change: &[(u8, u64)]) -> Machine {
    let mut builder = MachineBuilder::new(mode, 0x20000).unwrap();
    let mapped = builder.map(VirtAddr::new(virt), PhysAddr::new(phys), page, bits).unwrap();
    for (level, set) in change {
        let place = mapped.entries.iter().find(|entry| entry.level == *level).unwrap();
        let entry = builder.entry(place.at).unwrap();
        builder.set_entry(place.at, entry | set).unwrap();
    }
    builder.build().unwrap()
}

fn translate(machine: &Machine, virt: u64) -> Result<Translation, Reason> {
    machine.space.translate(&*machine.memory, VirtAddr::new(virt))
}

fn stop(machine: &Machine, virt: u64) -> Stop {
    match translate(machine, virt) {
        Err(Reason::NotMapped(stop)) => stop,
        other => panic!("{other:?}"),
    }
}

const RWU: u64 = PRESENT | WRITABLE | USER;

#[test]
fn pse36_page_lies_anywhere_in_40_bits() {
    let machine = machine(PagingMode::X86, 0xc040_0000, 0xab_1240_0000, PageSize::MIB_4, RWU, &[]);
    let found = translate(&machine, 0xc07f_ffff).unwrap();
    assert_eq!(found.phys, PhysAddr::new(0xab_127f_ffff));
    assert_eq!((found.page, found.level), (PageSize::MIB_4, 2));
}

#[test]
fn bit_21_of_a_4_mib_entry_is_reserved() {
    let machine = machine(PagingMode::X86, 0, 0x40_0000, PageSize::MIB_4, RWU, &[(2, 1 << 21)]);
    assert_eq!(stop(&machine, 0).cause, StopCause::ReservedBit);
}

#[test]
fn without_pse_bit_7_of_a_directory_entry_means_nothing() {
    let machine = machine(PagingMode::X86NoPse, 0x1234_5000, 0x5000, PageSize::KIB_4, RWU, &[(2, LARGE)]);
    assert_eq!(translate(&machine, 0x1234_5678).unwrap().phys, PhysAddr::new(0x5678));
    let with_pse = AddressSpace::new(PagingMode::X86.architecture(), machine.root.as_u64());
    let found = with_pse.translate(&*machine.memory, VirtAddr::new(0x1234_5678)).unwrap();
    assert_eq!(found.page, PageSize::MIB_4);
}

#[test]
fn pat_bits_never_reach_the_address() {
    // At the lowest level PAT is bit 7, in large pages bit 12.
    for mode in PagingMode::ALL {
        let machine = machine(mode, 0x1000, 0x5000, PageSize::KIB_4, RWU | LARGE, &[]);
        assert_eq!(translate(&machine, 0x1abc).unwrap().phys, PhysAddr::new(0x5abc), "{mode:?}");
        for shift in mode.page_shifts().iter().filter(|shift| **shift > 12) {
            let page = PageSize::from_shift(*shift).unwrap();
            let machine = self::machine(mode, 0x4000_0000, 0x8000_0000, page, RWU | LARGE_PAT, &[]);
            assert_eq!(translate(&machine, 0x4000_1abc).unwrap().phys, PhysAddr::new(0x8000_1abc), "{mode:?} {page}");
        }
    }
}

#[test]
fn reserved_bits_of_large_pages_stop_the_walk() {
    for mode in [PagingMode::Pae, PagingMode::X64, PagingMode::La57] {
        for shift in mode.page_shifts().iter().filter(|shift| **shift > 12) {
            let page = PageSize::from_shift(*shift).unwrap();
            for bit in 13..*shift {
                let machine = machine(mode, 0, 0, page, RWU | 1 << bit, &[]);
                let stop = stop(&machine, 0);
                assert_eq!(
                    (stop.cause, stop.entry >> bit & 1),
                    (StopCause::ReservedBit, 1),
                    "{mode:?} {page} bit {bit}"
                );
            }
        }
    }
}

#[test]
fn ps_bit_of_pml4_and_pml5_is_reserved() {
    let four = machine(PagingMode::X64, 0, 0x5000, PageSize::KIB_4, RWU, &[(4, LARGE)]);
    assert_eq!((stop(&four, 0).cause, stop(&four, 0).level), (StopCause::ReservedBit, 4));
    for level in [4, 5] {
        let five = machine(PagingMode::La57, 0, 0x5000, PageSize::KIB_4, RWU, &[(level, LARGE)]);
        assert_eq!((stop(&five, 0).cause, stop(&five, 0).level), (StopCause::ReservedBit, level));
    }
}

#[test]
fn pae_root_entry_has_no_rights_and_many_reserved_bits() {
    let plain = machine(PagingMode::Pae, 0x8000_0000, 0x5000, PageSize::KIB_4, RWU, &[]);
    // The root entry has neither R/W nor U/S set, and takes no right away.
    assert_eq!(translate(&plain, 0x8000_0000).unwrap().flags, PageFlags::WRITABLE | PageFlags::USER);
    for bit in [1, 2, 6, 7, 8, 52, 62, 63] {
        let machine = machine(PagingMode::Pae, 0x8000_0000, 0x5000, PageSize::KIB_4, RWU, &[(3, 1 << bit)]);
        assert_eq!(
            (stop(&machine, 0x8000_0000).cause, stop(&machine, 0x8000_0000).level),
            (StopCause::ReservedBit, 3),
            "{bit}"
        );
    }
    // Write-through, cache-disable and the three ignored bits are ordinary, and the accessed bit that QEMU sets here.
    for bit in [3, 4, 5, 9, 10, 11] {
        let machine = machine(PagingMode::Pae, 0x8000_0000, 0x5000, PageSize::KIB_4, RWU, &[(3, 1 << bit)]);
        assert_eq!(translate(&machine, 0x8000_0000).unwrap().phys, PhysAddr::new(0x5000), "{bit}");
    }
}

#[test]
fn bits_52_to_62_are_reserved_in_pae_and_ignored_in_long_mode() {
    for level in [1, 2] {
        let pae = machine(PagingMode::Pae, 0, 0x5000, PageSize::KIB_4, RWU, &[(level, 1 << 59)]);
        assert_eq!((stop(&pae, 0).cause, stop(&pae, 0).level), (StopCause::ReservedBit, level));
        let long = machine(PagingMode::X64, 0, 0x5000, PageSize::KIB_4, RWU, &[(level, 0x7ff << 52)]);
        assert_eq!(translate(&long, 0x123).unwrap().phys, PhysAddr::new(0x5123));
    }
}

#[test]
fn rights_are_combined_over_the_levels() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x20000).unwrap();
    let page = builder.map(VirtAddr::new(0), PhysAddr::new(0x5000), PageSize::KIB_4, RWU | ACCESSED | DIRTY).unwrap();
    let upper = page.entries[1].at;
    let entry = builder.entry(upper).unwrap();
    let flags = |entry: u64| {
        let mut builder = builder.clone();
        builder.set_entry(upper, entry).unwrap();
        translate(&builder.build().unwrap(), 0).unwrap().flags
    };
    let used = PageFlags::ACCESSED | PageFlags::DIRTY;
    assert_eq!(flags(entry), PageFlags::WRITABLE | PageFlags::USER | used);
    assert_eq!(flags(entry & !WRITABLE), PageFlags::USER | used);
    assert_eq!(flags(entry & !USER), PageFlags::WRITABLE | used);
    assert_eq!(flags(entry | NO_EXECUTE), PageFlags::WRITABLE | PageFlags::USER | PageFlags::NO_EXECUTE | used);
    // Accessed, dirty and global count in the entry of the page only.
    assert_eq!(flags(entry | GLOBAL | ACCESSED), PageFlags::WRITABLE | PageFlags::USER | used);
}

#[test]
fn address_of_52_bits_is_kept_whole() {
    let machine = machine(PagingMode::X64, 0, 0x000f_ffff_ffff_f000, PageSize::KIB_4, RWU | NO_EXECUTE, &[]);
    assert_eq!(translate(&machine, 0xfff).unwrap().phys, PhysAddr::new(0x000f_ffff_ffff_ffff));
}

#[test]
fn root_register_loses_pcid_cache_and_masking_bits() {
    let machine = machine(PagingMode::X64, 0x7000, 0x5000, PageSize::KIB_4, RWU, &[]);
    let cr3 = machine.root.as_u64() | 0xfff | 3 << 61 | 1 << 63;
    let space = AddressSpace::new(PagingMode::X64.architecture(), cr3);
    assert_eq!(space, machine.space);
    assert!(space.translate(&*machine.memory, VirtAddr::new(0x7000)).is_ok());
}

#[test]
fn addresses_that_are_not_canonical_or_too_wide_do_not_start_a_walk() {
    for (mode, addr) in [
        (PagingMode::X64, 0x0000_8000_0000_0000),
        (PagingMode::X64, 0xffff_7fff_ffff_ffff),
        (PagingMode::La57, 0x0100_0000_0000_0000),
        (PagingMode::La57, 0xfeff_ffff_ffff_ffff),
        (PagingMode::X86, 0x1_0000_0000),
        (PagingMode::Pae, u64::MAX),
    ] {
        let machine = machine(mode, 0, 0x5000, PageSize::KIB_4, RWU, &[]);
        let stop = stop(&machine, addr);
        assert_eq!((stop.level, stop.cause), (0, StopCause::NotCanonical), "{mode:?}");
    }
    // What is too wide for four levels is ordinary for five.
    let five = machine(PagingMode::La57, 0x0000_8000_0000_0000, 0x5000, PageSize::KIB_4, RWU, &[]);
    assert_eq!(translate(&five, 0x0000_8000_0000_0abc).unwrap().phys, PhysAddr::new(0x5abc));
}

#[test]
fn last_byte_of_the_address_space_is_ordinary() {
    for (mode, last) in [(PagingMode::X64, u64::MAX), (PagingMode::La57, u64::MAX), (PagingMode::Pae, 0xffff_ffff)] {
        let machine = machine(mode, last & !0xfff, 0x5000, PageSize::KIB_4, RWU, &[]);
        assert_eq!(translate(&machine, last).unwrap().phys, PhysAddr::new(0x5fff), "{mode:?}");
    }
}

#[test]
fn table_outside_the_image_is_told_from_an_entry_that_is_not_present() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x20000).unwrap();
    let page = builder.map(VirtAddr::new(0), PhysAddr::new(0x5000), PageSize::KIB_4, RWU).unwrap();
    let table = page.entries[3].table;
    builder.remove_memory(PhysRange::new(table, 0x1000).unwrap());
    let machine = builder.build().unwrap();
    let missing = Stop { level: 1, table, entry: 0, cause: StopCause::TableNotInImage };
    assert_eq!(stop(&machine, 0), missing);
    assert_eq!(stop(&machine, 1 << 39), Stop { level: 4, table: machine.root, entry: 0, cause: StopCause::NotPresent });
}

/// A made-up mode, as a third party would write it: two levels of 16 entries, 64-byte pages, rights inverted.
static TOY: Architecture = Architecture {
    name: "toy",
    pointer_size: 4,
    virtual_bits: 14,
    sign_extended: false,
    entry_size: EntrySize::Four,
    root_mask: 0xffff_ffff,
    present: BitTest::clear(1 << 31),
    state: PageState { accessed: BitTest::NEVER, dirty: BitTest::NEVER, global: BitTest::ALWAYS },
    levels: &[
        Level { shift: 10, index_bits: 4, page_when: BitTest::NEVER, table: TOY_FORMAT, page: EntryFormat::INVALID },
        Level { shift: 6, index_bits: 4, page_when: BitTest::ALWAYS, table: EntryFormat::INVALID, page: TOY_FORMAT },
    ],
};
const TOY_FORMAT: EntryFormat = EntryFormat {
    address: 0x0000_ffc0,
    moved: MovedBits { mask: 0x3, left: 16 },
    reserved: 1 << 30,
    writable: BitTest::clear(1 << 29),
    user: BitTest::ALWAYS,
    no_execute: BitTest::NEVER,
};
const _: () = assert!(TOY.is_consistent());

#[test]
fn a_third_party_can_bring_its_own_architecture() {
    let mut builder = MachineBuilder::new(PagingMode::X86, 0x4000).unwrap();
    let absent = 0x8000_0000u32.to_le_bytes();
    for at in (0x1000..0x1080).step_by(4) {
        builder.write(PhysAddr::new(at), &absent).unwrap();
    }
    builder.write(PhysAddr::new(0x1000 + 3 * 4), &0x1040u32.to_le_bytes()).unwrap();
    builder.write(PhysAddr::new(0x1040 + 15 * 4), &0x2000_2fc1u32.to_le_bytes()).unwrap();
    let memory = builder.build().unwrap().memory;
    let space = AddressSpace::new(&TOY, 0x1000);
    let found = space.translate(&*memory, VirtAddr::new(3 << 10 | 15 << 6 | 5)).unwrap();
    assert_eq!(found.phys, PhysAddr::new(0x1_2fc5));
    assert_eq!((found.page.bytes(), found.flags), (64, PageFlags::USER | PageFlags::GLOBAL));
    assert!(space.translate(&*memory, VirtAddr::new(1 << 14)).is_err());
}

/// Nothing in it makes sense.
static NONSENSE: Architecture = Architecture {
    virtual_bits: 200,
    levels: &[Level { shift: 255, index_bits: 255, page_when: BitTest::NEVER, table: TOY_FORMAT, page: TOY_FORMAT };
        12],
    ..TOY_BASE
};
const TOY_BASE: Architecture = Architecture {
    name: "nonsense",
    pointer_size: 9,
    virtual_bits: 0,
    sign_extended: true,
    entry_size: EntrySize::Eight,
    root_mask: u64::MAX,
    present: BitTest::ALWAYS,
    state: PageState { accessed: BitTest::NEVER, dirty: BitTest::NEVER, global: BitTest::NEVER },
    levels: &[],
};
static EMPTY: Architecture = TOY_BASE;

#[test]
fn architecture_without_sense_neither_panics_nor_hangs() {
    assert!(!NONSENSE.is_consistent() && !EMPTY.is_consistent());
    let memory = MachineBuilder::new(PagingMode::X86, 0x4000).unwrap().build().unwrap().memory;
    for arch in [&NONSENSE, &EMPTY] {
        let space = AddressSpace::new(arch, 0x1000);
        for addr in [0, 1, 0x1234_5678_9abc, u64::MAX] {
            assert!(space.translate(&*memory, VirtAddr::new(addr)).is_err());
            let mut ops = [super::super::TranslateOp::new(VirtAddr::new(addr)); 3];
            space.translate_batch(&*memory, &mut ops);
            assert!(ops.iter().all(|op| op.outcome.is_some_and(|outcome| outcome.is_err())));
        }
    }
}

//! Maps: runs, holes, budgets, calls.

use std::ops::ControlFlow;

use super::plan::called;
use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr, VirtRange},
    error::{Reason, StopCause},
    paging::{MapBudget, MappedRun, PageFlags},
    testkit::{MachineBuilder, PagingMode, ScriptedMemory, entry_bits::*},
};

const RWU: u64 = PRESENT | WRITABLE | USER;

fn virt(start: u64, len: u64) -> VirtRange {
    VirtRange::new(VirtAddr::new(start), len).unwrap()
}

#[test]
fn runs_join_over_tables_and_part_at_rights_pages_and_frames() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    let mut map = |at: u64, phys: u64, page, bits| {
        builder.map(VirtAddr::new(at), PhysAddr::new(phys), page, bits).unwrap();
    };
    // Over the edge of a page table.
    map(0x1f_e000, 0x1000_0000, PageSize::KIB_4, RWU);
    map(0x1f_f000, 0x1000_1000, PageSize::KIB_4, RWU);
    map(0x20_0000, 0x1000_2000, PageSize::KIB_4, RWU);
    // Other rights, then another frame.
    map(0x20_1000, 0x1000_3000, PageSize::KIB_4, PRESENT | USER);
    map(0x20_2000, 0x3000_0000, PageSize::KIB_4, PRESENT | USER);
    // Large pages, the last of the lower half and the first of the upper: neighbours in number only.
    map(0x40_0000, 0x4000_0000, PageSize::MIB_2, RWU);
    map(0x60_0000, 0x4020_0000, PageSize::MIB_2, RWU);
    map(0xffff_ffff_c000_0000, 0x8000_0000, PageSize::GIB_1, RWU | NO_EXECUTE);
    let machine = builder.build().unwrap();
    let mut runs = Vec::new();
    let summary = machine
        .space
        .map(&*machine.memory, None, MapBudget::default(), &mut |run| {
            runs.push(run);
            ControlFlow::Continue(())
        })
        .unwrap();
    let rw = PageFlags::WRITABLE | PageFlags::USER;
    let run =
        |start, len, phys, page, flags| MappedRun { virt: virt(start, len), phys: PhysAddr::new(phys), page, flags };
    assert_eq!(
        runs,
        [
            run(0x1f_e000, 0x3000, 0x1000_0000, PageSize::KIB_4, rw),
            run(0x20_1000, 0x1000, 0x1000_3000, PageSize::KIB_4, PageFlags::USER),
            run(0x20_2000, 0x1000, 0x3000_0000, PageSize::KIB_4, PageFlags::USER),
            run(0x40_0000, 0x40_0000, 0x4000_0000, PageSize::MIB_2, rw),
            run(0xffff_ffff_c000_0000, 1 << 30, 0x8000_0000, PageSize::GIB_1, rw | PageFlags::NO_EXECUTE),
        ]
    );
    assert_eq!((summary.runs, summary.is_complete()), (5, true));
}

#[test]
fn unreadable_tables_are_holes_and_not_silence() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    let low = builder.map(VirtAddr::new(0x1000), PhysAddr::new(0x5000), PageSize::KIB_4, RWU).unwrap();
    builder.map(VirtAddr::new(0x4000_0000), PhysAddr::new(0x6000), PageSize::KIB_4, RWU).unwrap();
    let table = low.entries[3].table;
    builder.remove_memory(PhysRange::new(table, 0x1000).unwrap());
    let machine = builder.build().unwrap();
    let map = |range| {
        let mut runs = 0;
        let summary = machine.space.map(&*machine.memory, range, MapBudget::default(), &mut |_| {
            runs += 1;
            ControlFlow::Continue(())
        });
        (runs, summary.unwrap())
    };
    let (runs, summary) = map(None);
    assert_eq!(runs, 1);
    let [hole] = summary.holes[..] else { panic!("{summary:?}") };
    assert_eq!(hole.range, virt(0, 0x20_0000));
    assert!(matches!(hole.reason, Reason::NotMapped(stop)
        if stop.table == table && stop.level == 1 && stop.cause == StopCause::TableNotInImage));
    // The same for the way back, and a range that does not touch it has no hole.
    let back = machine.space.phys_to_virt(&*machine.memory, PhysAddr::new(0x6abc), MapBudget::default()).unwrap();
    assert_eq!((back.addresses, back.holes), (vec![VirtAddr::new(0x4000_0abc)], summary.holes.clone()));
    assert!(map(Some(virt(0x20_0000, 0x1000_0000_0000))).1.is_complete());
}

#[test]
fn unreadable_root_is_a_hole_of_both_halves() {
    let machine = MachineBuilder::new(PagingMode::X64, 0x4000).unwrap().build().unwrap();
    let space = crate::paging::AddressSpace::new(machine.space.architecture(), 0x10_0000);
    let summary = space.map(&*machine.memory, None, MapBudget::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    let ranges: Vec<_> = summary.holes.iter().map(|hole| hole.range).collect();
    assert_eq!(ranges, [virt(0, 1 << 47), virt(0xffff_8000_0000_0000, 1 << 47)]);
}

#[test]
fn table_that_fails_in_part_is_read_entry_by_entry() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    let mut pages = Vec::new();
    for number in [0, 100, 101, 511] {
        pages.push(builder.map(VirtAddr::new(number << 12), PhysAddr::new(0x5000), PageSize::KIB_4, RWU).unwrap());
    }
    let machine = builder.build().unwrap();
    let memory = ScriptedMemory::new(machine.memory.clone())
        .with_failing_addresses(PhysRange::new(pages[1].entries[3].at, 16).unwrap());
    let mut found = Vec::new();
    let summary = machine
        .space
        .map(&memory, None, MapBudget::default(), &mut |run| {
            found.push(run.virt);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found, [virt(0, 0x1000), virt(511 << 12, 0x1000)]);
    assert_eq!(summary.holes.iter().map(|hole| hole.range).collect::<Vec<_>>(), [virt(100 << 12, 0x2000)]);
}

#[test]
fn caller_can_break_off() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    for number in 0..10 {
        builder.map(VirtAddr::new(number << 13), PhysAddr::new(0x5000), PageSize::KIB_4, RWU).unwrap();
    }
    let machine = builder.build().unwrap();
    let mut seen = 0;
    let summary = machine
        .space
        .map(&*machine.memory, None, MapBudget::default(), &mut |_| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((seen, summary.runs), (3, 3));
}

#[test]
fn map_asks_a_device_for_many_tables_at_a_time() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 4 << 20).unwrap();
    for table in 0..600 {
        builder.map(VirtAddr::new(table << 21), PhysAddr::new(0x5000), PageSize::KIB_4, RWU).unwrap();
    }
    let machine = builder.build().unwrap();
    let memory = called(&machine);
    let summary = machine.space.map(&memory, None, MapBudget::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(summary.tables, 1 + 1 + 2 + 600);
    // Root, one table below, two directories at once, then 512 and 88 page tables in chunks of 256.
    assert_eq!(memory.call_count(), 1 + 1 + 1 + 2 + 1);
}

#[test]
fn empty_range_and_range_between_the_halves_map_nothing() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    builder.map(VirtAddr::new(0), PhysAddr::new(0x5000), PageSize::KIB_4, RWU).unwrap();
    let machine = builder.build().unwrap();
    for range in [virt(0, 0), virt(0x0000_8000_0000_0000, 0x1000), virt(0x1000, 0x1000)] {
        let summary =
            machine.space.map(&*machine.memory, Some(range), MapBudget::default(), &mut |_| panic!("{range}")).unwrap();
        assert_eq!(summary.runs, 0);
    }
    let part = machine.space.map(&*machine.memory, Some(virt(0x123, 5)), MapBudget::default(), &mut |run| {
        assert_eq!((run.virt, run.phys), (virt(0x123, 5), PhysAddr::new(0x5123)));
        ControlFlow::Continue(())
    });
    assert_eq!(part.unwrap().runs, 1);
}

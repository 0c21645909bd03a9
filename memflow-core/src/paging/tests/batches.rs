//! Batches through memory that has to be called: how many calls, how many operations, and what failures do.

use std::sync::Arc;

use super::plan::{Random, called};
use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr},
    error::{Reason, StopCause},
    memory::BufferMemory,
    paging::{TranslateOp, Translation},
    testkit::{Machine, MachineBuilder, PagingMode, ScriptedMemory, entry_bits::*, oracle},
};

const RWU: u64 = PRESENT | WRITABLE | USER;

fn ops(addresses: impl IntoIterator<Item = u64>) -> Vec<TranslateOp> {
    addresses.into_iter().map(|addr| TranslateOp::new(VirtAddr::new(addr))).collect()
}

fn phys(op: &TranslateOp) -> u64 {
    op.outcome.unwrap().unwrap().phys.as_u64()
}

#[test]
fn alias_in_batch_keeps_both() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    let frame = PhysAddr::new(0x19000);
    // Equal leaf entries, in one table and in two.
    let aliases = [0xffff_88d7_59ff_e000, 0xffff_ffff_a97f_e000, 0xffff_ffff_a97f_f000];
    for virt in aliases {
        builder.map(VirtAddr::new(virt), frame, PageSize::KIB_4, RWU).unwrap();
    }
    let machine = builder.build().unwrap();
    let memory = called(&machine);
    let mut batch = ops(aliases);
    machine.space.translate_batch(&memory, &mut batch);
    assert!(batch.iter().all(|op| phys(op) == 0x19000));
    machine.space.translate_batch(&*machine.memory, &mut batch);
    assert!(batch.iter().all(|op| phys(op) == 0x19000));
}

#[test]
fn user_and_kernel_addresses_together_cost_no_more_calls() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    for virt in [0x20_0000, 0x7ff6_0000_0000, 0xffff_8000_0000_0000, 0xffff_ffff_8000_0000] {
        builder.map(VirtAddr::new(virt), PhysAddr::new(0x5000), PageSize::KIB_4, RWU).unwrap();
    }
    let machine = builder.build().unwrap();
    let memory = called(&machine);
    let mut batch = ops([0xffff_ffff_8000_0001, 0x20_0002, 0xffff_8000_0000_0003, 0x7ff6_0000_0004, 0x20_0002]);
    machine.space.translate_batch(&memory, &mut batch);
    assert_eq!(batch.iter().map(phys).collect::<Vec<_>>(), [0x5001, 0x5002, 0x5003, 0x5004, 0x5002]);
    let log = memory.take_log();
    assert_eq!(log.len(), 4);
    // Four distinct entries at each level; entries 255 and 256 of the root are neighbours and share a read.
    assert_eq!(log.iter().map(|call| call.ops).collect::<Vec<_>>(), [3, 4, 4, 4]);
}

#[test]
fn duplicates_and_neighbours_share_reads() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    for number in 0..512 {
        builder.map(VirtAddr::new(number << 12), PhysAddr::new(number << 12), PageSize::KIB_4, RWU).unwrap();
    }
    let machine = builder.build().unwrap();
    let memory = called(&machine);
    let mut batch = ops((0..2048).map(|number| (number * 37 % 512) << 12 | number));
    machine.space.translate_batch(&memory, &mut batch);
    assert!(batch.iter().all(|op| phys(op) == op.addr.as_u64()));
    let log = memory.take_log();
    assert_eq!(log.iter().map(|call| (call.ops, call.bytes)).collect::<Vec<_>>(), [(1, 8), (1, 8), (1, 8), (1, 4096)]);
}

#[test]
fn many_entries_here_and_there_in_a_table_are_one_read_and_few_are_not() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    for number in 0..512 {
        builder.map(VirtAddr::new(number << 12), PhysAddr::new(number << 12), PageSize::KIB_4, RWU).unwrap();
    }
    let machine = builder.build().unwrap();
    let memory = called(&machine);
    for (every, reads) in [(24, (1, 21 * 24 * 8 + 8)), (36, (15, 15 * 8))] {
        let mut batch = ops((0..512).step_by(every).map(|number| number << 12 | 5));
        machine.space.translate_batch(&memory, &mut batch);
        assert!(batch.iter().all(|op| phys(op) == op.addr.as_u64()));
        assert_eq!(memory.take_log().last().map(|call| (call.ops, call.bytes)), Some(reads));
    }
}

#[test]
fn empty_batch_and_one_without_canonical_addresses_make_no_call() {
    let machine = MachineBuilder::new(PagingMode::X64, 0x4000).unwrap().build().unwrap();
    let memory = called(&machine);
    machine.space.translate_batch(&memory, &mut []);
    let mut batch = ops([0x0000_8000_0000_0000, 0xffff_0000_0000_0000]);
    machine.space.translate_batch(&memory, &mut batch);
    assert!(batch.iter().all(|op| op.outcome.unwrap().is_err()));
    assert_eq!(memory.call_count(), 0);
}

/// Ten thousand pages in both halves, and large ones.
fn big_machine(mode: PagingMode) -> Machine {
    let mut builder = MachineBuilder::new(mode, 2 << 20).unwrap();
    let mut random = Random(7);
    for top in [0x0000_0000_0040_0000, 0x0000_7f00_0000_0000, 0xffff_8880_0000_0000, 0xffff_ffff_8000_0000] {
        for table in 0..16 {
            let virt = VirtAddr::new(top + (table << 21));
            let page = builder.map(virt, PhysAddr::new(0), PageSize::KIB_4, RWU).unwrap();
            let mut entries = Vec::new();
            for _ in 0..512 {
                let frame = random.below(1 << 20) << 12;
                let absent = random.below(8) == 0;
                entries.extend_from_slice(&(if absent { frame } else { frame | RWU }).to_le_bytes());
            }
            builder.write(page.entries.last().unwrap().table, &entries).unwrap();
        }
        let large = VirtAddr::new(top + (1 << 30));
        builder.map(large, PhysAddr::new(0x1_0000_0000), PageSize::MIB_2, RWU | GLOBAL).unwrap();
    }
    builder.build().unwrap()
}

fn random_addresses(count: usize) -> Vec<u64> {
    let mut random = Random(11);
    let tops = [0x0000_0000_0040_0000, 0x0000_7f00_0000_0000, 0xffff_8880_0000_0000, 0xffff_ffff_8000_0000];
    (0..count)
        .map(|_| {
            let top: u64 = tops[random.below(4) as usize];
            match random.below(16) {
                0 => top + (1 << 30) + random.below(1 << 21),
                1 => random.next(),
                _ => top + random.below(34 << 20),
            }
        })
        .collect()
}

#[test]
fn a_million_addresses_take_one_call_per_level_and_equal_single_walks() {
    for mode in [PagingMode::X64, PagingMode::La57] {
        let machine = big_machine(mode);
        let memory = called(&machine);
        let addresses = random_addresses(if mode == PagingMode::X64 { 1_000_000 } else { 100_000 });
        let mut through_calls = ops(addresses.iter().copied());
        machine.space.translate_batch(&memory, &mut through_calls);
        assert_eq!(memory.call_count(), machine.space.architecture().levels.len());
        let mut in_place = ops(addresses.iter().copied());
        machine.space.translate_batch(&*machine.memory, &mut in_place);
        assert!(in_place == through_calls);
        for op in &in_place {
            assert_eq!(op.outcome, Some(machine.space.translate(&*machine.memory, op.addr)));
        }
        for op in in_place.iter().step_by(499) {
            assert_eq!(op.outcome, Some(oracle::translate(&*machine.memory, mode, machine.root, op.addr)));
        }
    }
}

#[test]
fn a_call_that_fails_stops_its_level_and_leaves_no_address_unanswered() {
    let machine = big_machine(PagingMode::X64);
    for silent in [false, true] {
        for nth in 0..4 {
            let memory = ScriptedMemory::new(machine.memory.clone());
            let memory = if silent { memory.with_silent_call(nth) } else { memory.with_failing_call(nth) };
            let mut batch = ops(random_addresses(500));
            machine.space.translate_batch(&memory, &mut batch);
            for op in &batch {
                let alone = machine.space.translate(&*machine.memory, op.addr);
                let failed_level = 4 - nth as u8;
                let level = match alone {
                    Ok(found) => found.level,
                    Err(Reason::NotMapped(stop)) if stop.level > 0 => stop.level,
                    Err(_) => u8::MAX,
                };
                match op.outcome.unwrap() {
                    // A shared read that failed was asked for once more, in a call that works.
                    outcome if outcome == alone => {}
                    Err(Reason::NotMapped(stop)) => {
                        assert!(level <= failed_level);
                        assert_eq!((stop.level, stop.cause), (failed_level, StopCause::TableUnreadable));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn entries_beside_an_unreadable_one_are_still_read() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    let mut pages = Vec::new();
    for number in 0..64 {
        pages
            .push(builder.map(VirtAddr::new(number << 12), PhysAddr::new(number << 12), PageSize::KIB_4, RWU).unwrap());
    }
    let machine = builder.build().unwrap();
    let broken = pages[20].entries[3];
    let memory = ScriptedMemory::new(machine.memory.clone())
        .with_failing_addresses(PhysRange::new(broken.at, 8).unwrap())
        .with_failing_addresses(PhysRange::new(pages[40].entries[3].at, 1).unwrap());
    let mut batch = ops((0..64).map(|number| number << 12));
    machine.space.translate_batch(&memory, &mut batch);
    for (number, op) in batch.iter().enumerate() {
        match op.outcome.unwrap() {
            Ok(Translation { phys, .. }) => assert_eq!(phys.as_u64(), (number as u64) << 12),
            Err(Reason::NotMapped(stop)) => {
                assert!(number == 20 || number == 40, "{number}");
                assert_eq!((stop.table, stop.cause), (broken.table, StopCause::TableUnreadable));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(batch[20].outcome.unwrap().is_err() && batch[40].outcome.unwrap().is_err());
}

#[test]
fn table_cut_by_the_end_of_memory_is_read_as_far_as_it_goes_without_further_calls() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    let mut table = PhysAddr::new(0);
    for number in 0..64 {
        let page = builder.map(VirtAddr::new(number << 12), PhysAddr::new(number << 12), PageSize::KIB_4, RWU).unwrap();
        table = page.entries[3].table;
    }
    builder.remove_memory(PhysRange::new(table.wrapping_add(10 * 8), 20 * 8).unwrap());
    let machine = builder.build().unwrap();
    let memory: ScriptedMemory<Arc<BufferMemory>> = called(&machine);
    let mut batch = ops((0..64).map(|number| number << 12));
    machine.space.translate_batch(&memory, &mut batch);
    for (number, op) in batch.iter().enumerate() {
        assert_eq!(op.outcome.unwrap().is_ok(), !(10..30).contains(&number), "{number}");
        assert_eq!(op.outcome, Some(machine.space.translate(&*machine.memory, op.addr)));
    }
    assert_eq!(memory.call_count(), 4);
}

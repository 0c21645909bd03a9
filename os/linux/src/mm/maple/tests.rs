#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use super::*;
use crate::testing::{Memory, Of, types};

/// The layout of a 64-bit kernel: include/linux/maple_tree.h with 8-byte words.
fn layout() -> MapleLayout {
    let types = types(&[
        ("maple_metadata", 2, &[("end", 0, Of::Bytes(1)), ("gap", 1, Of::Bytes(1))]),
        ("maple_range_64", 256, &[("pivot", 8, Of::Bytes(120)), ("slot", 128, Of::Bytes(128))]),
        (
            "maple_arange_64",
            256,
            &[
                ("pivot", 8, Of::Bytes(72)),
                ("slot", 80, Of::Bytes(80)),
                ("gap", 160, Of::Bytes(80)),
                ("meta", 240, Of::Struct("maple_metadata")),
            ],
        ),
        ("maple_node", 256, &[("parent", 0, Of::Bytes(8)), ("slot", 8, Of::Bytes(248))]),
    ]);
    MapleLayout::new(&types).unwrap()
}

/// A pointer to a node, as a slot of its parent holds it (`mt_mk_node`).
fn pointer(at: u64, kind: u64) -> u64 {
    at | kind << 3 | 4
}

/// A root pointer to a node (`mte_mk_root`).
fn root(at: u64, kind: u64) -> VirtAddr {
    VirtAddr::new(pointer(at, kind) & !4 | 2)
}

fn range_node(memory: &mut Memory, at: u64, pivots: &[u64], slots: &[u64], end: Option<u8>) {
    memory.zero(at, 256);
    for (index, pivot) in pivots.iter().enumerate() {
        memory.put_u64(at + 8 + index as u64 * 8, *pivot);
    }
    for (index, slot) in slots.iter().enumerate() {
        memory.put_u64(at + 128 + index as u64 * 8, *slot);
    }
    if let Some(end) = end {
        memory.put(at + 248, &[end]);
    }
}

fn gap_node(memory: &mut Memory, at: u64, pivots: &[u64], slots: &[u64], end: u8) {
    memory.zero(at, 256);
    for (index, pivot) in pivots.iter().enumerate() {
        memory.put_u64(at + 8 + index as u64 * 8, *pivot);
    }
    for (index, slot) in slots.iter().enumerate() {
        memory.put_u64(at + 80 + index as u64 * 8, *slot);
    }
    memory.put(at + 240, &[end]);
}

fn ranges(found: &Listing<MapleEntry>) -> Vec<(u64, u64, u64)> {
    found.items.iter().map(|entry| (entry.first, entry.last, entry.value.as_u64())).collect()
}

#[test]
fn empty_tree_has_no_entries() {
    let found = entries(&Memory::default(), &layout(), VirtAddr::new(0));
    assert!(found.items.is_empty() && found.is_complete());
}

#[test]
fn single_entry_needs_no_node() {
    let found = entries(&Memory::default(), &layout(), VirtAddr::new(0xffff_8880_0000_1000));
    assert_eq!(ranges(&found), [(0, 0, 0xffff_8880_0000_1000)]);
}

#[test]
fn leaf_gives_ranges_and_leaves_gaps_out() {
    let mut memory = Memory::default();
    range_node(&mut memory, 0x1000, &[0xfff, 0x1fff, 0x4fff], &[0, 0xa000, 0xb000, 0], Some(3));
    let found = entries(&memory, &layout(), root(0x1000, LEAF_64));
    assert_eq!(ranges(&found), [(0x1000, 0x1fff, 0xa000), (0x2000, 0x4fff, 0xb000)]);
    assert!(found.is_complete());
}

#[test]
fn full_leaf_has_its_last_entry_where_the_end_would_be() {
    // Fifteen pivots in use, the last below the maximum: the sixteenth slot goes on to the maximum.
    let pivots: Vec<u64> = (1..=15).map(|i| i * 0x10 - 1).collect();
    let slots: Vec<u64> = (1..=16).map(|i| 0xa000 + i * 0x100).collect();
    let mut memory = Memory::default();
    range_node(&mut memory, 0x1000, &pivots, &slots, None);
    let found = entries(&memory, &layout(), root(0x1000, LEAF_64));
    assert_eq!(found.items.len(), 16);
    assert_eq!(ranges(&found)[15], (0xf0, u64::MAX, 0xb000));
    // The last pivot is the maximum: the sixteenth slot holds no entry, whatever its bytes are.
    let mut pivots = pivots;
    pivots[14] = u64::MAX;
    range_node(&mut memory, 0x1000, &pivots, &slots, None);
    let found = entries(&memory, &layout(), root(0x1000, LEAF_64));
    assert_eq!(found.items.len(), 15);
    assert_eq!(ranges(&found)[14], (0xe0, u64::MAX, 0xaf00));
}

#[test]
fn inner_nodes_of_both_kinds_lead_to_leaves_in_one_batch_per_level() {
    let mut memory = Memory::default();
    gap_node(&mut memory, 0x1000, &[0xffff], &[pointer(0x2000, RANGE_64), pointer(0x3000, LEAF_64)], 1);
    range_node(&mut memory, 0x2000, &[0x7fff], &[pointer(0x4000, LEAF_64), pointer(0x5000, LEAF_64)], Some(1));
    range_node(&mut memory, 0x3000, &[0x1_ffff], &[0xc000, 0], Some(1));
    range_node(&mut memory, 0x4000, &[], &[0xa000], Some(0));
    range_node(&mut memory, 0x5000, &[0x8fff], &[0, 0xb000], Some(1));
    let found = entries(&memory, &layout(), root(0x1000, ARANGE_64));
    assert_eq!(ranges(&found), [(0, 0x7fff, 0xa000), (0x9000, 0xffff, 0xb000), (0x1_0000, 0x1_ffff, 0xc000)]);
    assert!(found.is_complete(), "{:?}", found.problems);
    assert_eq!(memory.calls(), 3);
}

#[test]
fn dense_leaf_has_one_index_per_slot() {
    let mut memory = Memory::default();
    memory.zero(0x1000, 256).put_u64(0x1008, 0xa000).put_u64(0x1018, 0xb000);
    let found = entries(&memory, &layout(), root(0x1000, DENSE));
    assert_eq!(ranges(&found), [(0, 0, 0xa000), (2, 2, 0xb000)]);
}

#[test]
fn marks_of_the_tree_are_no_entries() {
    let mut memory = Memory::default();
    // XA_ZERO_ENTRY is 0x406 (257 << 2 | 2).
    range_node(&mut memory, 0x1000, &[0xfff], &[0x406, 0xa000], Some(1));
    let found = entries(&memory, &layout(), root(0x1000, LEAF_64));
    assert_eq!(ranges(&found), [(0x1000, u64::MAX, 0xa000)]);
}

#[test]
fn node_that_contains_itself_is_a_cycle_and_its_neighbour_is_read() {
    let mut memory = Memory::default();
    range_node(&mut memory, 0x1000, &[0xffff], &[pointer(0x1000, RANGE_64), pointer(0x2000, LEAF_64)], Some(1));
    range_node(&mut memory, 0x2000, &[], &[0xa000], Some(0));
    let found = entries(&memory, &layout(), root(0x1000, RANGE_64));
    assert_eq!(ranges(&found), [(0x1_0000, u64::MAX, 0xa000)]);
    assert!(matches!(found.problems[..], [Error::Cycle { .. }]), "{:?}", found.problems);
}

#[test]
fn pivots_that_descend_or_leave_the_node_are_corrupt() {
    for pivots in [[0x2fff, 0x1fff], [0xfff, u64::MAX]] {
        let mut memory = Memory::default();
        range_node(&mut memory, 0x1000, &[0xffff], &[pointer(0x2000, LEAF_64), pointer(0x3000, LEAF_64)], Some(1));
        range_node(&mut memory, 0x2000, &pivots, &[0xa000, 0xb000, 0xc000], Some(2));
        range_node(&mut memory, 0x3000, &[], &[0xd000], Some(0));
        let found = entries(&memory, &layout(), root(0x1000, RANGE_64));
        assert!(matches!(found.problems[..], [Error::Corrupt { .. }]), "{:?}", found.problems);
        assert!(found.items.iter().any(|entry| entry.value == VirtAddr::new(0xd000)));
    }
}

#[test]
fn impossible_end_type_and_missing_child_are_corrupt() {
    let mut memory = Memory::default();
    gap_node(&mut memory, 0x1000, &[], &[pointer(0x2000, LEAF_64)], 200);
    range_node(&mut memory, 0x2000, &[0xfff], &[0xa000, 0xb000], Some(99));
    range_node(&mut memory, 0x3000, &[0xfff], &[0, pointer(0x2000, LEAF_64)], Some(1));
    for root in [root(0x1000, ARANGE_64), root(0x2000, LEAF_64), root(0x3000, RANGE_64), root(0x2000, 9)] {
        let found = entries(&memory, &layout(), root);
        assert!(matches!(found.problems[..], [Error::Corrupt { .. }]), "{root}: {:?}", found.problems);
    }
}

#[test]
fn tree_without_end_stops_at_the_greatest_height() {
    let mut memory = Memory::default();
    for level in 0..40 {
        let at = 0x1_0000 + level * 0x100;
        range_node(&mut memory, at, &[], &[pointer(at + 0x100, RANGE_64)], Some(0));
    }
    let found = entries(&memory, &layout(), root(0x1_0000, RANGE_64));
    assert!(found.items.is_empty());
    assert!(matches!(found.problems[..], [Error::Limit { limit: 31, .. }]), "{:?}", found.problems);
}

#[test]
fn node_that_cannot_be_read_is_a_problem() {
    let found = entries(&Memory::default(), &layout(), root(0x1000, LEAF_64));
    assert!(found.items.is_empty());
    assert_eq!(found.problems.len(), 1);
}

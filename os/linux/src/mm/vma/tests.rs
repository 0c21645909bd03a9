#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use super::*;
use crate::testing::{Memory, Of, Structure, types};

const VMA: Structure = (
    "vm_area_struct",
    0x80,
    &[
        ("vm_start", 0, Of::Bytes(8)),
        ("vm_end", 8, Of::Bytes(8)),
        ("vm_next", 16, Of::Bytes(8)),
        ("shared", 24, Of::Bytes(32)),
        ("vm_flags", 56, Of::Bytes(8)),
        ("vm_pgoff", 64, Of::Bytes(8)),
        ("vm_file", 72, Of::Bytes(8)),
        ("vm_ops", 80, Of::Bytes(8)),
        ("vm_private_data", 88, Of::Bytes(8)),
        ("anon_name", 24, Of::Bytes(8)),
    ],
);

/// The layout of a kernel before Linux 6.1.
fn layout() -> VmaLayout {
    VmaLayout::new(&types(&[
        ("mm_struct", 0x100, &[("mmap", 0, Of::Bytes(8))]),
        ("anon_vma_name", 4, &[("name", 4, Of::Bytes(1))]),
        VMA,
    ]))
    .unwrap()
}

fn put(memory: &mut Memory, at: u64, start: u64, end: u64, next: u64) {
    memory.zero(at, 0x80).put_u64(at, start).put_u64(at + 8, end).put_u64(at + 16, next).put_u64(at + 64, 3);
}

fn starts(found: &Listing<Vma>) -> Vec<u64> {
    found.items.iter().map(|vma| vma.range.start().as_u64()).collect()
}

#[test]
fn list_is_walked_to_its_end() {
    let mut memory = Memory::default();
    put(&mut memory, 0x1000, 0x40_0000, 0x40_1000, 0x2000);
    put(&mut memory, 0x2000, 0x50_0000, 0x50_3000, 0);
    let found = all(&memory, &layout(), VirtAddr::new(0x1000));
    assert_eq!(starts(&found), [0x40_0000, 0x50_0000]);
    assert_eq!(found.items[1].range.len(), 0x3000);
    assert_eq!(found.items[1].offset, 0x3000);
    assert!(found.is_complete());
    assert!(all(&memory, &layout(), VirtAddr::new(0)).items.is_empty());
}

#[test]
fn list_that_loops_ends_where_it_stops_ascending() {
    let mut memory = Memory::default();
    put(&mut memory, 0x1000, 0x40_0000, 0x40_1000, 0x2000);
    put(&mut memory, 0x2000, 0x50_0000, 0x50_3000, 0x1000);
    let found = all(&memory, &layout(), VirtAddr::new(0x1000));
    assert_eq!(starts(&found), [0x40_0000, 0x50_0000]);
    assert!(matches!(found.problems[..], [Error::Cycle { entries: 2, .. }]), "{:?}", found.problems);
}

#[test]
fn link_to_garbage_is_a_problem_and_what_came_before_stands() {
    let mut memory = Memory::default();
    put(&mut memory, 0x1000, 0x40_0000, 0x40_1000, 0xdead_0000);
    let found = all(&memory, &layout(), VirtAddr::new(0x1000));
    assert_eq!(starts(&found), [0x40_0000]);
    assert_eq!(found.problems.len(), 1);
}

#[test]
fn region_that_ends_before_it_starts_is_corrupt() {
    for end in [0x40_0000, 0x3f_f000, 0] {
        let mut memory = Memory::default();
        put(&mut memory, 0x1000, 0x40_0000, end, 0);
        let found = all(&memory, &layout(), VirtAddr::new(0x1000));
        assert!(found.items.is_empty());
        assert!(matches!(found.problems[..], [Error::Corrupt { .. }]), "{:?}", found.problems);
    }
}

#[test]
fn name_shares_its_place_with_the_tree_of_file_mappings() {
    // Linux 5.17 to 6.1: with a file, the bytes are a tree node.
    let mut memory = Memory::default();
    put(&mut memory, 0x1000, 0x40_0000, 0x40_1000, 0);
    memory.put_u64(0x1018, 0xabc0);
    let layout = layout();
    assert_eq!(Vma::read(&memory, &layout, VirtAddr::new(0x1000)).unwrap().anon_name, VirtAddr::new(0xabc0));
    memory.put_u64(0x1048, 0xf11e);
    assert!(Vma::read(&memory, &layout, VirtAddr::new(0x1000)).unwrap().anon_name.is_null());
}

#[test]
fn missing_field_is_named() {
    let error = VmaLayout::new(&types(&[("mm_struct", 8, &[]), VMA])).unwrap_err();
    assert_eq!(error.to_string(), "no field mm_struct.mmap in this target");
    let error = VmaLayout::new(&types(&[("mm_struct", 8, &[("mmap", 0, Of::Bytes(8))])])).unwrap_err();
    assert_eq!(error.to_string(), "no type vm_area_struct in this target");
}

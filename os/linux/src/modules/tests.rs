#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use super::*;
use crate::testing::{Memory, Of, Structure, types};

const HEAD: u64 = 0x9000;
const USE: Structure = ("module_use", 0x40, &[("source_list", 0, Of::Bytes(16)), ("source", 0x20, Of::Bytes(8))]);

/// Linux 6.4 and later: memory by kind, here three kinds.
fn by_kind() -> ModuleLayout {
    ModuleLayout::new(&types(&[
        ("module_memory", 0x20, &[("base", 0, Of::Bytes(8)), ("size", 8, Of::Bytes(4))]),
        USE,
        (
            "module",
            0x200,
            &[
                ("state", 0, Of::Bytes(4)),
                ("list", 8, Of::Bytes(16)),
                ("name", 0x18, Of::Bytes(56)),
                ("mem", 0x80, Of::Array("module_memory", 3)),
                ("source_list", 0x100, Of::Bytes(16)),
            ],
        ),
    ]))
    .unwrap()
}

/// Linux 4.5 to 6.3: what stays and what is dropped after the start.
fn by_layout() -> ModuleLayout {
    ModuleLayout::new(&types(&[
        ("module_layout", 0x20, &[("base", 0, Of::Bytes(8)), ("size", 8, Of::Bytes(4))]),
        (
            "module",
            0x200,
            &[
                ("state", 0, Of::Bytes(4)),
                ("list", 8, Of::Bytes(16)),
                ("name", 0x18, Of::Bytes(56)),
                ("core_layout", 0x80, Of::Struct("module_layout")),
                ("init_layout", 0xa0, Of::Struct("module_layout")),
            ],
        ),
    ]))
    .unwrap()
}

fn module(memory: &mut Memory, at: u64, name: &str, state: u32, parts: &[(u64, u32)]) {
    memory.zero(at, 0x200).put_u32(at, state).put(at + 0x18, name.as_bytes());
    for (index, (base, size)) in parts.iter().enumerate() {
        let part = at + 0x80 + index as u64 * 0x20;
        memory.put_u64(part, *base).put_u32(part + 8, *size);
    }
    memory.ring(&[at + 0x100]);
}

#[test]
fn size_is_the_sum_of_all_parts_and_base_is_the_text() {
    for layout in [by_kind(), by_layout()] {
        let mut memory = Memory::default();
        module(&mut memory, 0x1000, "loop", 0, &[(0xc000_0000, 0x3000), (0xc010_0000, 0x1000)]);
        memory.ring(&[HEAD, 0x1008]);
        let found = modules(&memory, &layout, VirtAddr::new(HEAD));
        assert!(found.is_complete(), "{:?}", found.problems);
        let [module] = &found.items[..] else { panic!("{:?}", found.items) };
        assert_eq!((module.info.name.as_str(), module.info.size), ("loop", 0x4000));
        assert_eq!(module.info.base, VirtAddr::new(0xc000_0000));
        assert_eq!(module.info.state.as_deref(), Some("Live"));
        assert!(module.contains(VirtAddr::new(0xc010_0fff)) && !module.contains(VirtAddr::new(0xc010_1000)));
    }
}

#[test]
fn users_are_named_in_the_order_of_their_list() {
    let mut memory = Memory::default();
    module(&mut memory, 0x1000, "core", 0, &[(0xc000_0000, 0x1000)]);
    module(&mut memory, 0x2000, "first", 1, &[(0xc001_0000, 0x1000)]);
    module(&mut memory, 0x3000, "second", 2, &[(0xc002_0000, 0x1000)]);
    memory.ring(&[HEAD, 0x3008, 0x2008, 0x1008]).ring(&[0x1100, 0x5000, 0x6000]);
    memory.zero(0x5010, 0x30).put_u64(0x5020, 0x2000).zero(0x6010, 0x30).put_u64(0x6020, 0x3000);
    let found = modules(&memory, &by_kind(), VirtAddr::new(HEAD));
    assert!(found.is_complete(), "{:?}", found.problems);
    let names: Vec<&str> = found.items.iter().map(|module| module.info.name.as_str()).collect();
    assert_eq!(names, ["second", "first", "core"]);
    assert_eq!(found.items[2].info.used_by, ["first", "second"]);
    assert!(found.items[0].info.used_by.is_empty());
    assert_eq!(found.items[0].info.state.as_deref(), Some("Unloading"));
    assert_eq!(found.items[1].info.state.as_deref(), Some("Loading"));
}

#[test]
fn module_that_is_still_put_together_is_not_shown() {
    let mut memory = Memory::default();
    module(&mut memory, 0x1000, "half", 3, &[]);
    memory.ring(&[HEAD, 0x1008]);
    let found = modules(&memory, &by_kind(), VirtAddr::new(HEAD));
    assert!(found.items.is_empty() && found.is_complete());
}

#[test]
fn list_that_loops_keeps_what_it_has() {
    let mut memory = Memory::default();
    module(&mut memory, 0x1000, "one", 0, &[(0xc000_0000, 0x1000)]);
    module(&mut memory, 0x2000, "two", 0, &[(0xc001_0000, 0x1000)]);
    memory.ring(&[HEAD, 0x1008, 0x2008]).put_u64(0x2008, 0x1008);
    let found = modules(&memory, &by_kind(), VirtAddr::new(HEAD));
    assert_eq!(found.items.len(), 2);
    assert!(matches!(found.problems[0], Error::Cycle { .. }), "{:?}", found.problems);
}

#[test]
fn part_that_leaves_the_address_space_is_a_problem() {
    let mut memory = Memory::default();
    module(&mut memory, 0x1000, "bad", 0, &[(u64::MAX - 0xfff, 0x2000)]);
    module(&mut memory, 0x2000, "good", 0, &[(0xc000_0000, 0x1000)]);
    memory.ring(&[HEAD, 0x1008, 0x2008]);
    let found = modules(&memory, &by_kind(), VirtAddr::new(HEAD));
    assert_eq!(found.items.len(), 1);
    assert!(matches!(found.problems[..], [Error::Range { .. }]), "{:?}", found.problems);
}

#[test]
fn kernel_without_either_layout_is_told() {
    let types = types(&[(
        "module",
        0x100,
        &[("state", 0, Of::Bytes(4)), ("list", 8, Of::Bytes(16)), ("name", 0x18, Of::Bytes(56))],
    )]);
    assert_eq!(ModuleLayout::new(&types).unwrap_err().to_string(), "no field module.mem in this target");
}

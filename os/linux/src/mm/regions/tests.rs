#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use super::*;
use crate::{
    testing::{Memory, Of, Structure, types},
    vfs::{DynamicNames, VfsLayout},
};

const SPECIAL: u64 = 0xf000_0001;
const MM: u64 = 0x9000;
const GATE: u64 = 0x8000;
const MODE: u64 = 0x8800;

/// The structures of a kernel before Linux 6.1, whose regions are a list; newer trees have tests of their own.
const STRUCTURES: &[Structure] = &[
    ("mm_context_t", 8, &[("flags", 0, Of::Bytes(2))]),
    (
        "mm_struct",
        0x100,
        &[
            ("mmap", 0, Of::Bytes(8)),
            ("exe_file", 0x40, Of::Bytes(8)),
            ("arg_start", 0x48, Of::Bytes(8)),
            ("arg_end", 0x50, Of::Bytes(8)),
            ("env_start", 0x58, Of::Bytes(8)),
            ("env_end", 0x60, Of::Bytes(8)),
            ("start_brk", 0x68, Of::Bytes(8)),
            ("brk", 0x70, Of::Bytes(8)),
            ("start_stack", 0x78, Of::Bytes(8)),
            ("context", 0x80, Of::Struct("mm_context_t")),
        ],
    ),
    (
        "vm_area_struct",
        0x80,
        &[
            ("vm_start", 0, Of::Bytes(8)),
            ("vm_end", 8, Of::Bytes(8)),
            ("vm_next", 16, Of::Bytes(8)),
            ("shared", 24, Of::Bytes(24)),
            ("anon_name", 48, Of::Bytes(8)),
            ("vm_flags", 56, Of::Bytes(8)),
            ("vm_pgoff", 64, Of::Bytes(8)),
            ("vm_file", 72, Of::Bytes(8)),
            ("vm_ops", 80, Of::Bytes(8)),
            ("vm_private_data", 88, Of::Bytes(8)),
        ],
    ),
    ("anon_vma_name", 4, &[("name", 4, Of::Bytes(1))]),
    ("vm_operations_struct", 0x80, &[("name", 0x58, Of::Bytes(8))]),
    ("vm_special_mapping", 0x20, &[("name", 0, Of::Bytes(8))]),
];

struct Case {
    memory: Memory,
    heap: HeapEdge,
    /// Whether the kernel's symbol table was found.
    symbols: bool,
    /// Address of the last region put, and of its predecessor's link.
    next: u64,
    link: u64,
}

impl Case {
    fn new() -> Self {
        let mut memory = Memory::default();
        memory.zero(MM, 0x100);
        memory.put_u64(MM + 0x68, 0x55_0000).put_u64(MM + 0x70, 0x57_0000).put_u64(MM + 0x78, 0x7ff0_0000);
        Self { memory, heap: HeapEdge::Overlaps, symbols: true, next: 0x1000, link: MM }
    }

    fn region(&mut self, start: u64, end: u64, flags: u64) -> u64 {
        let at = self.next;
        self.memory.zero(at, 0x80).put_u64(at, start).put_u64(at + 8, end).put_u64(at + 56, flags);
        self.memory.put_u64(self.link, at);
        (self.next, self.link) = (at + 0x100, at + 16);
        at
    }

    fn map(&self) -> Listing<MemoryRegion> {
        let all: Vec<Structure> = STRUCTURES.iter().chain(crate::vfs::tests::STRUCTURES).copied().collect();
        let types = types(&all);
        let layout = MmLayout::new(&types).unwrap();
        let vfs_layout = VfsLayout::new(&types).unwrap();
        let field = |structure, path| types.field(structure, path).unwrap();
        let (name_function, special_name) =
            (field("vm_operations_struct", "name"), field("vm_special_mapping", "name"));
        let sought = |address| if self.symbols { Sought::At(VirtAddr::new(address)) } else { Sought::Unknown };
        let sources = NameSources {
            operation: Span::of("vm_operations_struct", [name_function]).unwrap(),
            name_function,
            special: Span::of("vm_special_mapping", [special_name]).unwrap(),
            special_name,
            special_function: sought(SPECIAL),
            gate: sought(GATE),
            vsyscall_mode: Some(VirtAddr::new(MODE)),
            heap: self.heap,
        };
        let mm = Mm::read(&self.memory, &layout, VirtAddr::new(MM)).unwrap();
        let mut vfs = Vfs::new(&self.memory, &vfs_layout, DynamicNames::default());
        memory_map(&self.memory, &layout, &sources, &mut vfs, &mm, None)
    }

    /// What the regions are called; empty for anonymous memory.
    fn names(&self) -> Vec<String> {
        let map = self.map();
        assert!(map.is_complete(), "{:?}", map.problems);
        let name = |region: MemoryRegion| match region.kind {
            RegionKind::Special { name } => name,
            _ => String::new(),
        };
        map.items.into_iter().map(name).collect()
    }
}

#[test]
fn heap_and_stack_are_where_the_address_space_says() {
    let mut case = Case::new();
    case.region(0x40_0000, 0x41_0000, VM_READ);
    case.region(0x55_0000, 0x57_0000, VM_READ | VM_WRITE);
    case.region(0x60_0000, 0x61_0000, 0);
    case.region(0x7fef_0000, 0x7ff0_1000, VM_READ | VM_WRITE);
    assert_eq!(case.names(), ["", "[heap]", "", "[stack]"]);
}

#[test]
fn region_that_touches_the_heap_is_one_in_older_kernels_only() {
    let mut case = Case::new();
    case.region(0x54_0000, 0x55_0000, VM_READ | VM_WRITE);
    case.region(0x57_0000, 0x58_0000, VM_READ | VM_WRITE);
    assert_eq!(case.names(), ["", ""]);
    case.heap = HeapEdge::Touches;
    assert_eq!(case.names(), ["[heap]", "[heap]"]);
}

#[test]
fn name_from_the_kernel_comes_before_heap_and_stack() {
    let mut case = Case::new();
    let at = case.region(0x55_0000, 0x56_0000, VM_READ);
    case.memory.put_u64(at + 80, 0x6000).put_u64(at + 88, 0x6100).zero(0x6000, 0x80).put_u64(0x6058, SPECIAL);
    case.memory.zero(0x6100, 0x20).put_u64(0x6100, 0x6200).put(0x6200, b"[vvar]\0").zero(0x6207, 0x100);
    assert_eq!(case.names(), ["[vvar]"]);
    // Operations that name nothing, or in a way that is not known, leave the other rules.
    case.memory.put_u64(0x6058, 0);
    assert_eq!(case.names(), ["[heap]"]);
    case.memory.put_u64(0x6058, 0xf000_0099);
    assert_eq!(case.names(), ["[heap]"]);
}

#[test]
fn without_symbols_a_name_in_brackets_is_one_and_all_else_is_told() {
    let mut case = Case::new();
    case.symbols = false;
    let at = case.region(0x55_0000, 0x56_0000, VM_READ);
    case.memory.put_u64(at + 80, 0x6000).put_u64(at + 88, 0x6100).zero(0x6000, 0x80).put_u64(0x6058, SPECIAL);
    case.memory.zero(0x6100, 0x20).put_u64(0x6100, 0x6200).put(0x6200, b"[vvar]\0").zero(0x6207, 0x100);
    assert_eq!(case.names(), ["[vvar]"]);
    case.memory.put(0x6200, b"?");
    let map = case.map();
    assert!(map.items.is_empty());
    assert!(map.problems[0].to_string().contains("makes up is not supported: the kernel's symbol table was not found"));
    case.memory.put_u64(at + 88, 0xdead_0000);
    assert_eq!(case.map().problems.len(), 1);
    // A region without such a function needs no symbol; whether there is a vsyscall page cannot be told.
    case.memory.put_u64(0x6058, 0);
    assert_eq!(case.names(), ["[heap]"]);
    case.memory.put(MM + 0x80, &[2]);
    assert!(case.map().problems[0].to_string().starts_with("vsyscall page: the kernel's symbol table was not found"));
}

#[test]
fn name_from_the_process_comes_last() {
    let mut case = Case::new();
    for start in [0x55_0000, 0x70_0000] {
        let at = case.region(start, start + 0x1000, VM_READ);
        case.memory.put_u64(at + 48, 0x6000);
    }
    case.memory.zero(0x6000, 0x200).put(0x6004, b"arena");
    assert_eq!(case.names(), ["[heap]", "[anon:arena]"]);
}

#[test]
fn vsyscall_page_is_shown_to_those_who_have_it() {
    let mut case = Case::new();
    case.region(0x40_0000, 0x41_0000, VM_READ);
    case.memory.zero(GATE, 0x80).put_u64(GATE, 0xffff_ffff_ff60_0000).put_u64(GATE + 8, 0xffff_ffff_ff60_1000);
    case.memory.put_u64(GATE + 56, VM_EXEC).put_u32(MODE, 1);
    assert_eq!(case.names(), [""]);
    case.memory.put(MM + 0x80, &[2]);
    let map = case.map();
    assert_eq!(map.items.len(), 2);
    assert_eq!(map.items[1].permissions.to_string(), "--xp");
    assert_eq!(map.items[1].range.start(), VirtAddr::new(0xffff_ffff_ff60_0000));
    case.memory.put_u32(MODE, VSYSCALL_NONE);
    assert_eq!(case.names(), [""]);
}

#[test]
fn file_that_cannot_be_read_is_a_problem_that_names_the_region() {
    let mut case = Case::new();
    let at = case.region(0x40_0000, 0x41_0000, VM_READ);
    case.memory.put_u64(at + 72, 0xdead_0000);
    case.region(0x55_0000, 0x56_0000, VM_READ);
    let map = case.map();
    assert_eq!(map.items.len(), 1);
    assert!(map.problems[0].to_string().starts_with("region 0x400000-0x40ffff: "), "{}", map.problems[0]);
}

#[test]
fn heap_rule_follows_the_release() {
    assert_eq!(HeapEdge::of_release("6.1.0-18-amd64"), HeapEdge::Touches);
    assert_eq!(HeapEdge::of_release("5.10.0"), HeapEdge::Touches);
    assert_eq!(HeapEdge::of_release("6.12.9+bpo-amd64"), HeapEdge::Overlaps);
    assert_eq!(HeapEdge::of_release("7.2-rc1"), HeapEdge::Overlaps);
}

#[test]
fn sharing_is_what_a_region_may_do() {
    assert_eq!(permissions(VM_READ | VM_MAYSHARE).to_string(), "r--s");
    assert_eq!(permissions(VM_READ | VM_EXEC).to_string(), "r-xp");
}

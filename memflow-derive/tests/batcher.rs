//! Structures that are read in one batch: what the derived code reads, and from where.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use memflow_core::{
    MemoryViewExt as _, Pod, VirtAddr,
    memory::RunMap,
    testkit::{LockedMemory, ScriptedMemory},
    view::{Batch, Batcher as _, PhysicalView},
};
use memflow_derive::Batcher;

/// How far the numbers lie from each other.
const STEP: u64 = 0x100;

#[derive(Default, PartialEq, Debug, Clone, Batcher)]
struct Link {
    #[batch(offset = 0)]
    next: u64,
    #[batch(offset = STEP / 2)]
    back: u32,
}

#[derive(Batcher)]
struct Sparse<'s, T: Copy, const N: usize>
where
    T: Default,
{
    #[batch(offset = 0x10)]
    first: T,
    /// Documented, and with attributes of others.
    #[allow(dead_code)]
    #[doc(alias = "numbers")]
    #[cfg_attr(all(), batch(offset = STEP * 2))]
    array: [u16; N],
    #[batch(offset = 0x300, nested)]
    link: Link,
    #[batch(offset = 0x400, nested, stride = STEP)]
    links: Vec<Link>,
    label: &'s str,
}

#[derive(Batcher)]
struct Pair(#[batch(offset = 0x20)] u8, bool, #[batch(offset = 0x21)] u8);

/// Memory of which every byte is the number of its place, modulo 251.
fn memory() -> (Arc<ScriptedMemory<LockedMemory>>, PhysicalView) {
    let bytes = (0..0x2000_u32).map(|at| (at % 251) as u8).collect();
    let memory = Arc::new(ScriptedMemory::new(LockedMemory::new(RunMap::flat(0x2000), bytes).unwrap()));
    (memory.clone(), PhysicalView::new(memory))
}

fn expected<T: Pod>(view: &PhysicalView, addr: u64) -> T {
    view.read(VirtAddr::new(addr)).unwrap()
}

#[test]
fn members_of_all_kinds_are_read_with_one_call() {
    let (memory, view) = memory();
    let mut sparse = Sparse::<u32, 3> {
        first: 0,
        array: [0; 3],
        link: Link::default(),
        links: vec![Link::default(); 2],
        label: "mine",
    };
    sparse.read_members(&view, VirtAddr::new(0x1000)).unwrap();
    assert_eq!(memory.call_count(), 1);
    assert_eq!((sparse.first, sparse.array), (expected(&view, 0x1010), expected(&view, 0x1200)));
    let link = |addr| Link { next: expected(&view, addr), back: expected(&view, addr + 0x80) };
    assert_eq!((sparse.link.clone(), sparse.links.as_slice()), (link(0x1300), &[link(0x1400), link(0x1500)][..]));
    assert_eq!(sparse.label, "mine");
}

#[test]
fn members_without_a_name_are_read_too() {
    let (_, view) = memory();
    let mut pair = Pair(0, true, 0);
    pair.read_members(&view, VirtAddr::new(0)).unwrap();
    assert_eq!((pair.0, pair.1, pair.2), (0x20, true, 0x21));
}

#[test]
fn written_members_are_read_back() {
    let (_, view) = memory();
    let link = Link { next: 0x1122_3344, back: 7 };
    link.write_members(&view, VirtAddr::new(0x500)).unwrap();
    let mut read = Link::default();
    read.read_members(&view, VirtAddr::new(0x500)).unwrap();
    assert_eq!(read, link);
    assert_eq!(expected::<u8>(&view, 0x508), (0x508 % 251) as u8, "between the members nothing is written");
}

#[test]
fn structures_share_a_batch_and_failures_have_their_number() {
    let (memory, view) = memory();
    let (mut one, mut other) = (Link::default(), Link::default());
    let mut batch = Batch::new();
    batch.read_members(VirtAddr::new(0), &mut one).read_members(VirtAddr::new(0x1ff0), &mut other);
    let committed = batch.commit(&view);
    assert_eq!(memory.call_count(), 1);
    let failed: Vec<_> = committed.failures().map(|failure| failure.index).collect();
    assert_eq!(failed, [3], "the second structure's second member lies outside");
    assert_eq!(one.next, expected(&view, 0));
    assert!(other.read_members(&view, VirtAddr::new(0x1ff0)).is_err());
}

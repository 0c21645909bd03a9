//! Views over views, files over views, batches: what each does at its edges.

use std::{
    error::Error as _,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    sync::Arc,
    time::Duration,
};

use super::*;
use crate::{
    Error, PhysAddr, Reason, Result, VirtAddr, VirtRange,
    error::AccessKind,
    memory::{
        CacheConfig, Liveness, Outcome, PhysRead, PhysicalMemory as _, RunMap, SourceConfig, TargetFacts, Validity,
        ViewRead, ViewWrite,
    },
    paging::x86,
    testkit::{LockedMemory, ScriptedMemory},
};

type Scripted = ScriptedMemory<LockedMemory>;

/// Memory that can be written to, whose byte at each address is the low byte of it; and a view of all of it.
fn memory(runs: &str, len: usize) -> (Arc<Scripted>, PhysicalView) {
    let bytes = (0..len).map(|at| at as u8).collect();
    let memory = Arc::new(ScriptedMemory::new(LockedMemory::new(runs.parse().unwrap(), bytes).unwrap()));
    (memory.clone(), PhysicalView::new(memory))
}

fn at(addr: u64) -> VirtAddr {
    VirtAddr::new(addr)
}

fn range(start: u64, len: u64) -> VirtRange {
    VirtRange::new(at(start), len).unwrap()
}

/// Pages 0 and 2 of three.
const HOLE: &str = "0-0xfff@0,0x2000-0x2fff@0x2000";

#[test]
fn cursor_ends_where_its_range_does() {
    let (_, view) = memory("0-0x2fff@0", 0x3000);
    let mut file = Cursor::new(&view, range(0xff0, 0x20));
    let mut bytes = Vec::new();
    assert_eq!(file.read_to_end(&mut bytes).unwrap(), 0x20);
    assert_eq!(bytes, (0xff0..0x1010).map(|at: u64| at as u8).collect::<Vec<u8>>());
    assert_eq!(file.read(&mut [0; 4]).unwrap(), 0);
    assert_eq!(file.write(&[1]).unwrap(), 0);
    assert_eq!(file.seek(SeekFrom::End(-2)).unwrap(), 0x1e);
    assert_eq!(file.read(&mut [0; 4]).unwrap(), 2);
    assert_eq!(file.seek(SeekFrom::Start(0x100)).unwrap(), 0x100);
    assert_eq!(file.read(&mut [0; 4]).unwrap(), 0);
}

#[test]
fn cursor_is_never_before_its_start_nor_past_the_last_address() {
    let (_, view) = memory("0-0xfff@0", 0x1000);
    let mut file = Cursor::new(&view, range(0x10, 0x20));
    for wrong in [SeekFrom::Current(-1), SeekFrom::End(-0x21), SeekFrom::Current(i64::MIN)] {
        assert_eq!(file.seek(wrong).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(file.stream_position().unwrap(), 0);
    assert_eq!(file.seek(SeekFrom::Start(u64::MAX)).unwrap(), u64::MAX);
    assert_eq!(file.seek(SeekFrom::Current(1)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!((file.address(), file.read(&mut [0]).unwrap()), (None, 0));
}

#[test]
fn cursor_reads_up_to_a_gap_and_can_seek_past_it() {
    let (_, view) = memory(HOLE, 0x3000);
    let mut file = Cursor::new(&view, range(0xffe, 0x1100));
    let mut buf = [0xee; 0x1100];
    assert_eq!(file.read(&mut buf).unwrap(), 2);
    assert_eq!(buf[..2], [0xfe, 0xff]);
    let error = file.read(&mut buf).unwrap_err();
    let reason = error.source().or(error.get_ref().map(|inner| inner as _)).and_then(|error| error.downcast_ref());
    assert_eq!(reason.and_then(Error::reason), Some(Reason::NotInImage { phys: PhysAddr::new(0x1000) }));
    assert_eq!(file.stream_position().unwrap(), 2);
    file.seek(SeekFrom::Current(0x1000)).unwrap();
    assert_eq!(file.read(&mut buf).unwrap(), 0x1100 - 0x1002);
    assert_eq!(buf[1], 1);
}

#[test]
fn cursor_writes_nothing_past_what_is_refused() {
    let (_, view) = memory(HOLE, 0x3000);
    let mut file = Cursor::new(&view, range(0xffc, 0x1100));
    let error = file.write_all(&[0xaa; 0x1100]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Other);
    assert_eq!(file.stream_position().unwrap(), 4);
    assert_eq!(view.read::<u32>(at(0xffc)).unwrap(), 0xaaaa_aaaa);
    assert_eq!(view.read::<[u8; 2]>(at(0x2000)).unwrap(), [0, 1], "the page behind the gap is as it was");
}

#[test]
fn batch_keeps_the_order_of_reads_and_writes() {
    let (memory, view) = memory("0-0xfff@0", 0x1000);
    let (mut before, mut after, mut other) = (0_u8, 0_u8, 0_u16);
    let mut batch = Batch::new();
    batch.read(at(0x10), &mut before).write(at(0x10), &0x99_u8).write(at(0x20), &0x77_u8);
    batch.read(at(0x10), &mut after).read(at(0x20), &mut other);
    assert_eq!((batch.len(), memory.call_count()), (5, 0), "nothing is done before it is committed");
    assert!(batch.commit(&view).is_complete());
    assert_eq!((before, after, other), (0x10, 0x99, 0x2177));
    assert_eq!(memory.call_count(), 3);
}

#[test]
fn batch_tells_each_failure_and_does_the_rest() {
    let (_, view) = memory(HOLE, 0x3000);
    let (mut one, mut two, mut three) = (0_u8, 0_u32, 0_u8);
    let mut batch = Batch::new();
    batch.read(at(0x10), &mut one).read(at(0xffe), &mut two).write(at(0x1800), &1_u8).read(at(0x2001), &mut three);
    let committed = batch.commit(&view);
    assert_eq!((one, three, committed.len(), committed.is_complete()), (0x10, 1, 4, false));
    let told: Vec<_> = committed.failures().map(|failure| (failure.index, failure.kind, failure.addr)).collect();
    assert_eq!(told, [(1, AccessKind::Read, at(0xffe)), (2, AccessKind::Write, at(0x1800))]);
    let error = committed.into_result().unwrap_err();
    assert!(error.to_string().starts_with("read of 4 bytes at 0xffe: "), "{error}");
    assert!(Batch::new().commit(&view).into_result().is_ok());
}

/// A view that answers nothing, and says that all went well.
struct Silent;

impl MemoryView for Silent {
    fn read_batch(&self, _: &mut [ViewRead<'_>]) -> Result<()> {
        Ok(())
    }

    fn write_batch(&self, _: &mut [ViewWrite<'_>]) -> Result<()> {
        Ok(())
    }

    fn metadata(&self) -> ViewMetadata {
        ViewMetadata { last_address: at(u64::MAX), pointer_size: 4, read_only: false }
    }
}

#[test]
fn what_nobody_answered_is_never_done() {
    let mut value = 0_u8;
    let mut batch = Batch::new();
    batch.read(at(0), &mut value);
    assert!(matches!(batch.commit(&Silent).into_result(), Err(Error::Unanswered { index: 0, .. })));
    let remapped = RemappedView::new(Silent, [(range(0, 0x1000), at(0x5000))]).unwrap();
    assert!(matches!(remapped.read::<u8>(at(0)), Err(Error::Unanswered { .. })));
    let cached = CachedView::new(Silent, CacheConfig::default()).unwrap();
    assert!(cached.read::<u8>(at(0)).is_err());
    assert_eq!(cached.metadata().pointer_size, 4);
}

#[test]
fn remapped_parts_are_joined_and_nothing_lies_between_them() {
    let (memory, view) = memory("0-0x2fff@0", 0x3000);
    let parts = [(range(0x100, 4), at(0x2010)), (range(0x104, 4), at(0x10)), (range(0x200, 0x10), at(0x1000))];
    let remapped = RemappedView::new(view, parts).unwrap();
    assert_eq!(remapped.read::<[u8; 8]>(at(0x100)).unwrap(), [0x10, 0x11, 0x12, 0x13, 0x10, 0x11, 0x12, 0x13]);
    assert_eq!(memory.call_count(), 1);
    assert_eq!(remapped.address_of(at(0x105)), Some(at(0x11)));
    assert_eq!((remapped.address_of(at(0x108)), remapped.metadata().last_address), (None, at(0x20f)));

    let mut buf = [0xee; 0x108];
    let mut ops = [ViewRead::new(at(0x104), &mut buf)];
    assert!(remapped.read_batch(&mut ops).is_err());
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 4, reason: Reason::OutOfRange });
    assert_eq!((buf[3], buf[4], buf[0xfc]), (0x13, 0xee, 0));

    remapped.write(at(0x102), &[1_u8, 2, 3, 4]).unwrap();
    assert_eq!(remapped.view().read::<[u8; 2]>(at(0x2012)).unwrap(), [1, 2]);
    assert_eq!(remapped.view().read::<[u8; 2]>(at(0x10)).unwrap(), [3, 4]);
    assert!(remapped.write(at(0x20f), &[1_u8, 2]).is_err());
}

#[test]
fn parts_that_overlap_or_leave_the_view_are_refused() {
    let (_, view) = memory("0-0xfff@0", 0x1000);
    let overlap = [(range(0, 0x10), at(0)), (range(8, 0x10), at(0x100))];
    let error = RemappedView::new(&view, overlap).unwrap_err();
    assert!(matches!(error, Error::Argument { .. }), "{error}");
    let error = RemappedView::new(&view, [(range(0x10, 0x10), at(u64::MAX - 7))]).unwrap_err();
    assert_eq!(error.to_string(), "16 bytes at 0x10 leave the address space");
}

#[test]
fn reads_at_the_last_address_fail_and_do_not_wrap() {
    let (_, view) = memory("0-0xfff@0,0xfffffffffffff000-0xffffffffffffffff@0x1000", 0x2000);
    let cached = CachedView::new(view.clone(), CacheConfig::default()).unwrap();
    let remapped = RemappedView::new(view.clone(), [(range(u64::MAX - 0xf, 0xf), at(0x10))]).unwrap();
    let mut bytes = [0; 16];
    assert!(view.read_into(at(u64::MAX - 7), &mut bytes).is_err());
    assert!(cached.read_into(at(u64::MAX - 7), &mut bytes).is_err());
    assert!(remapped.read_into(at(u64::MAX - 7), &mut bytes).is_err());
    assert_eq!(cached.read::<u8>(at(u64::MAX)).unwrap(), 0xff);
}

#[test]
fn cached_view_sees_its_own_writes_and_keeps_reasons() {
    let (memory, view) = memory(HOLE, 0x3000);
    let config = CacheConfig { validity: Validity::For(Duration::from_secs(3600)), ..CacheConfig::default() };
    let cached = CachedView::new(ArchOverlay::new(view, &x86::X86), config).unwrap();
    assert_eq!(cached.metadata().pointer_size, 4);
    assert_eq!(cached.read_pointer(at(0x10)).unwrap(), at(0x1312_1110));
    let calls = memory.call_count();
    assert_eq!(cached.read::<u8>(at(0x20)).unwrap(), 0x20);
    assert_eq!(memory.call_count(), calls, "served from the cache");
    cached.write(at(0x20), &0x99_u8).unwrap();
    assert_eq!(cached.read::<u8>(at(0x20)).unwrap(), 0x99);
    let error = cached.read::<u8>(at(0x1234)).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NotInImage { phys: PhysAddr::new(0x1234) }));
    assert!(error.to_string().starts_with("read of 1 bytes at 0x1234: "), "{error}");
    cached.view().view().write(at(0x30), &0x55_u8).unwrap();
    assert_eq!(cached.read::<u8>(at(0x30)).unwrap(), 0x30, "written behind its back");
    cached.forget(range(0x30, 1));
    assert_eq!(cached.read::<u8>(at(0x30)).unwrap(), 0x55);
}

#[test]
fn reasons_of_a_machine_inside_name_its_own_addresses() {
    let (memory, view) = memory(HOLE, 0x3000);
    // 8 KiB inside, of which the second half is missing outside.
    let runs: RunMap = "0x10000-0x11fff@0".parse().unwrap();
    let config = SourceConfig { name: "inner".into(), runs, facts: TargetFacts::default() };
    let inner = Arc::new(ViewMemory::new(view, config, Liveness::Live));
    let mut bytes = [0; 0x20];
    let mut ops = [PhysRead::new(PhysAddr::new(0x10ff0), &mut bytes)];
    assert!(inner.read_batch(&mut ops).is_err());
    let missing = Reason::NotInImage { phys: PhysAddr::new(0x11000) };
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0x10, reason: missing });
    assert_eq!(bytes[..2], [0xf0, 0xf1]);
    assert_eq!(inner.address_of(PhysAddr::new(0x10ff0)), Some(at(0xff0)));
    assert_eq!(inner.address_of(PhysAddr::new(0x12000)), None);
    let before = memory.call_count();
    PhysicalView::new(inner.clone()).write(at(0x10004), &7_u8).unwrap();
    assert_eq!((inner.view().read::<u8>(at(4)).unwrap(), memory.call_count()), (7, before + 2));
}

#[test]
fn pointers_of_both_sizes_are_read_as_members() {
    let mut bytes = vec![0; 0x1000];
    bytes[0x10..0x18].copy_from_slice(&0x1_0000_0100_u64.to_le_bytes());
    bytes[0x100..0x108].copy_from_slice(&0x1122_3344_5566_7788_u64.to_le_bytes());
    let memory = LockedMemory::new(RunMap::flat(0x1000), bytes).unwrap();
    let view = PhysicalView::new(Arc::new(memory));
    let [narrow, upper]: [Ptr32<u64>; 2] = view.read(at(0x10)).unwrap();
    assert_eq!((narrow.address(), upper.address()), (at(0x100), at(1)));
    assert_eq!(narrow.read(&view).unwrap(), 0x1122_3344_5566_7788);
    assert_eq!(narrow.cast::<u16>().at(3).read(&view).unwrap(), 0x1122);
    assert_eq!(narrow.cast::<u16>().at(u32::MAX).address(), at(0xfe), "in the arithmetic of its size");
    let wide: Ptr64<u8> = view.read(at(0x10)).unwrap();
    assert_eq!(wide.address(), at(0x1_0000_0100));
    assert!(wide.read(&view).is_err());
    assert_eq!(Ptr32::<u8>::new(at(1 << 32)), None);
    assert!(Ptr64::<u8>::NULL.is_null() && Ptr64::<u8>::new(at(5)).is_some_and(|five| five.address() == at(5)));
    narrow.cast::<u8>().write(&view, &9).unwrap();
    assert_eq!(view.read_le::<u16>(at(0x100)).unwrap(), 0x7709);
    assert_eq!(view.read_be::<u16>(at(0x100)).unwrap(), 0x0977);
}

#[test]
fn chain_of_pointers_names_the_one_that_leads_nowhere() {
    let mut bytes = vec![0; 0x1000];
    bytes[0x10..0x18].copy_from_slice(&0x100_u64.to_le_bytes());
    bytes[0x108..0x110].copy_from_slice(&0x7000_u64.to_le_bytes());
    let view = PhysicalView::new(Arc::new(LockedMemory::new(RunMap::flat(0x1000), bytes).unwrap()));
    assert_eq!(view.follow(at(0x33), &[]).unwrap(), at(0x33));
    assert_eq!(view.follow(at(0), &[0x10, 8]).unwrap(), at(0x108));
    assert_eq!(view.follow(at(0), &[0x10, 8, 4]).unwrap(), at(0x7004));
    let error = view.follow(at(0), &[0x10, 8, 4, 0]).unwrap_err();
    assert!(error.to_string().starts_with("pointer 3 of 3, at 0x7004: read of 8 bytes"), "{error}");
    let error = view.follow(at(0), &[0x10, 0x10, 4]).unwrap_err();
    assert!(error.to_string().starts_with("pointer 2 of 2, at 0x110: "), "{error}");
}

#[test]
fn utf16_ends_at_its_terminator_or_the_limit() {
    let mut bytes = vec![0; 0x1000];
    let text: Vec<u8> = "grüße \u{1f600}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    bytes[0x101..0x101 + text.len()].copy_from_slice(&text);
    // To the end of memory without a terminator, and half of a pair.
    bytes[0xffc..].copy_from_slice(&[0x41, 0, 0x00, 0xd8]);
    let view = PhysicalView::new(Arc::new(LockedMemory::new(RunMap::flat(0x1000), bytes).unwrap()));
    assert_eq!(view.read_utf16(at(0x101), 100).unwrap(), "grüße \u{1f600}");
    assert_eq!(view.read_utf16(at(0x101), usize::MAX).unwrap(), "grüße \u{1f600}");
    assert_eq!(view.read_utf16(at(0x101), 3).unwrap(), "grü");
    assert_eq!(view.read_utf16(at(0x101), 0).unwrap(), "");
    assert!(matches!(view.read_utf16(at(0xffc), 2), Err(Error::Corrupt { .. })));
    assert_eq!(view.read_utf16_lossy(at(0xffc), 2).unwrap(), "A\u{fffd}");
    assert_eq!(view.read_utf16(at(0xffc), 3).unwrap_err().kind(), crate::error::ErrorKind::Access);
}

#[test]
fn units_that_lie_on_two_pages_are_read() {
    let mut bytes = vec![0; 0x3000];
    for unit in bytes[0xf01..0x2f01].chunks_mut(2) {
        unit[0] = b'x';
    }
    let view = PhysicalView::new(Arc::new(LockedMemory::new(RunMap::flat(0x3000), bytes).unwrap()));
    assert_eq!(view.read_utf16(at(0xf01), 1 << 20).unwrap(), "x".repeat(0x1000));
}

#[test]
fn utf8_is_checked_or_replaced() {
    let bytes = [b"ok\0".as_slice(), b"\xff\0", &[0; 0xffb]].concat();
    let view = PhysicalView::new(Arc::new(LockedMemory::new(RunMap::flat(0x1000), bytes).unwrap()));
    assert_eq!(view.read_utf8(at(0), 10).unwrap(), "ok");
    assert!(matches!(view.read_utf8(at(3), 10), Err(Error::Corrupt { .. })));
    assert_eq!(view.read_utf8_lossy(at(3), 10).unwrap(), "\u{fffd}");
}

#[test]
fn counted_strings_are_believed_up_to_the_limit() {
    let mut bytes = vec![0; 0x1000];
    bytes[..6].copy_from_slice(&[3, 0, 0, 0, b'a', b'b']);
    bytes[0x10..0x14].copy_from_slice(&u32::MAX.to_le_bytes());
    let view = PhysicalView::new(Arc::new(LockedMemory::new(RunMap::flat(0x1000), bytes).unwrap()));
    assert_eq!(view.read_counted(at(0), CountSize::One, 8).unwrap(), [0, 0, 0]);
    assert_eq!(view.read_counted(at(0), CountSize::Two, 8).unwrap(), [0, 0, b'a']);
    assert_eq!(view.read_counted(at(0), CountSize::Four, 8).unwrap(), [b'a', b'b', 0]);
    assert!(matches!(view.read_counted(at(0x10), CountSize::Four, 1 << 20), Err(Error::Limit { .. })));
    assert!(matches!(view.read_counted(at(0x10), CountSize::Four, u64::MAX), Err(Error::Access { .. })));
}

#[test]
fn strings_of_windows_are_read_by_the_size_of_pointers() {
    let mut bytes = vec![0; 0x1000];
    bytes[0x100..0x104].copy_from_slice(&[b'H', 0, b'i', 0]);
    bytes[0x10..0x14].copy_from_slice(&[4, 0, 6, 0]);
    bytes[0x18..0x20].copy_from_slice(&0x100_u64.to_le_bytes());
    bytes[0x20..0x28].copy_from_slice(&[4, 0, 6, 0, 0, 1, 0, 0]);
    bytes[0x30..0x34].copy_from_slice(&[3, 0, 6, 0]);
    bytes[0x40..0x44].copy_from_slice(&[8, 0, 6, 0]);
    let view = PhysicalView::new(Arc::new(LockedMemory::new(RunMap::flat(0x1000), bytes).unwrap()));
    let narrow = ArchOverlay::new(&view, &x86::X86_PAE);
    assert_eq!(view.read_unicode_string(at(0x10), 10).unwrap(), "Hi");
    assert_eq!(narrow.read_unicode_string(at(0x20), 10).unwrap(), "Hi");
    assert_eq!(view.read_unicode_string(at(0x50), 10).unwrap(), "");
    assert!(matches!(view.read_unicode_string(at(0x10), 1), Err(Error::Limit { .. })));
    for odd in [0x30, 0x40] {
        assert!(matches!(view.read_unicode_string(at(odd), 10), Err(Error::Corrupt { .. })));
    }
}

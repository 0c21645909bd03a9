//! What is kept of earlier walks: that it changes no answer, and how many calls it spares.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use proptest::prelude::*;

use super::plan::{Random, called, plan, shuffle};
use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr},
    error::{Reason, Result},
    memory::{
        CacheConfig, CacheLayer, LookasideConfig, LookasideLayer, Metadata, Outcome, PhysRead, PhysWrite,
        PhysicalMemory, TargetFacts, Validity, ViewRead, ViewWrite,
    },
    paging::{AddressSpace, SoftFault, SoftFaultAnswer, SoftFaults, TranslateOp, Translation, x86},
    testkit::{LockedMemory, Machine, MachineBuilder, PagingMode, ScriptedMemory, entry_bits::*, oracle},
    view::{MemoryView, SpaceView},
};

const RWU: u64 = PRESENT | WRITABLE | USER;

type Answers = Vec<std::result::Result<Translation, Reason>>;

/// A lookaside that is valid until something happens to it.
fn kept<M: PhysicalMemory + 'static>(memory: M) -> (Arc<ScriptedMemory<M>>, Arc<LookasideLayer>) {
    kept_in(memory, 1 << 16)
}

fn kept_in<M: PhysicalMemory + 'static>(memory: M, answers: usize) -> (Arc<ScriptedMemory<M>>, Arc<LookasideLayer>) {
    let memory = Arc::new(ScriptedMemory::new(memory));
    let config = LookasideConfig { answers, validity: Validity::Forever };
    (memory.clone(), Arc::new(LookasideLayer::new(memory, config).unwrap()))
}

fn batch(space: &AddressSpace, memory: &dyn PhysicalMemory, addresses: &[VirtAddr]) -> Answers {
    let mut ops: Vec<TranslateOp> = addresses.iter().map(|addr| TranslateOp::new(*addr)).collect();
    space.translate_batch(memory, &mut ops);
    ops.iter().map(|op| op.outcome.unwrap()).collect()
}

fn phys(space: &AddressSpace, memory: &dyn PhysicalMemory, addr: VirtAddr) -> Option<u64> {
    space.translate(memory, addr).ok().map(|found| found.phys.as_u64())
}

fn write(memory: &dyn PhysicalMemory, at: PhysAddr, entry: u64) {
    memory.write_batch(&mut [PhysWrite::new(at, &entry.to_le_bytes())]).unwrap();
}

/// A page at `virt`, and room for another.
fn one_page(virt: u64) -> (Arc<LockedMemory>, AddressSpace, Vec<PhysAddr>) {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    let page = builder.map(VirtAddr::new(virt), PhysAddr::new(0x20000), PageSize::KIB_4, RWU).unwrap();
    let (memory, space) = builder.build_writable().unwrap();
    (memory, space, page.entries.iter().map(|entry| entry.at).collect())
}

/// What happens to a table between two batches.
#[derive(Clone, Debug)]
enum Change {
    /// A write through the memory.
    Written,
    /// Others write, and the space is forgotten.
    Forgotten,
    /// Others write, and everything is forgotten.
    Flushed,
    /// Others write, and time passes.
    Waited,
}

fn changes() -> impl Strategy<Value = Vec<(Change, prop::sample::Index, u64, bool)>> {
    let change = prop::sample::select(vec![Change::Written, Change::Forgotten, Change::Flushed, Change::Waited]);
    let entry = prop_oneof![
        Just(0),
        any::<u64>(),
        (0_u64..64).prop_map(|frame| frame << 12 | RWU),
        (0_u64..4).prop_map(|frame| frame << 21 | LARGE | RWU)
    ];
    prop::collection::vec((change, any::<prop::sample::Index>(), entry, any::<bool>()), 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kept_answers_are_those_of_the_tables(plan in plan(), seed in any::<u64>(), answers in prop::sample::select(vec![1_usize, 40, 4096])) {
        let (machine, mut addresses) = plan.build();
        shuffle(&mut addresses, seed);
        let (_, memory) = kept_in(machine.memory.clone(), answers);
        let expected: Answers = addresses
            .iter()
            .map(|addr| oracle::translate(&*machine.memory, machine.mode, machine.root, *addr))
            .collect();
        let part = addresses.len() / 3;
        prop_assert_eq!(&batch(&machine.space, &*memory, &addresses[..part])[..], &expected[..part]);
        for _ in 0..2 {
            prop_assert_eq!(&batch(&machine.space, &*memory, &addresses), &expected);
            for (addr, expected) in addresses.iter().zip(&expected) {
                prop_assert_eq!(&machine.space.translate(&*memory, *addr), expected, "{}", addr);
            }
        }
    }

    #[test]
    fn long_reads_are_the_same_whatever_is_known(plan in plan(), starts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..0x5000), 1..6), warm in any::<prop::sample::Index>()) {
        let (machine, addresses) = plan.build();
        let (_, memory) = kept(machine.memory.clone());
        let ranges: Vec<(VirtAddr, usize)> = starts.iter().map(|(start, len)| (*start.get(&addresses), *len)).collect();
        let read = |memory: Arc<dyn PhysicalMemory>| {
            let view = SpaceView::new(memory, machine.space.clone());
            let mut bufs: Vec<Vec<u8>> = ranges.iter().map(|(_, len)| vec![0xaa; *len]).collect();
            let mut ops: Vec<ViewRead<'_>> =
                bufs.iter_mut().zip(&ranges).map(|(buf, (addr, _))| ViewRead::new(*addr, buf)).collect();
            let result = view.read_batch(&mut ops).map_err(|error| error.to_string());
            let outcomes: Vec<Outcome> = ops.iter().map(|op| op.outcome).collect();
            (bufs, outcomes, result)
        };
        let expected = read(Arc::new(called(&machine)));
        batch(&machine.space, &*memory, &addresses[..warm.index(addresses.len())]);
        for _ in 0..3 {
            prop_assert_eq!(read(memory.clone()), expected.clone());
        }
    }

    #[test]
    fn changes_show_once_they_are_known(plan in plan(), changes in changes(), answers in prop::sample::select(vec![8_usize, 4096]), cached in any::<bool>()) {
        let (builder, addresses) = plan.builder();
        let root = builder.root();
        let mode = builder.mode();
        let (target, space) = builder.build_writable().unwrap();
        let (layer, clock) = LookasideLayer::by_hand(target.clone(), answers, 1000);
        let layer = Arc::new(layer);
        // A cache above keeps tables too, until they are written to through it.
        let memory: Arc<dyn PhysicalMemory> = if cached {
            let config = CacheConfig { validity: Validity::Forever, capacity: 1 << 18, ..CacheConfig::default() };
            Arc::new(CacheLayer::new(layer.clone(), config).unwrap())
        } else {
            layer.clone()
        };
        let check = || -> std::result::Result<(), TestCaseError> {
            let found = batch(&space, &*memory, &addresses);
            for (addr, found) in addresses.iter().zip(found) {
                prop_assert_eq!(found, oracle::translate(&*target, mode, root, *addr), "{}", addr);
            }
            Ok(())
        };
        check()?;
        for (change, place, entry, half) in changes {
            // An entry of a page of low memory: most of those at its start are tables.
            let at = PhysAddr::new(0x1000 + place.index(0x6000 / 8) as u64 * 8);
            let bytes = entry.to_le_bytes();
            let bytes = if half { &bytes[..4] } else { &bytes[..] };
            let through: &dyn PhysicalMemory =
                if cached || matches!(change, Change::Written) { &*memory } else { &*target };
            // Where memory has a hole, only some bytes are written.
            let _ = through.write_batch(&mut [PhysWrite::new(at, bytes)]);
            match change {
                Change::Written => {}
                Change::Forgotten => space.forget(&*memory),
                Change::Flushed => memory.lookaside().unwrap().flush(),
                Change::Waited => { clock.fetch_add(1000, Relaxed); }
            }
            check()?;
        }
    }
}

/// Sixteen thousand pages in some thousand tables, below several entries of every level; each page's words say where they are.
fn scattered() -> (Machine, Vec<VirtAddr>) {
    let mut builder = MachineBuilder::new(PagingMode::La57, 48 << 20).unwrap();
    let frames: Vec<PhysAddr> = (0..64)
        .map(|_| {
            let frame = builder.frame().unwrap();
            let words: Vec<u8> = (0..512_u64).flat_map(|word| (frame.as_u64() + word * 8).to_le_bytes()).collect();
            builder.write(frame, &words).unwrap();
            frame
        })
        .collect();
    let mut random = Random(7);
    let mut addresses = Vec::new();
    while addresses.len() < 16_384 {
        // Two, two, four and two hundred and fifty-six ways on the upper levels, four pages of each table.
        let [root, fourth, third, second] = [48, 39, 30, 21].map(|shift| (random.next() >> 7, shift));
        let table = (root.0 % 2) << root.1
            | (fourth.0 % 2) << fourth.1
            | (third.0 % 4) << third.1
            | (second.0 % 256) << second.1;
        for _ in 0..4 {
            let virt = VirtAddr::new(table | random.below(512) << 12);
            builder.map(virt, frames[random.below(64) as usize], PageSize::KIB_4, RWU).unwrap();
            addresses.push(virt.wrapping_add(random.below(511) * 8 + random.below(8)));
        }
    }
    (builder.build().unwrap(), addresses)
}

#[test]
fn scattered_reads_over_five_levels_are_six_calls_cold_and_one_warm() {
    let (machine, mut addresses) = scattered();
    let (device, memory) = kept(machine.memory.clone());
    let view = SpaceView::new(memory.clone(), machine.space.clone());
    let plain = machine.view();
    for (seed, most) in [(1, 6), (2, 1), (3, 1)] {
        shuffle(&mut addresses, seed);
        let mut words = vec![[0; 8]; addresses.len()];
        let mut ops: Vec<ViewRead<'_>> =
            words.iter_mut().zip(&addresses).map(|(word, addr)| ViewRead::new(*addr, word)).collect();
        view.read_batch(&mut ops).unwrap();
        let calls = device.take_log();
        assert!(calls.len() <= most, "{} calls: {calls:?}", calls.len());
        let mut expected = vec![[0; 8]; addresses.len()];
        let mut ops: Vec<ViewRead<'_>> =
            expected.iter_mut().zip(&addresses).map(|(word, addr)| ViewRead::new(*addr, word)).collect();
        plain.read_batch(&mut ops).unwrap();
        assert!(words == expected);
    }
    // Nothing was known after a flush, and all of it again after that.
    memory.lookaside().unwrap().flush();
    for calls in [5, 0] {
        batch(&machine.space, &*memory, &addresses);
        assert_eq!(device.take_log().len(), calls);
    }
}

#[test]
fn page_beside_a_known_one_is_one_level_away() {
    let mut builder = MachineBuilder::new(PagingMode::La57, 0x40000).unwrap();
    for number in 0..4 {
        builder.map(VirtAddr::new(number << 12), PhysAddr::new(0x20000), PageSize::KIB_4, RWU).unwrap();
    }
    let machine = builder.build().unwrap();
    let (device, memory) = kept(machine.memory.clone());
    for (number, calls) in [(0, 5), (0, 0), (1, 1), (2, 1)] {
        assert!(machine.space.translate(&*memory, VirtAddr::new(number << 12)).is_ok());
        assert_eq!(device.take_log().len(), calls, "{number}");
    }
    batch(&machine.space, &*memory, &[0x1000, 0x3000, 0, 0x2fff].map(VirtAddr::new));
    assert_eq!(device.take_log().len(), 1);
}

#[test]
fn large_pages_are_kept_by_their_own_size() {
    for (mode, size) in [
        (PagingMode::X86, PageSize::MIB_4),
        (PagingMode::Pae, PageSize::MIB_2),
        (PagingMode::X64, PageSize::MIB_2),
        (PagingMode::La57, PageSize::GIB_1),
    ] {
        let mut builder = MachineBuilder::new(mode, 0x40000).unwrap();
        let page = builder.map(VirtAddr::new(0x8000_0000), PhysAddr::new(0x4000_0000), size, RWU).unwrap();
        let machine = builder.build().unwrap();
        let (device, memory) = kept(machine.memory.clone());
        machine.space.translate(&*memory, page.virt).unwrap();
        device.take_log();
        let last = page.virt.wrapping_add(size.bytes() - 1);
        let found = machine.space.translate(&*memory, last).unwrap();
        assert_eq!(Ok(found), oracle::translate(&*machine.memory, mode, machine.root, last));
        assert_eq!((device.call_count(), found.page), (0, size));
        assert!(machine.space.translate(&*memory, last.wrapping_add(1)).is_err());
    }
}

#[test]
fn small_pages_take_the_place_of_a_large_one_and_back() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    let small = builder.map(VirtAddr::new(0x20_0000), PhysAddr::new(0x20000), PageSize::KIB_4, RWU).unwrap();
    let large = small.entries[2].at;
    let to_table = builder.entry(large).unwrap();
    let (target, space) = builder.build_writable().unwrap();
    let (_, memory) = kept(target);
    for _ in 0..3 {
        write(&*memory, large, 0x4000_0000 | LARGE | RWU);
        let found = space.translate(&*memory, VirtAddr::new(0x20_0123)).unwrap();
        assert_eq!((found.phys.as_u64(), found.page), (0x4000_0123, PageSize::MIB_2));
        assert_eq!(phys(&space, &*memory, VirtAddr::new(0x20_1123)), Some(0x4000_1123));
        write(&*memory, large, to_table);
        let found = space.translate(&*memory, VirtAddr::new(0x20_0123)).unwrap();
        assert_eq!((found.phys.as_u64(), found.page), (0x20123, PageSize::KIB_4));
        assert_eq!(phys(&space, &*memory, VirtAddr::new(0x20_1123)), None);
    }
}

#[test]
fn roots_that_share_bits_and_modes_that_share_roots_are_told_apart() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x80000).unwrap();
    builder.add_memory(PhysAddr::new(0x1_0000_0000), 0x2000).unwrap();
    builder.add_memory(PhysAddr::new(0x8_0000_0000_0000), 0x2000).unwrap();
    let page = builder.map(VirtAddr::new(0), PhysAddr::new(0x20000), PageSize::KIB_4, RWU).unwrap();
    // The second level of another root is the first root's third: the page one level up.
    let upper = builder.entry(page.entries[1].at).unwrap();
    let low = builder.root().as_u64();
    let others = [0x1_0000_0000 | low, 0x8_0000_0000_0000 | low];
    builder.set_entry(PhysAddr::new(others[0]), upper).unwrap();
    let machine = builder.build().unwrap();
    let (_, memory) = kept(machine.memory.clone());
    for _ in 0..2 {
        for root in [low, others[0], others[1], low | 0xfff] {
            for mode in [&x86::X64, &x86::X64_LA57, &x86::X86_PAE, &x86::X86, &x86::X86_NO_PSE] {
                let space = AddressSpace::new(mode, root);
                let addresses = [0, 0x1000, 0x20_0000].map(VirtAddr::new);
                assert_eq!(
                    batch(&space, &*memory, &addresses),
                    batch(&space, &*machine.memory, &addresses),
                    "{space:?}"
                );
            }
        }
    }
}

#[test]
fn page_that_appears_is_seen_at_once() {
    let (target, space, entries) = one_page(0x1000);
    let (device, memory) = kept(target.clone());
    let other = VirtAddr::new(0x2000);
    assert_eq!(phys(&space, &*memory, VirtAddr::new(0x1000)), Some(0x20000));
    for frame in [0x21000, 0x22000] {
        assert_eq!(phys(&space, &*memory, other), None);
        assert_eq!(batch(&space, &*memory, &[other, other]).iter().filter(|found| found.is_err()).count(), 2);
        // The target maps it, which the memory is not told.
        write(&*target, entries[3].wrapping_add(8), frame | RWU);
        device.take_log();
        assert_eq!(phys(&space, &*memory, other), Some(frame));
        assert_eq!(device.take_log().len(), 1, "only the last level");
        // It is taken away by a write through the memory.
        write(&*memory, entries[3].wrapping_add(8), 0);
    }
}

#[test]
fn write_through_a_view_shows_in_the_next_read() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x80000).unwrap();
    let pages = [0x1000, 0x2000, 0x3000].map(VirtAddr::new);
    let mut frames = Vec::new();
    for (number, virt) in pages.into_iter().enumerate() {
        let frame = builder.frame().unwrap();
        builder.write(frame, &[number as u8 + 1; 0x1000]).unwrap();
        frames.push((frame, builder.map(virt, frame, PageSize::KIB_4, RWU).unwrap()));
    }
    // The last page is the table of all three.
    let table = frames[2].1.entries[3];
    builder.set_entry(table.at, table.table.as_u64() | RWU).unwrap();
    let (target, space) = builder.build_writable().unwrap();
    let (device, memory) = kept(target);
    let view = SpaceView::new(memory.clone(), space);
    let read = |addr: VirtAddr| {
        let mut byte = [0];
        view.read_batch(&mut [ViewRead::new(addr, &mut byte)]).unwrap();
        byte[0]
    };
    assert_eq!(pages[..2].iter().map(|page| read(*page)).collect::<Vec<_>>(), [1, 2]);
    let entry = (frames[1].0.as_u64() | RWU).to_le_bytes();
    view.write_batch(&mut [ViewWrite::new(VirtAddr::new(0x3008), &entry)]).unwrap();
    assert_eq!(read(pages[0]), 2);
    // Writes to other pages forget nothing.
    view.write_batch(&mut [ViewWrite::new(VirtAddr::new(0x2008), &[9; 8])]).unwrap();
    device.take_log();
    assert_eq!(read(pages[0].wrapping_add(8)), 9);
    assert_eq!(device.call_count(), 1);
}

#[test]
fn write_goes_where_the_tables_say_now() {
    let (target, space, entries) = one_page(0x1000);
    let (device, memory) = kept(target.clone());
    let view = SpaceView::new(memory.clone(), space.clone());
    assert_eq!(phys(&space, &*memory, VirtAddr::new(0x1000)), Some(0x20000));
    // The target gives the frame to somebody else, which the memory is not told.
    write(&*target, entries[3], 0x21000 | RWU);
    device.take_log();
    view.write_batch(&mut [ViewWrite::new(VirtAddr::new(0x1008), &[7; 8])]).unwrap();
    assert_eq!(device.take_log().len(), 5);
    let at = |addr| {
        let mut word = [0; 8];
        target.read_batch(&mut [PhysRead::new(PhysAddr::new(addr), &mut word)]).unwrap();
        word
    };
    assert_eq!([at(0x20008), at(0x21008)], [[0; 8], [7; 8]]);
    // Reads profit from the walk.
    assert_eq!(phys(&space, &*memory, VirtAddr::new(0x1000)), Some(0x21000));
    assert_eq!(device.call_count(), 0);
}

/// Says that an entry is a page, a different one each time.
struct Moving(AtomicUsize);

impl SoftFaults for Moving {
    fn resolve(&self, _: &dyn PhysicalMemory, faults: &mut [SoftFault]) {
        for fault in faults {
            let base = PhysAddr::new((self.0.fetch_add(1, Relaxed) as u64 + 1) << 12);
            fault.answer = SoftFaultAnswer::Page { base, flags: crate::paging::PageFlags::empty() };
        }
    }
}

#[test]
fn operating_system_is_asked_each_time() {
    let (target, space, entries) = one_page(0x1000);
    write(&*target, entries[3], 0xabc0);
    let (_, memory) = kept(target);
    let space = space.with_soft_faults(Arc::new(Moving(AtomicUsize::new(0))));
    let found: Vec<_> = (0..4).map(|_| phys(&space, &*memory, VirtAddr::new(0x1000))).collect();
    assert_eq!(found, [0x1000, 0x2000, 0x3000, 0x4000].map(Some));
    let found = batch(&space, &*memory, &[VirtAddr::new(0x1000), VirtAddr::new(0x1000)]);
    let mut found: Vec<u64> = found.iter().map(|found| found.unwrap().phys.as_u64()).collect();
    found.sort_unstable();
    assert_eq!(found, [0x5000, 0x6000]);
}

#[test]
fn nothing_of_a_failed_read_is_kept() {
    let (target, space, entries) = one_page(0x1000);
    for failing in 0..4 {
        let device = ScriptedMemory::new(target.clone()).with_failing_call(failing);
        let memory = LookasideLayer::over(Arc::new(device));
        assert_eq!(phys(&space, &*memory, VirtAddr::new(0x1000)), None);
        assert_eq!(phys(&space, &*memory, VirtAddr::new(0x1000)), Some(0x20000));
        let device = ScriptedMemory::new(target.clone()).with_silent_call(failing);
        let memory = LookasideLayer::over(Arc::new(device));
        assert!(batch(&space, &*memory, &[VirtAddr::new(0x1000); 2]).iter().all(std::result::Result::is_err));
        assert!(batch(&space, &*memory, &[VirtAddr::new(0x1000); 2]).iter().all(std::result::Result::is_ok));
    }
    let hole = PhysRange::new(entries[3], 8).unwrap();
    let memory = LookasideLayer::over(Arc::new(ScriptedMemory::new(target).with_failing_addresses(hole)));
    for _ in 0..2 {
        assert_eq!(phys(&space, &*memory, VirtAddr::new(0x1000)), None);
    }
}

#[test]
fn live_answers_expire_and_frozen_ones_do_not() {
    let (target, space, entries) = one_page(0x1000);
    let (memory, clock) = LookasideLayer::by_hand(target.clone(), 64, 5_000_000);
    let at = |memory: &dyn PhysicalMemory| phys(&space, memory, VirtAddr::new(0x1000));
    assert_eq!(at(&memory), Some(0x20000));
    write(&*target, entries[3], 0x21000 | RWU);
    clock.store(4_999_999, Relaxed);
    assert_eq!(at(&memory), Some(0x20000));
    clock.store(5_000_000, Relaxed);
    assert_eq!(at(&memory), Some(0x21000));

    // In rounds of two batches.
    let config = LookasideConfig { validity: Validity::Batches(1), ..LookasideConfig::default() };
    let memory = LookasideLayer::new(target.clone(), config).unwrap();
    let found = [0x22000, 0x23000, 0x24000, 0x25000].map(|frame| {
        write(&*target, entries[3], frame | RWU);
        at(&memory)
    });
    assert_eq!(found, [0x22000, 0x22000, 0x24000, 0x24000].map(Some));

    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    builder.map(VirtAddr::new(0x1000), PhysAddr::new(0x20000), PageSize::KIB_4, RWU).unwrap();
    let machine = builder.build().unwrap();
    let device = Arc::new(called(&machine));
    let memory = LookasideLayer::over(device.clone());
    assert!(phys(&machine.space, &*memory, VirtAddr::new(0x1000)).is_some());
    std::thread::sleep(crate::memory::Lookaside::LIVE_VALIDITY * 4);
    assert!(phys(&machine.space, &*memory, VirtAddr::new(0x1000)).is_some());
    assert_eq!(device.call_count(), 4);
}

#[test]
fn layers_share_one_lookaside_and_a_direct_map_needs_none() {
    let (target, space, _) = one_page(0x1000);
    let below = LookasideLayer::over(target.clone());
    let again = LookasideLayer::over(below.clone());
    assert!(Arc::ptr_eq(&below, &again));
    let device = Arc::new(ScriptedMemory::new(below));
    let metrics = crate::memory::MetricsLayer::new(device.clone());
    let delay = crate::memory::DelayLayer::new(Arc::new(metrics), std::time::Duration::ZERO).unwrap();
    let top = crate::memory::ReadOnlyLayer::new(Arc::new(delay));
    assert!(phys(&space, &*device, VirtAddr::new(0x1000)).is_some());
    device.take_log();
    assert!(phys(&space, &top, VirtAddr::new(0x1000)).is_some());
    assert_eq!(device.call_count(), 0);

    let machine = MachineBuilder::new(PagingMode::X64, 0x4000).unwrap().build().unwrap();
    let memory = LookasideLayer::over(machine.memory.clone());
    assert!(memory.lookaside().is_none() && memory.direct_map().is_some());
}

type Hook = Box<dyn FnOnce() + Send>;

/// Memory that does something of the test's choice at the end of a call, when the bytes are already read.
struct Interrupted {
    inner: Arc<LockedMemory>,
    /// After so many calls from now.
    hook: Mutex<Option<(usize, Hook)>>,
}

impl Interrupted {
    fn after(&self, calls: usize, hook: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some((calls, Box::new(hook)));
    }
}

impl PhysicalMemory for Interrupted {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let result = self.inner.read_batch(ops);
        let mut slot = self.hook.lock().unwrap();
        let due = slot.take_if(|(calls, _)| {
            *calls -= 1;
            *calls == 0
        });
        drop(slot);
        if let Some((_, hook)) = due {
            hook();
        }
        result
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.inner.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.inner.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        self.inner.facts()
    }
}

#[test]
fn walk_that_a_write_overtakes_is_not_kept() {
    for level in 1..=4 {
        for single in [true, false] {
            for cached in [true, false] {
                let (target, space, entries) = one_page(0x1000);
                let device = Arc::new(Interrupted { inner: target, hook: Mutex::new(None) });
                let layer = LookasideLayer::over(device.clone());
                let memory: Arc<dyn PhysicalMemory> = if cached {
                    let config = CacheConfig { validity: Validity::Forever, ..CacheConfig::default() };
                    Arc::new(CacheLayer::new(layer, config).unwrap())
                } else {
                    layer
                };
                let (writer, leaf) = (memory.clone(), entries[3]);
                device.after(level, move || write(&*writer, leaf, 0x21000 | RWU));
                let addresses = [VirtAddr::new(0x1000); 2];
                let expected = if level == 4 { 0x20000 } else { 0x21000 };
                if single {
                    assert_eq!(phys(&space, &*memory, addresses[0]), Some(expected));
                } else {
                    assert!(
                        batch(&space, &*memory, &addresses)
                            .iter()
                            .all(|found| found.unwrap().phys.as_u64() == expected)
                    );
                }
                assert_eq!(phys(&space, &*memory, addresses[0]), Some(0x21000), "level {level}, cached: {cached}");
            }
        }
    }
}

#[test]
fn write_that_panics_forgets_all_the_same() {
    struct Panicking(Arc<LockedMemory>);
    impl PhysicalMemory for Panicking {
        fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
            self.0.read_batch(ops)
        }
        fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
            self.0.write_batch(ops)?;
            panic!("the connector's own");
        }
        fn metadata(&self) -> Metadata {
            self.0.metadata()
        }
        fn facts(&self) -> &TargetFacts {
            self.0.facts()
        }
    }
    let (target, space, entries) = one_page(0x1000);
    let memory = LookasideLayer::over(Arc::new(Panicking(target)));
    assert_eq!(phys(&space, &*memory, VirtAddr::new(0x1000)), Some(0x20000));
    catch_unwind(AssertUnwindSafe(|| write(&*memory, entries[3], 0x21000 | RWU))).unwrap_err();
    assert_eq!(phys(&space, &*memory, VirtAddr::new(0x1000)), Some(0x21000));
}

#[test]
fn readers_never_go_back_behind_a_mapping_that_was_written() {
    let (target, space, entries) = one_page(0x1000);
    let (_, memory) = kept_in(target, 64);
    let (written, stop) = (AtomicU64::new(0x20), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (space, memory, written, stop) = (&space, &memory, &written, &stop);
            scope.spawn(move || {
                let mut random = Random(seed);
                while !stop.load(Relaxed) {
                    let least = written.load(std::sync::atomic::Ordering::Acquire);
                    let addr = VirtAddr::new(0x1000 + random.below(0x1000));
                    let frame = match random.below(2) {
                        0 => phys(space, &**memory, addr).unwrap() >> 12,
                        _ => batch(space, &**memory, &[addr, addr])[1].unwrap().phys.as_u64() >> 12,
                    };
                    assert!(frame >= least, "{frame:#x} after {least:#x} was written");
                }
            });
        }
        for frame in 0x20..3000_u64 {
            write(&*memory, entries[3], frame << 12 | RWU);
            assert_eq!(phys(&space, &*memory, VirtAddr::new(0x1000)), Some(frame << 12));
            written.store(frame, std::sync::atomic::Ordering::Release);
            match frame % 500 {
                0 => memory.lookaside().unwrap().flush(),
                250 => space.forget(&*memory),
                _ => {}
            }
        }
        stop.store(true, Relaxed);
    });
}

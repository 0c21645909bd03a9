#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, sync::Arc};

use proptest::prelude::*;

use super::{Ranges, SpaceView, by_threads};
use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr},
    error::{Error, Reason},
    memory::{
        BufferMemory, Outcome, PhysRead, PhysicalMemory, PhysicalMemoryExt, Run, RunMap, SourceConfig, TargetFacts,
        ViewRead, ViewWrite,
    },
    paging::{
        AddressSpace,
        tests::plan::{Random, called, plan},
        x86,
    },
    testkit::{Machine, MachineBuilder, PagingMode, ScriptedMemory, entry_bits::*, oracle},
    view::{MemoryView, MemoryViewExt},
};

const RWU: u64 = PRESENT | WRITABLE | USER;
const FILLER: u8 = 0xee;

fn in_place(machine: &Machine) -> SpaceView {
    machine.view()
}

fn through_calls(machine: &Machine) -> SpaceView {
    SpaceView::new(Arc::new(called(machine)), machine.space.clone())
}

/// What the oracle expects of one read: the buffer, and the first failure.
fn expected(machine: &Machine, addr: VirtAddr, len: usize) -> (Vec<u8>, Outcome) {
    let bytes = oracle::read(&*machine.memory, machine.mode, machine.root, addr, len);
    let mut outcome = Outcome::Done;
    for (offset, byte) in bytes.iter().enumerate() {
        if let Err(reason) = byte {
            outcome.fail(offset as u64, *reason);
        }
    }
    (bytes.into_iter().map(|byte| byte.unwrap_or(FILLER)).collect(), outcome)
}

/// Operations around the addresses of a plan: index, shift before it, length.
fn accesses() -> impl Strategy<Value = Vec<(prop::sample::Index, u64, usize)>> {
    let len = prop_oneof![4 => 0usize..64, 1 => 0usize..0x1800];
    prop::collection::vec((any::<prop::sample::Index>(), 0u64..40, len), 1..10)
}

macro_rules! every_path {
    ($($path:ident),*) => {$(
        mod $path {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn reads_agree_with_the_oracle(plan in plan(), accesses in accesses()) {
                    let (machine, probes) = plan.build();
                    let view = super::$path(&machine);
                    let accesses: Vec<_> = accesses
                        .iter()
                        .map(|(index, before, len)| (index.get(&probes).wrapping_sub(*before), *len))
                        .collect();
                    let mut buffers: Vec<_> = accesses.iter().map(|(_, len)| vec![FILLER; *len]).collect();
                    let mut ops: Vec<_> =
                        accesses.iter().zip(&mut buffers).map(|((addr, _), buf)| ViewRead::new(*addr, buf)).collect();
                    let result = view.read_batch(&mut ops);
                    let outcomes: Vec<_> = ops.iter().map(|op| op.outcome).collect();
                    prop_assert_eq!(result.is_ok(), outcomes.iter().all(Outcome::is_done));
                    for (((addr, len), buffer), outcome) in accesses.iter().zip(&buffers).zip(outcomes) {
                        let (bytes, expected) = expected(&machine, *addr, *len);
                        prop_assert_eq!(outcome, expected, "{} bytes at {}", len, addr);
                        prop_assert!(*buffer == bytes, "{} bytes at {}", len, addr);
                    }
                }
            }
        }
    )*};
}

every_path!(in_place, through_calls);

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_in_shares_agree_with_the_oracle(plan in plan(), accesses in accesses(), share in 1_u64..0x3000, grain in prop::sample::select(vec![1_u64, 0x100, 0x1000])) {
        let (machine, probes) = plan.build();
        let view = machine.view();
        let accesses: Vec<_> =
            accesses.iter().map(|(index, before, len)| (index.get(&probes).wrapping_sub(*before), *len)).collect();
        let mut buffers: Vec<_> = accesses.iter().map(|(_, len)| vec![FILLER; *len]).collect();
        let mut ops: Vec<_> =
            accesses.iter().zip(&mut buffers).map(|((addr, _), buf)| ViewRead::new(*addr, buf)).collect();
        let mut ranges = Ranges::new();
        for (index, op) in ops.iter_mut().enumerate() {
            let (range, outcome) = view.start(index, op.addr, op.buf.len());
            op.outcome = outcome;
            ranges.extend(range);
        }
        by_threads::read(&view, machine.memory.direct_map().unwrap(), &mut ops, &ranges, share, grain);
        let outcomes: Vec<_> = ops.iter().map(|op| op.outcome).collect();
        for (((addr, len), buffer), outcome) in accesses.iter().zip(&buffers).zip(outcomes) {
            let (bytes, expected) = expected(&machine, *addr, *len);
            prop_assert_eq!(outcome, expected, "{} bytes at {}", len, addr);
            prop_assert!(*buffer == bytes, "{} bytes at {}", len, addr);
        }
    }

    #[test]
    fn writes_go_where_the_oracle_says_and_the_later_wins(plan in plan(), accesses in accesses()) {
        let (machine, probes) = plan.build();
        let (writable, space) = plan.builder().0.build_writable().unwrap();
        let view = SpaceView::new(writable.clone(), space);
        let mut written: HashMap<PhysAddr, u8> = HashMap::new();
        let mut expected = Vec::new();
        let mut buffers = Vec::new();
        for (number, (index, before, len)) in accesses.iter().enumerate() {
            let addr = index.get(&probes).wrapping_sub(*before);
            let bytes = oracle::read(&*machine.memory, machine.mode, machine.root, addr, *len);
            let mut outcome = Outcome::Done;
            for (offset, byte) in bytes.iter().enumerate() {
                let at = addr.wrapping_add(offset as u64);
                match byte {
                    Ok(_) => {
                        let found = oracle::translate(&*machine.memory, machine.mode, machine.root, at).unwrap();
                        written.insert(found.phys, number as u8);
                    }
                    Err(reason) => outcome.fail(offset as u64, *reason),
                }
            }
            expected.push(outcome);
            buffers.push((addr, vec![number as u8; *len]));
        }
        let mut ops: Vec<_> = buffers.iter().map(|(addr, buf)| ViewWrite::new(*addr, buf)).collect();
        let result = view.write_batch(&mut ops);
        prop_assert_eq!(result.is_ok(), expected.iter().all(Outcome::is_done));
        prop_assert_eq!(ops.iter().map(|op| op.outcome).collect::<Vec<_>>(), expected);
        for run in machine.memory.metadata().runs.runs() {
            let mut before = vec![0; run.range.len() as usize];
            let mut after = before.clone();
            machine.memory.read_into(run.range.start(), &mut before).unwrap();
            writable.read_into(run.range.start(), &mut after).unwrap();
            for (offset, (before, after)) in before.iter().zip(&after).enumerate() {
                let phys = run.range.start().wrapping_add(offset as u64);
                prop_assert_eq!(after, written.get(&phys).unwrap_or(before), "{}", phys);
            }
        }
    }
}

/// Pages at the places given: virtual address, frame, size.
fn machine(mode: PagingMode, pages: &[(u64, u64, PageSize)]) -> MachineBuilder {
    let mut builder = MachineBuilder::new(mode, 0x80000).unwrap();
    builder.add_memory(PhysAddr::new(0x4000_0000), 4 << 20).unwrap();
    for (virt, phys, page) in pages {
        builder.map(VirtAddr::new(*virt), PhysAddr::new(*phys), *page, RWU).unwrap();
    }
    builder
}

#[test]
fn large_page_and_neighbouring_frames_are_one_piece() {
    let kib4 = |number: u64| (number << 12, 0x40000 + (number << 12), PageSize::KIB_4);
    let mut pages: Vec<_> = (0..16).map(kib4).collect();
    pages.push((0x4000_0000, 0x4000_0000, PageSize::MIB_2));
    pages.push((0x4020_0000, 0x4020_0000, PageSize::MIB_2));
    let machine = machine(PagingMode::X64, &pages).build().unwrap();
    let memory = Arc::new(called(&machine));
    let view = SpaceView::new(memory.clone(), machine.space.clone());

    let mut small = vec![0; 0xe800];
    let mut large = vec![0; 0x30_0000];
    let mut ops =
        [ViewRead::new(VirtAddr::new(0x1400), &mut small), ViewRead::new(VirtAddr::new(0x4008_0000), &mut large)];
    view.read_batch(&mut ops).unwrap();
    let log = memory.take_log();
    assert_eq!(log.len(), 5);
    assert_eq!(log.iter().map(|call| call.ops).collect::<Vec<_>>(), [1, 1, 2, 1, 2].map(|ops| ops));
    // Two entries of the directory for the large pages, one for the page table of the small.
    assert_eq!(log[4].bytes, 0xe800 + 0x30_0000);
}

#[test]
fn batch_of_any_size_takes_one_call_more_than_levels() {
    let mut random = Random(5);
    let mut builder = MachineBuilder::new(PagingMode::La57, 4 << 20).unwrap();
    let tops = [0, 0x7f00_0000_0000, 0xff12_3456_8000_0000, 0xffff_ffff_8000_0000];
    for top in tops {
        for number in 0..256 {
            let frame = PhysAddr::new(random.below(0x400) << 12);
            builder.map(VirtAddr::new(top + (number << 12)), frame, PageSize::KIB_4, RWU).unwrap();
        }
    }
    let machine = builder.build().unwrap();
    let memory = Arc::new(called(&machine));
    let view = SpaceView::new(memory.clone(), machine.space.clone());
    let count = 100_000;
    let addresses: Vec<_> =
        (0..count).map(|_| VirtAddr::new(tops[random.below(4) as usize] + random.below(0xf_fff8))).collect();
    let mut buffers = vec![[FILLER; 8]; count];
    let mut again = buffers.clone();
    let mut ops: Vec<_> = addresses.iter().zip(&mut buffers).map(|(addr, buf)| ViewRead::new(*addr, buf)).collect();
    view.read_batch(&mut ops).unwrap();
    assert_eq!(memory.call_count(), 6);
    let mut ops: Vec<_> = addresses.iter().zip(&mut again).map(|(addr, buf)| ViewRead::new(*addr, buf)).collect();
    machine.view().read_batch(&mut ops).unwrap();
    assert!(buffers == again);
    for (addr, buffer) in addresses.iter().zip(&buffers).step_by(997) {
        assert_eq!(expected(&machine, *addr, 8).0, buffer);
    }
}

#[test]
fn zero_length_is_done_wherever_it_points_and_makes_no_call() {
    let machine = machine(PagingMode::X64, &[]).build().unwrap();
    let memory = Arc::new(called(&machine));
    let view = SpaceView::new(memory.clone(), machine.space.clone());
    for addr in [0, 0x1000, 0x8000_0000_0000_0000, u64::MAX] {
        view.read_into(VirtAddr::new(addr), &mut []).unwrap();
        in_place(&machine).read_into(VirtAddr::new(addr), &mut []).unwrap();
        view.write_from(VirtAddr::new(addr), &[]).unwrap();
    }
    view.read_batch(&mut []).unwrap();
    assert_eq!(memory.call_count(), 0);
}

#[test]
fn what_runs_over_the_end_fails_from_the_first_byte_beyond() {
    for (mode, last_page, narrow) in [
        (PagingMode::X64, 0xffff_ffff_ffff_f000, false),
        (PagingMode::X86, 0xffff_f000, true),
        (PagingMode::Pae, 0xffff_f000, true),
    ] {
        let machine = machine(mode, &[(last_page, 0x40000, PageSize::KIB_4)]).build().unwrap();
        for view in [in_place(&machine), through_calls(&machine)] {
            let mut last = [FILLER; 8];
            view.read_into(VirtAddr::new(last_page + 0xff8), &mut last).unwrap();
            assert_eq!(last, [0; 8]);
            let mut over = [FILLER; 12];
            let mut ops = [ViewRead::new(VirtAddr::new(last_page + 0xff8), &mut over)];
            view.read_batch(&mut ops).unwrap_err();
            assert_eq!(ops[0].outcome, Outcome::Failed { offset: 8, reason: Reason::OutOfRange }, "{mode:?}");
            assert_eq!(over[..8], [0; 8]);
            assert_eq!(over[8..], [FILLER; 4]);
            assert_eq!(view.metadata().last_address, VirtAddr::new(last_page + 0xfff));
            if narrow {
                let error = view.read::<u32>(VirtAddr::new(0x1_0000_0000)).unwrap_err();
                assert!(error.is_not_mapped(), "{error}");
            }
        }
    }
}

#[test]
fn failing_call_leaves_every_operation_answered() {
    let machine = machine(PagingMode::X64, &[(0, 0x40000, PageSize::KIB_4), (0x5000, 0x41000, PageSize::KIB_4)]);
    let machine = machine.build().unwrap();
    for nth in 0..6 {
        let memory = Arc::new(ScriptedMemory::new(machine.memory.clone()).with_failing_call(nth));
        let view = SpaceView::new(memory, machine.space.clone());
        let (mut one, mut two) = ([0; 8], [0; 8]);
        let mut ops =
            [ViewRead::new(VirtAddr::new(8), &mut one), ViewRead::new(VirtAddr::new(0x9000_0000_0000_0000), &mut two)];
        let error = view.read_batch(&mut ops).unwrap_err();
        assert!(ops.iter().all(|op| op.outcome != Outcome::NotAttempted), "{error}");
        match nth {
            0..4 => assert!(matches!(ops[0].outcome, Outcome::Failed { offset: 0, reason: Reason::NotMapped(_) })),
            4 => assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0, reason: Reason::Io { errno: 5 } }),
            _ => assert!(ops[0].outcome.is_done()),
        }
    }
}

#[test]
fn memory_that_does_not_answer_is_named() {
    let machine = machine(PagingMode::X86, &[(0, 0x40000, PageSize::KIB_4)]).build().unwrap();
    let memory = Arc::new(ScriptedMemory::new(machine.memory.clone()).with_silent_call(2));
    let error = SpaceView::new(memory, machine.space.clone()).read::<u64>(VirtAddr::new(0)).unwrap_err();
    assert!(matches!(&error, Error::Unanswered { who, index: 0 } if who == "synthetic machine"), "{error}");
}

#[test]
fn readable_pages_arrive_around_a_page_that_does_not() {
    let mut builder = machine(
        PagingMode::X64,
        &[(0, 0x40000, PageSize::KIB_4), (0x2000, 0x42000, PageSize::KIB_4), (0x3000, 0x4030_0000, PageSize::KIB_4)],
    );
    builder.write(PhysAddr::new(0x40000), &[1; 0x1000]).unwrap();
    builder.write(PhysAddr::new(0x42000), &[3; 0x1000]).unwrap();
    builder.write(PhysAddr::new(0x4030_0000), &[4; 0x1000]).unwrap();
    builder.remove_memory(PhysRange::new(PhysAddr::new(0x4030_0800), 0x100).unwrap());
    let machine = builder.build().unwrap();
    for view in [in_place(&machine), through_calls(&machine)] {
        let mut bytes = vec![FILLER; 0x4000];
        let mut ops = [ViewRead::new(VirtAddr::new(0), &mut bytes)];
        view.read_batch(&mut ops).unwrap_err();
        assert!(matches!(ops[0].outcome, Outcome::Failed { offset: 0x1000, reason: Reason::NotMapped(_) }));
        assert_eq!((bytes[0xfff], bytes[0x1000], bytes[0x1fff], bytes[0x2000]), (1, FILLER, FILLER, 3));
        assert_eq!((bytes[0x37ff], bytes[0x3800], bytes[0x38ff], bytes[0x3900]), (4, FILLER, FILLER, 4));
    }
}

#[test]
fn long_read_of_nothing_walks_entries_and_not_pages() {
    let machine = machine(PagingMode::X64, &[]).build().unwrap();
    let memory = Arc::new(called(&machine));
    let view = SpaceView::new(memory.clone(), machine.space.clone());
    let mut bytes = vec![0; 64 << 20];
    assert!(view.read_into(VirtAddr::new(0x7f00_0000_0000), &mut bytes).unwrap_err().is_not_mapped());
    let log = memory.take_log();
    assert_eq!(log.iter().map(|call| call.ops).sum::<usize>(), 1);
}

#[test]
fn writes_through_a_view_are_seen_by_it() {
    let (memory, space) =
        machine(PagingMode::Pae, &[(0x8000_0000, 0x40000, PageSize::KIB_4), (0x8000_1000, 0x50000, PageSize::KIB_4)])
            .build_writable()
            .unwrap();
    let view = SpaceView::new(memory.clone(), space);
    view.write(VirtAddr::new(0x8000_0ffc), &0x1122_3344_5566_7788u64).unwrap();
    assert_eq!(view.read::<u64>(VirtAddr::new(0x8000_0ffc)).unwrap(), 0x1122_3344_5566_7788);
    let mut half = [0; 4];
    memory.read_batch(&mut [PhysRead::new(PhysAddr::new(0x50000), &mut half)]).unwrap();
    assert_eq!(u32::from_le_bytes(half), 0x1122_3344);
    assert!(!view.metadata().read_only);
    assert_eq!(view.metadata().pointer_size, 4);
}

/// 48 MiB of pages of 4 KiB, 2 MiB and 1 GiB whose words hold their own place, with a page that is missing in the middle.
fn long_machine() -> (SpaceView, Vec<u8>) {
    const LEN: u64 = 48 << 20;
    const PHYS: u64 = 0x4000_0000;
    let mut bytes = vec![0; 1 << 20];
    bytes.extend((0..LEN / 8).flat_map(|word| word.to_le_bytes()));
    let entry = |bytes: &mut Vec<u8>, at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    // Root, then 16 MiB as a page of 1 GiB, 16 MiB of 2 MiB, 16 MiB of 4 KiB.
    entry(&mut bytes, 0x1000, 0x2003);
    entry(&mut bytes, 0x2000, 0x3003);
    entry(&mut bytes, 0x2008, PHYS | 0x83);
    for large in 0..8 {
        entry(&mut bytes, 0x3000 + (496 + large) * 8, (PHYS + (16 << 20) + ((large as u64) << 21)) | 0x83);
        let table = 0x10000 + large * 0x1000;
        entry(&mut bytes, 0x3000 + (504 + large) * 8, table as u64 | 3);
        for page in 0..512 {
            // In pairs that have changed places, so that there are many pieces.
            let frame = PHYS + (32 << 20) + ((large as u64) << 21) + ((page as u64 ^ 1) << 12);
            entry(&mut bytes, table + page * 8, frame | 3);
        }
    }
    let run = |start, len, offset| Run { range: PhysRange::new(PhysAddr::new(start), len).unwrap(), offset };
    let runs = [run(0, 1 << 20, 0), run(PHYS, LEN, 1 << 20)];
    let config = SourceConfig { name: "long".into(), runs: RunMap::new(runs).unwrap(), facts: TargetFacts::default() };
    let memory = Arc::new(BufferMemory::new(config, bytes).unwrap());
    let view = SpaceView::new(memory, AddressSpace::new(&x86::X64, 0x1000));
    // By virtual address from the first page of 2 MiB on: those, small ones, then the one of 1 GiB.
    let word = |at: u64| (at / 8).to_le_bytes();
    let small = (0..16 << 20).step_by(8).map(|at: u64| (32 << 20) + (at ^ 0x1000));
    let places = (16 << 20..32 << 20).step_by(8).chain(small).chain((0..16 << 20).step_by(8));
    (view, places.flat_map(word).collect())
}

#[test]
fn long_reads_are_exact_whoever_does_them() {
    let (view, bytes) = long_machine();
    let start = VirtAddr::new(496 << 21);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (from, len) in [(0, bytes.len()), (3, (32 << 20) - 1), (0x1ff_fff7, 0x100_0009), (5, 17 << 20)] {
        let mut buf = vec![FILLER; len];
        view.read_into(start.wrapping_add(from as u64), &mut buf).unwrap();
        assert!(buf == bytes[from..from + len], "{len} bytes at {from}");
        buf.fill(FILLER);
        one.install(|| view.read_into(start.wrapping_add(from as u64), &mut buf)).unwrap();
        assert!(buf == bytes[from..from + len], "{len} bytes at {from}, one thread");
    }
    // Several in a batch, one that is short, and one that runs into what is not mapped.
    let mut bufs = [vec![FILLER; 20 << 20], vec![FILLER; 8], vec![FILLER; 0x3000], vec![FILLER; 50 << 20]];
    let at = [0, 40 << 20, 0x1ff_f000, 32 << 20];
    let mut ops: Vec<_> = bufs.iter_mut().zip(at).map(|(buf, at)| ViewRead::new(start.wrapping_add(at), buf)).collect();
    view.read_batch(&mut ops).unwrap_err();
    let outcomes: Vec<_> = ops.iter().map(|op| op.outcome).collect();
    assert!(outcomes[..3].iter().all(Outcome::is_done), "{outcomes:?}");
    let missing = Reason::NotInImage { phys: PhysAddr::new(0x4000_0000 + (48 << 20)) };
    assert_eq!(outcomes[3], Outcome::Failed { offset: 48 << 20, reason: missing });
    for (buf, at) in bufs[..3].iter().zip(at) {
        let at = at as usize;
        assert!(*buf == bytes[at..at + buf.len()]);
    }
    assert!(bufs[3][..16 << 20] == bytes[32 << 20..] && bufs[3][48 << 20..].iter().all(|byte| *byte == FILLER));
}

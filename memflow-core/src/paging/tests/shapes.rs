//! Batches of every size and order through tables in place, which choose their way by both, against the oracle.

use std::{collections::HashMap, sync::Arc};

use proptest::prelude::*;

use super::plan::{Random, called, plan, shuffle};
use crate::{
    address::{PageSize, PhysAddr, VirtAddr},
    error::Reason,
    memory::{BufferMemory, PhysRead, PhysicalMemory, Run, RunMap, SourceConfig, TargetFacts, ViewRead},
    paging::{AddressSpace, MaybePhys, TranslateOp, Translation},
    testkit::{Machine, MachineBuilder, PagingMode, entry_bits::PRESENT, oracle},
    view::{MemoryView, MemoryViewExt, SpaceView},
};

/// How the addresses of a batch follow each other.
#[derive(Clone, Copy, Debug)]
enum Order {
    Random,
    Ascending,
    /// Each address, then others of the same page.
    Clustered,
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Random), Just(Order::Ascending), Just(Order::Clustered)]
}

/// Sizes at which a batch is walked in another way, and around them.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..40, 180usize..260, 1000usize..1100, 2000usize..2500]
}

/// A batch of addresses made of those of a plan.
fn batch(probes: &[VirtAddr], size: usize, order: Order, seed: u64) -> Vec<VirtAddr> {
    let mut random = Random(seed);
    let mut addresses = Vec::with_capacity(size);
    while addresses.len() < size {
        let addr = probes[random.below(probes.len() as u64) as usize];
        addresses.push(addr);
        if let Order::Clustered = order {
            addresses.extend((0..20).map(|_| VirtAddr::new(addr.as_u64() ^ random.below(0x1000))));
        }
    }
    addresses.truncate(size);
    match order {
        Order::Random => shuffle(&mut addresses, seed),
        Order::Ascending => addresses.sort_unstable(),
        Order::Clustered => {}
    }
    addresses
}

/// What the oracle says of each address, asked once for each.
fn answers(machine: &Machine, addresses: &[VirtAddr]) -> Vec<Result<Translation, Reason>> {
    let mut known = HashMap::new();
    let ask = |addr: &VirtAddr| oracle::translate(&*machine.memory, machine.mode, machine.root, *addr);
    addresses.iter().map(|addr| *known.entry(*addr).or_insert_with(|| ask(addr))).collect()
}

/// The physical addresses among answers.
fn phys(answers: &[Result<Translation, Reason>]) -> Vec<Option<PhysAddr>> {
    answers.iter().map(|answer| answer.ok().map(|found| found.phys)).collect()
}

/// The short answers of a batch.
fn short(space: &AddressSpace, memory: &dyn PhysicalMemory, addresses: &[VirtAddr]) -> Vec<Option<PhysAddr>> {
    let mut found = vec![MaybePhys::new(PhysAddr::new(0x1234)); addresses.len()];
    let missing = space.translate_to(memory, addresses, &mut found);
    assert_eq!(missing, found.iter().filter(|found| found.get().is_none()).count());
    found.iter().map(|found| found.get()).collect()
}

/// The same memory in a buffer that starts `by` bytes later, so that no entry is aligned in this process.
fn shifted(machine: &Machine, by: u64) -> BufferMemory {
    let runs = machine.memory.metadata().runs;
    let mut bytes = vec![0xff; by as usize];
    let mut moved = Vec::new();
    for run in runs.runs() {
        let mut piece = vec![0; run.range.len() as usize];
        machine.memory.read_batch(&mut [PhysRead::new(run.range.start(), &mut piece)]).unwrap();
        moved.push(Run { range: run.range, offset: bytes.len() as u64 });
        bytes.extend(piece);
    }
    let runs = RunMap::new(moved).unwrap();
    BufferMemory::new(SourceConfig { name: "shifted".into(), runs, facts: TargetFacts::default() }, bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batch_of_any_shape_says_what_the_oracle_says(
        plan in plan(), size in size(), order in order(), seed in any::<u64>(), by in 0u64..9,
    ) {
        let (machine, probes) = plan.build();
        let addresses = batch(&probes, size, order, seed);
        let expected = answers(&machine, &addresses);
        let mut ops: Vec<TranslateOp> = addresses.iter().map(|addr| TranslateOp::new(*addr)).collect();
        machine.space.translate_batch(&*machine.memory, &mut ops);
        for (op, expected) in ops.iter().zip(&expected) {
            prop_assert_eq!(op.outcome, Some(*expected), "{}", op.addr);
        }
        prop_assert_eq!(short(&machine.space, &*machine.memory, &addresses), phys(&expected));
        let memory = shifted(&machine, by);
        prop_assert_eq!(short(&machine.space, &memory, &addresses), phys(&expected), "shifted by {}", by);
        let mut ops: Vec<TranslateOp> = addresses.iter().map(|addr| TranslateOp::new(*addr)).collect();
        machine.space.translate_batch(&memory, &mut ops);
        for (op, expected) in ops.iter().zip(&expected) {
            prop_assert_eq!(op.outcome, Some(*expected), "{} shifted by {}", op.addr, by);
            prop_assert_eq!(machine.space.translate(&memory, op.addr), *expected, "{} shifted by {}", op.addr, by);
        }
    }

    #[test]
    fn reads_of_any_shape_are_those_of_one_at_a_time(
        plan in plan(), size in size(), order in order(), seed in any::<u64>(), len in prop_oneof![Just(8usize), 0usize..24],
    ) {
        let (machine, probes) = plan.build();
        let addresses = batch(&probes, size, order, seed);
        let view = SpaceView::new(machine.memory.clone(), machine.space.clone());
        let mut buffers = vec![[0xee; 24]; size];
        let mut ops: Vec<_> =
            addresses.iter().zip(&mut buffers).map(|(addr, buf)| ViewRead::new(*addr, &mut buf[..len])).collect();
        let result = view.read_batch(&mut ops);
        let outcomes: Vec<_> = ops.iter().map(|op| op.outcome).collect();
        prop_assert_eq!(result.is_ok(), outcomes.iter().all(|outcome| outcome.is_done()));
        let mut known = HashMap::new();
        for ((addr, buffer), outcome) in addresses.iter().zip(&buffers).zip(outcomes) {
            let (bytes, expected) = *known.entry(*addr).or_insert_with(|| {
                let mut alone = [0xee; 24];
                let mut ops = [ViewRead::new(*addr, &mut alone[..len])];
                let _ = view.read_batch(&mut ops);
                let [op] = ops;
                let outcome = op.outcome;
                (alone, outcome)
            });
            prop_assert_eq!(outcome, expected, "{} bytes at {}", len, addr);
            prop_assert_eq!(*buffer, bytes, "{} bytes at {}", len, addr);
        }
    }

    #[test]
    fn values_of_any_shape_are_those_of_reads(
        plan in plan(), size in size(), order in order(), seed in any::<u64>(), by_call in any::<bool>(),
    ) {
        let (machine, probes) = plan.build();
        let addresses = batch(&probes, size, order, seed);
        let memory: Arc<dyn PhysicalMemory> =
            if by_call { Arc::new(called(&machine)) } else { machine.memory.clone() };
        let view = SpaceView::new(memory, machine.space.clone());
        values_are_those_of_reads::<u64>(&view, &addresses)?;
        values_are_those_of_reads::<u32>(&view, &addresses)?;
        values_are_those_of_reads::<[u8; 3]>(&view, &addresses)?;
    }
}

fn values_are_those_of_reads<T: dataview::Pod + PartialEq + std::fmt::Debug>(
    view: &SpaceView,
    addresses: &[VirtAddr],
) -> Result<(), TestCaseError> {
    let mut values: Vec<T> = addresses.iter().map(|_| dataview::zeroed()).collect();
    let read = view.read_values(addresses, &mut values).unwrap();
    let mut missing = read.missing.iter().peekable();
    for (index, (addr, value)) in addresses.iter().zip(&values).enumerate() {
        let alone = view.read::<T>(*addr);
        match missing.next_if(|missing| missing.index == index) {
            Some(missing) => prop_assert_eq!(Some(missing.reason), alone.unwrap_err().reason(), "{}", addr),
            None => prop_assert_eq!(value, &alone.unwrap(), "{}", addr),
        }
    }
    prop_assert!(missing.next().is_none());
    Ok(())
}

#[test]
fn answers_without_an_address_and_addresses_without_an_answer_are_told() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    builder.map(VirtAddr::new(0x7000), PhysAddr::new(0x5000), PageSize::KIB_4, PRESENT).unwrap();
    let machine = builder.build().unwrap();
    let memory = called(&machine);
    let here: [&dyn PhysicalMemory; 2] = [&*machine.memory, &memory];
    for memory in here {
        for (addresses, places, missing) in [(0, 0, 0), (0, 2, 0), (1, 0, 1), (1, 3, 0), (20, 18, 2), (18, 20, 0)] {
            let addresses = vec![VirtAddr::new(0x7123); addresses];
            let mut found = vec![MaybePhys::new(PhysAddr::new(0x666)); places];
            assert_eq!(machine.space.translate_to(memory, &addresses, &mut found), missing);
            let expected = |index| (index < addresses.len()).then_some(PhysAddr::new(0x5123));
            for (index, found) in found.iter().enumerate() {
                assert_eq!(found.get(), expected(index), "{index} of {places} for {}", addresses.len());
            }
        }
    }
    let view = SpaceView::new(machine.memory.clone(), machine.space.clone());
    let error = view.read_values(&[VirtAddr::new(0x7000)], &mut [0_u64; 2]).unwrap_err();
    assert_eq!(error.to_string(), "places for values: expected 1, one for each address, found `2`");
}

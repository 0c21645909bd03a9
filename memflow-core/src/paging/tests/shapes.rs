//! Batches of every size and order through tables in place, which choose their way by both, against the oracle.

use std::collections::HashMap;

use proptest::prelude::*;

use super::plan::{Random, plan, shuffle};
use crate::{
    address::VirtAddr,
    error::Reason,
    memory::{BufferMemory, PhysRead, PhysicalMemory, Run, RunMap, SourceConfig, TargetFacts, ViewRead},
    paging::{TranslateOp, Translation},
    testkit::{Machine, oracle},
    view::{MemoryView, SpaceView},
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
        let memory = shifted(&machine, by);
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
}

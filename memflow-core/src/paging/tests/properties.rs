//! The same properties for every path from a virtual address to a physical one.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::plan::{called, plan, shuffle};
use crate::{
    address::{PhysAddr, VirtAddr},
    error::{Error, Reason, StopCause},
    memory::PhysicalMemory,
    paging::{AddressSpace, Architecture, MapBudget, MappedRun, MaybePhys, TranslateOp, Translation},
    testkit::{Machine, oracle},
};

type Answers = Vec<Result<Translation, Reason>>;

fn mapped_single(machine: &Machine, addresses: &[VirtAddr]) -> Answers {
    addresses.iter().map(|addr| machine.space.translate(&*machine.memory, *addr)).collect()
}

fn called_single(machine: &Machine, addresses: &[VirtAddr]) -> Answers {
    let memory = called(machine);
    addresses
        .iter()
        .map(|addr| {
            let answer = machine.space.translate(&memory, *addr);
            assert!(memory.take_log().len() <= machine.space.architecture().levels.len());
            answer
        })
        .collect()
}

fn mapped_batch(machine: &Machine, addresses: &[VirtAddr]) -> Answers {
    let mut ops: Vec<TranslateOp> = addresses.iter().map(|addr| TranslateOp::new(*addr)).collect();
    machine.space.translate_batch(&*machine.memory, &mut ops);
    ops.iter().map(|op| op.outcome.unwrap()).collect()
}

fn mapped_translator(machine: &Machine, addresses: &[VirtAddr]) -> Answers {
    let translator = machine.space.over(&*machine.memory);
    addresses.iter().map(|addr| translator.translate(*addr)).collect()
}

/// As on a processor without vector registers.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn mapped_batch_without_lanes(machine: &Machine, addresses: &[VirtAddr]) -> Answers {
    crate::memory::REFUSED.set(true);
    let answers = mapped_batch(machine, addresses);
    crate::memory::REFUSED.set(false);
    answers
}

fn called_batch(machine: &Machine, addresses: &[VirtAddr]) -> Answers {
    let memory = called(machine);
    let mut ops: Vec<TranslateOp> = addresses.iter().map(|addr| TranslateOp::new(*addr)).collect();
    machine.space.translate_batch(&memory, &mut ops);
    assert!(memory.call_count() <= machine.space.architecture().levels.len(), "{:?}", memory.take_log());
    ops.iter().map(|op| op.outcome.unwrap()).collect()
}

macro_rules! every_path {
    ($($path:ident),*) => {$(
        mod $path {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn agrees_with_the_oracle(plan in plan(), seed in any::<u64>(), more in prop::collection::vec(any::<u64>(), 0..8)) {
                    let (machine, mut addresses) = plan.build();
                    addresses.extend(more.into_iter().map(VirtAddr::new));
                    shuffle(&mut addresses, seed);
                    let answers = super::$path(&machine, &addresses);
                    prop_assert_eq!(answers.len(), addresses.len());
                    for (addr, answer) in addresses.iter().zip(answers) {
                        let expected = oracle::translate(&*machine.memory, machine.mode, machine.root, *addr);
                        prop_assert_eq!(answer, expected, "{}", addr);
                    }
                }
            }
        }
    )*};
}

every_path!(mapped_single, mapped_translator, called_single, mapped_batch, called_batch);
#[cfg(all(target_arch = "x86_64", not(miri)))]
every_path!(mapped_batch_without_lanes);

type ShortAnswers = Vec<Option<PhysAddr>>;

fn short(space: &AddressSpace, memory: &dyn PhysicalMemory, addresses: &[VirtAddr]) -> ShortAnswers {
    // Whatever was there before is gone afterwards.
    let mut found = vec![MaybePhys::new(PhysAddr::new(0x1234)); addresses.len()];
    let missing = space.translate_to(memory, addresses, &mut found);
    assert_eq!(missing, found.iter().filter(|found| found.get().is_none()).count());
    found.iter().map(|found| found.get()).collect()
}

fn short_mapped(machine: &Machine, addresses: &[VirtAddr]) -> ShortAnswers {
    short(&machine.space, &*machine.memory, addresses)
}

fn short_one_by_one(machine: &Machine, addresses: &[VirtAddr]) -> ShortAnswers {
    addresses.iter().flat_map(|addr| short(&machine.space, &*machine.memory, &[*addr])).collect()
}

fn short_translator(machine: &Machine, addresses: &[VirtAddr]) -> ShortAnswers {
    let translator = machine.space.over(&*machine.memory);
    addresses.iter().map(|addr| translator.phys(*addr)).collect()
}

fn short_translator_one_a_call(machine: &Machine, addresses: &[VirtAddr]) -> ShortAnswers {
    let translator = machine.space.over(&*machine.memory);
    let mut found = vec![MaybePhys::new(PhysAddr::new(0x1234)); addresses.len()];
    for (addr, found) in addresses.chunks(1).zip(found.chunks_mut(1)) {
        let missing = translator.translate_to(addr, found);
        assert_eq!(missing, found.iter().filter(|found| found.get().is_none()).count());
    }
    found.iter().map(|found| found.get()).collect()
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn short_without_lanes(machine: &Machine, addresses: &[VirtAddr]) -> ShortAnswers {
    crate::memory::REFUSED.set(true);
    let answers = short_mapped(machine, addresses);
    crate::memory::REFUSED.set(false);
    answers
}

fn short_called(machine: &Machine, addresses: &[VirtAddr]) -> ShortAnswers {
    let memory = called(machine);
    let answers = short(&machine.space, &memory, addresses);
    assert!(memory.call_count() <= machine.space.architecture().levels.len(), "{:?}", memory.take_log());
    answers
}

/// A mode of one's own: the same data in another place, for which nothing is specialised.
fn short_of_foreign_mode(machine: &Machine, addresses: &[VirtAddr]) -> ShortAnswers {
    let foreign = Box::leak(Box::new(Architecture { name: "foreign", ..*machine.space.architecture() }));
    short(&AddressSpace::new(foreign, machine.space.root().as_u64()), &*machine.memory, addresses)
}

macro_rules! every_short_path {
    ($($path:ident),*) => {$(
        mod $path {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn says_the_physical_address_of_the_oracle(
                    plan in plan(), seed in any::<u64>(), more in prop::collection::vec(any::<u64>(), 0..8),
                ) {
                    let (machine, mut addresses) = plan.build();
                    addresses.extend(more.into_iter().map(VirtAddr::new));
                    shuffle(&mut addresses, seed);
                    let answers = super::$path(&machine, &addresses);
                    prop_assert_eq!(answers.len(), addresses.len());
                    for (addr, answer) in addresses.iter().zip(answers) {
                        let expected = oracle::translate(&*machine.memory, machine.mode, machine.root, *addr);
                        prop_assert_eq!(answer, expected.ok().map(|found| found.phys), "{}", addr);
                    }
                }
            }
        }
    )*};
}

every_short_path!(
    short_mapped,
    short_one_by_one,
    short_translator,
    short_translator_one_a_call,
    short_called,
    short_of_foreign_mode
);
#[cfg(all(target_arch = "x86_64", not(miri)))]
every_short_path!(short_without_lanes);

/// The whole map of a machine, in place and through calls, which must agree.
fn map_both_ways(machine: &Machine, budget: MapBudget) -> Result<(Vec<MappedRun>, crate::paging::MapSummary), Error> {
    let memory = called(machine);
    let mut runs = Vec::new();
    let here = machine.space.map(&*machine.memory, None, budget, &mut |run| {
        runs.push(run);
        ControlFlow::Continue(())
    });
    let mut called_runs = Vec::new();
    let there = machine.space.map(&memory, None, budget, &mut |run| {
        called_runs.push(run);
        ControlFlow::Continue(())
    });
    match (here, there) {
        (Ok(here), Ok(there)) => {
            assert_eq!(runs, called_runs);
            assert_eq!(here, there);
            Ok((runs, here))
        }
        (Err(here), Err(_)) => Err(here),
        (here, there) => panic!("{here:?} in place, {there:?} through calls"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn map_says_what_the_oracle_says(plan in plan()) {
        let (machine, addresses) = plan.build();
        let budget = MapBudget { tables: 20_000, runs: 100_000 };
        let (runs, summary) = match map_both_ways(&machine, budget) {
            Ok(found) => found,
            Err(Error::Limit { .. }) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        for pair in runs.windows(2) {
            let (one, next) = (&pair[0], &pair[1]);
            prop_assert!(one.virt.last() < Some(next.virt.start()), "ascending and disjoint");
            let joined = one.virt.end() == Some(next.virt.start()) && one.phys.checked_add(one.virt.len()) == Some(next.phys);
            prop_assert!(!joined || one.flags != next.flags || one.page != next.page, "{:?} {:?} could be one", one, next);
        }
        let edges = runs.iter().flat_map(|run| {
            let (first, last) = (run.virt.start(), run.virt.last().unwrap());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
        });
        for addr in edges.take(400).chain(addresses) {
            let run = runs.iter().find(|run| run.virt.contains(addr));
            let hole = summary.holes.iter().find(|hole| hole.range.contains(addr));
            match oracle::translate(&*machine.memory, machine.mode, machine.root, addr) {
                Ok(expected) => {
                    let run = run.unwrap();
                    let phys = run.phys.wrapping_add(addr.offset_from(run.virt.start()).unwrap());
                    prop_assert_eq!((phys, run.page, run.flags), (expected.phys, expected.page, expected.flags));
                    prop_assert!(hole.is_none());
                }
                Err(reason) => {
                    prop_assert!(run.is_none(), "{} is in {:?}, the oracle says {}", addr, run, reason);
                    let unreadable = matches!(reason, Reason::NotMapped(stop) if stop.cause == StopCause::TableNotInImage);
                    prop_assert_eq!(hole.map(|hole| hole.reason), unreadable.then_some(reason));
                }
            }
        }
    }

    #[test]
    fn physical_address_leads_back_to_every_virtual_one(plan in plan()) {
        let (machine, addresses) = plan.build();
        let memory = &*machine.memory;
        let budget = MapBudget { tables: 20_000, runs: 100_000 };
        for addr in addresses.iter().step_by(7) {
            let Ok(found) = machine.space.translate(memory, *addr) else { continue };
            let back = match machine.space.phys_to_virt(memory, found.phys, budget) {
                Ok(back) => back,
                Err(Error::Limit { .. }) => return Ok(()),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            prop_assert!(back.addresses.contains(addr));
            prop_assert!(back.addresses.is_sorted());
            for other in &back.addresses {
                let expected = oracle::translate(memory, machine.mode, machine.root, *other).unwrap();
                prop_assert_eq!(expected.phys, found.phys);
            }
        }
    }

    #[test]
    fn map_of_a_range_is_the_part_of_the_map(plan in plan(), from in any::<prop::sample::Index>(), len in 1u64..0x80_0000) {
        let (machine, addresses) = plan.build();
        let budget = MapBudget { tables: 20_000, runs: 100_000 };
        let Ok((runs, _)) = map_both_ways(&machine, budget) else { return Ok(()) };
        let start = *from.get(&addresses);
        let Some(range) = crate::VirtRange::new(start, len) else { return Ok(()) };
        let mut part = Vec::new();
        let summary = machine.space.map(&*machine.memory, Some(range), budget, &mut |run| {
            part.push(run);
            ControlFlow::Continue(())
        }).unwrap();
        let expected: Vec<MappedRun> = runs.iter().filter_map(|run| {
            let virt = run.virt.intersection(&range)?;
            let skipped = virt.start().offset_from(run.virt.start())?;
            Some(MappedRun { virt, phys: PhysAddr::new(run.phys.as_u64() + skipped), ..*run })
        }).collect();
        prop_assert_eq!(part, expected);
        prop_assert!(summary.holes.iter().all(|hole| range.intersection(&hole.range) == Some(hole.range)));
    }
}

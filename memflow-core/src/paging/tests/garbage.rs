//! Random bytes as page tables: whatever they are, the walker and the oracle agree, and everything ends.

use std::{ops::ControlFlow, time::Instant};

use super::plan::{Random, called};
use crate::{
    address::{PhysAddr, VirtAddr},
    error::Error,
    paging::{MapBudget, TranslateOp},
    testkit::{Machine, MachineBuilder, PagingMode, entry_bits::*, oracle},
};

const MEMORY: u64 = 16 << 10;

/// A machine whose memory is noise; most entries lead to places in that memory, so that walks go deep.
fn machine(mode: PagingMode, random: &mut Random) -> Machine {
    let mut builder = MachineBuilder::new(mode, MEMORY).unwrap();
    let mut bytes = vec![0; MEMORY as usize];
    let wild = random.below(4) == 0;
    for chunk in bytes.chunks_exact_mut(mode.entry_bytes() as usize) {
        let noise = random.next();
        let entry = match random.below(8) {
            _ if wild => noise,
            0 => noise,
            1 => 0,
            2 => noise & !PRESENT,
            3 => noise & (MEMORY - 1) | PRESENT | LARGE,
            // The root of PAE must have its rights bits clear.
            4 => noise & (MEMORY - 1) & !0xfff | PRESENT,
            _ => noise & (MEMORY - 1) & !LARGE & !0x1e6 | PRESENT | noise & NO_EXECUTE,
        };
        chunk.copy_from_slice(&entry.to_le_bytes()[..chunk.len()]);
    }
    builder.write(PhysAddr::new(0), &bytes).unwrap();
    builder.build().unwrap()
}

#[test]
fn ten_thousand_memories_of_noise() {
    let mut random = Random(3);
    let budget = MapBudget { tables: 24, runs: 400 };
    for case in 0..10_000 {
        let mode = PagingMode::ALL[case % PagingMode::ALL.len()];
        let machine = machine(mode, &mut random);
        let mut ops: Vec<TranslateOp> = (0..12)
            .map(|nth| {
                let noise = random.next();
                let addr = match mode {
                    _ if nth == 0 => noise,
                    PagingMode::X64 => ((noise as i64) << 16 >> 16) as u64,
                    PagingMode::La57 => ((noise as i64) << 7 >> 7) as u64,
                    _ => noise & 0xffff_ffff,
                };
                TranslateOp::new(VirtAddr::new(addr))
            })
            .collect();
        let memory = called(&machine);
        machine.space.translate_batch(&memory, &mut ops);
        for op in &ops {
            let expected = oracle::translate(&*machine.memory, mode, machine.root, op.addr);
            assert_eq!(op.outcome, Some(expected), "case {case}, {}", op.addr);
            assert_eq!(machine.space.translate(&*machine.memory, op.addr), expected, "case {case}, {}", op.addr);
        }
        let mut runs = 0;
        let result = machine.space.map(&*machine.memory, None, budget, &mut |_| {
            runs += 1;
            ControlFlow::Continue(())
        });
        match result {
            Ok(summary) => assert_eq!(summary.runs, runs),
            Err(Error::Limit { .. }) => assert!(runs <= budget.runs),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Every entry of the only table leads to that table.
fn self_pointing(mode: PagingMode) -> Machine {
    let mut builder = MachineBuilder::new(mode, 0x4000).unwrap();
    let table = builder.root().as_u64() & !0xfff;
    let rights = if mode == PagingMode::Pae { 0 } else { WRITABLE | USER };
    for at in (table..table + 0x1000).step_by(mode.entry_bytes() as usize) {
        builder.set_entry(PhysAddr::new(at), table | PRESENT | rights).unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn tables_that_point_to_themselves_end_at_the_budget() {
    let started = Instant::now();
    for mode in [PagingMode::X64, PagingMode::La57] {
        let machine = self_pointing(mode);
        let found = machine.space.translate(&*machine.memory, VirtAddr::new(0xffff_ffff_1234_5678)).unwrap();
        assert_eq!(found.phys, PhysAddr::new(0x1678));
        let budget = MapBudget { tables: 1000, runs: u64::MAX };
        let error = machine.space.map(&*machine.memory, None, budget, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, Error::Limit { limit: 1000, .. }), "{error}");
        let budget = MapBudget { tables: u64::MAX, runs: 1000 };
        let mut runs = 0;
        let error = machine
            .space
            .map(&*machine.memory, None, budget, &mut |_| {
                runs += 1;
                ControlFlow::Continue(())
            })
            .unwrap_err();
        assert!(matches!(error, Error::Limit { limit: 1000, .. }), "{error}");
        assert_eq!(runs, 1000);
        let error = machine.space.phys_to_virt(
            &*machine.memory,
            PhysAddr::new(0x9000),
            MapBudget { tables: 1000, runs: 1 << 20 },
        );
        assert!(matches!(error, Err(Error::Limit { .. })));
    }
    // The narrow modes end by themselves: four gigabytes are a million pages at most.
    for mode in [PagingMode::X86, PagingMode::Pae] {
        let machine = self_pointing(mode);
        let summary = machine
            .space
            .map(&*machine.memory, None, MapBudget::default(), &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(summary.runs, 1 << 20, "{mode:?}");
    }
    assert!(started.elapsed().as_secs() < 30, "took {:?}", started.elapsed());
}

#[test]
fn zeroed_tables_map_nothing() {
    for mode in PagingMode::ALL {
        let machine = MachineBuilder::new(mode, 0x4000).unwrap().build().unwrap();
        let summary =
            machine.space.map(&*machine.memory, None, MapBudget::default(), &mut |_| ControlFlow::Break(())).unwrap();
        assert_eq!((summary.runs, summary.holes.len()), (0, 0));
        assert!(machine.space.translate(&*machine.memory, VirtAddr::new(0)).is_err());
    }
}

//! The target for page tables: bytes as physical memory.
//!
//! Owns: the agreement of every way to walk: in place, called for, batched, mapped out, and the testkit's slow walker.
//! Must not know: formats of entries.

use std::ops::ControlFlow;

use memflow_core::{
    VirtAddr,
    error::{Error, Reason},
    memory::{BufferMemory, RunMap, SourceConfig, TargetFacts},
    paging::{AddressSpace, MapBudget, MappedRun, MaybePhys, TranslateOp, Translation},
    testkit::{PagingMode, ScriptedMemory, oracle},
};

/// Tables that point to each other map more than anybody wants to hear of.
const BUDGET: MapBudget = MapBudget { tables: 12, runs: 48 };
/// Addresses taken from the end of the input.
const ADDRESSES: usize = 6;

/// Page tables. The first eight bytes are the root register, the rest is physical memory; addresses come from its last words.
pub fn paging(data: &[u8]) {
    let Some((root, bytes)) = data.split_first_chunk() else { return };
    let runs = RunMap::flat(bytes.len() as u64);
    let config = SourceConfig { name: "input".into(), runs, facts: TargetFacts::default() };
    let Ok(memory) = BufferMemory::new(config, bytes.to_vec()) else { panic!("all runs lie in the buffer") };
    let called = ScriptedMemory::new(memory);
    let words = bytes.rchunks_exact(8).take(ADDRESSES).flat_map(<[u8]>::first_chunk);
    let addresses: Vec<u64> = words.copied().map(u64::from_le_bytes).collect();
    for mode in PagingMode::ALL {
        walk(mode, u64::from_le_bytes(*root), &called, &addresses);
    }
}

fn walk(mode: PagingMode, root: u64, called: &ScriptedMemory<BufferMemory>, addresses: &[u64]) {
    let (space, memory) = (AddressSpace::new(mode.architecture(), root), called.inner());
    let low = addresses.iter().map(|addr| addr & 0xffff_ffff);
    let asked = addresses.iter().copied().chain(low).chain([0, u64::MAX, 0xffff_8000_0000_0000, 0xff00_0000_0000_0000]);
    let mut ops: Vec<TranslateOp> = asked.map(|addr| TranslateOp::new(VirtAddr::new(addr))).collect();
    space.translate_batch(called, &mut ops);
    for op in &ops {
        let expected = oracle::translate(memory, mode, space.root(), op.addr);
        assert_eq!(op.outcome, Some(expected), "{mode:?} batch, {}", op.addr);
        assert_eq!(space.translate(memory, op.addr), expected, "{mode:?} in place, {}", op.addr);
    }
    let addresses: Vec<VirtAddr> = ops.iter().map(|op| op.addr).collect();
    let mut found = vec![MaybePhys::NONE; ops.len()];
    space.translate_to(memory, &addresses, &mut found);
    for (op, found) in ops.iter().zip(found) {
        let expected = op.outcome.and_then(|outcome| outcome.ok().map(|page| page.phys));
        assert_eq!(found.get(), expected, "{mode:?} short, {}", op.addr);
    }
    let (in_place, complete) = map(&space, memory);
    let (by_calls, complete_by_calls) = map(&space, called);
    assert_eq!(complete, complete_by_calls, "{mode:?}");
    // Tables that are called for are paid for some at a time, so a budget that is not enough ends earlier.
    let ended_early = !complete && in_place.starts_with(&by_calls);
    assert!(in_place == by_calls || ended_early, "{mode:?}: {in_place:?}, {by_calls:?}");
    for run in in_place {
        check_run(mode, &space, memory, run);
    }
}

/// The runs of a space, and whether the budget was enough.
fn map(space: &AddressSpace, memory: &dyn memflow_core::PhysicalMemory) -> (Vec<MappedRun>, bool) {
    let mut runs = Vec::new();
    let result = space.map(memory, None, BUDGET, &mut |run| {
        runs.push(run);
        ControlFlow::Continue(())
    });
    match result {
        Ok(summary) => assert_eq!(summary.runs, runs.len() as u64),
        Err(Error::Limit { .. }) => return (runs, false),
        Err(other) => panic!("{other}"),
    }
    (runs, true)
}

/// The first and last address of a run lead where it says.
fn check_run(mode: PagingMode, space: &AddressSpace, memory: &BufferMemory, run: MappedRun) {
    let ends = [0, run.virt.len() - 1];
    for offset in ends {
        let found: Result<Translation, Reason> =
            oracle::translate(memory, mode, space.root(), run.virt.start().wrapping_add(offset));
        let Ok(found) = found else { panic!("{mode:?} {run:?} at {offset:#x}: {found:?}") };
        assert_eq!((found.phys, found.page, found.flags), (run.phys.wrapping_add(offset), run.page, run.flags));
    }
}

//! What translations through called tables may show of tables that others write to, and for how long: any sequence of walks, writes and
//! time against tables that remember everything they ever held.
//!
//! Must not know: how answers are held.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use proptest::prelude::*;

use crate::{
    address::{PageSize, PhysAddr, VirtAddr},
    error::Result,
    memory::{LookasideLayer, PhysWrite, PhysicalMemory},
    paging::{AddressSpace, TranslateOp},
    testkit::{LockedMemory, MachineBuilder, PagingMode, ScriptedMemory, entry_bits::*},
};

const RWU: u64 = PRESENT | WRITABLE | USER;
/// Ticks for which an answer is used.
const LIMIT: u64 = 10;

fn write(memory: &dyn PhysicalMemory, at: PhysAddr, entry: u64) -> Result<()> {
    memory.write_batch(&mut [PhysWrite::new(at, &entry.to_le_bytes())])
}

/// Two ways in each table of four levels: sixteen addresses.
struct Tables {
    target: Arc<LockedMemory>,
    space: AddressSpace,
    addresses: Vec<VirtAddr>,
    /// Each entry, and what it can lead to: the tables or pages of its level.
    entries: Vec<(PhysAddr, Vec<u64>)>,
    /// What each entry ever held.
    held: BTreeMap<PhysAddr, Vec<Held>>,
    root: PhysAddr,
}

/// What an entry held until a step that came at a tick.
#[derive(Clone, Copy, Debug)]
struct Held {
    value: u64,
    gone: Option<(u64, u64)>,
}

/// The bits of an entry that are an address.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

const SHIFTS: [u32; 4] = [39, 30, 21, 12];

fn tables() -> Tables {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x80000).unwrap();
    let mut levels: [BTreeSet<(PhysAddr, u64)>; 4] = Default::default();
    let mut addresses = Vec::new();
    for number in 0..16_u64 {
        let ways = [number >> 3 & 1, number >> 2 & 1, number >> 1 & 1, number & 1];
        let virt = ways.iter().zip(SHIFTS).fold(0, |virt, (way, shift)| virt | way << shift);
        let frame = builder.frame().unwrap();
        let page = builder.map(VirtAddr::new(virt), frame, PageSize::KIB_4, RWU).unwrap();
        for (level, entry) in page.entries.iter().enumerate() {
            levels[level].insert((entry.at, builder.entry(entry.at).unwrap()));
        }
        addresses.push(VirtAddr::new(virt));
    }
    let root = builder.root();
    let (target, space) = builder.build_writable().unwrap();
    let mut entries = Vec::new();
    let mut held = BTreeMap::new();
    for level in levels {
        let values: Vec<u64> = level.iter().map(|(_, value)| *value).chain([0]).collect();
        for (at, value) in level {
            entries.push((at, values.clone()));
            held.insert(at, vec![Held { value, gone: None }]);
        }
    }
    Tables { target, space, addresses, entries, held, root }
}

impl Tables {
    /// Where an address may lead, by what each entry may be believed to hold; `None` for nowhere, which has to be so now.
    fn allowed(&self, virt: VirtAddr, known: u64, tick: u64) -> BTreeSet<Option<u64>> {
        let mut tables = BTreeSet::from([self.root.as_u64()]);
        let mut found = BTreeSet::new();
        for shift in SHIFTS {
            let mut next = BTreeSet::new();
            for table in tables {
                let at = PhysAddr::new(table + (virt.as_u64() >> shift & 511) * 8);
                let now = [Held { value: 0, gone: None }];
                for held in self.held.get(&at).map_or(&now[..], Vec::as_slice) {
                    let believed = held.gone.is_none_or(|(step, then)| step > known && tick - then < LIMIT);
                    match (believed, held.value & PRESENT != 0) {
                        (true, true) => drop(next.insert(held.value & FRAME)),
                        (true, false) if held.gone.is_none() => drop(found.insert(None)),
                        _ => {}
                    }
                }
            }
            tables = next;
        }
        found.extend(tables.into_iter().map(Some));
        found
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Translates these in one batch, or one by one.
    Walk(Vec<prop::sample::Index>, bool),
    /// Writes one of its level's values to an entry: through the memory, or as somebody else.
    Write(prop::sample::Index, prop::sample::Index, bool),
    Wait(u64),
    Forget,
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        8 => (prop::collection::vec(index(), 1..6), any::<bool>()).prop_map(|(addresses, single)| Step::Walk(addresses, single)),
        4 => (index(), index(), prop::bool::weighted(0.2)).prop_map(|(entry, value, through)| Step::Write(entry, value, through)),
        6 => (1..LIMIT).prop_map(Step::Wait),
        1 => Just(Step::Forget),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_entry_is_believed_for_longer_than_it_may_be(
        steps in steps(),
        answers in prop::sample::select(vec![4_usize, 4096]),
        nth in prop::option::of(2_u64..7),
    ) {
        let mut tables = tables();
        let failing = nth.into_iter().flat_map(|nth| (1..400).map(move |times| times * nth));
        let device = failing.fold(ScriptedMemory::new(tables.target.clone()), ScriptedMemory::with_failing_call);
        let (memory, hand) = LookasideLayer::by_hand(Arc::new(device), answers, LIMIT);
        let (mut known, mut tick) = (0, 0);
        for (step, number) in steps.into_iter().zip(1_u64..) {
            match step {
                Step::Walk(chosen, single) => {
                    let mut ops: Vec<TranslateOp> =
                        chosen.iter().map(|index| TranslateOp::new(*index.get(&tables.addresses))).collect();
                    if single {
                        ops.iter_mut().for_each(|op| tables.space.translate_batch(&memory, std::slice::from_mut(op)));
                    } else {
                        tables.space.translate_batch(&memory, &mut ops);
                    }
                    for op in ops {
                        let found = op.outcome.unwrap();
                        let allowed = tables.allowed(op.addr, known, tick);
                        // A call that fails stops a walk.
                        let found = found.ok().map(|found| found.phys.as_u64());
                        prop_assert!(
                            allowed.contains(&found) || (found.is_none() && nth.is_some()),
                            "step {}: {} leads to {:x?}, not one of {:x?}", number, op.addr, found, allowed
                        );
                    }
                }
                Step::Write(entry, value, through) => {
                    let (at, values) = entry.get(&tables.entries).clone();
                    let value = *value.get(&values);
                    let written = if through { write(&memory, at, value) } else { write(&*tables.target, at, value) };
                    if written.is_ok() {
                        let held = tables.held.get_mut(&at).unwrap();
                        held.last_mut().unwrap().gone = Some((number, tick));
                        held.push(Held { value, gone: None });
                    }
                    if through {
                        // Of this entry nothing older is believed, whatever became of the write.
                        for held in tables.held.get_mut(&at).unwrap() {
                            held.gone = held.gone.map(|_| (0, 0));
                        }
                    }
                }
                Step::Wait(ticks) => {
                    tick += ticks;
                    hand.store(tick, Relaxed);
                }
                Step::Forget => {
                    tables.space.forget(&memory);
                    known = number;
                }
                Step::Flush => {
                    memory.lookaside().unwrap().flush();
                    known = number;
                }
            }
        }
    }
}

#[test]
fn pages_below_an_old_table_are_as_old_as_it() {
    let tables = tables();
    let (memory, hand) = LookasideLayer::by_hand(tables.target.clone(), 4096, LIMIT);
    let phys = |number: usize| {
        let mut ops = [TranslateOp::new(tables.addresses[number])];
        tables.space.translate_batch(&memory, &mut ops);
        ops[0].outcome.unwrap().ok().map(|found| found.phys.as_u64())
    };
    let first = phys(0).unwrap();
    // Somebody takes the entry of the root away, below which all of these lie; each walk begins where the one before came to.
    write(&*tables.target, tables.root, 0).unwrap();
    hand.store(LIMIT - 1, Relaxed);
    assert!(phys(1).is_some() && phys(2).is_some() && phys(4).is_some());
    assert_eq!(phys(0), Some(first));
    hand.store(LIMIT, Relaxed);
    assert_eq!([0, 1, 2, 4].map(phys), [None; 4]);
}

#[test]
fn threads_on_one_handle_with_failing_calls_never_go_back_behind_a_write() {
    let tables = tables();
    let virt = tables.addresses[0];
    let mut table = tables.root.as_u64();
    let mut leaf = tables.root;
    for shift in SHIFTS {
        leaf = PhysAddr::new(table + (virt.as_u64() >> shift & 511) * 8);
        table = tables.held[&leaf][0].value & FRAME;
    }
    let failing =
        (0..60_000).step_by(5).fold(ScriptedMemory::new(tables.target.clone()), ScriptedMemory::with_failing_call);
    let memory = LookasideLayer::over(Arc::new(failing));
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let frame = || {
        let mut ops = [TranslateOp::new(virt), TranslateOp::new(virt)];
        tables.space.translate_batch(&*memory, &mut ops);
        ops[1].outcome.unwrap().ok().map(|found| found.phys.as_u64() >> 12)
    };
    while write(&*memory, leaf, RWU).is_err() {}
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let least = written.load(std::sync::atomic::Ordering::Acquire);
                    if let Some(found) = frame() {
                        assert!(found >= least, "{found:#x} after {least:#x} was written");
                    }
                }
            });
        }
        for frame in 0..3000_u64 {
            while write(&*memory, leaf, frame << 12 | RWU).is_err() {}
            written.store(frame, std::sync::atomic::Ordering::Release);
        }
        stop.store(true, Relaxed);
    });
}

//! Any sequence of batches through the cache does what it does without it.
//!
//! Owns: sequences, and their comparison byte by byte and outcome by outcome. Must not know: slots, locks.

use proptest::prelude::*;

use super::*;

/// One step of a sequence; lengths and addresses as `(address, length)`.
#[derive(Clone, Debug)]
enum Step {
    Read(Vec<(u64, usize)>),
    Write(Vec<(u64, usize)>, u8),
    Flush,
}

fn place() -> impl Strategy<Value = (u64, usize)> {
    let near = |edge: u64| (0_u64..64).prop_map(move |distance| edge.wrapping_sub(32).wrapping_add(distance));
    let edges = prop::sample::select(vec![
        0x1000, 0x2000, 0x2800, 0x2a00, 0x2c80, 0x3000, 0x3400, 0x4000, 0x5000, 0x8001, 0x9000, 0xb000, TOP,
    ]);
    let addr = prop_oneof![
        4 => edges.prop_flat_map(near),
        3 => 0_u64..0xb800,
        1 => TOP - 0x100..=u64::MAX,
        1 => any::<u64>(),
    ];
    let len = prop_oneof![6 => 0_usize..32, 2 => 0_usize..0x1100, 1 => 0_usize..0x3800];
    (addr, len)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let places = || prop::collection::vec(place(), 0..12);
    let step = prop_oneof![
        8 => places().prop_map(Step::Read),
        2 => (prop::collection::vec(place(), 0..4), any::<u8>()).prop_map(|(places, byte)| Step::Write(places, byte)),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..24)
}

fn config() -> impl Strategy<Value = CacheConfig> {
    let sizes =
        prop::sample::select(vec![(2048, 512), (10_000, 512), (4 * PAGE, PAGE), (64 * PAGE, PAGE), (1 << 23, 1 << 21)]);
    let validity = prop_oneof![
        Just(Validity::Forever),
        Just(Validity::For(Duration::from_nanos(1))),
        (1_u64..4).prop_map(Validity::Batches)
    ];
    (sizes, validity).prop_map(|((capacity, page_size), validity)| CacheConfig { capacity, page_size, validity })
}

/// What a batch of reads did: buffers that were full of 0xaa, outcomes, the result.
fn read_all(memory: &dyn PhysicalMemory, places: &[(u64, usize)]) -> (Vec<Vec<u8>>, Vec<Outcome>, Result<(), String>) {
    let mut bufs: Vec<Vec<u8>> = places.iter().map(|(_, len)| vec![0xaa; *len]).collect();
    let mut ops: Vec<PhysRead<'_>> =
        bufs.iter_mut().zip(places).map(|(buf, (addr, _))| PhysRead::new(PhysAddr::new(*addr), buf)).collect();
    let result = memory.read_batch(&mut ops).map_err(|error| error.to_string());
    let outcomes = ops.iter().map(|op| op.outcome).collect();
    (bufs, outcomes, result)
}

fn write_all(memory: &dyn PhysicalMemory, places: &[(u64, usize)], byte: u8) -> (Vec<Outcome>, Result<(), String>) {
    let bufs: Vec<Vec<u8>> =
        places.iter().enumerate().map(|(index, (_, len))| vec![byte.wrapping_add(index as u8); *len]).collect();
    let mut ops: Vec<PhysWrite<'_>> =
        bufs.iter().zip(places).map(|(buf, (addr, _))| PhysWrite::new(PhysAddr::new(*addr), buf)).collect();
    let result = memory.write_batch(&mut ops).map_err(|error| error.to_string());
    (ops.iter().map(|op| op.outcome).collect(), result)
}

fn everything() -> Vec<(u64, usize)> {
    odd_runs().runs().iter().map(|run| (run.range.start().as_u64(), run.range.len() as usize)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cache_changes_nothing_that_is_read(steps in steps(), config in config(), failing in prop::option::of(place())) {
        let scripted = || {
            let failing = failing.and_then(|(addr, len)| PhysRange::new(PhysAddr::new(addr), len as u64));
            match failing {
                Some(range) => ScriptedMemory::new(odd_memory()).with_failing_addresses(range),
                None => ScriptedMemory::new(odd_memory()),
            }
        };
        let plain = scripted();
        let (memory, cache) = cached(scripted(), config);
        for step in steps {
            memory.take_log();
            match step {
                Step::Read(places) => {
                    prop_assert_eq!(read_all(&cache, &places), read_all(&plain, &places));
                    let most = if failing.is_some() { 2 } else { 1 };
                    prop_assert!(memory.call_count() <= most, "{} calls", memory.call_count());
                }
                Step::Write(places, byte) => {
                    prop_assert_eq!(write_all(&cache, &places, byte), write_all(&plain, &places, byte));
                    prop_assert_eq!(memory.call_count(), 1);
                }
                Step::Flush => cache.flush(),
            }
        }
        prop_assert_eq!(read_all(&cache, &everything()), read_all(&plain, &everything()));
    }

    #[test]
    fn failing_calls_are_errors_once_and_never_data(
        steps in steps(),
        config in config(),
        failing in prop::collection::vec(0_u64..24, 1..6),
        silent in prop::collection::vec(0_u64..24, 0..3),
    ) {
        let plain = odd_memory();
        let memory = failing.into_iter().fold(ScriptedMemory::new(odd_memory()), ScriptedMemory::with_failing_call);
        let (_, cache) = cached(silent.into_iter().fold(memory, ScriptedMemory::with_silent_call), config);
        let failed = |outcome: &Outcome| {
            matches!(outcome, Outcome::NotAttempted | Outcome::Failed { reason: Reason::Io { errno: 5 }, .. })
        };
        for step in steps {
            match step {
                Step::Read(places) => {
                    let (bytes, outcomes, result) = read_all(&cache, &places);
                    let (expected, plain_outcomes, _) = read_all(&plain, &places);
                    prop_assert_eq!(result.is_ok(), outcomes.iter().all(Outcome::is_done));
                    for index in 0..places.len() {
                        // The failure of a call may hide another, and a part that came before it has arrived.
                        if failed(&outcomes[index]) {
                            prop_assert!(bytes[index].iter().zip(&expected[index]).all(|(is, should)| is == should || *is == 0xaa));
                        } else {
                            prop_assert_eq!(&bytes[index], &expected[index]);
                            prop_assert_eq!(outcomes[index], plain_outcomes[index]);
                        }
                    }
                }
                Step::Write(places, byte) => {
                    let (outcomes, _) = write_all(&cache, &places, byte);
                    if !outcomes.iter().all(failed) {
                        prop_assert_eq!(outcomes, write_all(&plain, &places, byte).0);
                    }
                }
                Step::Flush => cache.flush(),
            }
        }
        // Past the last failing call; two calls at most for each failing one.
        for _ in 0..24 {
            let _ = read_all(&cache, &[(0, 1)]);
        }
        prop_assert_eq!(read_all(&cache, &everything()), read_all(&plain, &everything()));
    }
}

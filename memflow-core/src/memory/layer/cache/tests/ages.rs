//! What a cache may show of memory that others write to, and for how long: any sequence of reads, writes, time and pauses against a
//! memory that remembers everything it ever held.
//!
//! Owns: that memory, sequences, who may see what. Must not know: slots, locks.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::{
    super::{fetch::Scratch, store::Store},
    *,
};
use crate::memory::{RunState, VcpuRegisters, validity::AgeLimit};

/// Words of the memory: six pages of 512 bytes.
const WORDS: usize = 6 * 64;
/// Ticks for which a page is served.
const LIMIT: u64 = 10;

/// What a word held: from one step on until before another, which came at a tick.
#[derive(Clone, Copy, Debug)]
struct Held {
    value: u64,
    /// The step and the tick at which another value took its place.
    gone: Option<(u64, u64)>,
}

/// Everything that was ever held, and since which step older things must not be seen.
struct Model {
    words: Vec<Vec<Held>>,
    known: Vec<u64>,
    step: u64,
    tick: u64,
}

impl Model {
    fn new() -> Self {
        let words = (0..WORDS as u64).map(|word| vec![Held { value: word, gone: None }]).collect();
        Self { words, known: vec![0; WORDS], step: 0, tick: 0 }
    }

    fn set(&mut self, word: usize, value: u64) {
        if let Some(last) = self.words[word].last_mut() {
            last.gone = Some((self.step, self.tick));
        }
        self.words[word].push(Held { value, gone: None });
    }

    /// From here on nothing older is seen of these words.
    fn know(&mut self, words: std::ops::Range<usize>) {
        self.known[words].fill(self.step);
    }

    fn allows(&self, word: usize, value: u64) -> bool {
        self.words[word].iter().any(|held| {
            held.value == value
                && held.gone.is_none_or(|(step, tick)| step > self.known[word] && self.tick - tick < LIMIT)
        })
    }
}

/// A machine that can be stopped behind the cache's back.
struct Machine {
    memory: ScriptedMemory<LockedMemory>,
    running: AtomicBool,
}

impl Control for Machine {
    fn run_state(&self) -> Result<RunState> {
        Ok(if self.running.load(Ordering::SeqCst) { RunState::Running } else { RunState::Paused })
    }

    fn pause(&self) -> Result<()> {
        self.running.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        self.running.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        Ok(Vec::new())
    }
}

impl PhysicalMemory for Machine {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.memory.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.memory.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.memory.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        self.memory.facts()
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }
}

/// One step; words by their numbers.
#[derive(Clone, Debug)]
enum Step {
    /// Reads so many words from each of these.
    Read(Vec<(usize, usize)>),
    /// A write of so many words through the cache.
    Write(usize, usize),
    /// A write by somebody else.
    Beneath(usize, usize),
    Wait(u64),
    Flush,
    Forget(usize, usize),
    /// Paused through the cache.
    Pause,
    /// Paused by somebody else, which the cache is asked about.
    FoundPaused,
    Resume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stretch = || (0..WORDS, 1_usize..80);
    let few = || (0..WORDS, 1_usize..4);
    let step = prop_oneof![
        8 => prop::collection::vec(prop_oneof![4 => few(), 1 => stretch()], 1..6).prop_map(Step::Read),
        3 => few().prop_map(|(word, count)| Step::Write(word, count)),
        6 => few().prop_map(|(word, count)| Step::Beneath(word, count)),
        5 => (1..LIMIT).prop_map(Step::Wait),
        1 => Just(Step::Flush),
        1 => stretch().prop_map(|(word, count)| Step::Forget(word, count)),
        1 => Just(Step::Pause),
        1 => Just(Step::FoundPaused),
        1 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 1..80)
}

/// A cache of so many pages of 512 bytes over a machine every `nth` call of which fails, and the hand that turns its clock.
fn aging(pages: usize, nth: Option<u64>) -> (Arc<Machine>, CacheLayer, Arc<AtomicU64>) {
    let bytes = (0..WORDS as u64).flat_map(u64::to_le_bytes).collect();
    let memory = ScriptedMemory::new(LockedMemory::new(RunMap::flat(WORDS as u64 * 8), bytes).unwrap());
    let failing = nth.into_iter().flat_map(|nth| (1..400).map(move |times| times * nth));
    let memory = failing.fold(memory, ScriptedMemory::with_failing_call);
    let machine = Arc::new(Machine { memory, running: AtomicBool::new(true) });
    let (age, hand) = AgeLimit::by_hand(LIMIT);
    let cache = CacheLayer {
        below: machine.clone(),
        store: Store::new(PageSize::from_shift(9).unwrap(), pages * 700, age).unwrap(),
        scratch: Scratch::new(4 * 512),
        longest: 2048,
        idle: false,
        past_cache: AtomicU64::new(0),
    };
    (machine, cache, hand)
}

/// The part of the memory's words that a step means.
fn words(word: usize, count: usize) -> std::ops::Range<usize> {
    word..(word + count).min(WORDS)
}

fn put(memory: &dyn PhysicalMemory, words: std::ops::Range<usize>, value: u64) -> Result<()> {
    let bytes: Vec<u8> = words.clone().flat_map(|_| value.to_le_bytes()).collect();
    write(memory, words.start as u64 * 8, &bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_shown_for_longer_than_it_may_be(
        steps in steps(),
        pages in prop::sample::select(vec![1_usize, 3, 64]),
        nth in prop::option::of(2_u64..7),
    ) {
        let (machine, cache, hand) = aging(pages, nth);
        let mut model = Model::new();
        for step in steps {
            model.step += 1;
            let fresh = 1_000_000 + model.step;
            match step {
                Step::Read(places) => {
                    let ranges: Vec<_> = places.iter().map(|(word, count)| words(*word, *count)).collect();
                    let mut bufs: Vec<Vec<u8>> = ranges.iter().map(|range| vec![0; range.len() * 8]).collect();
                    let at = |range: &std::ops::Range<usize>| PhysAddr::new(range.start as u64 * 8);
                    let mut ops: Vec<PhysRead<'_>> =
                        bufs.iter_mut().zip(&ranges).map(|(buf, range)| PhysRead::new(at(range), buf)).collect();
                    let result = cache.read_batch(&mut ops);
                    let done: Vec<bool> = ops.iter().map(|op| op.outcome.is_done()).collect();
                    prop_assert_eq!(result.is_ok(), done.iter().all(|done| *done));
                    prop_assert!(result.is_ok() || nth.is_some());
                    for ((range, buf), _) in ranges.iter().zip(&bufs).zip(done).filter(|(_, done)| *done) {
                        for (word, bytes) in range.clone().zip(buf.as_chunks::<8>().0) {
                            let value = u64::from_le_bytes(*bytes);
                            prop_assert!(model.allows(word, value), "word {}: {} in {:?}", word, value, model.words[word]);
                        }
                    }
                }
                Step::Write(word, count) => {
                    let words = words(word, count);
                    if put(&cache, words.clone(), fresh).is_ok() {
                        words.clone().for_each(|word| model.set(word, fresh));
                    }
                    // Whatever became of it.
                    model.know(words);
                }
                Step::Beneath(word, count) => {
                    let words = words(word, count);
                    put(machine.memory.inner(), words.clone(), fresh).unwrap();
                    words.for_each(|word| model.set(word, fresh));
                }
                Step::Wait(ticks) => {
                    model.tick += ticks;
                    hand.store(model.tick, Relaxed);
                }
                Step::Flush => {
                    cache.flush();
                    model.know(0..WORDS);
                }
                Step::Forget(word, count) => {
                    let words = words(word, count);
                    cache.forget(range(words.start as u64 * 8, words.len() as u64 * 8));
                    model.know(words);
                }
                Step::Pause => {
                    cache.control().unwrap().pause().unwrap();
                    model.know(0..WORDS);
                }
                Step::FoundPaused => {
                    machine.pause().unwrap();
                    prop_assert_eq!(cache.control().unwrap().run_state().unwrap(), RunState::Paused);
                    model.know(0..WORDS);
                }
                Step::Resume => cache.control().unwrap().resume().unwrap(),
            }
        }
    }
}

#[test]
fn model_tells_what_is_too_old() {
    let mut model = Model::new();
    model.step = 1;
    model.set(5, 100);
    assert!(model.allows(5, 5) && model.allows(5, 100) && !model.allows(5, 6));
    model.tick = LIMIT - 1;
    assert!(model.allows(5, 5));
    model.tick = LIMIT;
    assert!(!model.allows(5, 5) && model.allows(5, 100));
    model.step = 2;
    model.set(5, 200);
    assert!(model.allows(5, 100));
    model.know(0..6);
    assert!(!model.allows(5, 100) && model.allows(5, 200));
}

#[test]
fn threads_on_one_handle_with_failing_calls_never_see_what_was_before_a_write() {
    const COUNTED: u64 = 0x2ff8;
    let failing = (0..30_000).step_by(7).fold(ScriptedMemory::new(flat(64)), ScriptedMemory::with_failing_call);
    let cache = CacheLayer::new(Arc::new(failing), room_for(8)).unwrap();
    while write(&cache, COUNTED, &0_u64.to_le_bytes()).is_err() {}
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 0..3_u64 {
            let (cache, written, stop) = (&cache, &written, &stop);
            scope.spawn(move || {
                let mut page = seed;
                while !stop.load(Ordering::Relaxed) {
                    let least = written.load(Ordering::Acquire);
                    if let Ok(found) = word(cache, COUNTED) {
                        assert!(found >= least, "{found} after {least} was written");
                    }
                    page = page.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
                    let other = (page >> 58) * PAGE + 0x10;
                    if let Ok(found) = word(cache, other) {
                        assert_eq!(found, other);
                    }
                }
            });
        }
        for count in 1..=3000_u64 {
            while write(&cache, COUNTED, &count.to_le_bytes()).is_err() {}
            if let Ok(found) = word(&cache, COUNTED) {
                assert_eq!(found, count);
            }
            written.store(count, Ordering::Release);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

//! Several ways to do the same, timed in turns.
//!
//! Owns: clocks, rounds, medians, ratios. Must not know: what is timed.
//! Keeps: within a round every contender runs once, right after the others, so that a busy machine slows all of them; a ratio is the
//! median of the rounds' ratios, not the ratio of medians. What one thread does is timed by the processor time of that thread, which
//! goes on only while it runs.

use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use rustix::time::{ClockId, clock_gettime};

/// What time is taken by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// Processor time of this thread.
    Thread,
    /// The time that passes: for work of several threads.
    Wall,
}

impl Clock {
    /// What something takes.
    pub fn time(self, work: impl FnOnce()) -> Duration {
        let started = (Instant::now(), thread_time());
        work();
        match self {
            Self::Thread => thread_time().saturating_sub(started.1),
            Self::Wall => started.0.elapsed(),
        }
    }
}

/// Processor time of this thread since it began.
fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Keeps what this thread does to itself, as its processor time says nothing of what others do for it: the library shares long copies
/// among threads unless it is called by one of a pool, so this one becomes a pool of its own.
///
/// # Errors
/// It is one already.
pub fn keep_to_this_thread() -> crate::Result<ThreadPool> {
    Ok(ThreadPoolBuilder::new().num_threads(1).use_current_thread().build()?)
}

/// One way to do it.
pub struct Contender<'a> {
    name: String,
    /// What one run does, if it is not what the others do.
    items: Option<usize>,
    clock: Clock,
    run: Box<dyn FnMut() + 'a>,
}

impl std::fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Contender({})", self.name)
    }
}

impl<'a> Contender<'a> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What one run does, if it is not what the others do.
    pub fn items(&self) -> Option<usize> {
        self.items
    }

    /// Does it once.
    pub fn run(&mut self) {
        (self.run)();
    }

    /// A way to do it; `run` does all of it once.
    pub fn new(name: impl Into<String>, run: impl FnMut() + 'a) -> Self {
        Self { name: name.into(), items: None, clock: Clock::Thread, run: Box::new(run) }
    }

    /// The same for one that is so slow that a run does only some of the items.
    #[must_use]
    pub fn with_items(self, items: usize) -> Self {
        Self { items: Some(items), ..self }
    }

    /// The same for one that is timed by another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }
}

/// How a contender did.
#[derive(Clone, PartialEq, Debug)]
pub struct Timing {
    /// Its name.
    pub name: String,
    /// Nanoseconds per item of each round, in the order of the rounds; never empty.
    rounds: Vec<f64>,
}

impl Timing {
    /// Nanoseconds per item, median over the rounds.
    pub fn ns(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// Its time divided by that of another contender in the same round, median over the rounds.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, other)| own / other).collect())
    }
}

/// Time of a turn, about: long beside a timer's call, short beside a scheduler's.
const TURN: Duration = Duration::from_millis(1);
/// Rounds at least and at most.
const ROUNDS: std::ops::RangeInclusive<usize> = 3..=201;

/// Times all contenders in turns for about `budget`. `items` is what one run of each does.
pub fn compare(items: usize, budget: Duration, contenders: &mut [&mut Contender<'_>]) -> Vec<Timing> {
    // Once to warm up, once more to see how often a run fits into a turn, unless it clearly does not.
    let mut repeats = Vec::new();
    let mut round = Duration::ZERO;
    for contender in &mut *contenders {
        let mut once = turn(contender, 1).max(Duration::from_nanos(1));
        if once < TURN * 10 {
            once = turn(contender, 1).max(Duration::from_nanos(1));
        }
        let often = (TURN.as_nanos() / once.as_nanos()).clamp(1, 1 << 20) as u32;
        repeats.push(often);
        round += once * often;
    }
    let rounds = (budget.as_nanos() / round.as_nanos().max(1)) as usize;
    let rounds = rounds.clamp(*ROUNDS.start(), *ROUNDS.end());
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for number in 0..rounds {
        let mut one = |index: usize| {
            let took = turn(contenders[index], repeats[index]).as_secs_f64() * 1e9;
            let items = contenders[index].items.unwrap_or(items);
            times[index].push(took / f64::from(repeats[index]) / items as f64);
        };
        // Whoever comes first finds the caches as the last left them: not always the same.
        if number % 2 == 0 {
            (0..repeats.len()).for_each(&mut one)
        } else {
            (0..repeats.len()).rev().for_each(&mut one)
        }
    }
    let names = contenders.iter().map(|contender| contender.name.clone());
    names.zip(times).map(|(name, rounds)| Timing { name, rounds }).collect()
}

fn turn(contender: &mut Contender<'_>, repeats: u32) -> Duration {
    contender.clock.time(|| (0..repeats).for_each(|_| (contender.run)()))
}

/// The middle one; the mean of both when there are two.
///
/// # Panics
/// When there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn thread_does_not_pay_for_time_in_which_it_does_not_run() {
        let sleep = || std::thread::sleep(Duration::from_millis(20));
        assert!(Clock::Thread.time(sleep) < Duration::from_millis(15));
        assert!(Clock::Wall.time(sleep) >= Duration::from_millis(20));
    }

    #[test]
    fn every_contender_runs_and_is_compared_with_the_first() {
        let runs = [Cell::new(0u64), Cell::new(0)];
        let mut sums = [0u64; 2];
        let [first, second] = &mut sums;
        let work = |sum: &mut u64, turns: u64| (0..turns).for_each(|turn| *sum = std::hint::black_box(*sum ^ turn));
        let timings = compare(
            1,
            Duration::from_millis(20),
            &mut [
                &mut Contender::new("short", || {
                    runs[0].set(runs[0].get() + 1);
                    work(first, 10_000);
                }),
                &mut Contender::new("long", || {
                    runs[1].set(runs[1].get() + 1);
                    work(second, 100_000);
                }),
            ],
        );
        assert!(runs.iter().all(|runs| runs.get() >= 5));
        assert_eq!(timings[0].ratio_to(&timings[0]), 1.0);
        assert!(timings[1].ratio_to(&timings[0]) > 3.0 && timings[1].ns() > timings[0].ns(), "{timings:?}");
        assert_eq!((&*timings[0].name, &*timings[1].name), ("short", "long"));
    }
}

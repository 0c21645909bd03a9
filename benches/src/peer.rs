//! Another project in a case: how it takes part, and whether its answers are right.
//!
//! Owns: [`Peer`]. Must not know: which projects there are, how they are called.
//! Keeps: an answer that is wrong or missing is counted, one that was not asked for has a reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::measure::{Clock, Contender};

/// The longest that one run should take.
const PATIENCE: Duration = Duration::from_millis(60);
/// The longest that one call may take.
const LAST_PATIENCE: Duration = Duration::from_secs(4);
/// Items of the first try, and of the calls of one that cannot do larger ones in [`LAST_PATIENCE`].
const FEW: usize = 16;

/// Another project in a case.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Its name and version.
    pub name: &'static str,
    /// How it takes part.
    pub part: Part<'a>,
}

/// How a project takes part.
#[derive(Debug)]
pub enum Part<'a> {
    /// It does what the others do, or the first part of it.
    Runs {
        /// The way it does it.
        contender: Contender<'a>,
        /// What its first complete run took.
        first: Duration,
        /// What was wrong with the answers of that run.
        mistakes: Mistakes,
        /// In which way it differs from the others.
        note: Option<String>,
    },
    /// It cannot, for this reason.
    Absent(String),
}

/// Answers that are not ours.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Mistakes {
    /// Answers that differ.
    pub wrong: usize,
    /// Answers that are not there, though ours are.
    pub missing: usize,
    /// Answers that were compared.
    pub of: usize,
}

impl Mistakes {
    /// Compares answers with ours; `None` is no answer.
    pub fn count<T: PartialEq>(pairs: impl IntoIterator<Item = (Option<T>, T)>) -> Self {
        let mut mistakes = Self::default();
        for (found, expected) in pairs {
            mistakes.of += 1;
            match found {
                None => mistakes.missing += 1,
                Some(found) => mistakes.wrong += usize::from(found != expected),
            }
        }
        mistakes
    }

    /// True when there are none.
    pub fn is_none(self) -> bool {
        self.wrong == 0 && self.missing == 0
    }
}

/// Work of a project that can be done in part.
pub trait Work {
    /// Does the first `upto` items, `batch` per call.
    fn run(&mut self, upto: usize, batch: usize);
    /// What was wrong with the last run.
    fn mistakes(&mut self, upto: usize) -> Mistakes;
    /// What it is timed by.
    fn clock(&self) -> Clock {
        Clock::Thread
    }
}

impl<'a> Peer<'a> {
    /// One that cannot take part.
    pub fn absent(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, part: Part::Absent(why.into()) }
    }

    /// One that does as many of `total` items as it can in a time that one waits for: whole batches, at least one. When a single
    /// batch takes too long, its calls are smaller, which is noted.
    pub fn new(name: &'static str, total: usize, batch: usize, mut work: impl Work + 'a) -> Self {
        let few = FEW.min(batch).min(total);
        let clock = work.clock();
        let mut timed = |upto: usize, batch: usize| clock.time(|| work.run(upto, batch));
        timed(few, batch);
        let each = timed(few, batch).as_nanos().max(1) / few.max(1) as u128;
        let too_long = each * batch.min(total) as u128 > LAST_PATIENCE.as_nanos();
        let note = too_long.then(|| format!("in calls of {few}"));
        let batch = if too_long { few } else { batch };
        if too_long {
            timed(few, batch);
        }
        let batches = usize::try_from(PATIENCE.as_nanos() / (each * batch as u128)).unwrap_or(usize::MAX).max(1);
        let count = total.min(batch.saturating_mul(batches));
        let first = timed(count, batch);
        let mistakes = work.mistakes(count);
        let contender = Contender::new(name, move || work.run(count, batch)).with_items(count).with_clock(clock);
        Self { name, part: Part::Runs { contender, first, mistakes, note } }
    }

    /// One whose work is all or nothing.
    pub fn once(name: &'static str, items: usize, mut work: impl Work + 'a) -> Self {
        work.run(items, items);
        let clock = work.clock();
        let first = clock.time(|| work.run(items, items));
        let mistakes = work.mistakes(items);
        let contender = Contender::new(name, move || work.run(items, items)).with_items(items).with_clock(clock);
        Self { name, part: Part::Runs { contender, first, mistakes, note: None } }
    }
}

/// Two threads, each with half of the work.
#[derive(Debug)]
pub struct Halves<W>(pub [W; 2]);

impl<W: Work + Send> Work for Halves<W> {
    fn run(&mut self, upto: usize, batch: usize) {
        let [one, other] = &mut self.0;
        std::thread::scope(|scope| {
            scope.spawn(|| one.run(upto / 2, batch));
            other.run(upto / 2, batch);
        });
    }

    fn mistakes(&mut self, upto: usize) -> Mistakes {
        let [one, other] = self.0.each_mut().map(|half| half.mistakes(upto / 2));
        Mistakes { wrong: one.wrong + other.wrong, missing: one.missing + other.missing, of: one.of + other.of }
    }

    fn clock(&self) -> Clock {
        Clock::Wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a time for each pair of items in a call.
    struct Slow(Duration, Vec<usize>);

    impl Work for Slow {
        fn run(&mut self, upto: usize, batch: usize) {
            self.1.push(batch);
            std::thread::sleep(self.0 * upto as u32);
        }

        fn clock(&self) -> Clock {
            Clock::Wall
        }

        fn mistakes(&mut self, upto: usize) -> Mistakes {
            Mistakes::count((0..upto).map(|item| ((item != 1).then_some(item / 2 * 2), item)))
        }
    }

    fn entered(total: usize, batch: usize, each: Duration) -> (Option<usize>, Mistakes, Option<String>) {
        match Peer::new("slow", total, batch, Slow(each, Vec::new())).part {
            Part::Runs { contender, mistakes, note, .. } => (contender.items(), mistakes, note),
            Part::Absent(why) => panic!("{why}"),
        }
    }

    #[test]
    fn slow_one_does_whole_batches_at_least_one() {
        assert_eq!(entered(64, 16, Duration::from_millis(5)).0, Some(16));
        let (items, mistakes, note) = entered(4, 1, Duration::ZERO);
        assert_eq!((items, note), (Some(4), None));
        assert_eq!(mistakes, Mistakes { wrong: 1, missing: 1, of: 4 });
        assert!(!mistakes.is_none());
    }

    #[test]
    fn batch_that_takes_too_long_is_done_in_small_calls() {
        let (items, _, note) = entered(1 << 20, 1 << 20, Duration::from_micros(100));
        assert_eq!(note.unwrap(), "in calls of 16");
        assert_eq!(items.unwrap() % 16, 0);
    }
}

//! How long what was read of a memory is used again, and the clock that tells: the one rule for all that is kept.
//!
//! Owns: [`Validity`], and the choice of the clock. Must not know: what is kept.
//! Keeps: nothing older than the limit passes, whatever the resolution of the clock; without a limit no clock is read.

#[cfg(test)]
use std::sync::Arc;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::Liveness;
use crate::error::{Error, Result};

/// How long what was read is used again, before the memory is asked anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Validity {
    /// Forever for frozen memory, a time that its keeper names for live memory.
    #[default]
    ByLiveness,
    /// Until it has to make room or is flushed.
    Forever,
    /// This long, counted from before it was asked for.
    For(Duration),
    /// In so many batches after the one that asked for it, by whatever thread. For programs that look at a live target in rounds.
    Batches(u64),
}

impl Validity {
    /// The limit for what is read of memory of this liveness. `live` is how long that of live memory is used; `what` names the
    /// keeper, and `without` says how to do without it.
    ///
    /// # Errors
    /// [`Error::Argument`] for a validity of zero.
    pub(super) fn limit(
        self,
        liveness: Liveness,
        live: Duration,
        what: &'static str,
        without: &'static str,
    ) -> Result<AgeLimit> {
        match self {
            Self::ByLiveness => Ok(AgeLimit::new(match liveness {
                Liveness::Live => Some(live),
                Liveness::Frozen => None,
            })),
            Self::Forever => Ok(AgeLimit::new(None)),
            Self::For(Duration::ZERO) | Self::Batches(0) => Err(Error::Argument {
                what: format!("{what} validity").into(),
                expected: format!("more than zero; {without}").into(),
                found: "0".to_owned(),
            }),
            Self::For(time) => Ok(AgeLimit::new(Some(time))),
            Self::Batches(count) => Ok(AgeLimit::in_batches(count)),
        }
    }
}

/// An age that what is kept must stay below.
#[derive(Debug)]
pub(super) struct AgeLimit {
    clock: Clock,
    /// Nanoseconds, less what the clock may be behind; or batches.
    limit: u64,
}

#[derive(Debug)]
enum Clock {
    /// Nothing gets old.
    None,
    Exact(Instant),
    /// Goes on by one whenever it is read, as each batch does once.
    Batches(AtomicU64),
    /// Goes on when a test says so.
    #[cfg(test)]
    Manual(Arc<AtomicU64>),
    /// The time of the last timer tick, which takes a third of the time to read.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Coarse,
}

impl AgeLimit {
    /// Ages below `limit` pass; all, if there is none.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        let Some(limit) = limit else { return Self { clock: Clock::None, limit: u64::MAX } };
        let limit = nanos(limit);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            // All may be one tick older than the clock says. Where that is little, it comes off the limit.
            let tick = coarse::tick();
            if limit / 8 >= tick {
                return Self { clock: Clock::Coarse, limit: limit.saturating_sub(tick) };
            }
        }
        Self { clock: Clock::Exact(Instant::now()), limit }
    }

    /// What was asked for in one batch is used in `count` more.
    fn in_batches(count: u64) -> Self {
        Self { clock: Clock::Batches(AtomicU64::new(0)), limit: count.saturating_add(1) }
    }

    /// A limit of so many nanoseconds by a clock that stands still but for the test's hand.
    #[cfg(test)]
    pub(super) fn by_hand(limit: u64) -> (Self, Arc<AtomicU64>) {
        let hand = Arc::new(AtomicU64::new(0));
        (Self { clock: Clock::Manual(hand.clone()), limit }, hand)
    }

    /// The moment at which a batch begins: nanoseconds since some moment in the past, or the number of the batch. Asked once for
    /// each batch.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        match self.clock {
            Clock::None => 0,
            Clock::Exact(start) => nanos(start.elapsed()),
            Clock::Batches(ref count) => count.fetch_add(1, Relaxed),
            #[cfg(test)]
            Clock::Manual(ref hand) => hand.load(Relaxed),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Clock::Coarse => coarse::now(),
        }
    }

    /// Whether what was asked for at `then` is young enough at `now`.
    #[inline]
    pub(super) fn allows(&self, then: u64, now: u64) -> bool {
        // It may have been asked for by a batch that began after this one.
        now.saturating_sub(then) < self.limit
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod coarse {
    use std::time::Duration;

    use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

    #[inline]
    pub(super) fn now() -> u64 {
        nanos(clock_gettime(ClockId::MonotonicCoarse))
    }

    pub(super) fn tick() -> u64 {
        nanos(clock_getres(ClockId::MonotonicCoarse))
    }

    #[inline]
    fn nanos(time: Timespec) -> u64 {
        // Time since the machine started is not negative.
        Duration::try_from(time).map_or(0, super::nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_never_overstayed() {
        for limit in [1, 1_000_000, 20_000_000, 200_000_000].map(Duration::from_nanos) {
            let age = AgeLimit::new(Some(limit));
            let (start, then) = (Instant::now(), age.now());
            let mut passed = 0_u32;
            // The clock is read before the time, as a fetch begins before its bytes are there.
            while age.allows(then, age.now()) {
                passed += 1;
                assert!(start.elapsed() < limit * 2 + Duration::from_secs(1));
            }
            let fresh = age.now();
            std::thread::sleep(limit);
            assert!(!age.allows(fresh, age.now()), "{limit:?}");
            assert!(limit.as_nanos() < 200_000_000 || passed > 0, "{limit:?}");
        }
    }

    #[test]
    fn no_limit_reads_no_clock_and_lets_all_pass() {
        let age = AgeLimit::new(None);
        assert_eq!(age.now(), 0);
        assert!(age.allows(0, u64::MAX - 1));
        assert!(AgeLimit::new(Some(Duration::MAX)).allows(0, 1 << 60));
    }

    #[test]
    fn count_is_of_batches_after_the_first() {
        let age = AgeLimit::in_batches(2);
        let asked = age.now();
        assert_eq!([(); 4].map(|()| age.allows(asked, age.now())), [true, true, false, false]);
        let forever = AgeLimit::in_batches(u64::MAX);
        assert!(forever.allows(forever.now(), 1 << 60));
    }

    #[test]
    fn zero_keeps_nothing_and_is_refused() {
        for validity in [Validity::For(Duration::ZERO), Validity::Batches(0)] {
            let error = validity.limit(Liveness::Live, Duration::ZERO, "shelf", "clear it").unwrap_err().to_string();
            assert_eq!(error, "shelf validity: expected more than zero; clear it, found `0`");
        }
    }

    #[test]
    fn live_memory_is_asked_again_and_frozen_memory_is_not() {
        let limit = |validity: Validity, liveness| {
            validity.limit(liveness, Duration::from_nanos(20), "shelf", "clear it").unwrap()
        };
        for (validity, liveness, passes) in [
            (Validity::ByLiveness, Liveness::Live, false),
            (Validity::ByLiveness, Liveness::Frozen, true),
            (Validity::Forever, Liveness::Live, true),
            (Validity::For(Duration::from_nanos(20)), Liveness::Frozen, false),
        ] {
            let age = limit(validity, liveness);
            assert!(age.allows(100, 119));
            assert_eq!(age.allows(100, 120), passes, "{validity:?} {liveness:?}");
        }
    }
}

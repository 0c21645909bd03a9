//! How old a page may get, and the clock that tells.
//!
//! Owns: the choice of the clock. Must not know: pages.
//! Keeps: nothing older than the limit passes, whatever the resolution of the clock; without a limit no clock is read.

use std::time::{Duration, Instant};

/// An age that pages must stay below.
#[derive(Debug)]
pub(super) struct AgeLimit {
    clock: Clock,
    /// Nanoseconds, less what the clock may be behind.
    limit: u64,
}

#[derive(Debug)]
enum Clock {
    /// Nothing gets old.
    None,
    Exact(Instant),
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
            // A page may be one tick older than the clock says. Where that is little, it comes off the limit.
            let tick = coarse::tick();
            if limit / 8 >= tick {
                return Self { clock: Clock::Coarse, limit: limit.saturating_sub(tick) };
            }
        }
        Self { clock: Clock::Exact(Instant::now()), limit }
    }

    /// Nanoseconds since some moment in the past.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        match self.clock {
            Clock::None => 0,
            Clock::Exact(start) => nanos(start.elapsed()),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Clock::Coarse => coarse::now(),
        }
    }

    /// Whether what was fetched at `then` is young enough at `now`.
    #[inline]
    pub(super) fn allows(&self, then: u64, now: u64) -> bool {
        // It may have been fetched by a batch that began after the one that asks.
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
}

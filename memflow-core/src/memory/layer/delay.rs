//! Memory that is as slow as one likes: a device, imitated.
//!
//! Owns: [`DelayLayer`] and the waiting. Must not know: which device is meant.
//! Keeps: a call waits once, however many operations it holds, and never shorter than it was told.

use std::{
    fmt, hint,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::super::{Control, Lookaside, Metadata, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts};
use crate::error::{Error, Result};

/// A sleeping thread is woken this much too late now and then, so the last part of each delay is spent awake.
const WAKE_UP: Duration = Duration::from_micros(150);

/// Waits a fixed time in each call of [`read_batch`](PhysicalMemory::read_batch) and
/// [`write_batch`](PhysicalMemory::write_batch), then hands it on.
///
/// What a device costs is calls, not bytes, so the time is per call: code that batches stays fast over this layer, code that does
/// not shows. A direct map is hidden, as nothing would be delayed otherwise; with a delay of zero that is all this layer does:
/// every access becomes a call. The last part of each delay is spent in a loop, as sleeping is not exact enough.
///
/// ```
/// # use std::{sync::Arc, time::{Duration, Instant}};
/// # use memflow_core::{memory::*, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(8), facts: TargetFacts::default() };
/// # let memory = Arc::new(BufferMemory::new(config, vec![7; 8])?);
/// let device = DelayLayer::new(memory, Duration::from_micros(20))?;
/// let start = Instant::now();
/// device.read_into(PhysAddr::new(0), &mut [0; 8])?;
/// assert!(start.elapsed() >= Duration::from_micros(20));
/// # Ok::<(), Error>(())
/// ```
pub struct DelayLayer {
    below: Arc<dyn PhysicalMemory>,
    delay: Duration,
}

impl fmt::Debug for DelayLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DelayLayer({:?} over {})", self.delay, self.below.metadata().name)
    }
}

impl DelayLayer {
    /// The longest delay that is taken: more would look like a hang.
    pub const LONGEST: Duration = Duration::from_secs(10);

    /// Calls of `below` that take `delay` longer.
    ///
    /// # Errors
    /// [`Error::Argument`] when `delay` is more than [`LONGEST`](Self::LONGEST).
    pub fn new(below: Arc<dyn PhysicalMemory>, delay: Duration) -> Result<Self> {
        if delay > Self::LONGEST {
            return Err(Error::Argument {
                what: "delay".into(),
                expected: format!("at most {:?} for each call", Self::LONGEST).into(),
                found: format!("{delay:?}"),
            });
        }
        Ok(Self { below, delay })
    }

    fn wait(&self) {
        if self.delay.is_zero() {
            return;
        }
        let start = Instant::now();
        if let Some(asleep) = self.delay.checked_sub(WAKE_UP).filter(|asleep| !asleep.is_zero()) {
            thread::sleep(asleep);
        }
        while start.elapsed() < self.delay {
            hint::spin_loop();
        }
    }
}

impl PhysicalMemory for DelayLayer {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.wait();
        self.below.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.wait();
        self.below.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.below.metadata()
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        self.below.populated_runs()
    }

    fn excluded_runs(&self) -> Arc<RunMap> {
        self.below.excluded_runs()
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        self.below.lookaside()
    }

    fn facts(&self) -> &TargetFacts {
        self.below.facts()
    }

    fn control(&self) -> Option<&dyn Control> {
        self.below.control()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::PhysAddr,
        memory::{BufferMemory, PhysicalMemoryExt, SourceConfig},
        testkit::{LockedMemory, ScriptedMemory},
    };

    #[test]
    fn call_waits_once_whatever_the_batch() {
        let delay = Duration::from_millis(2);
        let memory = Arc::new(ScriptedMemory::new(LockedMemory::new(RunMap::flat(64), vec![1; 64]).unwrap()));
        let slow = DelayLayer::new(memory.clone(), delay).unwrap();
        let mut bufs = [[0; 1]; 64];
        let mut ops: Vec<PhysRead<'_>> =
            bufs.iter_mut().enumerate().map(|(at, buf)| PhysRead::new(PhysAddr::new(at as u64), buf)).collect();
        let start = Instant::now();
        slow.read_batch(&mut ops).unwrap();
        let one = start.elapsed();
        slow.write_batch(&mut [PhysWrite::new(PhysAddr::new(0), &[2])]).unwrap();
        let two = start.elapsed();
        // Sixty-four waits would take 128 ms; a busy machine may make one long, but hardly so.
        assert!(one >= delay && one < delay * 32, "{one:?}");
        assert!(two >= delay * 2, "{two:?}");
        assert_eq!(memory.call_count(), 2);
        assert_eq!(bufs, [[1; 1]; 64]);
    }

    #[test]
    fn direct_map_is_hidden_so_that_every_access_is_delayed() {
        let config = SourceConfig { name: "test".into(), runs: RunMap::flat(4), facts: TargetFacts::default() };
        let memory = Arc::new(BufferMemory::new(config, vec![5; 4]).unwrap());
        assert!(memory.direct_map().is_some());
        let slow = DelayLayer::new(memory, Duration::ZERO).unwrap();
        assert!(slow.direct_map().is_none());
        let mut buf = [0; 4];
        slow.read_into(PhysAddr::new(0), &mut buf).unwrap();
        assert_eq!(buf, [5; 4]);
    }

    #[test]
    fn delay_that_looks_like_a_hang_is_refused() {
        let memory = Arc::new(LockedMemory::new(RunMap::flat(4), vec![0; 4]).unwrap());
        assert!(DelayLayer::new(memory.clone(), DelayLayer::LONGEST).is_ok());
        let error = DelayLayer::new(memory, Duration::MAX).unwrap_err();
        assert!(error.to_string().starts_with("delay: expected at most 10s for each call, found `"), "{error}");
    }
}

//! What is asked of memory, counted.
//!
//! Owns: [`MetricsLayer`], its counters, and their text. Must not know: who reads them, or when.
//! Keeps: counting takes no lock and changes no outcome; a snapshot may be taken at any time and from any thread.

use std::{
    array, fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::super::{Control, Lookaside, Metadata, Outcome, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts};
use crate::error::Result;

/// Bucket 0 is for no time at all, bucket `n` for `2^(n-1)` up to but not including `2^n` nanoseconds.
const BUCKETS: usize = 65;

/// Counts calls, operations, bytes, failures and latencies of the memory below.
///
/// A direct map is hidden, as what is read in place is not counted: over a mapped file, reads become calls. Put the layer below a
/// cache to see what the cache still asks for, or above it to see what is asked of the cache.
///
/// ```
/// # use std::sync::Arc;
/// # use memflow_core::{memory::*, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(8), facts: TargetFacts::default() };
/// # let memory = Arc::new(BufferMemory::new(config, vec![7; 8])?);
/// let counted = MetricsLayer::new(memory);
/// let metrics = counted.metrics();
/// counted.read_into(PhysAddr::new(0), &mut [0; 6])?;
/// counted.read_into(PhysAddr::new(4), &mut [0; 6]).unwrap_err();
///
/// let reads = metrics.snapshot().reads;
/// assert_eq!((reads.calls, reads.ops, reads.bytes, reads.failed_ops), (2, 2, 6, 1));
/// # Ok::<(), Error>(())
/// ```
pub struct MetricsLayer {
    below: Arc<dyn PhysicalMemory>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for MetricsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetricsLayer({})", self.below.metadata().name)
    }
}

impl MetricsLayer {
    /// Counts what is asked of `below`, from zero.
    pub fn new(below: Arc<dyn PhysicalMemory>) -> Self {
        Self { below, metrics: Arc::default() }
    }

    /// The counters, to be read from elsewhere while the memory is in use.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }
}

impl PhysicalMemory for MetricsLayer {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let start = Instant::now();
        let result = self.below.read_batch(ops);
        self.metrics.reads.add(start.elapsed(), ops.iter().map(|op| (op.buf.len(), op.outcome)));
        result
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        let start = Instant::now();
        let result = self.below.write_batch(ops);
        self.metrics.writes.add(start.elapsed(), ops.iter().map(|op| (op.buf.len(), op.outcome)));
        result
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

/// The counters of a [`MetricsLayer`].
#[derive(Debug, Default)]
pub struct Metrics {
    reads: Counters,
    writes: Counters,
}

impl Metrics {
    /// The counters as they are now. Each is exact; calls that end meanwhile may be in one of them and not yet in another.
    pub fn snapshot(&self) -> MetricsSnapshot {
        MetricsSnapshot { reads: self.reads.counts(), writes: self.writes.counts() }
    }
}

#[derive(Debug)]
struct Counters {
    calls: AtomicU64,
    ops: AtomicU64,
    bytes: AtomicU64,
    failed_ops: AtomicU64,
    nanos: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            calls: zero(),
            ops: zero(),
            bytes: zero(),
            failed_ops: zero(),
            nanos: zero(),
            latencies: array::from_fn(|_| zero()),
        }
    }
}

impl Counters {
    /// Adds one call.
    fn add(&self, took: Duration, ops: impl Iterator<Item = (usize, Outcome)>) {
        let (mut all, mut failed, mut bytes) = (0_u64, 0_u64, 0_u64);
        for (len, outcome) in ops {
            all = all.saturating_add(1);
            if outcome.is_done() {
                bytes = bytes.saturating_add(len as u64);
            } else {
                failed = failed.saturating_add(1);
            }
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Relaxed);
        self.ops.fetch_add(all, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.failed_ops.fetch_add(failed, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
        if let Some(bucket) = self.latencies.get(bucket(nanos)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    fn counts(&self) -> OpCounts {
        OpCounts {
            calls: self.calls.load(Relaxed),
            ops: self.ops.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            failed_ops: self.failed_ops.load(Relaxed),
            time: Duration::from_nanos(self.nanos.load(Relaxed)),
            latencies: LatencyHistogram { counts: array::from_fn(|index| self.latencies[index].load(Relaxed)) },
        }
    }
}

/// The bucket of a time: the number of its binary digits.
fn bucket(nanos: u64) -> usize {
    (u64::BITS - nanos.leading_zeros()) as usize
}

/// What was counted up to a moment. `Display` is for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Reads.
    pub reads: OpCounts,
    /// Writes.
    pub writes: OpCounts,
}

impl MetricsSnapshot {
    /// What was counted after `earlier` was taken.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { reads: self.reads.since(&earlier.reads), writes: self.writes.since(&earlier.writes) }
    }
}

impl fmt::Display for MetricsSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reads:  {}", self.reads)?;
        write!(f, "writes: {}", self.writes)
    }
}

/// Counts of reads, or of writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct OpCounts {
    /// Calls: batches.
    pub calls: u64,
    /// Operations in them.
    pub ops: u64,
    /// Bytes of the operations that were done. Those that failed may have moved some too.
    pub bytes: u64,
    /// Operations that were not done.
    pub failed_ops: u64,
    /// Time spent in the calls. More than passed on the clock when threads call at the same time.
    pub time: Duration,
    /// How long calls took.
    pub latencies: LatencyHistogram,
}

impl OpCounts {
    /// The mean time of a call; `None` before the first.
    pub fn mean(&self) -> Option<Duration> {
        let nanos = self.time.as_nanos().checked_div(u128::from(self.calls))?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            ops: self.ops.saturating_sub(earlier.ops),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            failed_ops: self.failed_ops.saturating_sub(earlier.failed_ops),
            time: self.time.saturating_sub(earlier.time),
            latencies: self.latencies.since(&earlier.latencies),
        }
    }
}

impl fmt::Display for OpCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, ops, bytes, failed_ops, .. } = self;
        write!(f, "{calls} calls, {ops} operations ({failed_ops} failed), {bytes} bytes")?;
        let (Some(mean), Some(median), Some(most)) =
            (self.mean(), self.latencies.quantile(0.5), self.latencies.quantile(0.99))
        else {
            return Ok(());
        };
        write!(f, "; a call took {mean:.1?} in the mean, half below {median:.1?}, 99 % below {most:.1?}")
    }
}

/// How often calls took how long, in buckets that double: exact to a factor of two.
#[derive(Clone, PartialEq, Eq)]
pub struct LatencyHistogram {
    counts: [u64; BUCKETS],
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl LatencyHistogram {
    /// The buckets that are not empty, shortest first: a time that every call in it stayed below, and the number of calls.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(index, count)| (bound(index), *count))
    }

    /// A time that the given share (0 to 1) of the calls stayed below; `None` before the first call.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total: u64 = self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count));
        // The cast saturates, so a share that is none counts as all or nothing.
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0_u64;
        self.buckets()
            .find(|(_, count)| {
                seen = seen.saturating_add(*count);
                seen >= wanted
            })
            .map(|(bound, _)| bound)
    }

    fn since(&self, earlier: &Self) -> Self {
        Self { counts: array::from_fn(|index| self.counts[index].saturating_sub(earlier.counts[index])) }
    }
}

impl fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.buckets()).finish()
    }
}

/// The time that everything in a bucket stays below.
fn bound(bucket: usize) -> Duration {
    Duration::from_nanos(u32::try_from(bucket).ok().and_then(|bits| 1_u64.checked_shl(bits)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::PhysAddr,
        memory::{BufferMemory, PhysicalMemoryExt, SourceConfig},
        testkit::LockedMemory,
    };

    fn counted(len: u64) -> (MetricsLayer, Arc<Metrics>) {
        let layer = MetricsLayer::new(Arc::new(LockedMemory::new(RunMap::flat(len), vec![1; len as usize]).unwrap()));
        let metrics = layer.metrics();
        (layer, metrics)
    }

    #[test]
    fn reads_writes_and_failures_are_told_apart() {
        let (layer, metrics) = counted(64);
        let (mut one, mut two) = ([0; 8], [0; 16]);
        layer
            .read_batch(&mut [PhysRead::new(PhysAddr::new(0), &mut one), PhysRead::new(PhysAddr::new(60), &mut two)])
            .unwrap_err();
        layer.write_batch(&mut [PhysWrite::new(PhysAddr::new(0), &[9; 3])]).unwrap();
        layer.read_batch(&mut []).unwrap();
        let MetricsSnapshot { reads, writes } = metrics.snapshot();
        assert_eq!((reads.calls, reads.ops, reads.bytes, reads.failed_ops), (2, 2, 8, 1));
        assert_eq!((writes.calls, writes.ops, writes.bytes, writes.failed_ops), (1, 1, 3, 0));
        assert_eq!(reads.latencies.buckets().map(|(_, count)| count).sum::<u64>(), 2);
    }

    #[test]
    fn counts_are_exact_while_threads_use_the_memory() {
        let (layer, metrics) = counted(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for at in 0..1000 {
                        layer.read_into(PhysAddr::new(at % 32), &mut [0; 4]).unwrap();
                    }
                });
            }
            let mut before = MetricsSnapshot::default();
            while before.reads.calls < 4000 {
                let now = metrics.snapshot();
                assert!(now.reads.calls >= before.reads.calls);
                before = now;
            }
        });
        let MetricsSnapshot { reads, .. } = metrics.snapshot();
        assert_eq!((reads.calls, reads.ops, reads.bytes), (4000, 4000, 16_000));
    }

    #[test]
    fn snapshot_since_another_counts_what_came_between() {
        let (layer, metrics) = counted(64);
        layer.read_into(PhysAddr::new(0), &mut [0; 4]).unwrap();
        let before = metrics.snapshot();
        layer.read_into(PhysAddr::new(0), &mut [0; 5]).unwrap();
        let between = metrics.snapshot().since(&before);
        assert_eq!((between.reads.calls, between.reads.bytes), (1, 5));
        assert_eq!(between.reads.latencies.buckets().count(), 1);
        assert_eq!(before.since(&metrics.snapshot()), MetricsSnapshot::default());
    }

    #[test]
    fn latencies_fall_into_buckets_that_double() {
        let counters = Counters::default();
        for nanos in [0, 1, 2, 3, 4, 1023, 1024, u64::MAX] {
            counters.add(Duration::from_nanos(nanos), std::iter::empty());
        }
        let OpCounts { latencies, calls, .. } = counters.counts();
        assert_eq!(calls, 8);
        let expected = [(1, 1), (2, 1), (4, 2), (8, 1), (1024, 1), (2048, 1), (u64::MAX, 1)];
        let expected = expected.map(|(nanos, count)| (Duration::from_nanos(nanos), count));
        assert_eq!(latencies.buckets().collect::<Vec<_>>(), expected);
        for (share, nanos) in
            [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (0.5, 4), (0.75, 1024), (0.99, u64::MAX), (7.0, u64::MAX)]
        {
            assert_eq!(latencies.quantile(share), Some(Duration::from_nanos(nanos)), "{share}");
        }
        assert_eq!(LatencyHistogram::default().quantile(0.5), None);
    }

    #[test]
    fn text_is_for_people() {
        let counters = Counters::default();
        for micros in [3, 3, 3, 90] {
            counters.add(Duration::from_micros(micros), [(16, Outcome::Done), (1, Outcome::NotAttempted)].into_iter());
        }
        let snapshot = MetricsSnapshot { reads: counters.counts(), ..MetricsSnapshot::default() };
        assert_eq!(
            snapshot.to_string(),
            "reads:  4 calls, 8 operations (4 failed), 64 bytes; a call took 24.8µs in the mean, half below 4.1µs, 99 % below 131.1µs\n\
             writes: 0 calls, 0 operations (0 failed), 0 bytes"
        );
    }

    #[test]
    fn direct_map_is_hidden_so_that_every_access_is_counted() {
        let config = SourceConfig { name: "test".into(), runs: RunMap::flat(4), facts: TargetFacts::default() };
        let layer = MetricsLayer::new(Arc::new(BufferMemory::new(config, vec![5; 4]).unwrap()));
        assert!(layer.direct_map().is_none());
        assert_eq!(layer.metadata().runs.total_bytes(), 4);
    }
}

//! A page cache over memory that is slow to call.
//!
//! Owns: [`CacheLayer`]: what is served, fetched, read past the cache, and forgotten after a write.
//! Must not know: slots and locks (`cache/store.rs`), how fetches are joined (`cache/fetch.rs`).
//! Keeps: all that a batch needs is asked for in one call; what could not be fetched with the page around it is asked for by itself,
//! so every outcome is the memory's own; an error is never kept; no lock is held across a call.

mod fetch;
mod store;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use smallvec::SmallVec;

use self::{
    fetch::{Fetch, Missing, Scratch},
    store::{Moment, Store},
};
use super::super::{
    Control, DirectMap, Lookaside, Metadata, Outcome, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts,
    Validity, finish_reads,
};
use super::control::Keeps;
use crate::{
    address::{GIB, MIB, PageSize, PhysRange},
    error::{Error, Result},
};

/// How a [`CacheLayer`] is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheConfig {
    /// Bytes that the cache may take: pages, what is known about them, and pages on their way, which get a quarter. At least
    /// four pages, at most [`CacheLayer::MOST_CAPACITY`]. Memory for pages is taken as they come.
    pub capacity: u64,
    /// Bytes of a page: a power of two from [`CacheLayer::LEAST_PAGE`] on.
    pub page_size: u64,
    /// How long a page is served: that of live memory [`CacheLayer::LIVE_VALIDITY`], if its liveness decides.
    pub validity: Validity,
}

impl Default for CacheConfig {
    /// 32 MiB of 4 KiB pages, valid as the liveness of the memory says.
    fn default() -> Self {
        Self { capacity: 32 * MIB, page_size: PageSize::KIB_4.bytes(), validity: Validity::ByLiveness }
    }
}

/// What a [`CacheLayer`] did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// Parts of operations, one for each page, that were served from the cache.
    pub hits: u64,
    /// Parts that were looked for and not there, or too old.
    pub misses: u64,
    /// Parts that were read past the cache: long reads, bytes that no run holds, pages that could not be fetched.
    pub past_cache: u64,
    /// Pages held now, also those too old to be served.
    pub pages: u64,
}

/// Keeps pages of the memory below and serves them again: for memory that is slow to call.
///
/// * What a batch misses is fetched in one call, whole pages at a time, neighbours joined. Reads longer than a sixteenth of the
///   capacity (and than a page), and what does not fit into the memory set aside for pages on their way, are read past the
///   cache in that same call.
/// * Where a page is only partly held, the bytes that are held are cached, the others answered by the memory below.
/// * When a fetch fails, the bytes that were asked for are asked for by themselves in one more call: outcomes are those of the
///   memory below, and nothing of the failure is kept.
/// * Writes go through, and forget the pages that they touch, whatever becomes of them. Writes by others show when a page's
///   [validity](CacheConfig::validity) ends or after [`flush`](Self::flush), and so does what the target itself writes. A target
///   that is paused through the cache, or found paused, shows no page from before.
///
/// With a direct map below there is nothing to gain: the map is handed through and the cache stays [idle](Self::is_idle).
///
/// One handle serves every thread; clones of its `Arc` share the pages. A hit allocates nothing, reads the clock only if
/// validity ends, and locks one set of eight pages for as long as its copy takes.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use memflow_core::{memory::*, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
/// # let memory = Arc::new(BufferMemory::new(config, vec![7; 0x4000])?);
/// let device = MetricsLayer::new(memory);
/// let metrics = device.metrics();
/// let cache = CacheLayer::new(Arc::new(device), CacheConfig::default())?;
///
/// let (mut word, mut page) = ([0; 8], [0; 0x1000]);
/// cache.read_batch(&mut [
///     PhysRead::new(PhysAddr::new(0x1000), &mut word),
///     PhysRead::new(PhysAddr::new(0x2800), &mut page),
/// ])?;
/// cache.read_into(PhysAddr::new(0x3ff8), &mut word)?;
///
/// let reads = metrics.snapshot().reads;
/// // Three pages in a row, fetched with one read.
/// assert_eq!((reads.calls, reads.ops, reads.bytes), (1, 1, 0x3000));
/// # Ok::<(), Error>(())
/// ```
pub struct CacheLayer {
    below: Arc<dyn PhysicalMemory>,
    store: Store,
    scratch: Scratch,
    /// Longer reads go past the cache.
    longest: usize,
    idle: bool,
    past_cache: AtomicU64,
}

impl fmt::Debug for CacheLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheLayer({}, {:?})", self.below.metadata().name, self.stats())
    }
}

/// Parts of a batch that were not served.
type MissingParts = SmallVec<[Missing; 4]>;

impl CacheLayer {
    /// How long pages of live memory are served unless told otherwise: one look of a person, many reads of a program.
    pub const LIVE_VALIDITY: Duration = Duration::from_millis(100);
    /// The smallest page, in bytes.
    pub const LEAST_PAGE: u64 = 512;
    /// The largest capacity, in bytes.
    pub const MOST_CAPACITY: u64 = 256 * GIB;

    /// A cache over `below`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a page size that is no power of two or below [`LEAST_PAGE`](Self::LEAST_PAGE), a capacity below
    /// four pages or above [`MOST_CAPACITY`](Self::MOST_CAPACITY), and a validity of zero; [`Error::Io`] when this machine has
    /// not even the memory to list so many pages.
    pub fn new(below: Arc<dyn PhysicalMemory>, config: CacheConfig) -> Result<Self> {
        let CacheConfig { capacity, page_size, validity } = config;
        let page = page_of(page_size)?;
        let least = page_size.saturating_mul(4);
        let bytes = usize::try_from(capacity).ok().filter(|_| (least..=Self::MOST_CAPACITY).contains(&capacity));
        let Some(bytes) = bytes else {
            let expected = format!("{least} (four pages) to {} bytes", Self::MOST_CAPACITY);
            return Err(argument("cache capacity", expected, capacity));
        };
        let age = validity.limit(
            below.metadata().liveness,
            Self::LIVE_VALIDITY,
            "cache",
            "leave out the cache to keep nothing",
        )?;
        let page_bytes = page.bytes() as usize;
        // At least a page, as the capacity is at least four.
        let scratch = bytes / 4 / page_bytes * page_bytes;
        let idle = below.direct_map().is_some();
        let pages = if idle { 0 } else { bytes.saturating_sub(scratch) };
        Ok(Self {
            store: Store::new(page, pages, age)?,
            scratch: Scratch::new(scratch),
            longest: (bytes / 16).max(page_bytes),
            idle,
            past_cache: AtomicU64::new(0),
            below,
        })
    }

    /// Forgets all pages, and all that a [lookaside](PhysicalMemory::lookaside) below keeps: what is read from here on is asked for
    /// anew. For memory that others change.
    pub fn flush(&self) {
        self.store.flush();
        if let Some(lookaside) = self.below.lookaside() {
            lookaside.flush();
        }
    }

    /// Forgets the pages of these addresses, and what a lookaside below worked out from them. For bytes that others wrote to.
    pub fn forget(&self, range: PhysRange) {
        self.store.forget(range);
        // Afterwards: nothing can be worked out any more from what was forgotten.
        if let Some(lookaside) = self.below.lookaside() {
            lookaside.written(range);
        }
    }

    /// True when the memory below has a direct map, so that nothing is cached.
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    /// What the cache did so far.
    pub fn stats(&self) -> CacheStats {
        let counts = self.store.counts();
        CacheStats {
            hits: counts.hits,
            misses: counts.misses,
            past_cache: self.past_cache.load(Relaxed),
            pages: counts.pages,
        }
    }

    /// Serves what is held of an operation and adds the rest to `missing`. Its outcome says "done" for what was served.
    #[inline]
    fn serve(&self, moment: Moment, index: usize, op: &mut PhysRead<'_>, missing: &mut MissingParts) {
        op.outcome = Outcome::Done;
        let page = self.store.page();
        let len = op.buf.len();
        let mut from = 0;
        // An operation that leaves the address space is for the memory below to answer.
        if len > self.longest || PhysRange::new(op.addr, len as u64).is_none() {
            missing.push(Missing { op: index, from, len, page: None });
            return;
        }
        while let Some(rest) = op.buf.get_mut(from..).filter(|rest| !rest.is_empty()) {
            let addr = op.addr.wrapping_add(from as u64);
            let in_page = page.bytes().wrapping_sub(addr.page_offset(page)) as usize;
            let part = rest.len().min(in_page);
            let (buf, _) = rest.split_at_mut(part);
            if let Err(miss) = self.store.copy(moment, addr, buf) {
                let page = PhysRange::new(addr, part as u64).map(|range| (range, miss));
                missing.push(Missing { op: index, from, len: part, page });
            }
            from = from.wrapping_add(part);
        }
    }

    /// Gets what is missing from the memory below, and keeps the pages around it.
    #[inline(never)]
    fn fetch(&self, moment: Moment, ops: &mut [PhysRead<'_>], missing: &mut MissingParts) -> Result<()> {
        let metadata = self.below.metadata();
        let mut fetch = Fetch::plan(missing, self.store.page(), &metadata.runs, &self.scratch);
        let past = missing.iter().filter(|part| part.page.is_none()).count();
        let (outcomes, mut unexplained) =
            self.call(ops, missing.iter().filter(|part| part.page.is_none()), fetch.ops());
        fetch.answer(&outcomes);
        for (addr, bytes, miss) in fetch.pages() {
            self.store.insert(moment, miss, addr, bytes);
        }
        missing.retain(|part| {
            let Some((range, _)) = part.page else { return false };
            let buf = ops.get_mut(part.op).and_then(|op| op.buf.get_mut(part.from..)?.get_mut(..part.len));
            match (fetch.bytes(range), buf) {
                (Some(bytes), Some(buf)) => {
                    buf.copy_from_slice(bytes);
                    false
                }
                _ => true,
            }
        });
        drop(fetch);
        if !missing.is_empty() {
            let (_, error) = self.call(ops, missing.iter(), Vec::new());
            unexplained = unexplained.or(error);
        }
        self.past_cache.fetch_add(past.saturating_add(missing.len()) as u64, Relaxed);
        match (finish_reads(&metadata.name, ops), unexplained) {
            (Err(Error::Unanswered { .. }), Some(error)) => Err(error),
            (result, _) => result,
        }
    }

    /// Calls the memory below once: for `fetches`, whose outcomes are returned, and for the parts in `direct`, which are in the
    /// order of the operations, straight into their buffers. Also returns the error of a call in which no operation failed for
    /// a reason: it is all that is known of what went wrong.
    fn call<'a>(
        &self,
        ops: &mut [PhysRead<'_>],
        direct: impl Iterator<Item = &'a Missing>,
        fetches: Vec<PhysRead<'_>>,
    ) -> (Vec<Outcome>, Option<Error>) {
        let mut direct = direct.peekable();
        let mut batch = fetches;
        let fetched = batch.len();
        let mut places: SmallVec<[(usize, usize); 4]> = SmallVec::new();
        for (index, op) in ops.iter_mut().enumerate() {
            let mut rest = &mut *op.buf;
            let mut at = 0_usize;
            while let Some(part) = direct.next_if(|part| part.op == index) {
                let mut end = part.from.saturating_add(part.len);
                while let Some(next) = direct.next_if(|next| next.op == index && next.from == end) {
                    end = end.saturating_add(next.len);
                }
                // Parts of an operation are in order and inside its buffer.
                let (_, after) = std::mem::take(&mut rest).split_at_mut(part.from.saturating_sub(at));
                let (buf, after) = after.split_at_mut(end.saturating_sub(part.from));
                batch.push(PhysRead::new(op.addr.wrapping_add(part.from as u64), buf));
                places.push((index, part.from));
                (rest, at) = (after, end);
            }
        }
        let result = self.below.read_batch(&mut batch);
        let mut outcomes: Vec<Outcome> = batch.iter().map(|op| op.outcome).collect();
        drop(batch);
        let explained = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed { .. }));
        let error = result.err().filter(|_| !explained);
        if error.is_some() {
            // Something failed and nothing says what: none of it is to be believed, least of all kept.
            outcomes.fill(Outcome::NotAttempted);
        }
        for ((index, from), outcome) in places.into_iter().zip(outcomes.drain(fetched..)) {
            if let Some(op) = ops.get_mut(index) {
                op.outcome.add_part(from as u64, outcome);
            }
        }
        (outcomes, error)
    }
}

impl Keeps for CacheLayer {
    fn below(&self) -> &dyn PhysicalMemory {
        &*self.below
    }

    fn forget_all(&self) {
        self.flush();
    }
}

impl PhysicalMemory for CacheLayer {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        if self.idle {
            return self.below.read_batch(ops);
        }
        let moment = self.store.moment();
        let mut missing = MissingParts::new();
        for (index, op) in ops.iter_mut().enumerate() {
            self.serve(moment, index, op, &mut missing);
        }
        if missing.is_empty() { Ok(()) } else { self.fetch(moment, ops, &mut missing) }
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        if self.idle {
            return self.below.write_batch(ops);
        }
        let ranges = ops.iter().filter_map(PhysWrite::touched).collect();
        // Dropped after the call, also when it panics. Updating the pages instead would have to put writes of several threads
        // into the order in which the memory below carried them out.
        let _forget = ForgetOnDrop { cache: self, ranges };
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

    fn direct_map(&self) -> Option<&DirectMap> {
        self.below.direct_map().filter(|_| self.idle)
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        self.below.lookaside()
    }

    fn facts(&self) -> &TargetFacts {
        self.below.facts()
    }

    fn control(&self) -> Option<&dyn Control> {
        self.control_below()
    }
}

/// Addresses that are forgotten when it is dropped.
struct ForgetOnDrop<'a> {
    cache: &'a CacheLayer,
    ranges: SmallVec<[PhysRange; 4]>,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        for range in &self.ranges {
            self.cache.forget(*range);
        }
    }
}

/// The page size of `bytes` bytes.
fn page_of(bytes: u64) -> Result<PageSize> {
    // Below 2^32, so that a place in a page fits 32 bits.
    let valid = bytes.is_power_of_two() && (CacheLayer::LEAST_PAGE..GIB.saturating_mul(4)).contains(&bytes);
    let page = u8::try_from(bytes.trailing_zeros()).ok().and_then(PageSize::from_shift).filter(|_| valid);
    page.ok_or_else(|| {
        let expected = format!("a power of two from {} to {} bytes", CacheLayer::LEAST_PAGE, 2 * GIB);
        argument("cache page size", expected, bytes)
    })
}

fn argument(
    what: &'static str,
    expected: impl Into<std::borrow::Cow<'static, str>>,
    found: impl fmt::Display,
) -> Error {
    Error::Argument { what: what.into(), expected: expected.into(), found: found.to_string() }
}

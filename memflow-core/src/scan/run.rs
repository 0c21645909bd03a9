//! A scan: patterns, what is searched, and everything found, in order.
//!
//! Owns: [`Scan`] and what it returns, the cut into windows, the threads. Must not know: how patterns are found, where bytes come from.
//! Keeps: a match that crosses the end of a window, of a page or of a piece of physical memory is found, and found once; what is told
//! does not depend on the number of threads; memory used does not grow with the number of matches.

use std::{
    fmt,
    num::NonZero,
    ops::ControlFlow,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::{
    deliver::{Carry, Line, RawHit, Results, Sink, Sum, Working},
    engine::{Found, Haystack, Take},
    read::Gap,
    scanner::Scanner,
    source::{Physical, Source, Space, Unknown, View},
};
use crate::{
    address::{Address, PhysRange, Range, VirtAddr, VirtRange},
    error::{Error, Reason, Result},
    memory::PhysicalMemory,
    paging::{AddressSpace, MapBudget},
    view::MemoryView,
};

/// Bytes of a window: the piece of work of a thread.
const WINDOW: u64 = 1 << 20;
/// More threads than this only compete for memory bandwidth.
const MAX_THREADS: usize = 8;
/// Matches of one window that are kept until it is told; where there are more, it is searched again in smaller parts.
const MAX_HITS: usize = 1 << 13;
/// And their bytes.
const MAX_BYTES: usize = 1 << 20;
/// Calls of `pulse` between two questions to the caller.
const PULSES: u32 = 1 << 10;

/// Told how many bytes of how many are done; breaks to cancel. Called about once for each MiB, by one thread or another.
pub type OnProgress<'a> = &'a (dyn Fn(u64, u64) -> ControlFlow<()> + Sync);

/// A match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit<'a, A> {
    /// Its address.
    pub addr: A,
    /// Index of the pattern in [`Scanner::patterns`].
    pub pattern: usize,
    /// The bytes that matched.
    pub bytes: &'a [u8],
}

/// A match that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match<A> {
    /// Its address.
    pub addr: A,
    /// Index of the pattern in [`Scanner::patterns`].
    pub pattern: usize,
    /// The bytes that matched.
    pub bytes: Vec<u8>,
}

/// All matches, and what was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Matches<A: Address> {
    /// By address, then by pattern.
    pub hits: Vec<Match<A>>,
    /// What was looked at, and what could not be.
    pub scanned: Scanned<A>,
}

/// Memory that could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unread<A: Address> {
    /// The addresses.
    pub range: Range<A>,
    /// Why the first of them could not be read.
    pub reason: Reason,
}

/// How a scan ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// At the end.
    Complete,
    /// At the limit: there may be more matches.
    Limit,
    /// Whoever was told of a match wanted no more.
    Stopped,
    /// The progress function said so.
    Cancelled,
}

/// What a scan looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "memory that could not be read was not searched"]
pub struct Scanned<A: Address> {
    /// How it ended. Unless it was complete, everything up to the last match that was told was searched.
    pub ended: Ended,
    /// Matches that were told.
    pub hits: u64,
    /// Bytes that were searched.
    pub bytes: u64,
    /// Bytes of memory that could not be read, and so were not searched.
    pub missing: u64,
    /// Where they are, ascending; the first 65,536 places.
    pub unread: Vec<Unread<A>>,
    /// Bytes that were asked for by a range, and that are no memory: no run holds them, or nothing is mapped there.
    pub absent: u64,
}

impl<A: Address> Scanned<A> {
    /// True when all memory was searched to the end.
    pub fn is_complete(&self) -> bool {
        self.ended == Ended::Complete && self.missing == 0
    }
}

/// A scan that can be started: a [`Scanner`], and how it is to be used.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    scanner: &'a Scanner,
    align: u64,
    limit: Option<u64>,
    threads: Option<usize>,
    budget: MapBudget,
    progress: Option<OnProgress<'a>>,
    /// Bytes of a window; only tests have others than [`WINDOW`].
    pub(super) window: u64,
}

impl fmt::Debug for Scan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("scanner", &self.scanner)
            .field("align", &self.align)
            .field("limit", &self.limit)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl<'a> Scan<'a> {
    pub(super) fn new(scanner: &'a Scanner) -> Self {
        // Address spaces with more pieces than this take more memory than their list is worth.
        let budget = MapBudget { runs: 1 << 22, ..MapBudget::default() };
        Self { scanner, align: 1, limit: None, threads: None, budget, progress: None, window: WINDOW }
    }

    /// Only matches at multiples of this. 1 by default.
    #[must_use]
    pub fn align(self, align: u64) -> Self {
        Self { align, ..self }
    }

    /// No more than this many matches. All by default.
    #[must_use]
    pub fn limit(self, limit: u64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// With so many threads. By default as many as there are processors, at most eight.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// What the map of an address space may cost. By default 2^20 tables and 2^22 runs.
    #[must_use]
    pub fn budget(self, budget: MapBudget) -> Self {
        Self { budget, ..self }
    }

    /// Tells how far the scan is.
    #[must_use]
    pub fn progress(self, progress: OnProgress<'a>) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Searches these parts of physical memory, or all of it when there are none, and tells every match by address, then by pattern.
    ///
    /// Memory that is known to be zero is not read unless a pattern may match there. Frozen memory is searched in place.
    ///
    /// # Errors
    /// [`Error::Argument`] when the alignment is zero. What cannot be read is no error: it is in the result.
    pub fn physical(
        &self,
        memory: &dyn PhysicalMemory,
        ranges: &[PhysRange],
        each: &mut (dyn FnMut(Hit<'_, crate::PhysAddr>) -> ControlFlow<()> + Send),
    ) -> Result<Scanned<crate::PhysAddr>> {
        self.check()?;
        let source = Physical::new(memory, ranges);
        Ok(self.finish(&source, &[], source.absent, each))
    }

    /// Searches what an address space maps in these ranges, or everything that it maps when there are none, and tells every match by
    /// address, then by pattern.
    ///
    /// The page tables are read first. What is not mapped, as pages that were never touched or are swapped out, is not
    /// searched; what is mapped to physical memory that the target does not hold is missing in the result, and so is what lies
    /// under tables that cannot be read.
    ///
    /// # Errors
    /// [`Error::Argument`] when the alignment is zero, [`Error::Limit`] when the tables map more than the budget allows.
    pub fn space(
        &self,
        space: &AddressSpace,
        memory: &dyn PhysicalMemory,
        ranges: &[VirtRange],
        each: &mut (dyn FnMut(Hit<'_, VirtAddr>) -> ControlFlow<()> + Send),
    ) -> Result<Scanned<VirtAddr>> {
        self.check()?;
        let source = Space::new(space, memory, ranges, self.budget)?;
        Ok(self.finish(&source, &source.unknown, source.absent, each))
    }

    /// Searches these ranges of any view and tells every match by address, then by pattern. Everything in them that cannot be read is
    /// missing in the result, also where nothing is mapped; each MiB of them takes at least one read.
    ///
    /// # Errors
    /// [`Error::Argument`] when the alignment is zero.
    pub fn view(
        &self,
        view: &dyn MemoryView,
        ranges: &[VirtRange],
        each: &mut (dyn FnMut(Hit<'_, VirtAddr>) -> ControlFlow<()> + Send),
    ) -> Result<Scanned<VirtAddr>> {
        self.check()?;
        Ok(self.finish(&View::new(view, ranges), &[], 0, each))
    }

    /// As [`Self::physical`], with all matches kept. Set a [`limit`](Self::limit), as they take memory.
    ///
    /// # Errors
    /// As [`Self::physical`].
    pub fn physical_matches(
        &self,
        memory: &dyn PhysicalMemory,
        ranges: &[PhysRange],
    ) -> Result<Matches<crate::PhysAddr>> {
        let mut hits = Vec::new();
        let scanned = self.physical(memory, ranges, &mut keep(&mut hits))?;
        Ok(Matches { hits, scanned })
    }

    /// As [`Self::space`], with all matches kept. Set a [`limit`](Self::limit), as they take memory.
    ///
    /// # Errors
    /// As [`Self::space`].
    pub fn space_matches(
        &self,
        space: &AddressSpace,
        memory: &dyn PhysicalMemory,
        ranges: &[VirtRange],
    ) -> Result<Matches<VirtAddr>> {
        let mut hits = Vec::new();
        let scanned = self.space(space, memory, ranges, &mut keep(&mut hits))?;
        Ok(Matches { hits, scanned })
    }

    fn check(&self) -> Result<()> {
        match self.align {
            0 => Err(Error::Argument {
                what: "alignment".into(),
                expected: "1 or more bytes".into(),
                found: "0".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Runs the scan and puts what is known into the terms of the caller's addresses.
    fn finish<A: Address>(
        &self,
        source: &dyn Source,
        unknown: &[Unknown],
        absent: u64,
        each: &mut (dyn FnMut(Hit<'_, A>) -> ControlFlow<()> + Send),
    ) -> Scanned<A> {
        let mut sink =
            |addr, pattern: u32, bytes: &[u8]| each(Hit { addr: A::from_u64(addr), pattern: pattern as usize, bytes });
        let sum = self.run(source, &mut sink);
        let mut missing = sum.missing;
        let mut gaps = sum.gaps;
        for Unknown { segment, reason } in unknown {
            missing = missing.saturating_add(segment.len);
            gaps.push((segment.start, segment.len, *reason));
        }
        gaps.sort_by_key(|(start, ..)| *start);
        let unread = |(start, len, reason)| Some(Unread { range: Range::new(A::from_u64(start), len)?, reason });
        Scanned {
            ended: sum.ended.unwrap_or(Ended::Complete),
            hits: sum.hits,
            bytes: sum.seen,
            missing,
            unread: gaps.into_iter().filter_map(unread).collect(),
            absent,
        }
    }

    pub(super) fn run(&self, source: &dyn Source, sink: &mut Sink<'_>) -> Sum {
        let engines = self.scanner.parts();
        let chunk = source.chunk(engines.ahead().saturating_add(engines.before()));
        let plan = Plan::new(source, self.window, chunk);
        let line = Line::new(sink, plan.bytes, self.limit, self.progress);
        let next = AtomicU64::new(0);
        let work = || {
            let working = Working(&line);
            let mut buf = Vec::new();
            while !line.is_stopped() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(window) = plan.window(index) else { break };
                Worker { scan: self, plan: &plan, line: &line, window }.search(&mut buf);
            }
            drop(working);
        };
        let processors = || thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        let threads = self.threads.unwrap_or_else(processors).max(1);
        let threads = usize::try_from(plan.windows).unwrap_or(usize::MAX).min(threads);
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        line.finish()
    }
}

/// Puts matches into a list.
fn keep<A: Address>(hits: &mut Vec<Match<A>>) -> impl FnMut(Hit<'_, A>) -> ControlFlow<()> {
    |hit| {
        hits.push(Match { addr: hit.addr, pattern: hit.pattern, bytes: hit.bytes.to_vec() });
        ControlFlow::Continue(())
    }
}

/// How what is searched is cut into windows.
struct Plan<'s> {
    source: &'s dyn Source,
    chunk: u64,
    window: u64,
    /// The number of the first window of each segment.
    firsts: Vec<u64>,
    windows: u64,
    bytes: u64,
}

/// Part of a segment.
#[derive(Clone, Copy)]
struct Window {
    index: u64,
    segment: usize,
    /// The first address of the segment, and its length.
    base: u64,
    base_len: u64,
    /// Offsets in the segment.
    from: u64,
    until: u64,
}

impl<'s> Plan<'s> {
    fn new(source: &'s dyn Source, window: u64, chunk: usize) -> Self {
        let chunk = chunk as u64;
        let window = window.max(chunk);
        let (mut windows, mut bytes) = (0, 0u64);
        let mut firsts = Vec::with_capacity(source.segments().len());
        for segment in source.segments() {
            firsts.push(windows);
            windows += segment.len.div_ceil(window);
            bytes = bytes.saturating_add(segment.len);
        }
        Self { source, chunk, window, firsts, windows, bytes }
    }

    fn window(&self, index: u64) -> Option<Window> {
        let segment = self.firsts.partition_point(|first| *first <= index).checked_sub(1)?;
        let whole = self.source.segments().get(segment)?;
        let from = (index - self.firsts.get(segment)?).checked_mul(self.window)?;
        let until = from.saturating_add(self.window).min(whole.len);
        let window = Window { index, segment, base: whole.start, base_len: whole.len, from, until };
        (from < until).then_some(window)
    }
}

/// A thread at a window.
struct Worker<'w, 'l> {
    scan: &'w Scan<'w>,
    plan: &'w Plan<'w>,
    line: &'w Line<'l>,
    window: Window,
}

/// What became of a search of some bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Searched {
    /// To the end.
    Whole,
    /// There are more matches than are kept.
    Full,
}

impl Worker<'_, '_> {
    /// Searches the window and tells what was found when its turn comes.
    fn search(&self, buf: &mut Vec<u8>) {
        let Window { index, from, until, .. } = self.window;
        let mut results = Results::default();
        // Whether a match of a regular expression reaches into this window is not known yet; it is rare.
        let mut carry = self.fresh();
        let mut whole = Searched::Whole;
        let mut at = from;
        while at < until && whole == Searched::Whole && !self.line.is_stopped() {
            let end = at.saturating_add(self.plan.chunk).min(until);
            whole = self.step(at, end, buf, &mut carry, &mut results);
            at = end;
        }
        if whole == Searched::Whole && carry.ends.is_empty() {
            return self.line.hand_in(index, results, until - from);
        }
        let Some(known) = self.line.wait_for_turn(index) else { return };
        let reaches_in = known.segment == self.window.segment && known.ends.iter().any(|end| *end > from);
        if whole == Searched::Whole && !reaches_in {
            self.line.tell_part(&results);
        } else {
            carry = if known.segment == self.window.segment && !known.ends.is_empty() { known } else { self.fresh() };
            self.in_parts(buf, &mut carry, &mut results);
        }
        self.line.end_turn(carry, until - from);
    }

    /// Searches the window, whose turn it is, and tells each part of it at once.
    fn in_parts(&self, buf: &mut Vec<u8>, carry: &mut Carry, results: &mut Results) {
        let Window { from, until, .. } = self.window;
        let mut length = self.plan.chunk;
        let mut at = from;
        while at < until && !self.line.is_stopped() {
            let end = at.saturating_add(length).min(until);
            results.clear();
            let mut after = carry.clone();
            if self.step(at, end, buf, &mut after, results) == Searched::Full {
                length = (end - at) / 2;
                continue;
            }
            self.line.tell_part(results);
            *carry = after;
            at = end;
        }
    }

    fn fresh(&self) -> Carry {
        Carry { segment: self.window.segment, ends: vec![0; self.scan.scanner.parts().carries()] }
    }

    /// Searches for matches that begin from `from` up to `until`.
    fn step(&self, from: u64, until: u64, buf: &mut Vec<u8>, carry: &mut Carry, results: &mut Results) -> Searched {
        let scanner = self.scan.scanner;
        let (engines, source) = (scanner.parts(), self.plan.source);
        let start = from.saturating_sub(engines.before() as u64);
        let end = until.saturating_add(engines.ahead() as u64).min(self.window.base_len);
        let addr = self.window.base.wrapping_add(start);
        if !scanner.zeros() && source.is_zero(addr, end - start) {
            results.seen += until - from;
            return Searched::Whole;
        }
        // Chunks are small.
        let offset = |place: u64| usize::try_from(place - start).unwrap_or(usize::MAX);
        let mut gaps = Vec::new();
        let bytes = source.fetch(addr, offset(end), buf, &mut gaps);
        let (first, hits, texts) = (offset(from), results.hits.len(), results.bytes.len());
        let last = offset(until);
        // One place has at most as many matches as there are patterns, and those are kept.
        let bounded = until - from > 1;
        let mut keeper =
            Keeper { line: self.line, addr, align: self.scan.align, bytes, bounded, results, full: false, pulses: 0 };
        let mut local = vec![0; carry.ends.len()];
        for span in spans(bytes.len(), &gaps) {
            let hay = Haystack {
                bytes: bytes.get(span.clone()).unwrap_or_default(),
                from: first.saturating_sub(span.start),
                until: last.min(span.end).saturating_sub(span.start),
            };
            keeper.bytes = hay.bytes;
            keeper.addr = addr.wrapping_add(span.start as u64);
            let base = start + span.start as u64;
            for (local, end) in local.iter_mut().zip(&carry.ends) {
                *local = usize::try_from(end.saturating_sub(base)).unwrap_or(usize::MAX);
            }
            let flow = if hay.from < hay.until {
                engines.find(&hay, &mut local, &mut keeper)
            } else {
                ControlFlow::Continue(())
            };
            for (local, end) in local.iter().zip(&mut carry.ends) {
                *end = (*end).max(base.saturating_add(*local as u64));
            }
            if flow.is_break() {
                break;
            }
        }
        if keeper.full {
            return Searched::Full;
        }
        let mut seen = until - from;
        let lost = source.spoilt(addr, bytes.len());
        if let Some(reason) = lost {
            // Some of the bytes were not those of the memory, and nothing tells which.
            results.hits.truncate(hits);
            results.bytes.truncate(texts);
            gaps = vec![Gap { offset: 0, len: bytes.len(), reason }];
        }
        for gap in gaps {
            // What lies behind is told by the window that it belongs to.
            let (gap_start, gap_end) = (gap.offset.max(first), gap.offset.saturating_add(gap.len).min(last));
            if let Some(len) = gap_end.checked_sub(gap_start).filter(|len| *len > 0) {
                seen = seen.saturating_sub(len as u64);
                results.gaps.push((addr.wrapping_add(gap_start as u64), len as u64, gap.reason));
            }
        }
        results.seen += seen;
        if let Some(found) = results.hits.get_mut(hits..) {
            found.sort_unstable();
        }
        Searched::Whole
    }
}

/// The parts of `len` bytes between gaps.
fn spans(len: usize, gaps: &[Gap]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let starts = std::iter::once(0).chain(gaps.iter().map(|gap| gap.offset.saturating_add(gap.len)));
    let ends = gaps.iter().map(|gap| gap.offset).chain(std::iter::once(len));
    starts.zip(ends).filter(|(start, end)| start < end).map(|(start, end)| start..end)
}

/// Keeps matches and their bytes.
struct Keeper<'k, 'l> {
    line: &'k Line<'l>,
    /// The address of the first byte.
    addr: u64,
    align: u64,
    bytes: &'k [u8],
    bounded: bool,
    results: &'k mut Results,
    full: bool,
    pulses: u32,
}

impl Take for Keeper<'_, '_> {
    #[inline]
    fn found(&mut self, found: Found) -> ControlFlow<()> {
        let addr = self.addr.wrapping_add(found.start as u64);
        if !addr.is_multiple_of(self.align) {
            return ControlFlow::Continue(());
        }
        let Results { hits, bytes, .. } = &mut *self.results;
        if self.bounded && (hits.len() >= MAX_HITS || bytes.len() > MAX_BYTES) {
            self.full = true;
            return ControlFlow::Break(());
        }
        let at = bytes.len();
        hits.push(RawHit { addr, pattern: found.pattern, len: found.len, at });
        bytes.extend_from_slice(self.bytes.get(found.start..found.start.saturating_add(found.len)).unwrap_or_default());
        ControlFlow::Continue(())
    }

    fn pulse(&mut self) -> ControlFlow<()> {
        self.pulses = self.pulses.wrapping_add(1);
        if self.line.is_stopped() {
            return ControlFlow::Break(());
        }
        if self.pulses.is_multiple_of(PULSES) { self.line.pulse() } else { ControlFlow::Continue(()) }
    }
}

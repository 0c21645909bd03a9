//! Visiting all of physical memory, in pieces, from both ends, on several threads.
//!
//! Owns: how memory is cut into pieces, their order, progress and cancellation. Must not know: what is looked for.
//! Keeps: a piece overlaps the next one, so nothing is missed at a seam; memory that cannot be read is counted, never taken for zeros.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fmt,
    num::NonZero,
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use memflow_core::{
    Error, PageSize, PhysAddr, PhysRange, Result,
    memory::{PhysRead, PhysicalMemory, RunMap},
};

use super::search::Progress;

/// Bytes visited at a time: small enough to stay in a processor's second-level cache with what is done to them.
const PIECE: u64 = 1 << 20;
/// More threads than this only compete for memory bandwidth.
const MAX_THREADS: usize = 8;
/// Pieces between two calls of the progress function.
const PROGRESS_EVERY: u64 = 64;

/// What a scan looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Bytes looked at, or pages of which the start was.
    pub(super) seen: u64,
    /// Bytes that could not be read.
    pub(super) unreadable: u64,
}

impl fmt::Display for Scanned {
    /// Nothing, or what could not be looked at, as an addition to a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unreadable {
            0 => Ok(()),
            unreadable => write!(f, " ({unreadable} more could not be read)"),
        }
    }
}

/// A scan: the memory, and whom to tell how far it is.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) memory: &'a dyn PhysicalMemory,
    pub(super) progress: Option<&'a Progress<'a>>,
    /// What is looked for, for the progress function.
    pub(super) what: &'static str,
}

/// Piece `index` of the runs: `firsts` holds the number of the first piece of each run.
fn piece(runs: &RunMap, firsts: &[u64], index: u64) -> Option<PhysRange> {
    let run = firsts.partition_point(|first| *first <= index).checked_sub(1)?;
    let range = runs.runs().get(run)?.range;
    let start = (index - firsts.get(run)?) * PIECE;
    PhysRange::new(range.start().checked_add(start)?, (range.len() - start).min(PIECE))
}

impl Scan<'_> {
    /// Visits all pieces until one visit breaks. `visit` gets the range of a piece without its overlap.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the progress function says so.
    fn pieces(&self, visit: &(dyn Fn(PhysRange, &mut Vec<u8>) -> ControlFlow<()> + Sync)) -> Result<()> {
        // What is known to be zero holds nothing that anybody looks for.
        let populated = self.memory.populated_runs();
        let mut total = 0u64;
        let firsts: Vec<u64> = populated
            .runs()
            .iter()
            .map(|run| {
                let first = total;
                total += run.range.len().div_ceil(PIECE);
                first
            })
            .collect();
        let left = Mutex::new((0, total));
        let stop = AtomicBool::new(false);
        let cancelled = AtomicBool::new(false);
        let worker = |from_the_end: bool| {
            let mut buffer = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let (index, done) = {
                    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
                    let (first, end) = *left;
                    if first == end {
                        break;
                    }
                    let index = if from_the_end {
                        left.1 -= 1;
                        left.1
                    } else {
                        left.0 += 1;
                        first
                    };
                    (index, total - (left.1 - left.0))
                };
                if let Some(progress) = self.progress
                    && done.is_multiple_of(PROGRESS_EVERY)
                    && progress(self.what, done * PIECE, total * PIECE).is_break()
                {
                    cancelled.store(true, Ordering::Relaxed);
                    stop.store(true, Ordering::Relaxed);
                    break;
                }
                if let Some(range) = piece(&populated, &firsts, index)
                    && visit(range, &mut buffer).is_break()
                {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        thread::scope(|scope| {
            for number in 1..threads {
                scope.spawn(move || worker(number % 2 == 1));
            }
            worker(false);
        });
        if cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Visits all bytes. Each visit gets up to `overlap` bytes of what follows the piece in its run.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the progress function says so.
    pub(super) fn bytes(
        &self,
        overlap: u64,
        visit: &(dyn Fn(PhysAddr, &[u8]) -> ControlFlow<()> + Sync),
    ) -> Result<Scanned> {
        let (seen, unreadable) = (AtomicU64::new(0), AtomicU64::new(0));
        let metadata = self.memory.metadata();
        self.pieces(&|range, buffer| {
            let at = range.start();
            let rest = metadata.runs.find(at).and_then(|run| run.range.last()).and_then(|last| last.offset_from(at));
            let len = range.len().saturating_add(overlap).min(rest.unwrap_or(0).saturating_add(1));
            let in_place = PhysRange::new(at, len).and_then(|range| self.memory.direct_map()?.slice(range));
            let bytes = match in_place {
                Some(bytes) => bytes,
                None => {
                    buffer.resize(len as usize, 0);
                    let mut ops = [PhysRead::new(at, buffer)];
                    // The outcome of the operation says the same.
                    let _ = self.memory.read_batch(&mut ops);
                    let [op] = ops;
                    if !op.outcome.is_done() {
                        unreadable.fetch_add(range.len(), Ordering::Relaxed);
                        return ControlFlow::Continue(());
                    }
                    op.buf
                }
            };
            seen.fetch_add(range.len(), Ordering::Relaxed);
            visit(at, bytes)
        })?;
        Ok(Scanned { seen: seen.into_inner(), unreadable: unreadable.into_inner() })
    }

    /// Visits the first `N` bytes of every page.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the progress function says so.
    pub(super) fn page_starts<const N: usize>(
        &self,
        visit: &(dyn Fn(PhysAddr, &[u8; N]) -> ControlFlow<()> + Sync),
    ) -> Result<Scanned> {
        const PAGE: usize = 4096;
        let metadata = self.memory.metadata();
        let (seen, unreadable) = (AtomicU64::new(0), AtomicU64::new(0));
        self.pieces(&|range, _| {
            let mut starts = [[0; N]; PIECE as usize / PAGE];
            // Runs need not start with a page.
            let first = (PAGE as u64 - range.start().page_offset(PageSize::KIB_4)) % PAGE as u64;
            // The end of a run may cut the last start short: there is no room for what is looked for.
            let rest = metadata.runs.find(range.start()).and_then(|run| run.range.last());
            let rest = rest.and_then(|last| last.offset_from(range.start())).unwrap_or(0).saturating_add(1);
            let in_piece = range.len().saturating_sub(first).div_ceil(PAGE as u64);
            let in_run = rest.saturating_sub(first).saturating_add(PAGE as u64).saturating_sub(N as u64) / PAGE as u64;
            let pages = in_piece.min(in_run) as usize;
            let places = || (0u64..).step_by(PAGE).map(|offset| range.start().wrapping_add(first + offset));
            let mut ops: Vec<PhysRead<'_>> =
                starts.iter_mut().take(pages).zip(places()).map(|(start, at)| PhysRead::new(at, start)).collect();
            // The outcome of each operation says what became of it.
            let _ = self.memory.read_batch(&mut ops);
            let done: Vec<bool> = ops.iter().map(|op| op.outcome.is_done()).collect();
            for ((start, done), at) in starts.iter().zip(done).zip(places()) {
                if !done {
                    unreadable.fetch_add(PAGE as u64, Ordering::Relaxed);
                } else if visit(at, start).is_break() {
                    return ControlFlow::Break(());
                }
            }
            seen.fetch_add(range.len(), Ordering::Relaxed);
            ControlFlow::Continue(())
        })?;
        Ok(Scanned { seen: seen.into_inner(), unreadable: unreadable.into_inner() })
    }
}

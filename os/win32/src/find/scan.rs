//! Visiting the pages of physical memory that are there, on several threads.
//!
//! Owns: how memory is cut into pieces, progress and cancellation. Must not know: what is looked for.
//! Keeps: a page that cannot be read is not visited, never taken for zeros; a page that is cut short by the end of its run neither.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    num::NonZero,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use memflow_core::{
    Error, PageSize, PhysAddr, PhysRange, Result,
    memory::{PhysRead, PhysicalMemory},
};

use super::{search::Progress, tables::PAGE};

/// Bytes visited at a time.
const PIECE: u64 = 1 << 20;
/// More threads than this only compete for memory bandwidth.
const MAX_THREADS: usize = 8;
/// Pieces between two calls of the progress function.
const PROGRESS_EVERY: u64 = 64;

/// The pages of runs, in pieces.
struct Pieces {
    /// Pages from the first whole one to the last, and the number of the first piece.
    runs: Vec<(PhysRange, u64)>,
    total: u64,
}

impl Pieces {
    fn new(memory: &dyn PhysicalMemory, within: Option<PhysRange>) -> Self {
        let mut total = 0u64;
        let mut runs = Vec::new();
        // What is known to be zero holds no tables.
        for run in memory.populated_runs().runs() {
            let range = within.map_or(Some(run.range), |within| run.range.intersection(&within));
            let pages = range.and_then(|range| {
                let skipped = range.start().as_u64().wrapping_neg() & PageSize::KIB_4.offset_mask();
                let len = range.len().checked_sub(skipped)? & !PageSize::KIB_4.offset_mask();
                PhysRange::new(range.start().checked_add(skipped)?, len).filter(|pages| !pages.is_empty())
            });
            if let Some(pages) = pages {
                runs.push((pages, total));
                total = total.saturating_add(pages.len().div_ceil(PIECE));
            }
        }
        Self { runs, total }
    }

    fn get(&self, number: u64) -> Option<PhysRange> {
        let run = self.runs.partition_point(|(_, first)| *first <= number).checked_sub(1)?;
        let (range, first) = self.runs.get(run)?;
        let start = number.checked_sub(*first)?.checked_mul(PIECE)?;
        PhysRange::new(range.start().checked_add(start)?, range.len().checked_sub(start)?.min(PIECE))
    }
}

/// Visits the pages of a piece.
fn visit(memory: &dyn PhysicalMemory, range: PhysRange, buffer: &mut Vec<u8>, each: &dyn Fn(PhysAddr, &[u8; PAGE])) {
    let places = || (0u64..).step_by(PAGE).map(|offset| range.start().wrapping_add(offset));
    if let Some(bytes) = memory.direct_map().and_then(|map| map.slice(range)) {
        for (page, at) in bytes.as_chunks::<PAGE>().0.iter().zip(places()) {
            each(at, page);
        }
        return;
    }
    buffer.resize(range.len() as usize, 0);
    let (pages, _) = buffer.as_chunks_mut::<PAGE>();
    let mut ops: Vec<PhysRead<'_>> =
        pages.iter_mut().zip(places()).map(|(page, at)| PhysRead::new(at, page.as_mut_slice())).collect();
    // The outcome of each operation says what became of it.
    let _ = memory.read_batch(&mut ops);
    let done: Vec<bool> = ops.iter().map(|op| op.outcome.is_done()).collect();
    for ((page, at), done) in pages.iter().zip(places()).zip(done) {
        if done {
            each(at, page);
        }
    }
}

/// Calls `each` for every page of memory, or of a part of it, that can be read.
///
/// # Errors
/// [`Error::Cancelled`] when the progress function says so.
pub(super) fn pages(
    memory: &dyn PhysicalMemory,
    within: Option<PhysRange>,
    progress: Option<&Progress<'_>>,
    each: &(dyn Fn(PhysAddr, &[u8; PAGE]) + Sync),
) -> Result<()> {
    let pieces = Pieces::new(memory, within);
    let next = AtomicU64::new(0);
    let cancelled = AtomicBool::new(false);
    let worker = || {
        let mut buffer = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= pieces.total || cancelled.load(Ordering::Relaxed) {
                break;
            }
            if let Some(progress) = progress
                && number.is_multiple_of(PROGRESS_EVERY)
                && progress("looking for page tables", number.saturating_mul(PIECE), pieces.total.saturating_mul(PIECE))
                    .is_break()
            {
                cancelled.store(true, Ordering::Relaxed);
                break;
            }
            if let Some(range) = pieces.get(number) {
                visit(memory, range, &mut buffer, each);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    let threads = threads.min(usize::try_from(pieces.total).unwrap_or(MAX_THREADS));
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(worker);
        }
        worker();
    });
    if cancelled.into_inner() { Err(Error::Cancelled) } else { Ok(()) }
}

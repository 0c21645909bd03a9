//! From threads that search windows in any order to one caller who hears of them in order.
//!
//! Owns: the order, the limit, progress, cancellation, and the sum of what was looked at. Must not know: patterns, memory.
//! Keeps: windows are told in ascending order, whichever thread was first; what waits to be told is bounded; a thread that panics
//! leaves nobody waiting.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::{
    read::same_kind,
    run::{Ended, OnProgress},
};
use crate::error::Reason;

/// Windows that may wait for the ones before them.
const MAX_READY: usize = 32;
/// Gaps that are remembered; of the others only their number of bytes.
const MAX_GAPS: usize = 1 << 16;

/// A match as it is handed on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct RawHit {
    /// Its address.
    pub(super) addr: u64,
    /// Number of the pattern.
    pub(super) pattern: u32,
    /// Its length in bytes.
    pub(super) len: usize,
    /// Where its bytes are in [`Results::bytes`].
    pub(super) at: usize,
}

/// What a window gave.
#[derive(Clone, Default, Debug)]
pub(super) struct Results {
    pub(super) hits: Vec<RawHit>,
    /// The bytes of all matches.
    pub(super) bytes: Vec<u8>,
    /// Address, length, reason.
    pub(super) gaps: Vec<(u64, u64, Reason)>,
    /// Bytes that were looked at.
    pub(super) seen: u64,
}

impl Results {
    /// Nothing, in the same room.
    pub(super) fn clear(&mut self) {
        self.hits.clear();
        self.bytes.clear();
        self.gaps.clear();
        self.seen = 0;
    }
}

/// Told every match: address, number of the pattern, bytes.
pub(super) type Sink<'a> = dyn FnMut(u64, u32, &[u8]) -> ControlFlow<()> + Send + 'a;

/// What is known when everything is told.
#[derive(Clone, Default, Debug)]
pub(super) struct Sum {
    pub(super) hits: u64,
    pub(super) seen: u64,
    /// Address, length, reason; ascending.
    pub(super) gaps: Vec<(u64, u64, Reason)>,
    pub(super) missing: u64,
    pub(super) ended: Option<Ended>,
}

impl Sum {
    /// Adds a gap, joined with the one before it when they touch.
    pub(super) fn add_gap(&mut self, start: u64, len: u64, reason: Reason) {
        self.missing = self.missing.saturating_add(len);
        let room = self.gaps.len() < MAX_GAPS;
        match self.gaps.last_mut() {
            Some((before, held, why)) if before.checked_add(*held) == Some(start) && same_kind(why, &reason) => {
                *held = held.saturating_add(len);
            }
            _ if room => self.gaps.push((start, len, reason)),
            _ => {}
        }
    }
}

/// Where the last match of each regular expression ended, as an offset in a segment.
#[derive(Clone, Default, Debug)]
pub(super) struct Carry {
    pub(super) segment: usize,
    pub(super) ends: Vec<u64>,
}

struct State<'a> {
    /// The window that is told next.
    next: u64,
    ready: BTreeMap<u64, (Results, u64)>,
    sink: &'a mut Sink<'a>,
    sum: Sum,
    carry: Carry,
}

/// The line in which windows wait to be told.
pub(super) struct Line<'a> {
    state: Mutex<State<'a>>,
    turn: Condvar,
    stopped: AtomicBool,
    done: AtomicU64,
    total: u64,
    limit: u64,
    progress: Option<OnProgress<'a>>,
}

impl<'a> Line<'a> {
    /// A line for `total` bytes.
    pub(super) fn new(
        sink: &'a mut Sink<'a>,
        total: u64,
        limit: Option<u64>,
        progress: Option<OnProgress<'a>>,
    ) -> Self {
        let state = State { next: 0, ready: BTreeMap::new(), sink, sum: Sum::default(), carry: Carry::default() };
        Self {
            state: Mutex::new(state),
            turn: Condvar::new(),
            stopped: AtomicBool::new(limit == Some(0)),
            done: AtomicU64::new(0),
            total,
            limit: limit.unwrap_or(u64::MAX),
            progress,
        }
    }

    /// The sum, when all threads are done.
    pub(super) fn finish(self) -> Sum {
        let mut sum = self.state.into_inner().unwrap_or_else(PoisonError::into_inner).sum;
        if self.limit == 0 {
            sum.ended = Some(Ended::Limit);
        }
        sum
    }

    /// True when nothing more is wanted.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Asks whether to go on, from inside of a window that takes long.
    pub(super) fn pulse(&self) -> ControlFlow<()> {
        if self.is_stopped() {
            return ControlFlow::Break(());
        }
        match self.progress {
            Some(progress) if progress(self.done.load(Ordering::Relaxed), self.total).is_break() => {
                let mut state = self.lock();
                self.stop(&mut state, Ended::Cancelled);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// Hands in a window that is complete, of so many bytes.
    pub(super) fn hand_in(&self, index: u64, results: Results, len: u64) {
        let mut state = self.lock();
        while state.next != index && state.ready.len() >= MAX_READY && !self.is_stopped() {
            state = self.wait(state);
        }
        state.ready.insert(index, (results, len));
        self.drain(&mut state);
    }

    /// Waits until all windows before this one are told; then where their last matches ended, or `None` when the search is over.
    pub(super) fn wait_for_turn(&self, index: u64) -> Option<Carry> {
        let mut state = self.lock();
        while state.next != index && !self.is_stopped() {
            state = self.wait(state);
        }
        (!self.is_stopped()).then(|| state.carry.clone())
    }

    /// Tells a part of the window whose turn it is.
    pub(super) fn tell_part(&self, results: &Results) {
        self.tell(&mut self.lock(), results);
    }

    /// Ends the turn of a window of so many bytes.
    pub(super) fn end_turn(&self, carry: Carry, len: u64) {
        let mut state = self.lock();
        state.carry = carry;
        self.advance(&mut state, len);
        // Those that wait in the line may be next.
        self.drain(&mut state);
    }

    /// Tells every window whose turn it is.
    fn drain(&self, state: &mut State<'_>) {
        while let Some((results, len)) = state.ready.remove(&{ state.next }) {
            self.tell(state, &results);
            self.advance(state, len);
        }
    }

    fn tell(&self, state: &mut State<'_>, results: &Results) {
        if self.is_stopped() {
            return;
        }
        for hit in &results.hits {
            state.sum.hits += 1;
            let bytes = results.bytes.get(hit.at..hit.at.saturating_add(hit.len)).unwrap_or_default();
            if (state.sink)(hit.addr, hit.pattern, bytes).is_break() {
                return self.stop(state, Ended::Stopped);
            }
            if state.sum.hits >= self.limit {
                return self.stop(state, Ended::Limit);
            }
        }
        for (start, len, reason) in &results.gaps {
            state.sum.add_gap(*start, *len, *reason);
        }
        state.sum.seen = state.sum.seen.saturating_add(results.seen);
    }

    fn advance(&self, state: &mut State<'_>, len: u64) {
        state.next += 1;
        let done = self.done.fetch_add(len, Ordering::Relaxed).saturating_add(len);
        if !self.is_stopped()
            && let Some(progress) = self.progress
            && progress(done, self.total).is_break()
        {
            self.stop(state, Ended::Cancelled);
        }
        self.turn.notify_all();
    }

    fn stop(&self, state: &mut State<'_>, ended: Ended) {
        state.sum.ended.get_or_insert(ended);
        self.stopped.store(true, Ordering::Relaxed);
        self.turn.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<'a>>) -> MutexGuard<'s, State<'a>> {
        self.turn.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by each thread while it works.
pub(super) struct Working<'a, 'l>(pub(super) &'a Line<'l>);

impl Drop for Working<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = self.0.lock();
            // The panic goes on when the threads are joined; the others must not wait for this one.
            self.0.stop(&mut state, Ended::Stopped);
        }
    }
}

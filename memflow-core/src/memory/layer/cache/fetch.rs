//! What a cache asks of the memory below for the parts that it does not hold.
//!
//! Owns: which bytes around a missing part are fetched, how they are joined, the memory they are fetched into.
//! Must not know: slots, locks, validity.
//! Keeps: nothing is fetched that no run holds; each byte is fetched once per batch; bytes at or after a failure are never lent.

use std::{
    mem,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::store::Miss;
use crate::{
    address::{PageSize, PhysAddr, PhysRange},
    memory::{Outcome, PhysRead, Piece, RunMap},
};

/// A part of an operation that the cache could not serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    /// Index of the operation.
    pub(super) op: usize,
    /// Bytes from the start of the operation to the part.
    pub(super) from: usize,
    pub(super) len: usize,
    /// Where it lies in one page that can be fetched; `None` when it is read past the cache.
    pub(super) page: Option<(PhysRange, Miss)>,
}

/// Bytes of one page that are fetched together: all that are held around the missing part.
#[derive(Debug)]
struct Fragment {
    range: PhysRange,
    miss: Miss,
    /// Where they go in the scratch memory.
    at: usize,
    /// Bytes that arrived, from the start.
    good: usize,
}

/// Memory for bytes that are being fetched, shared by all batches in flight.
#[derive(Debug)]
pub(super) struct Scratch {
    free: AtomicUsize,
}

/// Part of a [`Scratch`], given back when dropped.
#[derive(Debug)]
struct Loan<'a> {
    scratch: &'a Scratch,
    len: usize,
}

impl Scratch {
    pub(super) fn new(bytes: usize) -> Self {
        Self { free: AtomicUsize::new(bytes) }
    }

    /// As much as is free, at most `wanted` bytes.
    fn lend(&self, wanted: usize) -> Loan<'_> {
        let mut len = 0;
        let take = |free: usize| {
            len = free.min(wanted);
            Some(free.saturating_sub(len))
        };
        // The closure never declines.
        let _ = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        Loan { scratch: self, len }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.scratch.free.fetch_add(self.len, Ordering::Relaxed);
    }
}

/// The pages that one batch fetches.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    /// Sorted by address, disjoint.
    fragments: Vec<Fragment>,
    /// Neighbouring fragments, joined: address, length. They lie one after the other in `bytes`.
    joined: Vec<(PhysAddr, usize)>,
    bytes: Vec<u8>,
    _loan: Loan<'a>,
}

impl<'a> Fetch<'a> {
    /// Plans to fetch the pages of `missing`. Parts that lie in no run, and those for which there is no scratch memory, become
    /// reads past the cache.
    pub(super) fn plan(missing: &mut [Missing], page: PageSize, runs: &RunMap, scratch: &'a Scratch) -> Self {
        let mut fragments: Vec<Fragment> = Vec::with_capacity(missing.len());
        for part in &mut *missing {
            let Some((range, miss)) = part.page else { continue };
            match held_around(range, page, runs) {
                Some(range) => fragments.push(Fragment { range, miss, at: 0, good: 0 }),
                None => part.page = None,
            }
        }
        // Of equal ones the first stays: the oldest state of the set is the one to compare with.
        fragments.sort_by_key(|fragment| (fragment.range.start(), fragment.miss));
        fragments.dedup_by_key(|fragment| fragment.range.start());

        let loan = scratch.lend(fragments.iter().fold(0, |sum: usize, fragment| sum.saturating_add(fragment.len())));
        let mut len = 0_usize;
        let mut fitting = 0_usize;
        for fragment in &mut fragments {
            let end = len.saturating_add(fragment.len());
            if end > loan.len {
                break;
            }
            fragment.at = len;
            len = end;
            fitting = fitting.saturating_add(1);
        }
        fragments.truncate(fitting);
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            fragments.clear();
        } else {
            bytes.resize(len, 0);
        }
        let mut joined: Vec<(PhysAddr, usize)> = Vec::with_capacity(fragments.len());
        let mut next = None;
        for fragment in &fragments {
            match joined.last_mut().filter(|_| next == Some(fragment.range.start())) {
                Some((_, len)) => *len = len.saturating_add(fragment.len()),
                None => joined.push((fragment.range.start(), fragment.len())),
            }
            next = fragment.range.end();
        }
        let fetch = Self { fragments, joined, bytes, _loan: loan };
        for part in missing {
            part.page = part.page.filter(|(range, _)| fetch.find(*range).is_some());
        }
        fetch
    }

    /// The reads to be carried out, and then to be [answered for](Self::answer).
    pub(super) fn ops(&mut self) -> Vec<PhysRead<'_>> {
        let mut rest = &mut *self.bytes;
        let op = |(addr, len): &(PhysAddr, usize)| {
            // The joined lengths add up to that of the bytes.
            let (buf, after) = mem::take(&mut rest).split_at_mut(*len);
            rest = after;
            PhysRead::new(*addr, buf)
        };
        self.joined.iter().map(op).collect()
    }

    /// Takes note of what became of the reads of [`ops`](Self::ops).
    pub(super) fn answer(&mut self, outcomes: &[Outcome]) {
        let mut fragments = self.fragments.iter_mut().peekable();
        let mut end = 0_usize;
        for ((_, len), outcome) in self.joined.iter().zip(outcomes) {
            let arrived = match outcome {
                Outcome::Done => *len,
                Outcome::Failed { offset, .. } => usize::try_from(*offset).map_or(*len, |offset| offset.min(*len)),
                Outcome::NotAttempted => 0,
            };
            let good = end.saturating_add(arrived);
            end = end.saturating_add(*len);
            while let Some(fragment) = fragments.next_if(|fragment| fragment.at < end) {
                fragment.good = good.saturating_sub(fragment.at).min(fragment.len());
            }
        }
    }

    /// The bytes of `range`, if all of them arrived.
    pub(super) fn bytes(&self, range: PhysRange) -> Option<&[u8]> {
        let fragment = self.find(range)?;
        let start = usize::try_from(range.start().offset_from(fragment.range.start())?).ok()?;
        self.arrived(fragment).get(start..start.checked_add(usize::try_from(range.len()).ok()?)?)
    }

    /// What arrived of each page: where it starts, its bytes, and why it was fetched.
    pub(super) fn pages(&self) -> impl Iterator<Item = (PhysAddr, &[u8], Miss)> {
        self.fragments.iter().map(|fragment| (fragment.range.start(), self.arrived(fragment), fragment.miss))
    }

    fn arrived(&self, fragment: &Fragment) -> &[u8] {
        self.bytes.get(fragment.at..fragment.at.saturating_add(fragment.good)).unwrap_or_default()
    }

    /// The fragment that holds `range`.
    fn find(&self, range: PhysRange) -> Option<&Fragment> {
        let after = self.fragments.partition_point(|fragment| fragment.range.start() <= range.start());
        let fragment = self.fragments.get(after.checked_sub(1)?)?;
        (fragment.range.intersection(&range) == Some(range)).then_some(fragment)
    }
}

impl Fragment {
    fn len(&self) -> usize {
        // Part of a page, whose size fits.
        self.range.len() as usize
    }
}

/// All bytes of the page around `range` that are held without a gap; `None` when a byte of `range` is not held.
fn held_around(range: PhysRange, page: PageSize, runs: &RunMap) -> Option<PhysRange> {
    let start = range.start().page_base(page);
    let whole = PhysRange::new(start, page.bytes())?;
    let mut held: Option<PhysRange> = None;
    for piece in runs.pieces(whole) {
        match piece {
            Piece::Present { range: next, .. } => {
                held = match held {
                    Some(held) => PhysRange::inclusive(held.start(), next.last()?),
                    None => Some(next),
                };
            }
            Piece::Gap { range: gap } => {
                if gap.start() > range.start() {
                    break;
                }
                held = None;
            }
        }
    }
    held.filter(|held| held.intersection(&range) == Some(range))
}

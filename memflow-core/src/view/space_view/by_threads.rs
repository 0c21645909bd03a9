//! Reads that are so long that several threads share them, where tables and bytes lie in this process.
//!
//! Owns: how operations are cut into shares. Must not know: from which length on that pays, what threads there are (`memory/parallel`).
//! Keeps: each byte is in one share; outcomes are those of the operations as if one thread had read them.

use super::{Ranges, SpaceView, length};
use crate::memory::{DirectMap, Outcome, ViewRead, parallel};

/// Where an operation may be cut: no page but one of 1 GiB reaches over a multiple of this.
pub(super) const GRAIN: u64 = 2 << 20;

/// What one thread reads.
#[derive(Default)]
struct Share<'a> {
    reads: Vec<ViewRead<'a>>,
    /// The operation that each read is a part of, and bytes from its start.
    places: Vec<(usize, u64)>,
    /// The reads as ranges to be walked.
    ranges: Ranges,
}

/// Reads `ranges` of the operations, which are in their order, in shares of about so many bytes that end at a multiple of `grain`.
pub(super) fn read(
    view: &SpaceView,
    map: &DirectMap,
    ops: &mut [ViewRead<'_>],
    ranges: &Ranges,
    share: u64,
    grain: u64,
) {
    let mut shares = cut(ops, ranges, share, grain);
    parallel::for_each(&mut shares, |share| view.read_in_place(map, &mut share.reads, &share.ranges));
    let outcome_of = |share: Share<'_>| {
        let outcomes = share.reads.iter().map(|read| read.outcome);
        share.places.into_iter().zip(outcomes.collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let outcomes: Vec<_> = shares.into_iter().flat_map(outcome_of).collect();
    for ((index, offset), outcome) in outcomes {
        if let Some(op) = ops.get_mut(index) {
            op.outcome.add_part(offset, outcome);
        }
    }
}

fn cut<'a>(ops: &'a mut [ViewRead<'_>], ranges: &Ranges, share: u64, grain: u64) -> Vec<Share<'a>> {
    let mut shares = Vec::new();
    let mut open = Share::default();
    let mut room = share;
    let mut next = ranges.iter().peekable();
    for (index, op) in ops.iter_mut().enumerate() {
        let Some((_, first, last)) = next.next_if(|(op, ..)| *op == index) else { continue };
        let (mut first, mut rest, mut offset) = (*first, &mut *op.buf, 0_u64);
        loop {
            let end = match first.checked_add(room).and_then(|end| end.checked_next_multiple_of(grain)) {
                Some(end) if end <= *last => end.wrapping_sub(1),
                _ => *last,
            };
            let len = end.wrapping_sub(first).saturating_add(1);
            let count = length(len, rest.len());
            let (buf, after) = std::mem::take(&mut rest).split_at_mut(count);
            rest = after;
            open.ranges.push((open.reads.len(), first, end));
            open.reads.push(ViewRead { outcome: Outcome::Done, ..ViewRead::new(op.addr.wrapping_add(offset), buf) });
            open.places.push((index, offset));
            room = room.saturating_sub(len);
            if room == 0 {
                shares.push(std::mem::take(&mut open));
                room = share;
            }
            if end >= *last {
                break;
            }
            first = end.wrapping_add(1);
            offset = offset.saturating_add(len);
        }
    }
    if !open.reads.is_empty() {
        shares.push(open);
    }
    shares
}

//! Operations cut into pieces that lie together in the other process.
//!
//! Owns: the cut, the order of pieces, what a fault in the middle means for each operation. Must not know: which system call is made.
//! Keeps: a fault takes one page out of one operation, and everything else goes on.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    PhysAddr, PhysRange, Reason,
    memory::{Outcome, Piece, RunMap},
};
use rustix::io::Errno;

/// What a system fails at: pages are no smaller anywhere.
const PAGE: u64 = 4096;
/// Pieces of one call: `IOV_MAX` of Linux.
pub(super) const MAX_PIECES: usize = 1024;

/// A piece of an operation that lies together in the other process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Index of the operation.
    pub(super) op: usize,
    /// Bytes from its start.
    pub(super) offset: u64,
    /// Where the piece lies in the other process.
    pub(super) virt: u64,
    /// Length in bytes.
    pub(super) len: usize,
}

/// Where a call begins: in which piece, how far in it, and with how many pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) piece: usize,
    pub(super) skip: usize,
    pub(super) count: usize,
}

/// Cuts an operation; what is in no run fails.
pub(super) fn cut(runs: &RunMap, op: usize, addr: PhysAddr, len: usize, places: &mut Vec<Place>) -> Outcome {
    let mut outcome = Outcome::Done;
    let wanted = u64::try_from(len).unwrap_or(u64::MAX);
    let range = PhysRange::new(addr, wanted).or_else(|| {
        // It runs over the last address, and fails from there on.
        let range = PhysRange::inclusive(addr, PhysAddr::new(u64::MAX))?;
        outcome.fail(range.len(), Reason::OutOfRange);
        Some(range)
    });
    for piece in range.into_iter().flat_map(|range| runs.pieces(range)) {
        match piece {
            Piece::Present { range, offset: virt, .. } => {
                let offset = range.start().offset_from(addr).unwrap_or(0);
                places.push(Place { op, offset, virt, len: usize::try_from(range.len()).unwrap_or(len) });
            }
            Piece::Gap { range } => {
                let offset = range.start().offset_from(addr).unwrap_or(0);
                outcome.fail(offset, Reason::NotInImage { phys: range.start() });
            }
        }
    }
    outcome
}

/// What of an operation lies in the runs, as offset and length in it, and what became of the rest.
pub(crate) fn within(runs: &RunMap, addr: PhysAddr, len: usize) -> (Outcome, Vec<(usize, usize)>) {
    let mut places = Vec::new();
    let outcome = cut(runs, 0, addr, len, &mut places);
    let inside = places.iter().filter_map(|place| Some((usize::try_from(place.offset).ok()?, place.len)));
    (outcome, inside.collect())
}

/// Has `call` move all pieces, some at a time; it says how many bytes it moved. `addr` gives the address of an operation.
pub(super) fn move_all(
    places: &[Place],
    outcomes: &mut [Outcome],
    addr: impl Fn(usize) -> PhysAddr,
    mut call: impl FnMut(Cursor) -> Result<usize, Errno>,
) {
    let mut cursor = Cursor { piece: 0, skip: 0, count: MAX_PIECES };
    while let Some(place) = places.get(cursor.piece) {
        if cursor.skip >= place.len {
            (cursor.piece, cursor.skip) = (cursor.piece.saturating_add(1), 0);
            continue;
        }
        match call(cursor) {
            Err(Errno::INTR) => {}
            Ok(moved @ 1..) => {
                advance(places, &mut cursor, moved);
                cursor.count = cursor.count.saturating_mul(4).min(MAX_PIECES);
            }
            Ok(0) | Err(Errno::FAULT | Errno::IO) => {
                let skipped = u64::try_from(cursor.skip).unwrap_or(u64::MAX);
                let offset = place.offset.saturating_add(skipped);
                if let Some(outcome) = outcomes.get_mut(place.op) {
                    outcome.fail(offset, Reason::NotInImage { phys: addr(place.op).wrapping_add(offset) });
                }
                let inside = place.virt.saturating_add(skipped) & PAGE.saturating_sub(1);
                let rest = usize::try_from(PAGE.saturating_sub(inside)).unwrap_or(1);
                cursor.skip = cursor.skip.saturating_add(rest);
                // More holes are likely, and what goes into a call that fails at once was put together in vain.
                cursor.count = 1;
            }
            Err(error) => {
                for place in places.get(cursor.piece..).unwrap_or_default() {
                    if let Some(outcome) = outcomes.get_mut(place.op) {
                        outcome.fail(place.offset, Reason::Io { errno: error.raw_os_error() });
                    }
                }
                return;
            }
        }
    }
}

fn advance(places: &[Place], cursor: &mut Cursor, moved: usize) {
    let mut rest = cursor.skip.saturating_add(moved);
    while let Some(place) = places.get(cursor.piece).filter(|place| rest >= place.len) {
        rest = rest.saturating_sub(place.len);
        cursor.piece = cursor.piece.saturating_add(1);
    }
    cursor.skip = rest;
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        reason = "tests"
    )]
    use super::*;

    /// Moves operations of these lengths from consecutive addresses, with faults at the given pages; says what was moved.
    fn run(lens: &[usize], bad_pages: &[u64], most: usize) -> (Vec<Outcome>, Vec<(u64, usize)>, usize) {
        let (mut places, mut outcomes, mut addr) = (Vec::new(), Vec::new(), 0x1_0000);
        let runs: RunMap = "0x10000-0xffffff@0x10000".parse().unwrap();
        let mut addrs = Vec::new();
        for (op, len) in lens.iter().enumerate() {
            outcomes.push(cut(&runs, op, PhysAddr::new(addr), *len, &mut places));
            addrs.push(PhysAddr::new(addr));
            addr += *len as u64;
        }
        let (mut moved, mut calls) = (Vec::new(), 0);
        move_all(
            &places,
            &mut outcomes,
            |op| addrs[op],
            |cursor| {
                calls += 1;
                let (mut total, mut skip) = (0, cursor.skip);
                for place in places[cursor.piece..].iter().take(cursor.count) {
                    while skip < place.len && total < most {
                        let virt = place.virt + skip as u64;
                        if bad_pages.contains(&(virt / PAGE)) {
                            return if total == 0 { Err(Errno::FAULT) } else { Ok(total) };
                        }
                        let len = (PAGE - virt % PAGE) as usize;
                        let len = len.min(place.len - skip).min(most - total);
                        moved.push((virt, len));
                        total += len;
                        skip += len;
                    }
                    skip = 0;
                }
                Ok(total)
            },
        );
        (outcomes, moved, calls)
    }

    #[test]
    fn fault_takes_out_one_page_of_one_operation() {
        let (outcomes, moved, _) = run(&[0x1000, 0x3000, 0x1000], &[0x12], usize::MAX);
        assert!(outcomes[0].is_done() && outcomes[2].is_done());
        assert_eq!(
            outcomes[1],
            Outcome::Failed { offset: 0x1000, reason: Reason::NotInImage { phys: PhysAddr::new(0x1_2000) } }
        );
        assert_eq!(moved.iter().map(|(_, len)| len).sum::<usize>(), 0x4000);
        assert!(moved.contains(&(0x1_3000, 0x1000)), "bytes behind the hole: {moved:x?}");
    }

    #[test]
    fn calls_that_move_less_than_asked_go_on_where_they_stopped() {
        let (outcomes, moved, calls) = run(&[100, 5000, 1, 0, 9000], &[], 777);
        assert!(outcomes.iter().all(Outcome::is_done));
        assert_eq!(moved.iter().map(|(_, len)| len).sum::<usize>(), 14_101);
        assert_eq!(calls, 14_101_usize.div_ceil(777));
    }

    #[test]
    fn whole_batch_is_one_call() {
        let (outcomes, _, calls) = run(&[8; 1000], &[], usize::MAX);
        assert!(outcomes.iter().all(Outcome::is_done));
        assert_eq!(calls, 1);
    }

    #[test]
    fn process_that_is_gone_fails_the_rest_at_once() {
        let runs: RunMap = "0x0-0xffff@0x0".parse().unwrap();
        let mut places = Vec::new();
        let mut outcomes: Vec<Outcome> = (0..3).map(|op| cut(&runs, op, PhysAddr::new(0), 16, &mut places)).collect();
        let mut calls = 0;
        move_all(
            &places,
            &mut outcomes,
            |_| PhysAddr::new(0),
            |_| {
                calls += 1;
                Err(Errno::SRCH)
            },
        );
        let gone = Outcome::Failed { offset: 0, reason: Reason::Io { errno: Errno::SRCH.raw_os_error() } };
        assert_eq!((outcomes, calls), (vec![gone; 3], 1));
    }

    #[test]
    fn addresses_of_no_run_fail_and_the_rest_of_the_operation_does_not() {
        let runs: RunMap = "0x1000-0x1fff@0x5000,0x3000-0x3fff@0x9000".parse().unwrap();
        let mut places = Vec::new();
        let outcome = cut(&runs, 0, PhysAddr::new(0x1800), 0x2000, &mut places);
        assert_eq!(
            outcome,
            Outcome::Failed { offset: 0x800, reason: Reason::NotInImage { phys: PhysAddr::new(0x2000) } }
        );
        assert_eq!(
            places.iter().map(|place| (place.virt, place.len)).collect::<Vec<_>>(),
            [(0x5800, 0x800), (0x9000, 0x800)]
        );
        places.clear();
        let outcome = cut(&runs, 0, PhysAddr::new(u64::MAX), 2, &mut places);
        assert!(matches!(outcome, Outcome::Failed { offset: 0, .. }) && places.is_empty());
    }
}

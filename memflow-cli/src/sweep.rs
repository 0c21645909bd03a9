//! Work over much physical memory, on every processor.
//!
//! Owns: how ranges are cut into pieces, the threads, progress, and the end at Ctrl-C. Must not know: what is done with a piece.
//! Keeps: results come in the order of the addresses, whichever thread had them; nothing is allocated for memory that nobody has reached.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use memflow_core::{PhysAddr, PhysRange, address::MIB};

use crate::{interrupt, progress};

/// Bytes of a page, the unit in which memory is told.
pub(crate) const PAGE: u64 = 4096;
/// Bytes of a piece.
pub(crate) const PIECE: u64 = MIB;
/// Most threads: more do not make a disk or a device faster.
const MOST_THREADS: usize = 16;

/// Whether all was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Swept {
    /// Every piece.
    All,
    /// Ctrl-C came before; the results are of the pieces that were done, which are not always the first.
    Interrupted,
}

/// What the threads share.
struct Shared<'r, T, R> {
    ranges: R,
    rest: Option<(PhysRange, &'r T)>,
    given: usize,
    bar: progress::Bytes,
}

/// Calls `work` for every piece of `ranges`, with what belongs to the range, and returns the results in order.
pub(crate) fn sweep<'r, T: Sync, O: Send>(
    ranges: &'r [(PhysRange, T)],
    quiet: bool,
    work: impl Fn(PhysRange, &'r T) -> O + Sync,
) -> (Vec<O>, Swept) {
    let total = ranges.iter().fold(0u64, |sum, (range, _)| sum.saturating_add(range.len()));
    let shared =
        Mutex::new(Shared { ranges: ranges.iter(), rest: None, given: 0, bar: progress::Bytes::new(quiet, total) });
    let results = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    // The lock ends with the statement, before the work begins.
                    let next = locked(&shared).next();
                    let Some((index, piece, with)) = next else { break };
                    let done = work(piece, with);
                    locked(&results).push((index, done));
                    locked(&shared).bar.advance(piece.len());
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    let swept = if interrupt::requested() { Swept::Interrupted } else { Swept::All };
    (results.into_iter().map(|(_, result)| result).collect(), swept)
}

impl<'r, T, R: Iterator<Item = &'r (PhysRange, T)>> Shared<'r, T, R> {
    /// The next piece, with its number. Pieces end at multiples of their length.
    fn next(&mut self) -> Option<(usize, PhysRange, &'r T)> {
        if interrupt::requested() {
            return None;
        }
        let (range, with) = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let (range, with) = self.ranges.find(|(range, _)| !range.is_empty())?;
                (*range, with)
            }
        };
        let len = (PIECE - range.start().as_u64() % PIECE).min(range.len());
        let piece = PhysRange::new(range.start(), len)?;
        let start = piece.end().filter(|_| len < range.len());
        let rest = start.and_then(|start| PhysRange::new(start, range.len() - len));
        self.rest = rest.map(|rest| (rest, with));
        self.given += 1;
        Some((self.given, piece, with))
    }
}

/// The pages of a piece, as far as they lie in it.
pub(crate) fn pages(piece: PhysRange) -> Vec<PhysRange> {
    let (start, len) = (piece.start().as_u64(), piece.len());
    let inside = start % PAGE;
    let page = |index: u64| {
        // Both relative to the piece: the last byte of all has no address behind it.
        let from = (index * PAGE).saturating_sub(inside);
        let to = ((index + 1) * PAGE - inside).min(len);
        PhysRange::new(PhysAddr::new(start + from), to - from)
    };
    (0..(inside + len).div_ceil(PAGE)).filter_map(page).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_piece_end_where_it_does() {
        let of = |start, len| {
            let piece = PhysRange::new(PhysAddr::new(start), len).unwrap();
            pages(piece).iter().map(|page| (page.start().as_u64(), page.len())).collect::<Vec<_>>()
        };
        assert_eq!(of(0x1000, 0x2000), [(0x1000, 0x1000), (0x2000, 0x1000)]);
        assert_eq!(of(0x1800, 0x1000), [(0x1800, 0x800), (0x2000, 0x800)]);
        assert_eq!(of(0x1800, 0x10), [(0x1800, 0x10)]);
        assert_eq!(of(u64::MAX - 0xfff, 0x1000), [(u64::MAX - 0xfff, 0x1000)]);
    }

    #[test]
    fn pieces_cover_every_range_in_order_and_nothing_else() {
        let range = |start, len| PhysRange::new(PhysAddr::new(start), len).unwrap();
        let ranges =
            [(range(0x1000, 3 * PIECE), 'a'), (range(8 * PIECE, 0), 'b'), (range(u64::MAX - PIECE, PIECE + 1), 'c')];
        let (pieces, swept) = sweep(&ranges, true, |piece, name| (*name, piece));
        assert_eq!(swept, Swept::All);
        for (expected, name) in ranges {
            let own: Vec<PhysRange> =
                pieces.iter().filter(|(owner, _)| *owner == name).map(|(_, piece)| *piece).collect();
            assert_eq!(own.iter().map(PhysRange::len).sum::<u64>(), expected.len());
            assert!(own.windows(2).all(|pair| pair[0].end() == Some(pair[1].start())), "{own:?}");
            assert!(own.iter().all(|piece| piece.len() <= PIECE));
        }
        assert!(pieces.is_sorted_by_key(|(name, piece)| (*name, piece.start())));
    }
}

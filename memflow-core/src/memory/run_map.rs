//! Which physical addresses a target holds.
//!
//! Owns: [`RunMap`], sorted disjoint runs with the place of each in the bytes behind it.
//! Must not know: what those bytes are (a file, a mapping, a buffer), paging.
//! Keeps: runs are non-empty, sorted and disjoint, and so are never more than what the source listed: there is no entry per page.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fmt, str::FromStr};

use crate::{
    address::{PhysAddr, PhysRange},
    error::{Error, Result},
    units,
};

/// Consecutive physical memory, and where its bytes start in the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The physical addresses.
    pub range: PhysRange,
    /// Offset of the first byte in the source (file, mapping or buffer).
    pub offset: u64,
}

/// Sorted, disjoint, non-empty runs.
///
/// Their text is a list of `FIRST-LAST@OFFSET` with commas between them. Both addresses are part of the run; numbers are decimal, or
/// hexadecimal with `0x`.
///
/// ```
/// use memflow_core::memory::RunMap;
///
/// let runs: RunMap = "0-0xbfffffff@0,0x100000000-0x13fffffff@0xc0000000".parse()?;
/// assert_eq!(runs.total_bytes(), 4 << 30);
/// assert_eq!(runs.to_string().parse::<RunMap>()?, runs);
/// # Ok::<(), memflow_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunMap {
    // INVARIANT: sorted by start, disjoint, none empty, and `offset + range.len()` of each fits a u64.
    runs: Vec<Run>,
}

/// A piece of a range, as the map sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Bytes that the source holds.
    Present {
        /// The addresses.
        range: PhysRange,
        /// Index of the run in [`RunMap::runs`].
        run: usize,
        /// Offset of the first byte in the source.
        offset: u64,
    },
    /// Addresses in no run.
    Gap {
        /// The addresses.
        range: PhysRange,
    },
}

impl RunMap {
    /// Sorts the runs, drops empty ones and joins those that continue each other in memory and in the source.
    ///
    /// # Errors
    /// [`Error::Overlap`] when two runs hold the same address, [`Error::Range`] when a run leaves the source's 2^64 bytes.
    pub fn new(runs: impl IntoIterator<Item = Run>) -> Result<Self> {
        let mut runs: Vec<Run> = runs.into_iter().filter(|run| !run.range.is_empty()).collect();
        // Millions of runs are as large as the file that lists them: nothing is copied, and what is in order is not sorted.
        if !runs.is_sorted_by_key(|run| run.range.start()) {
            runs.sort_unstable_by_key(|run| (run.range.start(), run.offset));
        }
        let mut problem = None;
        runs.dedup_by(|run, previous| match join(previous, run) {
            Ok(Some(range)) => {
                previous.range = range;
                true
            }
            Ok(None) => false,
            Err(error) => {
                problem.get_or_insert(error);
                false
            }
        });
        // The first has no one before it to be joined with.
        match problem.map_or_else(|| runs.first().map_or(Ok(()), inside), Err) {
            Ok(()) => Ok(Self { runs }),
            Err(error) => Err(error),
        }
    }

    /// One run from address zero: a flat image of `len` bytes.
    pub fn flat(len: u64) -> Self {
        let runs = PhysRange::new(PhysAddr::new(0), len).filter(|range| !range.is_empty());
        Self { runs: runs.into_iter().map(|range| Run { range, offset: 0 }).collect() }
    }

    /// The runs, sorted by address.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// True when there is no memory at all.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes held, over all runs.
    pub fn total_bytes(&self) -> u64 {
        self.runs.iter().fold(0, |sum: u64, run| sum.saturating_add(run.range.len()))
    }

    /// The highest address held.
    pub fn last_address(&self) -> Option<PhysAddr> {
        self.runs.last().and_then(|run| run.range.last())
    }

    /// The run that holds `address`.
    pub fn find(&self, address: PhysAddr) -> Option<&Run> {
        self.runs.get(self.index_at_or_after(address)).filter(|run| run.range.contains(address))
    }

    /// Index of the first run whose last address is `address` or higher.
    fn index_at_or_after(&self, address: PhysAddr) -> usize {
        self.runs.partition_point(|run| run.range.last().is_some_and(|last| last < address))
    }

    /// Cuts `range` into what is held and what is not, in order and without overlap.
    pub fn pieces(&self, range: PhysRange) -> Pieces<'_> {
        Pieces {
            map: self,
            rest: Some(range).filter(|range| !range.is_empty()),
            next: self.index_at_or_after(range.start()),
        }
    }
}

/// Refuses a run that leaves the source's 2^64 bytes.
fn inside(run: &Run) -> Result<()> {
    match run.offset.checked_add(run.range.len()) {
        Some(_) => Ok(()),
        None => Err(Error::Range { address: run.range.start().into(), len: run.range.len() }),
    }
}

/// The range of both if `run` continues `previous` in memory and in the source.
fn join(previous: &Run, run: &Run) -> Result<Option<PhysRange>> {
    inside(run)?;
    if previous.range.intersection(&run.range).is_some() {
        return Err(Error::Overlap { first: previous.range, second: run.range });
    }
    let follows = previous.range.end() == Some(run.range.start())
        && previous.offset.checked_add(previous.range.len()) == Some(run.offset);
    let joined = previous.range.len().checked_add(run.range.len()).filter(|_| follows);
    Ok(joined.and_then(|len| PhysRange::new(previous.range.start(), len)))
}

impl fmt::Display for RunMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Run { range, offset }) in self.runs.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{range}@{offset:#x}")?;
        }
        Ok(())
    }
}

impl FromStr for RunMap {
    type Err = Error;

    /// Reads a list of runs.
    ///
    /// # Errors
    /// [`Error::Argument`] for what is not such a list, and as [`RunMap::new`].
    fn from_str(text: &str) -> Result<Self> {
        let runs: Vec<Run> = text.split(',').map(|part| part.trim().parse()).collect::<Result<_>>()?;
        Self::new(runs)
    }
}

impl FromStr for Run {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |expected: &'static str| Error::Argument {
            what: "run of memory".into(),
            expected: expected.into(),
            found: text.to_owned(),
        };
        let form = || bad("FIRST-LAST@OFFSET, such as 0x100000000-0x13fffffff@0xc0000000");
        let number = |text: &str| units::number(text.trim()).map_err(|_| form());
        let (range, offset) = text.split_once('@').ok_or_else(form)?;
        let (first, last) = range.split_once('-').ok_or_else(form)?;
        let (first, last) = (PhysAddr::new(number(first)?), PhysAddr::new(number(last)?));
        let range =
            PhysRange::inclusive(first, last).ok_or_else(|| bad("a last address that is not below the first"))?;
        Ok(Self { range, offset: number(offset)? })
    }
}

/// Iterator of [`RunMap::pieces`].
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    map: &'a RunMap,
    rest: Option<PhysRange>,
    next: usize,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let rest = self.rest?;
        let last = rest.last()?;
        let run = self.map.runs.get(self.next).filter(|run| run.range.start() <= last);
        let (piece, covered) = match run {
            Some(run) if run.range.contains(rest.start()) => {
                let range = run.range.intersection(&rest)?;
                let inside = range.start().offset_from(run.range.start())?;
                let piece = Piece::Present { range, run: self.next, offset: run.offset.checked_add(inside)? };
                self.next = self.next.saturating_add(1);
                (piece, range)
            }
            Some(run) => {
                let range = PhysRange::between(rest.start(), run.range.start())?;
                (Piece::Gap { range }, range)
            }
            None => (Piece::Gap { range: rest }, rest),
        };
        self.rest = covered.end().and_then(|start| PhysRange::inclusive(start, last));
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn run(start: u64, len: u64, offset: u64) -> Run {
        Run { range: PhysRange::new(PhysAddr::new(start), len).unwrap(), offset }
    }

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    #[test]
    fn runs_are_sorted_joined_and_empty_ones_dropped() {
        let map = RunMap::new([run(0x3000, 0x1000, 0x2000), run(0x9000, 0, 0), run(0x2000, 0x1000, 0x1000)]).unwrap();
        assert_eq!(map.runs(), [run(0x2000, 0x2000, 0x1000)]);
        assert_eq!(map.total_bytes(), 0x2000);
        assert_eq!(map.last_address(), Some(PhysAddr::new(0x3fff)));
    }

    #[test]
    fn neighbours_with_other_bytes_stay_apart() {
        let map = RunMap::new([run(0x2000, 0x1000, 0), run(0x3000, 0x1000, 0x8000)]).unwrap();
        assert_eq!(map.runs().len(), 2);
    }

    #[test]
    fn overlap_is_refused_also_when_one_encloses_the_other() {
        assert!(matches!(RunMap::new([run(0, 0x10, 0), run(0xf, 1, 0x10)]), Err(Error::Overlap { .. })));
        assert!(matches!(RunMap::new([run(0, 0x100, 0), run(0x10, 1, 0x100)]), Err(Error::Overlap { .. })));
    }

    #[test]
    fn source_offset_may_not_wrap() {
        assert!(matches!(RunMap::new([run(0, 2, u64::MAX)]), Err(Error::Range { .. })));
    }

    #[test]
    fn pieces_cover_the_range_in_order() {
        let map = RunMap::new([run(0x1000, 0x1000, 0), run(0x4000, 0x1000, 0x1000)]).unwrap();
        let pieces: Vec<Piece> = map.pieces(range(0x800, 0x4000)).collect();
        assert_eq!(
            pieces,
            [
                Piece::Gap { range: range(0x800, 0x800) },
                Piece::Present { range: range(0x1000, 0x1000), run: 0, offset: 0 },
                Piece::Gap { range: range(0x2000, 0x2000) },
                Piece::Present { range: range(0x4000, 0x800), run: 1, offset: 0x1000 },
            ]
        );
    }

    #[test]
    fn last_byte_of_the_address_space_is_ordinary() {
        let map = RunMap::new([run(u64::MAX - 0xfff, 0x1000, 0)]).unwrap();
        assert_eq!(map.last_address(), Some(PhysAddr::new(u64::MAX)));
        let pieces: Vec<Piece> = map.pieces(range(u64::MAX - 1, 2)).collect();
        assert_eq!(pieces, [Piece::Present { range: range(u64::MAX - 1, 2), run: 0, offset: 0xffe }]);
        assert_eq!(map.pieces(range(5, 0)).count(), 0);
    }

    #[test]
    fn find_is_exact_at_the_edges() {
        let map = RunMap::new([run(0x1000, 0x1000, 0)]).unwrap();
        assert!(map.find(PhysAddr::new(0xfff)).is_none());
        assert!(map.find(PhysAddr::new(0x1000)).is_some());
        assert!(map.find(PhysAddr::new(0x1fff)).is_some());
        assert!(map.find(PhysAddr::new(0x2000)).is_none());
    }
}

//! Operations cut into the parts that a source holds.
//!
//! Owns: [`Part`], and what becomes of the rest of an operation. Must not know: how a part is transferred.
//! Keeps: every byte of an operation is in one part, or the operation fails at it or before it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use super::{Outcome, Piece, RunMap};
use crate::{
    address::{PhysAddr, PhysRange},
    error::Reason,
};

/// Part of an operation that lies in one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Bytes from the start of the operation.
    pub from: usize,
    /// Length in bytes.
    pub len: usize,
    /// The addresses.
    pub range: PhysRange,
    /// Index of the run.
    pub run: usize,
    /// Where the part begins in the source of the bytes.
    pub offset: u64,
}

impl RunMap {
    /// Cuts an operation of `len` bytes at `addr` at the ends of runs, and calls `each` for the parts that are held, in order.
    ///
    /// The outcome is done when that is the whole operation. Else it fails at the first byte that no run holds, for which `missing`
    /// gives the reason, or at the end of the address space.
    ///
    /// # Examples
    /// ```
    /// use memflow_core::{PhysAddr, Reason, memory::RunMap};
    ///
    /// let (mut parts, missing) = (Vec::new(), |phys| Reason::NotInImage { phys });
    /// let outcome = RunMap::flat(0x1000).cut(PhysAddr::new(0xff0), 0x20, missing, |part| parts.push((part.from, part.len)));
    /// assert_eq!(parts, [(0, 0x10)]);
    /// assert!(!outcome.is_done());
    /// ```
    pub fn cut(
        &self,
        addr: PhysAddr,
        len: usize,
        missing: impl Fn(PhysAddr) -> Reason,
        mut each: impl FnMut(Part),
    ) -> Outcome {
        let mut outcome = Outcome::Done;
        let wanted = u64::try_from(len).unwrap_or(u64::MAX);
        let range = PhysRange::new(addr, wanted).or_else(|| {
            // It runs over the last address, and fails from there on.
            let range = PhysRange::inclusive(addr, PhysAddr::new(u64::MAX))?;
            outcome.fail(range.len(), Reason::OutOfRange);
            Some(range)
        });
        for piece in range.into_iter().flat_map(|range| self.pieces(range)) {
            let (Piece::Present { range, .. } | Piece::Gap { range }) = piece;
            let from = range.start().offset_from(addr).unwrap_or(u64::MAX);
            match (piece, usize::try_from(from), usize::try_from(range.len())) {
                (Piece::Present { run, offset, .. }, Ok(from), Ok(len)) => each(Part { from, len, range, run, offset }),
                _ => outcome.fail(from, missing(range.start())),
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::memory::Run;

    fn run(start: u64, len: u64, offset: u64) -> Run {
        Run { range: PhysRange::new(PhysAddr::new(start), len).unwrap(), offset }
    }

    fn cut(runs: &RunMap, addr: u64, len: usize) -> (Vec<(usize, usize, u64)>, Outcome) {
        let mut parts = Vec::new();
        let missing = |phys| Reason::NotInImage { phys };
        let outcome =
            runs.cut(PhysAddr::new(addr), len, missing, |part| parts.push((part.from, part.len, part.offset)));
        (parts, outcome)
    }

    #[test]
    fn parts_end_with_their_runs() {
        let runs =
            RunMap::new([run(0x1000, 0x1000, 0), run(0x2000, 0x1000, 0x8000), run(0x4000, 0x1000, 0x1000)]).unwrap();
        assert_eq!(cut(&runs, 0x1800, 0x1000), (vec![(0, 0x800, 0x800), (0x800, 0x800, 0x8000)], Outcome::Done));
        let phys = PhysAddr::new(0x3000);
        let failed = Outcome::Failed { offset: 0x800, reason: Reason::NotInImage { phys } };
        assert_eq!(cut(&runs, 0x2800, 0x2000), (vec![(0, 0x800, 0x8800), (0x1800, 0x800, 0x1000)], failed));
    }

    #[test]
    fn end_of_the_address_space_fails_what_lies_behind_it() {
        let runs = RunMap::new([run(u64::MAX - 0xf, 0x10, 0)]).unwrap();
        let failed = Outcome::Failed { offset: 8, reason: Reason::OutOfRange };
        assert_eq!(cut(&runs, u64::MAX - 7, 0x10), (vec![(0, 8, 8)], failed));
        assert_eq!(cut(&runs, u64::MAX - 7, 8), (vec![(0, 8, 8)], Outcome::Done));
    }

    #[test]
    fn nothing_is_done_at_once() {
        assert_eq!(cut(&RunMap::default(), 0x1000, 0), (Vec::new(), Outcome::Done));
    }
}

//! Two memories, byte by byte.
//!
//! Owns: what is the same, what is not, and what only one of them has. Must not know: processes, how results are shown.
//! Keeps: equal is only what both have, both gave, and what is the same in both; everything else is a difference with its kind.

use std::sync::Arc;

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory, Reason,
    memory::{Outcome, PhysRead, Piece, RunMap},
};

use crate::sweep::{Swept, pages, sweep};

/// How memory differs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// Both have it, with other bytes.
    Changed,
    /// The second does not have it.
    OnlyA,
    /// Whoever wrote the second left it out on purpose.
    LeftOutOfB,
    /// The first does not have it.
    OnlyB,
    /// Whoever wrote the first left it out on purpose.
    LeftOutOfA,
    /// The first should have it, and it cannot be read.
    UnreadableInA,
    /// The same of the second.
    UnreadableInB,
    /// The same of both.
    UnreadableInBoth,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Changed,
        Self::OnlyA,
        Self::LeftOutOfB,
        Self::OnlyB,
        Self::LeftOutOfA,
        Self::UnreadableInA,
        Self::UnreadableInB,
        Self::UnreadableInBoth,
    ];

    /// As it stands in JSON.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::OnlyA => "only_a",
            Self::LeftOutOfB => "left_out_of_b",
            Self::OnlyB => "only_b",
            Self::LeftOutOfA => "left_out_of_a",
            Self::UnreadableInA => "unreadable_in_a",
            Self::UnreadableInB => "unreadable_in_b",
            Self::UnreadableInBoth => "unreadable_in_both",
        }
    }

    /// As a person reads it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::OnlyA => "only in A",
            Self::LeftOutOfB => "left out of B",
            Self::OnlyB => "only in B",
            Self::LeftOutOfA => "left out of A",
            Self::UnreadableInA => "unreadable in A",
            Self::UnreadableInB => "unreadable in B",
            Self::UnreadableInBoth => "unreadable in both",
        }
    }

    /// True where what is asked for is not known: it should be there and is not.
    pub(super) fn is_unreadable(self) -> bool {
        matches!(self, Self::UnreadableInA | Self::UnreadableInB | Self::UnreadableInBoth)
    }
}

/// Memory that differs: whole pages, as far as there is memory in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Difference {
    pub(super) range: PhysRange,
    pub(super) kind: Kind,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Compared {
    /// By address; what touches and is of one kind is one.
    pub(super) differences: Vec<Difference>,
    /// Memory that one of the two has at least, by address.
    pub(super) held: Vec<PhysRange>,
    /// Bytes of `held` that were looked at.
    pub(super) looked_at: u64,
    pub(super) swept: Swept,
}

/// Who has some memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Has {
    A,
    B,
    Both,
}

/// What a memory says of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Bytes,
    Absent,
    LeftOut,
    Unreadable,
}

/// One of the two.
struct Side<'m> {
    memory: &'m dyn PhysicalMemory,
    /// Without what is known to be zeros.
    populated: Arc<RunMap>,
}

/// Compares all memory that `a` or `b` has.
pub(super) fn compare(a: &dyn PhysicalMemory, b: &dyn PhysicalMemory, quiet: bool) -> Compared {
    let (runs_a, runs_b) = (a.metadata().runs, b.metadata().runs);
    let segments = segments(&runs_a, &runs_b);
    let side = |memory| Side { memory, populated: PhysicalMemory::populated_runs(memory) };
    let (a, b) = (side(a), side(b));
    let (pieces, swept) = sweep(&segments, quiet, |piece, has| (piece.len(), piece_of(&a, &b, piece, *has)));
    let looked_at = pieces.iter().fold(0u64, |sum, (len, _)| sum.saturating_add(*len));
    let mut differences: Vec<Difference> = Vec::new();
    for found in pieces.into_iter().flat_map(|(_, found)| found) {
        push(&mut differences, found.range, found.kind);
    }
    let mut held: Vec<PhysRange> = Vec::new();
    for (range, _) in &segments {
        match held.last_mut().and_then(|last| Some((joined(last, range)?, last))) {
            Some((joined, last)) => *last = joined,
            None => held.push(*range),
        }
    }
    Compared { differences, held, looked_at, swept }
}

/// Adds a difference, to the one before if it continues it.
fn push(list: &mut Vec<Difference>, range: PhysRange, kind: Kind) {
    let last = list.last_mut().filter(|last| last.kind == kind);
    match last.and_then(|last| Some((joined(&last.range, &range)?, last))) {
        Some((joined, last)) => last.range = joined,
        None => list.push(Difference { range, kind }),
    }
}

/// Both ranges as one, if the second begins where the first ends.
fn joined(first: &PhysRange, second: &PhysRange) -> Option<PhysRange> {
    let len = first.len().checked_add(second.len()).filter(|_| first.end() == Some(second.start()))?;
    PhysRange::new(first.start(), len)
}

/// The memory that either has, cut where it begins or ends in one of them.
fn segments(a: &RunMap, b: &RunMap) -> Vec<(PhysRange, Has)> {
    let ends = |runs: &RunMap| -> Vec<u64> {
        runs.runs()
            .iter()
            .flat_map(|run| [run.range.start().as_u64(), run.range.last().map_or(0, |last| last.as_u64())])
            .collect()
    };
    let last = ends(a).into_iter().chain(ends(b)).max();
    let Some(all) = last.and_then(|last| PhysRange::inclusive(PhysAddr::new(0), PhysAddr::new(last))) else {
        return Vec::new();
    };
    let mut segments = Vec::new();
    for piece in a.pieces(all) {
        match piece {
            Piece::Gap { range } => segments.extend(b.pieces(range).filter_map(|piece| match piece {
                Piece::Present { range, .. } => Some((range, Has::B)),
                Piece::Gap { .. } => None,
            })),
            Piece::Present { range, .. } => segments.extend(b.pieces(range).map(|piece| match piece {
                Piece::Present { range, .. } => (range, Has::Both),
                Piece::Gap { range } => (range, Has::A),
            })),
        }
    }
    segments
}

/// The differences in one piece.
fn piece_of(a: &Side<'_>, b: &Side<'_>, piece: PhysRange, has: Has) -> Vec<Difference> {
    let mut found = Vec::new();
    match has {
        Has::Both => both(a, b, piece, &mut found),
        Has::A => one(b, piece, Kind::OnlyA, Kind::LeftOutOfB, &mut found),
        Has::B => one(a, piece, Kind::OnlyB, Kind::LeftOutOfA, &mut found),
    }
    found
}

impl Side<'_> {
    /// True when all bytes of a range are known to be zero.
    fn is_empty(&self, range: PhysRange) -> bool {
        self.populated.pieces(range).all(|piece| matches!(piece, Piece::Gap { .. }))
    }

    /// Fills the buffer; false if anything is missing.
    fn fill(&self, at: PhysAddr, buf: &mut [u8]) -> bool {
        self.memory.read_batch(&mut [PhysRead::new(at, buf)]).is_ok()
    }

    /// What the memory says of each page of a range, of which it is asked for `len` bytes at a time.
    fn said(&self, pages: &[PhysRange], bytes: &mut [u8]) -> Vec<Said> {
        let mut rest = bytes;
        let mut ops = Vec::with_capacity(pages.len());
        for page in pages {
            let len = usize::try_from(page.len()).unwrap_or(usize::MAX).min(rest.len());
            let (buf, behind) = rest.split_at_mut(len);
            rest = behind;
            ops.push(PhysRead::new(page.start(), buf));
        }
        // Each operation has its own outcome.
        let _folded = self.memory.read_batch(&mut ops);
        ops.iter().map(|op| said(&op.outcome)).collect()
    }
}

fn said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Done => Said::Bytes,
        Outcome::Failed { reason: Reason::NotInImage { .. }, .. } => Said::Absent,
        Outcome::Failed { reason: Reason::Excluded { .. }, .. } => Said::LeftOut,
        Outcome::Failed { .. } | Outcome::NotAttempted => Said::Unreadable,
    }
}

/// Memory that both have.
fn both(a: &Side<'_>, b: &Side<'_>, piece: PhysRange, found: &mut Vec<Difference>) {
    if a.is_empty(piece) && b.is_empty(piece) {
        return;
    }
    // At most `PIECE`, which every machine's address space holds.
    let len = usize::try_from(piece.len()).unwrap_or(usize::MAX);
    let (mut bytes_a, mut bytes_b) = (vec![0; len], vec![0; len]);
    let whole = a.fill(piece.start(), &mut bytes_a) & b.fill(piece.start(), &mut bytes_b);
    if whole && bytes_a == bytes_b {
        return;
    }
    let pages = pages(piece);
    let said: Vec<(Said, Said)> = if whole {
        vec![(Said::Bytes, Said::Bytes); pages.len()]
    } else {
        a.said(&pages, &mut bytes_a).into_iter().zip(b.said(&pages, &mut bytes_b)).collect()
    };
    let mut at = 0;
    for (page, said) in pages.into_iter().zip(said) {
        let end = at + usize::try_from(page.len()).unwrap_or(usize::MAX);
        let same = bytes_a.get(at..end) == bytes_b.get(at..end);
        at = end;
        if let Some(kind) = kind(said, same) {
            push(found, page, kind);
        }
    }
}

/// What two answers mean.
fn kind(said: (Said, Said), same: bool) -> Option<Kind> {
    match said {
        (Said::Bytes, Said::Bytes) => (!same).then_some(Kind::Changed),
        (Said::Bytes, Said::Absent) => Some(Kind::OnlyA),
        (Said::Bytes, Said::LeftOut) => Some(Kind::LeftOutOfB),
        (Said::Absent, Said::Bytes) => Some(Kind::OnlyB),
        (Said::LeftOut, Said::Bytes) => Some(Kind::LeftOutOfA),
        (Said::Bytes, Said::Unreadable) => Some(Kind::UnreadableInB),
        (Said::Unreadable, Said::Bytes) => Some(Kind::UnreadableInA),
        _ => Some(Kind::UnreadableInBoth),
    }
}

/// Memory that the other one has, and `side` does not: whether it was left out there.
fn one(side: &Side<'_>, piece: PhysRange, absent: Kind, left_out: Kind, found: &mut Vec<Difference>) {
    let pages = pages(piece);
    let first = |page: &PhysRange| PhysRange::new(page.start(), 1);
    let firsts: Vec<PhysRange> = pages.iter().filter_map(first).collect();
    let mut bytes = vec![0; firsts.len()];
    for (page, said) in pages.into_iter().zip(side.said(&firsts, &mut bytes)) {
        push(found, page, if said == Said::LeftOut { left_out } else { absent });
    }
}

#[cfg(test)]
mod tests {
    use memflow_core::memory::{BufferMemory, Run, SourceConfig, TargetFacts};

    use super::*;

    fn memory(ranges: &[(u64, Vec<u8>)]) -> BufferMemory {
        let mut bytes = Vec::new();
        let mut runs = Vec::new();
        for (start, content) in ranges {
            let range = PhysRange::new(PhysAddr::new(*start), content.len() as u64).unwrap();
            runs.push(Run { range, offset: bytes.len() as u64 });
            bytes.extend(content);
        }
        let config =
            SourceConfig { name: "two".into(), runs: RunMap::new(runs).unwrap(), facts: TargetFacts::default() };
        BufferMemory::new(config, bytes).unwrap()
    }

    fn differences(a: &[(u64, Vec<u8>)], b: &[(u64, Vec<u8>)]) -> Vec<(u64, u64, Kind)> {
        let compared = compare(&memory(a), &memory(b), true);
        assert_eq!(compared.swept, Swept::All);
        compared.differences.iter().map(|found| (found.range.start().as_u64(), found.range.len(), found.kind)).collect()
    }

    #[test]
    fn one_byte_makes_its_page_a_difference_and_no_other() {
        let a = vec![1; 0x5000];
        let mut b = a.clone();
        b[0x1fff] = 2;
        b[0x2000] = 2;
        b[0x4000] = 2;
        let expected = [(0x1_1000, 0x2000, Kind::Changed), (0x1_4000, 0x1000, Kind::Changed)];
        assert_eq!(differences(&[(0x1_0000, a.clone())], &[(0x1_0000, b)]), expected);
        assert_eq!(differences(&[(0x1_0000, a.clone())], &[(0x1_0000, a)]), []);
    }

    #[test]
    fn what_only_one_has_is_never_equal_though_it_is_zero() {
        let a = [(0x1000, vec![0; 0x1800]), (0x8000, vec![0; 0x1000])];
        let b = [(0x2000, vec![0; 0x2000])];
        let expected = [(0x1000, 0x1000, Kind::OnlyA), (0x2800, 0x1800, Kind::OnlyB), (0x8000, 0x1000, Kind::OnlyA)];
        assert_eq!(differences(&a, &b), expected);
    }

    #[test]
    fn every_pair_of_answers_but_the_same_bytes_is_a_difference() {
        use Said::{Absent, Bytes, LeftOut, Unreadable};
        assert_eq!(kind((Bytes, Bytes), true), None);
        for a in [Bytes, Absent, LeftOut, Unreadable] {
            for b in [Bytes, Absent, LeftOut, Unreadable] {
                assert!(kind((a, b), false).is_some(), "{a:?} {b:?}");
                if (a, b) != (Bytes, Bytes) {
                    // Buffers that nobody filled are the same, and that says nothing.
                    assert!(kind((a, b), true).is_some(), "{a:?} {b:?}");
                }
            }
        }
    }
}

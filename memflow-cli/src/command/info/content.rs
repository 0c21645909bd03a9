//! What is there of a machine's memory, and what is not.
//!
//! Owns: the gaps between runs and why they are there, and what a look at every page finds. Must not know: formats, kernels.
//! Keeps: reading all memory is done on request only; what was left out, what is not there and what cannot be read stay apart.

use std::collections::BTreeMap;

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory, Reason,
    memory::{Outcome, PhysRead, Piece},
};
use serde::Serialize;

use crate::{
    output::{Hex, plural, size},
    sweep::{Swept, pages, sweep},
};

/// Most places that are told of what cannot be read.
const MOST_PLACES: usize = 1024;

/// Addresses between the first and the last byte of memory that are in no run.
#[derive(Serialize)]
pub(super) struct GapsRecord {
    count: u64,
    size: u64,
    /// Of those, bytes that whoever wrote the file left out.
    left_out: u64,
}

/// What every page holds.
#[derive(Serialize)]
pub(super) struct ContentRecord {
    pages: u64,
    zero_pages: u64,
    unreadable: u64,
    places: Vec<PlaceRecord>,
    /// False after Ctrl-C.
    pub(super) complete: bool,
}

/// Memory that should be there and cannot be read.
#[derive(Serialize, Clone)]
struct PlaceRecord {
    start: Hex,
    size: u64,
    reason: String,
}

impl GapsRecord {
    /// Looks between the runs.
    pub(super) fn new(memory: &dyn PhysicalMemory) -> Self {
        let (runs, excluded) = (memory.metadata().runs, memory.excluded_runs());
        let all = runs.last_address().and_then(|last| PhysRange::inclusive(PhysAddr::new(0), last));
        let gaps = all.into_iter().flat_map(|all| runs.pieces(all)).filter_map(|piece| match piece {
            Piece::Gap { range } => Some(range),
            Piece::Present { .. } => None,
        });
        let mut all = Self { count: 0, size: 0, left_out: 0 };
        for gap in gaps {
            all.count += 1;
            all.size = all.size.saturating_add(gap.len());
            all.left_out += excluded.pieces(gap).fold(0, |sum, piece| match piece {
                Piece::Present { range, .. } => sum + range.len(),
                Piece::Gap { .. } => sum,
            });
        }
        all
    }

    /// In a line; nothing if there are none.
    pub(super) fn line(&self) -> Option<String> {
        let gaps = || format!("{} in {}", size(self.size), plural(self.count, "gap"));
        match (self.count, self.left_out) {
            (0, _) => None,
            (_, 0) => Some(gaps()),
            (_, bytes) => Some(format!("{}, {} of them left out when it was written", gaps(), size(bytes))),
        }
    }
}

/// What was found in one piece.
#[derive(Default)]
struct Found {
    pages: u64,
    zero_pages: u64,
    unreadable: u64,
    places: Vec<PlaceRecord>,
}

impl ContentRecord {
    /// Reads all memory.
    pub(super) fn read(memory: &dyn PhysicalMemory, quiet: bool) -> Self {
        let runs = memory.metadata().runs;
        let ranges: Vec<(PhysRange, ())> = runs.runs().iter().map(|run| (run.range, ())).collect();
        let (found, swept) = sweep(&ranges, quiet, |piece, ()| look(memory, piece));
        let mut all =
            Self { pages: 0, zero_pages: 0, unreadable: 0, places: Vec::new(), complete: swept == Swept::All };
        for piece in found {
            all.pages += piece.pages;
            all.zero_pages += piece.zero_pages;
            all.unreadable = all.unreadable.saturating_add(piece.unreadable);
            for place in piece.places {
                let room = all.places.len() < MOST_PLACES;
                let continued = all.places.last_mut().filter(|last| {
                    last.reason == place.reason && last.start.0.checked_add(last.size) == Some(place.start.0)
                });
                match continued {
                    Some(last) => last.size += place.size,
                    None if room => all.places.push(place),
                    None => {}
                }
            }
        }
        all
    }

    /// In a line.
    pub(super) fn line(&self) -> String {
        format!("{}, {} of them zero", plural(self.pages, "page"), self.zero_pages)
    }

    /// A sentence about each reason why memory cannot be read.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut reasons: BTreeMap<&str, (u64, Hex)> = BTreeMap::new();
        for place in &self.places {
            let (bytes, _) = reasons.entry(&place.reason).or_insert((0, place.start));
            *bytes += place.size;
        }
        let told = reasons.values().fold(0u64, |sum, (bytes, _)| sum.saturating_add(*bytes));
        let sentence = |(reason, (bytes, Hex(start))): (&str, (u64, Hex))| {
            format!("{} cannot be read: {reason}; the first at {start:#x}", size(bytes))
        };
        let mut problems: Vec<String> = reasons.into_iter().map(sentence).collect();
        if let Some(more) = self.unreadable.checked_sub(told).filter(|more| *more > 0) {
            problems.push(format!("{} more cannot be read", size(more)));
        }
        problems
    }
}

fn look(memory: &dyn PhysicalMemory, piece: PhysRange) -> Found {
    let pages = pages(piece);
    // At most a piece of a sweep, which every machine's address space holds.
    let mut bytes = vec![0; usize::try_from(piece.len()).unwrap_or(usize::MAX)];
    let mut found = Found { pages: pages.len() as u64, ..Found::default() };
    let mut rest = bytes.as_mut_slice();
    let mut ops = Vec::with_capacity(pages.len());
    for page in &pages {
        let len = usize::try_from(page.len()).unwrap_or(usize::MAX).min(rest.len());
        let (buf, behind) = rest.split_at_mut(len);
        rest = behind;
        ops.push(PhysRead::new(page.start(), buf));
    }
    // Each operation has its own outcome.
    let _folded = memory.read_batch(&mut ops);
    for (op, page) in ops.iter().zip(&pages) {
        match &op.outcome {
            Outcome::Done => found.zero_pages += u64::from(op.buf.iter().all(|byte| *byte == 0)),
            outcome => {
                found.unreadable += page.len();
                found.places.push(PlaceRecord { start: page.start().into(), size: page.len(), reason: words(outcome) });
            }
        }
    }
    found
}

/// Why, without the address, so that neighbours have the same words.
fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed { reason: Reason::Damaged { .. }, .. } => "it is damaged in the file".to_owned(),
        Outcome::Failed { reason: Reason::Truncated { .. }, .. } => "the file ends before".to_owned(),
        Outcome::Failed { reason: Reason::NotInImage { .. }, .. } => "it is not in the image".to_owned(),
        Outcome::Failed { reason: Reason::Excluded { .. }, .. } => "it was left out on purpose".to_owned(),
        Outcome::Failed { reason, .. } => reason.to_string(),
        Outcome::NotAttempted | Outcome::Done => "it was not attempted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use memflow_core::memory::{ByteSource, Liveness, PositionedMemory, Run, RunMap, SourceConfig, TargetFacts};

    use super::*;
    use crate::sweep::PAGE;

    /// Zeros, but for ones in the second page and damage in the third.
    struct Pages;

    impl ByteSource for Pages {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            match offset / PAGE {
                2 => return Err(io::ErrorKind::InvalidData.into()),
                page => buf.fill(u8::from(page == 1)),
            }
            Ok(buf.len())
        }
    }

    fn memory() -> PositionedMemory<Pages> {
        let run = |start, len, offset| Run { range: PhysRange::new(PhysAddr::new(start), len).unwrap(), offset };
        let runs = RunMap::new([run(0x1000, 0x4000, 0), run(0x8000, 0x1000, 0x4000)]).unwrap();
        let config = SourceConfig { name: "pages".into(), runs, facts: TargetFacts::default() };
        let excluded = RunMap::new([run(0x5000, 0x1000, 0)]).unwrap();
        PositionedMemory::new(config, Pages, Liveness::Frozen, true).with_excluded(excluded)
    }

    #[test]
    fn gaps_and_what_was_left_out_are_told_apart() {
        let gaps = GapsRecord::new(&memory());
        assert_eq!((gaps.count, gaps.size, gaps.left_out), (2, 0x4000, 0x1000));
        assert_eq!(gaps.line().unwrap(), "16 KiB in 2 gaps, 4 KiB of them left out when it was written");
    }

    #[test]
    fn zero_pages_are_counted_and_damage_is_named() {
        let content = ContentRecord::read(&memory(), true);
        assert_eq!((content.pages, content.zero_pages, content.unreadable), (5, 3, 0x1000));
        assert_eq!(content.line(), "5 pages, 3 of them zero");
        assert_eq!(content.problems(), ["4 KiB cannot be read: it is damaged in the file; the first at 0x3000"]);
    }
}

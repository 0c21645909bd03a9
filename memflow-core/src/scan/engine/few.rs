//! The engine for few patterns: a gram of each is searched for, all side by side.
//!
//! Owns: the search for at most [`MOST_FEW`] grams. Must not know: how grams are chosen.
//! Keeps: the grams are of one width, so no two of them stand at the same place.

use std::{collections::BTreeMap, ops::ControlFlow};

use aho_corasick::packed::{self, Searcher};

use super::{
    Haystack, Numbered, Take,
    grams::{Choice, GRAM, Shape, variants},
};

/// Grams that are searched side by side; more of them get in each other's way.
pub(super) const MOST_FEW: usize = 32;

/// Patterns with few grams in all, which are searched side by side.
#[derive(Debug)]
pub(super) struct Few {
    patterns: Vec<Numbered>,
    searcher: Searcher,
    /// By the number of the gram in the searcher: the patterns that have it, and where.
    entries: Vec<Vec<(usize, usize)>>,
    farthest: usize,
}

impl Few {
    /// `None` when there are none or too many, when one has no gram or too many share one, or when the processor cannot do it.
    pub(super) fn new(patterns: &[Numbered]) -> Option<Self> {
        if patterns.is_empty() || patterns.len() > MOST_FEW {
            return None;
        }
        let shape = Shape { width: GRAM, stride: 1 };
        let firsts = Choice::of(&patterns.iter().collect::<Vec<_>>(), shape, 0).firsts;
        let mut entries: BTreeMap<u64, Vec<(usize, usize)>> = BTreeMap::new();
        for (pattern, (numbered, first)) in patterns.iter().zip(firsts).enumerate() {
            let offset = first?;
            for gram in variants(&numbered.fixed, offset, GRAM) {
                entries.entry(gram).or_default().push((pattern, offset));
            }
        }
        if entries.len() > MOST_FEW {
            return None;
        }
        let grams = entries.keys().filter_map(|gram| gram.to_le_bytes().first_chunk::<GRAM>().copied());
        let searcher = packed::Config::new().builder().extend(grams).build()?;
        let entries: Vec<Vec<(usize, usize)>> = entries.into_values().collect();
        let farthest = entries.iter().flatten().map(|(_, offset)| *offset).max().unwrap_or(0);
        Some(Self { patterns: patterns.to_vec(), searcher, entries, farthest })
    }

    /// Number of grams.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn find(&self, hay: &Haystack<'_>, take: &mut dyn Take) -> ControlFlow<()> {
        let end = hay.until.saturating_add(self.farthest).saturating_add(GRAM - 1).min(hay.bytes.len());
        let mut from = hay.from;
        while from < end
            && let Some(found) = self.searcher.find_in(hay.bytes, (from..end).into())
        {
            let place = found.start();
            for (pattern, offset) in self.entries.get(found.pattern().as_usize()).map_or(&[][..], Vec::as_slice) {
                if let Some(pattern) = self.patterns.get(*pattern) {
                    pattern.check(hay, place.checked_sub(*offset), take)?;
                }
            }
            from = place + 1;
        }
        ControlFlow::Continue(())
    }
}

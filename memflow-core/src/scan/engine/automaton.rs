//! The engine for patterns that are too short or too alike for any other.
//!
//! Owns: an Aho-Corasick automaton over patterns without wildcards. Must not know: wildcards.
//! Keeps: its time does not depend on what the patterns are.

use std::ops::ControlFlow;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::{Haystack, Numbered, Take};
use crate::error::{Error, Result};

/// An automaton.
#[derive(Debug)]
pub(super) struct Automaton {
    automaton: AhoCorasick,
    patterns: Vec<Numbered>,
    longest: usize,
}

impl Automaton {
    /// # Errors
    /// [`Error::Argument`] when it gets too large.
    pub(super) fn new(patterns: &[Numbered]) -> Result<Self> {
        let bytes = patterns.iter().map(|pattern| &*pattern.fixed.value);
        let automaton =
            AhoCorasick::builder().match_kind(MatchKind::Standard).build(bytes).map_err(|error| Error::Argument {
                what: "patterns".into(),
                expected: "fewer or shorter ones".into(),
                found: format!("{} ({error})", patterns.len()),
            })?;
        let longest = patterns.iter().map(|pattern| pattern.fixed.value.len()).max().unwrap_or(0);
        Ok(Self { automaton, patterns: patterns.to_vec(), longest })
    }

    /// Number of patterns.
    pub(super) fn len(&self) -> usize {
        self.patterns.len()
    }

    pub(super) fn find(&self, hay: &Haystack<'_>, take: &mut dyn Take) -> ControlFlow<()> {
        let end = hay.until.saturating_add(self.longest).saturating_sub(1).min(hay.bytes.len());
        let input = Input::new(hay.bytes).span(hay.from.min(end)..end);
        // The automaton has no anchor and reports overlaps, so it cannot refuse the search.
        let Ok(matches) = self.automaton.try_find_overlapping_iter(input) else { return ControlFlow::Continue(()) };
        for found in matches {
            if found.start() < hay.until
                && let Some(pattern) = self.patterns.get(found.pattern().as_usize())
            {
                pattern.give(found.start(), take)?;
            }
        }
        ControlFlow::Continue(())
    }
}

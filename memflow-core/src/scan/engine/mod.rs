//! Engines: how patterns are found in bytes.
//!
//! Owns: the choice of engines for a set of patterns, made once and said at trace level, and what engines are given and give.
//! Must not know: memory, addresses, windows.
//! Keeps: each place where a pattern matches is given out once, by one engine; every engine takes time in proportion to the bytes,
//! apart from places that nearly match.

mod automaton;
mod grams;
mod literal;

use std::{fmt, ops::ControlFlow};

use self::{
    automaton::Automaton,
    grams::{Few, Grams, Many},
    literal::{ByteSet, Literal, Part},
};
use super::{
    pattern::{Fixed, Kind, Pattern},
    regex::{CONTEXT, RegexPattern},
};
use crate::error::Result;

/// Bytes to be searched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Haystack<'a> {
    /// All of them: also what a match that begins in the window may need, and some bytes before it.
    pub(super) bytes: &'a [u8],
    /// Where the window begins: earlier matches are not wanted.
    pub(super) from: usize,
    /// Where it ends: matches that begin here or later are not wanted.
    pub(super) until: usize,
}

/// A match.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Found {
    /// Where it begins.
    pub(super) start: usize,
    /// Number of the pattern.
    pub(super) pattern: u32,
    /// Its length in bytes.
    pub(super) len: usize,
}

/// Who takes matches.
pub(super) trait Take {
    /// Takes a match; breaks when no more are wanted.
    fn found(&mut self, found: Found) -> ControlFlow<()>;

    /// Called now and then by engines that may take long; breaks when the search is to end.
    fn pulse(&mut self) -> ControlFlow<()>;
}

/// A pattern of fixed length and its number.
#[derive(Clone, Debug)]
pub(super) struct Numbered {
    number: u32,
    fixed: Fixed,
}

impl Numbered {
    /// Gives out the match at `start` if there is one.
    #[inline]
    fn check(&self, hay: &Haystack<'_>, start: Option<usize>, take: &mut dyn Take) -> ControlFlow<()> {
        let Some(start) = start.filter(|start| (hay.from..hay.until).contains(start)) else {
            return ControlFlow::Continue(());
        };
        let len = self.fixed.value.len();
        match hay.bytes.get(start..).and_then(|rest| rest.get(..len)) {
            Some(bytes) if self.fixed.matches(bytes) => take.found(Found { start, pattern: self.number, len }),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// One engine.
#[derive(Debug)]
enum Engine {
    Literal(Literal),
    Part(Part),
    Few(Few),
    Many(Many),
    Automaton(Automaton),
    ByteSet(ByteSet),
    Regex(u32, RegexPattern),
}

impl Engine {
    /// The engine for a pattern with wildcards that no other takes together with others.
    fn for_one(pattern: &Numbered) -> Self {
        match Part::new(pattern) {
            // Even two bytes stand in few places compared with one.
            Some(part) if part.len() > 1 => Self::Part(part),
            _ => Self::ByteSet(ByteSet::new(pattern)),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Literal(_) => "substring".to_owned(),
            Self::Part(part) => format!("substring of {} bytes, then the rest", part.len()),
            Self::Few(few) => format!("{} pieces of 4 bytes side by side", few.len()),
            Self::Many(many) => many.describe(),
            Self::Automaton(automaton) => format!("automaton of {} patterns", automaton.len()),
            Self::ByteSet(_) => "one byte, then the rest".to_owned(),
            Self::Regex(_, regex) => format!("regular expression, matches of at most {} bytes", regex.longest()),
        }
    }
}

/// The engines of a set of patterns.
#[derive(Debug)]
pub(super) struct Engines {
    list: Vec<Engine>,
    longest: usize,
    regexes: usize,
}

impl Engines {
    /// Chooses.
    ///
    /// # Errors
    /// When an automaton gets too large.
    pub(super) fn new(patterns: &[Pattern]) -> Result<Self> {
        let mut list = Vec::new();
        let mut regexes = Vec::new();
        let (mut with_grams, mut short, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (number, pattern) in (0u32..).zip(patterns) {
            match &pattern.kind {
                Kind::Regex(regex) => regexes.push(Engine::Regex(number, regex.clone())),
                Kind::Fixed(fixed) => {
                    let numbered = Numbered { number, fixed: fixed.clone() };
                    match &fixed.mask {
                        _ if Grams::of(fixed).is_some() => with_grams.push(numbered),
                        None => short.push(numbered),
                        Some(_) => rest.push(numbered),
                    }
                }
            }
        }
        match (&*with_grams, Few::new(&with_grams)) {
            ([], _) => {}
            ([one], _) if one.fixed.mask.is_none() => list.push(Engine::Literal(Literal::new(one))),
            ([one], few) => match (Part::new(one), few) {
                // A long exact part is found faster than variants of a short one.
                (Some(part), _) if part.len() >= grams::GRAM => list.push(Engine::Part(part)),
                (_, Some(few)) => list.push(Engine::Few(few)),
                (_, None) => list.push(Engine::for_one(one)),
            },
            (_, Some(few)) => list.push(Engine::Few(few)),
            (_, None) => match Many::new(&with_grams) {
                Some(many) => list.push(Engine::Many(many)),
                // Too many patterns have the same bytes: those that an automaton takes are found by one.
                None => {
                    let (masked, exact): (Vec<_>, Vec<_>) =
                        with_grams.into_iter().partition(|numbered| numbered.fixed.mask.is_some());
                    short.extend(exact);
                    for alike in masked.chunks(grams::MOST_ALIKE / 2) {
                        match Many::new(alike) {
                            Some(many) => list.push(Engine::Many(many)),
                            None => rest.extend_from_slice(alike),
                        }
                    }
                }
            },
        }
        match &*short {
            [] => {}
            [one] => list.push(Engine::Literal(Literal::new(one))),
            several => list.push(Engine::Automaton(Automaton::new(several)?)),
        }
        list.extend(rest.iter().map(Engine::for_one));
        let longest = patterns.iter().map(Pattern::longest_match).max().unwrap_or(0);
        let count = regexes.len();
        list.extend(regexes);
        let engines = Self { list, longest, regexes: count };
        log::trace!("{engines} for {} patterns", patterns.len());
        Ok(engines)
    }

    /// Bytes of the longest match.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// How many engines find matches one after the other, so that what one window gives depends on the one before: places for
    /// [`Self::find`] to keep where the last match of each ended.
    pub(super) fn carries(&self) -> usize {
        self.regexes
    }

    /// Bytes that engines look at behind the last byte of a window.
    pub(super) fn ahead(&self) -> usize {
        self.longest.saturating_sub(1).saturating_add(self.before())
    }

    /// Bytes that engines look at before the first byte of a window.
    pub(super) fn before(&self) -> usize {
        if self.regexes == 0 { 0 } else { CONTEXT }
    }

    /// Gives out every match that begins in the window, for each engine in its own order. `carries` are offsets in the bytes.
    pub(super) fn find(&self, hay: &Haystack<'_>, carries: &mut [usize], take: &mut dyn Take) -> ControlFlow<()> {
        let mut carries = carries.iter_mut();
        for engine in &self.list {
            match engine {
                Engine::Literal(literal) => literal.find(hay, take)?,
                Engine::Part(part) => part.find(hay, take)?,
                Engine::Few(few) => few.find(hay, take)?,
                Engine::Many(many) => many.find(hay, take)?,
                Engine::Automaton(automaton) => automaton.find(hay, take)?,
                Engine::ByteSet(set) => set.find(hay, take)?,
                Engine::Regex(number, regex) => {
                    let mut first = 0;
                    regex.find(hay, *number, carries.next().unwrap_or(&mut first), take)?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl fmt::Display for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, engine) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            f.write_str(&engine.describe())?;
        }
        Ok(())
    }
}

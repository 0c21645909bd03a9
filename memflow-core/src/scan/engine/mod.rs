//! Engines: how patterns are found in bytes.
//!
//! Owns: the choice of engines for a set of patterns, made once and said at trace level, and what engines are given and give.
//! Must not know: memory, addresses, windows.
//! Keeps: each place where a pattern matches is given out once, by one engine; every engine takes time in proportion to the bytes,
//! apart from places that nearly match.

mod automaton;
mod few;
mod grams;
mod literal;
mod many;
mod rarity;

use std::{collections::HashMap, fmt, ops::ControlFlow};

use smallvec::{SmallVec, smallvec};

use self::{
    automaton::Automaton,
    few::{Few, MOST_FEW},
    grams::{Choice, GRAM, MOST_ALIKE, Run, Shape},
    literal::{ByteSet, Literal, Part},
    many::Many,
};
use super::{
    pattern::{Fixed, Kind, Pattern},
    regex::{CONTEXT, RegexPattern},
};
use crate::error::Result;

/// Patterns with wildcards, and without four bytes in a row that have few variants, which are searched one after the other.
const MOST_ALONE: usize = 4;

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

/// A pattern of fixed length, and the numbers of all that are the same.
#[derive(Clone, Debug)]
pub(super) struct Numbered {
    numbers: SmallVec<[u32; 2]>,
    fixed: Fixed,
}

impl Numbered {
    /// Gives out a match at `start`.
    #[inline]
    fn give(&self, start: usize, take: &mut dyn Take) -> ControlFlow<()> {
        let len = self.fixed.value.len();
        self.numbers.iter().try_for_each(|pattern| take.found(Found { start, pattern: *pattern, len }))
    }

    /// Gives out the match at `start` if there is one.
    #[inline]
    fn check(&self, hay: &Haystack<'_>, start: Option<usize>, take: &mut dyn Take) -> ControlFlow<()> {
        let Some(start) = start.filter(|start| (hay.from..hay.until).contains(start)) else {
            return ControlFlow::Continue(());
        };
        let len = self.fixed.value.len();
        match hay.bytes.get(start..).and_then(|rest| rest.get(..len)) {
            Some(bytes) if self.fixed.matches(bytes) => self.give(start, take),
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
    /// The engine for a pattern that no other takes together with others.
    fn for_one(pattern: &Numbered) -> Self {
        if pattern.fixed.mask.is_none() {
            return Self::Literal(Literal::new(pattern));
        }
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
        let mut same: HashMap<&Fixed, usize> = HashMap::new();
        let mut fixed: Vec<Numbered> = Vec::new();
        for (number, pattern) in (0u32..).zip(patterns) {
            match &pattern.kind {
                Kind::Regex(regex) => regexes.push(Engine::Regex(number, regex.clone())),
                Kind::Fixed(one) => {
                    let next = fixed.len();
                    match fixed.get_mut(*same.entry(one).or_insert(next)) {
                        Some(numbered) => numbered.numbers.push(number),
                        None => fixed.push(Numbered { numbers: smallvec![number], fixed: one.clone() }),
                    }
                }
            }
        }
        let (mut with_grams, mut short, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for numbered in fixed {
            match (Run::of(&numbered.fixed).len, &numbered.fixed.mask) {
                (GRAM.., _) => with_grams.push(numbered),
                (1.., None) => short.push(numbered),
                _ => rest.push(numbered),
            }
        }
        // One pass for each of a few, or one that looks at every byte.
        if rest.len() > MOST_ALONE {
            let (some, none): (Vec<_>, Vec<_>) = rest.into_iter().partition(|one| Run::of(&one.fixed).len > 0);
            short.extend(some);
            rest = none;
        }
        let mut left = Vec::new();
        match (&*with_grams, Few::new(&with_grams)) {
            ([], _) => {}
            ([one], _) if one.fixed.mask.is_none() => list.push(Engine::Literal(Literal::new(one))),
            ([one], few) => match (Part::new(one), few) {
                // A long exact part is found faster than variants of a short one.
                (Some(part), _) if part.len() >= GRAM => list.push(Engine::Part(part)),
                (_, Some(few)) => list.push(Engine::Few(few)),
                (_, None) => list.push(Engine::for_one(one)),
            },
            (several, _) => add_several(several, &mut list, &mut left),
        }
        match &*short {
            [one] => list.push(Engine::for_one(one)),
            several => add_several(several, &mut list, &mut left),
        }
        // Too many patterns have the same bytes: those that an automaton takes are found by one.
        let (alike, masked): (Vec<_>, Vec<_>) = left.into_iter().partition(|numbered| numbered.fixed.mask.is_none());
        for alike in masked.chunks(MOST_ALIKE as usize / 2) {
            add_several(alike, &mut list, &mut rest);
        }
        match &*alike {
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

/// Adds engines for several patterns, all of which have some bytes with few variants; those that are too much alike go to `left`.
fn add_several(patterns: &[Numbered], list: &mut Vec<Engine>, left: &mut Vec<Numbered>) {
    if patterns.is_empty() {
        return;
    }
    if let Some(few) = Few::new(patterns) {
        return list.push(Engine::Few(few));
    }
    let choice = Choice::best(patterns, MOST_FEW);
    let Some(many) = Many::new(patterns, &choice) else { return left.extend_from_slice(patterns) };
    list.push(Engine::Many(many));
    let out = patterns.iter().zip(&choice.firsts).filter(|(_, first)| first.is_none());
    let out: Vec<Numbered> = out.map(|(numbered, _)| numbered.clone()).collect();
    match choice.shape {
        // Every byte was looked at already.
        Shape { stride: 1, .. } if Few::new(&out).is_none() => left.extend(out),
        // Each time fewer.
        _ => add_several(&out, list, left),
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

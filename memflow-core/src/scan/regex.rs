//! Regular expressions over bytes.
//!
//! Owns: which expressions are taken, and the search for matches of bounded length, one after the other, in a window of memory.
//! Must not know: where the bytes come from.
//! Keeps: what is found does not depend on how memory is cut into windows: a match at a place is the one that the expression prefers
//! among those of at most `longest` bytes, it begins at the first place behind the match before it where there is one, and
//! it sees [`CONTEXT`] bytes around it.

use std::ops::ControlFlow;

use regex_automata::{
    Anchored, Input,
    meta::Regex,
    util::syntax::{self, parse_with},
};
use regex_syntax::hir::{Hir, Look};

use super::{
    engine::{Found, Haystack, Take},
    pattern::{Case, MAX_PATTERN, too_long},
};
use crate::error::{Error, Result};

/// Bytes around a match that `\b` and the ends of lines look at: one character of UTF-8.
pub(super) const CONTEXT: usize = 4;
/// Bytes that a compiled expression may take.
const MAX_SIZE: usize = 4 << 20;
/// Parentheses in parentheses.
const MAX_NESTING: u32 = 100;
/// Bytes that are looked at in one go. Not much more than a first match needs, as it ends there.
const REACH: usize = 64 << 10;

/// How a regular expression is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegexOptions {
    /// Whether upper and lower case are told apart.
    pub case: Case,
    /// Bytes of the longest match, at most [`MAX_PATTERN`]. A place where only longer ones begin is none, and where an expression
    /// would go on (`a+`), a match ends there.
    pub max_len: usize,
}

impl Default for RegexOptions {
    /// Upper and lower case apart; matches of at most 4 KiB.
    fn default() -> Self {
        Self { case: Case::Sensitive, max_len: 4 << 10 }
    }
}

/// A compiled regular expression.
#[derive(Clone, Debug)]
pub(super) struct RegexPattern {
    source: String,
    options: RegexOptions,
    longest: usize,
    looks_around: bool,
    regex: Regex,
}

impl PartialEq for RegexPattern {
    fn eq(&self, other: &Self) -> bool {
        (&self.source, self.options) == (&other.source, other.options)
    }
}

impl Eq for RegexPattern {}

impl RegexPattern {
    /// Compiles an expression.
    pub(super) fn new(source: &str, options: RegexOptions) -> Result<Self> {
        if source.len() > MAX_PATTERN {
            return Err(too_long("regular expression", source.len()));
        }
        if options.max_len == 0 || options.max_len > MAX_PATTERN {
            return Err(Error::Argument {
                what: "longest match of a regular expression".into(),
                expected: format!("1 to {MAX_PATTERN} bytes").into(),
                found: options.max_len.to_string(),
            });
        }
        let config = syntax::Config::new()
            .unicode(false)
            .utf8(false)
            .multi_line(true)
            .case_insensitive(options.case == Case::Insensitive)
            .nest_limit(MAX_NESTING);
        let hir = parse_with(source, &config).map_err(|error| not_understood(&error, source))?;
        check(&hir, options.max_len)?;
        // A counted repetition of a counted repetition is refused here, before it takes memory.
        let config =
            Regex::config().utf8_empty(false).nfa_size_limit(Some(MAX_SIZE)).onepass_size_limit(Some(MAX_SIZE));
        let regex = Regex::builder().configure(config).build_from_hir(&hir).map_err(|error| {
            let expected = match error.size_limit() {
                Some(limit) => format!("one that takes at most {limit} bytes compiled"),
                None => "one that can be compiled".to_owned(),
            };
            refused(expected, error.to_string())
        })?;
        let longest = hir.properties().maximum_len().map_or(options.max_len, |len| len.min(options.max_len));
        let looks_around = !hir.properties().look_set().is_empty();
        Ok(Self { source: source.to_owned(), options, longest, looks_around, regex })
    }

    /// Bytes of the longest match.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// True when what it matches depends on the bytes around.
    pub(super) fn looks_around(&self) -> bool {
        self.looks_around
    }

    /// Gives out the matches that begin in the window and not before `carry`, which is then where the next may begin.
    pub(super) fn find(
        &self,
        hay: &Haystack<'_>,
        pattern: u32,
        carry: &mut usize,
        take: &mut dyn Take,
    ) -> ControlFlow<()> {
        let wide = REACH.max(self.longest.saturating_mul(2));
        let narrow = self.longest.saturating_mul(2);
        let mut reach = wide;
        let mut from = hay.from.max(*carry);
        while from < hay.until {
            take.pulse()?;
            let end = from.saturating_add(reach).min(hay.bytes.len());
            let Some(found) = self.regex.search(&Input::new(hay.bytes).span(from..end)) else {
                if end == hay.bytes.len() {
                    break;
                }
                // A match that begins later may be longer than what was looked at.
                from = end.saturating_sub(self.longest).saturating_add(1);
                reach = wide;
                continue;
            };
            let start = found.start();
            if end < hay.bytes.len() && start > end.saturating_sub(self.longest) {
                // One that begins earlier may end behind what was looked at.
                from = end.saturating_sub(self.longest).saturating_add(1);
                continue;
            }
            if start >= hay.until {
                break;
            }
            let bound = start.saturating_add(self.longest).min(hay.bytes.len());
            let stop = if found.end() <= bound { Some(found.end()) } else { self.bounded(hay, start, bound) };
            match stop {
                Some(stop) => {
                    take.found(Found { start, len: stop.saturating_sub(start), pattern })?;
                    from = stop.max(start.saturating_add(1));
                    reach = wide;
                }
                None => {
                    from = start.saturating_add(1);
                    // The same long match is likely to come up again at the next place.
                    reach = narrow;
                }
            }
            *carry = from;
        }
        ControlFlow::Continue(())
    }

    /// The end of the preferred match at `start` among those that end by `bound`.
    fn bounded(&self, hay: &Haystack<'_>, start: usize, bound: usize) -> Option<usize> {
        let input = Input::new(hay.bytes).span(start..bound).anchored(Anchored::Yes);
        self.regex.search(&input).map(|found| found.end())
    }
}

/// Refuses what has no meaning in memory.
fn check(hir: &Hir, max_len: usize) -> Result<()> {
    let properties = hir.properties();
    let looks = properties.look_set();
    if looks.contains(Look::Start) || looks.contains(Look::End) {
        let expected = "^ and $ for the ends of a line, or none".to_owned();
        return Err(refused(expected, "the start or end of the whole text, which memory does not have".to_owned()));
    }
    match properties.minimum_len() {
        Some(0) => {
            Err(refused("one that needs at least one byte".to_owned(), "one that matches everywhere".to_owned()))
        }
        Some(least) if least > max_len => {
            Err(refused(format!("matches of at most {max_len} bytes"), format!("one that needs at least {least}")))
        }
        Some(_) => Ok(()),
        None => Err(refused("one that can match".to_owned(), "one that matches nothing".to_owned())),
    }
}

#[cold]
fn refused(expected: String, found: String) -> Error {
    Error::Argument { what: "regular expression".into(), expected: expected.into(), found }
}

/// The parser's error, in a line and with its position.
#[cold]
fn not_understood(error: &regex_syntax::Error, source: &str) -> Error {
    let (offset, problem) = match error {
        regex_syntax::Error::Parse(error) => (error.span().start.offset, error.kind().to_string()),
        regex_syntax::Error::Translate(error) => (error.span().start.offset, error.kind().to_string()),
        other => (0, other.to_string()),
    };
    let before = source.get(..offset).unwrap_or_default().chars().count();
    let rest: String = source.get(offset..).unwrap_or_default().chars().take(16).collect();
    Error::Argument {
        what: format!("regular expression, character {}", before.saturating_add(1)).into(),
        expected: "a regular expression".into(),
        found: format!("{} ({problem})", rest.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn refusal(source: &str) -> String {
        RegexPattern::new(source, RegexOptions::default()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_position_in_one_line() {
        let error = refusal("ab(c");
        assert!(
            error.starts_with("regular expression, character 3: expected a regular expression, found `(c ("),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
        assert!(refusal(r"ä\q").starts_with("regular expression, character 2:"));
    }

    #[test]
    fn expressions_that_match_everywhere_or_nowhere_are_refused() {
        for source in ["", "a*", "(a|b?)", r"\b", "^", "(?:)"] {
            assert!(refusal(source).contains("matches everywhere"), "{source}");
        }
        assert!(refusal(r"[^\x00-\xff]").contains("matches nothing"));
        for source in [r"\Aab", r"ab\z", "(?-m)^ab"] {
            assert!(refusal(source).contains("the start or end of the whole text"), "{source}");
        }
        assert!(refusal("a{5000}").contains("at most 4096 bytes, found `one that needs at least 5000`"));
        assert!(RegexPattern::new("^ab$", RegexOptions::default()).is_ok());
    }

    #[test]
    fn bombs_are_refused_before_they_cost_anything() {
        let started = std::time::Instant::now();
        assert!(refusal("((a{1,1000}){1,1000}){1,1000}").contains("bytes compiled"));
        assert!(refusal(&"(".repeat(5000)).contains("character"));
        assert!(refusal(&format!("{}a{}", "(".repeat(5000), ")".repeat(5000))).contains("nest"));
        assert!(refusal(&"a".repeat(MAX_PATTERN + 1)).contains("at most 65536 bytes"));
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }

    #[test]
    fn longest_match_is_known_or_bounded() {
        let longest = |source: &str| RegexPattern::new(source, RegexOptions::default()).unwrap().longest();
        assert_eq!((longest("a{2,7}b"), longest("a+"), longest("[a-z]{9}{9}{9}")), (8, 4096, 729));
        assert!(RegexPattern::new("a", RegexOptions { max_len: 0, ..RegexOptions::default() }).is_err());
    }
}

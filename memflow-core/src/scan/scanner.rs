//! Patterns made ready.
//!
//! Owns: [`Scanner`], the limits on a set of patterns, and the question whether zeros may match. Must not know: memory.
//! Keeps: made once, used often, by any number of threads.

use std::ops::ControlFlow;

use super::{
    engine::{Engines, Found, Haystack, Take},
    pattern::{Kind, Pattern},
    run::Scan,
};
use crate::error::{Error, Result};

/// Most patterns of one scanner.
pub const MAX_PATTERNS: usize = 1 << 16;
/// Bytes of all patterns of fixed length.
const MAX_BYTES: usize = 4 << 20;
/// Most regular expressions: each is a pass over the memory.
const MAX_REGEXES: usize = 64;

/// Patterns, and the engines that find them.
///
/// ```
/// use memflow_core::scan::{Pattern, Scanner};
///
/// let scanner = Scanner::new([Pattern::bytes(*b"aa")?, Pattern::hex("6? 62")?])?;
/// assert_eq!(scanner.find_in(b"xaaab"), [(1, 0, 2), (2, 0, 2), (3, 1, 2)]);
/// # Ok::<(), memflow_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Scanner {
    patterns: Vec<Pattern>,
    engines: Engines,
    zeros: bool,
}

impl Scanner {
    /// Chooses the engines.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are no patterns, or more than the limits: [`MAX_PATTERNS`] of them, 4 MiB in all, 64 regular
    /// expressions.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Result<Self> {
        let patterns: Vec<Pattern> = patterns.into_iter().take(MAX_PATTERNS + 1).collect();
        let wrong = |expected: String, found: String| Error::Argument {
            what: "patterns".into(),
            expected: expected.into(),
            found,
        };
        let (mut bytes, mut regexes) = (0usize, 0);
        for pattern in &patterns {
            match &pattern.kind {
                Kind::Fixed(fixed) => bytes = bytes.saturating_add(fixed.value.len()),
                Kind::Regex(_) => regexes += 1,
            }
        }
        match patterns.len() {
            0 => return Err(wrong("at least one".to_owned(), "none".to_owned())),
            count if count > MAX_PATTERNS => return Err(wrong(format!("at most {MAX_PATTERNS}"), "more".to_owned())),
            _ if bytes > MAX_BYTES => {
                return Err(wrong(format!("at most {MAX_BYTES} bytes in all"), format!("{bytes} bytes")));
            }
            _ if regexes > MAX_REGEXES => {
                let expected = format!("at most {MAX_REGEXES} regular expressions");
                return Err(wrong(expected, regexes.to_string()));
            }
            _ => {}
        }
        let engines = Engines::new(&patterns)?;
        let mut scanner = Self { patterns, engines, zeros: false };
        scanner.zeros = scanner.may_match_zeros();
        Ok(scanner)
    }

    /// The patterns, in the order given: [`Hit::pattern`](super::Hit::pattern) is an index into it.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Which engines were chosen, in words.
    pub fn engines(&self) -> String {
        self.engines.to_string()
    }

    /// A scan for these patterns, with every option as by default.
    pub fn scan(&self) -> Scan<'_> {
        Scan::new(self)
    }

    /// Every match in `bytes`: offset, index of the pattern, length; ordered by these.
    ///
    /// For bytes that are at hand; memory is searched by [`Self::scan`], which needs no room for all matches.
    pub fn find_in(&self, bytes: &[u8]) -> Vec<(usize, usize, usize)> {
        let mut all = Collect(Vec::new());
        let hay = Haystack { bytes, from: 0, until: bytes.len() };
        // Nobody breaks.
        let _ = self.engines.find(&hay, &mut vec![0; self.engines.carries()], &mut all);
        let mut found: Vec<_> = all.0.iter().map(|found| (found.start, found.pattern as usize, found.len)).collect();
        found.sort_unstable();
        found
    }

    /// The engines.
    pub(super) fn parts(&self) -> &Engines {
        &self.engines
    }

    /// True when a match may consist of zeros alone, so that memory known to be zero has to be looked at.
    pub(super) fn zeros(&self) -> bool {
        self.zeros
    }

    fn may_match_zeros(&self) -> bool {
        let looks_around = |pattern: &Pattern| matches!(&pattern.kind, Kind::Regex(regex) if regex.looks_around());
        if self.patterns.iter().any(looks_around) {
            return true;
        }
        let zeros = vec![0; self.engines.longest().saturating_mul(2)];
        let hay = Haystack { bytes: &zeros, from: 0, until: 1 };
        self.engines.find(&hay, &mut vec![0; self.engines.carries()], &mut First).is_break()
    }
}

/// Takes all matches.
struct Collect(Vec<Found>);

impl Take for Collect {
    fn found(&mut self, found: Found) -> ControlFlow<()> {
        self.0.push(found);
        ControlFlow::Continue(())
    }

    fn pulse(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Breaks at the first match.
struct First;

impl Take for First {
    fn found(&mut self, _: Found) -> ControlFlow<()> {
        ControlFlow::Break(())
    }

    fn pulse(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

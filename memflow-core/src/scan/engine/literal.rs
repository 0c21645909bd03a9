//! Engines for one pattern of fixed length.
//!
//! Owns: the substring search of a pattern or of its longest exact part, and the search by one byte for patterns without any.
//! Must not know: other patterns. Keeps: matches that overlap are all found.

use std::ops::ControlFlow;

use memchr::{memchr, memchr2, memchr3, memmem::Finder};

use super::{Haystack, Numbered, Take, rarity};

/// A pattern without wildcards.
#[derive(Debug)]
pub(super) struct Literal {
    pattern: Numbered,
    finder: Finder<'static>,
}

impl Literal {
    pub(super) fn new(pattern: &Numbered) -> Self {
        Self { pattern: pattern.clone(), finder: Finder::new(&pattern.fixed.value).into_owned() }
    }

    pub(super) fn find(&self, hay: &Haystack<'_>, take: &mut dyn Take) -> ControlFlow<()> {
        let len = self.pattern.fixed.value.len();
        each_start(hay, 0, len, |bytes| self.finder.find(bytes), |start| self.pattern.give(start, take))
    }
}

/// A pattern with wildcards, found by its longest part without.
#[derive(Debug)]
pub(super) struct Part {
    pattern: Numbered,
    offset: usize,
    finder: Finder<'static>,
}

impl Part {
    /// `None` when no byte of the pattern is exact.
    pub(super) fn new(pattern: &Numbered) -> Option<Self> {
        let fixed = &pattern.fixed;
        let mut best = 0..0;
        let mut start = 0;
        for index in 0..fixed.value.len() {
            if fixed.bits(index) != 0xff {
                start = index + 1;
            } else if index + 1 - start > best.len() {
                best = start..index + 1;
            }
        }
        let part = fixed.value.get(best.clone()).filter(|part| !part.is_empty())?;
        Some(Self { pattern: pattern.clone(), offset: best.start, finder: Finder::new(part).into_owned() })
    }

    /// Bytes of the part.
    pub(super) fn len(&self) -> usize {
        self.finder.needle().len()
    }

    pub(super) fn find(&self, hay: &Haystack<'_>, take: &mut dyn Take) -> ControlFlow<()> {
        each_start(
            hay,
            self.offset,
            self.len(),
            |bytes| self.finder.find(bytes),
            |start| self.pattern.check(hay, Some(start), take),
        )
    }
}

/// A pattern with wildcards and without four bytes in a row that have few variants, found by the byte with the fewest.
#[derive(Debug)]
pub(super) struct ByteSet {
    pattern: Numbered,
    offset: usize,
    values: Vec<u8>,
    set: Box<[bool; 256]>,
}

impl ByteSet {
    pub(super) fn new(pattern: &Numbered) -> Self {
        let fixed = &pattern.fixed;
        let cost = |index: &usize| {
            let (bits, value) = (fixed.bits(*index), fixed.value.get(*index).copied().unwrap_or(0));
            (0..=u8::MAX).filter(|byte| byte & bits == value).map(rarity::of_byte).sum::<f32>()
        };
        let offset = (0..fixed.value.len()).min_by(|one, other| cost(one).total_cmp(&cost(other))).unwrap_or(0);
        let (bits, value) = (fixed.bits(offset), fixed.value.get(offset).copied().unwrap_or(0));
        let values: Vec<u8> = (0..=u8::MAX).filter(|byte| byte & bits == value).collect();
        let mut set = Box::new([false; 256]);
        for (member, byte) in set.iter_mut().zip(0..=u8::MAX) {
            *member = byte & bits == value;
        }
        Self { pattern: pattern.clone(), offset, values, set }
    }

    pub(super) fn find(&self, hay: &Haystack<'_>, take: &mut dyn Take) -> ControlFlow<()> {
        let next = |bytes: &[u8]| match *self.values {
            [one] => memchr(one, bytes),
            [one, two] => memchr2(one, two, bytes),
            [one, two, three] => memchr3(one, two, three, bytes),
            _ => bytes.iter().position(|byte| self.set.get(usize::from(*byte)).copied().unwrap_or(false)),
        };
        each_start(hay, self.offset, 1, next, |start| self.pattern.check(hay, Some(start), take))
    }
}

/// Calls `each` with every start in the window of a pattern of which the `len` bytes at `offset` are found by `next`.
#[inline]
fn each_start(
    hay: &Haystack<'_>,
    offset: usize,
    len: usize,
    next: impl Fn(&[u8]) -> Option<usize>,
    mut each: impl FnMut(usize) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let end = hay.until.saturating_add(offset).saturating_add(len).saturating_sub(1).min(hay.bytes.len());
    let mut from = hay.from.saturating_add(offset);
    while let Some(at) = hay.bytes.get(from..end).and_then(&next) {
        let place = from + at;
        each(place - offset)?;
        from = place + 1;
    }
    ControlFlow::Continue(())
}

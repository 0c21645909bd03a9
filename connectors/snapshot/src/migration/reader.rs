//! A stream of big-endian numbers, read from one end to the other.
//!
//! Owns: the window that is read ahead. Must not know: what the numbers mean.
//! Keeps: what is skipped is not read; what is read one after the other takes few calls.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::Result;

use crate::input::View;

/// First and longest window. Pages lie between headers of a few bytes, and zeros are headers alone: the window grows while they are read
/// one after the other, and begins anew after a page was skipped.
const FIRST: u64 = 64;
const LONGEST: u64 = 64 << 10;

/// A place in a stream.
pub(super) struct Reader<'a> {
    view: View<'a>,
    at: u64,
    window: Vec<u8>,
    /// Where the window begins.
    start: u64,
    next_len: u64,
}

impl<'a> Reader<'a> {
    /// Reads from `at` on.
    pub(super) fn new(view: View<'a>, at: u64) -> Self {
        Self { view, at, window: Vec::new(), start: at, next_len: FIRST }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Goes on at another place.
    pub(super) fn seek(&mut self, at: u64) {
        self.at = at;
    }

    /// The next `len` bytes, of which there are few.
    pub(super) fn bytes(&mut self, len: usize, what: &str) -> Result<&[u8]> {
        let wide = u64::try_from(len).unwrap_or(u64::MAX);
        if self.inside(len).is_none() {
            self.fill(wide, what)?;
        }
        let from = self.inside(len).unwrap_or(usize::MAX);
        self.at = self.at.saturating_add(wide);
        Ok(self.window.get(from..).and_then(|window| window.get(..len)).unwrap_or_default())
    }

    /// Where the next `len` bytes are in the window, if they are all there.
    fn inside(&self, len: usize) -> Option<usize> {
        let from = usize::try_from(self.at.checked_sub(self.start)?).ok()?;
        (from.checked_add(len)? <= self.window.len()).then_some(from)
    }

    fn fill(&mut self, len: u64, what: &str) -> Result<()> {
        let end = self.start.saturating_add(u64::try_from(self.window.len()).unwrap_or(u64::MAX));
        // Right behind the window, or so near that its end cut something in two.
        let follows = self.at <= end && self.at >= self.start && !self.window.is_empty();
        self.next_len = if follows { self.next_len.saturating_mul(2).min(LONGEST) } else { FIRST };
        let left = self.view.size().saturating_sub(self.at);
        if len > left {
            return Err(self.view.ends_early(self.at, len, what));
        }
        let len = self.next_len.max(len).min(left);
        self.window.resize(usize::try_from(len).unwrap_or(0), 0);
        self.start = self.at;
        match self.view.fill(self.at, &mut self.window, what) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.window.clear();
                Err(error)
            }
        }
    }

    /// Passes over bytes that have to be there.
    pub(super) fn skip(&mut self, len: u64, what: &str) -> Result<()> {
        match self.at.checked_add(len).filter(|end| *end <= self.view.size()) {
            Some(end) => {
                self.at = end;
                Ok(())
            }
            None => Err(self.view.ends_early(self.at, len, what)),
        }
    }

    pub(super) fn byte(&mut self, what: &str) -> Result<u8> {
        Ok(self.bytes(1, what)?.first().copied().unwrap_or_default())
    }

    pub(super) fn be16(&mut self, what: &str) -> Result<u16> {
        Ok(self.bytes(2, what)?.first_chunk().copied().map(u16::from_be_bytes).unwrap_or_default())
    }

    pub(super) fn be32(&mut self, what: &str) -> Result<u32> {
        Ok(self.bytes(4, what)?.first_chunk().copied().map(u32::from_be_bytes).unwrap_or_default())
    }

    pub(super) fn be64(&mut self, what: &str) -> Result<u64> {
        Ok(self.bytes(8, what)?.first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default())
    }

    /// Text behind its length of one byte.
    pub(super) fn short_text(&mut self, what: &str) -> Result<String> {
        let len = self.byte(what)?;
        Ok(String::from_utf8_lossy(self.bytes(len.into(), what)?).into_owned())
    }

    /// The next bytes without moving on; fewer at the end.
    pub(super) fn peek(&mut self, len: u64, what: &str) -> Result<&[u8]> {
        let at = self.at;
        let len = usize::try_from(len.min(self.view.size().saturating_sub(at))).unwrap_or(0);
        self.bytes(len, what)?;
        self.at = at;
        let from = self.inside(len).unwrap_or(usize::MAX);
        Ok(self.window.get(from..).and_then(|window| window.get(..len)).unwrap_or_default())
    }
}

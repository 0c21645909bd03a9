//! A walk over the headers of a compressed file, which tells where its pieces are without unpacking them.
//!
//! Owns: reading headers in small windows, progress and cancelling, what is done with a file that ends early. Must not know: compressions.
//! Keeps: what is skipped is not read; every step moves on.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{Error, Result};

use super::{
    pieces::Pieces,
    pump::{Reporter, UnpackOptions},
};
use crate::input::{ReadAt, View};

/// Bytes read for a header that is not at hand: the next headers are often behind it.
const WINDOW: u64 = 4096;

/// Bytes read at a time where nothing but zeros is expected.
const LONG_WINDOW: usize = 256 << 10;

/// What a walk found.
pub(super) enum Scan {
    /// Pieces that are read at random.
    Pieces(Pieces),
    /// Nothing to choose from: one piece, or pieces whose lengths only unpacking tells.
    Whole,
}

/// A walk over headers.
pub(super) struct Index<'a> {
    view: View<'a>,
    options: UnpackOptions<'a>,
    reporter: Reporter<'a>,
    window: Vec<u8>,
    /// Offset of the window in the file.
    window_at: u64,
    /// Offset of the next byte.
    at: u64,
    /// Offset of the byte at which the last look for zeros ended.
    nonzero: u64,
    notes: Vec<String>,
}

impl<'a> Index<'a> {
    pub(super) fn new(input: &'a dyn ReadAt, format: &'static str, options: UnpackOptions<'a>) -> Self {
        Self {
            view: View::new(input, format),
            options,
            reporter: Reporter::new(options.on_progress),
            window: Vec::new(),
            window_at: 0,
            at: 0,
            nonzero: 0,
            notes: Vec::new(),
        }
    }

    pub(super) fn view(&self) -> &View<'a> {
        &self.view
    }

    pub(super) fn offset(&self) -> u64 {
        self.at
    }

    pub(super) fn into_notes(self) -> Vec<String> {
        self.notes
    }

    /// The next bytes without moving past them, at most `most`; fewer only at the end of the file.
    pub(super) fn peek(&mut self, most: usize) -> Result<&[u8]> {
        let wanted = u64::try_from(most).unwrap_or(u64::MAX).min(self.view.size().saturating_sub(self.at));
        let at_hand = |this: &Self| {
            let from = usize::try_from(this.at.checked_sub(this.window_at)?).ok()?;
            let end = from.checked_add(usize::try_from(wanted).ok()?)?;
            (end <= this.window.len()).then_some((from, end))
        };
        if at_hand(self).is_none() {
            let len = self.view.size().saturating_sub(self.at).min(WINDOW.max(wanted));
            self.window.resize(usize::try_from(len).unwrap_or(0), 0);
            self.window_at = self.at;
            self.view.fill(self.at, &mut self.window, "compressed data")?;
        }
        let (from, end) = at_hand(self).unwrap_or_default();
        Ok(self.window.get(from..end).unwrap_or_default())
    }

    /// The next bytes; `what` they belong to is named when there are too few.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        match self.peek(N)?.first_chunk().copied() {
            Some(bytes) => {
                self.skip(u64::try_from(N).unwrap_or(u64::MAX), what)?;
                Ok(bytes)
            }
            None => Err(self.cut_short(what)),
        }
    }

    /// Moves past bytes that nobody looks at.
    pub(super) fn skip(&mut self, len: u64, what: &str) -> Result<()> {
        self.at =
            self.at.checked_add(len).filter(|next| *next <= self.view.size()).ok_or_else(|| self.cut_short(what))?;
        Ok(())
    }

    /// Tells how far it has come, now and then.
    pub(super) fn report(&mut self, unpacked: u64) -> Result<()> {
        self.reporter.report(self.at, self.view.size(), unpacked)
    }

    /// True when nothing but zeros is left; moves past them only then.
    pub(super) fn only_zeros_left(&mut self) -> Result<bool> {
        let start = self.at;
        let mut most = 512;
        loop {
            let bytes = self.peek(most)?;
            if bytes.is_empty() {
                return Ok(true);
            }
            let len = bytes.len();
            if let Some(zeros) = bytes.iter().position(|byte| *byte != 0) {
                self.nonzero = self.at.saturating_add(u64::try_from(zeros).unwrap_or(0));
                self.at = start;
                return Ok(false);
            }
            self.at = self.at.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
            self.report(0)?;
            // A file may end in a hole of gigabytes.
            most = LONG_WINDOW;
        }
    }

    /// The error for what follows a piece, after a look for zeros.
    pub(super) fn strange(&self, expected: &'static str) -> Error {
        self.view.bad(self.nonzero, expected, "something else")
    }

    /// The error for a file that ends before its end.
    pub(super) fn cut_short(&self, what: &str) -> Error {
        self.view.bad(self.view.size(), what.to_owned(), "the end of the file; it looks truncated, copy it again")
    }

    /// Lists pieces with `walk`, which says whether all of them could be told apart; a damaged file gives those before the damage if it
    /// may be partial.
    pub(super) fn scan(&mut self, walk: impl FnOnce(&mut Self, &mut Pieces) -> Result<bool>) -> Result<Scan> {
        let mut pieces = Pieces::default();
        match walk(self, &mut pieces) {
            Ok(true) if pieces.len() > 1 => Ok(Scan::Pieces(pieces)),
            Ok(_) => Ok(Scan::Whole),
            Err(error @ Error::Format { .. }) if self.options.partial && pieces.len() > 1 => {
                self.notes.push(format!("only the first {:#x} bytes could be unpacked: {error}", pieces.size()));
                Ok(Scan::Pieces(pieces))
            }
            // Unpacking it gets as far as there is something.
            Err(Error::Format { .. }) if self.options.partial => Ok(Scan::Whole),
            Err(error) => Err(error),
        }
    }
}

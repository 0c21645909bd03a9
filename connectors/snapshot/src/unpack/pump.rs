//! Compressed bytes in, unpacked bytes out.
//!
//! Owns: the read window, the unpacked bytes, the limit, progress and cancelling.
//! Must not know: any compression.
//! Keeps: memory grows with bytes that were really unpacked, never with a size that a header claims.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    fmt,
    time::{Duration, Instant},
};

use memflow_core::{Error, Result, memory::PageBuffer};

use super::available::default_limit;
use crate::{
    input::{ReadAt, View},
    options::{OnProgress, Progress},
};

/// Bytes read at one time, and most bytes unpacked at one time.
const WINDOW: usize = 256 << 10;
/// Time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How much is unpacked, and who is told.
#[derive(Clone, Copy, Default)]
pub struct UnpackOptions<'a> {
    /// Most bytes to unpack; `None` for three quarters of the memory that is available.
    pub max_unpacked: Option<u64>,
    /// Take what could be unpacked of a stream that was cut short or is damaged, and say so in the notes.
    pub partial: bool,
    /// Told how it goes on; may cancel.
    pub on_progress: Option<OnProgress<'a>>,
}

impl fmt::Debug for UnpackOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnpackOptions")
            .field("max_unpacked", &self.max_unpacked)
            .field("partial", &self.partial)
            .finish_non_exhaustive()
    }
}

/// What was in a compressed file.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// The bytes.
    pub bytes: PageBuffer,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// The compressed side: a window on the input.
pub(super) struct Source<'a> {
    pub(super) view: View<'a>,
    window: Vec<u8>,
    /// The part of the window that was not consumed yet.
    from: usize,
    /// Offset in the input of the end of the window.
    end: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(input: &'a dyn ReadAt, format: &'static str) -> Self {
        Self { view: View::new(input, format), window: Vec::new(), from: 0, end: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        let left = self.window.len().saturating_sub(self.from);
        self.end.saturating_sub(u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// The next bytes; none at the end of the input.
    pub(super) fn fill(&mut self) -> Result<&[u8]> {
        if self.from >= self.window.len() {
            let len = self.view.size().saturating_sub(self.end).min(u64::try_from(WINDOW).unwrap_or(u64::MAX));
            self.window = self.view.bytes(self.end, len, "compressed data")?;
            self.from = 0;
            self.end = self.end.saturating_add(len);
        }
        Ok(self.window.get(self.from..).unwrap_or_default())
    }

    /// Moves past bytes that [`fill`](Self::fill) gave.
    pub(super) fn consume(&mut self, count: usize) {
        self.from = self.from.saturating_add(count).min(self.window.len());
    }

    /// The next byte; `what` it belongs to is named when there is none.
    pub(super) fn byte(&mut self, what: &str) -> Result<u8> {
        match self.fill()? {
            [byte, ..] => {
                let byte = *byte;
                self.consume(1);
                Ok(byte)
            }
            [] => Err(self.cut_short(what)),
        }
    }

    /// The next bytes.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte(what)?;
        }
        Ok(bytes)
    }

    /// The next bytes without moving past them; `None` when the input ends before.
    pub(super) fn peek<const N: usize>(&self) -> Result<Option<[u8; N]>> {
        let len = u64::try_from(N).unwrap_or(u64::MAX);
        if self.view.size().saturating_sub(self.offset()) < len {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.view.fill(self.offset(), &mut bytes, "compressed data")?;
        Ok(Some(bytes))
    }

    /// Moves past zeros; true when nothing else was left.
    pub(super) fn only_zeros_left(&mut self) -> Result<bool> {
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(true);
            }
            let len = bytes.len();
            let zeros = bytes.iter().position(|byte| *byte != 0);
            self.consume(zeros.unwrap_or(len));
            if zeros.is_some() {
                return Ok(false);
            }
        }
    }

    /// The error for a stream that ends before its end.
    pub(super) fn cut_short(&self, what: &str) -> Error {
        self.view.bad(self.offset(), what.to_owned(), "the end of the file; it looks truncated, copy it again")
    }
}

/// The unpacked side.
pub(super) struct Sink<'a> {
    options: UnpackOptions<'a>,
    limit: u64,
    unpacked: u64,
    bytes: PageBuffer,
    scratch: Vec<u8>,
    reported: Instant,
}

impl<'a> Sink<'a> {
    pub(super) fn new(options: UnpackOptions<'a>) -> Self {
        let limit = options.max_unpacked.unwrap_or_else(default_limit);
        Self {
            options,
            limit,
            unpacked: 0,
            bytes: PageBuffer::new(),
            scratch: vec![0; WINDOW],
            reported: Instant::now(),
        }
    }

    /// Where a decoder puts what it unpacks, before [`take`](Self::take).
    pub(super) fn scratch(&mut self) -> &mut [u8] {
        &mut self.scratch
    }

    /// The first `count` bytes of the scratch.
    pub(super) fn produced(&self, count: usize) -> &[u8] {
        self.scratch.get(..count).unwrap_or_default()
    }

    /// Keeps the first `count` bytes of the scratch, and tells how far `source` has come.
    pub(super) fn take(&mut self, count: usize, source: &Source<'_>, unpack_with: &str) -> Result<()> {
        let bytes = self.scratch.get(..count).unwrap_or_default();
        self.unpacked = self.unpacked.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if self.unpacked > self.limit {
            let why = match self.options.max_unpacked {
                Some(_) => "as many as were allowed",
                None => "three quarters of the memory available here",
            };
            return Err(Error::File {
                path: source.view.path().to_owned(),
                problem: format!(
                    "unpacks to more than {:#x} bytes, {why}; unpack it to a file with `{unpack_with}` and open that, or allow more",
                    self.limit
                )
                .into(),
            });
        }
        self.bytes.append(bytes)?;
        if let Some(on_progress) = self.options.on_progress
            && self.reported.elapsed() >= REPORT_EVERY
        {
            self.reported = Instant::now();
            let progress = Progress { read: source.offset(), total: source.view.size(), unpacked: self.unpacked };
            if on_progress(progress).is_break() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// What was unpacked, after the decoder ended with `result`.
    pub(super) fn finish(self, result: Result<()>) -> Result<Unpacked> {
        match result {
            Ok(()) => Ok(Unpacked { bytes: self.bytes, notes: Vec::new() }),
            Err(error @ Error::Format { .. }) if self.options.partial && self.unpacked > 0 => {
                let note = format!("only the first {:#x} bytes could be unpacked: {error}", self.unpacked);
                Ok(Unpacked { bytes: self.bytes, notes: vec![note] })
            }
            Err(error) => Err(error),
        }
    }
}

//! Compressed bytes in, unpacked bytes out.
//!
//! Owns: the read window, where unpacked bytes are kept, the limits, progress and cancelling.
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
    ops::ControlFlow,
    time::{Duration, Instant},
};

use memflow_core::{Error, Result, memory::PageBuffer};

use super::{Bytes, Unpacked, available::default_limit, store::Store};
use crate::{
    input::{ReadAt, View},
    options::{OnProgress, Progress},
};

/// Bytes read at one time, and most bytes unpacked at one time.
const WINDOW: usize = 256 << 10;
/// What is not counted when it is zero.
const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];
/// Time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How much is unpacked, and who is told.
#[derive(Clone, Copy)]
pub(crate) struct UnpackOptions<'a> {
    /// Most bytes to unpack in one pass; `None` for as many as can be held in three quarters of the memory that is available.
    pub(crate) max_unpacked: Option<u64>,
    /// Bytes that may be held as they are. What has no more than that besides zeros is kept whole.
    pub(crate) whole: u64,
    /// Take what could be unpacked of a stream that was cut short or is damaged, and say so in the notes.
    pub(crate) partial: bool,
    /// Told how it goes on; may cancel.
    pub(crate) on_progress: Option<OnProgress<'a>>,
}

/// Tells how far it has come.
pub(super) struct Reporter<'a> {
    on_progress: Option<OnProgress<'a>>,
    reported: Instant,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(on_progress: Option<OnProgress<'a>>) -> Self {
        Self { on_progress, reported: Instant::now() }
    }

    /// Tells it, if the last time was long enough ago.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when whoever is told wants no more.
    pub(super) fn report(&mut self, read: u64, total: u64, unpacked: u64) -> Result<()> {
        let Some(on_progress) = self.on_progress.filter(|_| self.reported.elapsed() >= REPORT_EVERY) else {
            return Ok(());
        };
        self.reported = Instant::now();
        match on_progress(Progress { read, total, unpacked }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
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
        Self::at(input, format, 0)
    }

    /// The same, from an offset on.
    pub(super) fn at(input: &'a dyn ReadAt, format: &'static str, offset: u64) -> Self {
        Self { view: View::new(input, format), window: Vec::new(), from: 0, end: offset }
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

/// What becomes of bytes that are too many to be kept whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Overflow {
    /// They are compressed anew, to be read at random.
    Repack,
    /// They are dropped: whoever unpacks them keeps something that leads back to them.
    Drop,
}

/// Where unpacked bytes are kept.
enum Kept {
    Whole(PageBuffer),
    Store(Store),
    Nothing,
}

/// The unpacked side.
pub(super) struct Sink<'a> {
    options: UnpackOptions<'a>,
    reporter: Reporter<'a>,
    overflow: Overflow,
    /// The command that unpacks such a file.
    unpack_with: &'static str,
    /// Most bytes of memory to take.
    most_held: u64,
    unpacked: u64,
    kept: Kept,
    /// Bytes kept whole that are not in pages of zeros.
    whole: u64,
    scratch: Vec<u8>,
}

/// What a pass left.
pub(super) enum Finished {
    /// Something that can be read.
    Unpacked(Unpacked),
    /// Too many bytes to be kept whole, which were dropped.
    Dropped {
        /// How many there were.
        size: u64,
        /// What a person should know.
        notes: Vec<String>,
    },
}

impl<'a> Sink<'a> {
    pub(super) fn new(options: UnpackOptions<'a>, overflow: Overflow, unpack_with: &'static str) -> Self {
        Self {
            options,
            reporter: Reporter::new(options.on_progress),
            overflow,
            unpack_with,
            most_held: default_limit(),
            unpacked: 0,
            kept: Kept::Whole(PageBuffer::new()),
            whole: 0,
            scratch: vec![0; WINDOW],
        }
    }

    /// Where a decoder puts what it unpacks, before [`take`](Self::take).
    pub(super) fn scratch(&mut self) -> &mut [u8] {
        &mut self.scratch
    }

    /// Bytes unpacked so far.
    pub(super) fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// Keeps the first `count` bytes of the scratch, and tells how far `source` has come.
    pub(super) fn take(&mut self, count: usize, source: &Source<'_>) -> Result<()> {
        let scratch = std::mem::take(&mut self.scratch);
        let result = self.add(scratch.get(..count).unwrap_or_default(), source);
        self.scratch = scratch;
        result
    }

    /// Keeps `bytes`, and tells how far `source` has come.
    pub(super) fn add(&mut self, bytes: &[u8], source: &Source<'_>) -> Result<()> {
        self.unpacked = self.unpacked.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if let Some(most) = self.options.max_unpacked.filter(|most| self.unpacked > *most) {
            return Err(self.too_much(source, format!("unpacks to more than {most:#x} bytes, as many as were allowed")));
        }
        self.keep(bytes)?;
        let held = match &self.kept {
            Kept::Store(store) => store.held(),
            Kept::Whole(_) => self.whole,
            Kept::Nothing => 0,
        };
        if held > self.most_held {
            let most = self.most_held;
            let what =
                format!("takes more than {most:#x} bytes of memory when unpacked, three quarters of what is available");
            return Err(self.too_much(source, what));
        }
        self.reporter.report(source.offset(), source.view.size(), self.unpacked)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.kept {
            Kept::Nothing => {}
            Kept::Store(store) => store.append(bytes),
            Kept::Whole(buffer) => {
                buffer.append(bytes)?;
                let pages = bytes.chunks(PAGE).filter(|page| ZEROS.get(..page.len()) != Some(page));
                let count = pages.fold(0, |sum: usize, page| sum.saturating_add(page.len()));
                self.whole = self.whole.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                if self.whole > self.options.whole {
                    self.kept = match self.overflow {
                        Overflow::Drop => Kept::Nothing,
                        Overflow::Repack => {
                            let mut store = Store::new();
                            store.append(buffer.bytes());
                            Kept::Store(store)
                        }
                    };
                }
            }
        }
        Ok(())
    }

    fn too_much(&self, source: &Source<'_>, what: String) -> Error {
        Error::File {
            path: source.view.path().to_owned(),
            problem: format!("{what}; unpack it to a file with `{}` and open that, or allow more", self.unpack_with)
                .into(),
        }
    }

    /// What was unpacked, after the decoder ended with `result`.
    pub(super) fn finish(self, result: Result<()>) -> Result<Unpacked> {
        match self.end(result)? {
            Finished::Unpacked(unpacked) => Ok(unpacked),
            // A sink that repacks drops nothing.
            Finished::Dropped { notes, .. } => Ok(Unpacked { bytes: Bytes::Whole(PageBuffer::new()), notes }),
        }
    }

    /// As [`finish`](Self::finish), where what was unpacked may have been dropped.
    pub(super) fn end(self, result: Result<()>) -> Result<Finished> {
        let notes = match result {
            Ok(()) => Vec::new(),
            Err(error @ Error::Format { .. }) if self.options.partial && self.unpacked > 0 => {
                vec![format!("only the first {:#x} bytes could be unpacked: {error}", self.unpacked)]
            }
            Err(error) => return Err(error),
        };
        Ok(match self.kept {
            Kept::Whole(bytes) => Finished::Unpacked(Unpacked { bytes: Bytes::Whole(bytes), notes }),
            Kept::Store(store) => Finished::Unpacked(Unpacked::blocks(Box::new(store.finish()), notes)),
            Kept::Nothing => Finished::Dropped { size: self.unpacked, notes },
        })
    }
}

//! Parts of a file, and records in them.
//!
//! Owns: the check that a part lies in the file before it is looked at. Must not know: what any part means, where bytes come from.
//! Keeps: no length is believed, and only what is asked for is read.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::borrow::Cow;

use scroll::{Pread, ctx::TryFromCtx};
use smallvec::SmallVec;

use super::{Format, Rejection, source::Source};

/// A file that was recognised, or one of several files in it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    format: Format,
    source: &'a dyn Source,
    /// Where it begins.
    base: u64,
    size: u64,
}

/// Longest record: that of a 64-bit ELF header has 64 bytes, that of a section of Mach-O 80.
const RECORD: usize = 96;

/// Records of one size, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) what: &'static str,
    pub(super) offset: u64,
    pub(super) count: u64,
    pub(super) record: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(format: Format, source: &'a dyn Source) -> Self {
        Self { format, source, base: 0, size: source.size() }
    }

    /// The file that a part of this one is.
    pub(super) fn part(&self, what: &'static str, offset: u64, len: u64) -> Result<Self, Rejection> {
        self.check(what, offset, len)?;
        Ok(Self { base: self.base.saturating_add(offset), size: len, ..*self })
    }

    /// The same, as a file of another format.
    pub(super) const fn of(self, format: Format) -> Self {
        Self { format, ..self }
    }

    pub(super) const fn format(&self) -> Format {
        self.format
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Asks that a part lies in the file.
    pub(super) fn check(&self, what: &'static str, offset: u64, len: u64) -> Result<(), Rejection> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Rejection::Truncated { format: self.format, what, offset, len, size: self.size }),
        }
    }

    /// Fills the buffer with the bytes of a part.
    fn fill(&self, what: &'static str, offset: u64, buf: &mut [u8]) -> Result<(), Rejection> {
        self.check(what, offset, wide(buf.len()))?;
        // The part lies in the file, so this is no more than its size.
        let at = self.base.saturating_add(offset);
        self.source.read(at, buf).map_err(|problem| Rejection::Unreadable { what, offset: at, problem })
    }

    /// The bytes of a part. Whoever asks has made sure that there are not too many.
    pub(super) fn bytes(&self, what: &'static str, offset: u64, len: u64) -> Result<Vec<u8>, Rejection> {
        self.check(what, offset, len)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.fill(what, offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes from `offset` to the next NUL, or to the end of the file, and of these at most `most`; nothing if that is not in the
    /// file.
    pub(super) fn name(&self, what: &'static str, offset: u64, most: usize) -> Result<Option<Name>, Rejection> {
        let Some(rest) = self.size.checked_sub(offset) else { return Ok(None) };
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(most);
        let mut bytes = Name::new();
        while bytes.len() < len {
            let start = bytes.len();
            bytes.resize(start.saturating_add(NAME_STEP).min(len), 0);
            let part = bytes.get_mut(start..).unwrap_or_default();
            self.fill(what, offset.saturating_add(wide(start)), part)?;
            if let Some(end) = memchr::memchr(0, part) {
                bytes.truncate(start.saturating_add(end));
                break;
            }
        }
        Ok(Some(bytes))
    }

    /// One record of `len` bytes.
    pub(super) fn record<T, E, C>(&self, what: &'static str, offset: u64, len: usize, ctx: C) -> Result<T, Rejection>
    where
        C: Copy,
        T: for<'b> TryFromCtx<'b, C, Error = E>,
        E: From<scroll::Error> + std::fmt::Display,
    {
        self.check(what, offset, wide(len))?;
        let mut bytes = SmallVec::<[u8; RECORD]>::from_elem(0, len);
        self.fill(what, offset, &mut bytes)?;
        bytes.pread_with(0, ctx).map_err(|error: E| self.malformed(what, offset, "a record", error.to_string()))
    }

    /// The record of a table.
    pub(super) fn entry<T, E, C>(&self, table: Table, index: u64, ctx: C) -> Result<T, Rejection>
    where
        C: Copy,
        T: for<'b> TryFromCtx<'b, C, Error = E>,
        E: From<scroll::Error> + std::fmt::Display,
    {
        // Past 2^64 is past the end of the file.
        let offset = index.checked_mul(table.record).and_then(|at| table.offset.checked_add(at)).unwrap_or(u64::MAX);
        self.record(table.what, offset, usize::try_from(table.record).unwrap_or(usize::MAX), ctx)
    }

    /// A table that lies in the file as a whole.
    pub(super) fn table(&self, what: &'static str, offset: u64, count: u64, record: usize) -> Result<Table, Rejection> {
        let table = Table { what, offset, count, record: wide(record) };
        self.check(what, offset, count.saturating_mul(table.record))?;
        Ok(table)
    }

    pub(super) fn malformed(
        &self,
        what: &'static str,
        offset: u64,
        expected: impl Into<Cow<'static, str>>,
        found: impl Into<Cow<'static, str>>,
    ) -> Rejection {
        Rejection::Malformed { format: self.format, what, offset, expected: expected.into(), found: found.into() }
    }
}

/// A name as it lies in the file, without its end. Most are short.
pub(super) type Name = SmallVec<[u8; NAME_STEP]>;

/// Bytes of a name that are read at once.
const NAME_STEP: usize = 64;

/// The bytes before the first NUL, and of these at most `most`.
pub(super) fn name(bytes: &[u8], most: usize) -> &[u8] {
    let bytes = bytes.get(..most).unwrap_or(bytes);
    memchr::memchr(0, bytes).and_then(|len| bytes.get(..len)).unwrap_or(bytes)
}

/// A length as the type of offsets.
pub(super) fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

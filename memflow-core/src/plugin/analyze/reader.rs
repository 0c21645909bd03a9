//! The bytes of a file, and records in them.
//!
//! Owns: the check that a part lies in the file before it is looked at. Must not know: what any part means.
//! Keeps: nothing is copied, and no length is believed.
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

use super::{Format, Rejection};

/// A file that was recognised.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    format: Format,
    bytes: &'a [u8],
}

/// Records of one size, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) what: &'static str,
    pub(super) offset: u64,
    pub(super) count: u64,
    pub(super) record: u64,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(format: Format, bytes: &'a [u8]) -> Self {
        Self { format, bytes }
    }

    pub(super) const fn format(&self) -> Format {
        self.format
    }

    pub(super) fn size(&self) -> u64 {
        wide(self.bytes.len())
    }

    /// Bytes of the file.
    pub(super) fn slice(&self, what: &'static str, offset: u64, len: u64) -> Result<&'a [u8], Rejection> {
        self.get(offset, len).ok_or_else(|| Rejection::Truncated {
            format: self.format,
            what,
            offset,
            len,
            size: self.size(),
        })
    }

    fn get(&self, offset: u64, len: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = usize::try_from(offset.checked_add(len)?).ok()?;
        self.bytes.get(start..end)
    }

    /// The bytes from `offset` to the next NUL, or to the end of the file, and of these at most `most`.
    pub(super) fn name(&self, offset: u64, most: usize) -> Option<&'a [u8]> {
        let rest = self.bytes.get(usize::try_from(offset).ok()?..)?;
        Some(name(rest, most))
    }

    /// One record of `len` bytes.
    pub(super) fn record<T, C: Copy>(&self, what: &'static str, offset: u64, len: usize, ctx: C) -> Result<T, Rejection>
    where
        T: TryFromCtx<'a, C>,
        T::Error: From<scroll::Error> + std::fmt::Display,
    {
        let bytes = self.slice(what, offset, wide(len))?;
        bytes.pread_with(0, ctx).map_err(|error: T::Error| self.malformed(what, offset, "a record", error.to_string()))
    }

    /// The record of a table.
    pub(super) fn entry<T, C: Copy>(&self, table: Table, index: u64, ctx: C) -> Result<T, Rejection>
    where
        T: TryFromCtx<'a, C>,
        T::Error: From<scroll::Error> + std::fmt::Display,
    {
        // Past 2^64 is past the end of the file.
        let offset = index.checked_mul(table.record).and_then(|at| table.offset.checked_add(at)).unwrap_or(u64::MAX);
        self.record(table.what, offset, usize::try_from(table.record).unwrap_or(usize::MAX), ctx)
    }

    /// A table that lies in the file as a whole.
    pub(super) fn table(&self, what: &'static str, offset: u64, count: u64, record: usize) -> Result<Table, Rejection> {
        let table = Table { what, offset, count, record: wide(record) };
        self.slice(what, offset, count.saturating_mul(table.record))?;
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

/// The bytes before the first NUL, and of these at most `most`.
pub(super) fn name(bytes: &[u8], most: usize) -> &[u8] {
    let bytes = bytes.get(..most).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A length as the type of offsets.
pub(super) fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

//! Tables that were read, entry by entry.
//!
//! Owns: [`Fetched`]. Must not know: bits of an entry, how tables are read.
//! Keeps: an entry that could not be read is told as lost, whatever its bytes are.

use super::Place;
use crate::{
    error::StopCause,
    paging::arch::{Architecture, EntrySize, Level},
};

/// Tables that were fetched together.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) table_bytes: usize,
    /// Entries that could not be read: table, index, why. Ascending.
    pub(super) lost: Vec<(usize, u64, StopCause)>,
}

impl Fetched {
    /// The entries of the `nth` table, if each has eight bytes and was read.
    pub(super) fn words(&self, arch: &'static Architecture, nth: usize) -> Option<&[[u8; 8]]> {
        let at = nth.saturating_mul(self.table_bytes);
        let table = self.bytes.get(at..at.saturating_add(self.table_bytes))?;
        (arch.entry_size == EntrySize::Eight && self.lost.is_empty()).then_some(table.as_chunks().0)
    }

    /// The entries of the `nth` table from the one for `place.first` to the one for `place.last`, each with the part of that range
    /// that it covers.
    pub(super) fn entries(
        &self,
        arch: &'static Architecture,
        level: &'static Level,
        place: &Place,
        nth: usize,
    ) -> impl Iterator<Item = (u64, u64, Result<u64, StopCause>)> {
        let (first, last) = (place.first, place.last);
        let size = usize::try_from(arch.entry_size.bytes()).unwrap_or(1);
        let at = nth.saturating_mul(self.table_bytes);
        let table = self.bytes.get(at..at.saturating_add(self.table_bytes)).unwrap_or_default();
        let from = level.index(first);
        let skipped = usize::try_from(from).unwrap_or(usize::MAX);
        let count = level.index(last).saturating_sub(from).saturating_add(1);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let inside = level.offset_mask();
        let mut start = first;
        table.chunks_exact(size).zip(0u64..).skip(skipped).take(count).map(move |(bytes, index)| {
            let end = (start | inside).min(last);
            let entry = match self.why_lost(nth, index) {
                Some(cause) => Err(cause),
                None => Ok(number(arch.entry_size, bytes)),
            };
            let covered = (start, end, entry);
            start = end.wrapping_add(1);
            covered
        })
    }

    /// Why an entry could not be read, if it could not.
    #[inline]
    fn why_lost(&self, nth: usize, index: u64) -> Option<StopCause> {
        if self.lost.is_empty() {
            return None;
        }
        let place = self.lost.binary_search_by_key(&(nth, index), |(nth, index, _)| (*nth, *index)).ok()?;
        self.lost.get(place).map(|(_, _, cause)| *cause)
    }
}

/// The little-endian number in the bytes of an entry.
#[inline]
fn number(size: EntrySize, bytes: &[u8]) -> u64 {
    match size {
        EntrySize::Eight => bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)),
        EntrySize::Four => bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes).into()),
    }
}

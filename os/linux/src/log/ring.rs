//! The log since Linux v5.10: a ring of descriptors, an info for each, and a ring of text.
//!
//! Owns: which descriptors hold a record, and where its text lies. Must not know: how the rings were read.
//! Keeps: a text belongs to a record only when the number stored in front of it is the record's; a descriptor that changed while the
//! rings were read is left out.
//! Source: Linux `kernel/printk/printk_ringbuffer.c` and `.h` (v5.10 to v6.19).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::time::Duration;

use memflow_core::{
    Error, Result, VirtAddr,
    os::{Listing, LogRecord},
};

use crate::{
    bytes::Bytes,
    record::entry_size,
    types::{Field, Types},
};

/// The bits of a descriptor's state variable that hold its number; the two above hold the state.
pub(super) const ID_MASK: u64 = u64::MAX >> 2;
/// States of a descriptor, `enum desc_state`.
const COMMITTED: u64 = 1;
const FINALIZED: u64 = 2;
/// Both positions of a record that has no text because its line is empty.
const EMPTY_LINE: u64 = 3;
/// Bytes of the record's number in front of its text.
const NUMBER_LEN: u64 = 8;

/// Where the members lie in this kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingLayout {
    pub(super) desc_size: u64,
    pub(super) state: u64,
    pub(super) begin: u64,
    pub(super) next: u64,
    pub(super) info_size: u64,
    pub(super) seq: u64,
    pub(super) time: u64,
    pub(super) text_len: u64,
    pub(super) facility: u64,
    pub(super) level: Field,
}

impl RingLayout {
    pub(super) fn of(types: &Types) -> Result<Self> {
        let offset = |structure, path| types.field(structure, path).map(|field| field.offset);
        Ok(Self {
            desc_size: entry_size(types, "prb_desc")?,
            state: offset("prb_desc", "state_var")?,
            begin: offset("prb_desc", "text_blk_lpos.begin")?,
            next: offset("prb_desc", "text_blk_lpos.next")?,
            info_size: entry_size(types, "printk_info")?,
            seq: offset("printk_info", "seq")?,
            time: offset("printk_info", "ts_nsec")?,
            text_len: offset("printk_info", "text_len")?,
            facility: offset("printk_info", "facility")?,
            level: types.field("printk_info", "level")?,
        })
    }
}

/// The rings' contents. Entries are in order of their numbers, from `tail` on.
pub(super) struct Ring<'a> {
    pub(super) tail: u64,
    pub(super) count: u64,
    pub(super) descs: &'a [u8],
    /// The descriptors, read again after everything else.
    pub(super) descs_after: &'a [u8],
    pub(super) infos: &'a [u8],
    /// The whole ring of text; its length is a power of two.
    pub(super) text: &'a [u8],
    pub(super) text_at: VirtAddr,
}

impl Ring<'_> {
    /// The records, oldest first.
    pub(super) fn records(&self, layout: &RingLayout) -> Listing<LogRecord> {
        let mut list = Listing::new();
        // Texts do not overlap, so together they are no longer than the ring.
        let size = Bytes(self.text).len();
        let mut room = size;
        for index in 0..self.count {
            match self.record(layout, index) {
                Some(Ok(Some((record, text_len)))) => match room.checked_sub(text_len) {
                    Some(rest) => {
                        list.items.push(record);
                        room = rest;
                    }
                    None => {
                        list.problems.push(Error::Corrupt {
                            what: "log",
                            address: self.text_at.into(),
                            expected: format!("{size} bytes of text at most, as the ring holds").into(),
                            found: format!("more in {} of {} records; they overlap", list.items.len(), self.count)
                                .into(),
                        });
                        break;
                    }
                },
                Some(Ok(None)) => {}
                Some(Err(error)) => list.problems.push(error),
                // The tables are shorter than the count, which the reader of this crate never lets happen.
                None => break,
            }
        }
        list
    }

    /// Record `index` from the tail, and the length of its text in the ring. `None` past the end of a table; `Ok(None)` when the descriptor holds no record.
    fn record(&self, layout: &RingLayout, index: u64) -> Option<Result<Option<(LogRecord, u64)>>> {
        let at = index.checked_mul(layout.desc_size)?;
        let id = self.tail.wrapping_add(index) & ID_MASK;
        let state_at = at.checked_add(layout.state)?;
        let state = Bytes(self.descs).u64(state_at)?;
        let held = state & ID_MASK == id && matches!(state >> 62, COMMITTED | FINALIZED);
        if !held || Bytes(self.descs_after).u64(state_at)? != state {
            return Some(Ok(None));
        }
        let begin = Bytes(self.descs).u64(at.checked_add(layout.begin)?)?;
        let next = Bytes(self.descs).u64(at.checked_add(layout.next)?)?;
        let info_at = index.checked_mul(layout.info_size)?;
        let info = Bytes(Bytes(self.infos).slice(info_at, layout.info_size)?);
        let text_len = info.u16(layout.text_len)?;
        let text = if (begin, next) == (EMPTY_LINE, EMPTY_LINE) {
            &[]
        } else if begin & 1 == 1 && next & 1 == 1 {
            // There was no room for the text: the kernel does not show such records either.
            return Some(Ok(None));
        } else {
            match self.text(id, begin, next) {
                Some(text) => text.get(..usize::from(text_len)).unwrap_or(text),
                None => {
                    return Some(Err(Error::Corrupt {
                        what: "text of a log record",
                        address: self.text_at.into(),
                        expected: format!("record {id:#x} between positions {begin:#x} and {next:#x}").into(),
                        found: "another record or none".into(),
                    }));
                }
            }
        };
        let (first, width) = layout.level.bits.unwrap_or((0, 8));
        let level = u32::from(info.u8(layout.level.offset)?) >> u32::from(first).min(7);
        let level = level & 1u32.checked_shl(width.into()).unwrap_or(0).wrapping_sub(1);
        let record = LogRecord::new(
            Duration::from_nanos(info.u64(layout.time)?),
            info.u64(layout.seq)?,
            info.u8(layout.facility)?,
            u8::try_from(level).ok()?,
            String::from_utf8_lossy(text).trim_end_matches('\n'),
        );
        Some(Ok(Some((record, Bytes(text).len()))))
    }

    /// The text of record `id` between two positions of the text ring, which count on over all its rounds.
    fn text(&self, id: u64, begin: u64, next: u64) -> Option<&[u8]> {
        let size = Bytes(self.text).len();
        let mask = size.checked_sub(1)?;
        let rounds = |position: u64| position & !mask;
        let (start, end) = if rounds(begin) == rounds(next) {
            (begin & mask, next & mask)
        } else if rounds(begin).wrapping_add(size) != rounds(next) {
            return None;
        } else if next & mask == 0 {
            // Ends with the ring (since v6.19; before, such a record went to the start).
            (begin & mask, size)
        } else {
            // A text is never split: what does not fit at the end lies at the start.
            (0, next & mask)
        };
        let block = Bytes(Bytes(self.text).slice(start, end.checked_sub(start)?)?);
        if block.u64(0)? != id {
            return None;
        }
        block.slice(NUMBER_LEN, block.len().checked_sub(NUMBER_LEN)?)
    }
}

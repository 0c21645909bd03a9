//! The log from Linux v3.5 to v5.9: records of header and text, one after the other in a ring.
//!
//! Owns: the format of a record. Must not know: how the buffer was read.
//! Keeps: a record that would leave the buffer ends the list with an error; the number of records is bounded by the buffer.
//! Source: Linux `kernel/printk/printk.c` (v5.9, `struct printk_log`).
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

/// Where the members of a header lie in this kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlatLayout {
    pub(super) header: u64,
    pub(super) time: u64,
    pub(super) len: u64,
    pub(super) text_len: u64,
    pub(super) facility: u64,
    pub(super) level: Field,
}

impl FlatLayout {
    pub(super) fn of(types: &Types) -> Result<Self> {
        let offset = |path| types.field("printk_log", path).map(|field| field.offset);
        Ok(Self {
            header: entry_size(types, "printk_log")?,
            time: offset("ts_nsec")?,
            len: offset("len")?,
            text_len: offset("text_len")?,
            facility: offset("facility")?,
            level: types.field("printk_log", "level")?,
        })
    }
}

/// The records from the one at `first` on, whose sequence number is `first_seq`, up to, not including, `next_seq`.
pub(super) fn records(
    layout: &FlatLayout,
    at: VirtAddr,
    buffer: &[u8],
    first: u64,
    first_seq: u64,
    next_seq: u64,
) -> Listing<LogRecord> {
    let mut list = Listing::new();
    let bytes = Bytes(buffer);
    let mut place = first;
    let mut sequence = first_seq;
    // A record has at least a header, so there are no more than this many.
    let most = bytes.len().checked_div(layout.header).unwrap_or(0);
    let wanted = next_seq.saturating_sub(first_seq);
    // Records do not overlap, so together they are no longer than the buffer.
    let mut room = bytes.len();
    for _ in 0..wanted.min(most) {
        let found = match record(layout, bytes, place, sequence) {
            // A length of zero says that the next record is at the start of the buffer.
            Some(Found { len: 0, .. }) if place != 0 => {
                place = 0;
                record(layout, bytes, 0, sequence)
            }
            found => found,
        };
        match found {
            Some(Found { record, len, needed }) if (needed..=room).contains(&len) => {
                list.items.push(record);
                room = room.saturating_sub(len);
                place = place.saturating_add(len);
                sequence = sequence.wrapping_add(1);
            }
            found => {
                let len = found.as_ref().map(|found| found.len);
                let needed = found.map_or(layout.header, |found| found.needed);
                list.problems.push(Error::Corrupt {
                    what: "log record",
                    address: at.wrapping_add(place).into(),
                    expected: format!("a record of at least {needed} bytes inside {room} of {} bytes", bytes.len())
                        .into(),
                    found: len.map_or("the end of the buffer".into(), |len| format!("length {len}").into()),
                });
                break;
            }
        }
    }
    if list.is_complete() && sequence != next_seq {
        list.problems.push(Error::Corrupt {
            what: "log",
            address: at.into(),
            expected: format!("{wanted} records").into(),
            found: format!("{} bytes, which hold at most {most}", bytes.len()).into(),
        });
    }
    list
}

/// A record in the buffer.
struct Found {
    record: LogRecord,
    /// Its length in the buffer; zero for the marker that says that the next record is at the start.
    len: u64,
    /// The length that header and text need.
    needed: u64,
}

/// The record at `place`.
fn record(layout: &FlatLayout, bytes: Bytes<'_>, place: u64, sequence: u64) -> Option<Found> {
    let header = Bytes(bytes.slice(place, layout.header)?);
    let len = header.u16(layout.len)?;
    let text_len = header.u16(layout.text_len)?;
    let text = match len {
        0 => &[],
        _ => bytes.slice(place.checked_add(layout.header)?, text_len.into())?,
    };
    let (first, width) = layout.level.bits.unwrap_or((0, 8));
    let level = u32::from(header.u8(layout.level.offset)?) >> u32::from(first).min(7);
    let level = level & 1u32.checked_shl(width.into()).unwrap_or(0).wrapping_sub(1);
    let record = LogRecord::new(
        Duration::from_nanos(header.u64(layout.time)?),
        sequence,
        header.u8(layout.facility)?,
        u8::try_from(level).ok()?,
        String::from_utf8_lossy(text).trim_end_matches('\n'),
    );
    Some(Found { record, len: len.into(), needed: layout.header.checked_add(text_len.into())? })
}

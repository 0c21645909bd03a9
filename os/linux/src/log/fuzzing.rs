//! Entries for fuzz targets into both layouts of the log.
//!
//! Owns: the way from plain bytes to a layout and its tables. Must not know: how inputs are made.
//! Keeps: what the reader of this crate has checked before it calls a parser is true here too: a ring of text has a power of
//! two of bytes, and there are no more descriptors than its limit.

use memflow_core::{
    VirtAddr,
    os::{Listing, LogRecord},
};

use super::{
    flat::{self, FlatLayout},
    ring::{Ring, RingLayout},
};
use crate::types::Field;

/// Most descriptors of a ring.
const MAX_COUNT: u64 = 1 << 12;

/// Numbers from the front of the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn field(&mut self) -> Option<Field> {
        let (offset, bits) = (self.number()?, self.number()?);
        let [first, width, ..] = bits.to_le_bytes();
        // Type information gives the bit of a byte.
        Some(Field { offset, size: 1, bits: (width != 0).then_some((first % 8, width)) })
    }

    fn bytes(&mut self, len: u64) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(self.0.len().min(usize::try_from(len).unwrap_or(usize::MAX)));
        self.0 = rest;
        bytes
    }
}

/// Six numbers of layout and one of bits, the place and the number of the first record, the number after the last, the buffer. Returns
/// the number of records.
pub fn log_flat(data: &[u8]) -> usize {
    let mut input = Input(data);
    let mut parse = || {
        let layout = FlatLayout {
            header: input.number()?,
            time: input.number()?,
            len: input.number()?,
            text_len: input.number()?,
            facility: input.number()?,
            level: input.field()?,
        };
        let (first, first_seq, next_seq) = (input.number()?, input.number()?, input.number()?);
        Some(flat::records(&layout, VirtAddr::new(0), input.0, first, first_seq, next_seq))
    };
    check(data, parse())
}

/// Ten numbers of layout and one of bits, the number of the first record, how many descriptors follow, descriptors, infos, text. Returns
/// the number of records.
pub fn log_ring(data: &[u8]) -> usize {
    let mut input = Input(data);
    let mut parse = || {
        let layout = RingLayout {
            desc_size: input.number()?,
            state: input.number()?,
            begin: input.number()?,
            next: input.number()?,
            info_size: input.number()?,
            seq: input.number()?,
            time: input.number()?,
            text_len: input.number()?,
            facility: input.number()?,
            level: input.field()?,
        };
        let (tail, count) = (input.number()?, input.number()?.min(MAX_COUNT));
        let descs = input.bytes(count.saturating_mul(layout.desc_size));
        let infos = input.bytes(count.saturating_mul(layout.info_size));
        let text = input.bytes(1u64.checked_shl(input.0.len().checked_ilog2()?)?);
        let text_at = VirtAddr::new(0);
        Some(Ring { tail, count, descs, descs_after: descs, infos, text, text_at }.records(&layout))
    };
    check(data, parse())
}

/// The number of records. No byte of the input is in two texts: text has at most one character for each byte it was made of.
fn check(data: &[u8], list: Option<Listing<LogRecord>>) -> usize {
    let records = list.map(|list| list.items).unwrap_or_default();
    let characters: usize = records.iter().map(|record| record.text.chars().count()).sum();
    assert!(characters <= data.len(), "{characters} characters of text from {} bytes", data.len());
    records.len()
}

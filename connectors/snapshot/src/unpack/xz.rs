//! xz: blocks, whose lengths are listed at the end of each stream.
//!
//! Owns: the walk over the lists, from the end of the file to its start. Must not know: what is inside; the decoder is liblzma.
//! Keeps: a list is used only where it accounts for every byte of its stream; a dictionary above 128 MiB is refused, as the library would
//! reserve it on the word of a header.
//! Source: `doc/xz-file-format.txt` of XZ Utils, version 1.2.1: 2.1 (stream header and footer), 2.2 (padding), 3 (block), 4 (index).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::Arc;

use flate2::Crc;
use liblzma::stream::{Action, CONCATENATED, Error as XzError, Status, Stream};
use memflow_core::{Error, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian::U32};

use super::{
    Unpacked,
    pieces::{Piece, PieceBlocks, Pieces, Unpack},
    pump::{Overflow, Sink, Source, UnpackOptions},
};
use crate::{
    detect::XZ_MAGIC,
    input::{ReadAt, View},
};

const NAME: &str = "xz";
/// Memory that the decoder may take: for a dictionary of 128 MiB.
const MEMORY: u64 = 130 << 20;
/// Most zeros behind a stream. A stream may be followed by any number of them, but a file of zeros is not an xz file.
const MAX_PADDING: u64 = 1 << 20;
const HEADER: u64 = 12;
const FOOTER: u64 = 12;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 6],
    flags: [u8; 2],
    crc: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Footer {
    crc: U32,
    /// Length of the index in units of four bytes, less one.
    backward_size: U32,
    flags: [u8; 2],
    magic: [u8; 2],
}

/// Makes the blocks of an xz file readable at random.
///
/// # Errors
/// [`Error::Format`] for a stream that is damaged, cut short or followed by something else; [`Error::File`] past the limit;
/// [`Error::Cancelled`].
pub(super) fn open(input: Arc<dyn ReadAt>, options: UnpackOptions<'_>) -> Result<Unpacked> {
    let listed = match streams(&View::new(&*input, NAME)) {
        // Unpacking it gets as far as there is something.
        Err(Error::Format { .. }) if options.partial => None,
        other => other?,
    };
    if let Some(pieces) = listed {
        return Ok(Unpacked::blocks(Box::new(PieceBlocks::new(input, pieces, Block)), Vec::new()));
    }
    let mut source = Source::new(&*input, NAME);
    let mut sink = Sink::new(options, Overflow::Repack, "xz -d");
    let result = pass(&mut source, &mut sink);
    sink.finish(result)
}

/// A block of a stream, as the index has it.
struct Record {
    /// Bytes in the file, without what fills up the last four.
    unpadded: u64,
    unpacked: u64,
}

/// Lists the blocks of all streams; `None` when there is nothing to choose from.
fn streams(view: &View<'_>) -> Result<Option<Pieces>> {
    // Last stream first; within each, blocks in order.
    let mut found: Vec<(u64, [u8; 2], Vec<Record>)> = Vec::new();
    let mut end = view.size();
    while end > 0 {
        end = before_padding(view, end)?;
        let (start, flags, records) = stream(view, end)?;
        found.push((start, flags, records));
        end = start;
    }
    let mut pieces = Pieces::default();
    for (start, flags, records) in found.into_iter().rev() {
        let mut at = start.saturating_add(HEADER);
        for Record { unpadded, unpacked } in records {
            // The kind is the check, which the stream's header has.
            if pieces.push(at, padded(unpadded), unpacked, u16::from_le_bytes(flags).into()).is_err() {
                return Ok(None);
            }
            at = at.saturating_add(padded(unpadded));
        }
    }
    Ok((pieces.len() > 1).then_some(pieces))
}

/// The end of the stream before the padding that ends at `end`: zeros, four at a time.
fn before_padding(view: &View<'_>, end: u64) -> Result<u64> {
    let len = end.min(MAX_PADDING);
    let start = end.saturating_sub(len);
    let mut at = end;
    // The last bytes first, as there is seldom more than a few.
    for chunk in [256, len] {
        let from = end.saturating_sub(chunk).max(start);
        let bytes = view.bytes(from, end.saturating_sub(from), "the end of an xz stream")?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            let zeros = bytes.len().saturating_sub(last).saturating_sub(1);
            at = end.saturating_sub(u64::try_from(zeros).unwrap_or(0) & !3);
            break;
        }
        at = from;
    }
    match at > start || start == 0 {
        true => Ok(at),
        false => Err(view.bad(at, "the end of an xz stream, with 1 MiB of padding at most", "more zeros")),
    }
}

fn bad_end(view: &View<'_>, end: u64) -> Error {
    view.bad(end, "the end of an xz stream before it", "something else; it looks truncated, copy it again")
}

fn padded(len: u64) -> u64 {
    len.saturating_add(3) & !3
}

/// Reads the index of the stream that ends at `end`: where it starts, its flags, its blocks.
fn stream(view: &View<'_>, end: u64) -> Result<(u64, [u8; 2], Vec<Record>)> {
    let footer_at = end.checked_sub(FOOTER).ok_or_else(|| bad_end(view, end))?;
    let footer: Footer = view.read(footer_at, "the end of an xz stream")?;
    let body = footer.as_bytes().get(4..10).unwrap_or_default();
    if footer.magic != *b"YZ" || footer.crc.get() != crc(body) {
        return Err(bad_end(view, end));
    }
    let index_len = u64::from(footer.backward_size.get()).saturating_add(1).saturating_mul(4);
    let index_at = footer_at.checked_sub(index_len).filter(|at| *at >= HEADER);
    let bad = |found: String| view.bad(footer_at, "the length of the index before it", found);
    let index_at = index_at.ok_or_else(|| bad(format!("{index_len:#x}")))?;
    let index = view.bytes(index_at, index_len, "the index of an xz stream")?;
    let wrong = |found: &'static str| view.bad(index_at, "the index of an xz stream", found);
    let (body, sum) = index.split_last_chunk::<4>().ok_or_else(|| wrong("too few bytes"))?;
    if u32::from_le_bytes(*sum) != crc(body) {
        return Err(wrong("one that is damaged"));
    }
    // What lies between the stream's start and its index has to be the blocks.
    let records = records(body, index_at).ok_or_else(|| wrong("one that makes no sense"))?;
    let blocks = records.iter().fold(HEADER, |sum: u64, record| sum.saturating_add(padded(record.unpadded)));
    let start = index_at.checked_sub(blocks).ok_or_else(|| wrong("one of more bytes than there are before it"))?;
    let header: Header = view.read(start, "an xz stream")?;
    if header.magic != XZ_MAGIC || header.flags != footer.flags || header.crc.get() != crc(&header.flags) {
        return Err(view.bad(start, "the header of an xz stream", "something else"));
    }
    Ok((start, footer.flags, records))
}

/// Reads the records of an index, whose blocks take `room` bytes at most.
fn records(mut body: &[u8], room: u64) -> Option<Vec<Record>> {
    let (&indicator, rest) = body.split_first()?;
    body = rest;
    let count = number(&mut body)?;
    let mut records = Vec::new();
    let mut sum: u64 = 0;
    if indicator != 0 {
        return None;
    }
    for _ in 0..count {
        let record = Record { unpadded: number(&mut body)?, unpacked: number(&mut body)? };
        // A header of eight bytes is the least.
        sum = sum.checked_add(padded(record.unpadded)).filter(|sum| *sum <= room && record.unpadded > 4)?;
        records.push(record);
    }
    (body.len() < 4 && body.iter().all(|byte| *byte == 0)).then_some(records)
}

/// A number in groups of seven bits, nine at most.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Unpacks one block: to the decoder it is a stream that has not ended yet.
struct Block;

impl Unpack for Block {
    const NAME: &'static str = NAME;

    fn unpack(&self, piece: &Piece, packed: &[u8], bytes: &mut [u8]) -> Result<(), String> {
        let flags = u16::try_from(piece.kind).unwrap_or(0).to_le_bytes();
        let header = Header { magic: XZ_MAGIC, flags, crc: crc(&flags).into() };
        let mut decoder = Stream::new_stream_decoder(MEMORY, 0).map_err(|error| error.to_string())?;
        for (mut input, last) in [(header.as_bytes(), false), (packed, true)] {
            // The decoder takes the check behind the data too, and compares it.
            while !input.is_empty() {
                let (before, made) = (decoder.total_in(), decoder.total_out());
                let room = usize::try_from(made).ok().and_then(|made| bytes.get_mut(made..)).unwrap_or_default();
                decoder.process(input, room, Action::Run).map_err(|error| error.to_string())?;
                let consumed = usize::try_from(decoder.total_in().saturating_sub(before)).unwrap_or(0);
                input = input.get(consumed..).unwrap_or_default();
                if consumed == 0 && decoder.total_out() == made {
                    return Err("more bytes than the index says".to_owned());
                }
            }
            if last && usize::try_from(decoder.total_out()) != Ok(bytes.len()) {
                return Err(format!("{:#x} bytes instead of {:#x}", decoder.total_out(), bytes.len()));
            }
        }
        Ok(())
    }
}

/// Unpacks all blocks of all streams, one after the other.
fn pass(source: &mut Source<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let setting_up = |error: XzError| Error::io("setting up an xz decoder", error.into());
    let mut decoder = Stream::new_stream_decoder(MEMORY, CONCATENATED).map_err(setting_up)?;
    loop {
        let bytes = source.fill()?;
        let at_end = bytes.is_empty();
        let action = if at_end { Action::Finish } else { Action::Run };
        let (read, made) = (decoder.total_in(), decoder.total_out());
        let result = decoder.process(bytes, sink.scratch(), action);
        let count = |before: u64, after: u64| usize::try_from(after.saturating_sub(before)).unwrap_or(0);
        let (consumed, produced) = (count(read, decoder.total_in()), count(made, decoder.total_out()));
        source.consume(consumed);
        sink.take(produced, source)?;
        match result {
            Ok(Status::StreamEnd) => return Ok(()),
            Ok(_) if consumed > 0 || produced > 0 => {}
            Ok(_) if at_end => return Err(source.cut_short("the rest of an xz stream")),
            // The first call without progress is not an error yet.
            Ok(Status::Ok) => {}
            Ok(_) => {
                return Err(source.view.bad(source.offset(), "a valid xz stream", "data at which the decoder stops"));
            }
            Err(XzError::MemLimit) => {
                let found = "a dictionary above 128 MiB; unpack it with `xz -d`";
                return Err(source.view.bad(source.offset(), "a valid xz stream", found));
            }
            Err(error) => {
                let found = format!("damaged data ({error})");
                return Err(source.view.bad(source.offset(), "a valid xz stream", found));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_nine_groups_at_most() {
        for (bytes, expected) in [
            (&[0x7f][..], Some(0x7f)),
            (&[0x80, 1], Some(0x80)),
            (&[0xff; 9], None),
            (&[0x80], None),
            (&[], None),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], Some(u64::MAX >> 1)),
        ] {
            let mut rest = bytes;
            assert_eq!(number(&mut rest), expected, "{bytes:x?}");
        }
    }
}

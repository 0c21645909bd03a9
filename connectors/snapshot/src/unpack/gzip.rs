//! gzip: members of deflate data, each with a checksum.
//!
//! Owns: the framing. Must not know: what is inside.
//! Keeps: every round consumes or produces something, or is an error; checksum and length of each member are compared.
//! Source: RFC 1952 (gzip), RFC 1951 (deflate; the decoder is flate2's).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use flate2::{Crc, Decompress, FlushDecompress, Status};
use memflow_core::Result;

use super::pump::{Sink, Source, UnpackOptions, Unpacked};
use crate::{detect::GZIP_MAGIC, input::ReadAt};

const HAS_HEADER_CHECKSUM: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Unpacks all members of a gzip file. Zeros after the last are padding.
///
/// # Errors
/// [`Error::Format`](memflow_core::Error::Format) for a stream that is damaged, cut short or followed by something else;
/// [`Error::File`](memflow_core::Error::File) past the limit; [`Error::Cancelled`](memflow_core::Error::Cancelled).
pub fn unpack(input: &dyn ReadAt, options: UnpackOptions<'_>) -> Result<Unpacked> {
    let mut source = Source::new(input, "gzip");
    let mut sink = Sink::new(options);
    let result = members(&mut source, &mut sink);
    sink.finish(result)
}

fn members(source: &mut Source<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut decoder = Decompress::new(false);
    loop {
        header(source)?;
        member(source, sink, &mut decoder)?;
        decoder.reset(false);
        match source.peek()? {
            Some(GZIP_MAGIC) => {}
            _ => {
                return match source.only_zeros_left()? {
                    true => Ok(()),
                    false => Err(source.view.bad(source.offset(), "another gzip member or the end", "something else")),
                };
            }
        }
    }
}

/// Moves past the header of a member.
fn header(source: &mut Source<'_>) -> Result<()> {
    const WHAT: &str = "a gzip header";
    let at = source.offset();
    let [id1, id2, method, flags, ..] = source.array::<10>(WHAT)?;
    if [id1, id2, method] != GZIP_MAGIC {
        return Err(source.view.bad(at, "the gzip magic 1f 8b 08", format!("{id1:02x} {id2:02x} {method:02x}")));
    }
    if flags & RESERVED != 0 {
        return Err(source.view.bad(at.saturating_add(3), "no reserved flags", format!("{flags:#04x}")));
    }
    if flags & HAS_EXTRA != 0 {
        for _ in 0..u16::from_le_bytes(source.array(WHAT)?) {
            source.byte(WHAT)?;
        }
    }
    if flags & HAS_NAME != 0 {
        while source.byte(WHAT)? != 0 {}
    }
    if flags & HAS_COMMENT != 0 {
        while source.byte(WHAT)? != 0 {}
    }
    if flags & HAS_HEADER_CHECKSUM != 0 {
        source.array::<2>(WHAT)?;
    }
    Ok(())
}

/// Unpacks the data of one member and compares its checksum and length.
fn member(source: &mut Source<'_>, sink: &mut Sink<'_>, decoder: &mut Decompress) -> Result<()> {
    let mut crc = Crc::new();
    loop {
        let (consumed_before, produced_before) = (decoder.total_in(), decoder.total_out());
        let bytes = source.fill()?;
        let at_end = bytes.is_empty();
        let status = match decoder.decompress(bytes, sink.scratch(), FlushDecompress::None) {
            Ok(status) => status,
            Err(error) => {
                return Err(source.view.bad(source.offset(), "valid deflate data", format!("damaged data ({error})")));
            }
        };
        let consumed = step(consumed_before, decoder.total_in());
        let produced = step(produced_before, decoder.total_out());
        source.consume(consumed);
        crc.update(sink.produced(produced));
        sink.take(produced, source, "gzip -d")?;
        if matches!(status, Status::StreamEnd) {
            break;
        }
        if consumed == 0 && produced == 0 {
            return Err(match at_end {
                true => source.cut_short("the rest of the deflate data"),
                false => source.view.bad(source.offset(), "valid deflate data", "data at which the decoder stops"),
            });
        }
    }
    let at = source.offset();
    let sum = u32::from_le_bytes(source.array("a gzip member's checksum")?);
    let len = u32::from_le_bytes(source.array("a gzip member's length")?);
    if sum != crc.sum() {
        return Err(source.view.bad(at, format!("checksum {sum:#010x}"), format!("data with {:#010x}", crc.sum())));
    }
    if len != crc.amount() {
        return Err(source.view.bad(
            at.saturating_add(4),
            format!("{len:#x} bytes (modulo 4 GiB)"),
            format!("{:#x} in the member", crc.amount()),
        ));
    }
    Ok(())
}

/// How far a counter went in one call, which is at most a window.
fn step(before: u64, after: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(0)
}

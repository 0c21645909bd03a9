//! Zstandard: frames, each with its own window and checksum, and skippable ones between them.
//!
//! Owns: what may follow a frame. Must not know: what is inside; the decoder is the reference library.
//! Keeps: every round consumes or produces something, or is an error; a window above 128 MiB is refused, as the library would
//! reserve it on the word of a header.
//! Source: RFC 8878.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::Result;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::pump::{Sink, Source, UnpackOptions, Unpacked};
use crate::{
    detect::{ZSTD_MAGIC, ZSTD_SKIPPABLE_MAGIC},
    input::ReadAt,
};

/// Unpacks all frames of a Zstandard file. Zeros after the last are padding.
///
/// # Errors
/// [`Error::Format`](memflow_core::Error::Format) for a stream that is damaged, cut short or followed by something else;
/// [`Error::File`](memflow_core::Error::File) past the limit; [`Error::Cancelled`](memflow_core::Error::Cancelled).
pub fn unpack(input: &dyn ReadAt, options: UnpackOptions<'_>) -> Result<Unpacked> {
    let mut source = Source::new(input, "zstd");
    let mut sink = Sink::new(options);
    let result = frames(&mut source, &mut sink);
    sink.finish(result)
}

fn frames(source: &mut Source<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut decoder = Decoder::new().map_err(|error| memflow_core::Error::io("setting up a zstd decoder", error))?;
    loop {
        frame(source, sink, &mut decoder)?;
        match source.peek()?.map(u32::from_le_bytes) {
            Some(magic) if magic == ZSTD_MAGIC || magic & !0xf == ZSTD_SKIPPABLE_MAGIC => {}
            _ => {
                return match source.only_zeros_left()? {
                    true => Ok(()),
                    false => Err(source.view.bad(source.offset(), "another zstd frame or the end", "something else")),
                };
            }
        }
    }
}

/// Unpacks one frame, or moves past a skippable one.
fn frame(source: &mut Source<'_>, sink: &mut Sink<'_>, decoder: &mut Decoder<'_>) -> Result<()> {
    loop {
        let bytes = source.fill()?;
        let at_end = bytes.is_empty();
        let mut input = InBuffer::around(bytes);
        let (result, produced) = {
            let mut output = OutBuffer::around(sink.scratch());
            let result = decoder.run(&mut input, &mut output);
            (result, output.pos())
        };
        let consumed = input.pos();
        source.consume(consumed);
        let hint = match result {
            Ok(hint) => hint,
            Err(error) => {
                let text = error.to_string();
                // The library's text for windows above the limit.
                let found = if text.contains("too much memory") {
                    "a frame with a window above 128 MiB; unpack it with `zstd -d --long=31`".to_owned()
                } else {
                    format!("damaged data ({text})")
                };
                return Err(source.view.bad(source.offset(), "a valid zstd frame", found));
            }
        };
        sink.take(produced, source, "zstd -d")?;
        // Zero says that the frame is over and all of it was handed out.
        if hint == 0 {
            return Ok(());
        }
        if consumed == 0 && produced == 0 {
            return Err(match at_end {
                true => source.cut_short("the rest of a zstd frame"),
                false => source.view.bad(source.offset(), "a valid zstd frame", "data at which the decoder stops"),
            });
        }
    }
}

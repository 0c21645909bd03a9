//! Compressed files, read at random.
//!
//! ```text
//!                ┌─ pieces that unpack by themselves: a list of them, from a table or from headers ──▶ unpacked as they are read
//! compressed ────┤                                     ┌─ little besides zeros ──▶ kept whole
//!                └─ one stream: unpacked once ─────────┼─ gzip ──▶ states of the decoder, from which it goes on
//!                                                      └─ others ──▶ compressed anew in blocks
//! ```
//!
//! Formats differ in framing and decoder only; how much may be unpacked, how zeros are kept free of cost, how progress is told
//! and how a caller cancels is in one place for all.

mod available;
mod gzip;
mod index;
mod inflate;
mod lz4;
mod pieces;
mod pump;
mod store;
mod xz;
mod zstd;

use std::sync::Arc;

use memflow_core::{Result, memory::PageBuffer};

pub(crate) use self::pump::UnpackOptions;
use crate::{blocks::Blocks, detect::Compression, input::ReadAt};

/// What is in a compressed file.
pub(crate) struct Unpacked {
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// Unpacked bytes, or where they come from.
pub(crate) enum Bytes {
    /// All of them.
    Whole(PageBuffer),
    /// Unpacked as they are read.
    Blocks(Box<dyn Blocks>),
}

impl Unpacked {
    fn blocks(blocks: Box<dyn Blocks>, notes: Vec<String>) -> Self {
        Self { bytes: Bytes::Blocks(blocks), notes }
    }
}

/// Makes a compressed file readable at random.
///
/// # Errors
/// [`Error::Format`](memflow_core::Error::Format) for a stream that is damaged, cut short or followed by something else;
/// [`Error::File`](memflow_core::Error::File) past the limit; [`Error::Cancelled`](memflow_core::Error::Cancelled).
pub(crate) fn open(input: Arc<dyn ReadAt>, compression: Compression, options: UnpackOptions<'_>) -> Result<Unpacked> {
    match compression {
        Compression::Gzip => gzip::open(input, options),
        Compression::Lz4 => lz4::open(input, options),
        Compression::Xz => xz::open(input, options),
        Compression::Zstd => zstd::open(input, options),
    }
}

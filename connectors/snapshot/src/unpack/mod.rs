//! Compressed files, unpacked into memory.
//!
//! Formats differ in framing and decoder only; how much may be unpacked, how zeros are kept free of cost, how progress is told
//! and how a caller cancels is in one place for both.

mod available;
mod gzip;
mod pump;
mod zstd;

pub use self::{gzip::unpack as gzip, pump::UnpackOptions, pump::Unpacked, zstd::unpack as zstd};

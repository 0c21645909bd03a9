//! Connector for files that hold physical memory: raw images, LiME, ELF cores, each also gzip- or zstd-compressed.

mod detect;
pub mod elf;
mod firmware;
mod image;
mod input;
pub mod lime;
mod open;
mod options;
mod raw;
pub mod unpack;

pub use self::{
    detect::{Compression, Container, Format},
    image::{ParseOptions, ParsedImage},
    input::{BytesInput, FileInput, ReadAt},
    open::{Snapshot, open, open_bytes},
    options::{OnProgress, OpenOptions, Progress},
    raw::{MemoryLayout, parse_runs, raw_layouts},
};

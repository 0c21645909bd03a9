//! Connector for files that hold physical memory: raw images, LiME, ELF cores, each also gzip- or zstd-compressed.

mod detect;
pub mod elf;
mod image;
mod input;
mod open;
mod options;
mod raw;

pub use self::{
    detect::{Compression, Container, Format},
    image::{ParseOptions, ParsedImage},
    input::{BytesInput, FileInput, ReadAt},
    open::{Snapshot, open},
    options::{OnProgress, OpenOptions, Progress},
    raw::{MemoryLayout, parse_runs, raw_layouts},
};

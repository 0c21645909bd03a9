//! Connector for files that hold physical memory: raw images, LiME, AVML, ELF cores, kdump, Windows crash dumps, VMware snapshots, QEMU's
//! migration streams and libvirt's saved domains; most also in gzip, zstd, xz or LZ4.
//!
//! [`open`] tells what a file is by its content, finds out which physical addresses it holds, and maps it, or unpacks what is
//! read of it. Files are taken as they are or refused with a reason; what a person should know is in [`Snapshot::notes`].
//!
//! ```text
//! path → input → detect ─┬─────────────▶ elf │ lime │ crash_dump │ raw → runs, facts → mapped file, or positional reads
//!                        ├─────────────▶ avml │ kdump │ migration → runs, facts, blocks → unpacked as it is read
//!                        ├─ flattened ─▶ any of these → positional reads
//!                        └─ unpack ────▶ any of these → positional reads, unpacked as they come
//! ```
//!
//! Each parser is a function from bytes by position ([`ReadAt`]) to a [`ParsedImage`], and knows nothing of files.

pub mod avml;
mod beside;
mod bitmap;
mod blocks;
mod container;
pub mod crash_dump;
mod detect;
pub mod elf;
mod facts_note;
pub mod firmware;
mod flattened;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod input;
pub mod kdump;
mod libvirt;
pub mod lime;
pub mod migration;
mod open;
mod options;
mod plugin;
mod raw;
mod split;
mod unpack;
pub mod vmware;
mod write;

pub use self::{
    container::Container,
    detect::{Compression, Format},
    image::{PackedImage, ParseOptions, ParsedImage},
    input::{BytesInput, FileInput, ReadAt},
    open::{Snapshot, open, open_bytes},
    options::{OnProgress, OpenOptions, Progress},
    plugin::Plugin,
    raw::{MemoryLayout, raw_layouts},
    write::{Copied, DumpCompression, DumpFormat, Gaps, Sink, WriteOptions, Written, write},
};

//! Bytes that hold physical memory: a mapped file, a file read by position, a buffer.
//!
//! Connectors parse a format into a [`RunMap`](super::RunMap) and [`TargetFacts`](super::TargetFacts) and hand both to one of these.
//!
//! | source | when |
//! |---|---|
//! | [`MappedMemory`] | a regular file that this system can map; the fastest by far |
//! | `MappedParts` | parts of several such files, on Unix |
//! | [`FileMemory`] | a file that cannot be mapped (a device, a 32-bit host, a file system without mappings) |
//! | [`PositionedMemory`] | bytes that are unpacked as they are asked for |
//! | [`BufferMemory`] | bytes that were unpacked into memory |

mod buffer;
#[cfg(unix)]
mod bus_guard;
mod extents;
mod mmap;
mod page_buffer;
#[cfg(unix)]
mod parts;
mod positioned;

use std::sync::Arc;

#[cfg(unix)]
pub use self::parts::{FilePart, MappedParts};
pub use self::{
    buffer::{BufferMemory, OwnedBytes},
    mmap::{MapMode, MappedMemory},
    page_buffer::PageBuffer,
    positioned::{ByteSource, FileMemory, PositionedMemory},
};
use super::{RunMap, TargetFacts};

/// What a connector found out about the bytes before it hands them to a source.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// The connector and its target, for messages.
    pub name: Arc<str>,
    /// Which physical addresses the bytes hold; offsets are into the file or buffer.
    pub runs: RunMap,
    /// What the target knows about itself.
    pub facts: TargetFacts,
}

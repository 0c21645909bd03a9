//! What libvirt puts before the state of a domain that it saves: `virsh save`, `virsh managedsave`.
//!
//! Owns: the header, and where QEMU's migration stream begins. Must not know: that stream, files.
//!
//! Source: libvirt, `src/qemu/qemu_saveimage.h` (`virQEMUSaveHeader`) and `qemu_saveimage.c`: a magic of 16 bytes, then numbers of 32 bits as
//! the host has them, then the domain's XML and padding, then what QEMU wrote, through a compressor if one was asked for.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{io, path::Path, sync::Arc};

use memflow_core::{Error, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian::U32};

use crate::input::{ReadAt, View};

/// The first bytes.
pub(crate) const MAGIC: &[u8] = b"LibvirtQemudSave";
/// The first bytes while the file is being written.
pub(crate) const MAGIC_OF_PART: &[u8] = b"LibvirtQemudPart";
/// Newest version that is known.
const VERSION: u32 = 2;
const HEADER: u64 = 92;

/// `virQEMUSaveHeader`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 16],
    version: U32,
    /// Length of the XML and what follows it.
    data_len: U32,
    was_running: U32,
    format: U32,
    cookie_offset: U32,
    unused: [U32; 14],
}

/// Where QEMU's stream begins, and the name of what it is compressed with.
///
/// # Errors
/// [`Error::Unsupported`] for other versions and other hosts; [`Error::Format`] for a header that leaves the file; [`Error::Io`] when the
/// input cannot be read.
pub(crate) fn stream(input: &dyn ReadAt) -> Result<(u64, &'static str)> {
    let view = View::new(input, "libvirt save file");
    let header: Header = view.read(0, "the header")?;
    let unsupported = |what: &str, why: &str| {
        Err(Error::Unsupported { what: format!("{}: {what}", view.path().display()), why: why.to_owned() })
    };
    if header.magic == MAGIC_OF_PART {
        return unsupported(
            "a libvirt save file that was not finished",
            "libvirt marks it so until all is written; save the domain again",
        );
    }
    let version = header.version.get();
    if version == 0 || version > VERSION {
        return unsupported(
            &format!("a libvirt save file of version {version}"),
            "versions 1 and 2 of little-endian hosts are known; restore the domain and use `virsh dump --memory-only`",
        );
    }
    let start = HEADER.saturating_add(header.data_len.get().into());
    if start >= view.size() {
        return Err(view.ends_early(HEADER, header.data_len.get().into(), "the domain's XML, and a stream"));
    }
    let compression = match header.format.get() {
        0 => "raw",
        1 => "gzip",
        2 => "bzip2",
        3 => "xz",
        4 => "lzop",
        5 => "zstd",
        6 => "sparse",
        _ => "unknown",
    };
    Ok((start, compression))
}

/// What an input holds from some offset on.
pub(crate) struct Tail {
    input: Arc<dyn ReadAt>,
    start: u64,
}

impl Tail {
    /// The bytes of `input` from `start` on.
    pub(crate) fn new(input: Arc<dyn ReadAt>, start: u64) -> Self {
        Self { input, start }
    }
}

impl ReadAt for Tail {
    fn path(&self) -> &Path {
        self.input.path()
    }

    fn size(&self) -> u64 {
        self.input.size().saturating_sub(self.start)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self.start.checked_add(offset) {
            Some(at) => self.input.read_at(at, buf),
            None => Ok(0),
        }
    }
}

//! What a file is, from its first bytes.
//!
//! Owns: [`Format`], [`Compression`], and the table of formats that are known by sight but not read here.
//! Must not know: how formats are parsed, file names.
//! Keeps: only magic numbers that no machine has at physical address zero; what is in no table is a raw image.
//! Source: the magic numbers of each format's own documentation, named in the table.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::fmt;

use memflow_core::{Error, Result};

use crate::{
    container::{Container, MAGIC},
    flattened,
    input::{ReadAt, View},
    libvirt, vmware,
};

/// How a file is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Compression {
    /// gzip (RFC 1952), BGZF too.
    Gzip,
    /// LZ4, in frames of either kind.
    Lz4,
    /// xz.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// What a file turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// How memory is laid out.
    pub container: Container,
    /// What it was unpacked from, if anything.
    pub compression: Option<Compression>,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.compression {
            Some(compression) => write!(f, "{}, {compression}-compressed", self.container),
            None => self.container.fmt(f),
        }
    }
}

/// What the first bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detected {
    Compressed(Compression),
    /// A container in pieces that have to be put in order.
    Flattened,
    /// What belongs to memory that may lie beside it.
    VmwareState,
    /// A migration stream behind a header.
    LibvirtSave,
    Container(Container),
}

/// A format that is recognised so that it is not taken for a raw image.
struct Foreign {
    magic: &'static [u8],
    name: &'static str,
    way_out: &'static str,
}

const HIBERNATED: &str = "a Windows hibernation file";
/// Windows changes the mark when it has restored memory from the file.
const AWAKE: &str = "a Windows hibernation file whose machine has woken up";
const HIBERNATE_AGAIN: &str =
    "its content may be gone; hibernate the machine again and copy the file before it wakes up";
const TO_RAW: &str = "convert it to a raw image, for instance with volatility's layerwriter";

/// Each with a way out: the tool that converts it, or what to open instead.
const FOREIGN: &[Foreign] = &[
    Foreign {
        magic: b"MDMP",
        name: "a Windows minidump, of a single process",
        way_out: "a memory image of the whole machine is needed",
    },
    Foreign { magic: b"HIBR", name: HIBERNATED, way_out: TO_RAW },
    Foreign { magic: b"hibr", name: HIBERNATED, way_out: TO_RAW },
    Foreign { magic: b"RSTR", name: HIBERNATED, way_out: TO_RAW },
    Foreign { magic: b"WAKE", name: AWAKE, way_out: HIBERNATE_AGAIN },
    Foreign { magic: b"wake", name: AWAKE, way_out: HIBERNATE_AGAIN },
    Foreign {
        magic: b"\x14\x20\x28\x01",
        name: "a saved state of Hyper-V (.vmrs)",
        way_out: "LeechCore reads it on Windows, also through the connector `pcileech`",
    },
    Foreign {
        magic: b"QFI\xfb",
        name: "a qcow2 disk image",
        way_out: "a memory image is needed, not a disk; if `savevm` put a snapshot with memory in it (`qemu-img snapshot -l`), start the \
                  machine with `-S -loadvm TAG` and write an ELF core with `dump-guest-memory`",
    },
    Foreign { magic: b"BZh", name: "a bzip2-compressed file", way_out: "unpack it with `bzip2 -d`" },
    Foreign { magic: b"PK\x03\x04", name: "a zip archive", way_out: "unpack it with `unzip`" },
    Foreign { magic: b"7z\xbc\xaf\x27\x1c", name: "a 7z archive", way_out: "unpack it with `7z x`" },
];

/// First four bytes of a Zstandard frame, little-endian.
pub(crate) const ZSTD_MAGIC: u32 = 0xfd2f_b528;
/// First four bytes of a skippable frame, without the lowest four bits.
pub(crate) const ZSTD_SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
/// First bytes of a gzip member: magic and the only method there is.
pub(crate) const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// First four bytes of an LZ4 frame, little-endian.
pub(crate) const LZ4_MAGIC: u32 = 0x184d_2204;
/// The same of the older kind.
pub(crate) const LZ4_LEGACY_MAGIC: u32 = 0x184c_2102;
/// First bytes of an xz stream.
pub(crate) const XZ_MAGIC: [u8; 6] = *b"\xfd7zXZ\0";

/// Tells what an input is.
///
/// # Errors
/// [`Error::File`] for an empty one, [`Error::Unsupported`] for formats known by sight.
pub(crate) fn detect(input: &dyn ReadAt) -> Result<Detected> {
    if input.size() == 0 {
        return Err(Error::File {
            path: input.path().to_owned(),
            problem: "is empty; was it copied completely?".into(),
        });
    }
    let mut head = [0; 16];
    let len = input.size().min(16);
    let head = usize::try_from(len).ok().and_then(|len| head.get_mut(..len)).unwrap_or_default();
    View::new(input, "memory image").fill(0, head, "memory image")?;
    let head = &*head;
    if let Some((_, container)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Ok(Detected::Container(*container));
    }
    if head.starts_with(flattened::MAGIC) {
        return Ok(Detected::Flattened);
    }
    if vmware::MAGIC.iter().any(|magic| head.starts_with(magic)) {
        return Ok(Detected::VmwareState);
    }
    if [libvirt::MAGIC, libvirt::MAGIC_OF_PART].contains(&head) {
        return Ok(Detected::LibvirtSave);
    }
    if head.starts_with(&GZIP_MAGIC) {
        return Ok(Detected::Compressed(Compression::Gzip));
    }
    let first = head.first_chunk().copied().map(u32::from_le_bytes);
    if first.is_some_and(|first| first == ZSTD_MAGIC || first & !0xf == ZSTD_SKIPPABLE_MAGIC) {
        return Ok(Detected::Compressed(Compression::Zstd));
    }
    if first.is_some_and(|first| first == LZ4_MAGIC || first == LZ4_LEGACY_MAGIC) {
        return Ok(Detected::Compressed(Compression::Lz4));
    }
    if head.starts_with(&XZ_MAGIC) {
        return Ok(Detected::Compressed(Compression::Xz));
    }
    match FOREIGN.iter().find(|foreign| head.starts_with(foreign.magic)) {
        Some(Foreign { name, way_out, .. }) => Err(Error::Unsupported {
            what: format!("{}: {name}", input.path().display()),
            why: format!("it cannot be read as it is; {way_out}"),
        }),
        None => Ok(Detected::Container(Container::Raw)),
    }
}

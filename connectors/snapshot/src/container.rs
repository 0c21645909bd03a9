//! The formats that hold memory: their names, how they are told, and who reads each.
//!
//! Owns: [`Container`], the one table of formats. Must not know: files, how any format is read.
//! Keeps: only magic numbers that no machine has at physical address zero; what is in no table is a raw image.

use std::{fmt, sync::Arc};

use memflow_core::Result;

use crate::{
    avml, crash_dump, elf,
    image::{PackedImage, ParseOptions, ParsedImage},
    input::ReadAt,
    kdump, lime, migration,
};

/// How memory is laid out in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Container {
    /// Bytes of memory and nothing else.
    Raw,
    /// LiME, version 1.
    Lime,
    /// AVML, which calls itself version 2 of LiME: compressed with snappy.
    Avml,
    /// kdump-compressed, by makedumpfile or QEMU.
    Kdump,
    /// A crash dump of Windows.
    CrashDump,
    /// Memory of VMware, laid out as the state beside or around it says.
    Vmware,
    /// An ELF core of a machine.
    ElfCore,
    /// A migration stream of QEMU, also one that libvirt saved.
    Migration,
}

/// Reads a container whose memory lies in it as it is.
pub(crate) type PlainParser = fn(&dyn ReadAt, ParseOptions) -> Result<ParsedImage>;
/// Reads the index of a container whose memory is compressed piece by piece.
pub(crate) type PackedParser = fn(Arc<dyn ReadAt>, ParseOptions) -> Result<PackedImage>;

/// The first bytes of each container.
pub(crate) const MAGIC: &[(&[u8], Container)] = &[
    (b"\x7fELF", Container::ElfCore),
    (b"EMiL", Container::Lime),
    (b"AVML", Container::Avml),
    (b"KDUMP   ", Container::Kdump),
    (b"DISKDUMP", Container::Kdump),
    (b"PAGEDU64", Container::CrashDump),
    (b"PAGEDUMP", Container::CrashDump),
    (b"QEVM", Container::Migration),
];

impl Container {
    /// Who reads it, if its memory lies in it as it is; a raw image is read by nobody.
    pub(crate) fn plain(self) -> Option<PlainParser> {
        match self {
            Self::Lime => Some(lime::parse),
            Self::CrashDump => Some(crash_dump::parse),
            Self::ElfCore => Some(elf::parse),
            Self::Raw | Self::Vmware | Self::Avml | Self::Kdump | Self::Migration => None,
        }
    }

    /// Who reads it, if its memory is compressed piece by piece.
    pub(crate) fn packed(self) -> Option<PackedParser> {
        match self {
            Self::Avml => Some(avml::parse),
            Self::Kdump => Some(kdump::parse),
            Self::Migration => Some(migration::parse),
            Self::Raw | Self::Vmware | Self::Lime | Self::CrashDump | Self::ElfCore => None,
        }
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Lime => "LiME",
            Self::Avml => "AVML",
            Self::Kdump => "kdump",
            Self::CrashDump => "Windows crash dump",
            Self::Vmware => "VMware memory",
            Self::ElfCore => "ELF core",
            Self::Migration => "QEMU migration stream",
        })
    }
}

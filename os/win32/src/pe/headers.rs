//! The headers of an image: what it is, its size, its sections and directories.
//!
//! Owns: [`Image`], parsed from the first page of an image in memory. Must not know: what the directories hold.
//! Keeps: nothing of the header is believed that does not fit the header's own page and the size the image claims; a damaged header
//! is no image.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{MemoryView, MemoryViewExt, Result, VirtAddr, error::Error};

use crate::bytes::{Bytes, index};

/// The part of an image that holds its headers.
const PAGE: u64 = 0x1000;
/// More sections than the loader takes.
const MAX_SECTIONS: u16 = 96;
/// Largest image that the loader takes.
const MAX_IMAGE: u32 = 0x7fff_ffff;

/// A section of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// Its name, at most eight bytes.
    pub name: String,
    /// Distance from the start of the image, in bytes.
    pub offset: u32,
    /// Bytes in memory.
    pub size: u32,
    /// Its characteristics, as in the header.
    pub flags: u32,
}

impl Section {
    /// Whether the section may be written to.
    pub fn is_writable(&self) -> bool {
        self.flags & 0x8000_0000 != 0
    }
}

/// The headers of an image in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Image {
    /// Where it starts.
    pub(crate) base: VirtAddr,
    /// Bytes that it takes in memory, by its own word.
    pub(crate) size: u32,
    /// The machine it is for (`IMAGE_FILE_MACHINE`).
    pub(crate) machine: u16,
    /// Its time stamp, which newer linkers fill with a hash.
    pub(crate) timestamp: u32,
    /// Its sections.
    pub(crate) sections: Vec<Section>,
    directories: Vec<(u32, u32)>,
}

/// The directory of exports.
pub(super) const EXPORTS: usize = 0;
/// The directory of imports.
pub(super) const IMPORTS: usize = 1;
/// The directory of resources.
pub(super) const RESOURCES: usize = 2;
/// The directory of debug information.
pub(super) const DEBUG: usize = 6;

impl Image {
    /// Reads the headers of the image at `base`.
    ///
    /// # Errors
    /// When the first page cannot be read or holds no headers.
    pub(crate) fn read(view: &dyn MemoryView, base: VirtAddr) -> Result<Self> {
        let mut page = [0; 0x1000];
        view.read_into(base, &mut page)?;
        Self::parse(base, &page).ok_or_else(|| Error::Corrupt {
            what: "image",
            address: base.into(),
            expected: "headers of a Windows image (MZ, PE)".into(),
            found: format!("{:02x?}", page.first_chunk::<4>().unwrap_or(&[0; 4])).into(),
        })
    }

    /// Parses the first page of an image.
    pub(crate) fn parse(base: VirtAddr, page: &[u8]) -> Option<Self> {
        let bytes = Bytes(page);
        if bytes.array(0)? != *b"MZ" {
            return None;
        }
        let at = u64::from(bytes.u32(0x3c)?);
        let field = |offset: u64| at.checked_add(offset);
        if at >= PAGE || bytes.array(at)? != *b"PE\0\0" {
            return None;
        }
        let sections = bytes.u16(field(6)?)?;
        let optional = field(24)?;
        let magic = bytes.u16(optional)?;
        let (directories, section_table) = match magic {
            0x20b => (112, bytes.u16(field(20)?)?),
            0x10b => (96, bytes.u16(field(20)?)?),
            _ => return None,
        };
        let size = bytes.u32(optional.checked_add(56)?)?;
        if sections == 0 || sections > MAX_SECTIONS || u64::from(size) < PAGE || size > MAX_IMAGE {
            return None;
        }
        let directories = optional.checked_add(directories)?;
        let count = bytes.u32(directories.checked_sub(4)?)?.min(16);
        let directory = |number: u32| {
            let at = directories.checked_add(u64::from(number).checked_mul(8)?)?;
            let (start, len) = (bytes.u32(at)?, bytes.u32(at.checked_add(4)?)?);
            // What lies outside of the image is none of its own.
            Some(if start.checked_add(len).is_some_and(|end| end <= size) { (start, len) } else { (0, 0) })
        };
        let directories = (0..count).map_while(directory).collect();
        let table = optional.checked_add(section_table.into())?;
        let section = |number: u16| -> Option<Section> {
            let at = table.checked_add(u64::from(number).checked_mul(40)?)?;
            let name: [u8; 8] = bytes.array(at)?;
            let number = |offset: u64| bytes.u32(at.checked_add(offset)?);
            Some(Section {
                name: String::from_utf8_lossy(Bytes(&name).until_zero()).into_owned(),
                size: number(8)?,
                offset: number(12)?,
                flags: number(36)?,
            })
        };
        // A section that starts behind the image is none of it.
        let sections = (0..sections).map_while(section).filter(|one| one.offset < size).collect();
        Some(Self {
            base,
            size,
            machine: bytes.u16(field(4)?)?,
            timestamp: bytes.u32(field(8)?)?,
            sections,
            directories,
        })
    }

    /// Start and length of a directory that the image has.
    pub(super) fn directory(&self, number: usize) -> Option<(u32, u32)> {
        self.directories.get(number).copied().filter(|(start, len)| *start != 0 && *len != 0)
    }

    /// Whether it is for a machine whose pointers have 64 bits.
    pub(crate) fn is_wide(&self) -> bool {
        matches!(self.machine, 0x8664 | 0xaa64)
    }

    /// The address of something in the image.
    pub(crate) fn at(&self, offset: u32) -> VirtAddr {
        self.base.wrapping_add(offset.into())
    }

    /// Whether an address lies in the image.
    pub(crate) fn contains(&self, address: VirtAddr) -> bool {
        address.offset_from(self.base).is_some_and(|offset| offset < self.size.into())
    }

    /// Whether one of the sections has this name.
    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.sections.iter().any(|section| section.name == name)
    }

    /// Reads `len` bytes of the image, less where the image ends before.
    pub(super) fn bytes(&self, view: &dyn MemoryView, offset: u32, len: u32) -> Result<Vec<u8>> {
        let len = len.min(self.size.saturating_sub(offset));
        view.read_bytes(self.at(offset), len.into())
    }

    /// Reads what can be read of a part of the image; what cannot is zero.
    pub(crate) fn readable(&self, view: &dyn MemoryView, section: &Section) -> Vec<u8> {
        let len = section.size.min(self.size.saturating_sub(section.offset)).min(64 << 20);
        let mut bytes = vec![0; index(len.into())];
        // Gaps stay zero.
        let _ = view.read_partial(self.at(section.offset), &mut bytes);
        bytes
    }
}

//! An image in memory: the sections, exports, imports and version resource of a module.
//!
//! Owns: [`LoadedImage`]. Must not know: lists of modules, formats.
//! Keeps: each question reads what it needs of the image, and no more.

use memflow_core::{MemoryView, Result, VirtAddr, os::Listing};

use crate::pe::{self, CodeView, Exports, Image, Import, Section, VersionInfo};

/// Something that an image exports by name.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ImageExport {
    /// Its name.
    pub name: String,
    /// Where it lies; for one that is forwarded, the text that says where to.
    pub address: VirtAddr,
    /// Its number.
    pub ordinal: u32,
    /// It is the export of another image.
    pub forwarded: bool,
}

/// An image in memory whose headers have been read.
pub struct LoadedImage<'a> {
    view: &'a dyn MemoryView,
    image: Image,
}

impl std::fmt::Debug for LoadedImage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoadedImage({}, {:#x} bytes)", self.image.base, self.image.size)
    }
}

impl<'a> LoadedImage<'a> {
    /// The image at `base` of a view.
    pub(crate) fn open(view: &'a dyn MemoryView, base: VirtAddr) -> Result<Self> {
        Ok(Self { image: Image::read(view, base)?, view })
    }

    /// Bytes that it takes in memory, by its own word.
    pub fn size(&self) -> u64 {
        self.image.size.into()
    }

    /// The machine it is for, as the format numbers them: 0x8664 64-bit x86, 0x14c 32-bit x86, 0xaa64 64-bit ARM.
    pub fn machine(&self) -> u16 {
        self.image.machine
    }

    /// Its time stamp, which newer linkers fill with a hash.
    pub fn timestamp(&self) -> u32 {
        self.image.timestamp
    }

    /// Its sections, in the order of its headers.
    pub fn sections(&self) -> &[Section] {
        &self.image.sections
    }

    /// Which file of symbols belongs to it.
    pub fn symbols(&self) -> Option<CodeView> {
        CodeView::read(self.view, &self.image)
    }

    /// What it exports by name.
    ///
    /// # Errors
    /// When the directory of exports or its tables cannot be read; names that cannot be read are counted as a problem.
    pub fn exports(&self) -> Result<Listing<ImageExport>> {
        let exports = Exports::read(self.view, &self.image)?;
        let mut listing = Listing::new();
        listing.items = exports
            .named
            .into_iter()
            .map(|pe::Export { name, address, ordinal, forwarded }| ImageExport { name, address, ordinal, forwarded })
            .collect();
        if exports.unreadable > 0 {
            listing.problems.push(memflow_core::Error::NotFound {
                what: "readable names and places of exports",
                name: format!("{} of {}", exports.unreadable, self.image.base),
            });
        }
        Ok(listing)
    }

    /// What it imports, in the order of its table.
    ///
    /// # Errors
    /// When the directory of imports cannot be read; later problems are in the listing.
    pub fn imports(&self) -> Result<Listing<Import>> {
        pe::imports(self.view, &self.image)
    }

    /// What it says of its version; `None` without such a resource.
    ///
    /// # Errors
    /// When its resources cannot be read, or are damaged.
    pub fn version(&self) -> Result<Option<VersionInfo>> {
        VersionInfo::read(self.view, &self.image)
    }
}

//! The export table of an image.
//!
//! Owns: [`Exports`]: names, ordinals and addresses, and where an export is another image's. Must not know: what is exported.
//! Keeps: counts are believed up to what the directory has room for; a name that cannot be read is left out and counted.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{MemoryView, MemoryViewExt, Result, VirtAddr, error::Error};

use super::headers::{EXPORTS, Image};
use crate::bytes::Bytes;

/// Largest directory of exports that is taken; that of a kernel has some 100 KiB.
const MAX_DIRECTORY: u32 = 16 << 20;
/// Longest name.
const MAX_NAME: usize = 4096;

/// An export with a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) address: VirtAddr,
    /// Its number.
    pub(crate) ordinal: u32,
    /// It is the export of another image (`NTDLL.RtlFree`), whose name stands at the address.
    pub(crate) forwarded: bool,
}

/// The exports of an image.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Exports {
    /// The name the image was linked with.
    pub(crate) image_name: String,
    /// By name, as in the table.
    pub(crate) named: Vec<Export>,
    /// Names that could not be read.
    pub(crate) unreadable: u64,
}

impl Exports {
    /// Reads the export table; an image without one has no exports.
    ///
    /// # Errors
    /// When the directory or its tables cannot be read.
    pub(crate) fn read(view: &dyn MemoryView, image: &Image) -> Result<Self> {
        let Some((start, len)) = image.directory(EXPORTS) else { return Ok(Self::default()) };
        let header = image.bytes(view, start, 40)?;
        let corrupt = || Error::Corrupt {
            what: "export directory",
            address: image.at(start).into(),
            expected: "tables inside the image".into(),
            found: format!("{header:02x?}").into(),
        };
        let field = |at| Bytes(&header).u32(at).ok_or_else(corrupt);
        let (first, functions, names) = (field(16)?, field(20)?, field(24)?);
        // Four bytes for the address of a function, four and two for a name and its number: more does not fit.
        let most = image.size.checked_div(4).unwrap_or_default().min(MAX_DIRECTORY);
        if functions > most || names > most {
            return Err(corrupt());
        }
        let table = |at: u64, count: u32, size: u32| -> Result<Vec<u8>> {
            let len = count.checked_mul(size).ok_or_else(corrupt)?;
            image.bytes(view, field(at)?, len)
        };
        let addresses = table(28, functions, 4)?;
        let (name_table, ordinals) = (table(32, names, 4)?, table(36, names, 2)?);
        let whole = image.bytes(view, start, len.min(MAX_DIRECTORY)).unwrap_or_default();
        let text = |offset: u32| -> Option<String> {
            // Names lie in the directory, where the linker puts them; else they are read one by one.
            let inside = offset.checked_sub(start).and_then(|at| whole.get(usize::try_from(at).ok()?..));
            let bytes = match inside.filter(|rest| memchr::memchr(0, rest).is_some_and(|end| end <= MAX_NAME)) {
                Some(rest) => Bytes(rest).until_zero().to_vec(),
                None if offset < image.size => view.read_c_string(image.at(offset), MAX_NAME).ok()?,
                None => return None,
            };
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let mut exports = Self { image_name: text(field(12)?).unwrap_or_default(), named: Vec::new(), unreadable: 0 };
        for number in 0..u64::from(names) {
            let export = || -> Option<Export> {
                let name = text(Bytes(&name_table).u32(number.checked_mul(4)?)?)?;
                let ordinal = Bytes(&ordinals).u16(number.checked_mul(2)?)?;
                let offset = Bytes(&addresses).u32(u64::from(ordinal).checked_mul(4)?)?;
                let forwarded = offset.checked_sub(start).is_some_and(|inside| inside < len);
                let ordinal = first.wrapping_add(ordinal.into());
                (offset < image.size).then(|| Export { name, address: image.at(offset), ordinal, forwarded })
            };
            match export() {
                Some(export) => exports.named.push(export),
                None => exports.unreadable = exports.unreadable.saturating_add(1),
            }
        }
        Ok(exports)
    }

    /// The address of an export of the image's own.
    pub(crate) fn address_of(&self, name: &str) -> Option<VirtAddr> {
        self.named.iter().find(|export| export.name == name && !export.forwarded).map(|export| export.address)
    }
}

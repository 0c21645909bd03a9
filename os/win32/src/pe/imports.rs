//! The import table of an image: what it takes from which other image, and where the addresses stand.
//!
//! Owns: [`Import`] and the walk of the descriptors. Must not know: where the other images are.
//! Keeps: descriptors and entries are believed up to limits; a name that cannot be read is told and costs itself alone.
//! Source: Microsoft, "PE Format", the import directory.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryView, MemoryViewExt, Result, VirtAddr,
    error::{Error, ResultExt},
    os::Listing,
};

use super::headers::{IMPORTS, Image};
use crate::bytes::Bytes;

/// Bytes of a descriptor.
const DESCRIPTOR: u32 = 20;
/// More images than any one imports from.
const MAX_IMAGES: u32 = 4096;
/// More imports than any image has from one other.
const MAX_IMPORTS: u32 = 1 << 16;
/// Longest name.
const MAX_NAME: usize = 4096;

/// What an image takes from another.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Import {
    /// The other image, by the name it is asked for.
    pub module: String,
    /// Its name there; `None` where it is imported by number.
    pub name: Option<String>,
    /// Its number there, where it is imported by number.
    pub ordinal: Option<u16>,
    /// Where its address stands, once it is loaded.
    pub slot: VirtAddr,
}

/// The imports of an image; one without an import table has none.
///
/// # Errors
/// When the first descriptor cannot be read; later problems are in the listing.
pub(crate) fn imports(view: &dyn MemoryView, image: &Image) -> Result<Listing<Import>> {
    let mut listing = Listing::new();
    let Some((start, _)) = image.directory(IMPORTS) else { return Ok(listing) };
    for number in 0..MAX_IMAGES {
        let at = number.checked_mul(DESCRIPTOR).and_then(|at| at.checked_add(start));
        let Some(descriptor) = at.map(|at| image.bytes(view, at, DESCRIPTOR)) else { break };
        let descriptor = match (descriptor, number) {
            (Ok(descriptor), _) => descriptor,
            (Err(error), 0) => return Err(error.context("import directory")),
            (Err(error), _) => {
                listing.problems.push(error.context("import directory"));
                break;
            }
        };
        let field = |at| Bytes(&descriptor).u32(at).filter(|value| *value != 0);
        let (Some(name), Some(slots)) = (field(12), field(16)) else { break };
        let module = match name_at(view, image, name) {
            Ok(module) => module,
            Err(error) => {
                listing.problems.push(error.context("name of an image that is imported from"));
                continue;
            }
        };
        // Without a table of names, addresses have taken their place.
        match field(0) {
            Some(names) => of_module(view, image, &module, (names, slots), &mut listing),
            None => listing.problems.push(Error::NotFound { what: "names of imports from", name: module }),
        }
    }
    Ok(listing)
}

fn of_module(
    view: &dyn MemoryView,
    image: &Image,
    module: &str,
    (names, slots): (u32, u32),
    listing: &mut Listing<Import>,
) {
    let size: u32 = if image.is_wide() { 8 } else { 4 };
    let width = if image.is_wide() { 8 } else { 4 };
    for number in 0..MAX_IMPORTS {
        let place = |table: u32| number.checked_mul(size).and_then(|at| at.checked_add(table));
        let (Some(at), Some(slot)) = (place(names), place(slots)) else { return };
        let entry = match image.bytes(view, at, size) {
            Ok(entry) => entry,
            Err(error) => {
                listing.problems.push(error.context(format!("imports from {module}")));
                return;
            }
        };
        let Some(entry) = Bytes(&entry).pointer(0, width).filter(|entry| *entry != 0) else { return };
        let by_number = entry >> size.saturating_mul(8).saturating_sub(1) != 0;
        let slot = image.at(slot);
        let module = module.to_owned();
        if by_number {
            let ordinal = u16::try_from(entry & 0xffff).ok();
            listing.items.push(Import { module, name: None, ordinal, slot });
            continue;
        }
        // Before the name stands a hint of two bytes.
        let name = u32::try_from(entry).ok().and_then(|entry| entry.checked_add(2));
        match name.map(|name| name_at(view, image, name)) {
            Some(Ok(name)) => listing.items.push(Import { module, name: Some(name), ordinal: None, slot }),
            Some(Err(error)) => listing.problems.push(error.context(format!("name of an import from {module}"))),
            None => listing.problems.push(Error::Corrupt {
                what: "import",
                address: slot.into(),
                expected: "the place of a name in the image".into(),
                found: format!("{entry:#x}").into(),
            }),
        }
    }
}

/// A name in the image, which is text of single bytes.
fn name_at(view: &dyn MemoryView, image: &Image, at: u32) -> Result<String> {
    let address = image.at(at);
    let corrupt = |found: String| Error::Corrupt {
        what: "name in an image",
        address: address.into(),
        expected: "text inside the image".into(),
        found: found.into(),
    };
    if at >= image.size {
        return Err(corrupt(format!("offset {at:#x} of {:#x}", image.size)));
    }
    let bytes = view.read_c_string(address, MAX_NAME).context(|| "name".into())?;
    if bytes.is_empty() || bytes.iter().any(|byte| !(0x20..0x7f).contains(byte)) {
        return Err(corrupt(format!("{:02x?}", bytes.get(..16).unwrap_or(&bytes))));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

//! The form of an entry of the list of loaded modules.
//!
//! Owns: the one form that there is for each width of pointers, and how it is confirmed. Must not know: processes.
//! Keeps: the form counts when the list's first entry says by it what the kernel's own headers say.
//! Source: `KLDR_DATA_TABLE_ENTRY`, the same since Windows 2000 as far as it is used here.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use crate::{kernel::Kernel, offsets::Layout, reader::Reader};

const FROM: &str = "the kernel's own entry in the list of loaded modules";

/// Adds what is found.
pub(super) fn members(kernel: &Kernel, layout: &mut Layout) {
    let reader = Reader::new(&kernel.view);
    let first = kernel.loaded_modules().ok().and_then(|head| Some(reader.links(head).ok()?.0));
    let (Some(first), Some(image)) = (first, &kernel.image) else { return };
    let form = if reader.is_wide() {
        [("DllBase", 0x30), ("EntryPoint", 0x38), ("SizeOfImage", 0x40), ("FullDllName", 0x48), ("BaseDllName", 0x58)]
    } else {
        [("DllBase", 0x18), ("EntryPoint", 0x1c), ("SizeOfImage", 0x20), ("FullDllName", 0x24), ("BaseDllName", 0x2c)]
    };
    let [(_, base), (_, entry), (_, size), _, (_, name)] = form;
    let same_base = reader.pointer(first, base).is_ok_and(|base| base == image.base);
    let same_size = reader.value::<u32>(first, size).is_ok_and(|size| size == image.size);
    let starts_inside = reader.pointer(first, entry).is_ok_and(|at| at.is_null() || image.contains(at));
    let has_name = reader.unicode_string(first, name).is_ok_and(|name| name.to_ascii_lowercase().ends_with(".exe"));
    if same_base && same_size && starts_inside && has_name {
        for (member, offset) in form {
            layout.add(format!("_KLDR_DATA_TABLE_ENTRY.{member}"), offset, FROM);
        }
    }
}

//! The kernel's list of loaded modules.
//!
//! Owns: where members of an entry lie, and how the list is found where nothing names it. Must not know: images.
//! Keeps: an entry that is no image's is a problem, not a module.
//! Source: `KLDR_DATA_TABLE_ENTRY`; the same since Windows 2000 as far as it is used here.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryView, PageSize, VirtAddr,
    error::{Error, Result, ResultExt},
    os::{Listing, ModuleInfo},
};

use crate::{list, pe::Image, reader::Reader};

/// More modules than any system loads.
const MAX_MODULES: u64 = 1 << 14;
/// Largest image that the loader takes.
const MAX_IMAGE: u32 = 0x7fff_ffff;

/// Who told of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// The kernel's list.
    Kernel,
    /// The loader's list of a process, for code of the system's width.
    Loader,
    /// The loader's list for 32-bit code on x64.
    NarrowLoader,
    /// A mapped image that no list has: a list is damaged, or the module was taken out.
    Region,
}

/// A module, with the path of its file.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LoadedModule {
    /// Address of the entry in the list (of the region, if no list has it), base, size and name.
    pub info: ModuleInfo,
    /// Path of its file, as the list has it (`\SystemRoot\system32\ntoskrnl.exe`); without a volume, if no list has it. `None` where it
    /// cannot be read.
    pub path: Option<String>,
    /// Where its code is entered, if anywhere.
    pub entry_point: Option<VirtAddr>,
    /// Who told of it.
    pub origin: Origin,
}

/// Offsets in an entry: base, size, path, name.
fn offsets(reader: &Reader<'_>) -> [u64; 4] {
    if reader.is_wide() { [0x30, 0x40, 0x48, 0x58] } else { [0x18, 0x20, 0x24, 0x2c] }
}

/// The modules of the list at `head`: the kernel's, or a loader's in a process, whose entries are the same as far as they are read.
pub(crate) fn modules(reader: Reader<'_>, what: &'static str, head: VirtAddr, origin: Origin) -> Listing<LoadedModule> {
    let nodes = list::nodes(reader, what, head, MAX_MODULES);
    let mut listing = Listing { items: Vec::new(), problems: nodes.problems };
    for entry in nodes.items {
        match module(&reader, entry, origin) {
            Ok(module) => listing.items.push(module),
            Err(error) => listing.problems.push(error.context(format!("module entry at {entry}"))),
        }
    }
    listing
}

fn module(reader: &Reader<'_>, entry: VirtAddr, origin: Origin) -> Result<LoadedModule> {
    let [base_at, size_at, path_at, name_at] = offsets(reader);
    let base = reader.pointer(entry, base_at)?;
    let size: u32 = reader.value(entry, size_at)?;
    if !base.is_page_aligned(PageSize::KIB_4) || base.is_null() || size == 0 || size > MAX_IMAGE {
        return Err(Error::Corrupt {
            what: "loaded module",
            address: entry.into(),
            expected: "the base and size of an image".into(),
            found: format!("base {base}, size {size:#x}").into(),
        });
    }
    let path = reader.unicode_string(entry, path_at).context(|| "path".into());
    // The path ends with the name. One of the two may lie in memory that is paged out.
    let name = match (reader.unicode_string(entry, name_at), &path) {
        (Ok(name), _) => name,
        (Err(_), Ok(path)) => path.rsplit('\\').next().unwrap_or_default().to_owned(),
        (Err(error), Err(_)) => return Err(error.context("name")),
    };
    let info = ModuleInfo::new(entry, base, size.into(), name);
    // Between base and size.
    let entry_point = reader.pointer(entry, base_at.saturating_add(reader.pointer_size())).ok();
    let entry_point = entry_point.filter(|address| address.offset_from(base).is_some_and(|at| at < size.into()));
    Ok(LoadedModule { info, path: path.ok(), entry_point, origin })
}

/// The list's head, looked for in the kernel's data: two links, the first of which leads to the kernel's own entry and back.
pub(crate) fn find_head(view: &dyn MemoryView, image: &Image) -> Option<VirtAddr> {
    let reader = Reader::new(view);
    let [base_at, ..] = offsets(&reader);
    let size = reader.pointer_size();
    image.sections.iter().filter(|section| section.is_writable()).find_map(|section| {
        let bytes = image.readable(view, section);
        let start = image.at(section.offset);
        let mut at = 0u64;
        while let Some(next) = crate::bytes::Bytes(&bytes).pointer(at, u8::try_from(size).ok()?) {
            let head = start.wrapping_add(at);
            let next = VirtAddr::new(next);
            if reader.is_kernel(next)
                && !image.contains(next)
                && reader.pointer(next, base_at).is_ok_and(|base| base == image.base)
                && reader.links(next).is_ok_and(|(_, back)| back == head)
            {
                return Some(head);
            }
            at = at.checked_add(size)?;
        }
        None
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;
    use crate::testing::Memory;

    const HEAD: u64 = 0xffff_f800_0000_1000;
    const ENTRY: u64 = 0xffff_a000_0000_1000;

    fn memory() -> Memory {
        let mut memory = Memory::default();
        for (number, name) in [(0, "ntoskrnl.exe"), (1, "hal.dll")] {
            let at = ENTRY + number * 0x1000;
            memory.put_u64(at + 0x30, 0xffff_f800_1000_0000 + number * 0x1000_0000).put_u64(at + 0x40, 0xa7_1000);
            memory.put_string(at + 0x48, at + 0x200, &format!("\\SystemRoot\\system32\\{name}"));
            memory.put_string(at + 0x58, at + 0x300, name);
        }
        memory.ring(&[HEAD, ENTRY, ENTRY + 0x1000]);
        memory
    }

    #[test]
    fn modules_come_in_load_order_with_paths() {
        let listing = modules(Reader::new(&memory()), "modules", VirtAddr::new(HEAD), Origin::Kernel);
        let seen: Vec<_> =
            listing.items.iter().map(|one| (&*one.info.name, one.path.as_deref().unwrap(), one.info.size)).collect();
        assert_eq!(seen[1], ("hal.dll", "\\SystemRoot\\system32\\hal.dll", 0xa7_1000));
        assert!(listing.problems.is_empty() && seen.len() == 2);
    }

    #[test]
    fn name_is_taken_from_the_path_and_nonsense_is_a_problem() {
        let mut damaged = memory();
        damaged.remove(ENTRY + 0x300, 0x40);
        let listing = modules(Reader::new(&damaged), "modules", VirtAddr::new(HEAD), Origin::Kernel);
        assert_eq!(listing.items[0].info.name, "ntoskrnl.exe");
        damaged.put_u64(ENTRY + 0x30, 0x1234);
        let listing = modules(Reader::new(&damaged), "modules", VirtAddr::new(HEAD), Origin::Kernel);
        assert_eq!((listing.items.len(), listing.problems.len()), (1, 1));
        damaged = memory();
        damaged.put(ENTRY + 0x1048, &[0xff, 0xff, 2, 0]).put(ENTRY + 0x1058, &[1, 0, 4, 0]);
        let listing = modules(Reader::new(&damaged), "modules", VirtAddr::new(HEAD), Origin::Kernel);
        assert!(listing.problems[0].to_string().contains("UNICODE_STRING"), "{:?}", listing.problems);
    }
}

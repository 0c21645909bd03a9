//! Regions of a process' address space: the tree of address descriptors (`_MMVAD`).
//!
//! Owns: both forms of the tree, the walk, and what a descriptor says. Must not know: processes.
//! Keeps: a node lies between its ancestors and comes up once, so a tree that loops ends; a node that is damaged costs itself and what
//! is below it, and is told, as is one that names another above it than the one that leads to it.
//! Source: `_MMVAD_SHORT`, `_MMVAD`, `_SUBSECTION`, `_CONTROL_AREA`, `_FILE_OBJECT` in the kernel's symbols. Since Windows 8.1 the tree
//! is an `RTL_AVL_TREE`, whose root is a pointer; before, an `MM_AVL_TABLE`, whose first node holds the root as its right child.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::HashSet;

use memflow_core::{
    MemoryView, VirtAddr, VirtRange,
    error::{Error, Result},
    os::{Listing, MemoryRegion, Permissions, RegionKind},
};

use crate::{offsets::Layout, reader::Reader, structure::Structure};

/// More regions than any process has.
const MAX_REGIONS: usize = 1 << 20;
/// Bytes of a descriptor that are read.
const NODE_LEN: u64 = 0x80;
/// Bits of an address inside a page.
const PAGE_SHIFT: u32 = 12;
/// A page table entry of x64.
const ENTRY: u64 = 8;
/// The type of a region that holds an image.
const IMAGE: u64 = 2;

/// A region, with what only Windows knows of it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Vad {
    /// The descriptor.
    pub address: VirtAddr,
    /// Addresses, permissions and file.
    pub region: MemoryRegion,
    /// Its protection, as Windows numbers them (`MM_READWRITE` 4).
    pub protection: u8,
    /// Its type (0 none, 1 device, 2 image, 3 AWE, 4 write watch, 5 large pages, 6 rotating, 7 section of large pages).
    pub kind: u8,
    /// Memory of the process alone.
    pub private: bool,
    /// Of memory that may be shared: addresses of the prototypes of the first page and of the last one in the same array.
    pub(crate) prototypes: Option<(VirtAddr, VirtAddr)>,
}

impl Vad {
    /// Whether the region holds an image.
    pub fn is_image(&self) -> bool {
        u64::from(self.kind) == IMAGE
    }
}

/// A field of some bits.
#[derive(Clone, Copy, Debug)]
struct Bits {
    first: u64,
    count: u64,
}

impl Bits {
    fn of(layout: &Layout, member: &'static str) -> Result<Self> {
        let missing = || Error::NotFound { what: "known offset of", name: format!("_MMVAD_FLAGS.{member}") };
        let first = layout.find(&format!("_MMVAD_FLAGS.{member}@bit")).ok_or_else(missing)?;
        let count = layout.find(&format!("_MMVAD_FLAGS.{member}@bits")).ok_or_else(missing)?;
        if first > 63 || count == 0 || count > 63 {
            return Err(missing());
        }
        Ok(Self { first, count })
    }

    fn get(self, flags: u64) -> u64 {
        let shifted = flags.checked_shr(u32::try_from(self.first).unwrap_or(u32::MAX)).unwrap_or_default();
        let mask = 1u64.checked_shl(u32::try_from(self.count).unwrap_or(u32::MAX)).unwrap_or_default().wrapping_sub(1);
        shifted & mask
    }
}

/// Offsets in a descriptor, of this kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VadLayout {
    root: u64,
    /// Since Windows 8.1: numbers of pages have 32 bits, on 64-bit systems some more elsewhere.
    split: bool,
    start: u64,
    end: u64,
    start_high: Option<u64>,
    end_high: Option<u64>,
    flags: u64,
    kind: Bits,
    protection: Bits,
    private: Bits,
    subsection: u64,
    first_prototype: Option<u64>,
    last_prototype: Option<u64>,
    control_area: u64,
    file: u64,
    file_name: u64,
}

impl VadLayout {
    /// # Errors
    /// [`Error::NotFound`] for a member that is not known of this kernel.
    pub(crate) fn new(layout: &Layout) -> Result<Self> {
        let (start, end) = (layout.get("_MMVAD_SHORT.StartingVpn")?, layout.get("_MMVAD_SHORT.EndingVpn")?);
        let flags = layout.get("_MMVAD_SHORT.u")?;
        Ok(Self {
            root: layout.get("_EPROCESS.VadRoot")?,
            // In the older form, flags follow the last page's number, which is as wide as a pointer.
            split: flags.wrapping_sub(end) > 8,
            start,
            end,
            start_high: layout.find("_MMVAD_SHORT.StartingVpnHigh"),
            end_high: layout.find("_MMVAD_SHORT.EndingVpnHigh"),
            flags,
            kind: Bits::of(layout, "VadType")?,
            protection: Bits::of(layout, "Protection")?,
            private: Bits::of(layout, "PrivateMemory")?,
            subsection: layout.get("_MMVAD.Subsection")?,
            first_prototype: layout.find("_MMVAD.FirstPrototypePte"),
            last_prototype: layout.find("_MMVAD.LastContiguousPte"),
            control_area: layout.get("_SUBSECTION.ControlArea")?,
            file: layout.get("_CONTROL_AREA.FilePointer")?,
            file_name: layout.get("_FILE_OBJECT.FileName")?,
        })
    }
}

/// A node as read.
struct Node {
    structure: Structure,
    left: VirtAddr,
    right: VirtAddr,
    parent: VirtAddr,
    /// First and last page.
    pages: (u64, u64),
}

/// What is left to do of a walk in order.
enum Step {
    /// Go down at a node below another, whose pages lie between these.
    Down(VirtAddr, Option<VirtAddr>, u64, u64),
    /// Give out a node.
    Out(Node),
}

/// The regions of the process at `process`, by address.
///
/// # Errors
/// When the root cannot be read; what is wrong with nodes is in the listing.
pub(crate) fn regions(view: &dyn MemoryView, layout: &VadLayout, process: VirtAddr) -> Result<Listing<Vad>> {
    let reader = Reader::new(view);
    // Before 8.1 the root stands where the right child of a node does.
    let right_child = reader.pointer_size().saturating_mul(2);
    let root = reader.pointer(process, layout.root.saturating_add(if layout.split { 0 } else { right_child }))?;
    let mut listing = Listing::new();
    let mut seen = HashSet::new();
    let mut steps = vec![Step::Down(root, None, 0, reader.behind_user().wrapping_sub(1) >> PAGE_SHIFT)];
    while let Some(step) = steps.pop() {
        match step {
            Step::Out(node) => match vad(&reader, layout, &node) {
                Ok((vad, problem)) => {
                    listing.items.push(vad);
                    listing.problems.extend(problem);
                }
                Err(error) => listing.problems.push(error),
            },
            Step::Down(at, ..) if at.is_null() => {}
            Step::Down(at, above, low, high) => {
                if !seen.insert(at) {
                    let entries = crate::bytes::number(seen.len());
                    listing.problems.push(Error::Cycle { what: "tree of regions", address: at.into(), entries });
                    continue;
                }
                if seen.len() > MAX_REGIONS {
                    let limit = crate::bytes::number(MAX_REGIONS);
                    listing.problems.push(Error::Limit { what: "tree of regions", address: root.into(), limit });
                    break;
                }
                match node(&reader, layout, at, low, high) {
                    Ok(node) => {
                        let (first, last) = node.pages;
                        let (left, right) = (node.left, node.right);
                        if above.is_some_and(|above| above != node.parent) {
                            listing.problems.push(Error::Corrupt {
                                what: "tree of regions",
                                address: at.into(),
                                expected: "a node that names the one above it".into(),
                                found: node.parent.to_string().into(),
                            });
                        }
                        // The stack gives back last what is put on it first.
                        steps.push(Step::Down(right, Some(at), last.saturating_add(1), high));
                        steps.push(Step::Out(node));
                        if let Some(before) = first.checked_sub(1) {
                            steps.push(Step::Down(left, Some(at), low, before));
                        }
                    }
                    Err(error) => listing.problems.push(error.context("region")),
                }
            }
        }
    }
    Ok(listing)
}

/// Reads the node at an address, whose pages must lie between those of its ancestors.
fn node(reader: &Reader<'_>, layout: &VadLayout, at: VirtAddr, low: u64, high: u64) -> Result<Node> {
    let corrupt = |expected: &'static str, found: String| Error::Corrupt {
        what: "node of the tree of regions",
        address: at.into(),
        expected: expected.into(),
        found: found.into(),
    };
    if !reader.is_kernel(at) {
        return Err(corrupt("an address of the kernel", at.to_string()));
    }
    let structure = Structure::read(reader.view(), at, NODE_LEN)?;
    let size = reader.pointer_size();
    // A balanced node holds its children first; the older one its parent.
    let two = size.saturating_mul(2);
    let (left_at, right_at, parent_at) = if layout.split { (0, size, two) } else { (size, two, 0) };
    let page = |low: u64, high: Option<u64>| -> Result<u64> {
        if !layout.split {
            return structure.word(low);
        }
        let high = match high {
            Some(high) => structure.slice(high, 1)?.first().copied().unwrap_or_default(),
            None => 0,
        };
        Ok(u64::from(structure.u32(low)?) | u64::from(high) << 32)
    };
    let pages = (page(layout.start, layout.start_high)?, page(layout.end, layout.end_high)?);
    let (first, last) = pages;
    if first > last || first < low || last > high {
        return Err(corrupt("pages between those of the nodes above", format!("pages {first:#x} to {last:#x}")));
    }
    let (left, right) = (structure.pointer(left_at)?, structure.pointer(right_at)?);
    // The low bits say which side is longer.
    let parent = VirtAddr::new(structure.pointer(parent_at)?.as_u64() & !3);
    Ok(Node { structure, left, right, parent, pages })
}

/// What a node says; with it, why the name of its file cannot be told.
fn vad(reader: &Reader<'_>, layout: &VadLayout, node: &Node) -> Result<(Vad, Option<Error>)> {
    let at = node.structure.at();
    let flags =
        if layout.split { u64::from(node.structure.u32(layout.flags)?) } else { node.structure.word(layout.flags)? };
    let protection = layout.protection.get(flags);
    let (kind, private) = (layout.kind.get(flags), layout.private.get(flags) != 0);
    let (first, last) = node.pages;
    let end = |page: u64| VirtAddr::new(page.wrapping_shl(PAGE_SHIFT));
    let range = VirtRange::inclusive(end(first), end(last).wrapping_add(0xfff)).ok_or_else(|| Error::Corrupt {
        what: "region",
        address: at.into(),
        expected: "addresses".into(),
        found: format!("pages {first:#x} to {last:#x}").into(),
    })?;
    let (file, problem) = match private {
        true => (None, None),
        false => match file(reader, layout, node, kind == IMAGE) {
            Ok(file) => (file, None),
            Err(error) => (None, Some(error.context(format!("file of the region at {}", range.start())))),
        },
    };
    let permissions = Permissions { shared: !private && kind != IMAGE, ..permissions(protection) };
    let region = MemoryRegion::new(range, permissions, file.unwrap_or(RegionKind::Anonymous));
    let byte = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    let pointer = |at: Option<u64>| node.structure.pointer(at?).ok().filter(|at| reader.is_kernel(*at));
    let prototypes = match private {
        true => None,
        false => pointer(layout.first_prototype).zip(pointer(layout.last_prototype)),
    };
    Ok((Vad { address: at, region, protection: byte(protection), kind: byte(kind), private, prototypes }, problem))
}

/// What a protection allows: its low three bits; above them are guard, no cache and no access.
fn permissions(protection: u64) -> Permissions {
    let low = protection & 7;
    Permissions {
        // No access is written as all modifiers without rights.
        read: !matches!(low, 0 | 2),
        write: matches!(low, 4..=7),
        execute: matches!(low, 2 | 3 | 6 | 7),
        shared: false,
    }
}

/// The file that a region is a view of; `None` for memory that several processes share without a file.
fn file(reader: &Reader<'_>, layout: &VadLayout, node: &Node, image: bool) -> Result<Option<RegionKind>> {
    let subsection = node.structure.pointer(layout.subsection)?;
    if !reader.is_kernel(subsection) {
        return Ok(None);
    }
    let control_area = reader.pointer(subsection, layout.control_area)?;
    // The low bits of a fast reference count references.
    let file = reader.pointer(control_area, layout.file)?.as_u64() & if reader.is_wide() { !0xf } else { !0x7 };
    let file = VirtAddr::new(file);
    if !reader.is_kernel(file) {
        return Ok(None);
    }
    let path = reader.unicode_string(file, layout.file_name)?;
    // Behind the control area stands the address of the first prototype of the whole; a view may begin later.
    let offset = match layout.first_prototype {
        Some(prototype) if !image => {
            let first = node.structure.word(prototype)?;
            let base = reader.pointer(subsection, layout.control_area.saturating_add(reader.pointer_size()))?.as_u64();
            first
                .checked_sub(base)
                .filter(|distance| *distance < 1 << 40)
                .map_or(0, |distance| (distance / ENTRY) << 12)
        }
        _ => 0,
    };
    Ok(Some(RegionKind::File { path, offset, inode: 0, device_major: 0, device_minor: 0 }))
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
    use crate::{offsets::exact, testing::Memory};

    const PROCESS: u64 = 0xffff_e000_0000_0000;
    const NODE: u64 = 0xffff_e000_0001_0000;

    fn layout(guid: &str) -> VadLayout {
        let mut layout = Layout::default();
        exact(guid, 1).unwrap().add_to(&mut layout);
        VadLayout::new(&layout).unwrap()
    }

    /// 17763.379.
    fn split() -> VadLayout {
        layout("8B11040A5928757B11390AC78F6B6925")
    }

    /// 7601.
    fn older() -> VadLayout {
        layout("339E74133576439CBCDF7E0229DA3773")
    }

    fn at(number: u64) -> u64 {
        if number == 0 { 0 } else { NODE + number * 0x1000 }
    }

    fn put(memory: &mut Memory, number: u64, children: (u64, u64), pages: (u64, u64), flags: u32) {
        let node = at(number);
        memory.zero(node, NODE_LEN).put_u64(node, at(children.0)).put_u64(node + 8, at(children.1));
        memory.put_u32(node + 0x18, pages.0 as u32).put_u32(node + 0x1c, pages.1 as u32);
        memory.put(node + 0x20, &[(pages.0 >> 32) as u8, (pages.1 >> 32) as u8]);
        // Node 1 is above all others; the low bits are a balance.
        memory.put_u32(node + 0x30, flags).put_u64(node + 0x10, if number == 1 { 0 } else { at(1) | 1 });
    }

    const PRIVATE: u32 = 1 << 14;

    fn tree() -> Memory {
        let mut memory = Memory::default();
        memory.put_u64(PROCESS + 0x628, at(1));
        put(&mut memory, 1, (2, 3), (0x7_ff48_0000, 0x7_ff48_000f), PRIVATE | 4 << 3);
        put(&mut memory, 2, (0, 0), (0x10, 0x1f), PRIVATE | 1 << 3);
        put(&mut memory, 3, (0, 0), (0x7_ffe0_0000, 0x7_ffe0_0010), 2 | 7 << 3);
        let (subsection, control, file) = (0xffff_e000_0010_0000, 0xffff_e000_0011_0000, 0xffff_e000_0012_0000);
        memory.put_u64(at(3) + 0x48, subsection).put_u64(subsection, control).put_u64(control + 0x40, file | 7);
        memory.put_string(file + 0x58, file + 0x100, "\\Windows\\System32\\ntdll.dll");
        memory
    }

    fn look(memory: &Memory) -> (Vec<(u64, u64, String)>, Vec<Error>) {
        let listing = regions(memory, &split(), VirtAddr::new(PROCESS)).unwrap();
        let item = |vad: &Vad| {
            let name = match &vad.region.kind {
                RegionKind::File { path, .. } => path.as_str(),
                _ => "",
            };
            let range = vad.region.range;
            (range.start().as_u64() >> 12, range.len() >> 12, format!("{} {name}", vad.region.permissions))
        };
        (listing.items.iter().map(item).collect(), listing.problems)
    }

    #[test]
    fn regions_come_by_address_with_rights_and_files() {
        let (items, problems) = look(&tree());
        assert_eq!(
            items,
            [
                (0x10, 0x10, "r--p ".to_owned()),
                (0x7_ff48_0000, 0x10, "rw-p ".to_owned()),
                (0x7_ffe0_0000, 0x11, "rwxp \\Windows\\System32\\ntdll.dll".to_owned()),
            ]
        );
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn tree_of_windows_7_begins_at_its_right_child() {
        let mut memory = Memory::default();
        memory.put_u64(PROCESS + 0x448 + 0x10, at(1));
        for (number, left, pages) in [(1, at(2), (0x20, 0x2f)), (2, 0, (0x10, 0x1f))] {
            memory.zero(at(number), NODE_LEN).put_u64(at(number), at(1)).put_u64(at(number) + 8, left);
            memory.put_u64(at(number) + 0x18, pages.0).put_u64(at(number) + 0x20, pages.1);
            memory.put_u64(at(number) + 0x28, 1 << 63 | 6 << 56);
        }
        let listing = regions(&memory, &older(), VirtAddr::new(PROCESS)).unwrap();
        let starts: Vec<u64> = listing.items.iter().map(|vad| vad.region.range.start().as_u64()).collect();
        assert_eq!(starts, [0x1_0000, 0x2_0000]);
        assert_eq!(listing.items[0].region.permissions.to_string(), "rwxp");
        assert!(listing.items[0].private && listing.problems.is_empty());
    }

    #[test]
    fn trees_that_loop_end_and_nodes_that_overlap_are_told() {
        let mut memory = tree();
        memory.put_u64(at(2), at(1)).put_u64(at(3) + 8, at(2));
        let (items, problems) = look(&memory);
        assert_eq!(items.len(), 3);
        assert_eq!(problems.len(), 2, "{problems:?}");
        let mut memory = tree();
        put(&mut memory, 2, (2, 2), (0x7_ff48_0001, 0x7_ff48_0002), PRIVATE);
        let (items, problems) = look(&memory);
        assert_eq!((items.len(), problems.len()), (2, 1));
    }

    #[test]
    fn missing_node_costs_what_is_below_it() {
        let mut memory = tree();
        memory.remove(at(3), NODE_LEN);
        let (items, problems) = look(&memory);
        assert_eq!((items.len(), problems.len()), (2, 1));
        let mut memory = tree();
        memory.put_u64(at(1) + 8, 0x1234);
        assert_eq!(look(&memory).1.len(), 1);
        // A node that names another one above it: something was taken out.
        let mut memory = tree();
        memory.put_u64(at(3) + 0x10, at(2));
        let (items, problems) = look(&memory);
        assert_eq!((items.len(), problems.len()), (3, 1));
        // Without the record of the file, the region is there all the same.
        let mut memory = tree();
        memory.remove(0xffff_e000_0012_0000, 0x200);
        let (items, problems) = look(&memory);
        assert_eq!((items.len(), problems.len()), (3, 1));
    }
}

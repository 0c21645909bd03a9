//! The regions of an address space as the kernel keeps them (`struct vm_area_struct`).
//!
//! Owns: the walk over all regions, by tree or by list. Must not know: what a region is called.
//! Keeps: regions come out in ascending order and never overlap; what does not fit is a problem of the listing.
//! Source: include/linux/mm_types.h; the tree came with Linux 6.1 (d4af56c5c7c6), the list went with it (763ecb035029).

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryView, VirtAddr, VirtRange,
    error::{Error, Result},
    os::Listing,
};

use super::maple::{self, MapleLayout};
use crate::{
    record::{Record, Span, read_each},
    types::{Field, Types},
};

/// Regions of one address space, where they are a list. The kernel's own limit is 2^16 by default and 2^20 on some systems.
const MAX_REGIONS: u64 = 1 << 21;
/// Regions read with one batch.
const BATCH: usize = 4096;

/// Where the fields of a region lie, and how all of them are reached.
#[derive(Clone, Debug)]
pub(super) struct VmaLayout {
    root: Root,
    span: Span,
    start: Field,
    end: Field,
    flags: Field,
    page_offset: Field,
    file: Field,
    operations: Field,
    private_data: Field,
    anon_name: Option<AnonName>,
}

#[derive(Clone, Debug)]
enum Root {
    Tree { root: Field, maple: MapleLayout },
    List { first: Field, next: Field },
}

/// The name that a process gave to a region without a file (Linux 5.17, 9a10064f5625).
#[derive(Clone, Copy, Debug)]
pub(super) struct AnonName {
    field: Field,
    /// Offset of the text in `struct anon_vma_name`.
    pub(super) text: u64,
    /// Shared memory can have one too: until Linux 6.2 (d09e8ca6cb93) the member was in use otherwise where there is a file.
    with_file: bool,
}

impl VmaLayout {
    pub(super) fn new(types: &Types) -> Result<Self> {
        let field = |path| types.field("vm_area_struct", path);
        let root = match types.find_field("mm_struct", "mm_mt.ma_root") {
            Some(root) => Root::Tree { root, maple: MapleLayout::new(types)? },
            None => Root::List { first: types.field("mm_struct", "mmap")?, next: field("vm_next")? },
        };
        let [start, end, flags, page_offset, file, operations, private_data] = [
            field("vm_start")?,
            field("vm_end")?,
            field("vm_flags")?,
            field("vm_pgoff")?,
            field("vm_file")?,
            field("vm_ops")?,
            field("vm_private_data")?,
        ];
        let anon_name = types.find_field("vm_area_struct", "anon_name").zip(types.find_field("anon_vma_name", "name"));
        let anon_name = anon_name.map(|(field, text)| {
            let shared = types.find_field("vm_area_struct", "shared");
            let with_file = shared.is_none_or(|shared| shared.offset != field.offset);
            AnonName { field, text: text.offset, with_file }
        });
        let next = match &root {
            Root::List { next, .. } => Some(*next),
            Root::Tree { .. } => None,
        };
        let read = [start, end, flags, page_offset, file, operations, private_data];
        let span = read.into_iter().chain(anon_name.map(|name| name.field)).chain(next);
        Ok(Self {
            root,
            span: Span::of("vm_area_struct", span)?,
            start,
            end,
            flags,
            page_offset,
            file,
            operations,
            private_data,
            anon_name,
        })
    }

    /// The field of `mm_struct` that all regions are reached from.
    pub(super) fn root(&self) -> Field {
        match &self.root {
            Root::Tree { root, .. } => *root,
            Root::List { first, .. } => *first,
        }
    }

    /// Where the names of regions without a file are, if this kernel has such names.
    pub(super) fn anon_name(&self) -> Option<AnonName> {
        self.anon_name
    }
}

/// One region.
#[derive(Clone, Debug)]
pub(super) struct Vma {
    pub(super) range: VirtRange,
    pub(super) flags: u64,
    /// Offset of its first byte in the file, in bytes.
    pub(super) offset: u64,
    pub(super) file: VirtAddr,
    pub(super) operations: VirtAddr,
    pub(super) private_data: VirtAddr,
    /// `struct anon_vma_name`, null when there is none.
    pub(super) anon_name: VirtAddr,
}

impl Vma {
    /// Reads the region at `address`.
    pub(super) fn read(view: &dyn MemoryView, layout: &VmaLayout, address: VirtAddr) -> Result<Self> {
        Self::parse(layout, &Record::read(view, address, layout.span)?)
    }

    fn parse(layout: &VmaLayout, record: &Record) -> Result<Self> {
        let (start, end) = (record.pointer(layout.start)?, record.pointer(layout.end)?);
        let range = VirtRange::between(start, end).filter(|range| !range.is_empty()).ok_or_else(|| Error::Corrupt {
            what: "vm_area_struct",
            address: record.address().into(),
            expected: "an end above its start".into(),
            found: format!("{start} to {end}").into(),
        })?;
        let file = record.pointer(layout.file)?;
        let anon_name = layout.anon_name.filter(|name| file.is_null() || name.with_file);
        Ok(Self {
            range,
            flags: record.number(layout.flags)?,
            // The kernel keeps pages and prints bytes; it cuts what does not fit as well.
            offset: record.number(layout.page_offset)?.wrapping_shl(12),
            file,
            operations: record.pointer(layout.operations)?,
            private_data: record.pointer(layout.private_data)?,
            anon_name: anon_name.map_or(Ok(VirtAddr::new(0)), |name| record.pointer(name.field))?,
        })
    }
}

/// All regions below `root`, as [`VmaLayout::root`] says, by address.
pub(super) fn all(view: &dyn MemoryView, layout: &VmaLayout, root: VirtAddr) -> Listing<Vma> {
    let mut listing = match &layout.root {
        Root::Tree { maple, .. } => from_tree(view, layout, maple, root),
        Root::List { next, .. } => from_list(view, layout, *next, root),
    };
    let mut below: Option<VirtAddr> = None;
    let problems = &mut listing.problems;
    listing.items.retain(|vma| {
        let apart = below.is_none_or(|below| vma.range.start() > below);
        if apart {
            below = vma.range.last();
        } else {
            problems.push(Error::Corrupt {
                what: "regions of an address space",
                address: vma.range.start().into(),
                expected: "regions apart from each other".into(),
                found: format!("one that starts before the end of the last ({})", below.unwrap_or_default()).into(),
            });
        }
        apart
    });
    listing
}

fn from_tree(view: &dyn MemoryView, layout: &VmaLayout, maple: &MapleLayout, root: VirtAddr) -> Listing<Vma> {
    let entries = maple::entries(view, maple, root);
    let mut listing = Listing { items: Vec::new(), problems: entries.problems };
    for chunk in entries.items.chunks(BATCH) {
        let records = read_each(view, chunk.iter().map(|entry| (entry.value, layout.span)));
        for (entry, record) in chunk.iter().zip(records) {
            match record.and_then(|record| Vma::parse(layout, &record)) {
                Ok(vma) => {
                    if vma.range.start().as_u64() != entry.first
                        || vma.range.last().map(VirtAddr::as_u64) != Some(entry.last)
                    {
                        listing.problems.push(Error::Corrupt {
                            what: "vm_area_struct",
                            address: entry.value.into(),
                            expected: format!("{:#x}-{:#x}, as the tree says", entry.first, entry.last).into(),
                            found: vma.range.to_string().into(),
                        });
                    }
                    listing.items.push(vma);
                }
                Err(error) => listing.problems.push(error),
            }
        }
    }
    listing
}

/// The list is singly linked for reading: it ascends, and a step that does not is the end of it.
fn from_list(view: &dyn MemoryView, layout: &VmaLayout, next: Field, first: VirtAddr) -> Listing<Vma> {
    let mut listing = Listing::new();
    let mut at = first;
    let mut last: Option<VirtAddr> = None;
    let mut entries = 0;
    while !at.is_null() {
        let step = if entries >= MAX_REGIONS {
            Err(Error::Limit { what: "regions of an address space", address: first.into(), limit: MAX_REGIONS })
        } else {
            Record::read(view, at, layout.span)
                .and_then(|record| Ok((Vma::parse(layout, &record)?, record.pointer(next)?)))
                .and_then(|(vma, next)| match last {
                    Some(last) if vma.range.start() <= last => {
                        Err(Error::Cycle { what: "regions of an address space", address: at.into(), entries })
                    }
                    _ => Ok((vma, next)),
                })
        };
        match step {
            Ok((vma, next)) => {
                last = vma.range.last();
                listing.items.push(vma);
                at = next;
            }
            Err(error) => {
                listing.problems.push(error);
                break;
            }
        }
        entries = entries.saturating_add(1);
    }
    listing
}

#[cfg(test)]
mod tests;

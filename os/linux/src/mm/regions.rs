//! The memory map of a process, as `/proc/PID/maps` prints it.
//!
//! Owns: what a region is called and why: file, name given by the kernel, heap, stack, name given by the process.
//! Must not know: how regions are kept, how a path is walked.
//! Source: fs/proc/task_mmu.c (show_map_vma, get_vma_name), mm/mmap.c (special_mapping_name),
//! arch/x86/entry/vsyscall/vsyscall_64.c (get_gate_vma).

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::{HashMap, hash_map::Entry};

use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    error::{Error, Result},
    os::{Listing, MemoryRegion, Permissions, RegionKind},
};

use super::{
    Mm, MmLayout,
    vma::{self, Vma},
};
use crate::{
    record::{Record, Span},
    symbols::{Sought, Symbols},
    types::{Field, Types},
    vfs::{OpenFile, Place, Vfs},
};

const VM_READ: u64 = 0x1;
const VM_WRITE: u64 = 0x2;
const VM_EXEC: u64 = 0x4;
/// The region may be shared; /proc shows this one, not `VM_SHARED`, which a read-only mapping of a file loses.
const VM_MAYSHARE: u64 = 0x80;

/// Longest name of a region: `ANON_VMA_NAME_MAX_LEN` is 80.
const MAX_NAME: usize = 256;
/// Bytes of all paths of one map: each of a million regions could be of another file with a long path.
const MAX_PATHS: usize = 256 << 20;
/// `vsyscall_mode` of a kernel that was told to have no vsyscall page.
const VSYSCALL_NONE: u32 = 2;

/// What the names of regions come from, apart from the regions themselves.
#[derive(Clone, Debug)]
pub(crate) struct NameSources {
    operation: Span,
    name_function: Field,
    special: Span,
    special_name: Field,
    /// `special_mapping_name`: says that the region's private data is a `vm_special_mapping`.
    special_function: Sought,
    gate: Sought,
    vsyscall_mode: Option<VirtAddr>,
    heap: HeapEdge,
}

/// Whether a region that only touches the heap is one. Until Linux 6.5 it was; 6.6 (11250fd12eb8) put the question into
/// `vma_is_initial_heap`, which wants an overlap. No type tells the two apart, so the release has to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeapEdge {
    Touches,
    Overlaps,
}

impl HeapEdge {
    fn of_release(release: &str) -> Self {
        let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (6, 6) => Self::Touches,
            _ => Self::Overlaps,
        }
    }
}

impl NameSources {
    pub(crate) fn new(types: &Types, symbols: &Symbols, release: &str) -> Result<Self> {
        let name_function = types.field("vm_operations_struct", "name")?;
        let special_name = types.field("vm_special_mapping", "name")?;
        Ok(Self {
            operation: Span::of("vm_operations_struct", [name_function])?,
            name_function,
            special: Span::of("vm_special_mapping", [special_name])?,
            special_name,
            special_function: symbols.sought("special_mapping_name"),
            gate: symbols.sought("gate_vma"),
            vsyscall_mode: symbols.address_of("vsyscall_mode"),
            heap: HeapEdge::of_release(release),
        })
    }
}

/// The memory map of the process that `mm` belongs to, with paths as seen from `root`.
///
/// A file whose path could not be walked is listed with an empty path, and the reason is in the problems.
pub(crate) fn memory_map(
    view: &dyn MemoryView,
    layout: &MmLayout,
    sources: &NameSources,
    vfs: &mut Vfs<'_>,
    mm: &Mm,
    root: Option<Place>,
) -> Listing<MemoryRegion> {
    let vmas = vma::all(view, &layout.vma, mm.vma_root);
    let mut listing = Listing { items: Vec::new(), problems: vmas.problems };
    let files: Vec<VirtAddr> = vmas.items.iter().map(|vma| vma.file).filter(|file| !file.is_null()).collect();
    let mut files = vfs.open_files(&files).into_iter();
    let mut names = Names { view, layout, sources, mm, operations: HashMap::new(), paths: 0 };
    for vma in &vmas.items {
        let kind = if vma.file.is_null() {
            names.without_file(vma)
        } else {
            let file =
                files.next().unwrap_or_else(|| Err(Error::NotFound { what: "file", name: vma.file.to_string() }));
            file.and_then(|file| names.with_file(vma, &file, vfs, root, &mut listing.problems))
        };
        match kind {
            Ok(kind) => listing.items.push(MemoryRegion::new(vma.range, permissions(vma.flags), kind)),
            Err(error) => listing.problems.push(error.context(format!("region {}", vma.range))),
        }
    }
    match gate(view, layout, sources, mm) {
        Ok(gate) => listing.items.extend(gate),
        Err(error) => listing.problems.push(error.context("vsyscall page")),
    }
    listing
}

/// The vsyscall page, which is in no process' tree and shown after its regions.
fn gate(view: &dyn MemoryView, layout: &MmLayout, sources: &NameSources, mm: &Mm) -> Result<Option<MemoryRegion>> {
    let gate = match sources.gate {
        Sought::At(gate) if mm.has_vsyscall => gate,
        Sought::Unknown if mm.has_vsyscall => {
            return Err(Error::NotFound { what: "symbol", name: "gate_vma".to_owned() }
                .context("the kernel's symbol table was not found, which would say whether there is one"));
        }
        _ => return Ok(None),
    };
    if let Some(mode) = sources.vsyscall_mode
        && u32::from_le(view.read::<u32>(mode)?) == VSYSCALL_NONE
    {
        return Ok(None);
    }
    let vma = Vma::read(view, &layout.vma, gate)?;
    let kind = RegionKind::Special { name: "[vsyscall]".to_owned() };
    Ok(Some(MemoryRegion::new(vma.range, permissions(vma.flags), kind)))
}

fn permissions(flags: u64) -> Permissions {
    Permissions {
        read: flags & VM_READ != 0,
        write: flags & VM_WRITE != 0,
        execute: flags & VM_EXEC != 0,
        shared: flags & VM_MAYSHARE != 0,
    }
}

/// The error for a region whose name a function makes up that no symbol tells.
fn unknown_name(function: VirtAddr) -> Error {
    Error::Unsupported {
        what: format!("the name that the kernel's function at {function} makes up"),
        why: "the kernel's symbol table was not found, which would say what the function is".to_owned(),
    }
}

struct Names<'a> {
    view: &'a dyn MemoryView,
    layout: &'a MmLayout,
    sources: &'a NameSources,
    mm: &'a Mm,
    /// The function that names regions with these operations.
    operations: HashMap<VirtAddr, VirtAddr>,
    /// Bytes of paths given out.
    paths: usize,
}

impl Names<'_> {
    fn with_file(
        &mut self,
        vma: &Vma,
        file: &OpenFile,
        vfs: &mut Vfs<'_>,
        root: Option<Place>,
        problems: &mut Vec<Error>,
    ) -> Result<RegionKind> {
        let path = match self.given_name(vma)? {
            Some(name) => format!("[anon_shmem:{name}]"),
            None => self.path(file.place, vfs, root).unwrap_or_else(|error| {
                problems.push(error.context(format!("path of region {}", vma.range)));
                String::new()
            }),
        };
        Ok(RegionKind::File {
            path,
            offset: vma.offset,
            inode: file.inode,
            // include/linux/kdev_t.h
            device_major: file.device >> 20,
            device_minor: file.device & 0x000f_ffff,
        })
    }

    fn path(&mut self, place: Place, vfs: &mut Vfs<'_>, root: Option<Place>) -> Result<String> {
        if self.paths > MAX_PATHS {
            let limit = u64::try_from(MAX_PATHS).unwrap_or(u64::MAX);
            return Err(Error::Limit { what: "paths of a memory map", address: self.mm.vma_root.into(), limit });
        }
        let path = vfs.path(place, root)?;
        self.paths = self.paths.saturating_add(path.len());
        Ok(path)
    }

    fn without_file(&mut self, vma: &Vma) -> Result<RegionKind> {
        if let Some(name) = self.special_name(vma)? {
            return Ok(RegionKind::Special { name });
        }
        // The end of a region is one past its last byte; `last` of a region that is not empty always exists.
        let (start, last) = (vma.range.start(), vma.range.last().unwrap_or(vma.range.start()));
        let heap = match self.sources.heap {
            HeapEdge::Overlaps => start < self.mm.brk && last >= self.mm.start_brk,
            HeapEdge::Touches => start <= self.mm.brk && last.wrapping_add(1) >= self.mm.start_brk,
        };
        let named = |name: &str| Ok(RegionKind::Special { name: name.to_owned() });
        if heap {
            return named("[heap]");
        }
        if start <= self.mm.start_stack && last.wrapping_add(1) >= self.mm.start_stack {
            return named("[stack]");
        }
        match self.given_name(vma)? {
            Some(name) => named(&format!("[anon:{name}]")),
            None => Ok(RegionKind::Anonymous),
        }
    }

    /// The name of a region that the kernel itself maps ("[vdso]").
    fn special_name(&mut self, vma: &Vma) -> Result<Option<String>> {
        if vma.operations.is_null() {
            return Ok(None);
        }
        let function = match self.operations.entry(vma.operations) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let record = Record::read(self.view, vma.operations, self.sources.operation)?;
                *new.insert(record.pointer(self.sources.name_function)?)
            }
        };
        let known = match self.sources.special_function {
            _ if function.is_null() => return Ok(None),
            Sought::At(known) if known == function => true,
            Sought::Unknown => false,
            _ => return Ok(None),
        };
        let name = Record::read(self.view, vma.private_data, self.sources.special)
            .and_then(|mapping| mapping.pointer(self.sources.special_name))
            .and_then(|name| self.view.read_utf8_lossy(name, MAX_NAME));
        match name {
            name if known => name.map(Some),
            // All names that the kernel gives are in brackets: one that is was found in the right place.
            Ok(name) if name.starts_with('[') && name.ends_with(']') => Ok(Some(name)),
            _ => Err(unknown_name(function)),
        }
    }

    /// The name that the process gave to the region.
    fn given_name(&self, vma: &Vma) -> Result<Option<String>> {
        match self.layout.vma.anon_name() {
            Some(name) if !vma.anon_name.is_null() => {
                self.view.read_utf8_lossy(vma.anon_name.wrapping_add(name.text), MAX_NAME).map(Some)
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;

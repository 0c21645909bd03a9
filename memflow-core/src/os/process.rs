//! An opened process.

use super::{Listing, MemoryRegion, ModuleInfo, ProcessInfo, RegionKind, ThreadInfo};
use crate::{
    address::VirtAddr,
    error::Result,
    memory::PhysicalMemory,
    paging::AddressSpace,
    view::{MemoryView, SpaceView},
};

/// An opened process: its memory as a [`MemoryView`], and what the system knows of it.
///
/// The record in [`info`](Self::info) is as of the opening; the other methods look at the target again.
pub trait Process: MemoryView {
    /// The process, as it was when it was opened.
    fn info(&self) -> &ProcessInfo;

    /// Its address space; `None` for a thread of the kernel.
    fn address_space(&self) -> Option<&AddressSpace>;

    /// The view that reads of this process go through, if a walk of page tables over [`Os::physical_memory`](super::Os::physical_memory)
    /// is all there is to them. Whoever has the process on the other side of a plugin boundary then walks by itself.
    fn space_view(&self) -> Option<&SpaceView> {
        None
    }

    /// The physical memory that the address space is in.
    fn physical_memory(&self) -> &dyn PhysicalMemory;

    /// Path of the executable; `None` for a thread of the kernel or a process without one.
    ///
    /// # Errors
    /// When the records of the kernel cannot be read.
    fn executable(&self) -> Result<Option<String>>;

    /// The arguments it was started with, or has since put in their place; empty for a thread of the kernel.
    ///
    /// # Errors
    /// When the pages that hold them cannot be read.
    fn command_line(&self) -> Result<Vec<String>>;

    /// The environment it was started with, as `NAME=value`; empty for a thread of the kernel.
    ///
    /// # Errors
    /// When the pages that hold them cannot be read.
    fn environment(&self) -> Result<Vec<String>>;

    /// The regions of its address space, from the system's own records, by address; none for a thread of the kernel.
    ///
    /// # Errors
    /// When the list cannot be started; later problems are in the listing.
    fn memory_map(&self) -> Result<Listing<MemoryRegion>>;

    /// Its threads.
    ///
    /// # Errors
    /// When the list cannot be started; later problems are in the listing.
    fn threads(&self) -> Result<Listing<ThreadInfo>>;

    /// Its modules: the executable and the libraries that are loaded into it. None for a thread of the kernel.
    ///
    /// Where the system keeps no list of them, or a plugin that was loaded from a file answers, these are the files that are mapped with
    /// a region of code, by address.
    ///
    /// # Errors
    /// When neither a list nor the memory map can be started; later problems are in the listing.
    fn modules(&self) -> Result<Listing<ModuleInfo>> {
        let map = self.memory_map()?;
        Ok(Listing { items: mapped_with_code(&map.items), problems: map.problems })
    }
}

/// Files of which regions that follow each other are mapped, one of them executable.
fn mapped_with_code(regions: &[MemoryRegion]) -> Vec<ModuleInfo> {
    let path = |region: &MemoryRegion| match &region.kind {
        RegionKind::File { path, .. } => Some(path.clone()),
        _ => None,
    };
    // Memory without a file may lie between, and there may be more of it behind the last region of the file.
    let files: Vec<(&MemoryRegion, String)> =
        regions.iter().filter_map(|region| Some((region, path(region)?))).collect();
    let mut modules = Vec::new();
    for group in files.chunk_by(|(_, one), (_, other)| one == other) {
        let [(first, path), ..] = group else { continue };
        let Some((last, _)) = group.last() else { continue };
        if group.iter().any(|(region, _)| region.permissions.execute) {
            let base: VirtAddr = first.range.start();
            let size = last.range.start().offset_from(base).unwrap_or_default().saturating_add(last.range.len());
            let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
            modules.push(ModuleInfo::new(base, base, size, name));
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::VirtRange, os::Permissions};

    #[test]
    fn modules_are_files_with_code() {
        let region = |start: u64, len: u64, execute: bool, path: Option<&str>| {
            let range = VirtRange::new(VirtAddr::new(start), len).unwrap();
            let permissions = Permissions { read: true, execute, ..Permissions::default() };
            let file = |path: &str| RegionKind::File {
                path: path.to_owned(),
                offset: 0,
                inode: 1,
                device_major: 0,
                device_minor: 0,
            };
            MemoryRegion::new(range, permissions, path.map_or(RegionKind::Anonymous, file))
        };
        let regions = [
            region(0x1000, 0x1000, false, Some("/bin/sh")),
            region(0x2000, 0x3000, true, Some("/bin/sh")),
            region(0x5000, 0x1000, true, None),
            region(0x6000, 0x1000, false, Some("/usr/share/data")),
            region(0x8000, 0x1000, false, Some("/lib/libc.so")),
            region(0x9000, 0x1000, false, None),
            region(0xa000, 0x1000, true, Some("/lib/libc.so")),
        ];
        let modules = mapped_with_code(&regions);
        let seen: Vec<_> = modules.iter().map(|one| (&*one.name, one.base.as_u64(), one.size)).collect();
        assert_eq!(seen, [("sh", 0x1000, 0x4000), ("libc.so", 0x8000, 0x3000)]);
    }
}

//! An opened process.

use super::{Listing, MemoryRegion, ProcessInfo, ThreadInfo};
use crate::{
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
}

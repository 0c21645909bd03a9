//! An address space: an architecture and a root.

use bitflags::bitflags;

use super::{arch::Architecture, walk};
use crate::{
    address::{PageSize, PhysAddr, VirtAddr, VirtRange},
    error::{Reason, Result},
    memory::PhysicalMemory,
};

bitflags! {
    /// What the page tables say of a page.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct PageFlags: u16 {
        /// Writes are allowed at every level.
        const WRITABLE = 1;
        /// User mode is allowed at every level.
        const USER = 1 << 1;
        /// Instruction fetches are refused at some level.
        const NO_EXECUTE = 1 << 2;
        /// The page was used (bit of the page entry).
        const ACCESSED = 1 << 3;
        /// The page was written (bit of the page entry).
        const DIRTY = 1 << 4;
        /// The translation survives a change of address space (bit of the page entry).
        const GLOBAL = 1 << 5;
    }
}

/// Where a virtual address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The physical address.
    pub phys: PhysAddr,
    /// The size of the page that holds it.
    pub page: PageSize,
    /// The level of the entry that maps it: 1 for base pages.
    pub level: u8,
    /// Rights and state.
    pub flags: PageFlags,
}

/// One translation of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TranslateOp {
    /// The virtual address.
    pub addr: VirtAddr,
    /// Its translation, or why there is none; `None` while nobody has tried.
    pub outcome: Option<Result<Translation, Reason>>,
}

/// Consecutive virtual memory that is mapped to consecutive physical memory with the same rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappedRun {
    /// The virtual addresses.
    pub virt: VirtRange,
    /// The physical address of the first.
    pub phys: PhysAddr,
    /// The size of the pages.
    pub page: PageSize,
    /// Rights and state, the same for the whole run.
    pub flags: PageFlags,
}

/// An address space: a paging mode and the root of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    arch: &'static Architecture,
    root: PhysAddr,
}

impl AddressSpace {
    /// The space below `root`, a root register's value (CR3): bits that are not part of the address are ignored.
    pub fn new(arch: &'static Architecture, root: u64) -> Self {
        Self { arch, root: PhysAddr::new(root & arch.root_mask) }
    }

    /// The paging mode.
    pub fn architecture(&self) -> &'static Architecture {
        self.arch
    }

    /// Physical address of the root table.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// Translates one address.
    ///
    /// # Errors
    /// The level at which the walk stopped, and why.
    pub fn translate(&self, memory: &dyn PhysicalMemory, addr: VirtAddr) -> Result<Translation, Reason> {
        walk::translate(self.arch, self.root, memory, addr)
    }
}

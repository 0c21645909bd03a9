//! Finding a Linux kernel in physical memory: its page tables first, then its symbols and types.
//!
//! Must not know: tasks, files, anything a found kernel is used for.

mod note;
mod scan;

pub(crate) use self::note::find_note;

use memflow_core::{VirtAddr, paging::AddressSpace};

use crate::{symbols::Known, vmcoreinfo::VmcoreInfo};

/// A kernel's address space, and what is known of the kernel by then.
#[derive(Debug)]
pub(crate) struct Found {
    /// The kernel's address space.
    pub(crate) space: AddressSpace,
    /// The note, if there is one.
    pub(crate) note: Option<VmcoreInfo>,
    /// Addresses that the symbol table must confirm.
    pub(crate) known: Known,
    /// `init_uts_ns`, if known.
    pub(crate) uts: Option<VirtAddr>,
}

//! Address spaces across the boundary: which paging mode, which root, and who is asked about entries that are not present.
//!
//! Must not know: how tables are walked; each side does that for itself.

use core::ffi::c_void;

use crate::{
    Grows,
    growing::{fixed, growing, numbers},
    report::Text,
};

numbers! {
    /// What an entry that is not present means: values of [`SoftFault::answer`].
    soft_fault_answer: u32 {
        /// Nothing: the address is not mapped.
        NOT_MAPPED = 0,
        /// A page in physical memory at `base`.
        PAGE = 1,
        /// A page in swap or in a file.
        PAGED_OUT = 2,
        /// Nobody knows: the code that answers panicked.
        PANICKED = 3,
    }
}

numbers! {
    /// What page tables say of a page: bits of [`SoftFault::flags`].
    page_flag: u32 {
        /// Writes are allowed.
        WRITABLE = 1,
        /// User mode is allowed.
        USER = 1 << 1,
        /// Instruction fetches are refused.
        NO_EXECUTE = 1 << 2,
        /// The page was used.
        ACCESSED = 1 << 3,
        /// The page was written.
        DIRTY = 1 << 4,
        /// The translation survives a change of address space.
        GLOBAL = 1 << 5,
    }
}

fixed! {
    /// One walk that stopped at an entry that is not present and not zero.
    SoftFault {
        /// The virtual address.
        address: u64,
        /// Physical address of the table.
        table: u64,
        /// The entry.
        entry: u64,
        /// Level of the entry: 1 for base pages.
        level: u32,
        /// Size of what the entry covers, as a power of two.
        page_shift: u32,
        /// The answer: one of [`soft_fault_answer`]; zero when asked.
        answer: u32,
        /// For a page: bits of [`page_flag`].
        flags: u32,
        /// For a page: physical address of the first byte of what the entry covers.
        base: u64,
    }
}

fixed! {
    /// Who is asked about entries that are not present.
    SoftFaults {
        /// First argument of every function of the table.
        context: *mut c_void,
        /// The functions; null for nobody.
        table: Grows<SoftFaultsTable>,
    }
}

growing! {
    /// The functions of [`SoftFaults`].
    SoftFaultsTable, SoftFaultsTableRef, SoftFaultsTablePrefix {
        /// The context of another handle; may be the same pointer.
        clone: Option<unsafe extern "C" fn(context: *mut c_void) -> *mut c_void>,
        /// Gives up a handle.
        drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
        /// Answers `count` questions; those left as they are mean "not mapped".
        resolve: Option<unsafe extern "C" fn(context: *mut c_void, faults: *mut SoftFault, count: usize)>,
    }
}

growing! {
    /// An address space in the physical memory of an operating system.
    SpaceRecord, SpaceRecordRef, SpaceRecordPrefix {
        /// Name of the paging mode ("x86-64 4-level").
        architecture: Text,
        /// Value of the root register.
        root: u64,
        /// Borrowed; whoever keeps it clones it.
        soft_faults: SoftFaults,
    }
}

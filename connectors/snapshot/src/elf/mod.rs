//! ELF cores of whole machines, as QEMU's `dump-guest-memory`, `/proc/vmcore`, VirtualBox and Xen write them.
//!
//! Physical memory is in the segments of type `PT_LOAD`, addressed by their `p_paddr`. Registers and the guest kernel's
//! VMCOREINFO are in notes. Cores of Xen's guests have sections instead of segments. A segment may be shorter in the file than in memory; the rest is a gap, not zeros: the writer left it out.

mod notes;
mod parse;
pub(crate) mod raw;
mod segments;
mod xen;

pub use self::parse::parse;
pub(crate) use self::{
    notes::Notes,
    raw::{MACHINE_386, MACHINE_X86_64},
};

//! Page tables: from a virtual address to a physical one, and back.
//!
//! Must not know: views, operating systems, plugins.

mod arch;
mod space;
mod walk;

pub use self::{
    arch::{Architecture, Level, x86},
    space::{AddressSpace, MappedRun, PageFlags, TranslateOp, Translation},
};

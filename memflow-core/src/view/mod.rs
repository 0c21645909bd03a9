//! Reading and writing by address in any space: a process, a kernel, physical memory, a view laid over another.
//!
//! Must not know: operating systems, plugins.

mod ext;
mod memory_view;
mod physical_view;
mod space_view;

pub use self::{
    ext::{Gap, MemoryViewExt, PartialRead, ValuesRead},
    memory_view::{MemoryView, MissingValue, ViewMetadata},
    physical_view::PhysicalView,
    space_view::SpaceView,
};

//! Reading and writing by address in any space: a process, a kernel, physical memory, a view laid over another.
//!
//! Must not know: operating systems, plugins.

#[cfg(test)]
mod tests;

mod arch_overlay;
mod batch;
mod cached_view;
mod cursor;
mod ext;
mod memory_view;
mod parts;
mod physical_view;
mod pointer;
mod remapped_view;
mod space_view;
mod text;
mod view_memory;

pub use self::{
    arch_overlay::ArchOverlay,
    batch::{Batch, Batcher, Committed, Failure},
    cached_view::CachedView,
    cursor::Cursor,
    ext::{Gap, Integer, MemoryViewExt, PartialRead, ValuesRead},
    memory_view::{MemoryView, MissingValue, ViewMetadata},
    physical_view::PhysicalView,
    pointer::{Ptr32, Ptr64},
    remapped_view::RemappedView,
    space_view::SpaceView,
    text::CountSize,
    view_memory::ViewMemory,
};

//! Machine introspection: physical memory, page-table translation, memory views and OS traits.

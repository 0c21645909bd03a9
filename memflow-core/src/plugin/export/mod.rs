//! Our objects behind the C interface: what a plugin hands to its host, and a host to its plugins.
//!
//! Owns: a table of functions for each trait, and the entry of a plugin. Must not know: how the other side uses them.
//! Keeps: a panic ends here and becomes a status; what is handed out by pointer lives as long as the object.

mod control;
mod entry;
mod guard;
mod memory;
mod os;
mod process;
mod shared;
mod space;
mod view;

pub use memflow_abi::PluginEntry;

pub use self::entry::{connector, os_layer};
pub(super) use self::{memory::memory, os::os, space::FLAGS};

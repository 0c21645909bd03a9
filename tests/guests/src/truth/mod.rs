//! What a guest says about itself, typed.
//!
//! Owns: the layout of a truth folder and its parsing. Files keep the guest's own paths (`proc/1/maps`), so any of them
//! can be read directly; accessors parse when they are called.
//! Must not know: how memory is read; nothing here comes from it.
//! Keeps: a text that is not what the kernel documents is an error with the line in it.
//! Source: proc(5), Linux Documentation/filesystems/proc.rst, Documentation/ABI/testing/dev-kmsg.

mod folder;
mod process;
mod stream;
mod system;

pub use folder::Truth;
pub use process::{Mapping, Page, Process, Thread};
pub(crate) use stream::unpack;
pub use system::{IoRange, LogRecord, Module, Symbol};

#[cfg(test)]
mod tests;

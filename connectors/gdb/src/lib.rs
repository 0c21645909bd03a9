//! Connector for machines behind a GDB remote stub with access to physical memory: QEMU's (`-gdb`, `-s`, `gdbserver`), and others
//! whose addresses are physical.
//!
//! Owns: the plugin. Must not know: packets; `memflow-gdb-stub` speaks to stubs, and is given on here as a whole.

mod plugin;

pub use memflow_gdb_stub::*;

pub use self::plugin::Plugin;

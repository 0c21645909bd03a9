//! Connector for a machine whose RAM lies in the memory of a process: a virtual machine, seen through the operating system it
//! runs on.
//!
//! A virtual machine monitor holds its guest's RAM in mappings of its own address space. [`open`] takes the operating system
//! that the monitor runs on, finds the process and that mapping, and gives what lies in it as [`PhysicalMemory`]: an OS layer
//! opens the inner machine as it opens any other.
//!
//! ```text
//! connector → outer Os → Process ──layout──▶ ProcessMemory → inner Os
//! ```
//!
//! An inner physical address becomes a virtual address of the process, that becomes an outer physical address: two translations,
//! one call each way for a whole batch.
//!
//! [`PhysicalMemory`]: memflow_core::PhysicalMemory

mod layout;
mod memory;
mod open;
mod plugin;

pub use self::{
    layout::GuestRun,
    memory::ProcessMemory,
    open::{Options, Target, open, open_process},
    plugin::Plugin,
};

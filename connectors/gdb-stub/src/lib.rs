//! Machines behind a GDB remote stub with access to physical memory: QEMU's (`-gdb`, `-s`, `gdbserver`), and others whose addresses
//! are physical. No plugin itself, so that every connector that has a stub to speak to can be built on it.
//!
//! [`open`] connects, learns what the stub can do, switches it to physical addresses, finds out which addresses are memory, and
//! gives that as [`PhysicalMemory`] with control over whether the target runs. `docs/connector-gdb.md` says what a stub does to its
//! target meanwhile. [`vcpus`] takes no more than the registers.
//!
//! ```text
//! stream → packet → link → session ─┬─▶ handshake, transfer, description, registers, layout (at open)
//!                                   └─▶ plan → memory (reads, writes), control
//! ```
//!
//! Each file knows only those before it. Everything that arrives is foreign: bounded in length, in time and in number.
//!
//! [`PhysicalMemory`]: memflow_core::PhysicalMemory

mod address;
mod control;
mod description;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod hex;
mod layout;
mod link;
mod memory;
mod open;
mod packet;
mod plan;
mod registers;
mod session;
mod stream;
mod transfer;

pub use self::{
    address::Address,
    memory::GdbMemory,
    open::{Opened, Options, Physical, Runs, open, vcpus},
};

//! Connector for the memory of the machine it runs on: `/proc/kcore` of Linux.
//!
//! The kernel presents its own address space as an ELF core. [`open`] takes the segments that are its mapping of all physical
//! memory, so that a physical address has a place in the file, and reads there by position. Nothing is written: the file takes no
//! writes.
//!
//! ```text
//! path → headers ─┬─ notes → facts
//!                 └─ segments → direct map ∩ System RAM → runs → KcoreMemory
//! ```
//!
//! Each parser is a function from bytes to a value, and knows nothing of files.

mod headers;
mod iomem;
mod memory;
mod notes;
mod open;
mod plugin;
mod raw;
mod segments;
mod transfer;

pub use self::{
    headers::{Headers, ReadAt, Segment},
    iomem::system_ram,
    memory::KcoreMemory,
    open::{KCORE, Kcore, Options, open},
    plugin::Plugin,
    segments::physical_runs,
};

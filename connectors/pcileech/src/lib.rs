//! Connector for what LeechCore reads: memory of another machine over PCIe (FPGA boards of PCILeech), of this machine through a
//! driver, of a remote agent, of a dump.
//!
//! LeechCore is a library of its own, with its own licence. It is loaded when a target is opened, not linked, and not part of
//! memflow. [`open`] finds it, opens a device with it, and gives what the device reads as [`PhysicalMemory`].
//!
//! ```text
//! lib → locate → library ─ create ─▶ Device ─┐
//! map, or the device's own ──▶ runs ─────────┴─▶ LeechcoreMemory
//! ```
//!
//! A DMA read of an address that no memory answers can stop the machine that is read. So no address outside of the map is ever
//! asked for, and a device that does not know where memory lies is not read without a map.
//!
//! [`PhysicalMemory`]: memflow_core::PhysicalMemory

mod library;
mod locate;
mod map;
mod memory;
mod open;
mod plugin;
mod raw;

pub use self::{
    map::parse_map,
    memory::LeechcoreMemory,
    open::{Connected, Options, open},
    plugin::Plugin,
};

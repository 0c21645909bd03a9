//! Connector for running QEMU and KVM guests on this Linux host. Nothing is changed in the guest or in its configuration.
//!
//! [`open`] finds a guest among the processes, finds out where its physical memory lies in that process, and reads it there:
//! in place where the memory is shared, else by system calls. [`discover`] lists the guests.
//!
//! ```text
//! /proc ─ discover ─▶ Guest ─┬─ monitor: info mtree, gpa2hva ─┐
//!                            └─ command line, mappings ───────┴─▶ Layout ─ access ─▶ QemuMemory
//! ```
//!
//! What a source could not say is a note, and the next source is asked; see [`Connected::notes`].
#![cfg(target_os = "linux")]

mod access;
mod command_line;
mod control;
mod discover;
mod host;
mod layout;
mod memory;
mod monitor;
mod open;
mod option;
mod plugged;
mod plugin;
mod registers;
mod stub;

pub use self::{
    access::AccessKind,
    command_line::{Backend, BackendKind, CommandLine},
    discover::{Guest, Target, discover, find},
    host::{Mapping, parse_maps},
    layout::{GuestRun, Layout, LayoutSource, MachineType, RunKind},
    memory::QemuMemory,
    monitor::{
        FlatRange, MonitorAddress, MonitorConfig, Protocol, parse_blocks, parse_flat_view, parse_host_address,
        plain_text,
    },
    open::{Connected, Options, RegisterSource, open, open_guest},
    option::{QemuOption, size},
    plugged::{MemoryDevice, parse_memory_devices},
    plugin::Plugin,
    registers::parse_registers,
};

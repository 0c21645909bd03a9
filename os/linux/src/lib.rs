//! OS layer for Linux: processes, modules and symbols without a profile.

mod bytes;
mod clock;
mod find;
mod identity;
mod kernel;
mod list;
mod log;
mod mm;
mod modules;
mod os;
mod process;
mod record;
mod soft_fault;
mod symbols;
mod task;
#[cfg(test)]
mod testing;
mod types;
mod vfs;
mod vmcoreinfo;
mod worker;

pub use crate::{
    kernel::{Kernel, LinuxOptions},
    os::LinuxOs,
    process::LinuxProcess,
    symbols::{Symbols, module_symbols},
    types::{Field, Types},
};

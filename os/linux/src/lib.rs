//! OS layer for Linux: processes, modules and symbols without a profile.

mod bytes;
mod find;
mod kernel;
mod list;
mod log;
mod os;
mod record;
mod symbols;
mod task;
mod types;
mod vmcoreinfo;
mod worker;

pub use crate::{
    kernel::{Kernel, LinuxOptions},
    os::LinuxOs,
    symbols::{Symbols, module_symbols},
    types::{Field, Types},
};

//! OS layer for Linux: processes, modules and symbols without a profile.

mod bytes;
mod find;
mod kernel;
mod log;
mod symbols;
mod types;
mod vmcoreinfo;

pub use crate::{
    kernel::{Kernel, LinuxOptions},
    symbols::{Symbols, module_symbols},
    types::{Field, Types},
};

//! OS layer for Linux: processes, modules and symbols without a profile.
//!
//! A kernel is found in physical memory ([`Kernel`]), its own symbol table ([`Symbols`]) and type information ([`Types`]) say where
//! everything else lies, and [`LinuxOs`] answers the questions of [`memflow_core::os::Os`] from there. What is supported, where each
//! thing comes from and which layouts are known is in `docs/os-linux.md`.
//!
//! ```
//! use std::sync::Arc;
//!
//! use memflow_core::{
//!     memory::{BufferMemory, RunMap, SourceConfig, TargetFacts},
//!     os::Os,
//! };
//! use memflow_linux::{LinuxOptions, LinuxOs};
//!
//! fn names(os: &dyn Os) -> memflow_core::Result<Vec<String>> {
//!     Ok(os.processes()?.into_complete()?.into_iter().map(|process| process.name).collect())
//! }
//!
//! # fn main() -> memflow_core::Result<()> {
//! let config = SourceConfig { name: "four empty pages".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
//! let memory = BufferMemory::new(config, vec![0; 0x4000])?;
//! match LinuxOs::open(Arc::new(memory), &LinuxOptions::default()) {
//!     Ok(os) => println!("{:?}", names(&os)?),
//!     Err(error) => assert!(error.to_string().starts_with("no Linux kernel found; looked for ")),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is learnt of a kernel can be kept for the next run: [`LinuxOptions::layout_cache`].
//!
//! Data flows one way: `find` and `symbols` and `types` make a kernel; `record` and `list` read its structures; `task`, `worker`,
//! `mm`, `vfs` and `modules` know one subsystem each and not one another; `process` and `os` put them together.

mod bytes;
mod clock;
mod find;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod kernel;
mod layout_cache;
mod list;
mod log;
mod memo;
mod mm;
mod modules;
mod os;
mod plugin;
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
    plugin::Plugin,
    process::LinuxProcess,
    symbols::{SymbolTable, Symbols, module_symbols},
    types::{Field, Types},
};

//! What all examples begin with: the memory image that the command line names, and the system in it.
//!
//! Owns: how an example gets its target. Must not know: what it does with it.

use std::{error::Error, path::PathBuf, sync::Arc};

use memflow_core::PhysicalMemory;
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_snapshot::OpenOptions;

/// The snapshot of a real guest that is part of the repository.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../memflow-cli/demo/demo.elf.zst");

/// The physical memory in the file that the first argument names; `demo`, or nothing, is the demo snapshot. What the file is, is told by
/// its content.
///
/// # Errors
/// When the file is no image of memory.
pub fn memory() -> Result<Arc<dyn PhysicalMemory>, Box<dyn Error>> {
    let path = std::env::args_os().nth(1).filter(|name| name != "demo").map_or_else(|| DEMO.into(), PathBuf::from);
    Ok(memflow_snapshot::open(&path, &OpenOptions::default())?.memory)
}

/// The Linux in that memory. Where in it the kernel lies, is found.
///
/// # Errors
/// As [`memory`]; when there is no Linux.
pub fn os() -> Result<LinuxOs, Box<dyn Error>> {
    Ok(LinuxOs::open(memory()?, &LinuxOptions::default())?)
}

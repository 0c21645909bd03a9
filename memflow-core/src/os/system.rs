//! A recognised operating system.

use std::sync::Arc;

use super::{KernelInfo, Keyboard, Listing, LogRecord, ModuleInfo, Process, ProcessInfo, SymbolInfo};
use crate::{
    address::VirtAddr,
    error::{Error, Result},
    memory::PhysicalMemory,
    paging::AddressSpace,
    view::MemoryView,
};

/// A recognised operating system in a target's memory.
pub trait Os: Send + Sync {
    /// The kernel.
    fn kernel(&self) -> &KernelInfo;

    /// The kernel's address space.
    fn kernel_space(&self) -> &AddressSpace;

    /// The kernel's memory.
    fn kernel_view(&self) -> &dyn MemoryView;

    /// The target's physical memory.
    fn physical_memory(&self) -> &Arc<dyn PhysicalMemory>;

    /// The processes, in the order of the system's list.
    ///
    /// # Errors
    /// When the list cannot be started; later problems are in the listing.
    fn processes(&self) -> Result<Listing<ProcessInfo>>;

    /// Opens a process that was listed.
    ///
    /// # Errors
    /// When its address space cannot be found.
    fn open(&self, process: &ProcessInfo) -> Result<Box<dyn Process>>;

    /// The modules of the kernel.
    ///
    /// # Errors
    /// When the list cannot be started; later problems are in the listing.
    fn modules(&self) -> Result<Listing<ModuleInfo>>;

    /// Every symbol of the kernel, by address.
    ///
    /// # Errors
    /// When the symbol table cannot be read.
    fn symbols(&self) -> Result<Listing<SymbolInfo>>;

    /// The symbols of that exact name: usually none or one; static functions of the same name make several.
    ///
    /// # Errors
    /// When the symbol table cannot be read.
    fn symbols_named(&self, name: &str) -> Result<Vec<SymbolInfo>>;

    /// The symbol at or before `address`, and the distance to it in bytes; `None` when the address is not in the kernel's text or data.
    ///
    /// # Errors
    /// When the symbol table cannot be read.
    fn symbol_at(&self, address: VirtAddr) -> Result<Option<(SymbolInfo, u64)>>;

    /// The kernel's log, oldest first.
    ///
    /// # Errors
    /// When the log cannot be found; records that make no sense are in the problems.
    fn kernel_log(&self) -> Result<Listing<LogRecord>>;

    /// The keyboard, if this layer knows how the system keeps it. Nothing is looked for before it is asked for its state.
    ///
    /// A system of a plugin that was loaded from a file has none: its interface does not carry keyboards.
    fn keyboard(&self) -> Option<&dyn Keyboard> {
        None
    }

    /// Opens the process with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] when a complete list does not have it; the first problem of the list when it is not complete.
    fn open_pid(&self, pid: u32) -> Result<Box<dyn Process>> {
        let list = self.processes()?;
        match list.items.iter().find(|process| process.pid == pid) {
            Some(process) => self.open(process),
            None => Err(list
                .problems
                .into_iter()
                .next()
                .unwrap_or(Error::NotFound { what: "process with pid", name: pid.to_string() })),
        }
    }
}

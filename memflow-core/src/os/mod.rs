//! What an operating system layer offers: processes, modules, threads, symbols, the kernel's log.
//!
//! Must not know: plugins, any particular operating system.

mod info;
mod keyboard;
mod process;
mod system;

pub use self::{
    info::{
        KernelInfo, Listing, LogRecord, MemoryRegion, ModuleInfo, Permissions, ProcessInfo, ProcessState, RegionKind,
        SymbolInfo, ThreadInfo,
    },
    keyboard::{Keyboard, KeyboardState},
    process::Process,
    system::Os,
};

//! OS layer for Windows: processes, modules and exports without a symbol server.
//!
//! A kernel is found in physical memory ([`Kernel`]), a table of known builds and what the kernel tells of itself say where everything
//! else lies, and [`Win32Os`] answers the questions of [`memflow_core::os::Os`] from there. What is supported, and where each thing comes
//! from, is in `docs/os-win32.md`.
//!
//! ```
//! use std::sync::Arc;
//!
//! use memflow_core::{
//!     memory::{BufferMemory, RunMap, SourceConfig, TargetFacts},
//!     os::Os,
//! };
//! use memflow_win32::{Win32Options, Win32Os};
//!
//! fn names(os: &dyn Os) -> memflow_core::Result<Vec<String>> {
//!     Ok(os.processes()?.into_complete()?.into_iter().map(|process| process.name).collect())
//! }
//!
//! # fn main() -> memflow_core::Result<()> {
//! let config = SourceConfig { name: "four empty pages".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
//! let memory = BufferMemory::new(config, vec![0; 0x4000])?;
//! match Win32Os::open(Arc::new(memory), &Win32Options::default()) {
//!     Ok(os) => println!("{:?}", names(&os)?),
//!     Err(error) => assert!(error.to_string().starts_with("no Windows kernel found; looked for ")),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Data flows one way: `find`, `pe`, `kdbg` and `offsets` make a kernel; `pte`, `soft_fault` and `page_file` know what is behind its page
//! tables; `reader`, `structure` and `list` read its structures; `eprocess`, `cid`, `modules`, `processors`, `thread`, `token`, `vad` and
//! `peb` know one kind each; `hidden`, `image`, `page`, `process` and `os` put them together.

mod bytes;
mod cid;
mod derive;
mod eprocess;
mod find;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handles;
mod hidden;
mod hives;
mod image;
mod kdbg;
mod kernel;
mod keyboard;
mod list;
mod modules;
mod offsets;
mod os;
mod page;
mod page_file;
mod pe;
mod peb;
mod plugin;
mod process;
mod processors;
mod pte;
mod reader;
mod shared_data;
mod soft_fault;
mod structure;
mod symbols;
#[cfg(test)]
mod testing;
mod thread;
mod token;
mod vad;
mod version;

pub use crate::{
    eprocess::{FoundBy, ProcessDetails},
    find::is_likely,
    handles::Handle,
    hives::Hive,
    image::{ImageExport, LoadedImage},
    kernel::{Arch, Kernel, OffsetSources, Win32Options},
    modules::{LoadedModule, Origin},
    os::Win32Os,
    page::{PageDetails, PageState},
    page_file::PageFile,
    pe::{CodeView, Import, Section, VersionInfo},
    plugin::Plugin,
    process::Win32Process,
    processors::Running,
    shared_data::{ProductType, SystemData},
    symbols::{SymbolSources, default_store},
    thread::ThreadDetails,
    token::Token,
    vad::Vad,
    version::Version,
};

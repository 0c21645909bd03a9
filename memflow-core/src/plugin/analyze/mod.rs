//! What a file holds in the way of plugins, found out without running anything of it.
//!
//! Owns: reading shared objects (ELF, PE, Mach-O) as far as a plugin needs, and the verdict over each plugin in them.
//! Must not know: where files are looked for, how a plugin is loaded, what its entry table holds.
//! Keeps: for any bytes at all there is an answer, in time and memory that are bounded by the bytes.
//!
//! [`analyze`] asks in this order, and the first "no" is the reason:
//! 1. is it a shared object, and are its tables where it says;
//! 2. does it have a descriptor section, or is it a plugin of memflow 0.2;
//! 3. is it for this kind of machine;
//! 4. is the section readable; and then for each descriptor in it
//! 5. is the descriptor a good one;
//! 6. was the plugin built with an ABI of this major version;
//! 7. for this target triple;
//! 8. does the file export its entry table, as data that the file holds.

mod container;
mod elf;
mod export_trie;
mod fat;
mod machine;
mod macho;
mod pe;
mod reader;
mod rejection;
mod source;
mod verdict;

pub use self::{
    machine::{Architecture, Format, Machine},
    rejection::{EntryProblem, Rejection},
    verdict::{AnalyzedFile, HostAbi, RejectedPlugin, analyze, analyze_file},
};

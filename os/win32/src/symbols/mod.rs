//! Files of symbols (PDB): what they say of a kernel's structures, and where they are found.
//!
//! [`pdb`] reads one, [`path`] the grammar of `_NT_SYMBOL_PATH`, [`store`] looks into folders, `download` asks a server; [`lookup`] puts
//! them in order.
//!
//! Must not know: memory, the kernel but for the record that names its file.

#[cfg(feature = "download")]
mod download;
mod lookup;
mod path;
mod pdb;
mod store;

pub use self::{lookup::SymbolSources, store::default_store};
pub(crate) use self::{
    lookup::{Told, lookup},
    path::{check, is_understood},
    pdb::Pdb,
};

//! The kernel's symbols: its own table (kallsyms) and those of its modules.
//!
//! Must not know: types beyond the fields of `struct module`, tasks.

mod kallsyms;
mod locate;
mod lookup;
mod module;
mod raw;
mod structure;
#[cfg(test)]
pub(crate) mod synthetic;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    kallsyms::Encoding,
    locate::{Addresses, Known},
    lookup::Sought,
    raw::{Place, RawTable},
    structure::LANDMARK,
};
pub use self::{lookup::Symbols, module::module_symbols, table::SymbolTable};

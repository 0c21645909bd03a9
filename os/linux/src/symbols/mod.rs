//! The kernel's symbols: its own table (kallsyms) and those of its modules.
//!
//! Must not know: types beyond the fields of `struct module`, tasks.

mod kallsyms;
mod locate;
mod module;
mod structure;
#[cfg(test)]
pub(crate) mod synthetic;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    locate::{Addresses, Known},
    structure::LANDMARK,
};
pub use self::{module::module_symbols, table::Symbols};

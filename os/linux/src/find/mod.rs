//! Finding a Linux kernel in physical memory: its page tables, confirmed by its symbols.
//!
//! From the cheapest to the dearest: a root that the caller gives, the VMCOREINFO note that the target gives ([`note`]), the root
//! registers of its vCPUs ([`vcpu`]), the page tables for starting processors ([`trampoline`]), the note in its memory, the symbol table in its memory ([`blind`]), and at last, without any
//! symbol, its type information ([`btf`]) and its first task ([`idle`]). A kernel that is known from an earlier run is not read
//! again ([`recall`]).
//!
//! Must not know: types, tasks, files, anything a found kernel is used for.

mod blind;
mod btf;
mod idle;
mod image;
mod note;
mod recall;
mod scan;
mod search;
#[cfg(test)]
mod tests;
mod trampoline;
mod vcpu;

pub(crate) use self::search::{Found, find};

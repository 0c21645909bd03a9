//! Synthetic machines for tests: memory and page tables built in code, memory that counts calls and fails on demand, and a slow
//! second opinion.
//!
//! | what | where |
//! |---|---|
//! | physical memory with page tables of any x86 mode | [`MachineBuilder`] |
//! | memory that takes writes | [`LockedMemory`] |
//! | memory that has to be called, with a log of the calls and planned failures | [`ScriptedMemory`] |
//! | memory of a machine that is paused and resumed | [`SwitchedMemory`] |
//! | the same walk written a second time, as plainly as it goes | [`oracle`] |
//!
//! With the feature `testkit`. Must not be used outside of tests: nothing here is fast.

mod locked;
mod machine;
pub mod oracle;
mod scripted;
mod switched;

pub use self::{
    locked::LockedMemory,
    machine::{EntryPlace, Machine, MachineBuilder, MappedPage, PagingMode, entry_bits},
    scripted::{Call, ScriptedMemory},
    switched::SwitchedMemory,
};

//! Synthetic machines for tests: memory and page tables built in code, memory that counts calls and fails on demand, and a slow
//! second opinion.
//!
//! | what | where |
//! |---|---|
//! | physical memory with page tables of any x86 mode | [`MachineBuilder`] |
//! | memory that has to be called, with a log of the calls and planned failures | [`ScriptedMemory`] |
//! | the same walk written a second time, as plainly as it goes | [`oracle`] |
//!
//! With the feature `testkit`. Must not be used outside of tests: nothing here is fast.

mod machine;
pub mod oracle;
mod scripted;

pub use self::{
    machine::{EntryPlace, Machine, MachineBuilder, MappedPage, PagingMode, entry_bits},
    scripted::{Call, ScriptedMemory},
};

//! What is learnt of a kernel and depends only on its build, kept in a folder for the next run.
//!
//! An entry holds answers: where symbols lie in the kernel's image and where members lie in structures. It is found by the build
//! identification (the GNU build-id note), and used when all of this holds:
//!
//! * the entry is whole, of this format and of this code (`entry`);
//! * the kernel in memory has the identification in its own notes, at the place that the entry says, and its banner and first task
//!   are where the entry says (`keeper`);
//! * the kernel's type information and symbol table in memory are, byte for byte, those that the answers were found in, by a
//!   cryptographic hash. So an image that is made to look like another kernel spoils nothing but its own answers.
//!
//! A question that the entry does not answer is answered from those bytes, as without a cache. Nothing is written unless the caller
//! names a folder.
//!
//! Must not know: how a kernel is found, which questions are asked.

mod entry;
mod keeper;
mod material;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    entry::Entry,
    keeper::{Confirmed, Keeper, Kept, ROOTS, Recalled, confirm},
    store::Store,
};

//! Answers that were worked out from bytes of a memory, kept beside it: paging keeps translations here.
//!
//! [`Lookaside`] is the face, [`LookasideConfig`] how it is to be; `sets` holds the answers, `sources` what they were worked out from.
//!
//! Must not know: page tables; what keys and answers mean.

mod keep;
mod sets;
mod sources;
#[cfg(test)]
mod tests;

pub(crate) use self::keep::{Answer, Kind, Owner, Session};
pub use self::keep::{Lookaside, LookasideConfig, Writing};

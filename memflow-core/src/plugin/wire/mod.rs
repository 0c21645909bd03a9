//! The library's types as the structures of the ABI, and back.
//!
//! Owns: every conversion, in both directions, side by side. Must not know: who calls whom.
//! Keeps: what the other side did not fill in, or filled with numbers unknown here, becomes "unknown", never something else.

pub(super) mod failure;
pub(super) mod header;
mod known;
pub(super) mod outcome;
pub(super) mod raw;
pub(super) mod records;
pub(super) mod registers;

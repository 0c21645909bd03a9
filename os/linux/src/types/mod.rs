//! The kernel's own type information (BTF): where a member of a structure lies and how large it is.
//!
//! Must not know: memory, symbols, which structures the OS layer is interested in.

mod btf;
mod front;
mod index;
#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;

pub(crate) use self::btf::{HEADER_LEN as BTF_HEADER_LEN, extent as btf_extent};
pub(crate) use self::front::Answer;
pub use self::front::{Field, Types};

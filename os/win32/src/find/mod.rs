//! Finding a Windows kernel in physical memory: page tables, confirmed by the kernel's image that they map.
//!
//! From the cheapest to the dearest: a root that the caller gives, the one in the header of a dump, those of vCPUs ([`given`]), the
//! page with which Windows starts processors ([`low_stub`]), and tables that map themselves, first in low memory, then everywhere
//! ([`tables`]). A root counts when the kernel's image is found through it ([`image`]).
//!
//! Must not know: processes, modules, offsets, anything that a found kernel is used for.

mod given;
mod image;
mod low_stub;
mod scan;
mod search;
mod tables;

pub use self::search::is_likely;
pub(crate) use self::{
    image::KernelImage,
    search::{describe, find},
};

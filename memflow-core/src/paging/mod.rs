//! Page tables: from a virtual address to a physical one, and back.
//!
//! | what | where |
//! |---|---|
//! | one address, or a batch | [`AddressSpace::translate`], [`AddressSpace::translate_batch`] |
//! | many, of which the physical address is all that counts | [`AddressSpace::translate_to`] |
//! | everything that is mapped, as runs | [`AddressSpace::map`] |
//! | what walks found before, kept beside memory that is slow to call | [`Lookaside`](crate::memory::Lookaside) |
//! | who maps a physical address | [`AddressSpace::phys_to_virt`] |
//! | the same, asked often, of several spaces | [`ReverseMap`] |
//! | a paging mode from control registers | [`x86::from_registers`] |
//! | a paging mode of one's own | a `static` [`Architecture`] |
//! | entries that only an operating system understands | [`SoftFaults`] |
//!
//! Must not know: views, operating systems, plugins.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod arch;
mod batch;
mod entry;
mod map;
mod mapped;
mod maybe_phys;
mod pieces;
mod reverse;
mod soft_fault;
mod space;
mod tlb;
mod walk;

#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    arch::{Architecture, BitTest, EntryFormat, EntrySize, Level, MovedBits, PageState, x86},
    map::{MapBudget, MapHole, MapSummary, MappedRun, PhysMappings},
    maybe_phys::MaybePhys,
    reverse::{Mapping, ReverseMap, ReverseMapBuilder},
    soft_fault::{SoftFault, SoftFaultAnswer, SoftFaults},
    space::{AddressSpace, PageFlags, TranslateOp, Translation, Translator},
};
pub(crate) use self::{
    mapped::Asked,
    pieces::{Merge, Piece},
    tlb::Trust,
    walk::Walked,
};

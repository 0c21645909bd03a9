//! Tests of the paging folder as a whole. Expected values come from the Intel SDM by hand, or from the testkit's oracle, which
//! shares no code with the walker.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

mod ages;
mod batches;
mod formats;
mod garbage;
mod maps;
pub(crate) mod plan;
mod properties;
mod shapes;
mod soft_faults;
mod tlb;

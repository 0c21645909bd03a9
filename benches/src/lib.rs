//! How fast the library is, and what to compare it with.
//!
//! | what | where |
//! |---|---|
//! | a real machine's memory, or page tables larger than any cache | [`Image`] |
//! | which addresses, in which order | [`Order`], [`Image::addresses`] |
//! | the same tables walked with raw pointers and no check | [`Bare`], [`Checked`] |
//! | what is measured: translation, reads, maps, scans, plugins | [`cases`] |
//! | several ways to do the same, timed in turns | [`measure`] |
//! | other projects, and whether their answers are right | [`peer`] |
//! | the table, the plot, and what is to be reached | `report`, `plot`, `goals` |
//!
//! Figures are ratios: whatever else the machine does meanwhile hits all contenders of a round alike.
//!
//! The feature `compare` (on by default) holds what the program `compare` needs; `instructions` goes without, so that it is built
//! soon. The feature `peers` adds other projects written in Rust.

mod addresses;
mod bare;
pub mod cases;
mod generated;
#[cfg(feature = "compare")]
pub mod goals;
mod image;
pub mod measure;
pub mod peer;
#[cfg(feature = "peers")]
mod peers;
#[cfg(feature = "compare")]
pub mod plot;
#[cfg(feature = "compare")]
pub mod plugins;
#[cfg(feature = "compare")]
mod real;
#[cfg(feature = "compare")]
pub mod report;
#[cfg(feature = "compare")]
pub mod tools;
#[cfg(feature = "compare")]
mod windows;

#[cfg(feature = "compare")]
pub use self::windows::WindowsImage;
pub use self::{
    addresses::Order,
    bare::{Bare, Checked, UncheckedError},
    generated::Generated,
    image::{Area, Image},
};

/// Any error: this package only reports them.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of whatever may go wrong here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

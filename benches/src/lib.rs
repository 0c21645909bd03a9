//! How fast the library is, and what to compare it with.
//!
//! | what | where |
//! |---|---|
//! | a real machine's memory, or page tables larger than any cache | [`Image`] |
//! | which addresses, in which order | [`Order`], [`Image::addresses`] |
//! | the same tables walked with raw pointers and no check | [`Bare`], [`Checked`] |
//! | what is measured: translation, reads, maps, plugins | [`cases`] |
//! | several ways to do the same, timed in turns | [`measure`] |
//!
//! Figures are ratios: whatever else the machine does meanwhile hits all contenders of a round alike.

mod addresses;
mod bare;
pub mod cases;
mod generated;
mod image;
pub mod measure;
#[cfg(feature = "peers")]
mod peers;
pub mod plugins;
mod real;

pub use self::{
    addresses::Order,
    bare::{Bare, Checked, UncheckedError},
    generated::Generated,
    image::{Area, Image},
};

/// Any error: this package only reports them.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of whatever may go wrong here.
pub type Result<T> = std::result::Result<T, Error>;

//! Windows in memory, built in code: images for tests, with the truth that a reader has to find in them.
//!
//! Owns: nothing but names; each part is a file. Must not know: the library and its operating system layers, of which nothing is used here.
//! Keeps: one description gives one image, byte by byte, on every machine and in every run.
//!
//! A [`Description`] says what is wanted, [`Description::build`] makes a [`Windows`]: pages by frame number, and [`truth::Truth`], plain
//! lists of all that was built. Offsets of fields come from [`OffsetTable`], one row a build.
//!
//! ```
//! use memflow_windows_images::{Architecture, Contents, Description, OffsetTable, ProcessDescription};
//!
//! let table = OffsetTable::embedded()?;
//! let offsets = table.build("10.0.17763").unwrap().clone();
//! let mut game = ProcessDescription::new(4242 & !3, 2096, r"C:\Games\game.exe");
//! game.wow64 = true;
//! let windows = Description::new(1, Architecture::X64, offsets).process(game).build()?;
//! assert_eq!(windows.truth.processes.last().unwrap().short_name, "game.exe");
//! let folder = tempfile::tempdir().unwrap();
//! windows.write_lime(&folder.path().join("windows.lime"), Contents::All).unwrap();
//! # Ok::<(), memflow_windows_images::Error>(())
//! ```
//!
//! What is to be known of the images beyond the lists: pages that nobody wrote are zeros; code is no program that could run; structures
//! hold the fields that readers of memory use, and zeros else, or clutter if the description says so; pages in the store of compressed
//! pages have no bytes anywhere; the large pages of a machine with little RAM are close together.

mod accessors;
mod builder;
mod description;
mod error;
mod files;
mod hives;
mod images;
mod kdbg;
mod kernel;
mod keyboard;
mod machine;
mod narrow;
mod object;
mod offsets;
mod pe;
mod peb;
mod physical;
mod pool;
mod process;
mod processor;
mod program;
mod random;
mod resource;
mod section;
mod soft;
mod symbols;
mod tables;
mod thread;
mod token;
pub mod truth;
mod user;
mod vad;
mod windows;

pub use self::{
    description::{
        Account, Architecture, Description, Exports, HiveDescription, KdbgForm, KeyboardForm, MappedFile, PrivatePage,
        PrivateRegion, ProcessDescription,
    },
    error::Error,
    files::Contents,
    narrow::{windows_7_x86, windows_10_18362_x86, windows_10_19041_x86},
    offsets::{OffsetTable, Offsets, Version},
    physical::Page,
    tables::Paging,
    windows::Windows,
};

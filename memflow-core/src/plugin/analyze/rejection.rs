//! Why a file, or a plugin in it, is not taken.
//!
//! Owns: the reasons and their texts, each with what was found, what was expected, and the way out.
//! Must not know: the file's name; whoever shows a reason puts it in front.

use std::borrow::Cow;

use super::{Format, Machine};
use crate::plugin::descriptor::{AbiVersion, DescriptorError};

/// Why a file, or a plugin in it, is not taken. Offsets and sizes are in bytes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It is something else than a shared object.
    #[error("not a shared object: {found}")]
    NotSharedObject {
        /// What it is, and the way out if there is one.
        found: Cow<'static, str>,
    },
    /// A part of the file lies past its end.
    #[error(
        "{format} file cut short: {what}, {len} bytes at offset {offset:#x}, leaves the {size} bytes that are there; copy it again"
    )]
    Truncated {
        /// The file's format.
        format: Format,
        /// The part.
        what: &'static str,
        /// Where it starts.
        offset: u64,
        /// Its size.
        len: u64,
        /// The file's size.
        size: u64,
    },
    /// A part of the file cannot be read.
    #[error("cannot be read: {what} at offset {offset:#x}: {problem}")]
    Unreadable {
        /// The part.
        what: &'static str,
        /// Where it lies.
        offset: u64,
        /// What the operating system said.
        problem: String,
    },
    /// A part of the file is not what it must be.
    #[error(
        "malformed {format} file: {what} at offset {offset:#x}: expected {expected}, found {found}; build or copy it again"
    )]
    Malformed {
        /// The file's format.
        format: Format,
        /// The part.
        what: &'static str,
        /// Where it lies.
        offset: u64,
        /// What belongs there.
        expected: Cow<'static, str>,
        /// What is there.
        found: Cow<'static, str>,
    },
    /// It is a shared object like any other. Not worth a word, unless someone asks why it is not listed.
    #[error("not a memflow plugin: this {format} file has no section {}", format.section())]
    NotAPlugin {
        /// The file's format.
        format: Format,
    },
    /// It is a plugin of memflow 0.2, which had no such section.
    #[error("a plugin of memflow 0.2 (it exports {symbol}); needs a version built for this one")]
    Memflow02 {
        /// The export that shows it.
        symbol: String,
    },
    /// It is for another architecture or operating system.
    #[error("built for {found}, this is {host}; needs a build for {host}")]
    OtherMachine {
        /// What the file is for.
        found: Machine,
        /// The target triple of this build.
        host: String,
    },
    /// The descriptor section has no bytes in the file.
    #[error("section {} has no bytes in the file; a file of debug symbols only?", format.section())]
    EmptySection {
        /// The file's format.
        format: Format,
    },
    /// The section as a whole, or one descriptor in it, is not taken.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// The plugin was built with another major version of the ABI.
    #[error("ABI {found}, this build takes {}.x (it is {host}); {}", host.major, way_out(*found, *host))]
    Abi {
        /// What the plugin was built with.
        found: AbiVersion,
        /// What this build has.
        host: AbiVersion,
    },
    /// The plugin was built for another target, whose files look the same from outside.
    #[error("built for {found}, this is {host}; build the plugin for {host}")]
    Target {
        /// The target triple in the descriptor.
        found: String,
        /// The target triple of this build.
        host: String,
    },
    /// The file does not offer the entry table that the descriptor names.
    #[error("entry `{symbol}` {problem}")]
    Entry {
        /// The symbol.
        symbol: String,
        /// What is wrong with it.
        problem: EntryProblem,
    },
}

impl Rejection {
    /// True if the file has nothing to do with memflow, as most files beside a plugin.
    pub fn is_uninteresting(&self) -> bool {
        matches!(self, Self::NotSharedObject { .. } | Self::NotAPlugin { .. })
    }
}

fn way_out(found: AbiVersion, host: AbiVersion) -> &'static str {
    if found > host {
        "update memflow, or rebuild the plugin for this one"
    } else {
        "rebuild the plugin with a newer memflow"
    }
}

/// What is wrong with an entry table's symbol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryProblem {
    /// No export has this name.
    #[error("is not exported; check its spelling, and that it is neither hidden nor stripped")]
    NotExported,
    /// It is not data.
    #[error("is {found}, expected data")]
    NotData {
        /// What it is.
        found: &'static str,
    },
    /// Its bytes do not come from the file.
    #[error("at address {address:#x} is not in the bytes that are loaded from the file, expected initialised data")]
    NotInFile {
        /// Its address in the file's own address space.
        address: u64,
    },
}

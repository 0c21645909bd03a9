//! What a descriptor holds, and what can be wrong with one.
//!
//! Owns: [`Descriptor`], the types of its fields, and the texts of its errors.
//! Must not know: how a section is found in a file.
//! Keeps: texts of a file are quoted in errors escaped and cut short.

use std::{fmt, str::FromStr};

/// Version of the ABI between memflow and its plugins.
///
/// Within a major version the ABI only grows: tables get longer at their end and say how long they are. A different major
/// version is a different ABI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AbiVersion {
    /// Changes when something that was there means something else.
    pub major: u16,
    /// Changes when something is added.
    pub minor: u16,
}

impl AbiVersion {
    /// A version.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// True if a host with this version takes a plugin that was built with version `plugin`: the same major version, and any minor
    /// one. A plugin with a newer minor version loads too: it finds out from the host's tables what the host does not have.
    #[must_use]
    pub const fn accepts(self, plugin: Self) -> bool {
        self.major == plugin.major
    }
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a plugin is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PluginKind {
    /// A source of physical memory.
    Connector,
    /// A layer that finds an operating system in physical memory.
    Os,
}

impl PluginKind {
    /// The word in a descriptor.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Os => "os",
        }
    }
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connector => "connector",
            Self::Os => "OS layer",
        })
    }
}

impl FromStr for PluginKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Connector, Self::Os].into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// What a connector takes beside a target name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Accepts {
    /// The target as bytes in memory, in place of a name to open.
    Content,
    /// An operating system that was already found, to look for the target in it.
    Os,
}

impl Accepts {
    /// The word in a descriptor.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Os => "os",
        }
    }
}

impl fmt::Display for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Accepts {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Content, Self::Os].into_iter().find(|accepts| accepts.as_str() == text).ok_or(())
    }
}

/// What a plugin says about itself. The module's documentation has the format.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Descriptor {
    /// Connector or OS layer.
    pub kind: PluginKind,
    /// The name that it is asked for by.
    pub name: String,
    /// Its own version.
    pub version: semver::Version,
    /// The ABI that it was built with.
    pub abi: AbiVersion,
    /// The target triple that it was built for.
    pub target: String,
    /// The exported symbol of its entry table.
    pub entry: String,
    /// One line for lists.
    pub description: String,
    /// What it takes beside a target name, without repetitions, in the order given.
    pub accepts: Vec<Accepts>,
    /// The arguments that it takes, each `name:kind[!]:default:help`.
    pub args: Vec<String>,
    /// The crate and version whose layout description the entry table carries; none unless written in Rust.
    pub layout: Option<String>,
    /// Text of any number of lines for whoever asks how it is used; may be empty.
    pub help: String,
}

/// A descriptor that is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {error}", self.who())]
pub struct BadDescriptor {
    /// Which of the section it is, from 0.
    pub index: usize,
    /// Its name, if there is one and it is a good one.
    pub name: Option<String>,
    /// What is wrong with it.
    #[source]
    pub error: DescriptorError,
}

impl BadDescriptor {
    fn who(&self) -> String {
        match &self.name {
            Some(name) => format!("descriptor of `{name}`"),
            None => format!("descriptor {}", self.index),
        }
    }
}

/// What is wrong with a descriptor, or with a section of them. Offsets are in bytes, in the section.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// The section is larger than any sensible one.
    #[error("the section holds {found} bytes, at most {limit} are read; shorten the help text")]
    SectionTooLarge {
        /// Its size in bytes.
        found: u64,
        /// Most bytes that are read.
        limit: u64,
    },
    /// The section has nothing but NULs.
    #[error("the section is empty, expected `memflow_plugin=1`")]
    Empty,
    /// The first string is not the one that begins a plugin.
    #[error("at offset {offset:#x}: expected `memflow_plugin=1`, found `{found}`")]
    NoStart {
        /// Where the string starts.
        offset: u64,
        /// The string.
        found: String,
    },
    /// The section has more plugins than are read.
    #[error("the section holds more than {limit} plugins; spread them over several files")]
    TooManyPlugins {
        /// Most plugins of one file.
        limit: usize,
    },
    /// A later version of the format.
    #[error(
        "descriptor format {found}, this build reads {expected}; update memflow, or rebuild the plugin for this one"
    )]
    Format {
        /// The version in the file.
        found: String,
        /// The version that is read.
        expected: u32,
    },
    /// The section ends within a string.
    #[error("at offset {offset:#x}: the string has no end, expected a NUL before the section's end")]
    Unterminated {
        /// Where the string starts.
        offset: u64,
    },
    /// A string is not text.
    #[error("at offset {offset:#x}: not UTF-8")]
    NotUtf8 {
        /// The first byte that is not.
        offset: u64,
    },
    /// A string has no `=`.
    #[error("at offset {offset:#x}: expected `key=value`, found `{found}`")]
    NoValue {
        /// Where the string starts.
        offset: u64,
        /// The string.
        found: String,
    },
    /// A value is longer than any sensible one.
    #[error("`{key}` has {found} bytes, at most {limit} are read")]
    TooLong {
        /// The key.
        key: String,
        /// Length of the value in bytes.
        found: u64,
        /// Most bytes of a value.
        limit: u64,
    },
    /// A key that belongs there is not.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key that can be there once is there again.
    #[error("`{key}` is there twice")]
    Duplicate {
        /// The key.
        key: &'static str,
    },
    /// More arguments than are read.
    #[error("more than {limit} arguments")]
    TooManyArgs {
        /// Most arguments of one plugin.
        limit: usize,
    },
    /// A value is not what its key asks for.
    #[error("`{key}`: expected {expected}, found `{found}`")]
    Value {
        /// The key.
        key: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
}

/// Text of a file for an error: escaped, and cut after some characters.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let text = String::from_utf8_lossy(bytes.get(..SHOWN.saturating_mul(4)).unwrap_or(bytes));
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if bytes.len() > text.len() || text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

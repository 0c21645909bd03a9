//! Descriptors: what a plugin says about itself, as text in a named section of its file.
//!
//! Owns: the format, its limits, reading it, and putting it together at compile time.
//! Must not know: the container around the section (ELF, PE, Mach-O), where plugins are looked for, how one is loaded.
//! Keeps: nothing of a descriptor is taken before all of it was checked.
//!
//! The section is called `memflow_plugin` in ELF (a C identifier), `.memflow` in PE and `__DATA,__memflow` in Mach-O. It holds
//! NUL-terminated UTF-8 strings `key=value`, like the `.modinfo` section of a Linux module. Further NULs between them (a linker's
//! padding) mean nothing. There are no pointers in it, so that it can be read without relocation, and written in C as an array
//! of `char`. A file may hold several plugins; each begins with the key `memflow_plugin`.
//!
//! | key | value | |
//! |---|---|---|
//! | `memflow_plugin` | version of this format: `1` | first key of each plugin |
//! | `kind` | `connector` or `os` | once |
//! | `name` | `[a-z0-9][a-z0-9_-]{0,31}` | once |
//! | `version` | the plugin's own version, semver | once |
//! | `abi` | `major.minor` of the plugin ABI that it was built with | once |
//! | `target` | the target triple that it was built for ([`HOST_TARGET`]) | once |
//! | `entry` | exported data symbol of its entry table, a C identifier | once |
//! | `description` | one line | once |
//! | `accepts` | `content` or `os` ([`Accepts`]) | any number |
//! | `arg` | an argument that it takes | up to 256 |
//! | `layout` | crate and version whose layout description the entry table carries (`abi_stable 0.11`) | at most once |
//! | `help` | text of any number of lines | at most once |
//!
//! Other keys are ignored, so that a later minor version can add some.

mod join;
mod parse;
mod record;
mod target;

pub use self::{
    join::{join, joined_len},
    parse::{MAX_ARGS, MAX_PLUGINS, MAX_SECTION, MAX_VALUE},
    record::{AbiVersion, Accepts, BadDescriptor, Descriptor, DescriptorError, PluginKind},
    target::HOST_TARGET,
};
pub(crate) use self::{record::excerpt, target::TARGETS};

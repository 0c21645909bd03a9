//! What every parser hands back.
//!
//! Owns: [`ParsedImage`] and [`ParseOptions`]. Must not know: formats, files.

use memflow_core::memory::{RunMap, TargetFacts};

/// How a container is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ParseOptions {
    /// Take what is there of a container that was cut short or is damaged, and say in the notes what is missing.
    pub partial: bool,
}

/// What a container holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ParsedImage {
    /// Which physical addresses it holds, and where in the container.
    pub runs: RunMap,
    /// What it says about the machine.
    pub facts: TargetFacts,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

//! What every parser hands back.
//!
//! Owns: [`ParsedImage`], [`PackedImage`] and [`ParseOptions`]. Must not know: formats, files.

use std::fmt;

use memflow_core::memory::{RunMap, TargetFacts};

use crate::blocks::Blocks;

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

/// What a container holds whose memory is compressed piece by piece.
pub struct PackedImage {
    /// As for any other; the offsets of its runs count unpacked bytes.
    pub image: ParsedImage,
    /// Addresses that the machine had and the container leaves out on purpose; offsets mean nothing.
    pub excluded: RunMap,
    /// Who unpacks.
    pub(crate) blocks: Box<dyn Blocks>,
}

impl fmt::Debug for PackedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedImage")
            .field("image", &self.image)
            .field("excluded", &self.excluded)
            .finish_non_exhaustive()
    }
}

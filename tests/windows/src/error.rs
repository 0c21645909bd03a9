//! What can be wrong with a description.
//!
//! Owns: the error of this package. Must not know: how an image is built.
//! Keeps: each text says what was found and what is possible.

/// Why an image cannot be built.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The table has no such name for this build.
    #[error("the offsets of build {build} have no {name}, which an image needs")]
    NoOffset {
        /// The name.
        name: &'static str,
        /// The build.
        build: u16,
    },
    /// A row of a table that is none.
    #[error("line {line} of the table is no row with a version, a GUID, an age and numbers")]
    Row {
        /// Line of the file, from 1 on.
        line: usize,
    },
    /// An amount of RAM that the generator does not build.
    #[error("{bytes:#x} bytes of RAM; from 128 MiB to 64 GiB in whole MiB are possible")]
    Ram {
        /// The amount.
        bytes: u64,
    },
    /// Nothing is left of the RAM.
    #[error(
        "all of the RAM is taken, or too scattered for a large page; describe a machine with more RAM or fewer processes"
    )]
    OutOfMemory,
    /// A frame that was asked for by number has an owner.
    #[error("frame {frame:#x} is taken or no RAM")]
    FrameTaken {
        /// The frame.
        frame: u64,
    },
    /// Two things at one address.
    #[error("two things are to be mapped at {address:#x}")]
    Overlap {
        /// The address.
        address: u64,
    },
    /// Something is to be written where nothing is mapped.
    #[error("nothing is mapped at {address:#x}, where a structure is to be written")]
    Unmapped {
        /// The address.
        address: u64,
    },
    /// A description that contradicts itself.
    #[error("{what}")]
    Description {
        /// What contradicts what.
        what: String,
    },
}

//! How a command ends.
//!
//! Owns: the exit codes and what leads to each. Must not know: any command.
//! Keeps: a closed pipe is success; nothing that failed ends with code 0.

use std::io;

use memflow_core::Error;

use crate::interrupt;

/// How much of what was asked for a command delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an incomplete answer has its own exit code"]
pub(crate) enum Status {
    /// All of it.
    Complete,
    /// Some of it; the messages said what is missing.
    Incomplete,
}

/// Why a command delivered nothing, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something that was asked for is not there or cannot be read.
    #[error(transparent)]
    Request(Error),
    /// Something that was asked for is not there, in words of the command.
    #[error("{0}")]
    Missing(String),
    /// Something that was asked for cannot be read, in words of the command.
    #[error("{0}")]
    Unreadable(String),
    /// The arguments contradict each other or the target.
    #[error("{0}")]
    Usage(String),
    /// The target cannot be opened, or no operating system was recognised in it.
    #[error(transparent)]
    Target(Error),
    /// The output cannot be written.
    #[error("{what}: {source}")]
    Output {
        /// What was attempted, with the name of the file.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Nobody reads the output any more.
    #[error("the output was closed")]
    ClosedPipe,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// A failure to write `what`.
    pub(crate) fn output(what: impl Into<String>, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Self::Output { what: what.into(), source }
    }

    /// The exit code; the help of the command lists them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ClosedPipe => 0,
            Self::Request(_) | Self::Missing(_) | Self::Unreadable(_) => 1,
            Self::Usage(_) => 2,
            Self::Target(_) => 3,
            Self::Output { .. } => 4,
            Self::Interrupted => interrupt::EXIT_CODE,
        }
    }

    /// The stable word for it in JSON.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Request(error) if error.is_not_found() => "not_found",
            Self::Request(_) | Self::Unreadable(_) => "unreadable",
            Self::Missing(_) => "not_found",
            Self::Usage(_) => "usage",
            Self::Target(_) => "target",
            Self::Output { .. } => "output",
            Self::ClosedPipe => "closed",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.root_cause() {
            Error::Cancelled => Self::Interrupted,
            _ => Self::Request(error),
        }
    }
}

/// What a command returns.
pub(crate) type Outcome<T = Status> = Result<T, Failure>;

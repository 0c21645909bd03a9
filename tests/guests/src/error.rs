//! What can go wrong while a guest is prepared, booted or read.
//!
//! Owns: one error type for the crate; each text names the thing and the way out.
//! Must not know: how a caller reports it.

use std::path::{Path, PathBuf};

/// Why a guest could not be prepared, booted or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program this crate calls is not there.
    #[error("{program} not found; apt-get install {package}")]
    MissingTool {
        /// The program's name.
        program: String,
        /// The Debian package that holds it.
        package: String,
    },
    /// A program ran and failed.
    #[error("{command}: {status}{}{}", if output.is_empty() { "" } else { "\n" }, output)]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said last.
        output: String,
    },
    /// No Debian mirror is known.
    #[error(
        "no Debian mirror in this machine's apt configuration; set MEMFLOW_DEBIAN_MIRROR to the base address of one (the part before dists/)"
    )]
    NoMirror,
    /// A package is not in the lists.
    #[error("package {package} not found in {suites}; {hint}")]
    NoPackage {
        /// What was looked for.
        package: String,
        /// Where it was looked for.
        suites: String,
        /// The way out.
        hint: String,
    },
    /// A file of a package, a capture or a truth is not there.
    #[error("{path}: not found; {hint}")]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// The way out.
        hint: String,
    },
    /// No guest of that name.
    #[error("no guest named {name:?}; known: {known}")]
    UnknownGuest {
        /// The name asked for.
        name: String,
        /// Every name.
        known: String,
    },
    /// A text that this crate parses was not what it should be.
    #[error("{what}: expected {expected}, found {found:?}")]
    Parse {
        /// The text, and where in it.
        what: String,
        /// What should have been there.
        expected: &'static str,
        /// What was there, cut to a readable length.
        found: String,
    },
    /// The guest or QEMU did not answer in time.
    #[error("{what}: no answer within {seconds} s; see {log}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// The log to look into.
        log: PathBuf,
    },
    /// QEMU ended, or the guest panicked and took it along.
    #[error("{what}: the guest ended; {}", last_words(log))]
    Ended {
        /// What was waited for.
        what: String,
        /// The log with its last words.
        log: PathBuf,
    },
    /// QEMU or the guest's agent refused a command.
    #[error("{command}: refused: {answer}")]
    Refused {
        /// The command.
        command: String,
        /// The answer.
        answer: String,
    },
    /// The guest never stood still long enough to be captured.
    #[error("{name}: the process list changed during each of {tries} captures; try again on a quieter machine")]
    Unsteady {
        /// The guest.
        name: String,
        /// How many captures were made.
        tries: u32,
    },
    /// An operation on a file failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The last lines of a log that say why, for an error's text.
fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let why = text.lines().rev().find(|line| line.contains("panic") || line.contains("qemu-system"));
    match why {
        Some(line) => format!("{}: {}", log.display(), line.trim()),
        None => format!("see {}", log.display()),
    }
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds the path to an I/O error.
pub(crate) trait WithPath<T> {
    /// The same result, the path in its error.
    fn at(self, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> WithPath<T> for std::io::Result<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.into(), source })
    }
}

/// A parse error with a readable cut of what was found.
pub(crate) fn unexpected(what: impl Into<String>, expected: &'static str, found: &str) -> Error {
    Error::Parse { what: what.into(), expected, found: found.chars().take(80).collect() }
}

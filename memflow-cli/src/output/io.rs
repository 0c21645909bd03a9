//! The streams of a command.
//!
//! Owns: what goes to standard output (results) and to standard error (messages), and in which form.
//! Must not know: targets. Keeps: messages are not results and not logs; a warning makes the answer incomplete only if the caller says so.

use std::{
    fmt::{Debug, Display},
    io::{self, Write},
    sync::Arc,
};

use memflow_core::{Error, memory::Metrics};
use serde::Serialize;

use super::{escape, json::to_text, table::Table};
use crate::failure::{Failure, Outcome, Status};

/// Problems of a list that are told one by one.
const MOST_PROBLEMS: usize = 16;

/// How much is said on standard error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// Warnings and progress.
    Normal,
    /// Also how things were found.
    Verbose,
}

/// The JSON document of a command that failed.
#[derive(Serialize)]
struct ErrorDocument {
    error: ErrorRecord,
}

#[derive(Serialize)]
struct ErrorRecord {
    kind: &'static str,
    message: String,
}

/// The streams of a command. A search tells what it finds from any of its threads, so the streams go with it.
pub(crate) struct Io<'a> {
    out: &'a mut (dyn Write + Send),
    err: &'a mut (dyn Write + Send),
    /// True when results are JSON.
    pub(crate) json: bool,
    /// How much is said on standard error.
    pub(crate) verbosity: Verbosity,
    documented: bool,
    counted: Vec<(String, Arc<Metrics>)>,
}

impl Debug for Io<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io").field("json", &self.json).field("verbosity", &self.verbosity).finish_non_exhaustive()
    }
}

impl<'a> Io<'a> {
    /// Results to `out`, messages to `err`.
    pub(crate) fn new(
        out: &'a mut (dyn Write + Send),
        err: &'a mut (dyn Write + Send),
        json: bool,
        verbosity: Verbosity,
    ) -> Self {
        Self { out, err, json, verbosity, documented: false, counted: Vec::new() }
    }

    /// True when only errors are said.
    pub(crate) fn quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// True when also how things were found is said.
    pub(crate) fn verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    /// The stream of results, for what is neither table nor JSON.
    pub(crate) fn out(&mut self) -> &mut dyn Write {
        self.out
    }

    /// Writes results that were formatted.
    pub(crate) fn print(&mut self, text: impl Display) -> Outcome<()> {
        write!(self.out, "{text}").map_err(to_stdout)
    }

    /// Writes a line of results.
    pub(crate) fn line(&mut self, text: impl Display) -> Outcome<()> {
        writeln!(self.out, "{text}").map_err(to_stdout)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.out.write_all(bytes).map_err(to_stdout)
    }

    /// Writes a table.
    pub(crate) fn table(&mut self, table: &Table) -> Outcome<()> {
        self.print(table)
    }

    /// Writes a JSON document.
    pub(crate) fn document(&mut self, document: &impl Serialize) -> Outcome<()> {
        self.documented = true;
        let text = to_text(document).map_err(|error| to_stdout(error.into()))?;
        self.line(text)
    }

    /// Writes out what is still buffered.
    pub(crate) fn flush(&mut self) -> Outcome<()> {
        self.out.flush().map_err(to_stdout)
    }

    /// Says something that the user should know.
    pub(crate) fn warn(&mut self, text: impl Display) {
        if !self.quiet() {
            self.message("warning", text);
        }
    }

    /// Says something that must not be missed, also to those who want to hear errors only, while the command goes on or fails for
    /// another reason.
    pub(crate) fn alarm(&mut self, text: impl Display) {
        self.message("error", text);
    }

    /// Says why the command failed, and says it as a document too when results are JSON and there is none yet. A closed pipe is
    /// nothing to say.
    pub(crate) fn error(&mut self, failure: &Failure) -> Outcome<()> {
        if matches!(failure, Failure::ClosedPipe) {
            return Ok(());
        }
        self.message("error", failure);
        if self.json && !self.documented {
            let error = ErrorRecord { kind: failure.kind(), message: failure.to_string() };
            self.document(&ErrorDocument { error })?;
        }
        Ok(())
    }

    /// Says what was done or how something was found, on standard error, when asked to.
    pub(crate) fn note(&mut self, text: impl Display) {
        if self.verbose() {
            self.message("note", text);
        }
    }

    /// Sets what [`tell_metrics`](Self::tell_metrics) is to tell: the counters of memory, each with its name.
    pub(crate) fn tell_at_the_end(&mut self, counted: Vec<(String, Arc<Metrics>)>) {
        self.counted = counted;
    }

    /// Says what was counted, on standard error, unless only errors are said.
    pub(crate) fn tell_metrics(&mut self) {
        if self.quiet() {
            return;
        }
        for (name, metrics) in std::mem::take(&mut self.counted) {
            let counts = metrics.snapshot();
            self.message("metrics", format_args!("{name}: reads: {}", counts.reads));
            if counts.writes.calls > 0 {
                self.message("metrics", format_args!("{name}: writes: {}", counts.writes));
            }
        }
    }

    /// Names the problems of a list, and with them the status of an answer that shows it.
    pub(crate) fn problems(&mut self, list: &str, problems: &[Error]) -> Status {
        let told = if self.verbose() { problems.len() } else { MOST_PROBLEMS };
        for problem in problems.iter().take(told) {
            self.warn(format_args!("{list} is incomplete: {problem}"));
        }
        if let Some(more @ 1..) = problems.len().checked_sub(told) {
            self.warn(format_args!("{list} is incomplete: {more} more problems; --verbose and --json tell them all"));
        }
        if problems.is_empty() { Status::Complete } else { Status::Incomplete }
    }

    fn message(&mut self, kind: &str, text: impl Display) {
        // The text may quote names from a target or a command line. Nobody is left to be told when this stream is closed.
        drop(writeln!(self.err, "{kind}: {}", escape(&text.to_string())));
    }
}

/// The failure for an error of standard output.
fn to_stdout(error: io::Error) -> Failure {
    Failure::output("standard output", error)
}

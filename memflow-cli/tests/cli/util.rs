//! Running the command.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

/// What a run of the command left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The command, ready to run in `folder`.
pub(crate) fn command<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memflow"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).env_remove("MEMFLOW_LOG").env("COLUMNS", "120");
    // Never the user's own.
    command.env("MEMFLOW_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    command
}

/// Runs the command in `folder`.
pub(crate) fn run_in<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Run {
    let output = command(folder, args).output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the command line `line`, whose words have no blanks in them.
pub(crate) fn run(line: &str) -> Run {
    run_in(&std::env::temp_dir(), line.split_whitespace())
}

impl Run {
    /// The results of a run that delivered all, without a word on standard error.
    #[track_caller]
    pub(crate) fn complete(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// The same, as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.complete()).unwrap()
    }

    /// The one line on standard error of a run that failed with this code and printed no results.
    #[track_caller]
    pub(crate) fn error(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        self.err
            .strip_prefix("error: ")
            .and_then(|text| text.strip_suffix('\n'))
            .unwrap_or_else(|| panic!("{}", self.err))
            .to_owned()
    }
}

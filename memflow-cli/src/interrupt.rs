//! Ctrl-C, and what has to be done before the process may end.
//!
//! Owns: the signal handler, its flag, and the file that must not stay behind.
//! Must not know: what is being done. Keeps: with nothing to do the process ends at once with code 130; with a file half written, or
//! with results that are still to be told, the work sees the flag and ends in order, and a second Ctrl-C ends it at once, after
//! removing that file.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The exit code of a process that was interrupted: 128 and the number of SIGINT, as shells have it.
pub(crate) const EXIT_CODE: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static HELD: Mutex<Held> = Mutex::new(Held::Nothing);

/// What keeps the process from ending at once.
#[derive(Debug)]
enum Held {
    Nothing,
    /// A file that is removed.
    File(PathBuf),
    /// Results that are told as far as they are known.
    Results,
}

/// Installs the handler.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that may end the process: what is unfinished is known here"
)]
pub(crate) fn install() {
    let installed = ctrlc::set_handler(|| {
        let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let second = REQUESTED.swap(true, Ordering::SeqCst);
        match &*held {
            // The work sees the flag: it removes the file, or tells what it has, and ends.
            Held::File(_) | Held::Results if !second => {}
            Held::File(path) => {
                // Ending now either way: a file that cannot be removed cannot be helped from here.
                drop(fs::remove_file(path));
                process::exit(EXIT_CODE.into());
            }
            Held::Results | Held::Nothing => process::exit(EXIT_CODE.into()),
        }
    });
    if let Err(error) = installed {
        log::warn!("Ctrl-C will not clean up: {error}");
    }
}

/// True after Ctrl-C.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// While it lives, Ctrl-C leaves the ending to the work.
#[derive(Debug)]
pub(crate) struct Unfinished(());

impl Unfinished {
    /// Announces a file that is being written.
    pub(crate) fn new(path: &Path) -> Self {
        Self::hold(Held::File(path.to_owned()))
    }

    /// Announces results that are worth telling although more were asked for.
    pub(crate) fn results() -> Self {
        Self::hold(Held::Results)
    }

    fn hold(held: Held) -> Self {
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = held;
        Self(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Held::Nothing;
    }
}

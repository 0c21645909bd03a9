//! Ctrl-C, and what has to be cleaned up before the process may end.
//!
//! Owns: the signal handler, its flag, and the file that must not stay behind.
//! Must not know: what is being done. Keeps: with nothing to clean up the process ends at once with code 130; with a file half written
//! the work sees the flag, ends in order, and a second Ctrl-C ends it at once after removing that file.

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
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Installs the handler.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that may end the process: what is unfinished is known here"
)]
pub(crate) fn install() {
    let installed = ctrlc::set_handler(|| {
        let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        let second = REQUESTED.swap(true, Ordering::SeqCst);
        match &*unfinished {
            // The work that writes the file sees the flag, removes the file and ends.
            Some(_) if !second => {}
            Some(path) => {
                // Ending now either way: a file that cannot be removed cannot be helped from here.
                drop(fs::remove_file(path));
                process::exit(EXIT_CODE.into());
            }
            None => process::exit(EXIT_CODE.into()),
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

/// While it lives, Ctrl-C leaves the ending to the work that writes the file.
#[derive(Debug)]
pub(crate) struct Unfinished(());

impl Unfinished {
    /// Announces the file.
    pub(crate) fn new(path: &Path) -> Self {
        *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.to_owned());
        Self(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

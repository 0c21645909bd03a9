//! Ctrl-C, and what has to be done before the process may end.
//!
//! Owns: the signal handler, its flag, the file that must not stay behind, and the target that must not stay paused.
//! Must not know: what is being done. Keeps: with nothing to do the process ends at once with code 130; with a file half written, a
//! target that stands still, or results that are still to be told, the work sees the flag and ends in order, and a second Ctrl-C ends
//! it at once, after letting that target run and removing that file. SIGTERM and SIGHUP are taken as Ctrl-C.

use std::{
    fs,
    io::{Write, stderr},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use memflow_core::{Error, memory::Pause};

/// The exit code of a process that was interrupted: 128 and the number of SIGINT, as shells have it.
pub(crate) const EXIT_CODE: u8 = 130;
/// How long a target may take to run again before the process ends all the same: whoever asks twice does not want to wait.
const PATIENCE: Duration = Duration::from_secs(3);

static REQUESTED: AtomicBool = AtomicBool::new(false);
static HELD: Mutex<Held> = Mutex::new(Held { file: None, paused: None, results: false });

/// What keeps the process from ending at once.
#[derive(Debug)]
struct Held {
    /// A file that is removed.
    file: Option<PathBuf>,
    /// A target that is let run.
    paused: Option<Slot>,
    /// Results that are told as far as they are known.
    results: bool,
}

/// Where a pause lies for whoever ends it first. Its lock is held while the target is stopped and while it is let run, so that nobody
/// ends the process between asking for that and its being done.
type Slot = Arc<Mutex<Option<Pause>>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs the handler.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that may end the process: what is unfinished is known here"
)]
pub(crate) fn install() {
    let installed = ctrlc::set_handler(|| {
        let held = locked(&HELD);
        let second = REQUESTED.swap(true, Ordering::SeqCst);
        let busy = held.file.is_some() || held.paused.is_some() || held.results;
        if busy && !second {
            // The work sees the flag: it lets the target run, removes the file or tells what it has, and ends.
            return;
        }
        if let Some(paused) = &held.paused {
            run_again(paused.clone());
        }
        if let Some(path) = &held.file {
            // Ending now either way: a file that cannot be removed cannot be helped from here.
            drop(fs::remove_file(path));
        }
        process::exit(EXIT_CODE.into());
    });
    if let Err(error) = installed {
        log::warn!("Ctrl-C will not clean up: {error}");
    }
}

/// Lets a target run, unless that takes too long: its connector may be what hangs.
fn run_again(slot: Slot) {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || {
        let ended = end(&slot);
        // Nobody waits any more when the time is over.
        drop(done.send(ended));
    });
    let problem = match wait.recv_timeout(PATIENCE) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "its connector does not answer".to_owned(),
    };
    // Nobody is left to be told when this stream is closed.
    drop(writeln!(stderr(), "error: the target may stand still: {problem}; `memflow resume` lets it run"));
}

fn end(slot: &Mutex<Option<Pause>>) -> Result<(), Error> {
    let mut slot = locked(slot);
    slot.take().map_or(Ok(()), Pause::end)
}

/// True after Ctrl-C.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// While it lives, Ctrl-C leaves the ending to the work.
#[derive(Debug)]
pub(crate) struct Unfinished(Kind);

#[derive(Debug)]
enum Kind {
    File,
    Results,
}

impl Unfinished {
    /// Announces a file that is being written.
    pub(crate) fn new(path: &Path) -> Self {
        locked(&HELD).file = Some(path.to_owned());
        Self(Kind::File)
    }

    /// Announces results that are worth telling although more were asked for.
    pub(crate) fn results() -> Self {
        locked(&HELD).results = true;
        Self(Kind::Results)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let mut held = locked(&HELD);
        match self.0 {
            Kind::File => held.file = None,
            Kind::Results => held.results = false,
        }
    }
}

/// A target that stands still until this ends, is dropped, or Ctrl-C ends the process: once, whoever is first.
#[derive(Debug)]
pub(crate) struct Paused(Slot);

impl Paused {
    /// Stops a target by `pause`. From before it is called, Ctrl-C leaves the ending to the work.
    ///
    /// # Errors
    /// Those of `pause`.
    pub(crate) fn new(pause: impl FnOnce() -> Result<Pause, Error>) -> Result<Self, Error> {
        let this = Self(Slot::default());
        {
            let mut slot = locked(&this.0);
            locked(&HELD).paused = Some(this.0.clone());
            *slot = Some(pause()?);
        }
        Ok(this)
    }

    /// Lets the target run again, if it ran before.
    ///
    /// # Errors
    /// Why it does not run.
    pub(crate) fn end(self) -> Result<(), Error> {
        end(&self.0)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = end(&self.0) {
            log::error!("the target could not be resumed and stands still: {error}");
        }
        locked(&HELD).paused = None;
    }
}

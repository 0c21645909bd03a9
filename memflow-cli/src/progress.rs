//! Progress on the standard error stream.
//!
//! Owns: when progress is shown: only on a terminal, only when not quiet, and only once something takes longer than a second.
//! Must not know: what is being done.

use std::{
    io::{IsTerminal, stderr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long something may take before it has to say so.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two movements of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// True when progress may be shown at all.
fn wanted(quiet: bool) -> bool {
    !quiet && stderr().is_terminal()
}

/// How far something has come, in bytes: told by whoever does it, shown by the spinner.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    done: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
}

impl Meter {
    /// Says that `done` bytes of `total` are done.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }

    /// `what`, and how far it is once anything is known of that.
    fn describe(&self, what: &str) -> String {
        match (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed)) {
            (_, 0) => what.to_owned(),
            (done, total) => format!("{what}: {} of {}", BinaryBytes(done.min(total)), BinaryBytes(total)),
        }
    }
}

/// Runs `work`, with a spinner and `what` beside it once it takes longer than a second.
pub(crate) fn spin<T>(quiet: bool, what: &str, work: impl FnOnce() -> T) -> T {
    measure(quiet, what, &Meter::default(), work)
}

/// As [`spin`], for work that tells `meter` how far it is.
pub(crate) fn measure<T>(quiet: bool, what: &str, meter: &Meter, work: impl FnOnce() -> T) -> T {
    meter.set(0, 0);
    if !wanted(quiet) {
        return work();
    }
    let (done, wait) = mpsc::channel::<()>();
    let seen = meter.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(PATIENCE) != Err(mpsc::RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::new_spinner();
            while wait.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                bar.set_message(seen.describe(what));
                bar.tick();
            }
            bar.finish_and_clear();
        });
        let result = work();
        drop(done);
        result
    })
}

/// A bar over a known number of bytes.
#[derive(Debug)]
pub(crate) struct Bytes {
    bar: Option<ProgressBar>,
    started: Instant,
    shown: bool,
}

impl Bytes {
    /// A bar over `total` bytes.
    pub(crate) fn new(quiet: bool, total: u64) -> Self {
        let bar = wanted(quiet).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
            let template = "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self { bar, started: Instant::now(), shown: false }
    }

    /// Says that `bytes` more are done.
    pub(crate) fn advance(&mut self, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        if !self.shown && self.started.elapsed() >= PATIENCE {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
        bar.inc(bytes);
    }

    /// Does something that writes to the terminal, with the bar out of the way.
    pub(crate) fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) if self.shown => bar.suspend(work),
            _ => work(),
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meter_says_nothing_before_anything_is_known() {
        let meter = Meter::default();
        assert_eq!(meter.describe("opening"), "opening");
        meter.set(3 << 29, 2 << 30);
        assert_eq!(meter.describe("opening"), "opening: 1.50 GiB of 2.00 GiB");
    }
}

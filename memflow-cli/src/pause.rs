//! Targets that stand still while they are copied.
//!
//! Owns: whether a target is paused for that, and what is said when it cannot be. Must not know: what is copied; `interrupt` ends a
//! pause when the process is ended.
//! Keeps: a target is never left standing in silence.

use std::time::Instant;

use memflow_core::memory::{Liveness, Pause};

use crate::{
    failure::{Failure, Outcome},
    interrupt::Paused,
    output::Io,
    target::Target,
};

/// A target while it is copied.
#[derive(Debug)]
pub(crate) struct Still {
    paused: Option<(Paused, Instant)>,
    live: bool,
}

impl Still {
    /// Pauses a live target that can be; says so if it cannot, unless that is what the user wants (`leave`).
    ///
    /// # Errors
    /// When a target that can be paused does not stop.
    pub(crate) fn new(target: &Target, leave: bool, io: &mut Io<'_>) -> Outcome<Self> {
        let live = target.memory().metadata().liveness == Liveness::Live;
        let controlled = target.controlled().filter(|_| live && !leave);
        let Some(memory) = controlled else {
            if live && !leave {
                let torn = "what changes while it is written is torn";
                match target.path() {
                    // Of a file nobody knows whether a machine runs in it.
                    Some(_) => io.note(format_args!(
                        "a file cannot be paused: if a running machine's memory lies in it, {torn}"
                    )),
                    None => io.warn(format_args!("the target runs, and its connector cannot pause it: {torn}")),
                }
            }
            return Ok(Self { paused: None, live });
        };
        let paused = Paused::new(|| Pause::new(memory)).map_err(|error| {
            Failure::from(error.context("pausing the target (--no-pause leaves it running)".to_owned()))
        })?;
        io.note("the target is paused");
        Ok(Self { paused: Some((paused, Instant::now())), live: false })
    }

    /// True when the memory may change while it is copied.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Lets the target run again, if it ran before; says so if it does not.
    pub(crate) fn end(self, io: &mut Io<'_>) -> Outcome<()> {
        let Some((paused, since)) = self.paused else { return Ok(()) };
        paused.end().map_err(|error| {
            Failure::Request(
                error.context("the target stands still and does not run again (try `memflow resume`)".to_owned()),
            )
        })?;
        io.note(format_args!("the target was paused for {:.1} s", since.elapsed().as_secs_f64()));
        Ok(())
    }
}

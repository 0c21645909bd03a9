//! Control over a running target: stopping it, letting it run, looking at its vCPUs now.
//!
//! Owns: [`Control`], and [`Pause`], which lets a target run again whatever happens.
//! Must not know: how a connector does it.
//! Keeps: a target that was running before a [`Pause`] runs again after it; one that somebody else had stopped stays stopped.

use std::sync::Arc;

use super::{PhysicalMemory, VcpuRegisters};
use crate::error::{Error, Result};

/// Whether the vCPUs of a target execute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// They do.
    Running,
    /// They do not, and memory changes only by devices that are still at work.
    Paused,
}

/// What can be done to a running target beside reading and writing its memory.
pub trait Control: Send + Sync {
    /// Whether the target runs.
    ///
    /// # Errors
    /// The target is gone, or does not answer.
    fn run_state(&self) -> Result<RunState>;

    /// Stops all vCPUs. Returns when they stand; nothing happens to a target that is paused.
    ///
    /// # Errors
    /// As [`run_state`](Self::run_state), or the target refuses.
    fn pause(&self) -> Result<()>;

    /// Lets all vCPUs run. Nothing happens to a target that runs.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    fn resume(&self) -> Result<()>;

    /// The registers of each vCPU now; those in [`TargetFacts`](super::TargetFacts) are from when the target was opened.
    ///
    /// # Errors
    /// As [`run_state`](Self::run_state).
    fn registers(&self) -> Result<Vec<VcpuRegisters>>;
}

/// A target that stands still until this is dropped.
#[must_use = "the target runs again when this is dropped"]
pub struct Pause {
    memory: Arc<dyn PhysicalMemory>,
    was_running: bool,
}

impl Pause {
    /// Stops a target, if it runs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the target cannot be controlled; else why it does not stop.
    pub fn new(memory: Arc<dyn PhysicalMemory>) -> Result<Self> {
        let control = memory.control().ok_or_else(|| Error::Unsupported {
            what: format!("pausing {}", memory.metadata().name),
            why: "its connector has no control over whether it runs".to_owned(),
        })?;
        let was_running = control.run_state()? == RunState::Running;
        if was_running && let Err(error) = control.pause() {
            // It may have stopped all the same, with only the answer lost.
            let _ = control.resume();
            return Err(error);
        }
        Ok(Self { memory, was_running })
    }

    /// Lets the target run again, and says whether that worked, which dropping cannot.
    ///
    /// # Errors
    /// Why the target does not run again.
    pub fn end(mut self) -> Result<()> {
        self.resume()
    }

    fn resume(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.was_running) {
            return Ok(());
        }
        self.memory.control().map_or(Ok(()), Control::resume)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Err(error) = self.resume() {
            log::error!("{} could not be resumed and stands still: {error}", self.memory.metadata().name);
        }
    }
}

impl std::fmt::Debug for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pause")
            .field("target", &self.memory.metadata().name)
            .field("was_running", &self.was_running)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::{BufferMemory, RunMap, SourceConfig, TargetFacts},
        testkit::SwitchedMemory,
    };

    fn buffer() -> BufferMemory {
        BufferMemory::new(
            SourceConfig { name: "machine".into(), runs: RunMap::flat(16), facts: TargetFacts::default() },
            vec![0; 16],
        )
        .unwrap()
    }

    fn machine(running: bool) -> Arc<SwitchedMemory<BufferMemory>> {
        Arc::new(SwitchedMemory::new(buffer(), running))
    }

    #[test]
    fn what_ran_runs_again_when_the_pause_is_dropped() {
        let machine = machine(true);
        let pause = Pause::new(machine.clone()).unwrap();
        assert_eq!(machine.run_state().unwrap(), RunState::Paused);
        drop(pause);
        assert_eq!((machine.run_state().unwrap(), machine.resumes()), (RunState::Running, 1));
    }

    #[test]
    fn what_ran_runs_again_after_a_panic() {
        let machine = machine(true);
        let held = machine.clone();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _pause = Pause::new(held).unwrap();
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert!(panicked.is_err());
        assert_eq!((machine.run_state().unwrap(), machine.resumes()), (RunState::Running, 1));
    }

    #[test]
    fn what_stood_before_stands_after() {
        let machine = machine(false);
        Pause::new(machine.clone()).unwrap().end().unwrap();
        assert_eq!((machine.run_state().unwrap(), machine.resumes()), (RunState::Paused, 0));
    }

    #[test]
    fn pause_that_fails_half_way_leaves_the_target_running() {
        let stubborn = |_: &BufferMemory, running| if running { Ok(()) } else { Err(Error::Cancelled) };
        let machine = Arc::new(SwitchedMemory::new(buffer(), true).on_switch(stubborn));
        assert!(matches!(Pause::new(machine.clone()), Err(Error::Cancelled)));
        assert_eq!(machine.run_state().unwrap(), RunState::Running);
    }

    #[test]
    fn memory_without_control_says_so() {
        let error = Pause::new(Arc::new(buffer())).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}

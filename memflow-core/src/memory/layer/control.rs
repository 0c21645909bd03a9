//! Control over a target through a layer that keeps things.
//!
//! Must not know: what a layer keeps.
//! Keeps: once this has said that a target stands, nothing is served that was read or worked out while it ran.

use crate::{
    error::{Error, Result},
    memory::{Control, PhysicalMemory, RunState, VcpuRegisters},
};

/// A layer that keeps something of the memory below.
pub(super) trait Keeps: PhysicalMemory {
    /// The memory below.
    fn below(&self) -> &dyn PhysicalMemory;

    /// Forgets all that is kept.
    fn forget_all(&self);

    /// This, if the memory below can be controlled.
    fn control_below(&self) -> Option<&dyn Control>
    where
        Self: Sized,
    {
        self.below().control().map(|_| self as &dyn Control)
    }
}

/// The control below, which was there when this was handed out.
fn below<L: Keeps>(layer: &L) -> Result<&dyn Control> {
    layer.below().control().ok_or_else(|| Error::Unsupported {
        what: format!("control over {}", layer.below().metadata().name),
        why: "its connector no longer has any".to_owned(),
    })
}

impl<L: Keeps> Control for L {
    fn run_state(&self) -> Result<RunState> {
        let state = below(self)?.run_state()?;
        // Somebody else may have paused it.
        if state == RunState::Paused {
            self.forget_all();
        }
        Ok(state)
    }

    fn pause(&self) -> Result<()> {
        below(self)?.pause()?;
        self.forget_all();
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        below(self)?.resume()
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        below(self)?.registers()
    }
}

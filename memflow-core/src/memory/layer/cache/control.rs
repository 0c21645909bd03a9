//! Control over a target whose memory is cached.
//!
//! Must not know: what is in a page.
//! Keeps: once this has said that a target stands, no page is served that was read while it ran.

use super::CacheLayer;
use crate::{
    error::{Error, Result},
    memory::{Control, RunState, VcpuRegisters},
};

impl CacheLayer {
    /// This, if the memory below can be controlled.
    pub(super) fn control_below(&self) -> Option<&dyn Control> {
        self.below.control().map(|_| self as &dyn Control)
    }

    /// The control below, which was there when this was handed out.
    fn below(&self) -> Result<&dyn Control> {
        self.below.control().ok_or_else(|| Error::Unsupported {
            what: format!("control over {}", self.below.metadata().name),
            why: "its connector no longer has any".to_owned(),
        })
    }
}

impl Control for CacheLayer {
    fn run_state(&self) -> Result<RunState> {
        let state = self.below()?.run_state()?;
        // Somebody else may have paused it.
        if state == RunState::Paused {
            self.flush();
        }
        Ok(state)
    }

    fn pause(&self) -> Result<()> {
        self.below()?.pause()?;
        self.flush();
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        self.below()?.resume()
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        self.below()?.registers()
    }
}

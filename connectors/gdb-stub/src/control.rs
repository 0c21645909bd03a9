//! Whether the target runs, and its registers now.
//!
//! Owns: [`Control`] of [`GdbMemory`]. Must not know: packets.
//! Keeps: once this has said that a target stands, no translation is used that was worked out while it ran.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    Result,
    memory::{Control, RunState, VcpuRegisters},
};

use crate::{memory::GdbMemory, registers};

impl Control for GdbMemory {
    fn run_state(&self) -> Result<RunState> {
        if self.session().runs()? {
            return Ok(RunState::Running);
        }
        // Somebody else may have stopped it.
        self.lookaside.flush();
        Ok(RunState::Paused)
    }

    fn pause(&self) -> Result<()> {
        self.session().pause()?;
        self.lookaside.flush();
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        self.session().resume()
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        registers::read(&mut self.session(), &self.description)
    }
}

//! Whether the target runs, and its registers now.
//!
//! Owns: [`Control`] of [`GdbMemory`]. Must not know: packets.
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
        Ok(if self.session().runs()? { RunState::Running } else { RunState::Paused })
    }

    fn pause(&self) -> Result<()> {
        self.session().pause()
    }

    fn resume(&self) -> Result<()> {
        self.session().resume()
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        registers::read(&mut self.session(), &self.description)
    }
}

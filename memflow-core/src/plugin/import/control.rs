//! Control over a target of the other side.
//!
//! Owns: whether there is any, and what the answers mean. Must not know: who pauses, and why.
//! Keeps: a state that is not known is an error, never taken for another.

use std::{ffi::c_void, sync::Arc};

use memflow_abi::{FailureSink, MemoryTable, RecordSink, run_state};

use super::{
    collect,
    handle::{Handle, blamed, broken, required},
    os::filled,
};
use crate::{
    error::{Error, Result},
    memory::{Control, RunState, VcpuRegisters},
    plugin::wire::failure,
};

type StateFn = unsafe extern "C" fn(*mut c_void, *mut u32, FailureSink) -> i32;
type ChangeFn = unsafe extern "C" fn(*mut c_void, FailureSink) -> i32;
type ListFn = unsafe extern "C" fn(*mut c_void, RecordSink, FailureSink) -> i32;

/// The functions that control a target.
pub(super) struct Controlled {
    who: String,
    // INVARIANT: the functions below are those of its table.
    handle: Arc<Handle>,
    run_state: StateFn,
    pause: ChangeFn,
    resume: ChangeFn,
    registers: Option<ListFn>,
}

impl Controlled {
    /// The control that a table offers, if any: all functions that it takes, or none.
    ///
    /// # Errors
    /// When one of them is missing.
    ///
    /// # Safety
    /// The table is that of the handle.
    pub(super) unsafe fn new(table: &MemoryTable, handle: &Arc<Handle>, who: &str) -> Result<Option<Self>> {
        if table.run_state.is_none() && table.pause.is_none() && table.resume.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            who: who.to_owned(),
            handle: handle.clone(),
            run_state: required(who, "run_state", table.run_state)?,
            pause: required(who, "pause", table.pause)?,
            resume: required(who, "resume", table.resume)?,
            registers: table.registers,
        }))
    }

    fn change(&self, function: ChangeFn) -> Result<()> {
        // SAFETY: a function of the handle's table (INVARIANT) with its context.
        let called = failure::call(|failure| unsafe { function(self.handle.context(), failure) });
        called.map_err(|error| blamed(&self.who, error))
    }
}

impl Control for Controlled {
    fn run_state(&self) -> Result<RunState> {
        // SAFETY: a function of the handle's table (INVARIANT) with its context; the number is the callee's to fill in.
        let ask = |state: *mut u32, failure| unsafe { (self.run_state)(self.handle.context(), state, failure) };
        // SAFETY: zero is a number.
        match unsafe { filled(&self.who, ask) }? {
            run_state::RUNNING => Ok(RunState::Running),
            run_state::PAUSED => Ok(RunState::Paused),
            state => Err(broken(
                &self.who,
                format_args!(
                    "state {state} of its target is neither {} (running) nor {} (paused)",
                    run_state::RUNNING,
                    run_state::PAUSED
                ),
            )),
        }
    }

    fn pause(&self) -> Result<()> {
        self.change(self.pause)
    }

    fn resume(&self) -> Result<()> {
        self.change(self.resume)
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        let function = self.registers.ok_or_else(|| Error::Unsupported {
            what: "the registers of a target now".to_owned(),
            why: format!("{} does not tell them", self.who),
        })?;
        // SAFETY: a function of the handle's table (INVARIANT) with its context.
        collect(&self.who, |sink, failure| unsafe { function(self.handle.context(), sink, failure) })?.into_complete()
    }
}

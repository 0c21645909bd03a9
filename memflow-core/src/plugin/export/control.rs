//! Control over a target behind the C interface.
//!
//! Owns: the functions that only the table of memory with control has. Must not know: how a target is stopped.

use std::ffi::c_void;

use memflow_abi::{FailureSink, RecordSink, run_state};

use super::{guard, memory::Exported, os::complete, shared};
use crate::{
    error::{Error, Result},
    memory::{Control, RunState},
};

impl Exported {
    /// What the target is controlled by: there when the handle was made, and for as long as that is true of the memory.
    fn control(&self) -> Result<&dyn Control> {
        self.memory.control().ok_or_else(|| Error::Unsupported {
            what: format!("control over {}", self.memory.metadata().name),
            why: "its connector no longer has any".to_owned(),
        })
    }
}

pub(super) unsafe extern "C" fn run_state(context: *mut c_void, state: *mut u32, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    let ask = || {
        let number = match exported.control()?.run_state()? {
            RunState::Running => run_state::RUNNING,
            RunState::Paused => run_state::PAUSED,
        };
        // SAFETY: the ABI's contract: `state` is the callee's to fill in.
        unsafe { state.write(number) };
        Ok(())
    };
    // SAFETY: the ABI's contract: the sink can be called for the call.
    unsafe { guard::fallible(failure, ask) }
}

pub(super) unsafe extern "C" fn pause(context: *mut c_void, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    // SAFETY: the ABI's contract: the sink can be called for the call.
    unsafe { guard::fallible(failure, || exported.control()?.pause()) }
}

pub(super) unsafe extern "C" fn resume(context: *mut c_void, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    // SAFETY: the ABI's contract: the sink can be called for the call.
    unsafe { guard::fallible(failure, || exported.control()?.resume()) }
}

pub(super) unsafe extern "C" fn registers(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, || Ok(complete(exported.control()?.registers()?))) }
}

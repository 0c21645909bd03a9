//! The edge: nothing unwinds past it.
//!
//! Owns: what becomes of a panic, and how lists and failures leave. Must not know: what is called.
//! Keeps: what was thrown is foreign code too: it may panic when it is dropped.

use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use memflow_abi::{FailureSink, Grows, Header, RecordSink};

use crate::{
    error::{Error, ErrorKind, Result},
    os::Listing,
    plugin::wire::{failure, records::Record},
};

/// Returned when a call failed and said why.
const FAILED: i32 = 1;
/// Returned when a call panicked.
const PANICKED: i32 = 2;

/// Runs what may panic.
///
/// # Errors
/// What was thrown, in words.
fn caught<T>(run: impl FnOnce() -> T) -> std::result::Result<T, String> {
    // After a panic the object may be half changed, but in no way that is unsound: the code inside is safe code that shares by `&`.
    catch_unwind(AssertUnwindSafe(run)).map_err(|thrown| {
        let text = words(&*thrown).to_owned();
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
            // Enough: this one is not even dropped.
            mem::forget(again);
        }
        text
    })
}

/// What was thrown, in words.
fn words(thrown: &(dyn Any + Send)) -> &str {
    let text = thrown.downcast_ref::<&str>().copied().or_else(|| thrown.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it did not say why")
}

/// Runs what may panic; a panic is logged and gives `otherwise`.
pub(super) fn quietly<T>(otherwise: T, run: impl FnOnce() -> T) -> T {
    caught(run).unwrap_or_else(|why| {
        // A plugin may bring a logger of its own. When that panics too, there is nobody left to tell.
        drop(caught(|| ::log::error!("the code of a plugin panicked: {why}")));
        otherwise
    })
}

/// Runs a call that may fail.
///
/// # Safety
/// The sink's function can be called with its context.
pub(super) unsafe fn fallible(sink: FailureSink, run: impl FnOnce() -> Result<()>) -> i32 {
    let panicked = |why| {
        let message = format!("the code of the plugin panicked: {why}");
        Error::Foreign { kind: ErrorKind::Panic, message, access: None }
    };
    let (status, error) = match caught(run) {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => (FAILED, error),
        Err(why) => (PANICKED, panicked(why)),
    };
    // Making the text of an error runs code of the plugin too, and so does dropping it.
    // SAFETY: the caller's promise.
    let told = caught(|| unsafe {
        failure::tell(sink, &error);
        drop(error);
    });
    if let Err(why) = told {
        // SAFETY: the caller's promise.
        unsafe { failure::tell(sink, &panicked(why)) };
    }
    status
}

/// Runs a call that lists.
///
/// # Safety
/// The functions of both sinks can be called with their contexts.
pub(super) unsafe fn list<R: Record>(
    sink: RecordSink,
    failure: FailureSink,
    run: impl FnOnce() -> Result<Listing<R>>,
) -> i32 {
    let hand_over = || {
        let Listing { items, problems } = run()?;
        for item in &items {
            // SAFETY: the caller's promise; the structure is whole for the call.
            let more = item.with_wire(|wire| unsafe { give(sink, wire) });
            if !more {
                return Ok(());
            }
        }
        for error in &problems {
            if let Some(problem) = sink.problem {
                // SAFETY: the caller's promise; the structure is whole for the call.
                failure::with_wire(error, |wire| unsafe { problem(sink.context, Grows::new(wire)) });
            }
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { fallible(failure, hand_over) }
}

/// Gives one record to a sink; false when it wants no more.
///
/// # Safety
/// As [`list`], and the structure starts with a header.
unsafe fn give<W>(sink: RecordSink, wire: &W) -> bool {
    let Some(item) = sink.item else { return true };
    // SAFETY: the caller's promise.
    unsafe { item(sink.context, (&raw const *wire).cast::<Header>()) == 0 }
}

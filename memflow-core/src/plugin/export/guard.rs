//! The edge: nothing unwinds past it.
//!
//! Owns: what becomes of a panic, and how lists and failures leave. Must not know: what is called.

use std::{
    any::Any,
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

/// What was thrown, in words.
fn words(thrown: &(dyn Any + Send)) -> String {
    let text = thrown.downcast_ref::<&str>().copied().or_else(|| thrown.downcast_ref::<String>().map(String::as_str));
    format!("the code of a plugin panicked: {}", text.unwrap_or("it did not say why"))
}

/// Runs what may panic; a panic is logged and gives `otherwise`.
pub(super) fn quietly<T>(otherwise: T, run: impl FnOnce() -> T) -> T {
    // After a panic the object may be half changed, but in no way that is unsound: the code inside is safe code that shares by `&`.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|thrown| {
        ::log::error!("{}", words(&*thrown));
        otherwise
    })
}

/// Runs a call that has no place for a failure but its status.
pub(super) fn status(run: impl FnOnce()) -> i32 {
    quietly(PANICKED, || {
        run();
        0
    })
}

/// Runs a call that may fail.
///
/// # Safety
/// The sink's function can be called with its context.
pub(super) unsafe fn fallible(sink: FailureSink, run: impl FnOnce() -> Result<()>) -> i32 {
    let (status, error) = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => (FAILED, error),
        Err(thrown) => (PANICKED, Error::Foreign { kind: ErrorKind::Panic, message: words(&*thrown), access: None }),
    };
    // Making the text of an error runs code of the plugin too.
    // SAFETY: the caller's promise.
    quietly((), || unsafe { failure::tell(sink, &error) });
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

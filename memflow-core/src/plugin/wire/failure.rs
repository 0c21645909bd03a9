//! Errors as a number, a text and, for accesses of memory, the access.
//!
//! Owns: both directions of [`Error`], and the sink that a call puts its failure into. Must not know: which call failed.
//! Keeps: the text that a person reads and the answers of [`Error::kind`] and [`Error::reason`] are the same on both sides.

use std::{ffi::c_void, sync::Mutex};

use memflow_abi::{Failure, FailureSink, Grows, Text, access, address_space, failure};

use super::{outcome, raw};
use crate::{
    address::{PhysAddr, VirtAddr},
    error::{AccessKind, AnyAddr, Error, ErrorKind},
};

/// Each kind and its number.
const KINDS: &[(ErrorKind, u32)] = &[
    (ErrorKind::Access, failure::ACCESS),
    (ErrorKind::Range, failure::RANGE),
    (ErrorKind::Contract, failure::CONTRACT),
    (ErrorKind::Format, failure::FORMAT),
    (ErrorKind::File, failure::FILE),
    (ErrorKind::Io, failure::IO),
    (ErrorKind::Overlap, failure::OVERLAP),
    (ErrorKind::NotRecognised, failure::NOT_RECOGNISED),
    (ErrorKind::Unsupported, failure::UNSUPPORTED),
    (ErrorKind::NotFound, failure::NOT_FOUND),
    (ErrorKind::Argument, failure::ARGUMENT),
    (ErrorKind::Corrupt, failure::CORRUPT),
    (ErrorKind::Limit, failure::LIMIT),
    (ErrorKind::Cycle, failure::CYCLE),
    (ErrorKind::Cancelled, failure::CANCELLED),
    (ErrorKind::Panic, failure::PANIC),
    (ErrorKind::Other, failure::OTHER),
];

/// Hands an error to `give`, as the structure that borrows from it.
pub(crate) fn with_wire<T>(error: &Error, give: impl FnOnce(&Failure) -> T) -> T {
    let message = error.to_string();
    let mut wire = Failure::empty();
    wire.kind = KINDS.iter().find(|(kind, _)| *kind == error.kind()).map_or(failure::OTHER, |(_, number)| *number);
    wire.message = Text::new(&message);
    let root = match error.root_cause() {
        Error::Foreign { access: Some(access), .. } => access,
        root => root,
    };
    match root {
        Error::Access { kind, address, len, reason } => {
            wire.access = match kind {
                AccessKind::Read => access::READ,
                AccessKind::Write => access::WRITE,
            };
            (wire.space, wire.address) = match address {
                AnyAddr::Phys(address) => (address_space::PHYSICAL, address.as_u64()),
                AnyAddr::Virt(address) => (address_space::VIRTUAL, address.as_u64()),
            };
            wire.len = *len;
            wire.outcome = outcome::reason_to_wire(*reason);
        }
        Error::Io { source, .. } => wire.outcome.os_error = source.raw_os_error().unwrap_or(0),
        _ => {}
    }
    give(&wire)
}

/// The error that the other side told.
///
/// # Safety
/// As [`raw::structure`], and the message as [`raw::bytes`].
pub(crate) unsafe fn from_wire(source: Grows<Failure>) -> Error {
    // SAFETY: the caller's promise.
    let Some(wire) = (unsafe { raw::structure(source) }) else {
        return untold("something that is no failure record");
    };
    let kind = KINDS.iter().find(|(_, number)| *number == wire.kind).map_or(ErrorKind::Other, |(kind, _)| *kind);
    if kind == ErrorKind::Cancelled {
        return Error::Cancelled;
    }
    // SAFETY: the caller's promise.
    let message = unsafe { raw::string(wire.message) };
    let access = (kind == ErrorKind::Access).then(|| Error::Access {
        kind: if wire.access == access::WRITE { AccessKind::Write } else { AccessKind::Read },
        address: match wire.space {
            address_space::VIRTUAL => VirtAddr::new(wire.address).into(),
            _ => PhysAddr::new(wire.address).into(),
        },
        len: wire.len,
        reason: outcome::reason_from_wire(&wire.outcome),
    });
    match access {
        Some(access) if access.to_string() == message => access,
        access => Error::Foreign { kind, message, access: access.map(Box::new) },
    }
}

fn untold(what: &str) -> Error {
    Error::Foreign { kind: ErrorKind::Contract, message: format!("a plugin failed with {what}"), access: None }
}

/// Carries out a call that returns a status and may put its failure into a sink.
///
/// # Errors
/// The failure that was told, or that none was, when the status is not zero.
pub(crate) fn call(call: impl FnOnce(FailureSink) -> i32) -> Result<(), Error> {
    // Nothing says on which thread the sink is called.
    let told = Mutex::new(None::<Error>);
    let sink = FailureSink { context: (&raw const told).cast_mut().cast(), set: Some(set) };
    match call(sink) {
        0 => Ok(()),
        status => {
            let told = told.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
            Err(told.unwrap_or_else(|| untold(&format!("status {status} and did not say why"))))
        }
    }
}

/// Takes a failure into the sink of [`call`].
unsafe extern "C" fn set(context: *mut c_void, failure: Grows<Failure>) {
    // SAFETY: the ABI's contract: the failure is whole for the call.
    let error = unsafe { from_wire(failure) };
    // SAFETY: the context is the one that `call` gave, which is there for as long as the call lasts.
    let told = unsafe { &*context.cast::<Mutex<Option<Error>>>() };
    *told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
}

/// Puts an error into a sink of the other side.
///
/// # Safety
/// The sink's function can be called with its context.
pub(crate) unsafe fn tell(sink: FailureSink, error: &Error) {
    if let Some(set) = sink.set {
        // SAFETY: the caller's promise; the structure is whole for the call.
        with_wire(error, |wire| unsafe { set(sink.context, Grows::new(wire)) });
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{super::outcome::tests::reasons, *};

    fn there_and_back(error: &Error) -> Error {
        // SAFETY: the structure is whole for the call.
        with_wire(error, |wire| unsafe { from_wire(Grows::new(wire)) })
    }

    #[test]
    fn access_errors_come_back_as_they_were() {
        for reason in reasons() {
            let error = Error::Access { kind: AccessKind::Write, address: VirtAddr::new(7).into(), len: 9, reason };
            let back = there_and_back(&error);
            assert!(matches!(back, Error::Access { .. }), "{back:?}");
            assert_eq!((back.to_string(), back.reason()), (error.to_string(), Some(reason)));
            let error = error.context("process 7");
            let back = there_and_back(&there_and_back(&error));
            assert_eq!((back.to_string(), back.reason()), (error.to_string(), Some(reason)));
            assert_eq!(back.kind(), ErrorKind::Access);
        }
    }

    #[test]
    fn other_errors_keep_text_and_kind() {
        for error in [
            Error::NotFound { what: "symbol", name: "x".into() },
            Error::io("opening x", io::Error::from_raw_os_error(2)),
            Error::NotRecognised { what: "kernel", looked_for: "this".into() }.context("x"),
            Error::Unanswered { who: "x".into(), index: 3 },
        ] {
            let back = there_and_back(&error);
            assert_eq!((back.to_string(), back.kind()), (error.to_string(), error.kind()));
        }
        assert!(matches!(there_and_back(&Error::Cancelled.context("x")), Error::Cancelled));
    }

    #[test]
    fn failure_without_reason_is_still_one() {
        assert_eq!(call(|_| 3).unwrap_err().to_string(), "a plugin failed with status 3 and did not say why");
        // SAFETY: the sink is that of the call.
        let told = call(|sink| unsafe {
            tell(sink, &Error::Cancelled);
            1
        });
        assert!(matches!(told, Err(Error::Cancelled)));
        assert!(call(|_| 0).is_ok());
    }
}

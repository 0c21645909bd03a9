//! Outcomes of operations.
//!
//! Must not know: operations, memory.

use memflow_abi::{Outcome as Wire, cause, status};

use crate::{
    address::PhysAddr,
    error::{Reason, Stop, StopCause},
    memory::Outcome,
};

const NOTHING: Wire =
    Wire { status: status::NOT_ATTEMPTED, level: 0, cause: 0, os_error: 0, offset: 0, address: 0, entry: 0 };

/// An outcome for the other side.
pub(crate) fn to_wire(outcome: Outcome) -> Wire {
    match outcome {
        Outcome::NotAttempted => NOTHING,
        Outcome::Done => Wire { status: status::DONE, ..NOTHING },
        Outcome::Failed { offset, reason } => Wire { offset, ..reason_to_wire(reason) },
    }
}

/// An outcome of the other side.
pub(crate) fn from_wire(wire: &Wire) -> Outcome {
    match wire.status {
        status::NOT_ATTEMPTED => Outcome::NotAttempted,
        status::DONE => Outcome::Done,
        _ => Outcome::Failed { offset: wire.offset, reason: reason_from_wire(wire) },
    }
}

/// A reason for the other side.
pub(crate) fn reason_to_wire(reason: Reason) -> Wire {
    match reason {
        Reason::NotMapped(Stop { level, table, entry, cause }) => Wire {
            status: status::NOT_MAPPED,
            level: level.into(),
            cause: match cause {
                StopCause::NotCanonical => cause::NOT_CANONICAL,
                StopCause::NotPresent => cause::NOT_PRESENT,
                StopCause::ReservedBit => cause::RESERVED_BIT,
                StopCause::TableNotInImage => cause::TABLE_NOT_IN_IMAGE,
                StopCause::TableUnreadable => cause::TABLE_UNREADABLE,
                StopCause::Unknown => u32::MAX,
            },
            address: table.as_u64(),
            entry,
            ..NOTHING
        },
        Reason::PagedOut { entry } => Wire { status: status::PAGED_OUT, entry, ..NOTHING },
        Reason::NotInImage { phys } => Wire { status: status::NOT_IN_IMAGE, address: phys.as_u64(), ..NOTHING },
        Reason::Excluded { phys } => Wire { status: status::EXCLUDED, address: phys.as_u64(), ..NOTHING },
        Reason::Damaged { phys } => Wire { status: status::DAMAGED, address: phys.as_u64(), ..NOTHING },
        Reason::Truncated { phys } => Wire { status: status::TRUNCATED, address: phys.as_u64(), ..NOTHING },
        Reason::OutOfRange => Wire { status: status::OUT_OF_RANGE, ..NOTHING },
        Reason::ReadOnly => Wire { status: status::READ_ONLY, ..NOTHING },
        Reason::Io { errno } => Wire { status: status::IO, os_error: errno, ..NOTHING },
        Reason::Panicked => Wire { status: status::PANICKED, ..NOTHING },
        Reason::Unknown { status } => Wire { status, ..NOTHING },
    }
}

/// The reason in an outcome that is neither done nor untried.
pub(crate) fn reason_from_wire(wire: &Wire) -> Reason {
    let phys = PhysAddr::new(wire.address);
    match wire.status {
        status::NOT_MAPPED => Reason::NotMapped(Stop {
            level: u8::try_from(wire.level).unwrap_or(u8::MAX),
            table: phys,
            entry: wire.entry,
            cause: stop_cause(wire.cause),
        }),
        status::PAGED_OUT => Reason::PagedOut { entry: wire.entry },
        status::NOT_IN_IMAGE => Reason::NotInImage { phys },
        status::EXCLUDED => Reason::Excluded { phys },
        status::DAMAGED => Reason::Damaged { phys },
        status::TRUNCATED => Reason::Truncated { phys },
        status::OUT_OF_RANGE => Reason::OutOfRange,
        status::READ_ONLY => Reason::ReadOnly,
        status::IO => Reason::Io { errno: wire.os_error },
        status::PANICKED => Reason::Panicked,
        status => Reason::Unknown { status },
    }
}

/// The cause with that number.
fn stop_cause(number: u32) -> StopCause {
    match number {
        cause::NOT_CANONICAL => StopCause::NotCanonical,
        cause::NOT_PRESENT => StopCause::NotPresent,
        cause::RESERVED_BIT => StopCause::ReservedBit,
        cause::TABLE_NOT_IN_IMAGE => StopCause::TableNotInImage,
        cause::TABLE_UNREADABLE => StopCause::TableUnreadable,
        _ => StopCause::Unknown,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One reason of each kind.
    pub(crate) fn reasons() -> Vec<Reason> {
        let phys = PhysAddr::new(0x1234_5000);
        let causes = [
            StopCause::NotCanonical,
            StopCause::NotPresent,
            StopCause::ReservedBit,
            StopCause::TableNotInImage,
            StopCause::TableUnreadable,
            StopCause::Unknown,
        ];
        let stops = causes.map(|cause| Reason::NotMapped(Stop { level: 3, table: phys, entry: 0xabc, cause }));
        let others = [
            Reason::PagedOut { entry: 0xdef },
            Reason::NotInImage { phys },
            Reason::Excluded { phys },
            Reason::Damaged { phys },
            Reason::Truncated { phys },
            Reason::OutOfRange,
            Reason::ReadOnly,
            Reason::Io { errno: 5 },
            Reason::Panicked,
            Reason::Unknown { status: 77 },
        ];
        stops.into_iter().chain(others).collect()
    }

    #[test]
    fn outcomes_come_back_as_they_were() {
        let failed = reasons().into_iter().map(|reason| Outcome::Failed { offset: 0x77, reason });
        for outcome in [Outcome::NotAttempted, Outcome::Done].into_iter().chain(failed) {
            assert_eq!(from_wire(&to_wire(outcome)), outcome);
        }
    }

    #[test]
    fn unknown_numbers_are_never_taken_for_another_outcome() {
        let later = Wire { status: 1000, ..NOTHING };
        assert_eq!(from_wire(&later), Outcome::Failed { offset: 0, reason: Reason::Unknown { status: 1000 } });
    }
}

//! What happens, and where.
//!
//! Must not know: any function.

use std::{
    io,
    panic::{self, panic_any},
    sync::Once,
    thread,
    time::Duration,
};

use memflow_core::{
    Error, PhysAddr, PhysRange, Reason, Result, error::AccessKind, memory::Outcome, plugin::args::Args,
};

static SILENCE: Once = Once::new();

/// Where something happens, and what.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    at: String,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Nothing,
    /// A panic with a text.
    Panic,
    /// A panic with something that is no text.
    Payload,
    /// A panic with something that panics when it is dropped.
    Bomb,
    /// An error of that kind.
    Error(String),
    /// The last operation of a batch is left out.
    Fewer,
    /// An error, with operations that say that they were done.
    Contradiction,
    /// Nothing, for longer than anybody waits.
    Hang,
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_any(Bomb);
    }
}

impl Fault {
    pub(crate) fn new(args: &Args) -> Result<Self> {
        // What is asked for is no news.
        SILENCE.call_once(|| panic::set_hook(Box::new(|_| ())));
        let what = match args.text("fault")?.unwrap_or_default() {
            "panic" => What::Panic,
            "payload" => What::Payload,
            "bomb" => What::Bomb,
            "error" => What::Error(args.text("kind")?.unwrap_or_default().to_owned()),
            "fewer" => What::Fewer,
            "contradiction" => What::Contradiction,
            "hang" => What::Hang,
            _ => What::Nothing,
        };
        Ok(Self { at: args.text("at")?.unwrap_or_default().to_owned(), what })
    }

    /// True when this is the place, whatever happens there.
    pub(crate) fn is_at(&self, at: &str) -> bool {
        self.at == at
    }

    /// Misbehaves, if this is the place.
    pub(crate) fn trip(&self, at: &str) -> Result<()> {
        if self.at != at {
            return Ok(());
        }
        match &self.what {
            What::Panic => panic!("as asked, in {at}"),
            What::Payload => panic_any(42),
            What::Bomb => panic_any(Bomb),
            What::Error(kind) => Err(error(kind)),
            What::Hang => {
                thread::sleep(Duration::from_secs(600));
                Ok(())
            }
            What::Nothing | What::Fewer | What::Contradiction => Ok(()),
        }
    }

    /// True when this is the place, and nothing comes back from it.
    pub(crate) fn hangs(&self, at: &str) -> bool {
        self.at == at && self.what == What::Hang
    }

    /// Where there is no place for an error.
    pub(crate) fn trip_or_not(&self, at: &str) {
        // Only panics are asked for there.
        drop(self.trip(at));
    }

    /// How many of these operations are carried out.
    pub(crate) fn carried_out(&self, at: &str, operations: usize) -> usize {
        operations - usize::from(self.at == at && self.what == What::Fewer && operations != 0)
    }

    /// True when an error is told with operations that are done.
    pub(crate) fn contradicts(&self, at: &str) -> bool {
        self.at == at && self.what == What::Contradiction
    }
}

/// An error of the kind with that name.
pub(crate) fn error(kind: &str) -> Error {
    let address = PhysAddr::new(0x10);
    let range = |start| PhysRange::new(PhysAddr::new(start), 0x20);
    match kind {
        "Access" => {
            Error::Access { kind: AccessKind::Read, address: address.into(), len: 8, reason: Reason::OutOfRange }
        }
        "Range" => Error::Range { address: address.into(), len: 9 },
        "Contract" => Error::Unanswered { who: "it".to_owned(), index: 3 },
        "Format" => Error::Format { path: "a".into(), format: "b", offset: 1, expected: "c".into(), found: "d".into() },
        "File" => Error::File { path: "a".into(), problem: "is not what it was".into() },
        "Io" => Error::io("looking", io::Error::from_raw_os_error(5)),
        "Overlap" => match (range(0), range(0x10)) {
            (Some(first), Some(second)) => Error::Overlap { first, second },
            _ => Error::Cancelled,
        },
        "NotRecognised" => Error::NotRecognised { what: "system", looked_for: "this".to_owned() },
        "Unsupported" => Error::Unsupported { what: "a".to_owned(), why: "b".to_owned() },
        "NotFound" => Error::NotFound { what: "a", name: "b".to_owned() },
        "Argument" => Error::Argument { what: "a".into(), expected: "b".into(), found: "c".to_owned() },
        "Corrupt" => Error::Corrupt { what: "a", address: address.into(), expected: "b".into(), found: "c".into() },
        "Limit" => Error::Limit { what: "a", address: address.into(), limit: 7 },
        "Cycle" => Error::Cycle { what: "a", address: address.into(), entries: 7 },
        _ => Error::Cancelled,
    }
}

/// Marks operations as done.
pub(crate) fn done<'a>(outcomes: impl Iterator<Item = &'a mut Outcome>) {
    for outcome in outcomes {
        *outcome = Outcome::Done;
    }
}

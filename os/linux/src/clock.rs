//! The kernel's clock.
//!
//! Owns: where the timekeeper lies and which of its numbers mean what. Must not know: what a time is used for.
//! Keeps: a time that no machine can have is an error.
//! Source: Linux `kernel/time/timekeeping.c`, `include/linux/timekeeper_internal.h`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::time::Duration;

use memflow_core::{Error, MemoryViewExt, Result, VirtAddr, view::SpaceView};

use crate::{symbols::Symbols, types::Types};

/// The records of a kernel's clock.
#[derive(Debug)]
pub(crate) struct Clock<'a> {
    view: &'a SpaceView,
    types: &'a Types,
    timekeeper: VirtAddr,
}

impl<'a> Clock<'a> {
    /// Finds the clock of a kernel.
    pub(crate) fn find(view: &'a SpaceView, symbols: &Symbols, types: &'a Types) -> Result<Self> {
        // `tk_core` until v6.16, then the first of `timekeeper_data`. It is a `tk_data` since v6.13; before, an unnamed structure
        // of a sequence counter (8 bytes) and the timekeeper.
        let core = match symbols.address_of("tk_core") {
            Some(core) => core,
            None => symbols.require("timekeeper_data")?,
        };
        let offset = types.find_field("tk_data", "timekeeper").map_or(8, |field| field.offset);
        Ok(Self { view, types, timekeeper: core.wrapping_add(offset) })
    }

    fn signed(&self, member: &str) -> Result<i64> {
        let field = self.types.field("timekeeper", member)?;
        self.view.read::<i64>(self.timekeeper.wrapping_add(field.offset)).map(i64::from_le)
    }

    /// The time since the start of 1970 (UTC), in whole seconds, as of the last tick.
    pub(crate) fn now(&self) -> Result<Duration> {
        let seconds = self.signed("xtime_sec")?;
        u64::try_from(seconds).map(Duration::from_secs).map_err(|_| self.impossible("a time after 1970", seconds))
    }

    /// The time of the boot since the start of 1970 (UTC).
    pub(crate) fn boot(&self) -> Result<Duration> {
        let (real, boot) = (self.signed("offs_real")?, self.signed("offs_boot")?);
        let time = real.checked_sub(boot).and_then(|time| u64::try_from(time).ok());
        time.map(Duration::from_nanos).ok_or_else(|| self.impossible("a boot after 1970", real))
    }

    fn impossible(&self, expected: &'static str, found: i64) -> Error {
        Error::Corrupt {
            what: "timekeeper",
            address: self.timekeeper.into(),
            expected: expected.into(),
            found: found.to_string().into(),
        }
    }
}

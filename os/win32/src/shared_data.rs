//! What the kernel tells every process of the system: version, kind, folder, clocks (`KUSER_SHARED_DATA`).
//!
//! Owns: [`SystemData`]. Must not know: what of it the search for offsets takes (`version` does).
//! Keeps: a number that no system has is left out.
//! Source: `KUSER_SHARED_DATA` in `ntddk.h` of the Windows Driver Kit.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::time::Duration;

use memflow_core::{MemoryView, MemoryViewExt};

use crate::{
    bytes::Bytes,
    version::{SharedData, Version},
};

/// Bytes of the page that are read.
const LEN: usize = 0x3c8;
/// Reads of a page that is written meanwhile.
const LOOKS: usize = 4;
/// Ticks of 100 ns in a second.
const SECOND: u64 = 10_000_000;
/// Between 1601-01-01 and 1970-01-01.
const UNIX_EPOCH: u64 = 11_644_473_600;
/// `MaximumProcessors`, and more than any system has.
const MAX_PROCESSORS: u32 = 2048;
/// What stands for no session.
const NO_SESSION: u32 = u32::MAX;

/// What kind of system it is (`NtProductType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProductType {
    /// For a person.
    Workstation,
    /// A server that is a domain controller.
    DomainController,
    /// Another server.
    Server,
}

/// What the page tells.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SystemData {
    /// Version; the build is zero before Windows 10, which does not tell it here.
    pub version: Version,
    /// What kind of system it is.
    pub product_type: Option<ProductType>,
    /// Folder of the system (`C:\Windows`).
    pub system_root: String,
    /// Time now, in units of 100 ns since 1601-01-01 00:00 UTC.
    pub now: u64,
    /// Time since the boot, in units of 100 ns; it stands while the machine sleeps.
    pub uptime: u64,
    /// What is to be added to local time for UTC, in units of 100 ns.
    pub time_zone_bias: i64,
    /// The session of whoever sits at the machine.
    pub console_session: Option<u32>,
    /// Pages of 4 KiB that the machine has.
    pub physical_pages: Option<u32>,
    /// Processors that run.
    pub processors: Option<u32>,
    /// A debugger of the kernel is switched on.
    pub debugged: bool,
}

impl SystemData {
    /// Reads the page; `None` if it cannot be read or does not look like it.
    pub(crate) fn read(view: &dyn MemoryView) -> Option<Self> {
        let mut page = [0; LEN];
        for _ in 0..LOOKS {
            view.read_into(SharedData::place(view), &mut page).ok()?;
            if times_are_whole(&page) {
                break;
            }
        }
        Self::parse(&page)
    }

    fn parse(page: &[u8]) -> Option<Self> {
        let shared = SharedData::parse(page)?;
        let bytes = Bytes(page);
        let product_type = match (bytes.u32(0x264)?, bytes.array::<1>(0x268)?) {
            (1, [1]) => Some(ProductType::Workstation),
            (2, [1]) => Some(ProductType::DomainController),
            (3, [1]) => Some(ProductType::Server),
            _ => None,
        };
        Some(Self {
            version: Version { major: shared.major, minor: shared.minor, build: shared.build.unwrap_or_default() },
            product_type,
            system_root: shared.root,
            now: shared.now,
            uptime: shared.uptime,
            time_zone_bias: bytes.u64(0x20)?.cast_signed(),
            console_session: bytes.u32(0x2d8).filter(|session| *session != NO_SESSION),
            physical_pages: bytes.u32(0x2e8).filter(|pages| *pages != 0),
            processors: bytes.u32(0x3c0).filter(|count| (1..=MAX_PROCESSORS).contains(count)),
            debugged: bytes.array::<1>(0x2d4)? != [0],
        })
    }

    /// When the system was booted, in units of 100 ns since 1601-01-01 00:00 UTC.
    pub fn boot(&self) -> u64 {
        self.now.saturating_sub(self.uptime)
    }

    /// Time now, since 1970-01-01 00:00 UTC.
    pub fn unix_time(&self) -> Duration {
        since_1970(self.now)
    }

    /// When the system was booted, since 1970-01-01 00:00 UTC.
    pub fn unix_boot(&self) -> Duration {
        since_1970(self.boot())
    }
}

fn since_1970(ticks: u64) -> Duration {
    let ticks = ticks.saturating_sub(UNIX_EPOCH.saturating_mul(SECOND));
    Duration::from_secs(ticks.checked_div(SECOND).unwrap_or_default())
        .saturating_add(Duration::from_nanos(ticks.checked_rem(SECOND).unwrap_or_default().saturating_mul(100)))
}

/// The upper half of each time stands there twice: it is written before the lower half and behind it.
fn times_are_whole(page: &[u8]) -> bool {
    [0x8, 0x14, 0x20].into_iter().all(|at: u64| {
        let bytes = Bytes(page);
        bytes.u32(at.saturating_add(4)) == bytes.u32(at.saturating_add(8))
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;
    use crate::testing::Memory;

    const PAGE: u64 = 0xffff_f780_0000_0000;

    fn memory() -> Memory {
        let mut memory = Memory::default();
        memory.zero(PAGE, 0x1000);
        memory.put_u32(PAGE + 0x26c, 10).put_u32(PAGE + 0x260, 17763).put_u32(PAGE + 0x264, 1).put(PAGE + 0x268, &[1]);
        memory.put_u32(PAGE + 0x2d8, 1).put_u32(PAGE + 0x2e8, 0x1_0000).put_u32(PAGE + 0x3c0, 4);
        for (at, time) in [(0x8, 3 * SECOND), (0x14, UNIX_EPOCH * SECOND + 10 * SECOND), (0x20, 0)] {
            memory.put_u64(PAGE + at, time).put_u32(PAGE + at + 8, (time >> 32) as u32);
        }
        memory.put(PAGE + 0x30, b"C\0:\0\\\0W\0");
        memory
    }

    #[test]
    fn page_tells_kind_clocks_and_session() {
        let data = SystemData::read(&memory()).unwrap();
        assert_eq!((data.version.to_string(), &*data.system_root), ("10.0.17763".to_owned(), "C:\\W"));
        assert_eq!((data.product_type, data.console_session), (Some(ProductType::Workstation), Some(1)));
        assert_eq!((data.physical_pages, data.processors, data.debugged), (Some(0x1_0000), Some(4), false));
        assert_eq!((data.unix_time(), data.unix_boot()), (Duration::from_secs(10), Duration::from_secs(7)));
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let mut damaged = memory();
        damaged.put_u32(PAGE + 0x264, 9).put_u32(PAGE + 0x2d8, u32::MAX).put_u32(PAGE + 0x3c0, u32::MAX);
        damaged.put_u64(PAGE + 0x14, u64::MAX);
        let data = SystemData::read(&damaged).unwrap();
        assert_eq!((data.product_type, data.console_session, data.processors), (None, None, None));
        assert!(data.unix_time() > Duration::from_secs(1 << 30));
        damaged.put_u32(PAGE + 0x26c, u32::MAX);
        assert_eq!(SystemData::read(&damaged), None);
        assert_eq!(SystemData::read(&Memory::default()), None);
    }
}

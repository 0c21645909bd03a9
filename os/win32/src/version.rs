//! Which Windows it is, and its clock: the page that the kernel shares with all processes (`KUSER_SHARED_DATA`).
//!
//! Owns: where that page is and what is taken of it. Must not know: images, structures of processes.
//! Keeps: a page that does not look like it is not believed.
//! Source: `KUSER_SHARED_DATA` in `ntddk.h` of the Windows Driver Kit. The kernel's own mapping of the page is used: it never moves and is
//! never paged out.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::fmt;

use memflow_core::{MemoryView, MemoryViewExt, VirtAddr};

use crate::bytes::Bytes;

const WIDE: u64 = 0xffff_f780_0000_0000;
const NARROW: u64 = 0xffdf_0000;

/// The version of a Windows system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Version {
    /// Major number (`NtMajorVersion`).
    pub major: u32,
    /// Minor number (`NtMinorVersion`).
    pub minor: u32,
    /// Build number, such as 17763.
    pub build: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// What is taken of the shared page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SharedData {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// The build; older systems do not tell it here.
    pub(crate) build: Option<u32>,
    /// Folder of the system.
    pub(crate) root: String,
    /// Time since the boot, in units of 100 ns.
    pub(crate) uptime: u64,
    /// Time now, in units of 100 ns since 1601-01-01 00:00 UTC.
    pub(crate) now: u64,
}

/// The version in an image's resources: that of its file. `bytes` are those of its section of resources.
pub(crate) fn of_resources(bytes: &[u8]) -> Option<Version> {
    // `VS_FIXEDFILEINFO`: signature, version of the structure, version of the file in two numbers of two halves.
    let signature = 0xfeef_04bd_u32.to_le_bytes();
    memchr::memmem::find_iter(bytes, &signature).find_map(|at| {
        let fixed = Bytes(bytes.get(at..)?);
        let (numbers, build) = (fixed.u32(8)?, fixed.u32(12)? >> 16);
        let version = Version { major: numbers >> 16, minor: numbers & 0xffff, build };
        (fixed.u32(4)? == 0x1_0000 && (3..=20).contains(&version.major)).then_some(version)
    })
}

/// The build in the text of `NtBuildLab`: `7601.24540.amd64fre.win7sp1_ldr.190101-0000`.
pub(crate) fn of_build_lab(text: &[u8]) -> Option<u32> {
    let number = text.split(|byte| *byte == b'.').next()?;
    std::str::from_utf8(number).ok()?.parse().ok().filter(|build| (1000..100_000).contains(build))
}

impl SharedData {
    /// Reads the page.
    pub(crate) fn read(view: &dyn MemoryView) -> Option<Self> {
        let mut page = [0; 0x300];
        view.read_into(Self::place(view), &mut page).ok()?;
        Self::parse(&page)
    }

    /// Where the kernel has the page.
    pub(crate) fn place(view: &dyn MemoryView) -> VirtAddr {
        VirtAddr::new(if view.metadata().pointer_size == 8 { WIDE } else { NARROW })
    }

    /// What the page holds.
    pub(crate) fn parse(page: &[u8]) -> Option<Self> {
        let bytes = Bytes(page);
        let (major, minor) = (bytes.u32(0x26c)?, bytes.u32(0x270)?);
        if !(3..=20).contains(&major) || minor > 99 {
            return None;
        }
        let root: Vec<u16> = bytes
            .slice(0x30, 520)?
            .as_chunks::<2>()
            .0
            .iter()
            .map(|unit| u16::from_le_bytes(*unit))
            .take_while(|unit| *unit != 0)
            .collect();
        // Since Windows 10; before, the place was reserved.
        let build = bytes.u32(0x260).map(|build| build & 0xffff).filter(|build| major >= 10 && *build >= 10_000);
        Some(Self {
            major,
            minor,
            build,
            root: String::from_utf16_lossy(&root),
            uptime: bytes.u64(0x8)?,
            now: bytes.u64(0x14)?,
        })
    }

    /// When the system was booted, in units of 100 ns since 1601-01-01 00:00 UTC.
    pub(crate) fn boot(&self) -> u64 {
        self.now.saturating_sub(self.uptime)
    }
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

    #[test]
    fn build_is_read_from_resources_and_from_the_lab() {
        let mut bytes = vec![0; 100];
        bytes.extend(
            [0xfeef_04bd_u32, 0, 0, 0, 0xfeef_04bd, 0x1_0000, 0x6_0003, 9600 << 16 | 20302]
                .map(u32::to_le_bytes)
                .concat(),
        );
        assert_eq!(of_resources(&bytes), Some(Version { major: 6, minor: 3, build: 9600 }));
        assert_eq!(of_resources(&bytes[..bytes.len() - 1]), None);
        assert_eq!(of_build_lab(b"7601.24540.amd64fre.win7sp1_ldr.190101-0000"), Some(7601));
        for text in [&b""[..], b"7601x", b"99.1", b"\xff\xff", b"999999999999.1"] {
            assert_eq!(of_build_lab(text), None);
        }
    }

    #[test]
    fn page_without_a_version_is_not_believed() {
        assert_eq!(SharedData::parse(&[0; 0x300]), None);
        assert_eq!(SharedData::parse(&[0xff; 0x300]), None);
        assert_eq!(SharedData::parse(&[0; 0x100]), None);
        let mut page = [0; 0x300];
        page[0x26c] = 6;
        page[0x270] = 1;
        page[0x30..0x36].copy_from_slice(b"C\0:\0\\\0");
        let shared = SharedData::parse(&page).unwrap();
        assert_eq!((shared.major, shared.minor, shared.build, &*shared.root), (6, 1, None, "C:\\"));
    }
}

//! The names of a kernel.
//!
//! Owns: release, version, host name, build identification. Must not know: how the kernel was found.
//! Keeps: strings from the target are capped; what the kernel does not have is `None`.
//! Source: Linux `include/linux/utsname.h`, `init/version.c`; the GNU build-id note as ELF has it (`elf(5)`, "Notes").
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::fmt::Write;

use memflow_core::{Error, MemoryViewExt, Result, VirtAddr, os::KernelInfo, view::SpaceView};

use crate::{
    bytes::{Bytes, index},
    symbols::{Sought, Symbols},
    types::Types,
};

/// Longest banner taken.
const MAX_BANNER: usize = 1024;
/// Longest notes section taken.
const MAX_NOTES: u64 = 64 << 10;
/// Type of the note that holds the build identification, `NT_GNU_BUILD_ID`.
const NT_GNU_BUILD_ID: u32 = 3;

/// The kernel's names, without evidence.
pub(crate) fn identify(view: &SpaceView, symbols: &Symbols, types: &Types) -> Result<KernelInfo> {
    let uts = symbols.require("init_uts_ns")?;
    let text = |path: &str| -> Result<String> {
        let field = types.field("uts_namespace", path)?;
        view.read_utf8_lossy(uts.wrapping_add(field.offset), index(field.size))
    };
    let banner = match symbols.sought("linux_banner") {
        Sought::At(banner) => view.read_utf8_lossy(banner, MAX_BANNER)?,
        // As `uname -srv` prints it, which says less about the compiler.
        Sought::Unknown => [text("name.sysname")?, text("name.release")?, text("name.version")?].join(" "),
        Sought::Absent => return Err(Error::NotFound { what: "symbol", name: "linux_banner".to_owned() }),
    };
    let base = symbols.address_of("_text").map_or_else(|| symbols.require("_stext"), Ok)?;
    let architecture = view.space().architecture().name;
    let mut info = KernelInfo::new("Linux", text("name.release")?, banner.trim_end(), architecture, base);
    // What the kernel says before anybody has given it a name.
    info.hostname = Some(text("name.nodename")?).filter(|name| !name.is_empty() && name != "(none)");
    Ok(info)
}

/// The build identification from the notes in the kernel's image; `None` when it has none or they cannot be read.
pub(crate) fn build_id(view: &SpaceView, symbols: &Symbols) -> Option<Vec<u8>> {
    build_id_between(view, symbols.address_of("__start_notes")?, symbols.address_of("__stop_notes")?)
}

/// As [`build_id`], of notes that lie between two addresses.
pub(crate) fn build_id_between(view: &SpaceView, start: VirtAddr, stop: VirtAddr) -> Option<Vec<u8>> {
    let len = stop.offset_from(start).filter(|len| *len <= MAX_NOTES)?;
    find_build_id(Bytes(&view.read_bytes(start, len).ok()?)).map(<[u8]>::to_vec)
}

/// Bytes in hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn find_build_id(notes: Bytes<'_>) -> Option<&[u8]> {
    let mut at = 0u64;
    loop {
        let (name_len, desc_len) = (notes.u32(at)?, notes.u32(at.checked_add(4)?)?);
        let kind = notes.u32(at.checked_add(8)?)?;
        let name_at = at.checked_add(12)?;
        let desc_at = name_at.checked_add(u64::from(name_len).next_multiple_of(4))?;
        if kind == NT_GNU_BUILD_ID && notes.slice(name_at, name_len.into())? == b"GNU\0" {
            return notes.slice(desc_at, desc_len.into());
        }
        at = desc_at.checked_add(u64::from(desc_len).next_multiple_of(4))?;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::as_conversions, clippy::indexing_slicing, reason = "the test's own bytes")]

    use super::*;

    fn note(kind: u32, name: &[u8], desc: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, desc.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(desc);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn build_id_is_found_among_other_notes() {
        let mut notes = note(18, b"Xen\0", &[1, 2, 3, 4, 5, 6, 7, 8]);
        notes.extend(note(3, b"Other\0", &[9]));
        notes.extend(note(3, b"GNU\0", &[0xde, 0xad, 0x0b]));
        assert_eq!(find_build_id(Bytes(&notes)).map(hexadecimal).as_deref(), Some("dead0b"));
        for len in 0..notes.len() - 4 {
            assert_eq!(find_build_id(Bytes(&notes[..len])), None, "{len}");
        }
        assert_eq!(find_build_id(Bytes(&[0xff; 64])), None);
    }
}

//! Who a process runs as (`_TOKEN`).
//!
//! Owns: the forms that tokens have had, identifiers as text. Must not know: processes.
//! Keeps: a form counts when the number, the array and the label it tells make sense together; a token that fits none is an error.
//! Source: `_TOKEN`, `_SID_AND_ATTRIBUTES` in the kernel's symbols; [MS-DTYP] 2.4.2 for identifiers.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::fmt::Write;

use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    error::{Error, Result},
};

use crate::{
    bytes::{Bytes, index},
    reader::Reader,
    structure::Structure,
};

/// Bytes of a token that are read.
const LEN: u64 = 0xe0;
/// More groups than any token has.
const MAX_GROUPS: u32 = 1024;
/// Most numbers of an identifier.
const MAX_PARTS: u8 = 15;
/// The authority of integrity labels.
const LABEL: &str = "S-1-16-";
/// No label.
const NO_LABEL: u32 = u32::MAX;

/// Who a process runs as.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Token {
    /// The token.
    pub address: VirtAddr,
    /// The user's identifier: `S-1-5-18` is the system.
    pub user: String,
    /// Identifiers of groups, the label of integrity among them.
    pub groups: Vec<String>,
    /// The last number of the integrity label: 0x1000 low, 0x2000 medium, 0x3000 high, 0x4000 system.
    pub integrity: Option<u32>,
    /// Session.
    pub session: u32,
}

/// Where members of a token lie: number of groups with the session before it, array of groups, index of the label.
struct Form {
    count: u64,
    groups: u64,
    label: u64,
}

/// Since Windows 8, then Vista and 7: 64-bit systems.
const WIDE: [Form; 2] =
    [Form { count: 0x7c, groups: 0x98, label: 0xd0 }, Form { count: 0x78, groups: 0x90, label: 0xc8 }];
/// The same of 32-bit systems.
const NARROW: [Form; 2] =
    [Form { count: 0x7c, groups: 0x94, label: 0xb8 }, Form { count: 0x78, groups: 0x90, label: 0xb4 }];

/// Reads the token at an address.
///
/// # Errors
/// When it is not known, cannot be read, or is none.
pub(crate) fn read(view: &dyn MemoryView, at: Option<VirtAddr>) -> Result<Token> {
    let at = at.ok_or(Error::NotFound { what: "known offset of", name: "_EPROCESS.Token".to_owned() })?;
    let reader = Reader::new(view);
    let structure = Structure::read(view, at, LEN)?;
    let forms = if reader.is_wide() { &WIDE } else { &NARROW };
    let mut problem = None;
    for form in forms {
        match by_form(&reader, &structure, form) {
            Ok(Some(token)) => return Ok(token),
            Ok(None) => {}
            // A form that makes sense as far as it can be read.
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    Err(problem.unwrap_or_else(|| Error::Corrupt {
        what: "token",
        address: at.into(),
        expected: "a user and groups in one of the known forms".into(),
        found: "something else".into(),
    }))
}

/// The token by a form; `None` when it is not of that form.
fn by_form(reader: &Reader<'_>, structure: &Structure, form: &Form) -> Result<Option<Token>> {
    let count = structure.u32(form.count)?;
    let groups = structure.pointer(form.groups)?;
    let label = structure.u32(form.label)?;
    let session = structure.u32(form.count.saturating_sub(4))?;
    let sensible = (1..=MAX_GROUPS).contains(&count) && reader.is_kernel(groups);
    if !sensible || (label >= count && label != NO_LABEL) {
        return Ok(None);
    }
    let step = reader.pointer_size().saturating_mul(2);
    let mut sids = Vec::new();
    for number in 0..u64::from(count) {
        let at = reader.pointer(groups, number.saturating_mul(step))?;
        let Some(sid) = sid(reader, at)? else { return Ok(None) };
        sids.push(sid);
    }
    let integrity = match sids.get(index(label.into())) {
        None => None,
        Some(label) => match label.strip_prefix(LABEL).and_then(|level| level.parse().ok()) {
            Some(level) => Some(level),
            None => return Ok(None),
        },
    };
    let groups = sids.split_off(1);
    let Some(user) = sids.pop() else { return Ok(None) };
    Ok(Some(Token { address: structure.at(), user, groups, integrity, session }))
}

/// The identifier at an address as text; `None` when there is none.
fn sid(reader: &Reader<'_>, at: VirtAddr) -> Result<Option<String>> {
    if !reader.is_kernel(at) {
        return Ok(None);
    }
    let header: [u8; 8] = reader.view().read(at)?;
    let [revision, parts, a, b, c, d, e, f] = header;
    if revision != 1 || parts == 0 || parts > MAX_PARTS {
        return Ok(None);
    }
    let authority = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let bytes = reader.view().read_bytes(at.wrapping_add(8), u64::from(parts).saturating_mul(4))?;
    let mut text = format!("S-1-{authority}");
    for part in 0..u64::from(parts) {
        let part = Bytes(&bytes).u32(part.saturating_mul(4)).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = write!(text, "-{part}");
    }
    Ok(Some(text))
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

    const TOKEN: u64 = 0xffff_a000_0000_0000;

    fn memory(newer: bool) -> Memory {
        let mut memory = Memory::default();
        let form = &WIDE[usize::from(!newer)];
        memory.zero(TOKEN, LEN).put_u32(TOKEN + form.count - 4, 1).put_u32(TOKEN + form.count, 2);
        memory.put_u64(TOKEN + form.groups, TOKEN + 0x400).put_u32(TOKEN + form.label, 1);
        memory.put_u64(TOKEN + 0x400, TOKEN + 0x500).put_u64(TOKEN + 0x410, TOKEN + 0x600);
        memory.put(TOKEN + 0x500, &[1, 2, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 7, 0, 0, 0]);
        memory.put(TOKEN + 0x600, &[1, 1, 0, 0, 0, 0, 0, 16, 0, 0x20, 0, 0]);
        memory
    }

    #[test]
    fn user_and_integrity_are_read_by_both_forms() {
        for newer in [true, false] {
            let token = read(&memory(newer), Some(VirtAddr::new(TOKEN))).unwrap();
            assert_eq!((&*token.user, token.integrity, token.session), ("S-1-5-21-7", Some(0x2000), 1), "{newer}");
            assert_eq!(token.groups, ["S-1-16-8192"]);
        }
    }

    #[test]
    fn token_that_makes_no_sense_is_an_error() {
        let at = Some(VirtAddr::new(TOKEN));
        for (place, bytes) in [
            (TOKEN + 0x7c, u32::MAX.to_le_bytes()),
            (TOKEN + 0xd0, 0_u32.to_le_bytes()),
            (TOKEN + 0x600, [9, 1, 0, 0]),
            (TOKEN + 0x500, [1, 200, 0, 0]),
        ] {
            let mut memory = memory(true);
            memory.put(place, &bytes);
            assert!(matches!(read(&memory, at), Err(Error::Corrupt { .. })), "{place:#x}");
        }
        assert!(matches!(read(memory(true).remove(TOKEN + 0x500, 16), at), Err(Error::Access { .. })));
        assert!(read(&Memory::default(), None).is_err());
    }
}

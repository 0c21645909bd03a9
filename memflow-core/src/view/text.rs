//! Text in a target's memory.
//!
//! Owns: how UTF-16 and counted strings are read. Must not know: where the address came from.
//! Keeps: pages past a terminator are not touched; a count is believed only as far as the limit that the caller gives.

use super::{MemoryView, MemoryViewExt};
use crate::{
    address::{PageSize, VirtAddr},
    error::{Error, Result},
};

/// The size of the number before a string that is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CountSize {
    /// One byte.
    One,
    /// Two bytes, little-endian.
    Two,
    /// Four bytes, little-endian.
    Four,
}

/// Units of UTF-16 up to and without the first zero, at most `max`.
pub(super) fn utf16_units(view: &(impl MemoryView + ?Sized), addr: VirtAddr, max: usize) -> Result<Vec<u16>> {
    let mut units: Vec<u16> = Vec::new();
    let mut at = addr;
    while units.len() < max {
        // To the end of the page, or over it where a unit lies on both sides.
        let to_edge = PageSize::KIB_4.bytes().saturating_sub(at.page_offset(PageSize::KIB_4)) as usize;
        let most = if units.is_empty() { 32 } else { usize::MAX };
        let count = (to_edge / 2).max(1).min(max.saturating_sub(units.len())).min(most);
        let mut bytes = vec![0; count.saturating_mul(2)];
        view.read_into(at, &mut bytes)?;
        let new = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        let before = units.len();
        units.extend(new);
        if let Some(end) = units.iter().skip(before).position(|unit| *unit == 0) {
            units.truncate(before.saturating_add(end));
            break;
        }
        let step = bytes.len() as u64;
        at = at.checked_add(step).ok_or(Error::Range { address: addr.into(), len: (max as u64).saturating_mul(2) })?;
    }
    Ok(units)
}

/// Bytes whose number stands before them.
pub(super) fn counted(view: &(impl MemoryView + ?Sized), addr: VirtAddr, size: CountSize, max: u64) -> Result<Vec<u8>> {
    let (count, width) = match size {
        CountSize::One => (u64::from(view.read::<u8>(addr)?), 1),
        CountSize::Two => (u64::from(u16::from_le(view.read(addr)?)), 2),
        CountSize::Four => (u64::from(u32::from_le(view.read(addr)?)), 4),
    };
    if count > max {
        return Err(Error::Limit { what: "counted string", address: addr.into(), limit: max });
    }
    let start = addr.checked_add(width).ok_or(Error::Range { address: addr.into(), len: count })?;
    view.read_bytes(start, count)
}

/// The text of units.
pub(super) fn from_units(addr: VirtAddr, units: &[u16]) -> Result<String> {
    String::from_utf16(units).map_err(|_| not_text(addr, "UTF-16"))
}

/// The text of bytes.
pub(super) fn from_bytes(addr: VirtAddr, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| not_text(addr, "UTF-8"))
}

fn not_text(addr: VirtAddr, encoding: &'static str) -> Error {
    Error::Corrupt { what: "string", address: addr.into(), expected: encoding.into(), found: "other bytes".into() }
}

/// The text of Windows' `UNICODE_STRING` (length in bytes, room in bytes, pointer), at most `max` units of it.
pub(super) fn unicode_string(view: &(impl MemoryView + ?Sized), addr: VirtAddr, max: usize) -> Result<Vec<u16>> {
    let pointer_size = u64::from(view.metadata().pointer_size);
    let [len, room]: [u16; 2] = view.read(addr)?;
    let (len, room) = (u16::from_le(len), u16::from_le(room));
    if !len.is_multiple_of(2) || len > room {
        return Err(Error::Corrupt {
            what: "UNICODE_STRING",
            address: addr.into(),
            expected: "an even length that is not above the room".into(),
            found: format!("length {len}, room {room}").into(),
        });
    }
    if usize::from(len / 2) > max {
        return Err(Error::Limit { what: "UNICODE_STRING", address: addr.into(), limit: max as u64 });
    }
    if len == 0 {
        return Ok(Vec::new());
    }
    // The pointer lies at the first multiple of its size behind the lengths.
    let pointer = addr.checked_add(pointer_size).ok_or(Error::Range { address: addr.into(), len: pointer_size })?;
    let bytes = view.read_bytes(view.read_pointer(pointer)?, len.into())?;
    Ok(bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect())
}

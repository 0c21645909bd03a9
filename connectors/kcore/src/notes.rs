//! The notes of a kcore file.
//!
//! Owns: the walk from note to note. Must not know: files, what is in VMCOREINFO.
//! Keeps: a length that leaves the segment is an error with its offset.
//! Source: System V ABI, chapter 5; `append_kcore_note` in `fs/proc/kcore.c` of Linux: names and descriptors padded to four bytes.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use zerocopy::FromBytes;

use crate::raw::NoteHeader;

/// The descriptor of the first note with the name VMCOREINFO.
///
/// # Errors
/// The offset of a note that does not fit into the segment.
pub(crate) fn vmcoreinfo(segment: &[u8]) -> Result<Option<Vec<u8>>, u64> {
    let mut rest = segment;
    while !rest.is_empty() {
        let consumed = segment.len().saturating_sub(rest.len());
        let Some((name, desc, after)) = split(rest) else {
            // Zeros behind the last note are padding.
            let padding = rest.iter().all(|byte| *byte == 0);
            return if padding { Ok(None) } else { Err(u64::try_from(consumed).unwrap_or(u64::MAX)) };
        };
        if name == b"VMCOREINFO" {
            return Ok(Some(desc.to_vec()));
        }
        rest = after;
    }
    Ok(None)
}

/// Name without its terminator, descriptor, and what follows the note.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (header, rest) = NoteHeader::read_from_prefix(bytes).ok()?;
    if header.namesz.get() == 0 && header.descsz.get() == 0 {
        return None;
    }
    let (name, rest) = split_padded(rest, header.namesz.get())?;
    let (desc, rest) = split_padded(rest, header.descsz.get())?;
    Some((name.strip_suffix(&[0]).unwrap_or(name), desc, rest))
}

fn split_padded(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok()?;
    let taken = bytes.get(..len)?;
    // The padding of the very last one may be missing.
    let padded = len.checked_next_multiple_of(4)?.min(bytes.len());
    Some((taken, bytes.get(padded..)?))
}

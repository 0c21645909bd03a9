//! The hash of what answers are found in: the section of types and the symbol table.
//!
//! Owns: what is hashed, in which order. Must not know: entries, what the bytes mean.
//! Keeps: bytes in memory and bytes that were read have the same hash; memory is hashed through a small buffer, on two threads, as
//! that is most of the work of starting with a kernel that is known.

use std::thread;

use memflow_core::{Error, MemoryViewExt, Result, VirtAddr, view::SpaceView};

use crate::symbols::{Place, RawTable};

/// Bytes read at a time: they stay in a processor's second-level cache.
const PIECE: usize = 128 << 10;

/// The hashes of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Material {
    pub(crate) section: [u8; 32],
    pub(crate) table: [u8; 32],
}

/// The hash of a section of types.
pub(super) fn of_section(bytes: &[u8]) -> [u8; 32] {
    of_bytes(&[bytes])
}

/// The hash of a symbol table.
pub(super) fn of_table(raw: &RawTable) -> [u8; 32] {
    of_bytes(&raw.parts())
}

/// The hashes of a section, given as address and length, and of a table, as they lie in memory.
pub(super) fn of_memory(view: &SpaceView, section: (VirtAddr, u64), place: &Place) -> Result<Material> {
    let of_table = || of_ranges(view, &place.ranges());
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, of_table);
        let section = of_ranges(view, &[section]);
        // Without another thread it takes longer.
        let table = other.ok().and_then(|other| other.join().ok()).unwrap_or_else(of_table);
        Ok(Material { section: section?, table: table? })
    })
}

/// An error unless the hashes are the same.
pub(super) fn expect(at: VirtAddr, expected: [u8; 32], found: [u8; 32]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Corrupt {
        what: "types or symbols of the kernel",
        address: at.into(),
        expected: "what was there when the kernel was found".into(),
        found: "other bytes".into(),
    })
}

fn of_bytes(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn of_ranges(view: &SpaceView, ranges: &[(VirtAddr, u64)]) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    for (start, len) in ranges {
        hasher.update(&len.to_le_bytes());
        let mut done = 0;
        while done < *len {
            let piece = (len - done).min(PIECE as u64);
            let Some(buffer) = buffer.get_mut(..piece as usize) else { break };
            view.read_into(start.wrapping_add(done), buffer)?;
            hasher.update(buffer);
            done += piece;
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

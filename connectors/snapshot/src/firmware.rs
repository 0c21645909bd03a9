//! What a PC's firmware wrote into memory about where memory lies.
//!
//! Owns: reading the "memory array mapped address" structures of SMBIOS from an image. Must not know: what they are used for.
//! Keeps: anything odd means "nothing known"; this is evidence, and guest memory is never trusted further.
//! Source: DMTF DSP0134 (SMBIOS 3.7): 5.2 entry points, 6.1 structures and their strings, 7.20 type 19. QEMU writes one such
//! structure for each range of RAM (`hw/smbios/smbios.c`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{PhysAddr, PhysRange, Result};
use zerocopy::{
    FromBytes, Immutable, KnownLayout,
    little_endian::{U16, U32, U64},
};

use crate::input::{ReadAt, View};

/// Where a PC's firmware puts the entry point.
const ENTRY_AREA: u64 = 0xf_0000;
const ENTRY_AREA_LEN: u64 = 0x1_0000;
/// Below this address every layout of a raw image has offset and address the same.
const ALWAYS_FLAT: u64 = 0x8000_0000;
/// Longest table that is read; the 32-bit entry point cannot name a longer one.
const MAX_TABLE: u64 = 0xffff;
const MAPPED_ADDRESS: u8 = 19;
/// In a 32-bit field: look at the 64-bit one.
const EXTENDED: u32 = u32::MAX;

/// The 32-bit entry point, "_SM_".
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry32 {
    anchor: [u8; 4],
    checksum: u8,
    len: u8,
    skipped: [u8; 16],
    table_len: U16,
    table: U32,
    count: U16,
    bcd_revision: u8,
}

/// The 64-bit entry point, "_SM3_".
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry64 {
    anchor: [u8; 5],
    checksum: u8,
    len: u8,
    skipped: [u8; 5],
    table_max_len: U32,
    table: U64,
}

/// Structure type 19; `start_64` and `last_64` since SMBIOS 2.7.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MappedAddress {
    kind: u8,
    len: u8,
    handle: U16,
    start_kib: U32,
    last_kib: U32,
    array: U16,
    width: u8,
}

/// The ranges of RAM that the firmware lists in a raw image, sorted and disjoint; none when it lists none that make sense.
///
/// # Errors
/// When the image cannot be read.
pub fn ram_ranges(input: &dyn ReadAt) -> Result<Vec<PhysRange>> {
    let view = View::new(input, "raw image");
    if view.size() < ENTRY_AREA.saturating_add(ENTRY_AREA_LEN) {
        return Ok(Vec::new());
    }
    let area = view.bytes(ENTRY_AREA, ENTRY_AREA_LEN, "firmware area")?;
    // Entry points are aligned to 16 bytes; the first with a right checksum counts.
    let Some((table, len)) = area.chunks_exact(16).enumerate().find_map(|(index, _)| {
        let bytes = area.get(index.checked_mul(16)?..)?;
        entry32(bytes).or_else(|| entry64(bytes))
    }) else {
        return Ok(Vec::new());
    };
    let in_reach = table.checked_add(len).is_some_and(|end| end <= view.size().min(ALWAYS_FLAT));
    if !in_reach || len > MAX_TABLE {
        return Ok(Vec::new());
    }
    let mut ranges = mapped_addresses(&view.bytes(table, len, "SMBIOS table")?);
    ranges.sort_by_key(PhysRange::start);
    let overlap = ranges.windows(2).any(|pair| matches!(pair, [a, b] if a.intersection(b).is_some()));
    Ok(if overlap { Vec::new() } else { ranges })
}

/// Address and length of the table, from a 32-bit entry point.
fn entry32(bytes: &[u8]) -> Option<(u64, u64)> {
    let (entry, _) = Entry32::read_from_prefix(bytes).ok()?;
    let valid =
        &entry.anchor == b"_SM_" && usize::from(entry.len) >= size_of::<Entry32>() && sums_to_zero(bytes, entry.len);
    valid.then(|| (entry.table.get().into(), entry.table_len.get().into()))
}

/// Address and length of the table, from a 64-bit entry point.
fn entry64(bytes: &[u8]) -> Option<(u64, u64)> {
    let (entry, _) = Entry64::read_from_prefix(bytes).ok()?;
    let valid =
        &entry.anchor == b"_SM3_" && usize::from(entry.len) >= size_of::<Entry64>() && sums_to_zero(bytes, entry.len);
    valid.then(|| (entry.table.get(), u64::from(entry.table_max_len.get()).min(MAX_TABLE)))
}

fn sums_to_zero(bytes: &[u8], len: u8) -> bool {
    bytes.get(..len.into()).is_some_and(|bytes| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0)
}

/// The ranges of all structures of type 19 in a table.
fn mapped_addresses(table: &[u8]) -> Vec<PhysRange> {
    let mut ranges = Vec::new();
    let mut rest = table;
    while let [kind, len, ..] = *rest {
        let Some(fields) = rest.get(..len.into()).filter(|fields| fields.len() >= 4) else { break };
        if kind == MAPPED_ADDRESS {
            ranges.extend(mapped_address(fields));
        }
        // Strings follow, ended by two zeros.
        let strings = rest.get(len.into()..).unwrap_or_default();
        let Some(end) = strings.windows(2).position(|pair| pair == [0, 0]) else { break };
        rest = strings.get(end.saturating_add(2)..).unwrap_or_default();
    }
    ranges
}

fn mapped_address(fields: &[u8]) -> Option<PhysRange> {
    let (raw, wide) = MappedAddress::read_from_prefix(fields).ok()?;
    let (start, last) = match (raw.start_kib.get(), raw.last_kib.get()) {
        (EXTENDED, _) => {
            let (start, wide) = U64::read_from_prefix(wide).ok()?;
            let (last, _) = U64::read_from_prefix(wide).ok()?;
            (start.get(), last.get())
        }
        (start, last) => {
            let end = u64::from(last).checked_add(1)?.checked_mul(1024)?;
            (u64::from(start).checked_mul(1024)?, end.checked_sub(1)?)
        }
    };
    PhysRange::inclusive(PhysAddr::new(start), PhysAddr::new(last))
}

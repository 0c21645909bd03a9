//! Pages that look like the root of Windows' page tables: tables that map themselves.
//!
//! Owns: the look of such a table for x64, PAE and x86. Must not know: how memory is visited, what a root is used for.
//! Keeps: the number of entries that are looked at per page is fixed; what looks like a root need not be one.
//! Source: Intel SDM volume 3A, "Paging". Windows keeps its page tables mapped through an entry of the root that leads to the root
//! (x64: entry 0x1ed, any of the upper half since 10.0.14393; x86: entry 0x300), and with PAE through the first four entries of the
//! fourth directory, which lead to the four directories.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    PhysAddr,
    memory::{PhysRead, PhysicalMemory},
};

use crate::bytes::Bytes;

/// Size of a page and of a table.
pub(super) const PAGE: usize = 0x1000;
/// Frame and the bits present, writable, large of an entry of 64 bits; user must be off too.
const SELF_WIDE: u64 = 0x000f_ffff_ffff_f087;
/// Present and writable.
const KERNEL: u64 = 3;
/// Entry of the root that leads to itself in 32-bit mode.
const NARROW_SELF: u64 = 0xc00;

/// What a page may be the root of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// A root of 4 or 5 levels.
    Long,
    /// A pointer table of PAE, at this offset of the page.
    Pae(u64),
    /// A directory of 32-bit entries.
    Narrow,
}

/// A page that looks like a root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Root {
    /// Its shape.
    pub(super) shape: Shape,
    /// The address of the table.
    pub(super) at: PhysAddr,
    /// How much it looks like one: entries of the kernel, less those of users. System's own has none of users.
    pub(super) rank: u32,
}

/// The words of a page.
fn words(page: &[u8; PAGE]) -> &[[u8; 8]] {
    page.as_chunks().0
}

/// Whether the page at `at` looks like a root of 4 or 5 levels.
pub(super) fn long(at: PhysAddr, page: &[u8; PAGE]) -> Option<Root> {
    let (lower, upper) = words(page).split_at_checked(256)?;
    let wanted = at.as_u64() | KERNEL;
    // No early end: the compiler compares many entries at a time.
    let selves = upper
        .iter()
        .fold(0u32, |sum, entry| sum.wrapping_add(u32::from(u64::from_le_bytes(*entry) & SELF_WIDE == wanted)));
    if selves != 1 {
        return None;
    }
    let value = |entry: &[u8; 8]| u64::from_le_bytes(*entry);
    let kernels = upper.iter().filter(|entry| value(entry) & 0x87 == KERNEL).count();
    let users = lower.iter().filter(|entry| value(entry) & 1 != 0).count();
    let empty = |half: &[[u8; 8]]| half.iter().filter(|entry| value(entry) == 0).count();
    // A system has dozens of entries of the kernel; with five levels, or early in its boot, it may have but one beside its own.
    if kernels < 2 || empty(lower) < 16 || empty(upper) < 16 {
        return None;
    }
    let rank = u32::try_from(kernels.saturating_mul(4).saturating_add(256).saturating_sub(users)).ok()?;
    Some(Root { shape: Shape::Long, at, rank })
}

/// Whether the page at `at` looks like a directory of 32-bit entries.
pub(super) fn narrow(at: PhysAddr, page: &[u8; PAGE]) -> Option<Root> {
    let bytes = Bytes(page);
    let own = bytes.u32(NARROW_SELF)?;
    if u64::from(own & 0xffff_f087) != at.as_u64() | KERNEL {
        return None;
    }
    let (lower, upper) = page.as_chunks::<4>().0.split_at_checked(512)?;
    let present = |half: &[[u8; 4]]| half.iter().filter(|entry| u32::from_le_bytes(**entry) & 1 != 0).count();
    let (kernels, users) = (present(upper), present(lower));
    if kernels < 3 {
        return None;
    }
    let rank = u32::try_from(kernels.saturating_add(512).saturating_sub(users)).ok()?;
    Some(Root { shape: Shape::Narrow, at, rank })
}

/// The pointer tables of PAE in the page at `at`: four entries without rights that lead to four directories, of which the last leads to
/// all four.
pub(super) fn pae(memory: &dyn PhysicalMemory, at: PhysAddr, page: &[u8; PAGE], each: &mut dyn FnMut(Root)) {
    for (number, table) in (0u64..).zip(page.as_chunks::<32>().0) {
        let mut entries = [0u64; 4];
        for (entry, bytes) in entries.iter_mut().zip(table.as_chunks::<8>().0) {
            *entry = u64::from_le_bytes(*bytes);
        }
        // Present; of the rights, bits of the cache and the accessed bit may be set.
        if entries.iter().any(|entry| entry & 0xffff_fff0_0000_01c7 != 1 || entry >> 12 == 0) {
            continue;
        }
        let [_, _, _, last] = entries;
        let frame = |entry: u64| entry & 0x000f_ffff_ffff_f000;
        let mut selves = [0; 32];
        if memory.read_batch(&mut [PhysRead::new(PhysAddr::new(frame(last)), &mut selves)]).is_err() {
            continue;
        }
        let maps_itself = selves.as_chunks::<8>().0.iter().zip(entries).all(|(bytes, entry)| {
            let own = u64::from_le_bytes(*bytes);
            own & 0x83 == KERNEL && frame(own) == frame(entry)
        });
        if maps_itself {
            let offset = number.wrapping_mul(32);
            each(Root { shape: Shape::Pae(offset), at: at.wrapping_add(offset), rank: 1 });
        }
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

    fn page_with(entries: &[(usize, u64)]) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        for (index, entry) in entries {
            page[index * 8..index * 8 + 8].copy_from_slice(&entry.to_le_bytes());
        }
        page
    }

    #[test]
    fn table_that_maps_itself_once_is_a_root() {
        let at = PhysAddr::new(0x1a_d000);
        let kernel = [(0x1f0, 0x5063), (0x1f1, 0x6063), (0x1ff, 0x7063)];
        let mut entries = vec![(0x1ed, 0x8000_0000_001a_d063)];
        entries.extend(kernel);
        let root = long(at, &page_with(&entries)).unwrap();
        assert_eq!((root.shape, root.at), (Shape::Long, at));
        // In the lower half, twice, or of another page it is none.
        entries.push((0x1ee, 0x1a_d063));
        assert_eq!(long(at, &page_with(&entries)), None);
        entries.pop();
        assert_eq!(long(PhysAddr::new(0x1a_e000), &page_with(&entries)), None);
        assert_eq!(long(at, &page_with(&[(0xed, 0x1a_d063)])), None);
        assert_eq!(long(at, &[0xff; PAGE]), None);
        assert_eq!(long(PhysAddr::new(0), &[0; PAGE]), None);
    }

    #[test]
    fn system_process_ranks_before_others() {
        let at = PhysAddr::new(0x1a_d000);
        let mut entries = vec![(0x100, 0x1a_d063), (0x1f0, 0x5063), (0x1f1, 0x6063), (0x1ff, 0x7063)];
        let system = long(at, &page_with(&entries)).unwrap();
        entries.push((0, 0x9067));
        assert!(long(at, &page_with(&entries)).unwrap().rank < system.rank);
    }

    #[test]
    fn narrow_directory_leads_to_itself() {
        let at = PhysAddr::new(0x3_9000);
        let mut page = [0; PAGE];
        for (entry, value) in [(0x200, 0x1063_u32), (0x201, 0x2063), (0x300, 0x3_9063)] {
            page[entry * 4..entry * 4 + 4].copy_from_slice(&value.to_le_bytes());
        }
        assert_eq!(narrow(at, &page).map(|root| root.at), Some(at));
        assert_eq!(narrow(PhysAddr::new(0x4_9000), &page), None);
    }
}

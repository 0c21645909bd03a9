//! Bitmaps of pages: a bit for each page from address zero on.
//!
//! Owns: which bits are set, and zeros that become holes. Must not know: which format has the bitmap, or where.
//! Keeps: whatever the addresses are, little of it is in memory at a time.

use memflow_core::PhysRange;

use super::stream::Item;

/// Most bytes in a bitmap: readers hold it in memory. 32 TiB of addresses.
pub(super) const MAX_BITMAP: u64 = 1 << 30;
/// Bitmaps are made in pieces of this many bytes.
const BITS_AT_ONCE: u64 = 1 << 20;

/// A bitmap of `len` bytes with the pages of `ranges`, which are sorted and made of whole pages of `page` bytes.
pub(super) fn bitmap(ranges: &[PhysRange], page: u64, len: u64) -> impl Iterator<Item = Item> {
    let mut ranges = ranges.iter().map(move |range| {
        let first = range.start().as_u64() / page;
        first..first + range.len() / page
    });
    let mut next = ranges.next();
    (0..len.div_ceil(BITS_AT_ONCE)).map(move |piece| {
        let at = piece * BITS_AT_ONCE;
        let step = (len - at).min(BITS_AT_ONCE);
        let (first, end) = (at * 8, (at + step) * 8);
        let mut bits: Option<Vec<u8>> = None;
        while let Some(pages) = next.clone().filter(|pages| pages.start < end) {
            let bits = bits.get_or_insert_with(|| vec![0; step as usize]);
            for page in pages.start.max(first)..pages.end.min(end) {
                let page = page - first;
                if let Some(byte) = bits.get_mut((page / 8) as usize) {
                    *byte |= 1 << (page % 8);
                }
            }
            if pages.end > end {
                break;
            }
            next = ranges.next();
        }
        bits.map_or(Item::Zeros(step), Item::Bytes)
    })
}

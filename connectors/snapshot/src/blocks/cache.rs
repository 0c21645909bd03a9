//! The blocks that were unpacked last.
//!
//! Owns: which blocks are kept and how, and that one thread unpacks while others who want the same block wait. Must not know: formats.
//! Keeps: what is held in bytes is bounded; pages of zeros take none; a block that could not be unpacked is not kept, so the next read
//! tries again.
//!
//! The work is done by `quick_cache`: sharded, weighted, and scan-resistant, so that one pass over all memory does not cost the page tables.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fmt, io, sync::Arc};

use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::Cache, sync::DefaultLifecycle};

/// What a block costs beside its bytes: entry, counters, allocations.
const OVERHEAD: u64 = 160;
/// What is left out of a block when it is zero.
const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];
/// In place of the number of a page: it is zero.
const ZERO: u32 = u32::MAX;

/// An unpacked block without its pages of zeros.
pub(super) struct Held {
    len: usize,
    /// For each page its number among those that are held; none at all when every page is held.
    pages: Box<[u32]>,
    bytes: Box<[u8]>,
}

impl Held {
    /// Keeps `bytes`.
    fn new(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        let zero = |page: &[u8]| ZEROS.get(..page.len()) == Some(page);
        if !bytes.chunks(PAGE).any(zero) {
            return Self { len, pages: Box::default(), bytes: bytes.into() };
        }
        let mut held = Vec::new();
        let mut number: u32 = 0;
        let pages = bytes
            .chunks(PAGE)
            .map(|page| {
                if zero(page) {
                    return ZERO;
                }
                held.extend_from_slice(page);
                let this = number;
                number = number.saturating_add(1);
                this
            })
            .collect();
        Self { len, pages, bytes: held.into() }
    }

    /// Copies what the block holds from `from` on; how many bytes that was.
    pub(super) fn copy_to(&self, from: usize, buf: &mut [u8]) -> usize {
        let len = self.len.saturating_sub(from).min(buf.len());
        let mut rest = buf.get_mut(..len).unwrap_or_default();
        let mut at = from;
        while !rest.is_empty() {
            let (page, inside) = (at.checked_div(PAGE).unwrap_or(0), at & PAGE.saturating_sub(1));
            let number = match self.pages.is_empty() {
                true => u32::try_from(page).unwrap_or(ZERO),
                false => self.pages.get(page).copied().unwrap_or(ZERO),
            };
            let step = match self.pages.is_empty() {
                true => rest.len(),
                false => PAGE.saturating_sub(inside).min(rest.len()),
            };
            let (now, later) = rest.split_at_mut(step);
            let held = usize::try_from(number).ok().filter(|_| number != ZERO).and_then(|number| {
                let start = number.checked_mul(PAGE)?.checked_add(inside)?;
                self.bytes.get(start..start.checked_add(step)?)
            });
            match held {
                Some(held) => now.copy_from_slice(held),
                None => now.fill(0),
            }
            at = at.saturating_add(step);
            rest = later;
        }
        len
    }

    /// The memory it takes.
    fn weight(&self) -> u64 {
        let pages = self.pages.len().saturating_mul(size_of::<u32>());
        u64::try_from(self.bytes.len().saturating_add(pages)).unwrap_or(u64::MAX).saturating_add(OVERHEAD)
    }
}

/// Unpacked blocks by their number.
pub(super) struct BlockCache {
    blocks: Cache<u64, Arc<Held>, Bytes>,
}

/// Weighs a block by the memory it takes.
#[derive(Clone)]
struct Bytes;

impl Weighter<u64, Arc<Held>> for Bytes {
    fn weight(&self, _: &u64, block: &Arc<Held>) -> u64 {
        block.weight()
    }
}

impl BlockCache {
    /// Room for `bytes` of unpacked blocks, the longest of which has `longest` bytes; for one of them at least.
    pub(super) fn new(bytes: u64, longest: usize) -> Self {
        let longest = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(OVERHEAD);
        // Beside the bytes there is a number for each page.
        let longest = longest.saturating_add(longest >> 9);
        let bytes = bytes.max(longest);
        // Each part of the cache has to take several of the longest, or it would take none.
        let parts = bytes.checked_div(longest.saturating_mul(8)).unwrap_or(1).clamp(1, 16);
        let parts = usize::try_from(parts).unwrap_or(1);
        // An estimate of the number of blocks, which sets the first size only.
        let blocks = usize::try_from(bytes >> 16).unwrap_or(usize::MAX).clamp(parts.saturating_mul(32), 1 << 12);
        let mut options = OptionsBuilder::new();
        options.shards(parts).estimated_items_capacity(blocks).weight_capacity(bytes);
        let blocks = match options.build() {
            Ok(options) => {
                Cache::with_options(options, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default())
            }
            // Only when a field is missing.
            Err(_) => Cache::with_weighter(blocks, bytes, Bytes),
        };
        Self { blocks }
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.blocks.weight()
    }

    /// The block `id` of `len` bytes, unpacked by `unpack` if it is not held.
    pub(super) fn get(
        &self,
        id: u64,
        len: usize,
        unpack: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<Arc<Held>> {
        self.blocks.get_or_insert_with(&id, || {
            let mut bytes: Vec<u8> = Vec::new();
            bytes.try_reserve_exact(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            bytes.resize(len, 0);
            unpack(&mut bytes)?;
            Ok(Arc::new(Held::new(bytes)))
        })
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("blocks", &self.blocks.len())
            .field("bytes", &self.blocks.weight())
            .field("capacity", &self.blocks.capacity())
            .finish()
    }
}

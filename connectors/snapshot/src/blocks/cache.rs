//! The blocks that were unpacked last.
//!
//! Owns: which blocks are kept, and that one thread unpacks while others who want the same block wait. Must not know: formats.
//! Keeps: what is held in bytes is bounded; a block that could not be unpacked is not kept, so the next read tries again.
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

use quick_cache::{Weighter, sync::Cache};

/// What a block costs beside its bytes: entry, counters, allocation.
const OVERHEAD: u64 = 128;

/// Unpacked blocks by their number.
pub(super) struct BlockCache {
    blocks: Cache<u64, Arc<[u8]>, Bytes>,
}

/// Weighs a block by the memory it takes.
#[derive(Clone)]
struct Bytes;

impl Weighter<u64, Arc<[u8]>> for Bytes {
    fn weight(&self, _: &u64, block: &Arc<[u8]>) -> u64 {
        u64::try_from(block.len()).unwrap_or(u64::MAX).saturating_add(OVERHEAD)
    }
}

impl BlockCache {
    /// Room for `bytes` of unpacked blocks.
    pub(super) fn new(bytes: u64) -> Self {
        // An estimate of the number of blocks, which only sets how many parts the cache has and its first size.
        let blocks = usize::try_from(bytes >> 16).unwrap_or(usize::MAX).clamp(16, 1 << 12);
        Self { blocks: Cache::with_weighter(blocks, bytes, Bytes) }
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
    ) -> io::Result<Arc<[u8]>> {
        self.blocks.get_or_insert_with(&id, || {
            let mut bytes: Vec<u8> = Vec::new();
            bytes.try_reserve_exact(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            bytes.resize(len, 0);
            unpack(&mut bytes)?;
            Ok(bytes.into())
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

//! Unpacked bytes, compressed anew in blocks that unpack by themselves.
//!
//! Where a compression cannot be entered in its middle, all of it is unpacked once, and what comes out is kept in a form that can be read at
//! random: LZ4, as it unpacks at the speed of memory and costs the pass less than the decoder before it.
//!
//! Owns: the blocks. Must not know: what they were unpacked from.
//! Keeps: blocks of zeros take no memory; what is held is counted.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{io, ops::Range};

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::blocks::{Block, Blocks, damaged, without_short_holes};

/// Bytes in a block: as far as LZ4 looks back, and little enough to be unpacked for a page.
const BLOCK: usize = 64 << 10;
/// [`BLOCK`] as a power of two.
const SHIFT: u32 = 16;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Bytes in the form that takes least memory.
#[derive(Clone, Debug)]
pub(super) enum Packed {
    /// Zeros only.
    Zeros,
    /// Compressed with LZ4.
    Lz4(Box<[u8]>),
    /// What does not compress.
    Plain(Box<[u8]>),
}

impl Packed {
    /// The memory it takes beside itself.
    pub(super) fn held(&self) -> u64 {
        match self {
            Self::Zeros => 0,
            Self::Lz4(bytes) | Self::Plain(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        }
    }

    /// Fills `bytes` with what was packed, which was as long.
    pub(super) fn unpack(&self, bytes: &mut [u8]) -> Result<(), String> {
        let count = match self {
            Self::Zeros => {
                bytes.fill(0);
                bytes.len()
            }
            Self::Lz4(packed) => decompress_into(packed, bytes).map_err(|error| error.to_string())?,
            Self::Plain(plain) => {
                if let Some(from) = plain.get(..bytes.len()) {
                    bytes.copy_from_slice(from);
                }
                plain.len()
            }
        };
        if count == bytes.len() { Ok(()) } else { Err(format!("{count:#x} bytes instead of {:#x}", bytes.len())) }
    }
}

/// Packs bytes, up to [`BLOCK`] at a time.
pub(super) struct Packer {
    table: CompressTable,
    scratch: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> Self {
        Self { table: CompressTable::large(), scratch: vec![0; get_maximum_output_size(BLOCK)] }
    }

    pub(super) fn pack(&mut self, bytes: &[u8]) -> Packed {
        if ZEROS.get(..bytes.len()) == Some(bytes) {
            return Packed::Zeros;
        }
        match compress_into_with_table(bytes, &mut self.scratch, &mut self.table) {
            // An eighth less is worth unpacking.
            Ok(len) if len < bytes.len().saturating_sub(bytes.len() >> 3) => {
                Packed::Lz4(self.scratch.get(..len).unwrap_or_default().into())
            }
            _ => Packed::Plain(bytes.into()),
        }
    }
}

/// Bytes that grow at their end, compressed.
pub(super) struct Store {
    blocks: Vec<Packed>,
    /// What does not fill a block yet.
    rest: Vec<u8>,
    packer: Packer,
    held: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        Self { blocks: Vec::new(), rest: Vec::new(), packer: Packer::new(), held: 0 }
    }

    /// Adds bytes at the end.
    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest.is_empty()
                && let Some((block, later)) = bytes.split_at_checked(BLOCK)
            {
                self.keep(block);
                bytes = later;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK.saturating_sub(self.rest.len())));
            self.rest.extend_from_slice(now);
            bytes = later;
            if self.rest.len() >= BLOCK {
                let block = std::mem::take(&mut self.rest);
                self.keep(&block);
            }
        }
    }

    fn keep(&mut self, block: &[u8]) {
        let packed = self.packer.pack(block);
        let entry = u64::try_from(size_of::<Packed>()).unwrap_or(0);
        self.held = self.held.saturating_add(packed.held()).saturating_add(entry);
        self.blocks.push(packed);
    }

    /// The memory that it takes.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// The bytes, for reading.
    pub(super) fn finish(mut self) -> Stored {
        let last = std::mem::take(&mut self.rest);
        let whole = u64::try_from(self.blocks.len()).unwrap_or(u64::MAX) << SHIFT;
        if !last.is_empty() {
            self.keep(&last);
        }
        self.blocks.shrink_to_fit();
        Stored { blocks: self.blocks, size: whole.saturating_add(u64::try_from(last.len()).unwrap_or(0)) }
    }
}

/// Bytes that were compressed anew.
pub(super) struct Stored {
    blocks: Vec<Packed>,
    size: u64,
}

impl Blocks for Stored {
    fn size(&self) -> u64 {
        self.size
    }

    fn find(&self, offset: u64) -> io::Result<Block> {
        let id = offset >> SHIFT;
        let start = id << SHIFT;
        let len = usize::try_from(self.size.saturating_sub(start)).unwrap_or(BLOCK).min(BLOCK);
        Ok(Block { id, start, len })
    }

    fn populated(&self) -> Option<Vec<Range<u64>>> {
        let blocks = self.blocks.iter().zip((0..self.size).step_by(BLOCK));
        let held = blocks.filter(|(block, _)| !matches!(block, Packed::Zeros));
        Some(without_short_holes(held.map(|(_, start)| start..start.saturating_add(1 << SHIFT).min(self.size))))
    }

    fn unpack(&self, block: &Block, bytes: &mut [u8]) -> io::Result<()> {
        let packed = usize::try_from(block.id).ok().and_then(|id| self.blocks.get(id));
        let packed = packed.ok_or_else(|| damaged(format!("no block {}", block.id)))?;
        packed.unpack(bytes).map_err(damaged)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        reason = "tests"
    )]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back_whatever_the_pieces(
            parts in proptest::collection::vec((0usize..100_000, any::<u8>(), any::<bool>()), 1..12),
        ) {
            let mut store = Store::new();
            let mut expected = Vec::new();
            let mut number = 1u32;
            for (len, byte, noise) in parts {
                let part: Vec<u8> = (0..len)
                    .map(|_| {
                        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        if noise { (number >> 24) as u8 } else { byte }
                    })
                    .collect();
                store.append(&part);
                expected.extend(part);
            }
            let stored = store.finish();
            prop_assert_eq!(stored.size(), expected.len() as u64);
            let populated = stored.populated().unwrap();
            for (start, block) in (0..).step_by(BLOCK).zip(expected.chunks(BLOCK)) {
                let known_zeros = !populated.iter().any(|range| range.contains(&start));
                prop_assert_eq!(known_zeros, block.iter().all(|byte| *byte == 0), "block at {:#x}", start);
            }
            let mut at = 0;
            while at < expected.len() {
                let block = stored.find(at as u64).unwrap();
                let mut bytes = vec![0xaa; block.len];
                stored.unpack(&block, &mut bytes).unwrap();
                prop_assert!(bytes == expected[at..at + block.len]);
                at += block.len;
            }
        }
    }

    #[test]
    fn zeros_take_no_memory() {
        let mut store = Store::new();
        for _ in 0..1000 {
            store.append(&[0; 100_000]);
        }
        assert!(store.held() < 50_000, "{}", store.held());
        assert_eq!(store.finish().size(), 100_000_000);
    }
}

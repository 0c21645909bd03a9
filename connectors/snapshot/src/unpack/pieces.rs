//! Compressed files in pieces that unpack by themselves: frames, blocks, members.
//!
//! Owns: the list of pieces, and which of them holds a byte. Must not know: compressions.
//! Keeps: pieces follow each other without a gap among the unpacked bytes, and their compressed bytes lie in the file; the list is never longer
//! than the file has bytes for.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{io, sync::Arc};

use memflow_core::Error;

use crate::{
    blocks::{Block, Blocks, MAX_BLOCK, damaged},
    input::{ReadAt, View},
};

/// A piece of a compressed file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    /// Offset of its first byte in the file.
    pub(super) at: u64,
    /// Its length in the file.
    pub(super) packed: u64,
    /// Offset of its first byte among the unpacked bytes.
    pub(super) start: u64,
    /// What its compression wants to know of it.
    pub(super) kind: u32,
}

/// All pieces, in order.
#[derive(Clone, Default, Debug)]
pub(super) struct Pieces {
    list: Vec<Piece>,
    size: u64,
    longest: usize,
}

/// A piece is too long to be unpacked for each read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong;

impl Pieces {
    /// Adds a piece that unpacks to `len` bytes. One that holds nothing is left out.
    pub(super) fn push(&mut self, at: u64, packed: u64, len: u64, kind: u32) -> Result<(), TooLong> {
        let size = usize::try_from(len).ok().filter(|len| *len <= MAX_BLOCK).ok_or(TooLong)?;
        if size > 0 {
            self.list.push(Piece { at, packed, start: self.size, kind });
            self.size = self.size.checked_add(len).ok_or(TooLong)?;
            self.longest = self.longest.max(size);
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The piece that holds the byte at an offset below the size, with its number and its unpacked length.
    fn find(&self, offset: u64) -> Option<(u64, &Piece, usize)> {
        let next = self.list.partition_point(|piece| piece.start <= offset);
        let index = next.checked_sub(1)?;
        let piece = self.list.get(index)?;
        let end = self.list.get(next).map_or(self.size, |next| next.start);
        Some((u64::try_from(index).ok()?, piece, usize::try_from(end.checked_sub(piece.start)?).ok()?))
    }
}

/// Unpacks one piece.
pub(super) trait Unpack: Send + Sync {
    /// What the compression is called.
    const NAME: &'static str;

    /// Fills `bytes`, which are as long as the piece is unpacked, from its compressed bytes.
    ///
    /// # Errors
    /// What is wrong with them, as the end of a sentence.
    fn unpack(&self, piece: &Piece, packed: &[u8], bytes: &mut [u8]) -> Result<(), String>;
}

/// The unpacked bytes of a file in pieces.
pub(super) struct PieceBlocks<U> {
    input: Arc<dyn ReadAt>,
    pieces: Pieces,
    unpack: U,
}

impl<U> PieceBlocks<U> {
    pub(super) fn new(input: Arc<dyn ReadAt>, mut pieces: Pieces, unpack: U) -> Self {
        pieces.list.shrink_to_fit();
        Self { input, pieces, unpack }
    }
}

impl<U: Unpack> Blocks for PieceBlocks<U> {
    fn size(&self) -> u64 {
        self.pieces.size
    }

    fn longest(&self) -> usize {
        self.pieces.longest
    }

    fn find(&self, offset: u64) -> io::Result<Block> {
        let (id, piece, len) =
            self.pieces.find(offset).ok_or_else(|| damaged(format!("no piece holds offset {offset:#x}")))?;
        Ok(Block { id, start: piece.start, len })
    }

    fn unpack(&self, block: &Block, bytes: &mut [u8]) -> io::Result<()> {
        let (_, piece, _) = self
            .pieces
            .find(block.start)
            .ok_or_else(|| damaged(format!("no piece holds offset {:#x}", block.start)))?;
        let view = View::new(&*self.input, U::NAME);
        let packed = view.bytes(piece.at, piece.packed, "compressed data").map_err(as_read)?;
        self.unpack
            .unpack(piece, &packed, bytes)
            .map_err(|problem| damaged(format!("{} data at {:#x}: {problem}", U::NAME, piece.at)))
    }
}

/// The error of a parser as one of a read.
pub(super) fn as_read(error: Error) -> io::Error {
    match error {
        Error::Io { source, .. } => source,
        error => damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_the_piece_that_was_pushed_for_it() {
        let mut pieces = Pieces::default();
        for (at, len) in [(10, 5), (20, 0), (30, 1), (40, 7)] {
            assert_eq!(pieces.push(at, 1, len, 0), Ok(()));
        }
        assert_eq!(pieces.push(50, 1, u64::MAX, 0), Err(TooLong));
        assert_eq!((pieces.size(), pieces.len(), pieces.longest), (13, 3, 7));
        let at = |offset| pieces.find(offset).map(|(id, piece, len)| (id, piece.at, len));
        assert_eq!(
            [0, 4, 5, 6, 12].map(at),
            [Some((0, 10, 5)), Some((0, 10, 5)), Some((1, 30, 1)), Some((2, 40, 7)), Some((2, 40, 7))]
        );
    }
}

//! LZ4: frames of blocks, which depend on the blocks before them or do not; and the older frames without headers.
//!
//! Owns: the framing, the lengths of blocks. Must not know: what is inside; the decoder is lz4_flex.
//! Keeps: a block's length is what its bytes say, not what the frame has room for; a block is at most as long as its frame allows.
//! Sources: `doc/lz4_Frame_format.md` and `doc/lz4_Block_format.md` of the reference implementation, frame format 1.6.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{hash::Hasher, sync::Arc};

use lz4_flex::block::{decompress_into, decompress_into_with_dict};
use memflow_core::{Error, Result};
use twox_hash::XxHash32;

use super::{
    Unpacked,
    index::{Index, Scan},
    pieces::{Piece, PieceBlocks, Pieces, Unpack},
    pump::{Overflow, Sink, Source, UnpackOptions},
};
use crate::{
    detect::{LZ4_LEGACY_MAGIC, LZ4_MAGIC, ZSTD_SKIPPABLE_MAGIC},
    input::ReadAt,
};

const NAME: &str = "lz4";
/// What a block of the older frames unpacks to, unless it is the last.
const LEGACY_BLOCK: u64 = 8 << 20;
/// How far a block looks back.
const WINDOW: usize = 64 << 10;

/// Bit of a block's length: it is stored as it is.
const PLAIN: u32 = 1 << 31;
/// Bits of [`Piece::kind`].
const KIND_PLAIN: u32 = 1;
const KIND_CHECKSUM: u32 = 2;

/// What a frame says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Frame {
    /// Blocks unpack by themselves.
    independent: bool,
    block_checksum: bool,
    content_checksum: bool,
    content: Option<u64>,
    /// Longest block, unpacked.
    most: u64,
    legacy: bool,
}

/// What comes next in a file.
enum Next {
    Frame(Frame),
    /// The end of the file, or of what there is but zeros.
    End,
}

/// Moves past the header of the next frame, and past what may be skipped before it.
fn next_frame(index: &mut Index<'_>) -> Result<Next> {
    const WHAT: &str = "an lz4 frame";
    while !index.only_zeros_left()? {
        let magic = index.peek(4)?.first_chunk().copied().map_or(0, u32::from_le_bytes);
        if ![LZ4_MAGIC, LZ4_LEGACY_MAGIC].contains(&magic) && magic & !0xf != ZSTD_SKIPPABLE_MAGIC {
            return Err(index.strange("another lz4 frame or the end"));
        }
        index.skip(4, WHAT)?;
        match magic {
            LZ4_MAGIC => return Ok(Next::Frame(frame_header(index)?)),
            LZ4_LEGACY_MAGIC => {
                return Ok(Next::Frame(Frame {
                    independent: true,
                    block_checksum: false,
                    content_checksum: false,
                    content: None,
                    most: LEGACY_BLOCK,
                    legacy: true,
                }));
            }
            _ => {
                let len = u32::from_le_bytes(index.array(WHAT)?);
                index.skip(len.into(), "a skippable lz4 frame")?;
            }
        }
    }
    Ok(Next::End)
}

/// Reads what stands behind the magic number.
fn frame_header(index: &mut Index<'_>) -> Result<Frame> {
    const WHAT: &str = "an lz4 frame's header";
    let at = index.offset();
    let descriptor = index.array::<2>(WHAT)?;
    let [flags, block] = descriptor;
    if flags & 0b1100_0010 != 0b0100_0000 || block & 0b1000_1111 != 0 {
        let found = format!("{flags:#04x} and {block:#04x}");
        return Err(index.view().bad(at, "an lz4 frame of version 1 without reserved bits", found));
    }
    let most = match block >> 4 {
        size @ 4..=7 => 1u64 << u32::from(size).saturating_mul(2).saturating_add(8),
        size => return Err(index.view().bad(at.saturating_add(1), "a block size of 4 to 7", format!("{size}"))),
    };
    let mut hash = XxHash32::with_seed(0);
    hash.write(&descriptor);
    let content = match flags & 8 != 0 {
        true => {
            let field = index.array::<8>(WHAT)?;
            hash.write(&field);
            Some(u64::from_le_bytes(field))
        }
        false => None,
    };
    if flags & 1 != 0 {
        return Err(Error::Unsupported {
            what: format!("{}: an lz4 frame with a dictionary", index.view().path().display()),
            why: "the dictionary is in another file; unpack it with `lz4 -d -D DICTIONARY`".to_owned(),
        });
    }
    let [told] = index.array::<1>(WHAT)?;
    let [_, sum, ..] = hash.finish_32().to_le_bytes();
    if told != sum {
        return Err(index.view().bad(
            index.offset().saturating_sub(1),
            format!("header checksum {told:#04x}"),
            format!("a header with {sum:#04x}"),
        ));
    }
    Ok(Frame {
        independent: flags & 0x20 != 0,
        block_checksum: flags & 0x10 != 0,
        content_checksum: flags & 4 != 0,
        content,
        most,
        legacy: false,
    })
}

/// A block, as it lies in the file.
struct Block {
    at: u64,
    /// Its bytes in the file, with the checksum.
    len: u64,
    kind: u32,
}

/// Moves past a block; `None` at the end of its frame.
fn next_block(index: &mut Index<'_>, frame: &Frame) -> Result<Option<Block>> {
    const WHAT: &str = "an lz4 block";
    let at = index.offset();
    if frame.legacy {
        // Such frames end where the file ends, or another frame begins.
        let head = index.peek(4)?.first_chunk().copied().map(u32::from_le_bytes);
        match head {
            None if index.peek(4)?.is_empty() => return Ok(None),
            Some(LZ4_MAGIC | LZ4_LEGACY_MAGIC | 0) => return Ok(None),
            Some(magic) if magic & !0xf == ZSTD_SKIPPABLE_MAGIC => return Ok(None),
            _ => {}
        }
    }
    let field = u32::from_le_bytes(index.array(WHAT)?);
    let (len, plain) = match frame.legacy {
        true => (u64::from(field), false),
        false => (u64::from(field & !PLAIN), field & PLAIN != 0),
    };
    if field == 0 && !frame.legacy {
        return Ok(None);
    }
    // Compression adds a 255th and 16 bytes at worst.
    let most = if frame.legacy { frame.most.saturating_add(frame.most >> 7).saturating_add(16) } else { frame.most };
    if len > most {
        return Err(index.view().bad(at, format!("an lz4 block of {most:#x} bytes at most"), format!("{len:#x}")));
    }
    let checksum = u64::from(frame.block_checksum).saturating_mul(4);
    let at = index.offset();
    let len = len.saturating_add(checksum);
    index.skip(len, WHAT)?;
    let kind = if plain { KIND_PLAIN } else { 0 } | if frame.block_checksum { KIND_CHECKSUM } else { 0 };
    Ok(Some(Block { at, len, kind }))
}

/// The data of a block; its checksum is compared, if it has one.
fn data(packed: &[u8], kind: u32) -> Result<&[u8], String> {
    if kind & KIND_CHECKSUM == 0 {
        return Ok(packed);
    }
    let (data, sum) = packed.split_last_chunk::<4>().ok_or("no room for the checksum")?;
    let (told, sum) = (u32::from_le_bytes(*sum), XxHash32::oneshot(0, data));
    if told == sum { Ok(data) } else { Err(format!("checksum {told:#010x}, and data with {sum:#010x}")) }
}

/// How many bytes a compressed block unpacks to: the sum of its literals and matches. `None` for one that makes no sense.
fn unpacked_len(mut data: &[u8]) -> Option<u64> {
    let mut len: u64 = 0;
    loop {
        let (&token, rest) = data.split_first()?;
        data = rest;
        let literals = long(&mut data, token >> 4)?;
        len = len.checked_add(literals)?;
        data = data.get(usize::try_from(literals).ok()?..)?;
        // The last sequence has literals only.
        if data.is_empty() {
            return Some(len);
        }
        data = data.get(2..)?;
        len = len.checked_add(long(&mut data, token & 0xf)?.checked_add(4)?)?;
    }
}

/// A length that begins in a token, and goes on in the bytes behind it.
fn long(data: &mut &[u8], first: u8) -> Option<u64> {
    let mut len = u64::from(first);
    if first == 0xf {
        loop {
            let (&byte, rest) = data.split_first()?;
            *data = rest;
            len = len.checked_add(u64::from(byte))?;
            if byte != 0xff {
                break;
            }
        }
    }
    Some(len)
}

/// Makes the blocks of an LZ4 file readable at random. Zeros after the last frame are padding.
///
/// # Errors
/// [`Error::Format`] for a stream that is damaged, cut short or followed by something else; [`Error::File`] past the limit;
/// [`Error::Unsupported`] for a frame that needs a dictionary; [`Error::Cancelled`].
pub(super) fn open(input: Arc<dyn ReadAt>, options: UnpackOptions<'_>) -> Result<Unpacked> {
    let mut index = Index::new(&*input, NAME, options);
    if let Scan::Pieces(pieces) = index.scan(blocks)? {
        let notes = index.into_notes();
        return Ok(Unpacked::blocks(Box::new(PieceBlocks::new(input, pieces, Independent)), notes));
    }
    let mut index = Index::new(&*input, NAME, options);
    let mut sink = Sink::new(options, Overflow::Repack, "lz4 -d");
    let result = pass(&mut index, &mut sink, &*input);
    sink.finish(result)
}

/// Lists blocks that unpack by themselves; false when there are others.
fn blocks(index: &mut Index<'_>, pieces: &mut Pieces) -> Result<bool> {
    while let Next::Frame(frame) = next_frame(index)? {
        if !frame.independent {
            return Ok(false);
        }
        let start = pieces.size();
        while let Some(block) = next_block(index, &frame)? {
            let bytes = index.view().bytes(block.at, block.len, "an lz4 block")?;
            let damaged = |found: String| index.view().bad(block.at, "an lz4 block", found);
            let data = data(&bytes, block.kind).map_err(damaged)?;
            let len = match block.kind & KIND_PLAIN != 0 {
                true => u64::try_from(data.len()).ok(),
                false => unpacked_len(data),
            };
            let len = len.filter(|len| *len <= frame.most).ok_or_else(|| damaged("damaged data".to_owned()))?;
            if pieces.push(block.at, block.len, len, block.kind).is_err() {
                return Ok(false);
            }
            index.report(pieces.size())?;
        }
        end_of_frame(index, &frame, pieces.size().saturating_sub(start), None)?;
    }
    Ok(true)
}

/// Moves past what follows the blocks of a frame.
fn end_of_frame(index: &mut Index<'_>, frame: &Frame, len: u64, hash: Option<XxHash32>) -> Result<()> {
    let at = index.offset();
    if let Some(content) = frame.content.filter(|content| *content != len) {
        return Err(index.view().bad(at, format!("an lz4 frame of {content:#x} bytes"), format!("{len:#x}")));
    }
    if frame.content_checksum {
        let told = u32::from_le_bytes(index.array("an lz4 frame's checksum")?);
        if let Some(sum) = hash.map(|hash| hash.finish_32()).filter(|sum| *sum != told) {
            return Err(index.view().bad(at, format!("checksum {told:#010x}"), format!("data with {sum:#010x}")));
        }
    }
    Ok(())
}

/// Unpacks all blocks, one after the other.
fn pass(index: &mut Index<'_>, sink: &mut Sink<'_>, input: &dyn ReadAt) -> Result<()> {
    while let Next::Frame(frame) = next_frame(index)? {
        let mut hash = XxHash32::with_seed(0);
        let start = sink.unpacked();
        let most = usize::try_from(frame.most).unwrap_or(usize::MAX);
        // The bytes before a block, as far as it may look back, and the block.
        let mut buffer = vec![0; WINDOW.saturating_add(most)];
        let mut before: usize = 0;
        while let Some(block) = next_block(index, &frame)? {
            let bytes = index.view().bytes(block.at, block.len, "an lz4 block")?;
            let damaged = |found: String| index.view().bad(block.at, "an lz4 block", found);
            let data = data(&bytes, block.kind).map_err(damaged)?;
            let (dictionary, room) = buffer.split_at_mut(before);
            let room = room.get_mut(..most).unwrap_or_default();
            let len = unpack_block(data, block.kind, dictionary, room).map_err(damaged)?;
            let new = room.get(..len).unwrap_or_default();
            hash.write(new);
            sink.add(new, &Source::at(input, NAME, index.offset()))?;
            let end = before.saturating_add(len);
            before = if frame.independent { 0 } else { end.min(WINDOW) };
            buffer.copy_within(end.saturating_sub(before)..end, 0);
        }
        end_of_frame(index, &frame, sink.unpacked().saturating_sub(start), Some(hash))?;
    }
    Ok(())
}

/// Unpacks a block into the beginning of `room`; how many bytes that are.
fn unpack_block(data: &[u8], kind: u32, dictionary: &[u8], room: &mut [u8]) -> Result<usize, String> {
    if kind & KIND_PLAIN != 0 {
        let to = room.get_mut(..data.len()).ok_or_else(|| format!("{:#x} bytes", data.len()))?;
        to.copy_from_slice(data);
        return Ok(data.len());
    }
    match dictionary.is_empty() {
        true => decompress_into(data, room),
        false => decompress_into_with_dict(data, room, dictionary),
    }
    .map_err(|error| format!("damaged data ({error})"))
}

/// Unpacks blocks that need no other.
struct Independent;

impl Unpack for Independent {
    const NAME: &'static str = NAME;

    fn unpack(&self, piece: &Piece, packed: &[u8], bytes: &mut [u8]) -> Result<(), String> {
        let count = unpack_block(data(packed, piece.kind)?, piece.kind, &[], bytes)?;
        if count == bytes.len() { Ok(()) } else { Err(format!("{count:#x} bytes instead of {:#x}", bytes.len())) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn length_of_a_block_is_told_by_its_bytes(
            parts in proptest::collection::vec((any::<u8>(), 0usize..2000, any::<bool>()), 0..20),
        ) {
            let bytes: Vec<u8> = parts
                .iter()
                .flat_map(|(byte, len, steps)| (0..*len).map(move |at| if *steps { byte.wrapping_add(at.to_le_bytes()[0]) } else { *byte }))
                .collect();
            let packed = lz4_flex::block::compress(&bytes);
            prop_assert_eq!(unpacked_len(&packed), u64::try_from(bytes.len()).ok());
        }
    }

    #[test]
    fn blocks_that_make_no_sense_have_no_length() {
        for bytes in [&b""[..], b"\x10", b"\xf0", b"\xf0\xff", b"\x00\x01", b"\x0f\x01\x00\xff", b"\xff\xff\xff\xff"] {
            assert_eq!(unpacked_len(bytes), None, "{bytes:x?}");
        }
    }
}

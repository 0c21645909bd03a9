//! gzip: one stream that is entered at states which were kept when it was unpacked once; BGZF: members that say how long they are.
//!
//! Owns: which states are kept, the list of BGZF members. Must not know: what is inside.
//! Keeps: states are some 4 % of the unpacked bytes at most, and the further apart the more there are; bytes that are unpacked again have the
//! checksum that they had the first time.
//! Sources: RFC 1952; for BGZF the SAM/BAM format specification, 4.1.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{io, sync::Arc};

use flate2::Crc;
use memflow_core::Result;

use super::{
    Unpacked,
    index::{Index, Scan},
    inflate::{Members, State},
    pieces::{Piece, PieceBlocks, Pieces, Unpack, as_read},
    pump::{Finished, Overflow, Sink, Source, UnpackOptions},
    store::Packer,
};
use crate::{
    blocks::{Block, Blocks, damaged},
    detect::GZIP_MAGIC,
    input::{BytesInput, ReadAt},
};

const NAME: &str = "gzip";
/// Unpacked bytes from one state to the next, at first.
const STEP: u64 = 1 << 20;
/// Most of them. What is unpacked for one byte is no more.
const MAX_STEP: u64 = 16 << 20;
/// Number of states from which on every second one is dropped, as long as the step may grow.
const MANY: usize = 4096;

/// Most bytes that deflate makes of one (zlib's "Technical Details", maximum compression factor).
const MOST_OF_A_BYTE: u64 = 1032;

/// Makes a gzip file readable at random. Zeros after the last member are padding.
///
/// # Errors
/// As [`open`](super::open).
pub(super) fn open(input: Arc<dyn ReadAt>, options: UnpackOptions<'_>) -> Result<Unpacked> {
    let mut index = Index::new(&*input, NAME, options);
    if let Scan::Pieces(pieces) = index.scan(bgzf)? {
        let notes = index.into_notes();
        return Ok(Unpacked::blocks(Box::new(PieceBlocks::new(input, pieces, Member)), notes));
    }
    let mut source = Source::new(&*input, NAME);
    let mut sink = Sink::new(options, Overflow::Drop, "gzip -d");
    let mut marks = Marks::new(STEP, MANY);
    let result = pass(&mut source, &mut sink, &mut marks);
    match sink.end(result)? {
        Finished::Unpacked(unpacked) => Ok(unpacked),
        Finished::Dropped { size, notes } => Ok(Unpacked::blocks(Box::new(Marked { input, marks, size }), notes)),
    }
}

/// Lists members that say how long they are; false when one does not.
fn bgzf(index: &mut Index<'_>, pieces: &mut Pieces) -> Result<bool> {
    while !index.only_zeros_left()? {
        let at = index.offset();
        let Some(len) = bgzf_len(index.peek(18)?) else { return Ok(false) };
        // The last four bytes are the unpacked length.
        let Some(before) = u64::from(len).checked_sub(4) else { return Ok(false) };
        index.skip(before, "a gzip member")?;
        let unpacked = u32::from_le_bytes(index.array("a gzip member's length")?);
        // A length that its data cannot have is not believed: unpacking tells.
        let possible = u64::from(unpacked) <= u64::from(len).saturating_mul(MOST_OF_A_BYTE);
        if !possible || pieces.push(at, len.into(), unpacked.into(), 0).is_err() {
            return Ok(false);
        }
        index.report(pieces.size())?;
    }
    Ok(true)
}

/// Length of a BGZF member, from its first bytes: the extra field that comes first has it.
fn bgzf_len(head: &[u8]) -> Option<u32> {
    let head: &[u8; 18] = head.first_chunk()?;
    let [id1, id2, method, flags, _, _, _, _, _, _, _, _, b'B', b'C', 2, 0, low, high] = *head else { return None };
    let known = [id1, id2, method] == GZIP_MAGIC && flags & 4 != 0;
    known.then(|| u32::from(u16::from_le_bytes([low, high])).saturating_add(1))
}

/// Unpacks one member.
struct Member;

impl Unpack for Member {
    const NAME: &'static str = NAME;

    fn unpack(&self, _: &Piece, packed: &[u8], bytes: &mut [u8]) -> Result<(), String> {
        let input = BytesInput::new("member".as_ref(), packed);
        let mut source = Source::new(&input, NAME);
        let mut members = Members::new();
        let mut rest = bytes;
        while let Some(new) = members.next(&mut source).map_err(|error| error.to_string())? {
            let Some((now, later)) = rest.split_at_mut_checked(new.len()) else {
                return Err("more bytes than it says".to_owned());
            };
            now.copy_from_slice(new);
            rest = later;
        }
        if rest.is_empty() { Ok(()) } else { Err(format!("{:#x} bytes fewer than it says", rest.len())) }
    }
}

/// A state, and the checksum of what is unpacked from it up to the next.
struct Mark {
    state: State,
    crc: Crc,
}

impl Mark {
    fn new(state: State) -> Self {
        Self { state, crc: Crc::new() }
    }
}

/// The states that are kept, at equal distances from the start on.
struct Marks {
    list: Vec<Mark>,
    step: u64,
    /// From this number on there are too many.
    many: usize,
}

impl Marks {
    fn new(step: u64, many: usize) -> Self {
        Self { list: vec![Mark::new(State::start())], step, many }
    }

    /// Takes the next one. Where there are many, every second one goes.
    fn push(&mut self, state: State) {
        self.list.push(Mark::new(state));
        if self.list.len() < self.many || self.step >= MAX_STEP {
            return;
        }
        self.step = self.step.saturating_mul(2);
        let all = std::mem::take(&mut self.list);
        for (index, mark) in all.into_iter().enumerate() {
            match self.list.last_mut().filter(|_| index & 1 == 1) {
                Some(last) => last.crc.combine(&mark.crc),
                None => self.list.push(mark),
            }
        }
    }
}

/// Unpacks everything once, and keeps states on the way.
fn pass(source: &mut Source<'_>, sink: &mut Sink<'_>, marks: &mut Marks) -> Result<()> {
    let mut members = Members::new();
    let mut packer = Packer::new();
    while let Some(bytes) = members.next(source)? {
        if let Some(mark) = marks.list.last_mut() {
            mark.crc.update(bytes);
        }
        sink.add(bytes, source)?;
        // A multiple of the ring's length, so it was just filled.
        let due = u64::try_from(marks.list.len()).unwrap_or(u64::MAX).saturating_mul(marks.step);
        if sink.unpacked() == due {
            marks.push(members.state(source, &mut packer));
        }
    }
    Ok(())
}

/// The unpacked bytes of a file of which states were kept.
struct Marked {
    input: Arc<dyn ReadAt>,
    marks: Marks,
    size: u64,
}

impl Blocks for Marked {
    fn size(&self) -> u64 {
        self.size
    }

    fn longest(&self) -> usize {
        usize::try_from(self.marks.step).unwrap_or(usize::MAX)
    }

    fn find(&self, offset: u64) -> io::Result<Block> {
        let id = offset.checked_div(self.marks.step).unwrap_or(0);
        let start = id.saturating_mul(self.marks.step);
        let len = self.size.saturating_sub(start).min(self.marks.step);
        Ok(Block { id, start, len: usize::try_from(len).unwrap_or(0) })
    }

    fn unpack(&self, block: &Block, bytes: &mut [u8]) -> io::Result<()> {
        let mark = usize::try_from(block.id).ok().and_then(|id| self.marks.list.get(id));
        let mark = mark.ok_or_else(|| damaged(format!("no state {}", block.id)))?;
        let mut source = Source::at(&*self.input, NAME, mark.state.at);
        let mut members = Members::resume(&mark.state).map_err(damaged)?;
        let mut crc = Crc::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(new) = members.next(&mut source).map_err(as_read)? else {
                return Err(damaged("the end of the stream comes earlier than it did"));
            };
            // What is behind the next state is a block of its own.
            let (now, later) = rest.split_at_mut(rest.len().min(new.len()));
            now.copy_from_slice(new.get(..now.len()).unwrap_or_default());
            crc.update(now);
            rest = later;
        }
        if crc.sum() == mark.crc.sum() {
            return Ok(());
        }
        Err(damaged(format!("gzip data at {:#x}: not what it was when the file was opened", mark.state.at)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        reason = "tests"
    )]
    use std::io::Write;

    use super::{super::inflate::RING, *};
    use crate::{blocks::BlockInput, input::View};

    /// Numbers without pattern but with repetitions, and some zeros.
    fn sample(len: usize) -> Vec<u8> {
        let mut number = 1u32;
        (0..len)
            .map(|at| {
                if at % 7 < 3 {
                    number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                }
                if at % (1 << 20) > 900_000 { 0 } else { (number >> 28) as u8 }
            })
            .collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Marks every `step` bytes, at most `many`.
    fn marked(packed: &[u8], step: u64, many: usize) -> Marked {
        let input: Arc<dyn ReadAt> = Arc::new(crate::input::OwnedInput::copy("test".as_ref(), packed).unwrap());
        let options = UnpackOptions { max_unpacked: None, whole: 0, partial: false, on_progress: None };
        let mut sink = Sink::new(options, Overflow::Drop, "gzip -d");
        let mut marks = Marks::new(step, many);
        let result = pass(&mut Source::new(&*input, NAME), &mut sink, &mut marks);
        let Finished::Dropped { size, .. } = sink.end(result).unwrap() else { panic!("nothing is kept whole") };
        Marked { input, marks, size }
    }

    #[test]
    fn every_block_unpacks_from_its_own_state() {
        let image = sample(3_000_001);
        // In one member, and in several whose ends are at and beside the places of states.
        let parts: [&[usize]; 3] = [&[], &[RING], &[1, RING - 1, RING, 2 * RING, 2 * RING + 5]];
        for cuts in parts {
            let mut packed = Vec::new();
            let mut from = 0;
            for cut in cuts.iter().copied().chain([image.len()]) {
                packed.extend(gzip(&image[from..cut.max(from)]));
                from = cut.max(from);
            }
            let marked = marked(&packed, RING as u64, usize::MAX);
            assert_eq!((marked.size, marked.marks.list.len()), (image.len() as u64, image.len().div_ceil(RING)));
            for start in (0..image.len()).step_by(RING).rev() {
                let block = marked.find(start as u64).unwrap();
                let mut bytes = vec![0xaa; block.len];
                marked.unpack(&block, &mut bytes).unwrap();
                assert!(bytes == image[start..start + block.len], "{start:#x} of {cuts:?}");
            }
        }
    }

    #[test]
    fn states_grow_apart_when_there_are_many() {
        let image = sample(5 << 20);
        let marked = marked(&gzip(&image), RING as u64, 4);
        assert_eq!(marked.marks.step, 8 * RING as u64);
        assert_eq!(marked.marks.list.len(), 3);
        let input = BlockInput::new("test".as_ref(), marked, 1 << 20);
        assert!(View::new(&input, "test").bytes(0, input.size(), "all").unwrap() == image);
    }

    #[test]
    fn image_of_a_multiple_of_the_step_has_a_last_state_that_nobody_asks_for() {
        let image = sample(2 * RING);
        let marked = marked(&gzip(&image), RING as u64, usize::MAX);
        let input = BlockInput::new("test".as_ref(), marked, 1 << 20);
        assert!(View::new(&input, "test").bytes(0, input.size(), "all").unwrap() == image);
    }

    #[test]
    fn file_that_changed_since_it_was_opened_is_damaged() {
        let image = sample(1 << 20);
        let mut packed = gzip(&image);
        let mut marked = marked(&packed, RING as u64, usize::MAX);
        let middle = packed.len() / 2;
        packed[middle] ^= 0x10;
        marked.input = Arc::new(crate::input::OwnedInput::copy("test".as_ref(), &packed).unwrap());
        let failed = (0..4u64).filter(|id| {
            let block = marked.find(id * RING as u64).unwrap();
            let mut bytes = vec![0; block.len];
            let result = marked.unpack(&block, &mut bytes);
            result.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
        });
        assert_eq!(failed.count(), 1);
    }
}

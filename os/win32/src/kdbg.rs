//! The kernel's block of data for debuggers (`KDDEBUGGER_DATA64`, KDBG), plain or encoded.
//!
//! Owns: where its members lie, and how it is decoded. Must not know: how the kernel was found, who uses a member.
//! Keeps: a block counts when its tag and the kernel's base stand where they belong.
//! Source: `wdbgexts.h` of the Windows SDK. A kernel that is not being debugged may keep the block encoded: each word is XORed with
//! `KiWaitNever`, rotated by its low byte, XORed with an address, swapped byte by byte and XORed with `KiWaitAlways`. All words
//! have the same keys, so the difference of two words hides nothing but the rotation, and one known word (the kernel's base) tells all
//! others: the keys are not needed.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{MemoryView, MemoryViewExt, VirtAddr};

use crate::{
    bytes::{Bytes, number},
    pe::Image,
};

/// Bytes of the block that are read; it grew to 0x380.
const LEN: u64 = 0x380;
/// Offset of the tag, before the size of the block.
const TAG: u64 = 0x10;
/// Offset of the kernel's base.
const BASE: u64 = 0x18;

/// The block, decoded.
#[derive(Clone, Debug)]
pub(crate) struct Kdbg {
    /// Where it lies.
    pub(crate) at: VirtAddr,
    /// It was encoded.
    pub(crate) encoded: bool,
    bytes: Vec<u8>,
    pointer_size: u8,
}

impl Kdbg {
    /// The block at `at` of the kernel at `base`, plain or encoded.
    pub(crate) fn read(view: &dyn MemoryView, at: VirtAddr, base: VirtAddr) -> Option<Self> {
        let mut bytes = vec![0; usize::try_from(LEN).ok()?];
        let read = view.read_partial(at, &mut bytes).ok()?;
        let end = read.gaps.first().map_or(Some(LEN), |gap| gap.range.start().offset_from(at))?;
        bytes.truncate(usize::try_from(end).ok()?);
        Self::parse(at, bytes, base, view.metadata().pointer_size)
    }

    /// Looks for the block in the kernel's sections that hold data.
    pub(crate) fn search(view: &dyn MemoryView, image: &Image) -> Option<Self> {
        let pointer_size = view.metadata().pointer_size;
        image.sections.iter().filter(|section| section.is_writable()).find_map(|section| {
            let bytes = image.readable(view, section);
            let start = image.at(section.offset);
            let found = memchr::memmem::find_iter(&bytes, b"KDBG").find_map(|tag| {
                let at = number(tag).checked_sub(TAG).filter(|at| at % 4 == 0)?;
                let block = bytes.get(usize::try_from(at).ok()?..)?;
                let block = block.get(..usize::try_from(LEN).ok()?).unwrap_or(block).to_vec();
                Self::parse(start.wrapping_add(at), block, image.base, pointer_size)
            });
            found.or_else(|| {
                let words = bytes.as_chunks::<8>().0;
                (0u64..).zip(words.windows(4)).find_map(|(index, words)| {
                    let [_, _, tag, base] = words else { return None };
                    let (tag, word) = (u64::from_le_bytes(*tag), u64::from_le_bytes(*base));
                    // A word of zeros is none that was encoded.
                    if tag == 0 || word == 0 {
                        return None;
                    }
                    rotation(tag, word, image.base.as_u64())?;
                    let at = index.checked_mul(8)?;
                    let block = bytes.get(usize::try_from(at).ok()?..)?;
                    let block = block.get(..usize::try_from(LEN).ok()?).unwrap_or(block).to_vec();
                    Self::parse(start.wrapping_add(at), block, image.base, pointer_size)
                })
            })
        })
    }

    /// The block, if its tag and base are right, as they are or decoded.
    pub(crate) fn parse(at: VirtAddr, mut bytes: Vec<u8>, base: VirtAddr, pointer_size: u8) -> Option<Self> {
        let (tag, word) = (Bytes(&bytes).u64(TAG)?, Bytes(&bytes).u64(BASE)?);
        let plain = is_tag(tag) && word & mask(pointer_size) == base.as_u64();
        if !plain {
            let rotation = rotation(tag, word, base.as_u64())?;
            for chunk in bytes.as_chunks_mut::<8>().0 {
                *chunk = decode(u64::from_le_bytes(*chunk), word, base.as_u64(), rotation).to_le_bytes();
            }
        }
        Some(Self { at, encoded: !plain, bytes, pointer_size })
    }

    /// The kernel's base that a plain block names, whatever it is.
    pub(crate) fn named_base(block: &[u8], pointer_size: u8) -> Option<VirtAddr> {
        let bytes = Bytes(block);
        is_tag(bytes.u64(TAG)?).then_some(VirtAddr::new(bytes.u64(BASE)? & mask(pointer_size)))
    }

    fn pointer(&self, at: u64) -> Option<VirtAddr> {
        let value = Bytes(&self.bytes).u64(at)? & mask(self.pointer_size);
        (value != 0).then_some(VirtAddr::new(value))
    }

    fn offset(&self, at: u64) -> Option<u64> {
        Bytes(&self.bytes).u16(at).map(u64::from).filter(|offset| *offset != 0)
    }

    /// Head of the list of loaded modules.
    pub(crate) fn loaded_modules(&self) -> Option<VirtAddr> {
        self.pointer(0x48)
    }

    /// Head of the list of processes.
    pub(crate) fn active_processes(&self) -> Option<VirtAddr> {
        self.pointer(0x50)
    }

    /// The variable that leads to the table of process numbers (`PspCidTable`).
    pub(crate) fn process_numbers(&self) -> Option<VirtAddr> {
        self.pointer(0x58)
    }

    /// The text that names the build (`NtBuildLab`).
    pub(crate) fn build_lab(&self) -> Option<VirtAddr> {
        self.pointer(0x208)
    }

    /// The array of pointers to the processors' control blocks (`KiProcessorBlock`).
    pub(crate) fn processors(&self) -> Option<VirtAddr> {
        self.pointer(0x218)
    }

    /// Offsets and sizes that the block names, as structure and member.
    pub(crate) fn layout(&self) -> Vec<(&'static str, u64)> {
        [
            ("_KTHREAD.Teb", 0x29a),
            ("_KTHREAD.KernelStack", 0x29c),
            ("_KTHREAD.InitialStack", 0x29e),
            ("_KTHREAD.ApcState.Process", 0x2a0),
            ("_KTHREAD.State", 0x2a2),
            ("sizeof(_EPROCESS)", 0x2a8),
            ("_EPROCESS.Peb", 0x2aa),
            ("_EPROCESS.InheritedFromUniqueProcessId", 0x2ac),
            ("_KPROCESS.DirectoryTableBase", 0x2ae),
            ("_KPRCB.CurrentThread", 0x2b4),
            ("_KPRCB.Number", 0x2be),
            ("sizeof(_ETHREAD)", 0x2c0),
        ]
        .into_iter()
        .filter_map(|(name, at)| Some((name, self.offset(at)?)))
        .collect()
    }
}

fn mask(pointer_size: u8) -> u64 {
    if pointer_size == 4 { 0xffff_ffff } else { u64::MAX }
}

/// The tag, and a size that a block may have.
fn is_tag(word: u64) -> bool {
    word & 0xffff_ffff == u64::from(u32::from_le_bytes(*b"KDBG")) && (0x200..0x1000).contains(&(word >> 32))
}

/// What an encoded word means, given the meaning of another.
fn decode(word: u64, known: u64, meaning: u64, rotation: u32) -> u64 {
    (word ^ known).rotate_left(rotation).swap_bytes() ^ meaning
}

/// The rotation with which the word at the tag's place becomes a tag, if there is one.
fn rotation(tag: u64, known: u64, meaning: u64) -> Option<u32> {
    (0..64).find(|rotation| is_tag(decode(tag, known, meaning, *rotation)))
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

    const BASE_ADDRESS: u64 = 0xffff_f805_1a09_f000;

    fn block() -> Vec<u8> {
        let mut block = vec![0; 0x380];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x10, b"KDBG\x60\x03\0\0");
        put(0x18, &BASE_ADDRESS.to_le_bytes());
        put(0x48, &0xffff_f805_1a4b_a5d0_u64.to_le_bytes());
        put(0x2aa, &0x3f8_u16.to_le_bytes());
        block
    }

    /// As the kernel does it, with its three keys.
    fn encode(block: &mut [u8], never: u64, always: u64, address: u64) {
        for chunk in block.as_chunks_mut::<8>().0 {
            let word = (u64::from_le_bytes(*chunk) ^ always).swap_bytes() ^ address;
            *chunk = (word.rotate_right((never & 0xff) as u32 % 64) ^ never).to_le_bytes();
        }
    }

    #[test]
    fn encoded_block_is_read_without_its_keys() {
        let base = VirtAddr::new(BASE_ADDRESS);
        let plain = Kdbg::parse(base, block(), base, 8).unwrap();
        assert!(!plain.encoded);
        for (never, always) in [(0x0123_4567_89ab_cd13, 0xfeed), (u64::MAX, 1), (0x40, 0xdead_beef_0000)] {
            let mut encoded = block();
            encode(&mut encoded, never, always, 0xffff_f805_1a4c_0000);
            let kdbg = Kdbg::parse(base, encoded, base, 8).unwrap();
            assert!(kdbg.encoded);
            assert_eq!(kdbg.bytes, plain.bytes);
            assert_eq!(kdbg.loaded_modules(), Some(VirtAddr::new(0xffff_f805_1a4b_a5d0)));
            assert_eq!(kdbg.layout(), [("_EPROCESS.Peb", 0x3f8)]);
        }
    }

    #[test]
    fn block_of_another_kernel_is_none() {
        let base = VirtAddr::new(BASE_ADDRESS);
        assert!(Kdbg::parse(base, block(), VirtAddr::new(0xffff_f800_0000_0000), 8).is_none());
        assert!(Kdbg::parse(base, vec![0; 0x380], base, 8).is_none());
        assert!(Kdbg::parse(base, vec![0xff; 0x380], base, 8).is_none());
        assert!(Kdbg::parse(base, block()[..0x18].to_vec(), base, 8).is_none());
        assert_eq!(Kdbg::named_base(&block(), 8), Some(base));
    }
}

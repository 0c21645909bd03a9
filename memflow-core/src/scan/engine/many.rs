//! The engine for many patterns: places that may hold a gram are found by a table, and only there patterns are compared.
//!
//! Owns: the table, and the loop over the places that are looked at. Must not know: how grams are chosen.
//! Keeps: what a place holds decides nothing in the loop but whether it is looked at again, so that no look waits for the one before.
//!
//! The table has a byte for each value of the hash. Bits take an eighth of its room, and 1.6 times the time: most of it is spent
//! on instructions and not on waiting for the second-level cache. 1,000 patterns, whole scans of the pages of a guest that are not
//! zero: 1.6 GB/s where every place is looked at, 3.9 at every fifth, 4.8 at every eighth. What tells true candidates from others is in
//! the table too: without it, the same took 1.4, 2.9 and 2.8.

use std::ops::ControlFlow;

use super::{
    Haystack, Numbered, Take,
    grams::{Choice, Shape, WIDEST, variants},
};

/// Bytes that are looked at in one go.
const BLOCK: usize = 64;
/// Slots of a table: up to this number of grams a few places of a hundred are taken for one by mistake.
const SMALL_GRAMS: usize = 1 << 13;
const SMALL: usize = 1 << 17;
/// Slots for any other number.
const LARGE: usize = 1 << 21;
/// The golden ratio (Knuth, The Art of Computer Programming, volume 3, 6.4), for 32 and 64 bits.
const RATIO_32: u32 = 0x9e37_79b1;
const RATIO_64: u64 = 0x9e37_79b9_7f4a_7c15;

/// How a gram is taken out of the eight bytes where it begins, and its hash, of which the highest bits are the best.
trait Load: Copy {
    fn gram(self, bytes: &[u8; WIDEST]) -> u64;

    #[inline(always)]
    fn hash(gram: u64) -> u32 {
        (gram.wrapping_mul(RATIO_64) >> u32::BITS) as u32
    }
}

/// Grams of four bytes: half as long a multiplication.
#[derive(Clone, Copy, Debug)]
struct Four;

impl Load for Four {
    #[inline(always)]
    fn gram(self, bytes: &[u8; WIDEST]) -> u64 {
        u64::from_le_bytes(*bytes) & u64::from(u32::MAX)
    }

    #[inline(always)]
    fn hash(gram: u64) -> u32 {
        (gram as u32).wrapping_mul(RATIO_32)
    }
}

/// Grams of eight bytes.
#[derive(Clone, Copy, Debug)]
struct Eight;

impl Load for Eight {
    #[inline(always)]
    fn gram(self, bytes: &[u8; WIDEST]) -> u64 {
        u64::from_le_bytes(*bytes)
    }
}

/// Grams of any other width: these bits.
#[derive(Clone, Copy, Debug)]
struct Masked(u64);

impl Load for Masked {
    #[inline(always)]
    fn gram(self, bytes: &[u8; WIDEST]) -> u64 {
        u64::from_le_bytes(*bytes) & self.0
    }
}

/// A slot with more than one gram; slots with one have its tag, which is odd, and others zero.
const SEVERAL: u8 = 2;

/// The slots of the grams' hashes.
#[derive(Debug)]
enum Table {
    Small(Box<[u8; SMALL]>),
    Large(Box<[u8; LARGE]>),
}

/// A gram, and where in which pattern it stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    hash: u32,
    gram: u64,
    /// Index of the pattern in the engine's list.
    pattern: u32,
    /// Bytes from the start of the pattern to the gram.
    offset: u32,
}

/// Patterns with many grams in all, which are looked up in a table.
#[derive(Debug)]
pub(super) struct Many {
    patterns: Vec<Numbered>,
    shape: Shape,
    farthest: usize,
    table: Table,
    /// Whether zeros are a gram.
    zeros: bool,
    // INVARIANT: sorted by hash; `firsts[bucket]..firsts[bucket + 1]` are those whose hash begins with the bits of `bucket`.
    entries: Vec<Entry>,
    firsts: Vec<u32>,
    bucket_shift: u32,
}

impl Many {
    /// For those patterns for which grams were chosen; `None` when there are none.
    pub(super) fn new(patterns: &[Numbered], choice: &Choice) -> Option<Self> {
        let Choice { shape, firsts, .. } = choice;
        let (mut entries, mut chosen) = (Vec::new(), Vec::new());
        for (numbered, first) in patterns.iter().zip(firsts) {
            let Some(first) = first else { continue };
            let pattern = u32::try_from(chosen.len()).ok()?;
            chosen.push(numbered.clone());
            for place in *first..*first + shape.stride {
                let offset = u32::try_from(place).ok()?;
                let grams = variants(&numbered.fixed, place, shape.width).into_iter();
                entries.extend(grams.map(|gram| Entry { hash: hash(*shape, gram), gram, pattern, offset }));
            }
        }
        entries.sort_unstable();
        let bucket_bits = entries.len().checked_next_power_of_two()?.ilog2().max(1);
        let bucket_shift = u32::BITS - bucket_bits;
        let bucket = |entry: &Entry| (entry.hash >> bucket_shift) as usize;
        let firsts = (0..=1usize << bucket_bits).map(|number| entries.partition_point(|entry| bucket(entry) < number));
        let firsts = firsts.map(|first| u32::try_from(first).unwrap_or(u32::MAX)).collect();
        let farthest = entries.iter().map(|entry| entry.offset as usize).max()?;
        let zeros = entries.iter().any(|entry| entry.gram == 0);
        let table =
            if entries.len() <= SMALL_GRAMS { Table::Small(table(&entries)) } else { Table::Large(table(&entries)) };
        Some(Self { patterns: chosen, shape: *shape, farthest, table, zeros, entries, firsts, bucket_shift })
    }

    /// In words.
    pub(super) fn describe(&self) -> String {
        let (patterns, grams, Shape { width, stride }) = (self.patterns.len(), self.entries.len(), self.shape);
        let bytes = if width == 1 { "byte" } else { "bytes" };
        let places = match stride {
            1 => "every byte".to_owned(),
            _ => format!("every {stride} bytes"),
        };
        format!("{patterns} patterns by {grams} pieces of {width} {bytes}, looked up {places}")
    }

    pub(super) fn find(&self, hay: &Haystack<'_>, take: &mut dyn Take) -> ControlFlow<()> {
        match &self.table {
            Table::Small(table) => self.find_by(table, hay, take),
            Table::Large(table) => self.find_by(table, hay, take),
        }
    }

    fn find_by<const SLOTS: usize>(
        &self,
        table: &[u8; SLOTS],
        hay: &Haystack<'_>,
        take: &mut dyn Take,
    ) -> ControlFlow<()> {
        match self.shape.width {
            4 => self.find_with(Four, table, hay, take),
            WIDEST => self.find_with(Eight, table, hay, take),
            width => self.find_with(Masked(mask(width)), table, hay, take),
        }
    }

    fn find_with<const SLOTS: usize>(
        &self,
        load: impl Load,
        table: &[u8; SLOTS],
        hay: &Haystack<'_>,
        take: &mut dyn Take,
    ) -> ControlFlow<()> {
        // Every place from which eight bytes lie in a block, in groups of seven, eight or eleven.
        match self.shape.stride {
            8 => self.sweep::<SLOTS, 8, 8, 1>(load, table, hay, take),
            5 => self.sweep::<SLOTS, 5, 11, 1>(load, table, hay, take),
            4 => self.sweep::<SLOTS, 4, 7, 2>(load, table, hay, take),
            2 => self.sweep::<SLOTS, 2, 7, 4>(load, table, hay, take),
            _ => self.sweep::<SLOTS, 1, 8, 7>(load, table, hay, take),
        }
    }

    /// Looks at every `STRIDE`th place, `LOOKS` at a time and `GROUPS` times that in each block.
    #[inline(never)]
    fn sweep<const SLOTS: usize, const STRIDE: usize, const LOOKS: usize, const GROUPS: usize>(
        &self,
        load: impl Load,
        table: &[u8; SLOTS],
        hay: &Haystack<'_>,
        take: &mut dyn Take,
    ) -> ControlFlow<()> {
        let end = hay.until.saturating_add(self.farthest).min(hay.bytes.len());
        let mut at = hay.from;
        let mut last;
        while at < end {
            let rest = hay.bytes.get(at..).unwrap_or_default();
            let block = match rest.first_chunk() {
                Some(block) => block,
                None => {
                    // What is added is compared with nothing: patterns are compared with the bytes themselves.
                    last = [0; BLOCK];
                    last.iter_mut().zip(rest).for_each(|(slot, byte)| *slot = *byte);
                    &last
                }
            };
            if self.zeros || !is_zero(block) {
                for group in 0..GROUPS {
                    let grams: [u64; LOOKS] = std::array::from_fn(|nth| {
                        let from = (group * LOOKS + nth) * STRIDE;
                        load.gram(block[from..].first_chunk().unwrap_or(&[0; WIDEST]))
                    });
                    if grams.iter().fold(0, |any, gram| any | table[slot::<_, SLOTS>(load, *gram)]) != 0 {
                        let mut marked = grams.iter().rev().fold(0u32, |marked, gram| {
                            let tag = table[slot::<_, SLOTS>(load, *gram)];
                            let own = tag_of::<SLOTS>(hash_of(load, *gram));
                            marked << 1 | u32::from(tag == own) | u32::from(tag == SEVERAL)
                        });
                        while marked != 0 {
                            let nth = marked.trailing_zeros() as usize;
                            let gram = grams[nth % LOOKS];
                            let place = at + (group * LOOKS + nth) * STRIDE;
                            self.candidates(hay, place, gram, hash_of(load, gram), take)?;
                            marked &= marked - 1;
                        }
                    }
                }
            }
            at += STRIDE * LOOKS * GROUPS;
        }
        ControlFlow::Continue(())
    }

    /// Looks at the patterns that may have this gram.
    #[inline(never)]
    fn candidates(&self, hay: &Haystack<'_>, at: usize, gram: u64, hash: u32, take: &mut dyn Take) -> ControlFlow<()> {
        let bucket = (hash >> self.bucket_shift) as usize;
        let Some([first, end]) = self.firsts.get(bucket..).and_then(<[u32]>::first_chunk) else {
            return ControlFlow::Continue(());
        };
        for entry in self.entries.get(*first as usize..*end as usize).unwrap_or_default() {
            if entry.gram == gram
                && let Some(pattern) = self.patterns.get(entry.pattern as usize)
            {
                pattern.check(hay, at.checked_sub(entry.offset as usize), take)?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// The bits of a gram.
fn mask(width: usize) -> u64 {
    u64::MAX >> (u64::BITS - 8 * width as u32)
}

/// The hash of a gram in this shape.
fn hash(shape: Shape, gram: u64) -> u32 {
    match shape.width {
        4 => Four::hash(gram),
        _ => Eight::hash(gram),
    }
}

#[inline(always)]
fn hash_of<L: Load>(_: L, gram: u64) -> u32 {
    L::hash(gram)
}

/// The slot of a gram.
#[inline(always)]
fn slot<L: Load, const SLOTS: usize>(load: L, gram: u64) -> usize {
    (hash_of(load, gram) >> (u32::BITS - SLOTS.ilog2())) as usize
}

/// What a slot with only this gram has: bits of the hash behind those of the slot.
#[inline(always)]
fn tag_of<const SLOTS: usize>(hash: u32) -> u8 {
    (hash >> (u32::BITS - SLOTS.ilog2() - u8::BITS)) as u8 | 1
}

fn table<const SLOTS: usize>(entries: &[Entry]) -> Box<[u8; SLOTS]> {
    let mut table = vec![0; SLOTS].into_boxed_slice();
    for entry in entries {
        if let Some(slot) = table.get_mut((entry.hash >> (u32::BITS - SLOTS.ilog2())) as usize) {
            let own = tag_of::<SLOTS>(entry.hash);
            *slot = if [0, own].contains(slot) { own } else { SEVERAL };
        }
    }
    table.try_into().unwrap_or_else(|_| Box::new([0; SLOTS]))
}

/// True when all bytes are zero.
#[inline(always)]
fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.as_chunks::<8>().0.iter().fold(0, |any, word| any | u64::from_ne_bytes(*word)) == 0
}

//! Engines for several patterns: places where four bytes of one of them stand are looked for, and only there the whole pattern.
//!
//! Owns: which four bytes ("grams") stand for a pattern, the search for few of them side by side and for many by a table.
//! Must not know: regular expressions.
//! Keeps: a place where a pattern matches holds exactly one of its grams at the places that are looked at, so it is found once.
//!
//! The table is a set of bits by a hash of four bytes, 16 KiB, which the first-level cache holds. Where every pattern has `n` bytes
//! in a row with few variants, its `n - 3` grams are all in the table, and only every `n - 3`rd place is looked at.
//! 1,000 patterns over 512 MiB of guests' memory, one thread, whole scans: 4.4 GB/s with 8 to 32 bytes, 2.4 with 6 to 16, 0.9 with 4 to
//! 8 (before one load had five grams); an Aho-Corasick DFA alone runs at 0.5 GB/s whatever the patterns, its contiguous NFA at 0.3.
//! Sets in which one gram stands for more than [`MOST_ALIKE`] patterns are left to it, as on other guests: 0.3 to 0.7 GB/s.

use std::{collections::BTreeSet, ops::ControlFlow};

use aho_corasick::packed::{self, Searcher};

use super::{super::pattern::Fixed, Haystack, Numbered, Take};

/// Bytes of a gram.
pub(super) const GRAM: usize = 4;
/// Patterns that may stand behind one gram: each costs a look at every place that has it.
pub(super) const MOST_ALIKE: usize = 32;
/// Grams that are searched side by side; more of them get in each other's way.
const MOST_FEW: usize = 32;
/// Most places from one look to the next: more gains little and takes more grams.
const MAX_STRIDE: usize = 8;
/// Bits of the hash that index the table, at least: 16 KiB.
const MIN_BITS: u32 = 17;
/// And at most: 512 KiB.
const MAX_BITS: u32 = 22;
/// Knuth's multiplier for 32 bits (The Art of Computer Programming, volume 3, 6.4): the golden ratio.
const MULTIPLIER: u32 = 0x9e37_79b1;

/// How often a byte stands in memory, roughly: zeros most, then what fills, small numbers, and common letters and code.
pub(super) fn frequency(byte: u8) -> u32 {
    match byte {
        0 => 40,
        0xff => 20,
        1..=4 | 8 | 0x10 | 0x20 | 0x40 | 0x48 | 0x80 | 0x89 | 0x8b | 0xcc => 5,
        b'a' | b'e' | b'i' | b'n' | b'o' | b'r' | b's' | b't' => 3,
        _ => 1,
    }
}

/// The longest bytes in a row of a pattern that have few variants: where, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grams {
    offset: usize,
    len: usize,
}

impl Grams {
    /// `None` when there are not four.
    pub(super) fn of(fixed: &Fixed) -> Option<Self> {
        let mut best: Option<Self> = None;
        let mut start = 0;
        for index in 0..fixed.value.len() {
            // With two kinds of each byte, a gram has at most sixteen variants.
            if fixed.bits(index).count_zeros() > 1 {
                start = index + 1;
            }
            let len = index + 1 - start;
            if len >= GRAM && best.is_none_or(|best| len > best.len) {
                best = Some(Self { offset: start, len });
            }
        }
        best
    }

    /// The best `len` bytes in a row within these: those that stand in memory least often.
    fn best(self, fixed: &Fixed, len: usize) -> usize {
        let byte = |index: usize| fixed.value.get(index).copied().unwrap_or(0);
        let cost = |offset: &usize| -> u64 {
            let grams = *offset..=*offset + len - GRAM;
            let worst = grams.map(|at| {
                let sum: u32 = (at..at + GRAM).map(|index| frequency(byte(index))).sum();
                let same = (at + 1..at + GRAM).all(|index| byte(index) == byte(at));
                u64::from(sum) * if same { 1000 } else { 1 }
            });
            worst.sum()
        };
        (self.offset..=self.offset + self.len.saturating_sub(len)).min_by_key(cost).unwrap_or(self.offset)
    }
}

/// Every variant of the four bytes at `offset`.
fn variants(fixed: &Fixed, offset: usize) -> Vec<[u8; GRAM]> {
    let mut variants = vec![[0; GRAM]];
    for place in 0..GRAM {
        let (bits, value) = (fixed.bits(offset + place), fixed.value.get(offset + place).copied().unwrap_or(0));
        let bytes: Vec<u8> = (0..=u8::MAX).filter(|byte| byte & bits == value).collect();
        let longer = variants.iter().flat_map(|variant| {
            bytes.iter().map(move |byte| {
                let mut longer = *variant;
                longer.iter_mut().skip(place).take(1).for_each(|slot| *slot = *byte);
                longer
            })
        });
        variants = longer.collect();
    }
    variants
}

/// A gram, and where in which pattern it stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    gram: [u8; GRAM],
    /// Index of the pattern in the engine's list.
    pattern: usize,
    /// Bytes from the start of the pattern to the gram.
    offset: usize,
}

/// Patterns with few grams in all, which are searched side by side.
#[derive(Debug)]
pub(super) struct Few {
    patterns: Vec<Numbered>,
    searcher: Searcher,
    /// By the number of the gram in the searcher.
    entries: Vec<Vec<Entry>>,
    farthest: usize,
}

impl Few {
    /// `None` when there are too many, when too many patterns share one, or when the processor cannot do it.
    pub(super) fn new(patterns: &[Numbered]) -> Option<Self> {
        if patterns.is_empty() || patterns.len() > MOST_FEW {
            return None;
        }
        let mut entries: Vec<Entry> = Vec::new();
        for (pattern, numbered) in patterns.iter().enumerate() {
            let offset = Grams::of(&numbered.fixed)?.best(&numbered.fixed, GRAM);
            entries.extend(variants(&numbered.fixed, offset).into_iter().map(|gram| Entry { gram, pattern, offset }));
        }
        entries.sort_unstable();
        let entries: Vec<Vec<Entry>> =
            entries.chunk_by(|one, next| one.gram == next.gram).map(<[Entry]>::to_vec).collect();
        if entries.len() > MOST_FEW || entries.iter().any(|alike| alike.len() > MOST_ALIKE) {
            return None;
        }
        let grams = entries.iter().filter_map(|alike| alike.first()).map(|entry| entry.gram);
        let searcher = packed::Config::new().builder().extend(grams).build()?;
        let farthest = entries.iter().flatten().map(|entry| entry.offset).max().unwrap_or(0);
        Some(Self { patterns: patterns.to_vec(), searcher, entries, farthest })
    }

    /// Number of grams.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn find(&self, hay: &Haystack<'_>, take: &mut dyn Take) -> ControlFlow<()> {
        let end = hay.until.saturating_add(self.farthest).saturating_add(GRAM - 1).min(hay.bytes.len());
        let mut from = hay.from;
        while from < end
            && let Some(found) = self.searcher.find_in(hay.bytes, (from..end).into())
        {
            let place = found.start();
            for entry in self.entries.get(found.pattern().as_usize()).map_or(&[][..], Vec::as_slice) {
                if let Some(pattern) = self.patterns.get(entry.pattern) {
                    pattern.check(hay, place.checked_sub(entry.offset), take)?;
                }
            }
            from = place + 1;
        }
        ControlFlow::Continue(())
    }
}

/// Patterns with many grams in all, which are looked up in a table.
#[derive(Debug)]
pub(super) struct Many {
    patterns: Vec<Numbered>,
    stride: usize,
    farthest: usize,
    /// A bit for each value of the hash that a gram has.
    bits: Vec<u64>,
    shift: u32,
    // INVARIANT: sorted by hash; `firsts[bucket]..firsts[bucket + 1]` are those whose hash begins with the bits of `bucket`.
    entries: Vec<Entry>,
    firsts: Vec<usize>,
    bucket_shift: u32,
}

impl Many {
    /// `None` when there are none, or when too many patterns share a gram.
    pub(super) fn new(patterns: &[Numbered]) -> Option<Self> {
        let grams: Vec<Grams> = patterns.iter().map(|numbered| Grams::of(&numbered.fixed)).collect::<Option<_>>()?;
        let shortest = grams.iter().map(|grams| grams.len).min()?;
        let stride = (shortest - (GRAM - 1)).min(MAX_STRIDE);
        let mut entries = BTreeSet::new();
        for (pattern, (numbered, grams)) in patterns.iter().zip(grams).enumerate() {
            let first = grams.best(&numbered.fixed, stride + GRAM - 1);
            for offset in first..first + stride {
                let all = variants(&numbered.fixed, offset).into_iter();
                entries.extend(all.map(|gram| Entry { gram, pattern, offset }));
            }
        }
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        if entries.chunk_by(|one, next| one.gram == next.gram).any(|alike| alike.len() > MOST_ALIKE) {
            return None;
        }
        entries.sort_by_key(|entry| hash(entry.number()));
        // A place is taken for a gram by mistake in one case of sixteen at most.
        let wanted = entries.len().saturating_mul(16).next_power_of_two().ilog2();
        let bits_of_index = wanted.clamp(MIN_BITS, MAX_BITS);
        let mut bits = vec![0u64; 1 << (bits_of_index - 6)];
        let shift = u32::BITS - bits_of_index;
        let bucket_bits = entries.len().next_power_of_two().ilog2().clamp(1, MAX_BITS);
        let bucket_shift = u32::BITS - bucket_bits;
        for entry in &entries {
            let index = hash(entry.number()) >> shift;
            if let Some(word) = bits.get_mut(index as usize >> 6) {
                *word |= 1 << (index & 63);
            }
        }
        let bucket = |entry: &Entry| (hash(entry.number()) >> bucket_shift) as usize;
        let firsts = (0..=1usize << bucket_bits).map(|number| entries.partition_point(|entry| bucket(entry) < number));
        let firsts = firsts.collect();
        let farthest = entries.iter().map(|entry| entry.offset).max().unwrap_or(0);
        Some(Self { patterns: patterns.to_vec(), stride, farthest, bits, shift, entries, firsts, bucket_shift })
    }

    /// In words.
    pub(super) fn describe(&self) -> String {
        let (patterns, grams, stride) = (self.patterns.len(), self.entries.len(), self.stride);
        format!("{patterns} patterns by {grams} pieces of 4 bytes, looked up every {stride} bytes")
    }

    pub(super) fn find(&self, hay: &Haystack<'_>, take: &mut dyn Take) -> ControlFlow<()> {
        let end = hay.until.saturating_add(self.farthest).saturating_add(GRAM - 1).min(hay.bytes.len());
        let bytes = hay.bytes.get(..end).unwrap_or_default();
        let (bits, shift, stride) = (&*self.bits, self.shift, self.stride);
        let mut at = hay.from;
        if stride == 1 {
            // One load has five grams.
            while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
                let word = u64::from_le_bytes(*word);
                let grams = [0, 8, 16, 24, 32].map(|by| (word >> by) as u32);
                if grams.iter().fold(false, |any, gram| any | has(bits, shift, *gram)) {
                    for (gram, place) in grams.into_iter().zip(at..) {
                        if has(bits, shift, gram) {
                            self.candidates(hay, place, gram, take)?;
                        }
                    }
                }
                at += grams.len();
            }
        }
        while let Some(gram) = bytes.get(at..).and_then(<[u8]>::first_chunk::<GRAM>) {
            let gram = u32::from_le_bytes(*gram);
            if has(bits, shift, gram) {
                self.candidates(hay, at, gram, take)?;
            }
            at += stride;
        }
        ControlFlow::Continue(())
    }

    /// Looks at the patterns that may have this gram.
    #[inline(never)]
    fn candidates(&self, hay: &Haystack<'_>, at: usize, gram: u32, take: &mut dyn Take) -> ControlFlow<()> {
        let bucket = (hash(gram) >> self.bucket_shift) as usize;
        let (first, end) = (self.firsts.get(bucket), self.firsts.get(bucket + 1));
        let (Some(first), Some(end)) = (first, end) else { return ControlFlow::Continue(()) };
        for entry in self.entries.get(*first..*end).unwrap_or_default() {
            if entry.number() == gram
                && let Some(pattern) = self.patterns.get(entry.pattern)
            {
                pattern.check(hay, at.checked_sub(entry.offset), take)?;
            }
        }
        ControlFlow::Continue(())
    }
}

impl Entry {
    /// The gram as it is loaded.
    #[inline]
    fn number(&self) -> u32 {
        u32::from_le_bytes(self.gram)
    }
}

#[inline]
fn hash(gram: u32) -> u32 {
    gram.wrapping_mul(MULTIPLIER)
}

/// True when the table has the gram, or one with the same hash.
#[inline]
fn has(bits: &[u64], shift: u32, gram: u32) -> bool {
    let index = hash(gram) >> shift;
    bits.get(index as usize >> 6).is_some_and(|word| word >> (index & 63) & 1 == 1)
}

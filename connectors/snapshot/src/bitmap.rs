//! A bit for each page of a machine.
//!
//! Owns: counting and joining bits. Must not know: headers, what a bit means.
//! Keeps: as long as the bytes that were in the file; a run for each group of set bits, never an entry for each page.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::ops::Range;

use memflow_core::{PhysAddr, PhysRange, Result, memory::Run};

use crate::input::View;

/// A set of page frame numbers.
#[derive(Clone, Debug)]
pub(crate) struct Bitmap {
    /// Page `n` is bit `n % 64` of word `n / 64`.
    words: Vec<u64>,
}

impl Bitmap {
    /// Reads the bits of `pages` pages at `at`.
    pub(crate) fn read(view: &View<'_>, at: u64, pages: u64, what: &str) -> Result<Self> {
        let bytes = view.bytes(at, pages.div_ceil(8), what)?;
        let mut words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                if let Some(part) = word.get_mut(..chunk.len()) {
                    part.copy_from_slice(chunk);
                }
                u64::from_le_bytes(word)
            })
            .collect();
        // Bits behind the last page are padding.
        if let Some(last) = words.last_mut()
            && !pages.is_multiple_of(64)
        {
            *last &= ones_below(pages % 64);
        }
        Ok(Self { words })
    }

    /// The pages of a range only.
    pub(crate) fn within(mut self, range: Range<u64>) -> Self {
        for (index, word) in (0u64..).zip(&mut self.words) {
            let first = index.saturating_mul(64);
            let below = |page: u64| ones_below(page.saturating_sub(first).min(64));
            *word &= below(range.end) & !below(range.start);
        }
        self
    }

    /// The pages that are not in `other`.
    pub(crate) fn without(mut self, other: &Self) -> Self {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
        self
    }

    /// Whether a page is in it.
    pub(crate) fn has(&self, page: u64) -> bool {
        let word = page.checked_div(64).and_then(|index| self.words.get(usize::try_from(index).ok()?));
        let bit = word.zip(u32::try_from(page % 64).ok()).and_then(|(word, bit)| word.checked_shr(bit));
        bit.is_some_and(|bit| bit & 1 == 1)
    }

    /// The last page that is in it.
    pub(crate) fn last(&self) -> Option<u64> {
        let (index, word) = self.words.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        let bit = 63u32.checked_sub(word.leading_zeros())?;
        u64::try_from(index).ok()?.checked_mul(64)?.checked_add(bit.into())
    }

    /// How many pages are in it.
    pub(crate) fn count(&self) -> u64 {
        self.words.iter().fold(0, |sum: u64, word| sum.saturating_add(word.count_ones().into()))
    }

    /// A run for each group of consecutive pages of `page_size` bytes, which follow each other from `offset` on. At most the first `most`
    /// pages.
    pub(crate) fn runs(&self, page_size: u64, mut offset: u64, most: u64) -> impl Iterator<Item = Run> {
        let mut left = most;
        self.groups().map_while(move |group| {
            let pages = group.end.saturating_sub(group.start).min(left);
            left = left.saturating_sub(pages);
            let len = pages.checked_mul(page_size)?;
            let start = PhysAddr::new(group.start.checked_mul(page_size)?);
            let run = Run { range: PhysRange::new(start, len).filter(|range| !range.is_empty())?, offset };
            offset = offset.checked_add(len)?;
            Some(run)
        })
    }

    /// The same as a list, which takes no more memory than its runs.
    pub(crate) fn listed(&self, page_size: u64, offset: u64, most: u64) -> Vec<Run> {
        let room = self.group_count().min(most);
        let mut list = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
        list.extend(self.runs(page_size, offset, most));
        list
    }

    /// How many groups of consecutive pages there are.
    fn group_count(&self) -> u64 {
        let mut before = 0;
        self.words.iter().fold(0, |sum: u64, word| {
            // A group begins where the page before is not in the set.
            let starts = word & !(word << 1 | before);
            before = word >> 63;
            sum.saturating_add(starts.count_ones().into())
        })
    }

    /// Groups of consecutive pages.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Range<u64>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let start = self.find(next, false)?;
            let end = self.find(start, true).unwrap_or_else(|| self.len());
            next = end;
            Some(start..end)
        })
    }

    fn len(&self) -> u64 {
        u64::try_from(self.words.len()).unwrap_or(u64::MAX).saturating_mul(64)
    }

    /// The first page from `from` on that is in the set, or, with `absent`, is not.
    fn find(&self, from: u64, absent: bool) -> Option<u64> {
        let mut index = usize::try_from(from.checked_div(64)?).ok()?;
        let mut hidden = ones_below(from % 64);
        loop {
            let word = *self.words.get(index)?;
            let wanted = if absent { !word } else { word } & !hidden;
            if wanted != 0 {
                let first = u64::try_from(index).ok()?.checked_mul(64)?;
                return first.checked_add(wanted.trailing_zeros().into());
            }
            hidden = 0;
            index = index.checked_add(1)?;
        }
    }
}

/// A word with its lowest `count` bits set.
fn ones_below(count: u64) -> u64 {
    u32::try_from(count).ok().and_then(|count| 1u64.checked_shl(count)).map_or(u64::MAX, |bit| bit.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests")]
    use memflow_core::memory::RunMap;
    use proptest::prelude::*;

    use super::*;
    use crate::input::BytesInput;

    fn bitmap(bytes: &[u8], pages: u64) -> Bitmap {
        Bitmap::read(&View::new(&BytesInput::new("bits".as_ref(), bytes), "bits"), 0, pages, "bits").unwrap()
    }

    proptest! {
        #[test]
        fn runs_are_those_of_each_bit_by_itself(
            bytes in proptest::collection::vec(prop_oneof![Just(0), Just(0xffu8), any::<u8>()], 0..40),
            cut in 0u64..9,
            part in (0u64..330, 0u64..330),
            most in prop_oneof![Just(u64::MAX), 0u64..300],
        ) {
            let pages = (bytes.len() as u64 * 8).saturating_sub(cut);
            let set = |page: u64| {
                part.0 <= page && page < part.1 && bytes.get(page as usize / 8).is_some_and(|byte| byte >> (page % 8) & 1 == 1)
            };
            let bits = bitmap(&bytes, pages).within(part.0..part.1);
            let each = (0..pages).filter(|page| set(*page)).take(most.min(1 << 20) as usize);
            let expected = RunMap::new(each.zip(0u64..).map(|(page, index)| Run {
                range: PhysRange::new(PhysAddr::new(page * 0x1000), 0x1000).unwrap(),
                offset: index * 0x1000,
            }))
            .unwrap();
            prop_assert_eq!(RunMap::new(bits.runs(0x1000, 0, most)).unwrap(), expected);
            prop_assert_eq!(bits.group_count(), bits.groups().count() as u64);
            prop_assert_eq!(bits.listed(0x1000, 0, most), bits.runs(0x1000, 0, most).collect::<Vec<_>>());
            prop_assert_eq!(bits.count(), (0..pages).filter(|page| set(*page)).count() as u64);
            prop_assert_eq!(bits.clone().without(&bits).count(), 0);
        }
    }
}

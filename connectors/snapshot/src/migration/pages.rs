//! The pages of RAM that a stream holds.
//!
//! Owns: where each page of a block is, and reading one. Must not know: sections, addresses of the guest.
//! Keeps: of several copies of a page the last counts; an entry stands for consecutive pages that lie in the file at equal distances, so
//! entries are never more than the records in the stream.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{collections::BTreeMap, io, ops::Range, sync::Arc};

use flate2::{Decompress, FlushDecompress, Status};
use memflow_core::Error;

use crate::{
    bitmap::Bitmap,
    blocks::{Block, Blocks, damaged, without_short_holes},
    input::{ReadAt, View},
};

/// Number of the one block that stands for all pages of zeros.
const ZEROS: u64 = u64::MAX;

/// Where the bytes of a page are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// All bytes are this one.
    Fill(u8),
    /// In the file as they are.
    Stored(u64),
    /// A zlib stream in the file.
    Packed { at: u64, len: u32 },
}

/// Consecutive pages.
#[derive(Clone, Copy, Debug)]
struct Extent {
    pages: u64,
    first: Place,
    /// From one stored page to the next.
    stride: u64,
}

impl Extent {
    /// Where page `index` of it is.
    fn place(&self, index: u64) -> Place {
        match self.first {
            Place::Stored(at) => Place::Stored(at.saturating_add(index.saturating_mul(self.stride))),
            other => other,
        }
    }

    /// Takes the page behind its last, if that goes.
    fn extend(&mut self, place: Place) -> bool {
        let fits = match (self.first, place) {
            (Place::Fill(first), Place::Fill(byte)) => first == byte,
            (Place::Stored(first), Place::Stored(at)) if self.pages == 1 => match at.checked_sub(first) {
                Some(stride) => {
                    self.stride = stride;
                    true
                }
                None => false,
            },
            (Place::Stored(_), Place::Stored(_)) => self.place(self.pages) == place,
            _ => false,
        };
        if fits {
            self.pages = self.pages.saturating_add(1);
        }
        fits
    }

    /// What is left without its first pages.
    fn without_first(&self, skipped: u64) -> Option<Self> {
        let pages = self.pages.checked_sub(skipped).filter(|pages| *pages > 0)?;
        Some(Self { pages, first: self.place(skipped), stride: self.stride })
    }
}

/// The pages of one block.
#[derive(Debug)]
pub(super) enum Pages {
    /// Named one by one in the stream.
    Listed(Listed),
    /// At fixed places in the file; those that are not in the set are zeros.
    Mapped { set: Bitmap, at: u64, count: u64 },
}

/// By number of the first page; none overlaps the next.
#[derive(Debug, Default)]
pub(super) struct Listed {
    extents: BTreeMap<u64, Extent>,
    /// The pages that came last, which may go on.
    open: Option<(u64, Extent)>,
}

impl Listed {
    /// A page as the stream names it.
    pub(super) fn add(&mut self, page: u64, place: Place) {
        if let Some((first, extent)) = &mut self.open
            && first.checked_add(extent.pages) == Some(page)
            && extent.extend(place)
        {
            return;
        }
        self.close();
        self.open = Some((page, Extent { pages: 1, first: place, stride: 0 }));
    }

    /// Puts the last pages in the place of what was there.
    pub(super) fn close(&mut self) {
        let Some((start, extent)) = self.open.take() else { return };
        let end = start.saturating_add(extent.pages);
        if let Some((&first, before)) = self.extents.range_mut(..start).next_back() {
            let old = *before;
            if first.saturating_add(old.pages) > start {
                before.pages = start.saturating_sub(first);
                self.keep_behind(first, &old, end);
            }
        }
        while let Some((&first, &old)) = self.extents.range(start..).next()
            && first < end
        {
            self.extents.remove(&first);
            self.keep_behind(first, &old, end);
        }
        self.extents.insert(start, extent);
    }

    /// The groups of consecutive pages that are at such places.
    fn groups(&self, wanted: impl Fn(Place) -> bool) -> Vec<Range<u64>> {
        let mut groups: Vec<Range<u64>> = Vec::new();
        for (first, extent) in self.extents.iter().filter(|(_, extent)| wanted(extent.first)) {
            let end = first.saturating_add(extent.pages);
            match groups.last_mut() {
                Some(last) if last.end == *first => last.end = end,
                _ => groups.push(*first..end),
            }
        }
        groups
    }

    /// Keeps what an extent holds from `end` on.
    fn keep_behind(&mut self, first: u64, old: &Extent, end: u64) {
        if let Some(rest) = old.without_first(end.saturating_sub(first)) {
            self.extents.insert(end, rest);
        }
    }
}

impl Pages {
    /// No pages yet.
    pub(super) fn none() -> Self {
        Self::Listed(Listed::default())
    }

    /// Where a page is; `None` for one that the stream does not hold.
    fn place(&self, page: u64, page_size: u64) -> Option<Place> {
        match self {
            Self::Listed(Listed { extents, .. }) => {
                let (first, extent) = extents.range(..=page).next_back()?;
                let index = page.checked_sub(*first).filter(|index| *index < extent.pages)?;
                Some(extent.place(index))
            }
            Self::Mapped { set, at, count } if page < *count => Some(match set.has(page) {
                true => Place::Stored(at.saturating_add(page.saturating_mul(page_size))),
                false => Place::Fill(0),
            }),
            Self::Mapped { .. } => None,
        }
    }

    /// The pages that the stream holds, in order.
    pub(super) fn held(&self) -> Vec<Range<u64>> {
        match self {
            Self::Listed(listed) => listed.groups(|_| true),
            Self::Mapped { count, .. } => Vec::from_iter((*count > 0).then_some(0..*count)),
        }
    }

    /// Those of them that are not known to be zeros.
    fn populated(&self) -> Vec<Range<u64>> {
        match self {
            Self::Listed(listed) => listed.groups(|place| place != Place::Fill(0)),
            Self::Mapped { set, count, .. } => {
                set.groups().map(|group| group.start..group.end.min(*count)).filter(|group| !group.is_empty()).collect()
            }
        }
    }
}

/// The pages of one block, among those of all.
#[derive(Debug)]
pub(super) struct Part {
    /// Offset of its first byte.
    pub(super) start: u64,
    pub(super) pages: Pages,
}

impl Part {
    /// The bytes of groups of its pages, among those of all.
    pub(super) fn bytes(&self, groups: Vec<Range<u64>>, page_size: u64) -> impl Iterator<Item = Range<u64>> {
        let offset = move |page: u64| page.checked_mul(page_size)?.checked_add(self.start);
        groups.into_iter().filter_map(move |group| Some(offset(group.start)?..offset(group.end)?))
    }
}

/// The pages of all blocks, one after the other.
pub(super) struct Ram {
    pub(super) input: Arc<dyn ReadAt>,
    /// In the order of `start`, the first of which is zero.
    pub(super) parts: Vec<Part>,
    pub(super) size: u64,
    pub(super) page_size: u64,
}

impl Ram {
    fn place(&self, offset: u64) -> io::Result<Place> {
        let part = self.parts.partition_point(|part| part.start <= offset).checked_sub(1);
        part.and_then(|index| self.parts.get(index))
            .and_then(|part| {
                let page = offset.checked_sub(part.start)?.checked_div(self.page_size)?;
                part.pages.place(page, self.page_size)
            })
            .ok_or_else(|| damaged(format!("the stream holds no page for offset {offset:#x}")))
    }
}

impl Blocks for Ram {
    fn size(&self) -> u64 {
        self.size
    }

    fn find(&self, offset: u64) -> io::Result<Block> {
        let number = offset.checked_div(self.page_size).unwrap_or(0);
        let id = if self.place(offset)? == Place::Fill(0) { ZEROS } else { number };
        let len = usize::try_from(self.page_size).unwrap_or(0);
        Ok(Block { id, start: number.saturating_mul(self.page_size), len })
    }

    fn populated(&self) -> Option<Vec<Range<u64>>> {
        let parts = self.parts.iter().flat_map(|part| part.bytes(part.pages.populated(), self.page_size));
        Some(without_short_holes(parts))
    }

    fn unpack(&self, block: &Block, page: &mut [u8]) -> io::Result<()> {
        let view = View::new(&*self.input, "QEMU migration stream");
        let read = |error: Error| match error {
            Error::Io { source, .. } => source,
            error => damaged(error.to_string()),
        };
        match self.place(block.start)? {
            Place::Fill(byte) => page.fill(byte),
            Place::Stored(at) => view.fill(at, page, "a page").map_err(read)?,
            Place::Packed { at, len } => {
                let packed = view.bytes(at, len.into(), "a compressed page").map_err(read)?;
                let mut decoder = Decompress::new(true);
                let done = decoder.decompress(&packed, page, FlushDecompress::Finish);
                let whole = u64::try_from(page.len()).is_ok_and(|len| decoder.total_out() == len);
                if !matches!(done, Ok(Status::StreamEnd)) || !whole {
                    return Err(damaged(format!("the compressed page at {at:#x} does not unpack to a page")));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn last_copy_of_each_page_counts(
            records in proptest::collection::vec((0u64..60, 1u64..20, prop_oneof![Just(8u64), Just(100)], 0u8..4), 0..40),
        ) {
            let mut expected: BTreeMap<u64, Place> = BTreeMap::new();
            let mut listed = Listed::default();
            let mut at = 0;
            for (first, count, stride, kind) in records {
                for page in first..first + count {
                    let place = match kind {
                        0 => Place::Fill(0),
                        1 => Place::Fill(7),
                        2 => Place::Packed { at, len: 9 },
                        _ => Place::Stored(at),
                    };
                    at += stride;
                    listed.add(page, place);
                    expected.insert(page, place);
                }
            }
            listed.close();
            let pages = Pages::Listed(listed);
            for page in 0..100 {
                prop_assert_eq!(pages.place(page, 0x1000), expected.get(&page).copied(), "page {}", page);
            }
            let pages_of = |groups: Vec<Range<u64>>| groups.into_iter().flatten().collect::<Vec<u64>>();
            let populated = expected.iter().filter(|(_, place)| **place != Place::Fill(0)).map(|(page, _)| *page);
            prop_assert_eq!(pages_of(pages.populated()), populated.collect::<Vec<_>>());
            prop_assert_eq!(pages_of(pages.held()), expected.into_keys().collect::<Vec<_>>());
        }
    }
}

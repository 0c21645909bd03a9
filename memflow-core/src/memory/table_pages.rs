//! Page tables that lie in this process: whole pages of a direct map, and loads from them that need no further check.
//!
//! Owns: which pages can be used, and the only way from the address in an entry to the bytes of the table it leads to.
//! Must not know: bits of an entry, levels, what a walk is for.
//! Keeps: a [`TablePage`] is readable as a whole, so an offset that is cut to the page needs no check; what is loaded counts only
//! if [`DirectMap::lost_nothing`] says so afterwards.

use std::{hint::select_unpredictable, marker::PhantomData, sync::atomic::AtomicU64};

use super::{DirectMap, DirectRegion, live};
use crate::address::PhysAddr;

/// The bytes of a page, and those of a table.
const PAGE: u64 = 1 << 12;
const PAGE_SHIFT: u32 = 12;

/// What a place leads to that leads to no table: an entry that is not present.
static NO_ENTRY: AtomicU64 = AtomicU64::new(0);

/// The longest row of whole pages of a direct map at hand: most targets have one that holds nearly all of their memory.
#[derive(Clone, Copy)]
pub(super) struct Window {
    /// Physical address of the first page.
    start: u64,
    // INVARIANT: so many pages can be read at `ptr`.
    pages: u64,
    // INVARIANT: a page can be read from each of so many first bytes.
    starts: u64,
    ptr: *const u8,
}

impl Window {
    /// No pages.
    pub(super) const EMPTY: Self = Self { start: 0, pages: 0, starts: 0, ptr: std::ptr::null() };

    /// The whole pages of a region.
    pub(super) fn of(region: &DirectRegion) -> Self {
        let skipped = region.range.start().as_u64().wrapping_neg() % PAGE;
        let Some(rest) = region.range.len().checked_sub(skipped) else { return Self::EMPTY };
        // A region lies in this process, so an offset into it fits.
        let ptr = region.ptr.wrapping_add(skipped as usize).cast_const();
        if !live::is_entry_aligned(ptr) {
            return Self::EMPTY;
        }
        let pages = rest >> PAGE_SHIFT;
        let starts = pages.checked_sub(1).map_or(0, |before| (before << PAGE_SHIFT) + 1);
        Self { start: region.range.start().as_u64().wrapping_add(skipped), pages, starts, ptr }
    }

    /// The larger of two.
    pub(super) fn larger(self, other: Self) -> Self {
        if other.pages > self.pages { other } else { self }
    }

    /// Pointer to `len` bytes at `addr`, if they lie in whole pages of the window.
    #[inline(always)]
    pub(super) fn bytes(&self, addr: PhysAddr, len: usize) -> Option<*const u8> {
        let inside = addr.as_u64().wrapping_sub(self.start);
        let fits = inside < self.pages << PAGE_SHIFT && len as u64 <= (self.pages << PAGE_SHIFT).wrapping_sub(inside);
        fits.then(|| self.ptr.wrapping_add(inside as usize))
    }

    /// Physical address of the first byte, the last place from which on `size` bytes lie in the window, counted from there, and where the
    /// first byte is; `None` when the window is shorter.
    pub(super) fn places(&self, size: usize) -> Option<(u64, u64, *const u8)> {
        Some((self.start, (self.pages << PAGE_SHIFT).checked_sub(size as u64)?, self.ptr))
    }

    /// The pages, for as long as `map` is borrowed, whose window this is.
    #[inline(always)]
    pub(super) fn tables(self, map: &DirectMap) -> TablePages<'_> {
        TablePages { map, window: self }
    }
}

/// A kind of table entry: `u32` or `u64`.
pub(crate) trait Entry: Copy {
    /// The bits of an offset that tell entries of a page apart.
    const OFFSET: u64;

    /// Loads the entry `offset` bytes behind `ptr`.
    ///
    /// # Safety
    /// The bytes of the entry can be read, [`live::is_entry_aligned`] said yes to `ptr` or to the start of its page, and `offset`
    /// is a multiple of the entry's size.
    unsafe fn load(ptr: *const u8, offset: u64) -> u64;
}

impl Entry for u64 {
    const OFFSET: u64 = PAGE - 8;

    #[inline(always)]
    unsafe fn load(ptr: *const u8, offset: u64) -> u64 {
        // SAFETY: same contract.
        unsafe { live::load_entry_u64(ptr, offset as usize) }
    }
}

impl Entry for u32 {
    const OFFSET: u64 = PAGE - 4;

    #[inline(always)]
    unsafe fn load(ptr: *const u8, offset: u64) -> u64 {
        // SAFETY: same contract.
        u64::from(unsafe { live::load_entry_u32(ptr, offset as usize) })
    }
}

/// Pages of a direct map that may hold tables.
#[derive(Clone, Copy)]
pub(crate) struct TablePages<'a> {
    map: &'a DirectMap,
    window: Window,
}

/// What is taken away from an entry's bits to be left with the offset of a table in the window.
#[derive(Clone, Copy)]
pub(crate) struct Bias(u64);

/// A page that may hold a table.
#[derive(Clone, Copy)]
pub(crate) struct TablePage<'a> {
    // INVARIANT: `PAGE` bytes can be read for as long as `'a`, and `is_entry_aligned`.
    ptr: *const u8,
    map: PhantomData<&'a DirectMap>,
}

/// Where an entry of a table lies.
#[derive(Clone, Copy)]
pub(crate) struct EntryPlace<'a, E> {
    // INVARIANT: the bytes of an `E` can be read for as long as `'a`, as `Entry::load` wants them.
    ptr: *const u8,
    map: PhantomData<(&'a DirectMap, E)>,
}

/// Entries that follow each other.
#[derive(Clone, Copy)]
pub(crate) struct Entries<'a, E> {
    first: EntryPlace<'a, E>,
    // INVARIANT: at `first`, plus any offset that has no bits but these, there is an entry.
    offset: u64,
}

impl<'a> TablePages<'a> {
    /// Physical address of the first page of the window, from how many of its first bytes a page can be read, and where they lie.
    #[inline(always)]
    pub(super) fn window(&self) -> (u64, u64, *const u8) {
        let Window { start, starts, ptr, .. } = self.window;
        (start, starts, ptr)
    }

    /// The bias of entries that are plain when they hold `expect` beside the address of a table.
    #[inline(always)]
    pub(crate) fn bias(&self, expect: u64) -> Bias {
        Bias(self.window.start.wrapping_add(expect))
    }

    /// The page of the window that `bits` lead to: what is left of them without `bias` is the address of a page. One comparison
    /// tells all: bits too many or too few leave something below the address, which is turned to its top.
    #[inline(always)]
    pub(crate) fn table(&self, bits: u64, bias: Bias) -> Option<TablePage<'a>> {
        let inside = bits.wrapping_sub(bias.0);
        // A window lies in this process, so an offset into it fits.
        let ptr = self.window.ptr.wrapping_add(inside as usize);
        (inside.rotate_right(PAGE_SHIFT) < self.window.pages).then_some(TablePage { ptr, map: PhantomData })
    }

    /// The page of the window at `address`, which starts a page: a comparison less than [`table`](Self::table) takes, for those who
    /// look at the bits beside the address themselves.
    #[inline(always)]
    pub(crate) fn page_at(&self, address: u64) -> Option<TablePage<'a>> {
        let inside = address.wrapping_sub(self.window.start);
        // Whether it starts a page or not, a page can be read from there.
        let ptr = self.window.ptr.wrapping_add(inside as usize);
        (inside < self.window.starts).then_some(TablePage { ptr, map: PhantomData })
    }

    /// As [`page_at`](Self::page_at), wherever it lies.
    #[inline(always)]
    pub(crate) fn page_anywhere(&self, address: u64) -> Option<TablePage<'a>> {
        self.page_at(address).or_else(|| page_further(self.map, address))
    }

    /// As [`table`](Self::table), for tables in other regions.
    #[inline(always)]
    pub(crate) fn table_further(&self, bits: u64, bias: Bias) -> Option<TablePage<'a>> {
        page_further(self.map, bits.wrapping_sub(bias.0).wrapping_add(self.window.start))
    }

    /// The entry at `offset` of the table that `bits` lead to, or `instead` where `take_it`; without a branch between the two.
    #[inline(always)]
    pub(crate) fn entry_unless<E: Entry>(
        &self,
        take_it: bool,
        instead: EntryPlace<'a, E>,
        bits: u64,
        bias: Bias,
        offset: u64,
    ) -> Option<EntryPlace<'a, E>> {
        let inside = bits.wrapping_sub(bias.0);
        let ptr = self.window.ptr.wrapping_add(inside as usize).wrapping_add((offset & E::OFFSET) as usize);
        let is_table = inside.rotate_right(PAGE_SHIFT) < self.window.pages;
        let ptr = select_unpredictable(take_it, instead.ptr, ptr);
        (take_it | is_table).then_some(EntryPlace { ptr, map: PhantomData })
    }
}

/// The page at `addr`, wherever it lies.
#[cold]
#[inline(never)]
fn page_further(map: &DirectMap, addr: u64) -> Option<TablePage<'_>> {
    if !addr.is_multiple_of(PAGE) {
        return None;
    }
    let ptr = map.whole(PhysAddr::new(addr), PAGE)?;
    live::is_entry_aligned(ptr).then_some(TablePage { ptr, map: PhantomData })
}

impl Bias {
    /// The bias of entries that lead to no table whatever they hold. Only for `bits` of which nothing but the lowest lies below the address.
    pub(crate) const NO_TABLE: Self = Self(2);
}

impl<'a> TablePage<'a> {
    /// The entry at `offset`, of which only the bits count that lie in a page.
    #[inline(always)]
    pub(crate) fn entry<E: Entry>(self, offset: u64) -> EntryPlace<'a, E> {
        EntryPlace { ptr: self.ptr.wrapping_add((offset & E::OFFSET) as usize), map: PhantomData }
    }

    /// Loads the entry at `offset`, of which only the bits count that lie in a page.
    #[inline(always)]
    pub(crate) fn load<E: Entry>(self, offset: u64) -> u64 {
        // SAFETY: the page can be read as a whole (INVARIANT), and such an offset leaves room for an entry.
        unsafe { E::load(self.ptr, offset & E::OFFSET) }
    }

    /// All entries.
    #[inline(always)]
    pub(crate) fn entries<E: Entry>(self) -> Entries<'a, E> {
        Entries { first: self.entry(0), offset: E::OFFSET }
    }
}

impl<'a, E: Entry> Entries<'a, E> {
    /// The one at `offset`, of which only the bits count that there are entries for.
    #[inline(always)]
    pub(crate) fn entry(&self, offset: u64) -> EntryPlace<'a, E> {
        EntryPlace { ptr: self.first.ptr.wrapping_add((offset & self.offset) as usize), map: PhantomData }
    }
}

impl<'a, E: Entry> EntryPlace<'a, E> {
    /// An entry that is not present.
    pub(crate) fn nowhere() -> Self {
        Self { ptr: NO_ENTRY.as_ptr().cast::<u8>(), map: PhantomData }
    }

    /// This entry alone.
    pub(crate) fn alone(self) -> Entries<'a, E> {
        Entries { first: self, offset: 0 }
    }

    /// Loads it.
    #[inline(always)]
    pub(crate) fn load(self) -> u64 {
        // SAFETY: INVARIANT.
        unsafe { E::load(self.ptr, 0) }
    }

    /// Asks the processor to fetch it.
    #[inline(always)]
    pub(crate) fn prefetch(self) {
        live::prefetch(self.ptr);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        address::PhysRange,
        memory::{Backing, Liveness, Run, RunMap},
    };

    struct Leaked;

    // SAFETY: the bytes are leaked.
    unsafe impl Backing for Leaked {
        fn lost_from(&self) -> Option<&AtomicU64> {
            None
        }
    }

    /// Runs `(start, len)`, one after the other in a buffer of numbered words.
    fn map(runs: &[(u64, u64)]) -> DirectMap {
        let total: u64 = runs.iter().map(|(_, len)| len.next_multiple_of(8)).sum();
        let words: Vec<u64> = (0..total / 8 + 1).collect();
        let words = words.leak();
        let mut offset = 0;
        let runs = runs.iter().map(|(start, len)| {
            let run = Run { range: PhysRange::new(PhysAddr::new(*start), *len).unwrap(), offset };
            offset += len.next_multiple_of(8);
            run
        });
        let runs = RunMap::new(runs.collect::<Vec<_>>()).unwrap();
        let regions = DirectRegion::of_runs(&runs, words.as_mut_ptr().cast(), size_of_val(words)).unwrap();
        // SAFETY: the regions lie in leaked memory that nobody else knows.
        unsafe { DirectMap::new(regions, Liveness::Frozen, false, Arc::new(Leaked)) }.unwrap()
    }

    #[test]
    fn only_whole_pages_inside_one_region_are_tables() {
        let map = map(&[(0x800, 0x4000), (0x8000, 0xfff), (0x10000, 0x1000)]);
        let tables = map.tables();
        let word = |addr: u64| {
            let page =
                tables.table(addr | 1, tables.bias(1)).or_else(|| tables.table_further(addr | 1, tables.bias(1)));
            page.map(|page| page.entry::<u64>(0).load())
        };
        assert_eq!(word(0), None);
        assert_eq!(word(0x1000), Some(0x100));
        assert_eq!(word(0x3000), Some(0x500));
        assert_eq!(word(0x4000), None, "the region ends inside it");
        assert_eq!(word(0x8000), None, "a byte is missing");
        assert_eq!(word(0x10000), Some(0xa00));
        assert_eq!(word(0x11000), None);
        assert_eq!(word(0xffff_ffff_ffff_f000), None);
    }

    #[test]
    fn a_page_fits_wherever_one_is_said_to_be() {
        let map = map(&[(0x800, 0x4000), (0x10000, 0x1000)]);
        let tables = map.tables();
        let word = |address: u64| tables.page_at(address).map(|page| page.entry::<u64>(0xff8).load());
        assert_eq!([word(0x1000), word(0x3000)], [Some(0x2ff), Some(0x6ff)]);
        assert_eq!([word(0), word(0xfff), word(0x3001), word(0x4000), word(0x10000)], [None; 5]);
        assert!(tables.page_anywhere(0x10000).is_some() && tables.page_anywhere(0x11000).is_none());
    }

    #[test]
    fn bits_beside_the_address_are_no_table() {
        let map = map(&[(0x1000, 0x3000)]);
        let tables = map.tables();
        for (bits, is_table) in
            [(0x1001, true), (0x1000, false), (0x1003, false), (0x1081, false), (1 << 52 | 0x1001, false)]
        {
            assert_eq!(tables.table(bits, tables.bias(1)).is_some(), is_table, "{bits:#x}");
            assert_eq!(tables.table_further(bits, tables.bias(1)).is_some(), is_table, "{bits:#x}");
            assert!(tables.table(bits & !0xffe, Bias::NO_TABLE).is_none());
        }
    }

    #[test]
    fn offsets_are_cut_to_the_page_and_to_the_entry() {
        let map = map(&[(0, 0x1000)]);
        let page = map.tables().table(0, map.tables().bias(0)).unwrap();
        assert_eq!(page.entry::<u64>(0x7e8).load(), 0x7e8 / 8);
        assert_eq!(page.entry::<u64>(0x1_2ff8 + 7).load(), 0xff8 / 8);
        assert_eq!(page.entry::<u32>(0xff8).load(), 0x1ff);
        assert_eq!(page.entry::<u32>(0xffc).load(), 0);
        assert_eq!(page.entry::<u64>(0x10).alone().entry(0xff8).load(), 2);
        assert_eq!(EntryPlace::<u64>::nowhere().load(), 0);
    }
}

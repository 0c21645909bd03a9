//! The directories that a batch has come to: where its next walks start.
//!
//! Owns: a small table of directories by address, and the step from a directory to the lowest table or to a large page.
//! Must not know: batches, why a walk ends without a page.
//! Keeps: lives no longer than a batch, like a TLB that is flushed between batches; entries of directories and pages are always
//! loaded; whatever is not plain leads to an entry that is not present.

use std::hint::select_unpredictable;

use super::{
    plan::{Found, Mode, Page, Rights},
    single::{Anywhere, AtHand, Reach},
};
use crate::{
    address::{PageSize, PhysAddr},
    memory::{Bias, Entries, Entry, EntryPlace, TablePages},
};

/// Times this, the upper bits of numbers that lie beside each other, or alike in other parts of the address space, differ (Fibonacci
/// hashing).
pub(super) const HASH: u64 = 0x9e37_79b9_7f4a_7c15;

/// No address has this key.
const NO_KEY: u64 = u64::MAX;

/// Where the directory of some addresses lies.
#[derive(Clone, Copy)]
pub(super) struct Directory<'a, E> {
    /// Its entries; or the one that maps all of its addresses as a page.
    entries: Entries<'a, E>,
    rights: Rights,
    /// The bias of entries that lead to a table.
    bias: Bias,
    /// What its entries that map pages map.
    page: &'static Page,
}

/// A walk under way: the entry it has come to.
#[derive(Clone, Copy)]
pub(super) struct Lane<'a, E> {
    place: EntryPlace<'a, E>,
    rights: Rights,
    bias: Bias,
    /// What the entry maps, if it maps a page.
    page: &'static Page,
}

/// The entries that map the addresses around one: as far as one entry of a directory reaches.
#[derive(Clone, Copy)]
pub(super) struct Leaves<'a, E> {
    entries: Entries<'a, E>,
    rights: Rights,
    page: &'static Page,
}

/// Where the directories of addresses are taken from.
pub(super) trait Upper<'a, M: Mode> {
    /// Whether a directory is walked to only once.
    const REMEMBERS: bool;

    /// The directory of an address.
    fn directory(&mut self, addr: u64) -> Directory<'a, M::Entry>;

    /// How many were walked to and remembered so far.
    fn walks(&self) -> usize;
}

/// Walks to each directory from the root: for batches that end before it pays to remember.
#[derive(Clone, Copy)]
pub(super) struct FromRoot<'a> {
    pub(super) tables: TablePages<'a>,
    pub(super) root: PhysAddr,
}

/// The directories that were met; a new one takes the place of an older one.
pub(super) struct Directories<'a, M: Mode, const COUNT: usize> {
    from_root: FromRoot<'a>,
    keys: [u64; COUNT],
    known: [Directory<'a, M::Entry>; COUNT],
    walks: usize,
}

impl<'a, E: Entry> Leaves<'a, E> {
    /// Entries that are not present.
    pub(super) fn nowhere() -> Self {
        Self { entries: EntryPlace::nowhere().alone(), rights: Rights::ALL, page: &Page::NONE }
    }

    /// Where an address leads that these entries are for, if its entry is plain.
    #[inline(always)]
    pub(super) fn translate<M: Mode<Entry = E>>(&self, addr: u64) -> Found {
        let entry = self.entries.entry(M::LOWEST.offset(addr)).load();
        self.page.translate::<M>(entry, self.rights, addr)
    }
}

impl<'a, E: Entry> Directory<'a, E> {
    /// One whose entries are not present.
    fn nowhere() -> Self {
        Self { entries: EntryPlace::nowhere().alone(), rights: Rights::ALL, bias: Bias::NO_TABLE, page: &Page::NONE }
    }

    /// The entry for an address.
    #[inline(always)]
    pub(super) fn lane<M: Mode<Entry = E>>(&self, addr: u64) -> Lane<'a, E> {
        let place = self.entries.entry(M::DIRECTORY.offset(addr));
        Lane { place, rights: self.rights, bias: self.bias, page: self.page }
    }

    /// The entries around the one that maps an address of this directory.
    #[inline(always)]
    pub(super) fn leaves<M: Mode<Entry = E>>(&self, tables: TablePages<'a>, addr: u64) -> Leaves<'a, E> {
        let step = &M::DIRECTORY;
        let place = self.entries.entry(step.offset(addr));
        let entry = place.load();
        if entry & step.page_bit != 0 {
            return Leaves { entries: place.alone(), rights: self.rights, page: self.page };
        }
        match Anywhere::table(tables, entry & step.table, self.bias) {
            Some(page) => {
                Leaves { entries: page.entries(), rights: self.rights.below(entry, step), page: M::BASE_PAGE }
            }
            None => Leaves::nowhere(),
        }
    }
}

impl<'a, E: Entry> Lane<'a, E> {
    /// A walk that ends at an entry that is not present.
    pub(super) fn nowhere() -> Self {
        Self { place: EntryPlace::nowhere(), rights: Rights::ALL, bias: Bias::NO_TABLE, page: &Page::NONE }
    }

    /// Asks the processor to fetch the entry.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        self.place.prefetch();
    }

    /// From an entry of a directory to the one that maps the address: an entry of a table, or the same. Which of the two does not
    /// decide any branch: where the addresses have no order the processor could not foretell it.
    #[inline(always)]
    pub(super) fn to_page<M: Mode<Entry = E>>(self, tables: TablePages<'a>, addr: u64) -> Self {
        let step = &M::DIRECTORY;
        let place = self.place;
        let entry = place.load();
        let is_page = entry & step.page_bit != 0;
        let (bits, offset) = (entry & (step.table & !step.page_bit), M::LOWEST.offset(addr));
        let found = tables.entry_unless(is_page, place, bits, self.bias, offset);
        Self {
            place: found.unwrap_or(EntryPlace::nowhere()),
            rights: self.rights.below_unless(is_page, entry, step),
            bias: self.bias,
            page: select_unpredictable(is_page, self.page, M::BASE_PAGE),
        }
    }

    /// Where the address of the walk leads, if the entry is plain.
    #[inline(always)]
    pub(super) fn translate<M: Mode<Entry = E>>(&self, addr: u64) -> Found {
        self.page.translate::<M>(self.place.load(), self.rights, addr)
    }
}

impl<'a, M: Mode> Upper<'a, M> for FromRoot<'a> {
    const REMEMBERS: bool = false;

    #[inline(always)]
    fn directory(&mut self, addr: u64) -> Directory<'a, M::Entry> {
        FromRoot::directory::<M>(*self, addr)
    }

    #[inline(always)]
    fn walks(&self) -> usize {
        0
    }
}

impl<'a, M: Mode, const COUNT: usize> Upper<'a, M> for Directories<'a, M, COUNT> {
    const REMEMBERS: bool = true;

    #[inline(always)]
    fn directory(&mut self, addr: u64) -> Directory<'a, M::Entry> {
        let key = addr.wrapping_shr(M::DIRECTORY_SHIFT);
        let hash = key.wrapping_mul(HASH).wrapping_shr(const { 64u32.saturating_sub(COUNT.trailing_zeros()) });
        let slot = usize::try_from(hash).unwrap_or(0);
        if self.keys.get(slot) != Some(&key) {
            self.look_up(slot, key, addr);
        }
        self.known.get(slot & const { COUNT - 1 }).copied().unwrap_or(Directory::nowhere())
    }

    #[inline(always)]
    fn walks(&self) -> usize {
        self.walks
    }
}

impl<'a, M: Mode, const COUNT: usize> Directories<'a, M, COUNT> {
    /// None is known yet.
    #[inline(always)]
    pub(super) fn new(from_root: FromRoot<'a>) -> Self {
        const { assert!(COUNT.is_power_of_two() && COUNT > 1) };
        Self { from_root, keys: [NO_KEY; COUNT], known: [Directory::nowhere(); COUNT], walks: 0 }
    }

    /// Walks to a directory that is not known.
    #[inline(never)]
    fn look_up(&mut self, slot: usize, key: u64, addr: u64) {
        self.walks = self.walks.wrapping_add(1);
        let (key, found) = match self.from_root.walk::<M, Anywhere>(addr) {
            Some(found) => (key, found),
            None => (NO_KEY, Directory::nowhere()),
        };
        if let (Some(place), Some(known)) = (self.keys.get_mut(slot), self.known.get_mut(slot)) {
            (*place, *known) = (key, found);
        }
    }
}

impl<'a> FromRoot<'a> {
    /// The directory of an address, if every table on the way is at hand; else one whose entries are not present.
    #[inline(always)]
    pub(super) fn directory<M: Mode>(self, addr: u64) -> Directory<'a, M::Entry> {
        self.walk::<M, AtHand>(addr).unwrap_or(Directory::nowhere())
    }

    #[inline(always)]
    fn walk<M: Mode, R: Reach>(&self, addr: u64) -> Option<Directory<'a, M::Entry>> {
        let tables = self.tables;
        if !M::ARCH.is_canonical(addr) {
            return None;
        }
        let mut from = self.root.as_u64() & M::ROOT_IN_PAGE;
        let mut page = R::table(tables, self.root.page_base(PageSize::KIB_4).as_u64(), tables.bias(0))?;
        let mut rights = Rights::ALL;
        macro_rules! step {
            ($($depth:literal)*) => {$(
                if $depth < M::UPPER {
                    let step = const { &M::STEPS[$depth] };
                    let place = page.entry::<M::Entry>(from.wrapping_add(step.offset(addr)));
                    let entry = place.load();
                    page = match R::table(tables, entry & step.table, tables.bias(step.expect)) {
                        Some(page) => page,
                        None if entry & step.page_bit != 0 => {
                            let page = if $depth + 1 == M::UPPER { M::HUGE_PAGE } else { return None };
                            return Some(Directory { entries: place.alone(), rights, bias: Bias::NO_TABLE, page });
                        }
                        None => return None,
                    };
                    from = 0;
                    rights = rights.below(entry, step);
                }
            )*};
        }
        step!(0 1 2);
        if from != 0 {
            // A root that is a directory itself and does not start a page: no mode of x86 has one.
            return None;
        }
        Some(Directory { entries: page.entries(), rights, bias: tables.bias(M::DIRECTORY.expect), page: M::LARGE_PAGE })
    }
}

//! The pages that a cache holds.
//!
//! Owns: sets of slots with their locks, which one goes when room is needed.
//! Must not know: operations, how pages are fetched.
//! Keeps: what was put in comes out unchanged or not at all; two slots never hold the same byte; a page that was fetched while
//! something was written to its set is not put in; a lock is held for one copy at most.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    address::{PageSize, PhysAddr, PhysRange},
    error::{Error, Result},
    memory::validity::AgeLimit,
};

/// Most pages in a set: their numbers fill a cache line.
const WAYS: usize = 8;
/// The page of a slot that holds none. No address has this number, as pages have more than one byte.
const NO_PAGE: u64 = u64::MAX;

/// Slots for pages.
#[derive(Debug)]
pub(super) struct Store {
    sets: Box<[Mutex<Set>]>,
    /// Slots of each set that are used, at most [`WAYS`].
    ways: usize,
    page: PageSize,
    age: AgeLimit,
    generation: AtomicU64,
}

/// When a batch was asked for, as far as pages are concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    generation: u64,
    /// As [`AgeLimit::now`] has it.
    now: u64,
}

/// A page was not there. Holds how often its set had been written to, see [`Store::insert`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Miss(u64);

/// What a [`Store`] counted.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) pages: u64,
}

/// Pages whose numbers fall together.
#[derive(Debug)]
#[repr(align(64))]
struct Set {
    /// The page of each slot.
    pages: [u64; WAYS],
    slots: [Slot; WAYS],
    /// The bytes of slot `n` start at `n` pages; as long as the slots in use need.
    bytes: Vec<u8>,
    /// Counts lookups, for the order in which slots were used.
    tick: u32,
    /// Counts writes to pages of this set.
    changes: u64,
    hits: u64,
    misses: u64,
}

/// What is known of the bytes in a slot.
#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    /// The part of the page that is held: `from..to`.
    from: u32,
    to: u32,
    /// [`Set::tick`] when it was used last.
    used: u32,
    generation: u64,
    /// [`Moment::now`] of the batch that fetched it.
    fetched: u64,
}

impl Store {
    /// Room for pages of `page` bytes in `capacity` bytes, at least one page. Takes the memory for the bytes when they come.
    ///
    /// # Errors
    /// [`Error::Io`] when this machine has not even the memory to list so many pages.
    pub(super) fn new(page: PageSize, capacity: usize, age: AgeLimit) -> Result<Self> {
        let (sets, ways) = layout(capacity, page.bytes() as usize);
        let mut list = Vec::new();
        list.try_reserve_exact(sets).map_err(|_| {
            Error::io(format!("cache: list of {sets} sets of pages"), std::io::ErrorKind::OutOfMemory.into())
        })?;
        list.resize_with(sets, || Mutex::new(Set::new()));
        Ok(Self { sets: list.into(), ways, page, age, generation: AtomicU64::new(0) })
    }

    pub(super) fn page(&self) -> PageSize {
        self.page
    }

    /// The moment from which on pages are as fresh as what is fetched now.
    pub(super) fn moment(&self) -> Moment {
        Moment { generation: self.generation.load(Ordering::SeqCst), now: self.age.now() }
    }

    /// Forgets all pages, also those that are being fetched.
    pub(super) fn flush(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Fills `buf` from `addr`, if all of it is held. The bytes lie in one page.
    #[inline]
    pub(super) fn copy(&self, moment: Moment, addr: PhysAddr, buf: &mut [u8]) -> Result<(), Miss> {
        let page = self.number(addr);
        // A page has fewer than 2^32 bytes.
        let from = addr.page_offset(self.page) as u32;
        let to = from.saturating_add(buf.len() as u32);
        let mut set = self.set_of(page);
        let Set { pages, slots, bytes, tick, .. } = &mut *set;
        for (way, (held, slot)) in pages.iter().zip(slots).enumerate() {
            if *held == page && slot.from <= from && to <= slot.to && self.fresh(moment, slot) {
                let start = (way << self.page.shift()) | from as usize;
                if let Some(held) = bytes.get(start..start.wrapping_add(buf.len())) {
                    buf.copy_from_slice(held);
                    *tick = tick.wrapping_add(1);
                    slot.used = *tick;
                    set.hits = set.hits.wrapping_add(1);
                    return Ok(());
                }
            }
        }
        set.misses = set.misses.wrapping_add(1);
        Err(Miss(set.changes))
    }

    /// Keeps bytes of one page that were fetched from `addr` on behalf of a batch of `moment`, because of `miss`.
    ///
    /// They are not kept when the set was written to or the store flushed since, as they may be from before.
    pub(super) fn insert(&self, moment: Moment, miss: Miss, addr: PhysAddr, bytes: &[u8]) {
        let page = self.number(addr);
        let from = addr.page_offset(self.page) as u32;
        let to = from.saturating_add(bytes.len() as u32);
        let mut set = self.set_of(page);
        if from == to || set.changes != miss.0 || self.generation.load(Ordering::SeqCst) != moment.generation {
            return;
        }
        let Some(way) = self.make_room(&mut set, moment, page, from, to) else { return };
        let start = way << self.page.shift();
        let end = start.saturating_add(self.page.bytes() as usize);
        if set.bytes.len() < end {
            // The whole set's at once: it will be needed, and a growing block would be copied each time.
            let whole = self.ways << self.page.shift();
            let missing = whole.saturating_sub(set.bytes.len());
            if set.bytes.try_reserve_exact(missing).is_err() {
                return;
            }
            set.bytes.resize(end, 0);
        }
        let start = start | from as usize;
        let Some(room) = set.bytes.get_mut(start..start.wrapping_add(bytes.len())) else { return };
        room.copy_from_slice(bytes);
        set.tick = set.tick.wrapping_add(1);
        let slot = Slot { from, to, used: set.tick, generation: moment.generation, fetched: moment.now };
        set.put(way, page, slot);
    }

    /// Forgets the pages of these addresses, and those of them that are being fetched. For what was written to.
    pub(super) fn forget(&self, range: PhysRange) {
        let Some(last) = range.last() else { return };
        let (first, last) = (self.number(range.start()), self.number(last));
        let pages = last.wrapping_sub(first).saturating_add(1);
        if pages < self.sets.len() as u64 {
            for page in first..=last {
                self.set_of(page).forget(page, page);
            }
        } else {
            for set in &self.sets {
                lock(set).forget(first, last);
            }
        }
    }

    /// Counts since the store was made, and the pages that are held now, also those too old to be served.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for set in &self.sets {
            let set = lock(set);
            counts.hits = counts.hits.wrapping_add(set.hits);
            counts.misses = counts.misses.wrapping_add(set.misses);
            let held = set.pages.iter().filter(|page| **page != NO_PAGE).count();
            counts.pages = counts.pages.saturating_add(held as u64);
        }
        counts
    }

    /// The slot that the bytes `from..to` of `page` go to, emptied. `None` when a slot holds them and is as fresh.
    fn make_room(&self, set: &mut Set, moment: Moment, page: u64, from: u32, to: u32) -> Option<usize> {
        let mut best = None;
        for way in (0..self.ways).rev() {
            let (Some(held), Some(slot)) = (set.pages.get(way).copied(), set.slots.get(way).copied()) else { continue };
            if held == page && slot.from < to && from < slot.to {
                if slot.from <= from && to <= slot.to && slot.fetched >= moment.now && self.fresh(moment, &slot) {
                    return None;
                }
                set.put(way, NO_PAGE, Slot::default());
            }
            // Empty ones first, then those that are not served any more, then the one that was used longest ago.
            let class = match set.pages.get(way) {
                Some(&NO_PAGE) => 2,
                _ if !self.fresh(moment, &slot) => 1,
                _ => 0,
            };
            let rank = (class, set.tick.wrapping_sub(slot.used));
            if best.is_none_or(|(best, _)| rank >= best) {
                best = Some((rank, way));
            }
        }
        best.map(|(_, way)| way)
    }

    #[inline]
    fn fresh(&self, moment: Moment, slot: &Slot) -> bool {
        slot.generation == moment.generation && self.age.allows(slot.fetched, moment.now)
    }

    #[inline]
    fn number(&self, addr: PhysAddr) -> u64 {
        addr.as_u64() >> self.page.shift()
    }

    #[inline]
    fn set_of(&self, page: u64) -> MutexGuard<'_, Set> {
        // Fibonacci hashing: neighbours and pages at any stride spread evenly. The high half of the product with the number of
        // sets is below that number, whatever it is.
        let hash = page.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = u128::from(hash).wrapping_mul(self.sets.len() as u128) >> 64;
        #[expect(clippy::indexing_slicing, reason = "below the number of sets, see above; there is at least one")]
        lock(&self.sets[index as usize])
    }
}

impl Set {
    fn new() -> Self {
        Self {
            pages: [NO_PAGE; WAYS],
            slots: [Slot::default(); WAYS],
            bytes: Vec::new(),
            tick: 0,
            changes: 0,
            hits: 0,
            misses: 0,
        }
    }

    fn put(&mut self, way: usize, page: u64, slot: Slot) {
        if let (Some(held), Some(old)) = (self.pages.get_mut(way), self.slots.get_mut(way)) {
            *held = page;
            *old = slot;
        }
    }

    /// Forgets the pages `first..=last`.
    fn forget(&mut self, first: u64, last: u64) {
        self.changes = self.changes.wrapping_add(1);
        for page in &mut self.pages {
            // No page has the number that stands for none.
            if (first..=last).contains(page) {
                *page = NO_PAGE;
            }
        }
    }
}

/// Number of sets and slots in each for which `capacity` bytes suffice, at least one slot.
fn layout(capacity: usize, page_bytes: usize) -> (usize, usize) {
    let set_bytes = mem::size_of::<Mutex<Set>>();
    let full = capacity / page_bytes.saturating_mul(WAYS).saturating_add(set_bytes);
    // Or one set more, and fewer slots in each: better where few pages fit.
    let more = full.saturating_add(1);
    let ways = ((capacity / more).saturating_sub(set_bytes) / page_bytes).min(WAYS);
    let fuller = full.saturating_mul(WAYS) >= more.saturating_mul(ways);
    if full > 0 && fuller { (full, WAYS) } else { (more, ways.max(1)) }
}

fn lock(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    // Nothing panics while a set is locked.
    set.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

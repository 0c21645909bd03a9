//! Everything that an address space maps, and the way back from a physical address.
//!
//! Owns: the scan of whole tables, the runs it yields, and the budget that ends it.
//! Must not know: bits of an entry (`entry`), operating systems.
//! Keeps: addresses in ascending order; entries that are not present are skipped eight at a time, and those that follow from the one
//! before are decoded with it; a table that cannot be read is reported, never
//! skipped; tables that point to themselves end at the budget, with an error.

mod fetched;

use std::ops::ControlFlow;

use smallvec::SmallVec;

use self::fetched::Fetched;
use super::{
    AddressSpace, PageFlags, Translation, Walked,
    arch::{Architecture, Level},
    entry::{Halt, Next, Node},
    walk::stop_cause,
};
use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr, VirtRange},
    error::{Error, Reason, Result, StopCause},
    memory::{DirectMap, Outcome, PhysRead, PhysicalMemory, Piece},
};

/// Table bytes that are asked for in one call where each call costs a trip to a device.
const CALL_BYTES: u64 = 1 << 20;

/// Consecutive virtual memory that is mapped to consecutive physical memory with the same rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappedRun {
    /// The virtual addresses.
    pub virt: VirtRange,
    /// The physical address of the first.
    pub phys: PhysAddr,
    /// The size of the pages.
    pub page: PageSize,
    /// Rights and state, the same for the whole run.
    pub flags: PageFlags,
}

/// How much a map may cost before it gives up on tables that never end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapBudget {
    /// Tables that are visited, and holes that are reported. A table reached in two ways counts twice.
    pub tables: u64,
    /// Runs that are given out.
    pub runs: u64,
}

impl Default for MapBudget {
    /// 2^20 tables (2 TiB of 4 KiB pages) and 2^24 runs: more than any system in its right mind, and seconds of work.
    fn default() -> Self {
        Self { tables: 1 << 20, runs: 1 << 24 }
    }
}

/// Addresses whose tables could not be read: whether they are mapped is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapHole {
    /// The addresses.
    pub range: VirtRange,
    /// Which table could not be read, and why.
    pub reason: Reason,
}

/// What a map cost, and what it could not see.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "what lies in holes was not mapped out"]
pub struct MapSummary {
    /// Tables visited.
    pub tables: u64,
    /// Runs given out.
    pub runs: u64,
    /// Addresses whose tables could not be read, ascending.
    pub holes: Vec<MapHole>,
}

impl MapSummary {
    /// True when every table could be read.
    pub fn is_complete(&self) -> bool {
        self.holes.is_empty()
    }
}

/// The virtual addresses that lead to a physical one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "addresses in holes may lead there too"]
pub struct PhysMappings {
    /// The virtual addresses, ascending.
    pub addresses: Vec<VirtAddr>,
    /// Addresses whose tables could not be read: they may lead there too.
    pub holes: Vec<MapHole>,
}

impl AddressSpace {
    /// Gives every run that is mapped in `range`, or in the whole space, to `each`, ascending; stops early when `each` breaks.
    ///
    /// Runs are cut at the ends of `range`. Entries that the processor refuses (reserved bits) map nothing. A resolver of soft
    /// faults is asked once per table that has entries for it.
    ///
    /// # Errors
    /// [`Error::Limit`] when the budget is used up; the runs before were given out. Tables that cannot be read are no error, they
    /// are the holes of the summary.
    pub fn map(
        &self,
        memory: &dyn PhysicalMemory,
        range: Option<VirtRange>,
        budget: MapBudget,
        each: &mut dyn FnMut(MappedRun) -> ControlFlow<()>,
    ) -> Result<MapSummary> {
        let (first, last) = match range {
            None => (0, u64::MAX),
            Some(range) => match range.last() {
                Some(last) => (range.start().as_u64(), last.as_u64()),
                None => return Ok(MapSummary::default()),
            },
        };
        let mut scan = Scan {
            space: self,
            arch: self.architecture(),
            memory,
            direct: memory.direct_map(),
            budget,
            each,
            open: None,
            summary: MapSummary::default(),
            spare: Vec::new(),
        };
        match scan.run(first, last) {
            Ok(()) | Err(Ended::Broken) => Ok(scan.summary),
            Err(Ended::Limit(error)) => Err(error),
        }
    }

    /// Every virtual address that leads to `phys`.
    ///
    /// # Errors
    /// [`Error::Limit`] when the budget is used up.
    pub fn phys_to_virt(&self, memory: &dyn PhysicalMemory, phys: PhysAddr, budget: MapBudget) -> Result<PhysMappings> {
        let mut addresses = Vec::new();
        let summary = self.map(memory, None, budget, &mut |run| {
            if let Some(inside) = phys.offset_from(run.phys).filter(|inside| *inside < run.virt.len()) {
                addresses.push(run.virt.start().wrapping_add(inside));
            }
            ControlFlow::Continue(())
        })?;
        Ok(PhysMappings { addresses, holes: summary.holes })
    }
}

/// Why a scan is over before its end.
enum Ended {
    /// The caller has seen enough.
    Broken,
    /// The budget is used up.
    Limit(Error),
}

/// A scan under way.
struct Scan<'a> {
    space: &'a AddressSpace,
    arch: &'static Architecture,
    memory: &'a dyn PhysicalMemory,
    direct: Option<&'a DirectMap>,
    budget: MapBudget,
    each: &'a mut dyn FnMut(MappedRun) -> ControlFlow<()>,
    open: Option<MappedRun>,
    summary: MapSummary,
    /// Room for tables, used again.
    spare: Vec<Vec<u8>>,
}

/// A table to be scanned from `first` to `last`, which lie under it.
#[derive(Clone, Copy)]
struct Place {
    node: Node,
    first: u64,
    last: u64,
}

/// What an entry of a table calls for.
enum Step {
    Page(Translation),
    Table(Node),
    Ask(Halt),
    Lost(Halt),
}

impl Scan<'_> {
    /// Scans the translated parts of `first..=last`.
    fn run(&mut self, mut first: u64, last: u64) -> Result<(), Ended> {
        let Some(level) = self.arch.levels.first() else { return Ok(()) };
        let node = Node::root(self.space.root());
        let mut root = None;
        loop {
            let (end, canonical) = self.arch.canonical_part(first, last);
            if canonical {
                let place = Place { node, first, last: end };
                let fetched = match root.take() {
                    Some(fetched) => fetched,
                    None => self.fetch(level, &[place])?,
                };
                self.table(0, level, place, &fetched, 0)?;
                root = Some(fetched);
            }
            match end.checked_add(1) {
                Some(next) if end < last => first = next,
                _ => return self.flush(),
            }
        }
    }

    /// Scans one table and what lies below it.
    fn table(
        &mut self,
        depth: usize,
        level: &'static Level,
        place: Place,
        fetched: &Fetched,
        nth: usize,
    ) -> Result<(), Ended> {
        let number = self.arch.level_number(depth);
        let mut steps: Vec<(u64, u64, Step)> = Vec::new();
        match fetched.words(self.arch, nth) {
            Some(words) => self.rows(level, number, &place, words, &mut steps)?,
            None => {
                for (first, last, entry) in fetched.entries(self.arch, level, &place, nth) {
                    // By far the most common entry of a table.
                    if entry != Ok(0) || self.arch.present.is_true_of(0) {
                        self.step(level, number, &place, (first, last), entry, &mut steps)?;
                    }
                }
            }
        }
        self.answer(&mut steps);
        let Some(below) = self.arch.levels.get(depth.saturating_add(1)) else {
            return self.leaves(&steps);
        };
        let children: Vec<Place> = steps
            .iter()
            .filter_map(|(first, last, step)| match step {
                Step::Table(node) => Some(Place { node: *node, first: *first, last: *last }),
                _ => None,
            })
            .collect();
        let mut chunks = children.chunks(self.chunk_tables(below));
        let mut fetched: Option<(&[Place], Fetched)> = None;
        let mut next = 0;
        for (first, last, step) in &steps {
            match step {
                Step::Page(found) => self.page(*first, *last, found)?,
                Step::Lost(halt) => self.hole(*first, *last, halt)?,
                Step::Ask(_) => {}
                Step::Table(_) => {
                    if fetched.as_ref().is_none_or(|(places, _)| next >= places.len()) {
                        self.spare.extend(fetched.take().map(|(_, tables)| tables.bytes));
                        let Some(places) = chunks.next() else { continue };
                        fetched = Some((places, self.fetch(below, places)?));
                        next = 0;
                    }
                    if let Some((places, tables)) = &fetched
                        && let Some(place) = places.get(next)
                    {
                        self.table(depth.saturating_add(1), below, *place, tables, next)?;
                        next = next.saturating_add(1);
                    }
                }
            }
        }
        self.spare.extend(fetched.take().map(|(_, tables)| tables.bytes));
        Ok(())
    }

    /// Looks at the entries of a table, those that follow from the one before together.
    fn rows(
        &mut self,
        level: &'static Level,
        number: u8,
        place: &Place,
        words: &[[u8; 8]],
        steps: &mut Vec<(u64, u64, Step)>,
    ) -> Result<(), Ended> {
        let index = |addr: u64| usize::try_from(level.index(addr)).unwrap_or(usize::MAX);
        let (from, until) = (index(place.first), index(place.last).saturating_add(1).min(words.len()));
        let words = words.get(..until).unwrap_or_default();
        let zero_is_absent = !self.arch.present.is_true_of(0);
        let (inside, address) = (level.offset_mask(), level.page.address);
        let size = inside.wrapping_add(1);
        // Whether pages may differ in their address and in nothing else.
        let plain = self.arch.is_plain(level);
        let mut known: Option<(u64, Translation)> = None;
        let mut at = from;
        while let Some(word) = words.get(at) {
            let rest = words.get(at..).unwrap_or_default();
            if zero_is_absent && rest.first_chunk::<8>().is_some_and(|eight| *eight.as_flattened() == [0; 64]) {
                at = at.saturating_add(8);
                continue;
            }
            let entry = u64::from_le_bytes(*word);
            if zero_is_absent && entry == 0 {
                at = at.saturating_add(1);
                continue;
            }
            let page = (place.first & !inside)
                .wrapping_add(size.wrapping_mul(u64::try_from(at.saturating_sub(from)).unwrap_or(0)));
            let first = page.max(place.first);
            // Entries that lead on where the one before ends, in the same way.
            let follows = |(next, word): (u64, &[u8; 8])| {
                let found = u64::from_le_bytes(*word);
                found == entry.wrapping_add(size.wrapping_mul(next)) && (found ^ entry) & !address == 0
            };
            let row = if plain { (1..).zip(rest.iter().skip(1)).take_while(|pair| follows(*pair)).count() } else { 0 };
            let last = page.wrapping_add(size.wrapping_mul(u64::try_from(row).unwrap_or(0))) | inside;
            let covered = (first, last.min(place.last));
            at = at.saturating_add(row).saturating_add(1);
            match &known {
                Some((bits, found)) if *bits == entry & !address => {
                    let phys = PhysAddr::new((entry & address & !inside) | (first & inside));
                    let found = Translation { phys, ..*found };
                    self.page_or_step(covered, found, steps)?;
                }
                _ if row == 0 => {
                    let found = self.step(level, number, place, covered, Ok(entry), steps)?;
                    known = found.filter(|_| plain).map(|found| (entry & !address, found));
                }
                // A row is one of pages if its first entry is; else each is on its own.
                _ => {
                    let single = (first, (first | inside).min(place.last));
                    let found = self.step(level, number, place, single, Ok(entry), steps)?;
                    known = found.map(|found| (entry & !address, found));
                    at = at.saturating_sub(row);
                }
            }
        }
        Ok(())
    }

    /// Decides what an entry calls for; a page is given out at once where nothing waits before it, and returned.
    #[inline]
    fn step(
        &mut self,
        level: &'static Level,
        number: u8,
        place: &Place,
        (first, last): (u64, u64),
        entry: Result<u64, StopCause>,
        steps: &mut Vec<(u64, u64, Step)>,
    ) -> Result<Option<Translation>, Ended> {
        let step = match entry {
            Ok(entry) => match place.node.decode(self.arch, level, number, entry, first) {
                Ok(Next::Page(found)) => {
                    self.page_or_step((first, last), found, steps)?;
                    return Ok(Some(found));
                }
                Ok(Next::Table(node)) => Step::Table(node),
                Err(halt) if self.space.resolver_for(&halt).is_some() => Step::Ask(halt),
                Err(_) => return Ok(None),
            },
            Err(cause) => Step::Lost(place.node.halt(number, 0, cause)),
        };
        steps.push((first, last, step));
        Ok(None)
    }

    /// Adds pages to the open run, behind what waits before them.
    #[inline]
    fn page_or_step(
        &mut self,
        (first, last): (u64, u64),
        found: Translation,
        steps: &mut Vec<(u64, u64, Step)>,
    ) -> Result<(), Ended> {
        if steps.is_empty() {
            return self.page(first, last, &found);
        }
        steps.push((first, last, Step::Page(found)));
        Ok(())
    }

    /// Gives out the pages of a table of the lowest level.
    fn leaves(&mut self, steps: &[(u64, u64, Step)]) -> Result<(), Ended> {
        for (first, last, step) in steps {
            match step {
                Step::Page(found) => self.page(*first, *last, found)?,
                Step::Lost(halt) => self.hole(*first, *last, halt)?,
                Step::Ask(_) | Step::Table(_) => {}
            }
        }
        Ok(())
    }

    /// Asks the operating system about all entries of a table that it may understand.
    fn answer(&self, steps: &mut [(u64, u64, Step)]) {
        let stopped: Vec<Walked> = steps
            .iter()
            .enumerate()
            .filter_map(|(op, (first, last, step))| match step {
                Step::Ask(halt) => Some(Walked { op, first: *first, last: *last, result: Err(*halt) }),
                _ => None,
            })
            .collect();
        if stopped.is_empty() {
            return;
        }
        self.space.settle(self.memory, &stopped, |walked| {
            if let (Ok(found), Some((_, _, step))) = (walked.result, steps.get_mut(walked.op)) {
                *step = Step::Page(found);
            }
        });
    }

    /// Adds a page to the open run, or opens the next.
    #[inline]
    fn page(&mut self, first: u64, last: u64, found: &Translation) -> Result<(), Ended> {
        // An entry covers at most half of the address space, and that is a range.
        let Some(virt) = VirtRange::inclusive(VirtAddr::new(first), VirtAddr::new(last)) else { return Ok(()) };
        let next = MappedRun { virt, phys: found.phys, page: found.page, flags: found.flags };
        if let Some(open) = &mut self.open
            && open.page == next.page
            && open.flags == next.flags
            && open.virt.end() == Some(next.virt.start())
            && open.phys.checked_add(open.virt.len()) == Some(next.phys)
            && let Some(virt) = VirtRange::inclusive(open.virt.start(), VirtAddr::new(last))
        {
            open.virt = virt;
            return Ok(());
        }
        self.flush()?;
        self.open = Some(next);
        Ok(())
    }

    /// Gives out the open run.
    fn flush(&mut self) -> Result<(), Ended> {
        let Some(run) = self.open.take() else { return Ok(()) };
        if self.summary.runs >= self.budget.runs {
            return Err(limit("runs of a page map", run.virt.start(), self.budget.runs));
        }
        self.summary.runs = self.summary.runs.saturating_add(1);
        match (self.each)(run) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Ended::Broken),
        }
    }

    /// Reports addresses whose table could not be read, joined with those before when the reason is the same.
    fn hole(&mut self, first: u64, last: u64, halt: &Halt) -> Result<(), Ended> {
        let reason = halt.reason();
        if let Some(open) = self.summary.holes.last_mut()
            && open.reason == reason
            && open.range.end() == Some(VirtAddr::new(first))
            && let Some(joined) = VirtRange::inclusive(open.range.start(), VirtAddr::new(last))
        {
            open.range = joined;
            return Ok(());
        }
        self.spend(first)?;
        let range = VirtRange::inclusive(VirtAddr::new(first), VirtAddr::new(last));
        self.summary.holes.extend(range.map(|range| MapHole { range, reason }));
        Ok(())
    }

    /// Takes one table or hole out of the budget.
    fn spend(&mut self, first: u64) -> Result<(), Ended> {
        match self.budget.tables.checked_sub(1) {
            Some(rest) => self.budget.tables = rest,
            None => {
                let spent = self.summary.tables.saturating_add(u64::try_from(self.summary.holes.len()).unwrap_or(0));
                return Err(limit("tables of a page map", VirtAddr::new(first), spent));
            }
        }
        Ok(())
    }

    /// How many tables are fetched together: in place each on its own, else as many as make a worthwhile call.
    fn chunk_tables(&self, level: &Level) -> usize {
        let bytes = level.entries().saturating_mul(self.arch.entry_size.bytes());
        match self.direct {
            Some(_) => 1,
            None => usize::try_from(CALL_BYTES.checked_div(bytes).unwrap_or(1)).unwrap_or(1).max(1),
        }
    }

    /// Reads whole tables in one call. Of a table that cannot be read whole, the entries are asked for one by one in a second call.
    fn fetch(&mut self, level: &Level, places: &[Place]) -> Result<Fetched, Ended> {
        for place in places {
            self.spend(place.first)?;
            self.summary.tables = self.summary.tables.saturating_add(1);
        }
        let table_bytes = level.entries().saturating_mul(self.arch.entry_size.bytes());
        let table_bytes = usize::try_from(table_bytes).unwrap_or(usize::MAX);
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(table_bytes.saturating_mul(places.len()), 0);
        let ops = places.iter().zip(bytes.chunks_exact_mut(table_bytes.max(1)));
        let mut ops: SmallVec<[PhysRead<'_>; 1]> =
            ops.map(|(place, buf)| PhysRead::new(place.node.table, buf)).collect();
        self.read(&mut ops);
        let mut broken = Vec::new();
        for (nth, op) in ops.iter().enumerate() {
            match op.outcome {
                Outcome::Done => {}
                outcome => broken.push((nth, op.addr, outcome)),
            }
        }
        drop(ops);
        let mut lost = Vec::new();
        for (nth, table, outcome) in broken {
            let at = nth.saturating_mul(table_bytes);
            if let Some(buf) = bytes.get_mut(at..at.saturating_add(table_bytes)) {
                // What was there before was of another table.
                buf.fill(0);
                self.read_broken(table, buf, outcome, |index, cause| lost.push((nth, index, cause)));
            }
        }
        Ok(Fetched { bytes, table_bytes, lost })
    }

    /// Reads the entries of a table that could not be read whole, and calls `lost` for those that cannot be read either.
    fn read_broken(&self, table: PhysAddr, buf: &mut [u8], outcome: Outcome, mut lost: impl FnMut(u64, StopCause)) {
        let size = self.arch.entry_size.bytes();
        let len = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        let runs = self.memory.metadata().runs;
        let held = PhysRange::new(table, len)
            .is_some_and(|range| runs.pieces(range).any(|piece| matches!(piece, Piece::Present { .. })));
        if !held && let Some(cause) = stop_cause(outcome) {
            return (0..len.checked_div(size).unwrap_or(0)).for_each(|index| lost(index, cause));
        }
        let entries = buf.chunks_exact_mut(usize::try_from(size).unwrap_or(1));
        let mut at = table;
        let mut ops = Vec::new();
        for entry in entries {
            ops.push(PhysRead::new(at, entry));
            at = at.wrapping_add(size);
        }
        self.read(&mut ops);
        for (index, op) in (0..).zip(&ops) {
            if let Some(cause) = stop_cause(op.outcome) {
                lost(index, cause);
            }
        }
    }

    /// Reads, in place where that is possible. What failed is in the outcomes.
    fn read(&self, ops: &mut [PhysRead<'_>]) {
        match self.direct {
            Some(map) => ops.iter_mut().for_each(|op| map.read(op)),
            None => {
                let _ = self.memory.read_batch(ops);
            }
        }
    }
}

#[cold]
fn limit(what: &'static str, address: VirtAddr, limit: u64) -> Ended {
    Ended::Limit(Error::Limit { what, address: address.into(), limit })
}

//! Who maps a physical address: an index over the maps of several address spaces, built once and asked often.
//!
//! Owns: [`ReverseMap`]. Must not know: how tables are walked, which process a space belongs to.
//! Keeps: every mapping is found, aliases and large pages too, in time that grows with their number and not with that of the
//! runs; addresses whose tables could not be read are told, as they may lead there too.

use std::ops::ControlFlow;

use super::{AddressSpace, MapBudget, MapHole, MappedRun, PageFlags};
use crate::{
    address::{PageSize, PhysAddr, VirtAddr, VirtRange},
    error::Result,
    memory::PhysicalMemory,
};

/// A virtual address of a space that leads to the physical one that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The space: the number that [`ReverseMapBuilder::add`] gave.
    pub space: usize,
    /// The virtual address.
    pub virt: VirtAddr,
    /// The size of its page.
    pub page: PageSize,
    /// Rights and state.
    pub flags: PageFlags,
}

/// Address spaces whose maps are collected for a [`ReverseMap`].
#[derive(Clone, Debug, Default)]
pub struct ReverseMapBuilder {
    runs: Vec<Entry>,
    spaces: usize,
    holes: Vec<(usize, MapHole)>,
}

/// Which virtual addresses of which address spaces lead to a physical one.
///
/// ```
/// # use memflow_core::{memory::*, paging::*, *};
/// // Two tables of 32-bit x86, which map the page at 0x3000 twice.
/// let mut bytes = vec![0; 0x4000];
/// bytes[0x1800..0x1804].copy_from_slice(&0x2003_u32.to_le_bytes());
/// bytes[0x2000..0x2004].copy_from_slice(&0x3003_u32.to_le_bytes());
/// bytes[0x2008..0x200c].copy_from_slice(&0x3001_u32.to_le_bytes());
/// let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
/// let memory = BufferMemory::new(config, bytes)?;
///
/// let mut builder = ReverseMapBuilder::default();
/// let space = builder.add(&AddressSpace::new(&x86::X86, 0x1000), &memory, None, MapBudget::default())?;
/// let map = builder.build();
/// let found: Vec<_> = map.find(PhysAddr::new(0x3010)).iter().map(|at| (at.space, at.virt.as_u64())).collect();
/// assert_eq!(found, [(space, 0x8000_0010), (space, 0x8000_2010)]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReverseMap {
    // INVARIANT: sorted by the first physical address.
    runs: Vec<Entry>,
    // INVARIANT: as long as `runs`. Read as a balanced tree, in which the root of a part of `runs` is its middle, this is the last
    // physical address of all runs in that part.
    lasts: Vec<u64>,
    holes: Vec<(usize, MapHole)>,
}

/// A run, from the side of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    first: u64,
    last: u64,
    virt: u64,
    space: usize,
    page: PageSize,
    flags: PageFlags,
}

impl ReverseMapBuilder {
    /// Adds what a space maps in `range`, or all that it maps, and returns the number it has in the index.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) when the budget is used up; nothing of the space is added then.
    pub fn add(
        &mut self,
        space: &AddressSpace,
        memory: &dyn PhysicalMemory,
        range: Option<VirtRange>,
        budget: MapBudget,
    ) -> Result<usize> {
        let (number, before) = (self.spaces, self.runs.len());
        let added = space.map(memory, range, budget, &mut |run| {
            self.runs.extend(Entry::new(number, &run));
            ControlFlow::Continue(())
        });
        match added {
            Ok(summary) => {
                self.holes.extend(summary.holes.into_iter().map(|hole| (number, hole)));
                self.spaces = self.spaces.saturating_add(1);
                Ok(number)
            }
            Err(error) => {
                self.runs.truncate(before);
                Err(error)
            }
        }
    }

    /// The index.
    pub fn build(self) -> ReverseMap {
        let Self { mut runs, holes, .. } = self;
        runs.sort_unstable_by_key(|run| (run.first, run.space, run.virt));
        let mut lasts = vec![0; runs.len()];
        set_lasts(&runs, &mut lasts);
        ReverseMap { runs, lasts, holes }
    }
}

impl ReverseMap {
    /// Every virtual address that leads to `phys`, by space and address.
    pub fn find(&self, phys: PhysAddr) -> Vec<Mapping> {
        let phys = phys.as_u64();
        let mut found = Vec::new();
        collect(&self.runs, &self.lasts, phys, &mut found);
        let mapping = |run: &Entry| Mapping {
            space: run.space,
            virt: VirtAddr::new(run.virt.wrapping_add(phys.wrapping_sub(run.first))),
            page: run.page,
            flags: run.flags,
        };
        let mut mappings: Vec<Mapping> = found.iter().map(mapping).collect();
        mappings.sort_unstable_by_key(|mapping| (mapping.space, mapping.virt));
        mappings
    }

    /// Runs in the index.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// True when no space maps anything.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Addresses whose tables could not be read, with the number of their space: what they lead to is not in the index.
    pub fn holes(&self) -> &[(usize, MapHole)] {
        &self.holes
    }
}

impl Entry {
    fn new(space: usize, run: &MappedRun) -> Option<Self> {
        let first = run.phys.as_u64();
        let last = first.saturating_add(run.virt.len().checked_sub(1)?);
        Some(Self { first, last, virt: run.virt.start().as_u64(), space, page: run.page, flags: run.flags })
    }
}

/// Fills in the last address below each root; returns that of the whole.
fn set_lasts(runs: &[Entry], lasts: &mut [u64]) -> u64 {
    let middle = runs.len() / 2;
    let (below, rest) = runs.split_at(middle);
    let (lasts_below, lasts_rest) = lasts.split_at_mut(middle);
    let (Some((run, above)), Some((last, lasts_above))) = (rest.split_first(), lasts_rest.split_first_mut()) else {
        return 0;
    };
    *last = run.last.max(set_lasts(below, lasts_below)).max(set_lasts(above, lasts_above));
    *last
}

/// Collects the runs that hold `phys`.
fn collect(runs: &[Entry], lasts: &[u64], phys: u64, found: &mut Vec<Entry>) {
    let middle = runs.len() / 2;
    let (below, rest) = runs.split_at(middle);
    let (lasts_below, lasts_rest) = lasts.split_at(middle);
    let (Some((run, above)), Some((last, lasts_above))) = (rest.split_first(), lasts_rest.split_first()) else {
        return;
    };
    if *last < phys {
        return;
    }
    collect(below, lasts_below, phys, found);
    if run.first <= phys {
        if phys <= run.last {
            found.push(*run);
        }
        collect(above, lasts_above, phys, found);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testkit::{
        MachineBuilder, PagingMode, ScriptedMemory,
        entry_bits::{PRESENT, USER, WRITABLE},
    };

    fn budget() -> MapBudget {
        MapBudget::default()
    }

    #[test]
    fn aliases_large_pages_and_spaces_are_all_found() {
        let mut builder = MachineBuilder::new(PagingMode::X64, 0x40_0000).unwrap();
        let frame = builder.frame().unwrap();
        let map = |builder: &mut MachineBuilder, virt, phys, page, bits| {
            builder.map(VirtAddr::new(virt), phys, page, PRESENT | bits).unwrap();
        };
        map(&mut builder, 0x1000, frame, PageSize::KIB_4, WRITABLE | USER);
        map(&mut builder, 0x7000, frame, PageSize::KIB_4, 0);
        // Everything once more, as kernels have it.
        map(&mut builder, 0xffff_8880_0000_0000, PhysAddr::new(0), PageSize::MIB_2, WRITABLE);
        let machine = builder.build().unwrap();
        let mut builder = ReverseMapBuilder::default();
        let whole = builder.add(&machine.space, &*machine.memory, None, budget()).unwrap();
        let low = VirtRange::new(VirtAddr::new(0x1000), 0x1000);
        let part = builder.add(&machine.space, &*machine.memory, low, budget()).unwrap();
        let map = builder.build();
        let found = map.find(frame.wrapping_add(0x123));
        let places: Vec<_> = found.iter().map(|found| (found.space, found.virt.as_u64(), found.page)).collect();
        let direct = 0xffff_8880_0000_0123 + frame.as_u64();
        assert_eq!(
            places,
            [
                (whole, 0x1123, PageSize::KIB_4),
                (whole, 0x7123, PageSize::KIB_4),
                (whole, direct, PageSize::MIB_2),
                (part, 0x1123, PageSize::KIB_4),
            ]
        );
        assert_eq!(found[1].flags & (PageFlags::WRITABLE | PageFlags::USER), PageFlags::empty());
        assert!(map.find(PhysAddr::new(0x20_0000)).is_empty());
        assert_eq!(map.find(PhysAddr::new(0x1f_ffff)).len(), 1);
    }

    #[test]
    fn tables_that_cannot_be_read_are_told() {
        let mut builder = MachineBuilder::new(PagingMode::X64, 0x10_0000).unwrap();
        let frame = builder.frame().unwrap();
        let page = builder.map(VirtAddr::new(0x1000), frame, PageSize::KIB_4, PRESENT).unwrap();
        let machine = builder.build().unwrap();
        let table = crate::address::PhysRange::new(page.entries[3].table, 0x1000).unwrap();
        let memory = ScriptedMemory::new(machine.memory.clone()).with_failing_addresses(table);
        let mut builder = ReverseMapBuilder::default();
        let space = builder.add(&machine.space, &memory, None, budget()).unwrap();
        let map = builder.build();
        assert!(map.find(frame).is_empty() && map.is_empty());
        assert_eq!(
            map.holes().iter().map(|(space, hole)| (*space, hole.range.len())).collect::<Vec<_>>(),
            [(space, 0x20_0000)]
        );
    }

    proptest! {
        /// The tree finds what a look at every run finds.
        #[test]
        fn tree_agrees_with_a_look_at_every_run(
            runs in prop::collection::vec((0u64..64, 0u64..64), 0..40),
            asked in 0u64..130,
        ) {
            let entry = |(index, (first, len)): (u64, &(u64, u64))| Entry {
                first: *first, last: first + len, virt: index * 1000, space: 0,
                page: PageSize::KIB_4, flags: PageFlags::empty(),
            };
            let runs: Vec<Entry> = (0..).zip(&runs).map(entry).collect();
            let holds = |run: &&Entry| run.first <= asked && asked <= run.last;
            let expected: Vec<u64> = runs.iter().filter(holds).map(|run| run.virt + asked - run.first).collect();
            let map = ReverseMapBuilder { runs, spaces: 1, holes: Vec::new() }.build();
            let found: Vec<u64> = map.find(PhysAddr::new(asked)).iter().map(|found| found.virt.as_u64()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

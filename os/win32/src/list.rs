//! Windows' doubly linked lists (`LIST_ENTRY`).
//!
//! Owns: the walk: when it ends, when it is refused, how the rest is recovered when it breaks.
//! Must not know: what the entries are. Keeps: an entry is given out once; every link is checked against the one that goes back.
//! Source: `LIST_ENTRY` of the Windows SDK.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::HashSet;

use memflow_core::{
    VirtAddr,
    error::{Error, Result, ResultExt},
    os::Listing,
};

use crate::{bytes::number, reader::Reader};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// A walk in one direction. It is over after its first error.
struct Walk<'a> {
    reader: Reader<'a>,
    what: &'static str,
    head: VirtAddr,
    limit: u64,
    direction: Direction,
}

impl Walk<'_> {
    /// Adds the nodes that are reached to `seen` and `nodes`, up to the head, or in the second direction to what the first one saw.
    fn run(&self, seen: &mut HashSet<VirtAddr>, nodes: &mut Vec<VirtAddr>) -> Result<()> {
        let (mut at, _) = self.sorted(self.reader.links(self.head).context(|| self.what.into())?);
        let mut from = self.head;
        while at != self.head {
            if seen.contains(&at) {
                if self.direction == Direction::Backward {
                    return Ok(());
                }
                return Err(Error::Cycle { what: self.what, address: at.into(), entries: number(seen.len()) });
            }
            if number(seen.len()) >= self.limit {
                return Err(Error::Limit { what: self.what, address: self.head.into(), limit: self.limit });
            }
            if at.is_null() || at.as_u64().checked_rem(self.reader.pointer_size()) != Some(0) {
                return Err(self.corrupt(from, "the address of the next entry", at));
            }
            let (next, back) = self.sorted(self.reader.links(at).context(|| self.what.into())?);
            if back != from {
                return Err(self.corrupt(at, "an entry that points back to the one before it", back));
            }
            seen.insert(at);
            nodes.push(at);
            (from, at) = (at, next);
        }
        Ok(())
    }

    fn sorted(&self, (next, previous): (VirtAddr, VirtAddr)) -> (VirtAddr, VirtAddr) {
        match self.direction {
            Direction::Forward => (next, previous),
            Direction::Backward => (previous, next),
        }
    }

    fn corrupt(&self, at: VirtAddr, expected: &'static str, found: VirtAddr) -> Error {
        let found = found.to_string().into();
        Error::Corrupt { what: self.what, address: at.into(), expected: expected.into(), found }
    }
}

/// The `LIST_ENTRY` of each entry of the list at `head`, in list order. When the walk from the front breaks, the break is a problem,
/// and the entries behind it are collected from the back.
pub(crate) fn nodes(reader: Reader<'_>, what: &'static str, head: VirtAddr, limit: u64) -> Listing<VirtAddr> {
    let mut listing = Listing::new();
    let mut seen = HashSet::new();
    let mut walk = Walk { reader, what, head, limit, direction: Direction::Forward };
    if let Err(broken) = walk.run(&mut seen, &mut listing.items) {
        listing.problems.push(broken);
        walk.direction = Direction::Backward;
        let mut rest = Vec::new();
        listing.problems.extend(walk.run(&mut seen, &mut rest).err());
        listing.items.extend(rest.into_iter().rev());
    }
    listing
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
    use crate::testing::Memory;

    const HEAD: u64 = 0x8000;

    fn ring(count: u64) -> Memory {
        let mut memory = Memory::default();
        let nodes: Vec<u64> = std::iter::once(HEAD).chain((1..=count).map(|id| id * 0x1000)).collect();
        memory.ring(&nodes);
        memory
    }

    fn found(memory: &Memory) -> (Vec<u64>, Vec<Error>) {
        let Listing { items, problems } = nodes(Reader::new(memory), "test list", VirtAddr::new(HEAD), 6);
        (items.into_iter().map(|at| at.as_u64() / 0x1000).collect(), problems)
    }

    #[test]
    fn entries_come_in_list_order() {
        assert_eq!(found(&ring(4)).0, [1, 2, 3, 4]);
        assert!(found(&ring(0)).0.is_empty() && found(&ring(0)).1.is_empty());
    }

    #[test]
    fn loops_and_long_lists_end() {
        let mut memory = ring(4);
        memory.put_u64(0x4000, 0x2000).put_u64(0x2008, 0x4000);
        let (items, problems) = found(&memory);
        // A ring of its own behind the first entry: nothing of it leads back to where it was entered.
        assert_eq!(items, [1]);
        assert_eq!(problems.len(), 2);
        let mut memory = ring(4);
        memory.put_u64(0x4000, 0x2000);
        let (items, problems) = found(&memory);
        assert_eq!(items, [1, 2, 3, 4]);
        assert!(matches!(problems[0], Error::Cycle { entries: 4, .. }), "{problems:?}");
        let (items, problems) = found(&ring(7));
        assert_eq!(items.len(), 6);
        assert!(matches!(problems[0], Error::Limit { limit: 6, .. }), "{problems:?}");
    }

    #[test]
    fn break_costs_no_entry_behind_it() {
        for garbage in [0, 3, 0xdead_0000, u64::MAX] {
            let mut memory = ring(5);
            memory.put_u64(0x2000, garbage);
            let (items, problems) = found(&memory);
            assert_eq!(items, [1, 2, 3, 4, 5], "{garbage:#x}");
            assert_eq!(problems.len(), 1);
        }
        let mut memory = ring(5);
        memory.remove(0x3000, 16);
        let (items, problems) = found(&memory);
        assert_eq!(items, [1, 2, 4, 5]);
        assert_eq!(problems.len(), 2);
        assert_eq!(found(&Memory::default()).1.len(), 2);
    }
}

//! The kernel's doubly linked lists (`struct list_head`).
//!
//! Owns: the walk: when it ends, when it is refused, how the rest is recovered when it breaks.
//! Must not know: what the entries are.
//! Keeps: an entry is given out once; every link is checked against the one that goes back; after an error a walk is over.
//! Source: include/linux/list.h, include/linux/rculist.h.

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
    MemoryView, VirtAddr,
    error::{Error, Result},
    os::Listing,
};

use crate::{
    record::{Record, Span},
    types::Field,
};

/// A list of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    /// What it lists, for errors ("process list").
    pub(crate) what: &'static str,
    /// Address of the `list_head` that is the list, not an entry.
    pub(crate) head: VirtAddr,
    /// The `list_head` member of the entries.
    pub(crate) node: Field,
    /// The part of an entry to read; it holds `node`.
    pub(crate) span: Span,
    /// More entries than this are refused.
    pub(crate) limit: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    Forward,
    Backward,
}

/// A walk over the entries of a [`List`]. Over for good after the first error.
pub(crate) struct ListWalker<'a> {
    view: &'a dyn MemoryView,
    list: List,
    direction: Direction,
    /// The node to visit next; `None` before the head was read.
    at: Option<VirtAddr>,
    /// The node before `at`, and the link by which it points the other way.
    from: VirtAddr,
    from_back: VirtAddr,
    seen: HashSet<VirtAddr>,
    over: bool,
}

impl<'a> ListWalker<'a> {
    /// A walk from the first entry to the last.
    pub(crate) fn forward(view: &'a dyn MemoryView, list: List) -> Self {
        Self::new(view, list, Direction::Forward, HashSet::new())
    }

    fn new(view: &'a dyn MemoryView, list: List, direction: Direction, seen: HashSet<VirtAddr>) -> Self {
        Self { view, list, direction, at: None, from: list.head, from_back: list.head, seen, over: false }
    }

    fn step(&mut self) -> Result<Option<Record>> {
        let at = match self.at {
            Some(at) => at,
            None => {
                let head = Field { offset: 0, ..self.list.node };
                let record = Record::read(self.view, self.list.head, Span::of("list_head", [head])?)?;
                let (next, back) = self.sorted(record.links(head)?);
                self.from_back = back;
                next
            }
        };
        if at == self.list.head {
            return Ok(None);
        }
        let entries = u64::try_from(self.seen.len()).unwrap_or(u64::MAX);
        if at.is_null() {
            return Err(self.corrupt("the address of the next entry", at));
        }
        if self.seen.contains(&at) {
            // The other direction came this far: together they have seen everything that is linked.
            if self.direction == Direction::Backward {
                return Ok(None);
            }
            return Err(Error::Cycle { what: self.list.what, address: at.into(), entries });
        }
        if entries >= self.list.limit {
            return Err(Error::Limit { what: self.list.what, address: self.list.head.into(), limit: self.list.limit });
        }
        let record = Record::read(self.view, at.wrapping_sub(self.list.node.offset), self.list.span)?;
        let (next, back) = self.sorted(record.links(self.list.node)?);
        // While an entry is put in or taken out, its neighbour points back past it for a moment: to where it points itself.
        if back != self.from && back != self.from_back {
            return Err(self.corrupt("an entry that points back to the one before it", back));
        }
        self.seen.insert(at);
        (self.from, self.from_back, self.at) = (at, back, Some(next));
        Ok(Some(record))
    }

    /// The links in walking order: onwards, back.
    fn sorted(&self, (next, previous): (VirtAddr, VirtAddr)) -> (VirtAddr, VirtAddr) {
        match self.direction {
            Direction::Forward => (next, previous),
            Direction::Backward => (previous, next),
        }
    }

    fn corrupt(&self, expected: &'static str, found: VirtAddr) -> Error {
        Error::Corrupt {
            what: self.list.what,
            address: self.at.unwrap_or(self.list.head).into(),
            expected: expected.into(),
            found: found.to_string().into(),
        }
    }
}

impl Iterator for ListWalker<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = self.step();
        self.over = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}

/// Every entry of a list that can be reached, in list order. When the walk from the front breaks, the break is a problem of the
/// listing and the entries after it are collected from the back.
pub(crate) fn collect<T>(view: &dyn MemoryView, list: List, mut parse: impl FnMut(&Record) -> Result<T>) -> Listing<T> {
    let mut listing = Listing::new();
    let mut walk = ListWalker::forward(view, list);
    let broken = take(&mut walk, &mut listing, &mut parse);
    if broken {
        let mut rest = Listing::new();
        let mut back = ListWalker::new(view, list, Direction::Backward, walk.seen);
        take(&mut back, &mut rest, &mut parse);
        listing.items.extend(rest.items.into_iter().rev());
        listing.problems.extend(rest.problems);
    }
    listing
}

/// Runs a walk to its end; true when it broke.
fn take<T>(walk: &mut ListWalker<'_>, into: &mut Listing<T>, parse: &mut impl FnMut(&Record) -> Result<T>) -> bool {
    for record in walk {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                into.problems.push(error);
                return true;
            }
        };
        match parse(&record) {
            Ok(item) => into.items.push(item),
            Err(error) => into.problems.push(error),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test fails by panicking"
    )]

    use super::*;
    use crate::testing::Memory;

    const NODE: Field = Field { offset: 8, size: 16, bits: None };
    const ID: Field = Field { offset: 0, size: 4, bits: None };
    const HEAD: u64 = 0x8000;

    fn list(limit: u64) -> List {
        let span = Span::of("entry", [NODE, ID]).unwrap();
        List { what: "test list", head: VirtAddr::new(HEAD), node: NODE, span, limit }
    }

    /// Entries 1, 2, ... at 0x1000, 0x2000, ..., linked in that order.
    fn entries(count: u32) -> Memory {
        let mut memory = Memory::default();
        let mut nodes = vec![HEAD];
        for id in 1..=count {
            let at = u64::from(id) * 0x1000;
            memory.put_u32(at, id).zero(at + 4, 4);
            nodes.push(at + NODE.offset);
        }
        memory.ring(&nodes);
        memory
    }

    fn node(id: u32) -> u64 {
        u64::from(id) * 0x1000 + NODE.offset
    }

    fn ids(memory: &Memory, limit: u64) -> (Vec<u32>, Vec<Error>) {
        let found = collect(memory, list(limit), |record| record.u32(ID));
        (found.items, found.problems)
    }

    #[test]
    fn entries_come_in_list_order() {
        assert_eq!(ids(&entries(4), 10).0, [1, 2, 3, 4]);
        let (empty, problems) = ids(&entries(0), 10);
        assert!(empty.is_empty() && problems.is_empty());
    }

    #[test]
    fn list_that_never_returns_to_its_head_is_a_cycle() {
        let mut memory = entries(4);
        memory.put_u64(node(4), node(2));
        let (found, problems) = ids(&memory, 10);
        assert_eq!(found, [1, 2, 3, 4]);
        assert!(matches!(problems[0], Error::Cycle { entries: 4, .. }), "{problems:?}");
        // A ring of its own behind the first entry: nothing of it points back to where it was entered.
        memory.put_u64(node(2) + 8, node(4));
        let (found, problems) = ids(&memory, 10);
        assert_eq!(found, [1]);
        assert!(matches!(problems[0], Error::Corrupt { .. }), "{problems:?}");
        let mut memory = entries(1);
        memory.put_u64(node(1), node(1));
        let (found, problems) = ids(&memory, 10);
        assert_eq!(found, [1]);
        assert!(matches!(problems[..], [Error::Cycle { entries: 1, .. }]), "{problems:?}");
    }

    #[test]
    fn damaged_link_back_costs_no_entry() {
        let mut memory = entries(5);
        memory.put_u64(node(3) + 8, 0x1234);
        let (found, problems) = ids(&memory, 10);
        assert_eq!(found, [1, 2, 3, 4, 5]);
        assert!(!problems.is_empty());
    }

    #[test]
    fn list_past_its_limit_is_refused() {
        let (found, problems) = ids(&entries(4), 3);
        assert_eq!(found, [1, 2, 3]);
        assert!(matches!(problems[0], Error::Limit { limit: 3, .. }), "{problems:?}");
    }

    #[test]
    fn broken_link_costs_no_entry() {
        for garbage in [0, 1, 0xdead_0000_0000_0100, u64::MAX] {
            let mut memory = entries(5);
            memory.put_u64(node(2), garbage);
            let (found, problems) = ids(&memory, 10);
            assert_eq!(found, [1, 2, 3, 4, 5], "{garbage:#x}");
            assert_eq!(problems.len(), 1, "{garbage:#x}: {problems:?}");
        }
    }

    #[test]
    fn link_into_another_list_is_not_followed() {
        let mut memory = entries(3);
        memory.put_u32(0x9000, 9).zero(0x9004, 4).put_u64(0x9008, 0xa008).put_u64(0x9010, 0xa008);
        memory.put_u64(node(1), 0x9008);
        let (found, problems) = ids(&memory, 10);
        assert_eq!(found, [1, 2, 3]);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn break_in_both_directions_keeps_both_ends() {
        let mut memory = entries(5);
        memory.put_u64(node(2), 0).put_u64(node(4) + 8, 0);
        let (found, problems) = ids(&memory, 10);
        assert_eq!(found, [1, 2, 4, 5]);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn entry_being_put_in_is_no_break() {
        // 1 -> 2 -> 3, where 3 still points back past 2, to 1.
        let mut memory = entries(3);
        memory.put_u64(node(3) + 8, node(1));
        let (found, problems) = ids(&memory, 10);
        assert_eq!(found, [1, 2, 3]);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn head_that_cannot_be_read_is_a_problem() {
        let (found, problems) = ids(&Memory::default(), 10);
        assert!(found.is_empty());
        assert!(!problems.is_empty());
    }

    #[test]
    fn entry_that_makes_no_sense_does_not_end_the_walk() {
        let found = collect(&entries(3), list(10), |record| match record.u32(ID)? {
            2 => Err(Error::Cancelled),
            id => Ok(id),
        });
        assert_eq!(found.items, [1, 3]);
        assert!(matches!(found.problems[..], [Error::Cancelled]));
    }

    #[test]
    fn walk_is_over_after_an_error() {
        let mut memory = entries(2);
        memory.put_u64(node(1), 0);
        let mut walk = ListWalker::forward(&memory, list(10));
        assert!(walk.next().unwrap().is_ok());
        assert!(walk.next().unwrap().is_err());
        assert!(walk.next().is_none());
        assert!(walk.next().is_none());
    }
}

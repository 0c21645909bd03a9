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
        if !self.seen.insert(at) {
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

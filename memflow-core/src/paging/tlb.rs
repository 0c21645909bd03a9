//! What walks through called tables found before: pages, and tables on the way to them.
//!
//! Owns: what the answers in a memory's lookaside mean for paging, and where a walk can start.
//! Must not know: how they are held, how old they may be, how tables are read.
//! Keeps: the key is the whole root, the mode, the level and every address bit that the entry was chosen by; only entries that the
//! processor takes are kept, never a stop and never an answer of the operating system; each table is announced before it is read; an
//! answer is as old as the oldest entry on its way.

use std::cell::Cell;

use super::{
    PageFlags, Translation,
    arch::{Architecture, Level},
    entry::{Next, Node},
};
use crate::{
    address::{PageSize, PhysAddr, PhysRange},
    memory::{Answer, Kind, Owner, PhysicalMemory, Session},
};

/// The use that one batch makes of what walks below one root found.
#[derive(Debug)]
pub(super) struct Tlb<'a> {
    arch: &'static Architecture,
    root: PhysAddr,
    /// `None` where the memory keeps nothing.
    session: Option<Session<'a>>,
    trust: Trust,
    /// The entry that was kept last: neighbours in a batch share most of theirs.
    last: Cell<(Option<Kind>, u64)>,
}

/// What a batch believes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// What earlier walks found, where it is kept.
    Kept,
    /// The tables alone, as they are now: for writes, which must not reach a page that now belongs to somebody else.
    Tables,
}

/// Where a walk starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// At its end.
    Page(Translation),
    /// In a table so many levels below the root, with the time at which the first entry on the way to it was asked for.
    Table(usize, Node, u64),
}

/// Forgets what walks below this root found.
pub(super) fn forget(arch: &'static Architecture, root: PhysAddr, memory: &dyn PhysicalMemory) {
    if let Some(lookaside) = memory.lookaside() {
        lookaside.forget(owner(arch, root));
    }
}

/// A mode is its place in memory, which no other has while the process runs.
fn owner(arch: &'static Architecture, root: PhysAddr) -> Owner {
    let mode = std::ptr::from_ref(arch).addr();
    // No target has addresses of more than 64 bits.
    [u64::try_from(mode).unwrap_or(u64::MAX), root.as_u64()]
}

/// The key of the entry at this level that covers `addr`: the number of the level in the bits that do not choose it. `None` where those
/// are too few.
#[inline]
fn key(level: &Level, number: u8, addr: u64) -> Option<u64> {
    let inside = level.offset_mask();
    (u64::from(number) <= inside).then_some((addr & !inside) | u64::from(number))
}

impl<'a> Tlb<'a> {
    /// What the memory keeps for walks below this root.
    pub(super) fn new(
        arch: &'static Architecture,
        root: PhysAddr,
        memory: &'a dyn PhysicalMemory,
        trust: Trust,
    ) -> Self {
        let session = memory.lookaside().and_then(|lookaside| lookaside.session(owner(arch, root)));
        Self { arch, root, session, trust, last: Cell::new((None, 0)) }
    }

    /// Where a walk for a canonical address starts, and the low bits of the addresses that start there too.
    #[inline]
    pub(super) fn start(&self, addr: u64) -> (Start, u64) {
        let now = self.session.map_or(0, |session| session.now());
        let root = Start::Table(0, Node::root(self.root), now);
        let session = self.session.filter(|session| self.trust == Trust::Kept && !session.is_new());
        let Some(session) = session else { return (root, u64::MAX) };
        self.find(&session, addr).unwrap_or_else(|| {
            // Whoever follows under another entry of the root may be known.
            (root, self.arch.levels.first().map_or(u64::MAX, Level::offset_mask))
        })
    }

    fn find(&self, session: &Session<'_>, addr: u64) -> Option<(Start, u64)> {
        // The smallest pages first: most are of that size.
        for (depth, level) in self.arch.levels.iter().enumerate().rev() {
            let number = self.arch.level_number(depth);
            if let Some(found) = key(level, number, addr).and_then(|key| session.find(Kind::End, key)) {
                let inside = level.offset_mask();
                let page = Translation {
                    phys: PhysAddr::new(found.value | (addr & inside)),
                    page: PageSize::from_shift(level.shift).unwrap_or(PageSize::KIB_4),
                    level: number,
                    flags: PageFlags::from_bits_retain(found.extra),
                };
                return Some((Start::Page(page), inside));
            }
        }
        for (depth, level) in self.arch.levels.iter().enumerate().rev().skip(1) {
            let number = self.arch.level_number(depth);
            if let Some(found) = key(level, number, addr).and_then(|key| session.find(Kind::Step, key)) {
                let rights = PageFlags::from_bits_retain(found.extra);
                let node = Node { table: PhysAddr::new(found.value), rights };
                return Some((Start::Table(depth.saturating_add(1), node, found.asked), level.offset_mask()));
            }
        }
        None
    }

    /// Says which tables are read next.
    pub(super) fn will_read(&self, ranges: impl Iterator<Item = PhysRange>) {
        if let Some(session) = &self.session {
            session.will_read(ranges);
        }
    }

    /// Keeps where the entry at this level for `addr` led, on a way whose first entry was asked for at `asked`: what follows from an
    /// old entry is as old.
    #[inline]
    pub(super) fn keep(&self, level: &Level, number: u8, addr: u64, next: &Next, asked: u64) {
        let Some((session, key)) = self.session.as_ref().zip(key(level, number, addr)) else { return };
        let (kind, value, flags) = match next {
            Next::Page(found) => (Kind::End, found.phys.as_u64() & !level.offset_mask(), found.flags),
            Next::Table(node) => (Kind::Step, node.table.as_u64(), node.rights),
        };
        if self.last.replace((Some(kind), key)) != (Some(kind), key) {
            session.keep(kind, key, Answer { value, extra: flags.bits(), asked });
        }
    }
}

//! Walks of tables that lie in this process.
//!
//! Owns: the cursor that remembers the tables of the last walk, and the ready-made walkers of the common modes.
//! Must not know: batches, buffers, the operating system.
//! Keeps: a cursor lives no longer than one batch, like a TLB that is flushed between batches; page entries are always loaded;
//! a walk counts only if the backing had lost nothing by its end, else it is walked again with every load confirmed.

use std::ptr;

use super::{
    MaybePhys, Translation, Walked,
    arch::{Architecture, EntrySize, x86},
    entry::{Halt, Node},
    walk::{TableSource, walk},
};
use crate::{
    address::{PhysAddr, VirtAddr},
    error::{Reason, StopCause},
    memory::{DirectMap, LoadError, Losses, TablePage, TablePages, Unconfirmed},
};

mod batch;
mod directories;
mod each;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod lanes;
mod plan;
mod single;

pub(crate) use self::batch::Asked;
use self::batch::{Batch, Pairs};
use self::each::Rest;
use self::plan::{FiveLevels, Found, FourLevels, Mode, Pae, TwoLevels, TwoLevelsNoPse};
use self::single::{Anywhere, AtHand};

/// Runs `$body` with `$mode` as the type of the mode, or `$other` for those without a walker of their own.
macro_rules! specialised {
    ($known:expr, $mode:ident => $body:expr, else $other:expr) => {{
        macro_rules! with {
            ($type:ty) => {{
                type $mode = $type;
                $body
            }};
        }
        match $known {
            Some(Known::FourLevels) => with!(FourLevels),
            Some(Known::FiveLevels) => with!(FiveLevels),
            Some(Known::Pae) => with!(Pae),
            Some(Known::TwoLevels) => with!(TwoLevels),
            Some(Known::TwoLevelsNoPse) => with!(TwoLevelsNoPse),
            None => $other,
        }
    }};
}

/// The walk of one address whose entries are plain.
pub(super) type PlainWalk = fn(&DirectMap, PhysAddr, u64) -> Found;

/// A mode of which there is a walker of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    FourLevels,
    FiveLevels,
    Pae,
    TwoLevels,
    TwoLevelsNoPse,
}

impl Known {
    /// The quickest walk of a mode.
    pub(super) fn plain_walk(known: Option<Self>) -> PlainWalk {
        specialised!(known, M => translate_plain::<M>, else nothing_is_plain)
    }

    /// The walker of a mode, if it has its own.
    pub(super) fn of(arch: &'static Architecture) -> Option<Self> {
        let walkers = [
            (&x86::X64, Self::FourLevels),
            (&x86::X64_LA57, Self::FiveLevels),
            (&x86::X86_PAE, Self::Pae),
            (&x86::X86, Self::TwoLevels),
            (&x86::X86_NO_PSE, Self::TwoLevelsNoPse),
        ];
        walkers.into_iter().find(|(mode, _)| ptr::eq(*mode, arch)).map(|(_, known)| known)
    }
}

impl TableSource for &DirectMap {
    fn load(&self, at: PhysAddr, size: EntrySize) -> Result<u64, StopCause> {
        let value = match size {
            EntrySize::Eight => self.load_u64(at),
            EntrySize::Four => self.load_u32(at).map(u64::from),
        };
        value.map_err(|error| match error {
            LoadError::NotInImage => StopCause::TableNotInImage,
            LoadError::Truncated => StopCause::TableUnreadable,
        })
    }
}

impl TableSource for Unconfirmed<'_> {
    #[inline(always)]
    fn load(&self, at: PhysAddr, size: EntrySize) -> Result<u64, StopCause> {
        match size {
            EntrySize::Eight => self.load_u64(at),
            EntrySize::Four => self.load_u32(at).map(u64::from),
        }
        .ok_or(StopCause::TableNotInImage)
    }
}

/// The tables of a space of four or five levels, with the root at hand.
#[derive(Clone, Copy)]
pub(super) struct AtRoot<'a> {
    losses: Losses<'a>,
    tables: TablePages<'a>,
    root: TablePage<'a>,
    five_levels: bool,
}

impl<'a> AtRoot<'a> {
    /// Those of a space, if its mode has a walk for them and the root is at hand.
    pub(super) fn new(known: Option<Known>, root: PhysAddr, map: &'a DirectMap) -> Option<Self> {
        let five_levels = match known? {
            Known::FourLevels => false,
            Known::FiveLevels => true,
            _ => return None,
        };
        let tables = map.tables();
        Some(Self { losses: map.losses(), tables, root: tables.page_at(root.as_u64())?, five_levels })
    }

    /// Translates one address, if every entry on its way is plain and every table at hand.
    #[inline(always)]
    pub(super) fn translate(&self, addr: u64) -> Found {
        let found = if self.five_levels {
            single::translate_from::<FiveLevels, AtHand>(self.tables, self.root, addr)
        } else {
            single::translate_from::<FourLevels, AtHand>(self.tables, self.root, addr)
        };
        if self.losses.are_none() { found } else { Found::NOTHING }
    }

    /// The same for the physical address alone.
    #[inline(always)]
    pub(super) fn phys(&self, addr: u64) -> MaybePhys {
        let found = if self.five_levels {
            single::phys_from::<FiveLevels>(self.tables, self.root, addr)
        } else {
            single::phys_from::<FourLevels>(self.tables, self.root, addr)
        };
        if self.losses.are_none() { found } else { MaybePhys::NONE }
    }
}

/// Tables in place, and who walks them.
#[derive(Clone, Copy)]
pub(super) struct InPlace<'a> {
    pub(super) arch: &'static Architecture,
    pub(super) known: Option<Known>,
    pub(super) root: PhysAddr,
    pub(super) map: &'a DirectMap,
}

impl InPlace<'_> {
    /// Translates one address that may have something special about it.
    #[cold]
    #[inline(never)]
    pub(super) fn translate(self, addr: u64) -> Result<Translation, Halt> {
        // Most addresses of which there is something special lead nowhere.
        let stop = specialised!(self.known, M => single::stop::<M>(self.map.tables(), self.root, addr), else None);
        if let Some(halt) = stop
            && self.map.lost_nothing()
        {
            return Err(halt);
        }
        let found =
            specialised!(self.known, M => translate_anywhere::<M>(self.map, self.root, addr), else Found::NOTHING);
        if let Some(found) = found.get() {
            return Ok(found);
        }
        if !self.arch.is_canonical(addr) {
            return Err(Halt::not_canonical(self.root));
        }
        let result = walk(self.arch, &self.map.unconfirmed(), 0, Node::root(self.root), addr, |_, _| {});
        if self.map.lost_nothing() { result } else { walk_confirmed(self.arch, self.root, self.map, addr) }
    }

    /// Translates everything that is asked for, in any order. Walks that stop at an entry of which `may_know` says that
    /// somebody may know more are added to `stopped`.
    pub(super) fn translate_each<A: Asked>(
        self,
        asked: &mut [A],
        may_know: impl Fn(&Halt) -> bool,
        stopped: &mut Vec<Walked>,
    ) {
        let mut exactly = |op: usize, addr: u64| self.translate_noting(op, addr, &may_know, stopped);
        specialised!(
            self.known,
            M => each::translate::<M, _>(self.map.tables(), self.root, &mut *asked, &mut exactly),
            else each_exactly(&mut *asked, &mut exactly)
        );
        if !self.map.lost_nothing() {
            // The tables that were passed may be missing bytes: start over, with every load confirmed.
            stopped.clear();
            each_exactly(asked, &mut |op, addr| self.translate_noting(op, addr, &may_know, stopped));
        }
    }

    /// Translates one address, and notes where it stopped if somebody may know more.
    fn translate_noting(
        self,
        op: usize,
        addr: u64,
        may_know: &impl Fn(&Halt) -> bool,
        stopped: &mut Vec<Walked>,
    ) -> Result<Translation, Reason> {
        self.translate(addr).map_err(|halt| {
            if may_know(&halt) {
                stopped.push(Walked { op, first: addr, last: addr, result: Err(halt) });
            }
            halt.reason()
        })
    }

    /// Translates everything that leads to a page; what does not is refused. To be believed only if the map lost nothing
    /// afterwards.
    pub(super) fn translate_pages<A: Asked>(self, asked: &mut [A]) {
        let mut exactly = |_: usize, addr: u64| self.translate(addr).map_err(|halt| halt.reason());
        specialised!(
            self.known,
            M => each::translate::<M, _>(self.map.tables(), self.root, asked, &mut exactly),
            else each_exactly(asked, &mut exactly)
        );
    }

    /// Translates addresses, as many as both slices have. Walks that stop at an entry of which `may_know` says that somebody may know
    /// more are added to `stopped`. Returns how many lead nowhere, as far as is known here.
    pub(super) fn translate_to(
        self,
        addresses: &[VirtAddr],
        found: &mut [MaybePhys],
        may_know: impl Fn(&Halt) -> bool,
        stopped: &mut Vec<Walked>,
    ) -> usize {
        let mut missing = 0usize;
        let mut exactly = |op: usize, addr: u64| {
            let answer = self.translate_noting(op, addr, &may_know, stopped);
            missing = missing.wrapping_add(usize::from(!is_told(&answer)));
            answer
        };
        specialised!(
            self.known,
            M => each::translate::<M, _>(self.map.tables(), self.root, Pairs::new(addresses, found), &mut exactly),
            else each_exactly(Pairs::new(addresses, found), &mut exactly)
        );
        if self.map.lost_nothing() {
            return missing;
        }
        // As in `translate_each`.
        stopped.clear();
        missing = 0;
        each_exactly(Pairs::new(addresses, found), &mut |op, addr| {
            let answer = self.translate_noting(op, addr, &may_know, stopped);
            missing = missing.wrapping_add(usize::from(!is_told(&answer)));
            answer
        });
        missing
    }

    /// Walks ranges `(op, first, last)` in order, one [`Walked`] per page or per entry that leads nowhere.
    pub(super) fn walk_ranges(self, ranges: &[(usize, u64, u64)], mut each: impl FnMut(Walked)) {
        let arch = self.arch;
        let tables = self.map.unconfirmed();
        let mut cursor = Cursor::new(self.root);
        for (op, first, last) in ranges {
            let mut at = *first;
            loop {
                let (part, canonical) = arch.canonical_part(at, *last);
                let (end, result) = if canonical {
                    let result = cursor.walk(arch, &tables, at);
                    let covered = match &result {
                        Ok(found) => found.page.offset_mask(),
                        Err(halt) => halt.covered_mask(arch),
                    };
                    ((at | covered).min(part), result)
                } else {
                    (part, Err(Halt::not_canonical(self.root)))
                };
                each(Walked { op: *op, first: at, last: end, result });
                match end.checked_add(1) {
                    Some(next) if end < *last => at = next,
                    _ => break,
                }
            }
        }
    }
}

/// Whether eight bytes tell the answer.
fn is_told(answer: &Result<Translation, Reason>) -> bool {
    answer.is_ok_and(|found| MaybePhys::new(found.phys).get().is_some())
}

/// Gives every address the answer that `exactly` has for it.
fn each_exactly<B: Batch>(asked: B, exactly: &mut Rest<'_>) {
    for (index, mut asked) in asked.items().enumerate() {
        let answer = exactly(index, asked.addr());
        asked.take(answer);
    }
}

/// Translates one address, if every entry on its way is plain and every table at hand.
fn translate_plain<M: Mode>(map: &DirectMap, root: PhysAddr, addr: u64) -> Found {
    let found = single::translate::<M, AtHand>(map.tables(), root, addr);
    if map.lost_nothing() { found } else { nothing_is_plain(map, root, addr) }
}

/// The same for a mode that has no walker of its own, and where bytes were lost: no address is plain.
#[cold]
#[inline(never)]
fn nothing_is_plain(_map: &DirectMap, _root: PhysAddr, _addr: u64) -> Found {
    Found::NOTHING
}

/// Translates one address, if every entry on its way is plain, wherever the tables are.
#[inline(never)]
fn translate_anywhere<M: Mode>(map: &DirectMap, root: PhysAddr, addr: u64) -> Found {
    let found = single::translate::<M, Anywhere>(map.tables(), root, addr);
    if map.lost_nothing() { found } else { Found::NOTHING }
}

/// Walks with every load confirmed: bytes were lost, here or elsewhere.
#[cold]
#[inline(never)]
fn walk_confirmed(
    arch: &'static Architecture,
    root: PhysAddr,
    map: &DirectMap,
    addr: u64,
) -> Result<Translation, Halt> {
    walk(arch, &map, 0, Node::root(root), addr, |_, _| {})
}

/// The tables of the last walk: the next one starts at the deepest that serves it too.
struct Cursor {
    last: u64,
    // INVARIANT: the first `valid` nodes are the tables that a walk for `last` goes through; the root is always there.
    nodes: [Node; Architecture::MAX_LEVELS],
    valid: usize,
}

impl Cursor {
    /// A cursor that knows the root only.
    fn new(root: PhysAddr) -> Self {
        Self { last: 0, nodes: [Node::root(root); Architecture::MAX_LEVELS], valid: 1 }
    }

    /// The deepest known table that covers `addr`, and its depth.
    #[inline(always)]
    fn deepest(&self, arch: &Architecture, addr: u64) -> (usize, Node) {
        let differ = self.last ^ addr;
        let mut depth = 0usize;
        // The entry of a level covers both addresses when they differ in its offset bits only: then the table below serves both.
        for level in arch.levels.iter().take(Architecture::MAX_LEVELS.wrapping_sub(1)) {
            if differ & !level.offset_mask() != 0 || depth.wrapping_add(1) >= self.valid {
                break;
            }
            depth = depth.wrapping_add(1);
        }
        let [root, ..] = self.nodes;
        (depth, self.nodes.get(depth).copied().unwrap_or(root))
    }

    /// Translates one canonical address from the deepest known table.
    #[inline(always)]
    fn walk(&mut self, arch: &'static Architecture, tables: &Unconfirmed<'_>, addr: u64) -> Result<Translation, Halt> {
        let (depth, node) = self.deepest(arch, addr);
        let (nodes, valid) = (&mut self.nodes, &mut self.valid);
        *valid = depth.wrapping_add(1);
        self.last = addr;
        let result = walk(arch, tables, depth, node, addr, |depth, node| {
            if let Some(place) = nodes.get_mut(depth) {
                *place = node;
                *valid = depth.wrapping_add(1);
            }
        });
        if tables.map().lost_nothing() {
            return result;
        }
        // The tables that were passed may be missing bytes: start over, and remember nothing.
        self.valid = 1;
        let [root, ..] = self.nodes;
        walk_confirmed(arch, root.table, tables.map(), addr)
    }
}

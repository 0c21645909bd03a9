//! Walks of tables that lie in this process.
//!
//! Owns: the cursor that remembers the tables of the last walk, and the ready-made walkers of the common modes.
//! Must not know: batches, buffers, the operating system.
//! Keeps: a cursor lives no longer than one batch, like a TLB that is flushed between batches; page entries are always loaded;
//! a walk counts only if the backing had lost nothing by its end, else it is walked again with every load confirmed.

use std::ptr;

use super::{
    TranslateOp, Translation, Walked,
    arch::{Architecture, EntrySize, x86},
    entry::{Halt, Node},
    walk::{TableSource, walk},
};
use crate::{
    address::PhysAddr,
    error::StopCause,
    memory::{DirectMap, LoadError, Unconfirmed},
};

/// Runs `$body` with `$mode` as the type of the mode.
macro_rules! specialised {
    ($arch:expr, $mode:ident => $body:expr) => {{
        let arch: &'static Architecture = $arch;
        if ptr::eq(arch, &x86::X64) {
            let $mode = FourLevels;
            $body
        } else if ptr::eq(arch, &x86::X64_LA57) {
            let $mode = FiveLevels;
            $body
        } else {
            let $mode = Other(arch);
            $body
        }
    }};
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

/// Translates one address from the root.
#[inline]
pub(super) fn translate(
    arch: &'static Architecture,
    root: PhysAddr,
    map: &DirectMap,
    addr: u64,
) -> Result<Translation, Halt> {
    specialised!(arch, mode => translate_as(mode, root, map, addr))
}

/// Translates every address in order, and calls `halted` for those that lead nowhere.
pub(super) fn translate_each(
    arch: &'static Architecture,
    root: PhysAddr,
    map: &DirectMap,
    ops: &mut [TranslateOp],
    halted: impl FnMut(usize, u64, Halt),
) {
    specialised!(arch, mode => translate_each_as(mode, root, map, ops, halted));
}

/// Walks ranges `(op, first, last)` in order, one [`Walked`] per page or per entry that leads nowhere.
pub(super) fn walk_ranges(
    arch: &'static Architecture,
    root: PhysAddr,
    map: &DirectMap,
    ranges: &[(usize, u64, u64)],
    each: impl FnMut(Walked),
) {
    specialised!(arch, mode => walk_ranges_as(mode, root, map, ranges, each));
}

/// A paging mode as a type: where it is one of the common modes, the compiler knows its data, folds masks and drops levels.
trait Mode: Copy {
    fn arch(self) -> &'static Architecture;
}

/// [`x86::X64`].
#[derive(Clone, Copy)]
struct FourLevels;

/// [`x86::X64_LA57`].
#[derive(Clone, Copy)]
struct FiveLevels;

/// Any other.
#[derive(Clone, Copy)]
struct Other(&'static Architecture);

impl Mode for FourLevels {
    #[inline(always)]
    fn arch(self) -> &'static Architecture {
        &x86::X64
    }
}

impl Mode for FiveLevels {
    #[inline(always)]
    fn arch(self) -> &'static Architecture {
        &x86::X64_LA57
    }
}

impl Mode for Other {
    #[inline(always)]
    fn arch(self) -> &'static Architecture {
        self.0
    }
}

#[inline(never)]
fn translate_as<M: Mode>(mode: M, root: PhysAddr, map: &DirectMap, addr: u64) -> Result<Translation, Halt> {
    let arch = mode.arch();
    if !arch.is_canonical(addr) {
        return Err(Halt::not_canonical(root));
    }
    let result = walk(arch, &map.unconfirmed(), 0, Node::root(root), addr, |_, _| {});
    if map.lost_nothing() { result } else { walk_confirmed(arch, root, map, addr) }
}

#[inline(never)]
fn translate_each_as<M: Mode>(
    mode: M,
    root: PhysAddr,
    map: &DirectMap,
    ops: &mut [TranslateOp],
    mut halted: impl FnMut(usize, u64, Halt),
) {
    let arch = mode.arch();
    let tables = map.unconfirmed();
    let mut cursor = Cursor::new(root);
    for (index, op) in ops.iter_mut().enumerate() {
        let addr = op.addr.as_u64();
        let result =
            if arch.is_canonical(addr) { cursor.walk(arch, &tables, addr) } else { Err(Halt::not_canonical(root)) };
        op.outcome = Some(match result {
            Ok(found) => Ok(found),
            Err(halt) => {
                halted(index, addr, halt);
                Err(halt.reason())
            }
        });
    }
}

#[inline(never)]
fn walk_ranges_as<M: Mode>(
    mode: M,
    root: PhysAddr,
    map: &DirectMap,
    ranges: &[(usize, u64, u64)],
    mut each: impl FnMut(Walked),
) {
    let arch = mode.arch();
    let tables = map.unconfirmed();
    let mut cursor = Cursor::new(root);
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
                (part, Err(Halt::not_canonical(root)))
            };
            each(Walked { op: *op, first: at, last: end, result });
            match end.checked_add(1) {
                Some(next) if end < *last => at = next,
                _ => break,
            }
        }
    }
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

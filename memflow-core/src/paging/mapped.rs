//! Walks of tables that lie in this process.
//!
//! Owns: the cursor that remembers the tables of the last walk, and the ready-made walkers of the common modes.
//! Must not know: batches, buffers, the operating system.
//! Keeps: a cursor lives no longer than one batch, like a TLB that is flushed between batches; page entries are always loaded.

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
    memory::{DirectMap, LoadError},
};

impl TableSource for &DirectMap {
    #[inline(always)]
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

/// The tables of the last walk: the next one starts at the deepest that serves it too.
#[derive(Clone, Debug)]
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
    #[inline]
    fn deepest(&self, arch: &Architecture, addr: u64) -> (usize, Node) {
        let [root, ..] = self.nodes;
        let differ = self.last ^ addr;
        let tables = self.nodes.iter().zip(arch.levels).take(self.valid).enumerate().skip(1);
        let mut deepest = (0, root);
        let mut above = arch.levels.first();
        for (depth, (node, level)) in tables {
            // The entry of the level above covers both addresses when they differ in its offset bits only.
            if above.is_none_or(|above| differ & !above.offset_mask() != 0) {
                break;
            }
            deepest = (depth, *node);
            above = Some(level);
        }
        deepest
    }

    #[inline(always)]
    fn walk(&mut self, arch: &Architecture, map: &DirectMap, addr: u64) -> Result<Translation, Halt> {
        let (depth, node) = self.deepest(arch, addr);
        let (nodes, valid) = (&mut self.nodes, &mut self.valid);
        *valid = depth.wrapping_add(1);
        self.last = addr;
        walk(arch, &map, depth, node, addr, |depth, node| {
            if let Some(place) = nodes.get_mut(depth) {
                *place = node;
                *valid = depth.wrapping_add(1);
            }
        })
    }
}

/// Runs `$body` with `$mode` as a known constant for the common modes, so that the compiler folds masks and unrolls levels.
macro_rules! specialised {
    ($arch:expr, $mode:ident => $body:expr) => {{
        let arch: &'static Architecture = $arch;
        if ptr::eq(arch, &x86::X64) {
            let $mode: &'static Architecture = &x86::X64;
            $body
        } else if ptr::eq(arch, &x86::X64_LA57) {
            let $mode: &'static Architecture = &x86::X64_LA57;
            $body
        } else {
            let $mode = arch;
            $body
        }
    }};
}

/// Translates one canonical address from the root.
#[inline]
pub(super) fn translate(
    arch: &'static Architecture,
    root: PhysAddr,
    map: &DirectMap,
    addr: u64,
) -> Result<Translation, Halt> {
    specialised!(arch, mode => walk(mode, &map, 0, Node::root(root), addr, |_, _| {}))
}

/// Translates every address in order, and calls `halted` for those that lead nowhere.
pub(super) fn translate_each(
    arch: &'static Architecture,
    root: PhysAddr,
    map: &DirectMap,
    ops: &mut [TranslateOp],
    mut halted: impl FnMut(usize, u64, Halt),
) {
    let mut cursor = Cursor::new(root);
    specialised!(arch, mode => for (index, op) in ops.iter_mut().enumerate() {
        let addr = op.addr.as_u64();
        let result = if mode.is_canonical(addr) { cursor.walk(mode, map, addr) } else { Err(Halt::not_canonical(root)) };
        op.outcome = Some(result.map_err(|halt| {
            halted(index, addr, halt);
            halt.reason()
        }));
    });
}

/// Walks ranges `(op, first, last)` in order, one [`Walked`] per page or per entry that leads nowhere.
pub(super) fn walk_ranges(
    arch: &'static Architecture,
    root: PhysAddr,
    map: &DirectMap,
    ranges: &[(usize, u64, u64)],
    mut each: impl FnMut(Walked),
) {
    let mut cursor = Cursor::new(root);
    specialised!(arch, mode => for (op, first, last) in ranges {
        let mut at = *first;
        loop {
            let (part, canonical) = mode.canonical_part(at, *last);
            let (end, result) = if canonical {
                let result = cursor.walk(mode, map, at);
                let covered = match &result {
                    Ok(found) => found.page.offset_mask(),
                    Err(halt) => halt.covered_mask(mode),
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
    });
}

//! The walk from a table down to a page, the same for every architecture and every way to read an entry.
//!
//! Owns: the loop, and [`Walked`], what becomes of consecutive addresses under one entry.
//! Must not know: bits of an entry (`entry`), batches, the operating system.
//! Keeps: at most one load per level, so tables that point to themselves end like any other.

use super::{
    Translation,
    arch::{Architecture, EntrySize},
    entry::{Halt, Next, Node},
    tlb::Tlb,
};
use crate::{
    address::{PhysAddr, PhysRange},
    error::{Reason, StopCause},
    memory::{Outcome, PhysRead, PhysicalMemory},
};

/// How an entry is read.
pub(super) trait TableSource {
    /// Reads the entry at `at`.
    fn load(&self, at: PhysAddr, size: EntrySize) -> Result<u64, StopCause>;
}

/// Addresses under one entry, and where they lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Walked<E = Halt> {
    /// The operation they belong to.
    pub(crate) op: usize,
    /// The first address.
    pub(crate) first: u64,
    /// The last address.
    pub(crate) last: u64,
    /// Where the first leads; the others follow it.
    pub(crate) result: Result<Translation, E>,
}

impl Walked {
    /// The same with another word for what went wrong.
    #[inline]
    pub(super) fn map_err<E>(self, word: impl FnOnce(Halt) -> E) -> Walked<E> {
        let Self { op, first, last, result } = self;
        Walked { op, first, last, result: result.map_err(word) }
    }
}

/// Walks from `node`, a table `depth` levels below the root, to the page that holds `addr`. Calls `enter` for each table below it.
///
/// `addr` is canonical. Written out for each level, so that the shifts and masks of a known architecture are constants: as a loop
/// the compiler leaves it a loop, and fetches them one by one.
#[inline(always)]
pub(super) fn walk<S: TableSource>(
    arch: &Architecture,
    source: &S,
    depth: usize,
    mut node: Node,
    addr: u64,
    mut enter: impl FnMut(usize, Node),
) -> Result<Translation, Halt> {
    macro_rules! step {
        ($($depth:literal)*) => {$(
            if depth <= $depth {
                let Some(level) = arch.levels.get($depth) else { return Err(node.halt(0, 0, StopCause::ReservedBit)) };
                let number = arch.level_number($depth);
                let entry = match source.load(node.entry_address(arch, level, addr), arch.entry_size) {
                    Ok(entry) => entry,
                    Err(cause) => return Err(node.halt(number, 0, cause)),
                };
                match node.decode(arch, level, number, entry, addr)? {
                    Next::Page(found) => return Ok(found),
                    Next::Table(next) => {
                        node = next;
                        enter($depth + 1, node);
                    }
                }
            }
        )*};
    }
    step!(0 1 2 3 4 5 6 7);
    // Only an architecture whose lowest level leads to tables comes here, or to the return in a step.
    Err(node.halt(0, 0, StopCause::ReservedBit))
}

/// Tables that have to be asked for, entry by entry.
pub(super) struct Called<'a> {
    pub(super) memory: &'a dyn PhysicalMemory,
    pub(super) tlb: &'a Tlb<'a>,
}

impl TableSource for Called<'_> {
    fn load(&self, at: PhysAddr, size: EntrySize) -> Result<u64, StopCause> {
        self.tlb.will_read(PhysRange::new(at, size.bytes()).into_iter());
        match size {
            EntrySize::Eight => self.load_bytes::<8>(at).map(u64::from_le_bytes),
            EntrySize::Four => self.load_bytes::<4>(at).map(|bytes| u32::from_le_bytes(bytes).into()),
        }
    }
}

impl Called<'_> {
    fn load_bytes<const N: usize>(&self, at: PhysAddr) -> Result<[u8; N], StopCause> {
        let mut bytes = [0; N];
        let mut ops = [PhysRead::new(at, &mut bytes)];
        // What failed is in the outcome.
        let _ = self.memory.read_batch(&mut ops);
        let [op] = ops;
        match stop_cause(op.outcome) {
            None => Ok(bytes),
            Some(cause) => Err(cause),
        }
    }
}

/// Why a walk stops when a table was read with this outcome; `None` when it does not.
pub(super) fn stop_cause(outcome: Outcome) -> Option<StopCause> {
    match outcome {
        Outcome::Done => None,
        Outcome::Failed { reason: Reason::NotInImage { .. }, .. } => Some(StopCause::TableNotInImage),
        Outcome::Failed { .. } | Outcome::NotAttempted => Some(StopCause::TableUnreadable),
    }
}

//! Many reads where tables and bytes lie in this process, and each read lies in one page.
//!
//! Owns: the pipeline of translations, fetches and copies. Must not know: page-table formats, why a read is not that simple.
//! Keeps: allocates nothing; a read that is not that simple (more than one page, an address that leads nowhere, a file that was cut
//! short) is handed back, for the way that knows everything.

use crate::{
    address::PhysAddr,
    error::Reason,
    memory::{DirectMap, Outcome, ViewRead},
    paging::{AddressSpace, Asked, Translation},
};

/// Reads under way at a time, in small batches and in large ones.
const FEW: usize = 32;
const MANY: usize = 256;

/// Where a read goes.
#[derive(Clone, Copy)]
struct Spot {
    virt: u64,
    phys: PhysAddr,
    /// Bytes from there to the end of the page; zero where there is no page.
    rest: u64,
}

impl Spot {
    fn new(virt: u64) -> Self {
        Self { virt, phys: PhysAddr::new(0), rest: 0 }
    }
}

impl Asked for Spot {
    #[inline(always)]
    fn addr(&self) -> u64 {
        self.virt
    }

    #[inline(always)]
    fn answer(&mut self, found: Translation) {
        self.phys = found.phys;
        self.rest = found.page.bytes().wrapping_sub(self.virt & found.page.offset_mask());
    }

    #[inline]
    fn refuse(&mut self, _reason: Reason) {}
}

/// Carries out the reads that lie in one page each, and calls `others` for the rest. True when there were no others.
pub(super) fn read<'a>(
    space: &AddressSpace,
    map: &DirectMap,
    ops: &mut [ViewRead<'a>],
    mut others: impl FnMut(usize, &mut ViewRead<'a>),
) -> bool {
    if ops.len() < MANY {
        read_blocks::<FEW>(space, map, ops, &mut others)
    } else {
        read_blocks::<MANY>(space, map, ops, &mut others)
    }
}

fn read_blocks<'a, const COUNT: usize>(
    space: &AddressSpace,
    map: &DirectMap,
    ops: &mut [ViewRead<'a>],
    others: &mut dyn FnMut(usize, &mut ViewRead<'a>),
) -> bool {
    let mut complete = true;
    let mut spots = [Spot::new(0); COUNT];
    for (number, block) in ops.chunks_mut(COUNT).enumerate() {
        let (spots, _) = spots.split_at_mut(block.len());
        for (op, spot) in block.iter().zip(&mut *spots) {
            *spot = Spot::new(op.addr.as_u64());
        }
        space.translate_pages(map, spots);
        for spot in &*spots {
            map.prefetch(spot.phys);
        }
        let mut simple = true;
        for (op, spot) in block.iter_mut().zip(&*spots) {
            let done = !op.buf.is_empty() && op.buf.len() as u64 <= spot.rest && map.copy_at_hand(spot.phys, op.buf);
            op.outcome = if done { Outcome::Done } else { Outcome::NotAttempted };
            simple &= done;
        }
        let believed = map.lost_nothing();
        if simple && believed {
            continue;
        }
        complete = false;
        for (index, op) in block.iter_mut().enumerate() {
            if !believed || !op.outcome.is_done() {
                others(number * COUNT + index, op);
            }
        }
    }
    complete
}

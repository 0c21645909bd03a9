//! Many reads where tables and bytes lie in this process, and each read lies in one page.
//!
//! Owns: the pipeline of translations, fetches and copies. Must not know: page-table formats, why a read is not that simple.
//! Keeps: allocates nothing; a read that is not that simple (more than one page, an address that leads nowhere, a file that was cut
//! short) is handed back, for the way that knows everything.

use crate::{
    address::{PageSize, PhysAddr, VirtAddr},
    error::Reason,
    memory::{DirectMap, Outcome, Values, ViewRead},
    paging::{AddressSpace, Asked, MaybePhys, Translation},
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

/// Reads a value at each address, as many as both slices have, and returns the numbers of those that are not that simple.
pub(super) fn read_values<const SIZE: usize>(
    space: &AddressSpace,
    map: &DirectMap,
    addresses: &[VirtAddr],
    values: &mut [[u8; SIZE]],
) -> Vec<usize> {
    let mut others = Vec::new();
    match map.values_at_hand() {
        None => others.extend(0..addresses.len()),
        Some(at_hand) if addresses.len() < MANY => {
            read_value_blocks::<SIZE, FEW>(space, map, at_hand, addresses, values, &mut others)
        }
        Some(at_hand) => read_value_blocks::<SIZE, MANY>(space, map, at_hand, addresses, values, &mut others),
    }
    others
}

fn read_value_blocks<const SIZE: usize, const COUNT: usize>(
    space: &AddressSpace,
    map: &DirectMap,
    at_hand: Values<'_, SIZE>,
    addresses: &[VirtAddr],
    values: &mut [[u8; SIZE]],
    others: &mut Vec<usize>,
) {
    let mut found = [MaybePhys::NONE; COUNT];
    for (number, (addresses, values)) in addresses.chunks(COUNT).zip(values.chunks_mut(COUNT)).enumerate() {
        let (found, _) = found.split_at_mut(addresses.len());
        space.translate_pages_to(map, addresses, found);
        let mut simple = true;
        for ((addr, found), value) in addresses.iter().zip(&*found).zip(&mut *values) {
            simple &= read_value(&at_hand, *addr, *found, value);
        }
        let believed = at_hand.lost_nothing();
        if simple && believed {
            continue;
        }
        for (index, ((addr, found), value)) in addresses.iter().zip(&*found).zip(values).enumerate() {
            if !believed || !read_value(&at_hand, *addr, *found, value) {
                others.push(number * COUNT + index);
            }
        }
    }
}

/// Reads one value, if it lies in one page, as small as pages are; nothing has to be fetched ahead: one read does not wait for another.
#[inline(always)]
fn read_value<const SIZE: usize>(
    at_hand: &Values<'_, SIZE>,
    addr: VirtAddr,
    found: MaybePhys,
    value: &mut [u8; SIZE],
) -> bool {
    let fits = const { PageSize::KIB_4.bytes().saturating_sub(SIZE as u64) };
    match found.get() {
        Some(phys) if addr.page_offset(PageSize::KIB_4) <= fits => at_hand.copy(phys, value),
        _ => false,
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

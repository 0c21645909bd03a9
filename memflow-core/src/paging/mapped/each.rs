//! Many walks in place, in whatever order of addresses.
//!
//! Owns: the choice between walks that follow each other and walks side by side. Must not know: what is done with an answer.
//! Keeps: allocates nothing; one load per level that is walked; whatever is not plain is handed back.

use super::{
    batch::{Asked, Batch},
    directories::{Directories, FromRoot, HASH, Lane, Leaves, Upper},
    plan::{Found, Mode},
    single::{self, AtHand},
};
use crate::{address::PhysAddr, error::Reason, memory::TablePages, paging::Translation};

/// Walks side by side: more than a processor can wait for at a time, so that it always waits for as many as it can.
pub(super) const TOGETHER: usize = 32;

/// Addresses for which the way to walk them is chosen anew.
const BLOCK: usize = 1024;

/// From so many addresses on, directories are remembered.
const MANY: usize = 192;

/// How many directories: those of so many GiB that lie here and there.
const DIRECTORIES: usize = 128;

/// Groups that do without remembered directories, after one in which most were not known.
const FAR_APART: usize = 16;

/// What becomes of the address with this number when it is not plain.
pub(super) type Rest<'r> = dyn FnMut(usize, u64) -> Result<Translation, Reason> + 'r;

/// Translates all of `asked`, those whose entries are not plain by `rest`.
#[inline(never)]
pub(super) fn translate<M: Mode, B: Batch>(tables: TablePages<'_>, root: PhysAddr, asked: B, rest: &mut Rest<'_>) {
    let from_root = FromRoot { tables, root };
    if asked.count() < MANY {
        if is_local::<M, B>(&asked) {
            return one_after_the_other::<M, B, _>(from_root, &mut { from_root }, asked, rest);
        }
        let Err(asked) = in_lanes::<M, B>(from_root, asked, rest) else { return };
        if few_directories::<M, B>(&asked) {
            return each_from_the_root::<M, B>(from_root, asked, rest);
        }
        return side_by_side::<M, B, _>(from_root, &mut { from_root }, asked, rest);
    }
    let mut upper = Directories::<M, DIRECTORIES>::new(from_root);
    let mut first = 0usize;
    for block in asked.parts(BLOCK) {
        translate_block::<M, B, _>(from_root, &mut upper, block, &mut |index, addr| {
            rest(first.wrapping_add(index), addr)
        });
        first = first.wrapping_add(BLOCK);
    }
}

/// Translates addresses in the way that suits them.
#[inline(always)]
fn translate_block<'a, M: Mode, B: Batch, U: Upper<'a, M>>(
    from_root: FromRoot<'a>,
    upper: &mut U,
    asked: B,
    rest: &mut Rest<'_>,
) {
    if is_local::<M, B>(&asked) {
        return one_after_the_other(from_root, upper, asked, rest);
    }
    let asked = if few_directories::<M, B>(&asked) { in_lanes::<M, B>(from_root, asked, rest) } else { Err(asked) };
    if let Err(asked) = asked {
        side_by_side(from_root, upper, asked, rest);
    }
}

/// Walks of which each instruction takes several on; gives back what is to be done when the processor has none such.
#[inline(always)]
fn in_lanes<M: Mode, B: Batch>(from_root: FromRoot<'_>, asked: B, rest: &mut Rest<'_>) -> Result<(), B> {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if M::HAS_LANES
        && let Some(proof) = crate::memory::HasLanes::detect()
    {
        return asked.in_lanes::<M>(proof, from_root, rest);
    }
    let _ = (from_root, rest);
    Err(asked)
}

/// Gives one address its answer.
#[inline(always)]
fn answer(mut asked: impl Asked, found: Found, index: usize, rest: &mut Rest<'_>) {
    match found.get() {
        Some(found) => asked.answer(found),
        None => asked.take(rest(index, asked.addr())),
    }
}

/// Whether most addresses lie beside the one before. A few places tell.
#[inline(always)]
fn is_local<M: Mode, B: Batch>(asked: &B) -> bool {
    const FEWEST: usize = 8;
    let count = asked.count();
    if count < FEWEST {
        return true;
    }
    // Places that are looked at, how far they are from each other, and how many of them make most.
    let (places, step, most) = if count < 64 { (4, count / 4, 4) } else { (8, count / 8, 7) };
    let mut near = 0usize;
    let mut end = step;
    for _ in 0..places {
        let (one, other) = (asked.addr_at(end.wrapping_sub(2)), asked.addr_at(end.wrapping_sub(1)));
        near = near.wrapping_add(usize::from((one ^ other) >> M::TABLE_SHIFT == 0));
        end = end.wrapping_add(step);
    }
    near >= most
}

/// Whether the addresses lie in so few directories that their tables, most likely, are in the caches. A few places tell.
#[inline(always)]
fn few_directories<M: Mode, B: Batch>(asked: &B) -> bool {
    const PLACES: usize = 16;
    let count = asked.count();
    // One bit for each directory; two that share one are counted once.
    let mut met = 0u64;
    for index in (0..count).step_by((count / PLACES).max(1)).take(PLACES) {
        let key = asked.addr_at(index).wrapping_shr(M::DIRECTORY_SHIFT);
        met |= 1u64.wrapping_shl(u32::try_from(key.wrapping_mul(HASH) >> 58).unwrap_or(0));
    }
    met.count_ones() <= 7
}

/// Walks that each start at the root: the least work while nothing has to be waited for.
#[inline(always)]
fn each_from_the_root<M: Mode, B: Batch>(from_root: FromRoot<'_>, asked: B, rest: &mut Rest<'_>) {
    for (index, asked) in asked.items().enumerate() {
        let found = single::translate::<M, AtHand>(from_root.tables, from_root.root, asked.addr());
        answer(asked, found, index, rest);
    }
}

/// Walks that start at the table of the one before, where it serves.
#[inline(always)]
fn one_after_the_other<'a, M: Mode, B: Batch, U: Upper<'a, M>>(
    from_root: FromRoot<'a>,
    upper: &mut U,
    asked: B,
    rest: &mut Rest<'_>,
) {
    // No address has that key.
    let mut key = u64::MAX;
    let mut leaves = Leaves::nowhere();
    for (index, asked) in asked.items().enumerate() {
        let addr = asked.addr();
        if addr.wrapping_shr(M::TABLE_SHIFT) != key {
            leaves = upper.directory(addr).leaves::<M>(from_root.tables, addr);
            key = addr.wrapping_shr(M::TABLE_SHIFT);
        }
        answer(asked, leaves.translate::<M>(addr), index, rest);
    }
}

/// Walks of which many wait for memory at the same time: first all go to the entries of their pages, which the processor starts to
/// fetch, then all take their answers.
#[inline(always)]
fn side_by_side<'a, M: Mode, B: Batch, U: Upper<'a, M>>(
    from_root: FromRoot<'a>,
    upper: &mut U,
    asked: B,
    rest: &mut Rest<'_>,
) {
    // Those of one group wait for their pages' entries while the next group goes to its own.
    let [lanes, waiting] = &mut [[Lane::nowhere(); TOGETHER]; 2];
    let (mut lanes, mut waiting) = (lanes, waiting);
    let mut before: Option<B> = None;
    let mut first = 0usize;
    // Groups to come for which remembered directories are of no use: there are too many.
    let mut far_apart = if U::REMEMBERS { 0 } else { usize::MAX };
    for group in asked.parts(TOGETHER) {
        if far_apart == 0 {
            let walks = upper.walks();
            for (addr, lane) in group.addresses().zip(&mut *lanes) {
                *lane = upper.directory(addr).lane::<M>(addr).to_page::<M>(from_root.tables, addr);
                lane.prefetch();
            }
            let walked = upper.walks().wrapping_sub(walks);
            far_apart = if walked > TOGETHER / 4 { FAR_APART } else { 0 };
        } else {
            // So many directories are worth fetching ahead, too.
            far_apart = far_apart.saturating_sub(1);
            for (addr, lane) in group.addresses().zip(&mut *lanes) {
                *lane = from_root.directory::<M>(addr).lane::<M>(addr);
                lane.prefetch();
            }
            for (addr, lane) in group.addresses().zip(&mut *lanes) {
                *lane = lane.to_page::<M>(from_root.tables, addr);
                lane.prefetch();
            }
        }
        if let Some(group) = before.replace(group) {
            answer_group::<M, B>(group, waiting, first, rest);
            first = first.wrapping_add(TOGETHER);
        }
        std::mem::swap(&mut lanes, &mut waiting);
    }
    if let Some(group) = before {
        answer_group::<M, B>(group, waiting, first, rest);
    }
}

/// Takes the answers of walks that have come to the entries of their pages.
#[inline(always)]
fn answer_group<M: Mode, B: Batch>(
    group: B,
    lanes: &[Lane<'_, M::Entry>; TOGETHER],
    first: usize,
    rest: &mut Rest<'_>,
) {
    for ((index, asked), lane) in group.items().enumerate().zip(lanes) {
        let found = lane.translate::<M>(asked.addr());
        answer(asked, found, first.wrapping_add(index), rest);
    }
}

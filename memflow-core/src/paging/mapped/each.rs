//! Many walks in place, in whatever order of addresses.
//!
//! Owns: the choice between walks that follow each other and walks side by side. Must not know: what is done with an answer.
//! Keeps: allocates nothing; one load per level that is walked; whatever is not plain is handed back.

use super::{
    directories::{Directories, FromRoot, HASH, Lane, Leaves, Upper},
    plan::Mode,
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

/// An address that is to be translated.
pub(crate) trait Asked {
    /// The address.
    fn addr(&self) -> u64;

    /// Takes the answer.
    fn answer(&mut self, found: Translation);
}

/// An address that is told, too, why it leads nowhere.
pub(crate) trait Refusable: Asked {
    /// Takes it that there is no translation.
    fn refuse(&mut self, reason: Reason);
}

/// Translates all of `asked` whose entries are plain, and calls `rest` for the others.
#[inline(never)]
pub(super) fn translate<M: Mode, A: Asked>(
    tables: TablePages<'_>,
    root: PhysAddr,
    asked: &mut [A],
    rest: &mut dyn FnMut(usize, &mut A),
) {
    let from_root = FromRoot { tables, root };
    if asked.len() < MANY {
        if is_local::<M, A>(asked) {
            return one_after_the_other::<M, A, _>(from_root, &mut { from_root }, asked, rest);
        }
        if in_lanes::<M, A>(from_root, asked, rest) {
            return;
        }
        if few_directories::<M, A>(asked) {
            return each_from_the_root::<M, A>(from_root, asked, rest);
        }
        return side_by_side::<M, A, _>(from_root, &mut { from_root }, asked, rest);
    }
    let mut upper = Directories::<M, DIRECTORIES>::new(from_root);
    let mut first = 0usize;
    for block in asked.chunks_mut(BLOCK) {
        translate_block::<M, A, _>(from_root, &mut upper, block, &mut |index, asked| {
            rest(first.wrapping_add(index), asked)
        });
        first = first.wrapping_add(BLOCK);
    }
}

/// Translates addresses in the way that suits them.
#[inline(always)]
fn translate_block<'a, M: Mode, A: Asked, U: Upper<'a, M>>(
    from_root: FromRoot<'a>,
    upper: &mut U,
    asked: &mut [A],
    rest: &mut dyn FnMut(usize, &mut A),
) {
    if is_local::<M, A>(asked) {
        one_after_the_other(from_root, upper, asked, rest);
    } else if !few_directories::<M, A>(asked) || !in_lanes::<M, A>(from_root, asked, rest) {
        side_by_side(from_root, upper, asked, rest);
    }
}

/// Walks of which each instruction takes several on; false when the processor has none such.
#[inline(always)]
fn in_lanes<M: Mode, A: Asked>(from_root: FromRoot<'_>, asked: &mut [A], rest: &mut dyn FnMut(usize, &mut A)) -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if M::HAS_LANES
        && let Some(proof) = crate::memory::HasLanes::detect()
    {
        return super::lanes::translate::<M, A>(proof, from_root.tables, from_root.root, asked, rest);
    }
    let _ = (from_root, asked, rest);
    false
}

/// Whether most addresses lie beside the one before. A few places tell.
#[inline(always)]
fn is_local<M: Mode, A: Asked>(asked: &[A]) -> bool {
    const PLACES: usize = 8;
    if asked.len() < PLACES {
        return true;
    }
    let mut near = 0usize;
    for place in asked.chunks_exact(asked.len() / PLACES).take(PLACES) {
        if let [.., one, other] = place {
            near = near.wrapping_add(usize::from((one.addr() ^ other.addr()) >> M::TABLE_SHIFT == 0));
        }
    }
    near > PLACES * 3 / 4
}

/// Whether the addresses lie in so few directories that their tables, most likely, are in the caches. A few places tell.
#[inline(always)]
fn few_directories<M: Mode, A: Asked>(asked: &[A]) -> bool {
    const PLACES: usize = 16;
    // One bit for each directory; two that share one are counted once.
    let mut met = 0u64;
    for asked in asked.iter().step_by((asked.len() / PLACES).max(1)).take(PLACES) {
        let key = asked.addr().wrapping_shr(M::DIRECTORY_SHIFT);
        met |= 1u64.wrapping_shl(u32::try_from(key.wrapping_mul(HASH) >> 58).unwrap_or(0));
    }
    met.count_ones() <= 7
}

/// Walks that each start at the root: the least work while nothing has to be waited for.
#[inline(always)]
fn each_from_the_root<M: Mode, A: Asked>(
    from_root: FromRoot<'_>,
    asked: &mut [A],
    rest: &mut dyn FnMut(usize, &mut A),
) {
    for (index, asked) in asked.iter_mut().enumerate() {
        match single::translate::<M, AtHand>(from_root.tables, from_root.root, asked.addr()).get() {
            Some(found) => asked.answer(found),
            None => rest(index, asked),
        }
    }
}

/// Walks that start at the table of the one before, where it serves.
#[inline(always)]
fn one_after_the_other<'a, M: Mode, A: Asked, U: Upper<'a, M>>(
    from_root: FromRoot<'a>,
    upper: &mut U,
    asked: &mut [A],
    rest: &mut dyn FnMut(usize, &mut A),
) {
    // No address has that key.
    let mut key = u64::MAX;
    let mut leaves = Leaves::nowhere();
    for (index, asked) in asked.iter_mut().enumerate() {
        let addr = asked.addr();
        if addr.wrapping_shr(M::TABLE_SHIFT) != key {
            leaves = upper.directory(addr).leaves::<M>(from_root.tables, addr);
            key = addr.wrapping_shr(M::TABLE_SHIFT);
        }
        match leaves.translate::<M>(addr).get() {
            Some(found) => asked.answer(found),
            None => rest(index, asked),
        }
    }
}

/// Walks of which many wait for memory at the same time: first all go to the entries of their pages, which the processor starts to
/// fetch, then all take their answers.
#[inline(always)]
fn side_by_side<'a, M: Mode, A: Asked, U: Upper<'a, M>>(
    from_root: FromRoot<'a>,
    upper: &mut U,
    asked: &mut [A],
    rest: &mut dyn FnMut(usize, &mut A),
) {
    let mut lanes = [Lane::nowhere(); TOGETHER];
    let mut first = 0usize;
    // Groups to come for which remembered directories are of no use: there are too many.
    let mut far_apart = if U::REMEMBERS { 0 } else { usize::MAX };
    for group in asked.chunks_mut(TOGETHER) {
        if far_apart == 0 {
            let walks = upper.walks();
            for (asked, lane) in group.iter().zip(&mut lanes) {
                let addr = asked.addr();
                *lane = upper.directory(addr).lane::<M>(addr).to_page::<M>(from_root.tables, addr);
                lane.prefetch();
            }
            let walked = upper.walks().wrapping_sub(walks);
            far_apart = if walked > TOGETHER / 4 { FAR_APART } else { 0 };
        } else {
            // So many directories are worth fetching ahead, too.
            far_apart = far_apart.saturating_sub(1);
            for (asked, lane) in group.iter().zip(&mut lanes) {
                *lane = from_root.directory::<M>(asked.addr()).lane::<M>(asked.addr());
                lane.prefetch();
            }
            for (asked, lane) in group.iter().zip(&mut lanes) {
                *lane = lane.to_page::<M>(from_root.tables, asked.addr());
                lane.prefetch();
            }
        }
        for ((index, asked), lane) in group.iter_mut().enumerate().zip(&lanes) {
            match lane.translate::<M>(asked.addr()).get() {
                Some(found) => asked.answer(found),
                None => rest(first.wrapping_add(index), asked),
            }
        }
        first = first.wrapping_add(TOGETHER);
    }
}

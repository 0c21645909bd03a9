//! One walk from the root, in place.
//!
//! Owns: the walk of a mode whose data are constants. Must not know: batches.
//! Keeps: one load per level and one comparison per table; whatever is not plain (an entry that is refused, a table outside of the
//! direct map) has no answer here, and is left to `walk`.

use super::plan::{ADDRESS, Found, Mode, PAGE, PRESENT, Rights};
use crate::{
    address::{PageSize, PhysAddr},
    error::{Stop, StopCause},
    memory::{Bias, TablePage, TablePages},
    paging::{MaybePhys, entry::Halt},
};

/// Tables that are looked for, from the quickest to find to the rest.
pub(super) trait Reach {
    /// The table that `bits` lead to.
    fn table<'a>(tables: TablePages<'a>, bits: u64, bias: Bias) -> Option<TablePage<'a>>;

    /// The page at this address, which starts one.
    fn page<'a>(tables: TablePages<'a>, address: u64) -> Option<TablePage<'a>>;
}

/// Tables in the part of the memory that is at hand. A walk through them alone calls nothing.
pub(super) struct AtHand;

/// Tables anywhere.
pub(super) struct Anywhere;

impl Reach for AtHand {
    #[inline(always)]
    fn table<'a>(tables: TablePages<'a>, bits: u64, bias: Bias) -> Option<TablePage<'a>> {
        tables.table(bits, bias)
    }

    #[inline(always)]
    fn page<'a>(tables: TablePages<'a>, address: u64) -> Option<TablePage<'a>> {
        tables.page_at(address)
    }
}

impl Reach for Anywhere {
    #[inline(always)]
    fn table<'a>(tables: TablePages<'a>, bits: u64, bias: Bias) -> Option<TablePage<'a>> {
        tables.table(bits, bias).or_else(|| tables.table_further(bits, bias))
    }

    #[inline(always)]
    fn page<'a>(tables: TablePages<'a>, address: u64) -> Option<TablePage<'a>> {
        tables.page_anywhere(address)
    }
}

/// Translates one address, if every entry on its way is plain.
#[inline(always)]
pub(super) fn translate<M: Mode, R: Reach>(tables: TablePages<'_>, root: PhysAddr, addr: u64) -> Found {
    let start = root.page_base(PageSize::KIB_4).as_u64();
    if const { M::HAS_LANES } {
        return match R::page(tables, start) {
            Some(page) => translate_from::<M, R>(tables, page, addr),
            None => Found::NOTHING,
        };
    }
    if !M::ARCH.is_canonical(addr) {
        return Found::NOTHING;
    }
    let mut from = root.as_u64() & M::ROOT_IN_PAGE;
    let Some(mut page) = R::table(tables, start, tables.bias(0)) else {
        return Found::NOTHING;
    };
    let mut rights = Rights::ALL;
    // Written out for each level, as in `walk`: the shifts and masks become constants.
    macro_rules! step {
        ($($depth:literal)*) => {$(
            if $depth < M::ABOVE_LOWEST {
                let step = const { &M::STEPS[$depth] };
                let entry = page.load::<M::Entry>(from.wrapping_add(step.offset(addr)));
                page = match R::table(tables, entry & step.table, tables.bias(step.expect)) {
                    Some(page) => page,
                    None => return step.page.translate::<M>(entry, rights, addr),
                };
                from = 0;
                rights = rights.below(entry, step);
            }
        )*};
    }
    step!(0 1 2 3);
    let entry = page.load::<M::Entry>(from.wrapping_add(M::LOWEST.offset(addr)));
    M::BASE_PAGE.translate::<M>(entry, rights, addr)
}

/// The same from the root table on, for modes whose entries have hardly a reserved bit: what is not present is seen at the end, among the
/// rights, as a table that an entry leads to by mistake is a page at hand like any other.
#[inline(always)]
pub(super) fn translate_from<'a, M: Mode, R: Reach>(tables: TablePages<'a>, root: TablePage<'a>, addr: u64) -> Found {
    if !M::ARCH.is_canonical(addr) {
        return Found::NOTHING;
    }
    let mut page = root;
    let mut rights = Rights::ALL;
    macro_rules! step {
        ($($depth:literal)*) => {$(
            if $depth < M::ABOVE_LOWEST {
                let step = const { &M::STEPS[$depth] };
                let entry = page.load::<M::Entry>(step.offset(addr));
                if entry & PAGE != 0 {
                    if step.page_bit == 0 {
                        return Found::NOTHING;
                    }
                    return step.page.translate_below::<M>(entry, rights, addr);
                }
                page = match R::page(tables, entry & ADDRESS) {
                    Some(page) => page,
                    None => return Found::NOTHING,
                };
                rights = rights.below(entry, step);
            }
        )*};
    }
    step!(0 1 2 3);
    let entry = page.load::<M::Entry>(M::LOWEST.offset(addr));
    M::BASE_PAGE.translate_below::<M>(entry, rights, addr)
}

/// As [`translate_from`], for the physical address alone.
#[inline(always)]
pub(super) fn phys_from<M: Mode>(tables: TablePages<'_>, root: TablePage<'_>, addr: u64) -> MaybePhys {
    if !M::ARCH.is_canonical(addr) {
        return MaybePhys::NONE;
    }
    let mut page = root;
    // The lowest bit stays as long as every entry is present.
    let mut every = PRESENT;
    macro_rules! step {
        ($($depth:literal)*) => {$(
            if $depth < M::ABOVE_LOWEST {
                let step = const { &M::STEPS[$depth] };
                let entry = page.load::<M::Entry>(step.offset(addr));
                if entry & PAGE != 0 {
                    if step.page_bit == 0 {
                        return MaybePhys::NONE;
                    }
                    return step.page.phys(entry, entry & every, addr);
                }
                page = match tables.page_at(entry & ADDRESS) {
                    Some(page) => page,
                    None => return MaybePhys::NONE,
                };
                every &= entry;
            }
        )*};
    }
    step!(0 1 2 3);
    let entry = page.load::<M::Entry>(M::LOWEST.offset(addr));
    M::BASE_PAGE.phys(entry, entry & every, addr)
}

/// Where the walk of an address stops for a reason that is plain itself: the mode does not translate it, or an entry is not present, and
/// all tables up to there are at hand. Only for modes whose bits of presence and of pages [`translate_from`] knows.
#[inline(never)]
pub(super) fn stop<M: Mode>(tables: TablePages<'_>, root: PhysAddr, addr: u64) -> Option<Halt> {
    if const { !M::HAS_LANES } {
        return None;
    }
    if !M::ARCH.is_canonical(addr) {
        return Some(Halt::not_canonical(root));
    }
    let mut table = root.as_u64();
    let mut rights = Rights::ALL;
    macro_rules! step {
        ($($depth:literal)*) => {$(
            if $depth < M::ABOVE_LOWEST {
                let step = const { &M::STEPS[$depth] };
                let entry = tables.page_at(table)?.load::<M::Entry>(step.offset(addr));
                if entry & PRESENT == 0 {
                    return Some(absent(M::ARCH.level_number($depth), table, entry, rights));
                }
                if entry & PAGE != 0 {
                    return None;
                }
                table = entry & ADDRESS;
                rights = rights.below(entry, step);
            }
        )*};
    }
    step!(0 1 2 3);
    let entry = tables.page_at(table)?.load::<M::Entry>(M::LOWEST.offset(addr));
    (entry & PRESENT == 0).then(|| absent(1, table, entry, rights))
}

/// A walk that ends at an entry that is not present.
fn absent(level: u8, table: u64, entry: u64, rights: Rights) -> Halt {
    let stop = Stop { level, table: PhysAddr::new(table), entry, cause: StopCause::NotPresent };
    Halt { stop, rights: rights.above() }
}

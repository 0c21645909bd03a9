//! One walk from the root, in place.
//!
//! Owns: the walk of a mode whose data are constants. Must not know: batches, why a walk ends without a page.
//! Keeps: one load per level and one comparison per table; whatever is not plain (an entry that is refused, a table outside of the
//! direct map) has no answer here, and is left to `walk`.

use super::plan::{Found, Mode, Rights};
use crate::{
    address::{PageSize, PhysAddr},
    memory::{Bias, TablePage, TablePages},
};

/// Tables that are looked for, from the quickest to find to the rest.
pub(super) trait Reach {
    /// The table that `bits` lead to.
    fn table<'a>(tables: TablePages<'a>, bits: u64, bias: Bias) -> Option<TablePage<'a>>;
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
}

impl Reach for Anywhere {
    #[inline(always)]
    fn table<'a>(tables: TablePages<'a>, bits: u64, bias: Bias) -> Option<TablePage<'a>> {
        tables.table(bits, bias).or_else(|| tables.table_further(bits, bias))
    }
}

/// Translates one address, if every entry on its way is plain.
#[inline(always)]
pub(super) fn translate<M: Mode, R: Reach>(tables: TablePages<'_>, root: PhysAddr, addr: u64) -> Found {
    if !M::ARCH.is_canonical(addr) {
        return Found::NOTHING;
    }
    let mut from = root.as_u64() & M::ROOT_IN_PAGE;
    let Some(mut page) = R::table(tables, root.page_base(PageSize::KIB_4).as_u64(), tables.bias(0)) else {
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

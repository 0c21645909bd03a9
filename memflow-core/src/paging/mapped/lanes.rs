//! Many walks in place, four in each vector register.
//!
//! Owns: the walk of groups of addresses, level by level, all lanes alike. Must not know: what is done with an answer.
//! Keeps: no branch depends on an address or an entry, but one for each group: whether all of it was plain. Every entry on a
//! way is looked at, by what is common to all (present, writable, user) and what any has (no-execute); lanes that have come to a
//! large page keep its entry. What is not plain (not present, reserved bits, a table outside of the window, an address that is
//! not canonical) is handed back.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "arrays of a constant length by numbers below it; constants"
)]

use super::{
    batch::Asked,
    directories::FromRoot,
    each::Rest,
    plan::{ADDRESS, Found, Mode, NO_EXECUTE, PAGE, RESERVED, STATE, USER, WRITABLE},
};
use crate::{
    address::{PhysAddr, VirtAddr},
    memory::{HasLanes, Lanes, Mask, TableLanes},
    paging::{MaybePhys, PageFlags},
};

/// Registers of a group: as many walks as hide the time that one step takes to the next. Two took 1.3 times as long, eight as long.
const GROUP: usize = 4;

/// What is written where nothing is known yet.
const NONE: u64 = MaybePhys::NONE.bits();

// Where `walk` puts it.
const _: () = assert!(PageFlags::NO_EXECUTE.bits() == 1);

/// Where four addresses lead.
#[derive(Clone, Copy)]
struct FoundLanes {
    phys: Lanes,
    rest: Lanes,
    /// Where they lead nowhere, or not plainly.
    bad: Mask,
}

/// Translates all of `asked`, those whose entries are not plain by `rest`. False when nothing was done.
#[inline(always)]
pub(super) fn translate<M: Mode, A: Asked>(
    _proof: HasLanes,
    from_root: FromRoot<'_>,
    asked: &mut [A],
    rest: &mut Rest<'_>,
) -> bool {
    // SAFETY: the proof says that the processor has AVX2.
    unsafe { translate_groups::<M, A>(from_root, asked, rest) }
}

/// The same with the addresses in one place and the answers in another, as many there as here: what is left of a walk are two
/// accesses to memory for four addresses.
#[inline(always)]
pub(super) fn translate_to<M: Mode>(
    _proof: HasLanes,
    from_root: FromRoot<'_>,
    addresses: &[VirtAddr],
    found: &mut [MaybePhys],
    rest: &mut Rest<'_>,
) -> bool {
    // SAFETY: the proof says that the processor has AVX2.
    unsafe { translate_groups_to::<M>(from_root, addresses, found, rest) }
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn translate_groups<M: Mode, A: Asked>(from_root: FromRoot<'_>, asked: &mut [A], rest: &mut Rest<'_>) -> bool {
    let Some(tables) = TableLanes::new(from_root.tables) else { return false };
    let root = Lanes::all(from_root.root.as_u64());
    let (groups, last) = asked.as_chunks_mut::<{ GROUP * Lanes::COUNT }>();
    let mut first = 0usize;
    for group in groups {
        let mut addresses = [Lanes::all(0); GROUP];
        for (addresses, asked) in addresses.iter_mut().zip(group.as_chunks::<{ Lanes::COUNT }>().0) {
            *addresses = of_asked(asked);
        }
        let found = walk::<M, A, GROUP>(&tables, root, addresses);
        if bad_lanes(&found).bits() == 0 {
            for (found, asked) in found.iter().zip(group.as_chunks_mut::<{ Lanes::COUNT }>().0) {
                let (phys, kind) = (found.phys.get(), found.rest.get());
                for ((asked, phys), rest) in asked.iter_mut().zip(phys).zip(kind) {
                    asked.answer(Found::new(phys, rest).known());
                }
            }
        } else {
            for (found, asked) in found.iter().zip(group.as_chunks_mut::<{ Lanes::COUNT }>().0) {
                answer_some(found, asked, first, rest);
                first = first.wrapping_add(Lanes::COUNT);
            }
            continue;
        }
        first = first.wrapping_add(GROUP * Lanes::COUNT);
    }
    for asked in last.chunks_mut(Lanes::COUNT) {
        let mut numbers = [0; Lanes::COUNT];
        for (number, asked) in numbers.iter_mut().zip(&*asked) {
            *number = asked.addr();
        }
        let [found] = walk::<M, A, 1>(&tables, root, [Lanes::new(numbers)]);
        answer_some(&found, asked, first, rest);
        first = first.wrapping_add(Lanes::COUNT);
    }
    true
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn translate_groups_to<M: Mode>(
    from_root: FromRoot<'_>,
    addresses: &[VirtAddr],
    found: &mut [MaybePhys],
    rest: &mut Rest<'_>,
) -> bool {
    let Some(tables) = TableLanes::new(from_root.tables) else { return false };
    let root = Lanes::all(from_root.root.as_u64());
    let (groups, last) = addresses.as_chunks::<{ GROUP * Lanes::COUNT }>();
    let (places, last_places) = found.as_chunks_mut::<{ GROUP * Lanes::COUNT }>();
    let mut first = 0usize;
    for (group, places) in groups.iter().zip(places) {
        let mut numbers = [Lanes::all(0); GROUP];
        for (numbers, four) in numbers.iter_mut().zip(group.as_chunks::<{ Lanes::COUNT }>().0) {
            *numbers = Lanes::new(four.map(VirtAddr::as_u64));
        }
        let walked = walk::<M, MaybePhys, GROUP>(&tables, root, numbers);
        for (walked, four) in walked.iter().zip(places.as_chunks_mut::<{ Lanes::COUNT }>().0) {
            let phys = walked.phys.or_where(walked.bad, Lanes::all(NONE));
            *four = phys.get().map(|phys| MaybePhys::new(PhysAddr::new(phys)));
        }
        if bad_lanes(&walked).bits() != 0 {
            let bad = walked.map(|walked| walked.bad.bits());
            let bits = bad.iter().rev().fold(0, |bits, bad| bits << Lanes::COUNT | bad);
            answer_bad(bits, group, places, first, rest);
        }
        first = first.wrapping_add(GROUP * Lanes::COUNT);
    }
    for (four, places) in last.chunks(Lanes::COUNT).zip(last_places.chunks_mut(Lanes::COUNT)) {
        let mut numbers = [0; Lanes::COUNT];
        for (number, addr) in numbers.iter_mut().zip(four) {
            *number = addr.as_u64();
        }
        let [walked] = walk::<M, MaybePhys, 1>(&tables, root, [Lanes::new(numbers)]);
        let phys = walked.phys.or_where(walked.bad, Lanes::all(NONE));
        for (place, phys) in places.iter_mut().zip(phys.get()) {
            *place = MaybePhys::new(PhysAddr::new(phys));
        }
        answer_bad(walked.bad.bits(), four, places, first, rest);
        first = first.wrapping_add(Lanes::COUNT);
    }
    true
}

/// Answers those whose bit is set, the first lowest.
#[inline(never)]
fn answer_bad(mut bits: u32, addresses: &[VirtAddr], places: &mut [MaybePhys], first: usize, rest: &mut Rest<'_>) {
    for (lane, (addr, place)) in addresses.iter().zip(places).enumerate() {
        if bits & 1 != 0 {
            let answer = rest(first.wrapping_add(lane), addr.as_u64());
            *place = MaybePhys::from(answer.ok().map(|found| found.phys));
        }
        bits >>= 1;
    }
}

/// Where any of a group leads nowhere, or not plainly.
#[target_feature(enable = "avx2")]
#[inline]
fn bad_lanes(found: &[FoundLanes; GROUP]) -> Mask {
    let mut bad = Mask::nowhere();
    for found in found {
        bad = bad.or(found.bad);
    }
    bad
}

#[target_feature(enable = "avx2")]
#[inline]
fn of_asked<A: Asked>(asked: &[A; Lanes::COUNT]) -> Lanes {
    let [a, b, c, d] = asked;
    Lanes::new([a.addr(), b.addr(), c.addr(), d.addr()])
}

/// Answers each, by `rest` where it has no plain answer.
#[target_feature(enable = "avx2")]
#[inline]
fn answer_some<A: Asked>(found: &FoundLanes, asked: &mut [A], first: usize, rest: &mut Rest<'_>) {
    let (bad, phys, kind) = (found.bad.bits(), found.phys.get(), found.rest.get());
    for (lane, ((asked, phys), kind)) in asked.iter_mut().zip(phys).zip(kind).enumerate() {
        if bad.wrapping_shr(u32::try_from(lane).unwrap_or(0)) & 1 == 0 {
            asked.answer(Found::new(phys, kind).known());
        } else {
            asked.take(rest(first.wrapping_add(lane), asked.addr()));
        }
    }
}

/// Walks `N` times four addresses. `For` is whom for: each has a copy of his own, which becomes part of his loop, and what he does not
/// use is not worked out.
#[target_feature(enable = "avx2")]
#[inline]
fn walk<M: Mode, For, const N: usize>(tables: &TableLanes<'_>, root: Lanes, addresses: [Lanes; N]) -> [FoundLanes; N] {
    let const_of = Lanes::all;
    let (none, zero) = (Mask::nowhere(), Lanes::all(0));
    let mut entry = [zero; N];
    // What every entry on the way has, and what any has.
    let mut every = [zero; N];
    let mut any = [zero; N];
    let mut bad = [none; N];
    // Lanes that have come to a large page, and to one as large as what a directory covers.
    let mut large = [none; N];
    let mut huge = [none; N];
    macro_rules! step {
        ($($depth:literal)*) => {$(
            if $depth < M::ABOVE_LOWEST + 1 {
                let step = const { &M::STEPS[$depth] };
                for lane in 0..N {
                    let offsets = addresses[lane].right(step.shift).and(const_of(step.offset));
                    if $depth == 0 {
                        let (loaded, outside) = tables.load(root, offsets, none);
                        (entry[lane], every[lane], any[lane]) = (loaded, loaded, loaded);
                        bad[lane] = outside;
                    } else {
                        let (loaded, outside) = tables.load(entry[lane].and(const_of(ADDRESS)), offsets, large[lane]);
                        bad[lane] = bad[lane].or(outside.without(large[lane]));
                        entry[lane] = loaded.or_where(large[lane], entry[lane]);
                        every[lane] = every[lane].and(entry[lane]);
                        any[lane] = any[lane].or(entry[lane]);
                    }
                    if $depth == M::ABOVE_LOWEST {
                        // An entry of a page whatever its bits.
                    } else if step.page_bit != 0 {
                        huge[lane] = large[lane];
                        large[lane] = entry[lane].has(PAGE);
                    } else {
                        bad[lane] = bad[lane].or(entry[lane].has(PAGE));
                    }
                }
            }
        )*};
    }
    step!(0 1 2 3 4);
    let mut found = [FoundLanes { phys: zero, rest: zero, bad: none }; N];
    for lane in 0..N {
        let address = addresses[lane];
        let pages = [M::BASE_PAGE, M::LARGE_PAGE, M::HUGE_PAGE];
        let choose = |[base, large_page, huge_page]: [u64; 3]| {
            let base = const_of(base).or_where(large[lane], const_of(large_page));
            base.or_where(huge[lane], const_of(huge_page))
        };
        let inside = choose(pages.map(|page| page.inside));
        let kind = choose(pages.map(|page| page.kind));
        let entry = entry[lane];
        let phys = entry.and(const_of(ADDRESS)).without(inside).or(address.and(inside));
        // Zero when all is as it must be: present everywhere, no reserved bit, canonical.
        let half = const { 1u64 << (M::ARCH.virtual_bits - 1) };
        let over = address.plus(const_of(half)).right(M::ARCH.virtual_bits.into());
        let wrong = const_of(1).without(every[lane]).or(entry.and(inside).and(const_of(RESERVED))).or(over);
        let rights = every[lane].and(const_of(WRITABLE | USER)).or(entry.and(const_of(STATE))).left(1);
        let no_execute = any[lane].right(NO_EXECUTE.trailing_zeros());
        found[lane] = FoundLanes { phys, rest: rights.or(no_execute).or(kind), bad: bad[lane].or(wrong.is_not_zero()) };
    }
    found
}

//! Page tables that lie in this process, four at a time: one vector register holds a number for each of four walks.
//!
//! Owns: [`Lanes`], arithmetic on four numbers, and the only way from the addresses of four tables to four of their entries.
//! Must not know: bits of an entry, levels, what a walk is for.
//! Keeps: nothing is loaded outside of the window of whole pages, whatever the tables hold: what would be is loaded from its start,
//! and said so. What is loaded counts only if [`DirectMap::lost_nothing`] says so afterwards.
//!
//! Tried, and no better on a Zen 4 processor: `vpgatherqq` (as fast at best, and slow elsewhere since microcode guards it), addresses
//! that go through the stack (1.4 times as long), eight lanes of AVX-512 (as fast: what limits is the way of addresses from vector
//! registers to those that address memory).

use std::{
    arch::x86_64::{
        __m256i, _mm_cvtsi64_si128, _mm256_add_epi64, _mm256_and_si256, _mm256_andnot_si256, _mm256_blendv_pd,
        _mm256_castpd_si256, _mm256_castsi256_pd, _mm256_cmpeq_epi64, _mm256_cmpgt_epi64, _mm256_movemask_pd,
        _mm256_or_si256, _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_sll_epi64, _mm256_srl_epi64, _mm256_sub_epi64,
    },
    marker::PhantomData,
};

use super::{DirectMap, live, table_pages::TablePages};

/// The highest bit.
const TURN: u64 = 1 << 63;

/// The bits of an offset that tell the entries of a page apart.
const ENTRIES: u64 = 0xff8;

/// Numbers of four walks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes(__m256i);

/// A yes or no for each of four walks: the highest bit of its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask(__m256i);

/// Whether this processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HasLanes(());

#[cfg(test)]
thread_local! {
    /// True while a test wants to see this thread do without.
    pub(crate) static REFUSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl HasLanes {
    /// The proof that it does.
    #[inline(always)]
    pub(crate) fn detect() -> Option<Self> {
        #[cfg(test)]
        if REFUSED.get() {
            return None;
        }
        std::is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Lanes {
    /// How many.
    pub(crate) const COUNT: usize = 4;

    /// Four numbers.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn new(numbers: [u64; Self::COUNT]) -> Self {
        let [a, b, c, d] = numbers.map(u64::cast_signed);
        Self(_mm256_set_epi64x(d, c, b, a))
    }

    /// The same number four times.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn all(number: u64) -> Self {
        Self(_mm256_set1_epi64x(number.cast_signed()))
    }

    /// The numbers.
    #[inline(always)]
    pub(crate) fn get(self) -> [u64; Self::COUNT] {
        // SAFETY: both are 32 bytes, of which every value is one of four numbers; the first lane is the lowest, on x86 the first.
        unsafe { std::mem::transmute::<__m256i, [u64; Self::COUNT]>(self.0) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(_mm256_and_si256(self.0, other.0))
    }

    /// The bits that `other` does not have.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn without(self, other: Self) -> Self {
        Self(_mm256_andnot_si256(other.0, self.0))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn or(self, other: Self) -> Self {
        Self(_mm256_or_si256(self.0, other.0))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self(_mm256_add_epi64(self.0, other.0))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn right(self, bits: u32) -> Self {
        Self(_mm256_srl_epi64(self.0, _mm_cvtsi64_si128(bits.into())))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn left(self, bits: u32) -> Self {
        Self(_mm256_sll_epi64(self.0, _mm_cvtsi64_si128(bits.into())))
    }

    /// Those of `other` where the mask says so.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn or_where(self, mask: Mask, other: Self) -> Self {
        Self(blend(self.0, other.0, mask.0))
    }

    /// Where this bit is set.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn has(self, bit: u64) -> Mask {
        Mask(self.left(bit.leading_zeros()).0)
    }

    /// Where the number is not zero.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn is_not_zero(self) -> Mask {
        let zero = Self::all(0);
        let is_zero = Self(_mm256_cmpeq_epi64(self.0, zero.0));
        Mask(Self::all(u64::MAX).without(is_zero).0)
    }
}

impl Mask {
    /// Nowhere.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn nowhere() -> Self {
        Self(Lanes::all(0).0)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn or(self, other: Self) -> Self {
        Self(_mm256_or_si256(self.0, other.0))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn without(self, other: Self) -> Self {
        Self(_mm256_andnot_si256(other.0, self.0))
    }

    /// One bit for each walk, the first lowest.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn bits(self) -> u32 {
        _mm256_movemask_pd(_mm256_castsi256_pd(self.0)).cast_unsigned()
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn blend(no: __m256i, yes: __m256i, mask: __m256i) -> __m256i {
    let blended = _mm256_blendv_pd(_mm256_castsi256_pd(no), _mm256_castsi256_pd(yes), _mm256_castsi256_pd(mask));
    _mm256_castpd_si256(blended)
}

/// Pages of a direct map that may hold tables, for four walks.
#[derive(Clone, Copy)]
pub(crate) struct TableLanes<'a> {
    ptr: *const u8,
    /// Physical address of the first page.
    start: __m256i,
    // INVARIANT: from `ptr` on so many bytes can be read for as long as `'a`, and another page.
    last: __m256i,
    map: PhantomData<&'a DirectMap>,
}

impl<'a> TableLanes<'a> {
    /// The pages, if there are any.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn new(tables: TablePages<'a>) -> Option<Self> {
        let (start, starts, ptr) = tables.window();
        let last = starts.checked_sub(1)?;
        Some(Self {
            ptr,
            start: Lanes::all(start.wrapping_add(TURN)).0,
            last: Lanes::all(last.wrapping_add(TURN)).0,
            map: PhantomData,
        })
    }

    /// The entries at `offsets`, of which only the bits count that lie in a page, of the tables at `addresses`, which start a page.
    /// Where a table is not in the window the entry is any, and the mask says so; where `skip` says so it is any, too.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn load(&self, addresses: Lanes, offsets: Lanes, skip: Mask) -> (Lanes, Mask) {
        // Turned around at the highest bit: so the comparison, which takes numbers as signed, does not.
        let turned = _mm256_sub_epi64(addresses.0, self.start);
        let outside = Mask(_mm256_cmpgt_epi64(turned, self.last));
        let inside = blend(turned, Lanes::all(TURN).0, outside.or(skip).0);
        let offset = _mm256_and_si256(offsets.0, Lanes::all(ENTRIES).0);
        let places = _mm256_add_epi64(inside, offset);
        // SAFETY: `inside` is at most `last`, behind which another page follows (INVARIANT), and the offset leaves room for an
        // entry of that page; what was turned around is turned back.
        let entries = unsafe { live::load_four(self.ptr.wrapping_sub(TURN as usize), places) };
        (Lanes(entries), outside)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU64};

    use super::*;
    use crate::{
        address::{PhysAddr, PhysRange},
        memory::{Backing, DirectRegion, Liveness},
    };

    struct Words(Vec<u64>);

    // SAFETY: the words are part of the backing, and nobody changes or moves them.
    unsafe impl Backing for Words {
        fn lost_from(&self) -> Option<&AtomicU64> {
            None
        }
    }

    /// Three pages of numbered words at 0x10000.
    fn map() -> DirectMap {
        let words = Arc::new(Words((0..0x600).collect()));
        let range = PhysRange::new(PhysAddr::new(0x10000), 0x3000).unwrap();
        let region = DirectRegion { range, ptr: words.0.as_ptr().cast_mut().cast(), offset: 0 };
        // SAFETY: the region is the words, which the backing owns.
        unsafe { DirectMap::new([region], Liveness::Frozen, false, words) }.unwrap()
    }

    #[target_feature(enable = "avx2")]
    fn load(map: &DirectMap, addresses: [u64; 4], offsets: [u64; 4], skip: Mask) -> ([u64; 4], u32) {
        let tables = TableLanes::new(map.tables()).unwrap();
        let (entries, outside) = tables.load(Lanes::new(addresses), Lanes::new(offsets), skip);
        (entries.get(), outside.bits())
    }

    #[target_feature(enable = "avx2")]
    fn lanes_load_their_entries_and_nothing_outside() {
        let map = map();
        let nowhere = Mask::nowhere();
        let inside = [0x10000, 0x11000, 0x12000, 0x12000];
        assert_eq!(load(&map, inside, [0, 8, 0xff8, 0x1_0ff0], nowhere), ([0, 0x201, 0x5ff, 0x5fe], 0));
        // Before the window, right behind it, at the end of all addresses, and so far off that the difference changes its sign.
        let (entries, outside) = load(&map, [0xf000, 0x13000, u64::MAX, 1 << 63], [0x10; 4], nowhere);
        assert_eq!((entries, outside), ([2; 4], 0b1111));
        let (entries, outside) = load(&map, [0x12001, 0x12000, 1 << 63 | 0x10000, 0], [8; 4], nowhere);
        assert_eq!((entries[1], outside), (0x401, 0b1101));
        let skip = Lanes::new([0, 1 << 63, 0, 1]).has(1 << 63);
        assert_eq!(load(&map, inside, [8; 4], skip), ([1, 1, 0x401, 0x401], 0));
    }

    #[target_feature(enable = "avx2")]
    fn lanes_reckon_as_numbers_do() {
        let (one, other) = (Lanes::new([1, 1 << 63, u64::MAX, 0xf0]), Lanes::new([3, 1, 1, 0x0f]));
        assert_eq!(one.and(other).get(), [1, 0, 1, 0]);
        assert_eq!(one.or(other).get(), [3, 1 << 63 | 1, u64::MAX, 0xff]);
        assert_eq!(one.without(other).get(), [0, 1 << 63, u64::MAX - 1, 0xf0]);
        assert_eq!(one.plus(other).get(), [4, 1 << 63 | 1, 0, 0xff]);
        assert_eq!((one.right(4).get(), one.left(4).get()), ([0, 1 << 59, u64::MAX >> 4, 0xf], [0x10, 0, !0xf, 0xf00]));
        assert_eq!((one.has(1 << 63).bits(), one.has(0x10).bits()), (0b0110, 0b1100));
        assert_eq!(one.and(other).is_not_zero().bits(), 0b0101);
        let (some, others) = (one.has(1), one.has(1 << 63));
        assert_eq!((some.or(others).bits(), some.without(others).bits()), (0b0111, 0b0001));
        assert_eq!(one.or_where(others, other).get(), [1, 1, 1, 0xf0]);
    }

    #[test]
    fn lanes_do_what_they_say() {
        if HasLanes::detect().is_some() {
            // SAFETY: the processor has AVX2.
            unsafe { lanes_load_their_entries_and_nothing_outside() };
            // SAFETY: as above.
            unsafe { lanes_reckon_as_numbers_do() };
        }
    }

    #[test]
    fn memory_without_a_whole_page_has_no_tables() {
        let words = Arc::new(Words(vec![0; 0x100]));
        let range = PhysRange::new(PhysAddr::new(0x1000), 0x800).unwrap();
        let region = DirectRegion { range, ptr: words.0.as_ptr().cast_mut().cast(), offset: 0 };
        // SAFETY: the region is the words, which the backing owns.
        let map = unsafe { DirectMap::new([region], Liveness::Frozen, false, words) }.unwrap();
        if HasLanes::detect().is_some() {
            // SAFETY: the processor has AVX2.
            assert!(unsafe { TableLanes::new(map.tables()) }.is_none());
        }
    }
}

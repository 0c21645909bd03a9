//! What a walk in place needs of a paging mode, worked out at compile time from its data.
//!
//! Owns: [`Mode`], one type per mode of x86, and the masks that turn an entry into the next table with one comparison.
//! Must not know: how an entry is loaded, batches.
//! Keeps: everything follows from the [`Architecture`]; where it is not what a walk in place builds on (the places of the rights
//! bits), the mode does not compile.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "constants: what is out of bounds does not compile"
)]

use super::super::{
    MaybePhys, PageFlags, Translation,
    arch::{Architecture, BitTest, EntryFormat, EntrySize, Level, x86},
};
use crate::{
    address::{PageSize, PhysAddr},
    memory::Entry,
};

/// A paging mode as a type: its data are constants.
pub(super) trait Mode: Copy {
    /// The data.
    const ARCH: &'static Architecture;
    /// An entry.
    type Entry: Entry;

    /// The levels, from the root down; those behind the last are never used.
    const STEPS: [Step; Architecture::MAX_LEVELS] = steps::<Self::Entry>(Self::ARCH);
    /// The bits of a root's address that lie inside a page: only PAE has roots that do not start one.
    const ROOT_IN_PAGE: u64 = Self::ARCH.root_mask & 0xfff;
    /// Levels whose entries lead to tables.
    const ABOVE_LOWEST: usize = Self::UPPER + 1;
    /// Levels above the directory.
    const UPPER: usize = Self::ARCH.levels.len() - 2;
    /// The last level but one: its entries lead to the lowest tables, or to large pages.
    const DIRECTORY: Step = Self::STEPS[Self::UPPER];
    /// The level of base pages.
    const LOWEST: Step = Self::STEPS[Self::UPPER + 1];
    /// Base pages.
    const BASE_PAGE: &'static Page = &Self::LOWEST.page;
    /// Large pages, as a directory maps them.
    const LARGE_PAGE: &'static Page = &Self::DIRECTORY.page;
    /// Pages as large as what a directory covers.
    const HUGE_PAGE: &'static Page = if Self::UPPER == 0 { &Page::NONE } else { &Self::STEPS[Self::UPPER - 1].page };
    /// The address bits behind these choose a directory.
    const DIRECTORY_SHIFT: u32 = {
        let level = &Self::ARCH.levels[Self::UPPER];
        (level.shift + level.index_bits) as u32
    };
    /// Whether four walks at a time find all they need in the entries themselves: [`lanes`](super::lanes) says what that is.
    const HAS_LANES: bool = has_lanes(Self::ARCH);
    /// The address bits behind these choose an entry of a directory.
    const TABLE_SHIFT: u32 = Self::ARCH.levels[Self::UPPER].shift as u32;
}

macro_rules! modes {
    ($($(#[$doc:meta])* $name:ident: $entry:ty = $arch:path;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Mode for $name {
            const ARCH: &'static Architecture = &$arch;
            type Entry = $entry;
        }

        const _: () = assert!(is_walkable(&$arch) && size_of::<$entry>() as u64 == $arch.entry_size.bytes());
    )*};
}

modes! {
    /// [`x86::X64`].
    FourLevels: u64 = x86::X64;
    /// [`x86::X64_LA57`].
    FiveLevels: u64 = x86::X64_LA57;
    /// [`x86::X86_PAE`].
    Pae: u64 = x86::X86_PAE;
    /// [`x86::X86`].
    TwoLevels: u32 = x86::X86;
    /// [`x86::X86_NO_PSE`].
    TwoLevelsNoPse: u32 = x86::X86_NO_PSE;
}

/// One level of tables.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// How far an address is shifted to have the offset of its entry, and the bits of that offset.
    pub(super) shift: u32,
    pub(super) offset: u64,
    /// The bits that say whether an entry leads to a table, and to which.
    pub(super) table: u64,
    /// What they hold beside the address.
    pub(super) expect: u64,
    /// The bit that is set in entries that map a page; zero when none does.
    pub(super) page_bit: u64,
    /// Rights that this level gives whatever its entries hold.
    free: u64,
    /// The pages of this level.
    pub(super) page: Page,
}

/// The pages of a level.
#[derive(Clone, Copy)]
pub(super) struct Page {
    /// An entry maps such a page when these bits hold that.
    mask: u64,
    value: u64,
    /// The bits of the physical address that the entry holds, and those that the virtual address does.
    address: u64,
    pub(super) inside: u64,
    /// Bits of the address that the entry holds in another place, and how far left they belong.
    moved: u64,
    left: u32,
    /// Size and level, as [`Found`] has them.
    pub(super) kind: u64,
}

/// A translation in two registers: in memory, the parts of one that was just written would have to be read back one by one.
#[derive(Clone, Copy)]
pub(in crate::paging) struct Found {
    phys: u64,
    /// Flags, binary logarithm of the page's size, level, [`KNOWN`]: 16, 8, 8 and one bit. Zero where there is no translation.
    rest: u64,
}

/// Set in each that is a translation: so the compiler sees that one is, and leaves out the flags where nobody reads them.
const KNOWN: u64 = 1 << 32;

impl Found {
    /// No translation.
    pub(super) const NOTHING: Self = Self { phys: 0, rest: 0 };

    /// A translation from its two parts.
    #[inline(always)]
    pub(super) fn new(phys: u64, rest: u64) -> Self {
        Self { phys, rest }
    }

    /// What it says if it is not nothing.
    #[inline(always)]
    pub(super) fn known(self) -> Translation {
        let Self { phys, rest } = self;
        Translation {
            phys: PhysAddr::new(phys),
            page: PageSize::of_known_shift((rest >> 16) as u8),
            level: (rest >> 24) as u8,
            flags: PageFlags::from_bits_retain(rest as u16),
        }
    }

    /// The translation.
    #[inline(always)]
    pub(in crate::paging) fn get(self) -> Option<Translation> {
        (self.rest != 0).then_some(self.known())
    }
}

/// What the levels so far allow: bits of an x86 entry, no-execute turned over so that every right is a bit that is set.
#[derive(Clone, Copy)]
pub(super) struct Rights(u64);

pub(super) const PRESENT: u64 = 1;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const USER: u64 = 1 << 2;
pub(super) const NO_EXECUTE: u64 = 1 << 63;
/// Of entries of 64 bits: those for the address, the one for pages above the lowest level, those reserved if not of the address.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
pub(super) const PAGE: u64 = 1 << 7;
pub(super) const RESERVED: u64 = ADDRESS & !(1 << 12);
/// Accessed, dirty, global: told by the entry of the page alone.
pub(super) const STATE: u64 = 1 << 5 | 1 << 6 | 1 << 8;

/// The flags are the bits of an entry, one place further left.
const FLAGS: u64 = flag(WRITABLE, PageFlags::WRITABLE)
    | flag(USER, PageFlags::USER)
    | flag(NO_EXECUTE, PageFlags::NO_EXECUTE)
    | flag(1 << 5, PageFlags::ACCESSED)
    | flag(1 << 6, PageFlags::DIRTY)
    | flag(1 << 8, PageFlags::GLOBAL);

const fn flag(bit: u64, flag: PageFlags) -> u64 {
    assert!(bit.rotate_left(1) == flag.bits() as u64);
    flag.bits() as u64
}

impl Rights {
    /// Nothing is refused yet.
    pub(super) const ALL: Self = Self(u64::MAX);

    /// What is left below an entry that leads to a table.
    #[inline(always)]
    pub(super) fn below(self, entry: u64, step: &Step) -> Self {
        Self(self.0 & ((entry ^ NO_EXECUTE) | step.free))
    }

    /// The same, or nothing taken away where `skip`; without a branch between the two.
    #[inline(always)]
    pub(super) fn below_unless(self, skip: bool, entry: u64, step: &Step) -> Self {
        let Self(below) = Self::ALL.below(entry, step);
        Self(self.0 & std::hint::select_unpredictable(skip, u64::MAX, below))
    }

    /// As flags, for an entry that maps nothing.
    pub(super) fn above(self) -> PageFlags {
        let Self(rights) = self;
        let given = ((rights ^ NO_EXECUTE) & (WRITABLE | USER | NO_EXECUTE)).rotate_left(1);
        PageFlags::from_bits_truncate(given as u16)
    }

    /// The flags of a page.
    #[inline(always)]
    fn flags(self, entry: u64) -> u64 {
        let allowed = ((entry ^ NO_EXECUTE) & (self.0 | STATE)).rotate_left(1) & FLAGS;
        allowed ^ PageFlags::NO_EXECUTE.bits() as u64
    }
}

impl Step {
    const UNUSED: Self = Self { shift: 0, offset: 0, table: 0, expect: 1, page_bit: 0, free: 0, page: Page::NONE };

    /// Offset of the entry for `addr` in its table.
    #[inline(always)]
    pub(super) fn offset(&self, addr: u64) -> u64 {
        addr >> self.shift & self.offset
    }
}

impl Page {
    /// No entry maps one.
    pub(super) const NONE: Self = Self { mask: 0, value: 1, address: 0, inside: 0, moved: 0, left: 0, kind: 0 };

    /// Where `addr` leads if `entry`, below levels with `rights`, maps such a page.
    #[inline(always)]
    pub(super) fn translate<M: Mode>(&self, entry: u64, rights: Rights, addr: u64) -> Found {
        if entry & self.mask != self.value {
            return Found::NOTHING;
        }
        let mut phys = entry & self.address | addr & self.inside;
        if has_moved_bits(M::ARCH) {
            phys |= (entry & self.moved) << self.left;
        }
        Found { phys, rest: KNOWN | self.kind | rights.flags(entry) }
    }
}

impl Page {
    /// The same where the entries above may not have been present.
    #[inline(always)]
    pub(super) fn translate_below<M: Mode>(&self, entry: u64, rights: Rights, addr: u64) -> Found {
        // Presence is the lowest bit, and one of the rights that every entry has to give.
        if entry & rights.0 & 1 == 0 || entry & self.mask & !1 != self.value & !1 {
            return Found::NOTHING;
        }
        let phys = entry & self.address | addr & self.inside;
        Found { phys, rest: KNOWN | self.kind | rights.flags(entry) }
    }
}

impl Page {
    /// Where `addr` leads if `entry` maps such a page, and `every`, what all entries on the way have in common, has the bit of presence.
    #[inline(always)]
    pub(super) fn phys(&self, entry: u64, every: u64, addr: u64) -> MaybePhys {
        // The lowest level has no reserved bits, and its pages no bit of their own: nothing is left of the second comparison there.
        if every & PRESENT == 0 || entry & self.mask & !(PRESENT | PAGE) != 0 {
            return MaybePhys::NONE;
        }
        MaybePhys::new(PhysAddr::new(entry & self.address | addr & self.inside))
    }
}

const fn steps<E>(arch: &Architecture) -> [Step; Architecture::MAX_LEVELS] {
    let mut steps = [Step::UNUSED; Architecture::MAX_LEVELS];
    let mut depth = 0;
    while depth < arch.levels.len() {
        steps[depth] = step(arch, &arch.levels[depth], (arch.levels.len() - depth) as u8, size_of::<E>() as u64);
        depth += 1;
    }
    steps
}

const fn step(arch: &Architecture, level: &Level, number: u8, entry_bytes: u64) -> Step {
    let page_bit = if is(level.page_when, BitTest::NEVER) { 0 } else { level.page_when.mask };
    Step {
        shift: level.shift as u32 - entry_bytes.trailing_zeros(),
        offset: (level.entries() - 1) * entry_bytes,
        table: level.table.address | arch.present.mask | page_bit | level.table.reserved,
        expect: arch.present.value,
        page_bit,
        free: if is(level.table.writable, BitTest::ALWAYS) { WRITABLE } else { 0 }
            | if is(level.table.user, BitTest::ALWAYS) { USER } else { 0 },
        page: page(arch, level, number),
    }
}

const fn page(arch: &Architecture, level: &Level, number: u8) -> Page {
    if is(level.page_when, BitTest::NEVER) {
        return Page::NONE;
    }
    assert!(PageSize::from_shift(level.shift).is_some());
    let format = &level.page;
    Page {
        mask: arch.present.mask | level.page_when.mask | format.reserved,
        value: arch.present.value | level.page_when.value,
        address: format.address & !level.offset_mask(),
        inside: level.offset_mask(),
        moved: format.moved.mask,
        left: format.moved.left as u32,
        kind: (level.shift as u64) << 16 | (number as u64) << 24,
    }
}

const fn has_moved_bits(arch: &Architecture) -> bool {
    let mut depth = 0;
    while depth < arch.levels.len() {
        if arch.levels[depth].page.moved.mask != 0 {
            return true;
        }
        depth += 1;
    }
    false
}

/// Whether a mode is one of 64-bit entries of which none but the bit for pages is reserved in tables, at a level that has none,
/// and in pages none but those of the address that the virtual address holds.
const fn has_lanes(arch: &Architecture) -> bool {
    let mut fits = matches!(arch.entry_size, EntrySize::Eight) && arch.root_mask & 0xfff == 0 && !has_moved_bits(arch);
    let mut depth = 0;
    while depth < arch.levels.len() {
        let level = &arch.levels[depth];
        let lowest = depth + 1 == arch.levels.len();
        let has_pages = !is(level.page_when, BitTest::NEVER);
        let table = lowest
            || level.table.address == ADDRESS
                && level.table.reserved == (if has_pages { 0 } else { PAGE })
                && is(level.table.writable, BitTest::set(WRITABLE))
                && is(level.table.user, BitTest::set(USER));
        let page = !has_pages
            || (lowest && is(level.page_when, BitTest::ALWAYS) || is(level.page_when, BitTest::set(PAGE)))
                && level.page.address & !level.offset_mask() == ADDRESS & !level.offset_mask()
                && level.page.reserved == RESERVED & level.offset_mask();
        // Two levels have pages of their own, those above the lowest.
        let above = arch.levels.len() - depth;
        fits = fits && table && page && has_pages == (above <= 3);
        depth += 1;
    }
    fits && arch.sign_extended
}

const fn is(one: BitTest, other: BitTest) -> bool {
    one.mask == other.mask && one.value == other.value
}

/// Whether the rights of a format are where a walk in place takes them from.
const fn has_x86_rights(format: &EntryFormat, wide: bool) -> bool {
    (is(format.writable, BitTest::set(WRITABLE)) || is(format.writable, BitTest::ALWAYS))
        && (is(format.user, BitTest::set(USER)) || is(format.user, BitTest::ALWAYS))
        && (is(format.no_execute, BitTest::set(NO_EXECUTE))
            || is(format.no_execute, BitTest::NEVER) && (!wide || format.reserved & NO_EXECUTE != 0))
}

/// Whether a mode is what [`Mode`] builds on.
const fn is_walkable(arch: &Architecture) -> bool {
    const IN_PAGE: u64 = (1 << 12) - 1;
    let wide = matches!(arch.entry_size, EntrySize::Eight);
    let state = &arch.state;
    let mut fits = arch.is_consistent()
        && arch.levels.len() >= 2
        && is(arch.present, BitTest::set(1))
        && is(state.accessed, BitTest::set(1 << 5))
        && is(state.dirty, BitTest::set(1 << 6))
        && is(state.global, BitTest::set(1 << 8));
    let mut depth = 0;
    while depth < arch.levels.len() {
        let level = &arch.levels[depth];
        let lowest = depth + 1 == arch.levels.len();
        let page_bit = is(level.page_when, BitTest::NEVER) || level.page_when.mask == level.page_when.value;
        let table = lowest
            || has_x86_rights(&level.table, wide)
                && level.table.moved.mask == 0
                && level.table.address & IN_PAGE == 0
                && level.entries() * arch.entry_size.bytes() <= IN_PAGE + 1;
        let page = is(level.page_when, BitTest::NEVER)
            || has_x86_rights(&level.page, wide)
                && is(level.page.writable, BitTest::set(WRITABLE))
                && is(level.page.user, BitTest::set(USER));
        fits = fits && page_bit && table && page;
        depth += 1;
    }
    // Bits of a directory's entry, without the one for pages: nothing but presence below the address (`Bias::NO_TABLE`).
    let directory = &arch.levels[arch.levels.len() - 2];
    fits && directory.table.reserved & IN_PAGE == 0
}

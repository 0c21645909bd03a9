//! Architectures as data: what a walker needs to know of a paging mode.
//!
//! Owns: [`Architecture`] and the modes of each family. Open on purpose: a mode of a third party is one more `static`.
//! Must not know: how a table is read, who asks.
//! Keeps: nothing here decides; `entry` decodes by these fields and by nothing else. Data that makes no sense yields wrong
//! answers, never a panic, and [`Architecture::is_consistent`] tells at compile time.
#![expect(clippy::as_conversions, reason = "u8 to u32 only, in const functions, where `From` cannot be called")]

pub mod x86;

use crate::address::VirtAddr;

/// One paging mode.
#[derive(Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Its name in the field ("x86-64 4-level").
    pub name: &'static str,
    /// Size of a pointer in bytes.
    pub pointer_size: u8,
    /// Bits of a virtual address that are translated; bits above must copy the highest of them when `sign_extended`, else be zero.
    pub virtual_bits: u8,
    /// True when the bits above `virtual_bits` copy the highest translated bit (canonical addresses).
    pub sign_extended: bool,
    /// Size of a table entry.
    pub entry_size: EntrySize,
    /// The bits of the root register that hold the address of the root table.
    pub root_mask: u64,
    /// True for entries that are present.
    pub present: BitTest,
    /// Used, written and global, as told by the entry of a page.
    pub state: PageState,
    /// The levels, from the root down; at most [`Architecture::MAX_LEVELS`].
    pub levels: &'static [Level],
}

/// Size of a table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntrySize {
    /// Four bytes.
    Four,
    /// Eight bytes.
    Eight,
}

/// One level of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Lowest bit of the virtual address that indexes this table; also the size of a page that an entry maps, as a power of two.
    pub shift: u8,
    /// Number of bits that index it.
    pub index_bits: u8,
    /// True for present entries that map a page; the others lead to a table of the next level.
    pub page_when: BitTest,
    /// How entries that lead to a table are read; [`EntryFormat::INVALID`] at the lowest level.
    pub table: EntryFormat,
    /// How entries that map a page are read; [`EntryFormat::INVALID`] at levels without pages.
    pub page: EntryFormat,
}

/// How a present entry is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryFormat {
    /// The bits that hold the address, in place.
    pub address: u64,
    /// Further address bits, which the entry holds in another place.
    pub moved: MovedBits,
    /// Bits that must be zero: the processor refuses the entry otherwise.
    pub reserved: u64,
    /// True when the entry allows writes.
    pub writable: BitTest,
    /// True when the entry allows user mode.
    pub user: BitTest,
    /// True when the entry refuses instruction fetches.
    pub no_execute: BitTest,
}

/// Address bits that an entry holds below their place (PSE-36, 52-bit addresses of AArch64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedBits {
    /// The bits of the entry.
    pub mask: u64,
    /// How far left of there they belong in the address.
    pub left: u8,
}

/// What the entry of a page says of its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageState {
    /// True when the page was used.
    pub accessed: BitTest,
    /// True when the page was written.
    pub dirty: BitTest,
    /// True when the translation survives a change of address space.
    pub global: BitTest,
}

/// A question to an entry: do the bits of `mask` equal `value`?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitTest {
    /// The bits that count.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
}

/// Every paging mode of this library.
static ALL: [&Architecture; 5] = [&x86::X64, &x86::X64_LA57, &x86::X86_PAE, &x86::X86, &x86::X86_NO_PSE];

impl Architecture {
    /// The paging mode of this library with that [`name`](Self::name).
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|mode| mode.name == name)
    }

    /// More levels than any known architecture has.
    pub const MAX_LEVELS: usize = 8;

    /// True when the fields agree with each other: levels without gap from `virtual_bits` down, tables that fit 16 MiB.
    ///
    /// Meant for a `const _: () = assert!(MODE.is_consistent());` beside each definition.
    pub const fn is_consistent(&self) -> bool {
        let mut rest = self.levels;
        if rest.is_empty() || rest.len() > Self::MAX_LEVELS || self.virtual_bits == 0 || self.virtual_bits > 64 {
            return false;
        }
        let mut top = self.virtual_bits;
        while let [level, lower @ ..] = rest {
            if level.index_bits == 0 || level.index_bits > 20 || level.shift >= top {
                return false;
            }
            if level.shift.wrapping_add(level.index_bits) != top {
                return false;
            }
            top = level.shift;
            rest = lower;
        }
        true
    }

    /// The highest address of the lower half: everything up to it is translated.
    pub(super) const fn lower_last(&self) -> u64 {
        let bits = if self.sign_extended { self.virtual_bits.saturating_sub(1) } else { self.virtual_bits };
        match 1u64.checked_shl(bits as u32) {
            Some(end) => end.wrapping_sub(1),
            None => u64::MAX,
        }
    }

    /// The first address of the upper half, where there is one.
    pub(super) const fn upper_first(&self) -> Option<u64> {
        if self.sign_extended { Some(!self.lower_last()) } else { None }
    }

    /// The highest virtual address.
    pub const fn last_address(&self) -> VirtAddr {
        VirtAddr::new(if self.sign_extended { u64::MAX } else { self.lower_last() })
    }

    /// True when the bits of `addr` above the translated ones are as they must be.
    #[inline]
    pub(super) const fn is_canonical(&self, addr: u64) -> bool {
        addr <= self.lower_last() || matches!(self.upper_first(), Some(upper) if addr >= upper)
    }

    /// The end of the longest part of `first..=last` from its start that is all canonical, or all not; and which of the two.
    pub(super) const fn canonical_part(&self, first: u64, last: u64) -> (u64, bool) {
        let (end, canonical) = match self.upper_first() {
            _ if first <= self.lower_last() => (self.lower_last(), true),
            Some(upper) if first < upper => (upper.wrapping_sub(1), false),
            Some(_) => (u64::MAX, true),
            None => (u64::MAX, false),
        };
        (if end < last { end } else { last }, canonical)
    }

    /// The number of the level at `depth` levels below the root: 1 for base pages.
    #[inline]
    pub(super) fn level_number(&self, depth: usize) -> u8 {
        u8::try_from(self.levels.len().saturating_sub(depth)).unwrap_or(u8::MAX)
    }

    /// True when the address of a page of this level is bits of its entry that say nothing else.
    pub(super) const fn is_plain(&self, level: &Level) -> bool {
        let (page, state) = (&level.page, &self.state);
        let others = self.present.mask
            | level.page_when.mask
            | page.moved.mask
            | page.reserved
            | page.writable.mask
            | page.user.mask
            | page.no_execute.mask
            | state.accessed.mask
            | state.dirty.mask
            | state.global.mask;
        page.address & others == 0
    }

    /// The level with this number.
    pub(super) fn level(&self, number: u8) -> Option<&'static Level> {
        self.levels.get(self.levels.len().checked_sub(number.into())?)
    }
}

impl Level {
    /// Index into the table of this level for an address.
    #[inline]
    pub(super) const fn index(&self, addr: u64) -> u64 {
        addr.wrapping_shr(self.shift as u32) & self.entries().wrapping_sub(1)
    }

    /// Number of entries in a table of this level.
    #[inline]
    pub(super) const fn entries(&self) -> u64 {
        1u64.wrapping_shl(self.index_bits as u32)
    }

    /// The address bits inside what one entry covers.
    #[inline]
    pub(super) const fn offset_mask(&self) -> u64 {
        1u64.wrapping_shl(self.shift as u32).wrapping_sub(1)
    }
}

impl EntrySize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

impl EntryFormat {
    /// Entries of this kind do not exist: a present one is refused.
    pub const INVALID: Self = Self {
        address: 0,
        moved: MovedBits::NONE,
        reserved: u64::MAX,
        writable: BitTest::NEVER,
        user: BitTest::NEVER,
        no_execute: BitTest::NEVER,
    };

    /// The physical address that an entry holds.
    #[inline]
    pub(super) const fn address_of(&self, entry: u64) -> u64 {
        (entry & self.address) | (entry & self.moved.mask).wrapping_shl(self.moved.left as u32)
    }
}

impl MovedBits {
    /// All address bits are in their place.
    pub const NONE: Self = Self { mask: 0, left: 0 };
}

impl BitTest {
    /// True of every entry.
    pub const ALWAYS: Self = Self { mask: 0, value: 0 };
    /// True of no entry.
    pub const NEVER: Self = Self { mask: 0, value: 1 };

    /// True when every one of `bits` is set.
    pub const fn set(bits: u64) -> Self {
        Self { mask: bits, value: bits }
    }

    /// True when every one of `bits` is clear.
    pub const fn clear(bits: u64) -> Self {
        Self { mask: bits, value: 0 }
    }

    /// The answer for an entry.
    #[inline]
    pub const fn is_true_of(self, entry: u64) -> bool {
        entry & self.mask == self.value
    }
}

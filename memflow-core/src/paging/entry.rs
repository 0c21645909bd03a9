//! What one table entry says.
//!
//! Owns: present, reserved bits, table or page, and the rights so far. Must not know: how the entry was read, what is done with it.
//! Keeps: the only place that reads bits of an entry, and it does so by the fields of the architecture alone. No two entries are
//! ever compared: equal entries are ordinary (aliases).

use super::{
    PageFlags, Translation,
    arch::{Architecture, Level},
};
use crate::{
    address::{PageSize, PhysAddr},
    error::{Reason, Stop, StopCause},
};

/// A table, and what the levels above it allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node {
    /// Physical address of the table.
    pub(super) table: PhysAddr,
    /// Writable, user and no-execute over all levels above.
    pub(super) rights: PageFlags,
}

/// Where a present entry leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// To a table of the next level.
    Table(Node),
    /// To the page that holds the address.
    Page(Translation),
}

/// A walk that ended without a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Halt {
    /// Where and why.
    pub(super) stop: Stop,
    /// What the levels above allow.
    pub(super) rights: PageFlags,
}

impl Halt {
    /// A walk that did not start, as the mode does not translate the address.
    pub(super) fn not_canonical(root: PhysAddr) -> Self {
        Node::root(root).halt(0, 0, StopCause::NotCanonical)
    }

    /// The low address bits that do not change where the walk ends.
    pub(super) fn covered_mask(&self, arch: &Architecture) -> u64 {
        arch.level(self.stop.level).map_or(0, Level::offset_mask)
    }

    /// As the reason of a failed operation.
    pub(crate) fn reason(&self) -> Reason {
        Reason::NotMapped(self.stop)
    }
}

impl Node {
    /// The root table: nothing is refused yet.
    #[inline]
    pub(super) fn root(table: PhysAddr) -> Self {
        Self { table, rights: PageFlags::WRITABLE.union(PageFlags::USER) }
    }

    /// Physical address of the entry for `addr`.
    #[inline]
    pub(super) fn entry_address(&self, arch: &Architecture, level: &Level, addr: u64) -> PhysAddr {
        self.table.wrapping_add(level.index(addr).wrapping_mul(arch.entry_size.bytes()))
    }

    /// A walk that ends in this table.
    #[cold]
    pub(super) fn halt(&self, level: u8, entry: u64, cause: StopCause) -> Halt {
        Halt { stop: Stop { level, table: self.table, entry, cause }, rights: self.rights }
    }

    /// Reads the entry of this table that covers `addr`.
    #[inline(always)]
    pub(super) fn decode(
        &self,
        arch: &Architecture,
        level: &Level,
        number: u8,
        entry: u64,
        addr: u64,
    ) -> Result<Next, Halt> {
        if !arch.present.is_true_of(entry) {
            return Err(self.halt(number, entry, StopCause::NotPresent));
        }
        let is_page = level.page_when.is_true_of(entry);
        let format = if is_page { &level.page } else { &level.table };
        if entry & format.reserved != 0 {
            return Err(self.halt(number, entry, StopCause::ReservedBit));
        }
        let mut rights = self.rights;
        if !format.writable.is_true_of(entry) {
            rights = rights.difference(PageFlags::WRITABLE);
        }
        if !format.user.is_true_of(entry) {
            rights = rights.difference(PageFlags::USER);
        }
        if format.no_execute.is_true_of(entry) {
            rights = rights.union(PageFlags::NO_EXECUTE);
        }
        let base = format.address_of(entry);
        if !is_page {
            return Ok(Next::Table(Node { table: PhysAddr::new(base), rights }));
        }
        let mut flags = rights;
        flags.set(PageFlags::ACCESSED, arch.state.accessed.is_true_of(entry));
        flags.set(PageFlags::DIRTY, arch.state.dirty.is_true_of(entry));
        flags.set(PageFlags::GLOBAL, arch.state.global.is_true_of(entry));
        let inside = level.offset_mask();
        Ok(Next::Page(Translation {
            phys: PhysAddr::new((base & !inside) | (addr & inside)),
            page: PageSize::from_shift(level.shift).unwrap_or(PageSize::KIB_4),
            level: number,
            flags,
        }))
    }
}

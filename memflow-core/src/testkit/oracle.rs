//! The slow, obvious second opinion: walks and copies byte by byte.
//!
//! Owns: one walk per paging mode, written from the Intel SDM, volume 3A, chapter "Paging".
//! Must not know: `paging`, except for the types that its answers are compared in.
//! Keeps: no code or table is shared with the walker it checks; no loop is clever.

use crate::{
    address::{PageSize, PhysAddr, VirtAddr},
    error::{Reason, Stop, StopCause},
    memory::{PhysicalMemory, PhysicalMemoryExt},
    paging::{PageFlags, Translation},
    testkit::PagingMode,
};

/// Translates one address.
///
/// # Errors
/// Where the walk stops, and why.
pub fn translate(
    memory: &dyn PhysicalMemory,
    mode: PagingMode,
    root: PhysAddr,
    virt: VirtAddr,
) -> Result<Translation, Reason> {
    let va = virt.as_u64();
    let walk = Walk { memory, va };
    let canonical = match mode {
        PagingMode::X86NoPse | PagingMode::X86 | PagingMode::Pae => va < 1 << 32,
        PagingMode::X64 => !(0x0000_8000_0000_0000..0xffff_8000_0000_0000).contains(&va),
        PagingMode::La57 => !(0x0100_0000_0000_0000..0xff00_0000_0000_0000).contains(&va),
    };
    if !canonical {
        return Err(stop(0, root.as_u64(), 0, StopCause::NotCanonical));
    }
    match mode {
        PagingMode::X86NoPse => walk.two_levels(root.as_u64(), false),
        PagingMode::X86 => walk.two_levels(root.as_u64(), true),
        PagingMode::Pae => walk.pae(root.as_u64()),
        PagingMode::X64 => walk.four_levels(root.as_u64(), Rights::ALL),
        PagingMode::La57 => walk.five_levels(root.as_u64()),
    }
}

/// Reads `len` bytes one by one, each with its own walk: what each is, or why it cannot be read.
pub fn read(
    memory: &dyn PhysicalMemory,
    mode: PagingMode,
    root: PhysAddr,
    virt: VirtAddr,
    len: usize,
) -> Vec<Result<u8, Reason>> {
    let end = match mode {
        PagingMode::X86NoPse | PagingMode::X86 | PagingMode::Pae => 1u128 << 32,
        PagingMode::X64 | PagingMode::La57 => 1u128 << 64,
    };
    let start = u128::from(virt.as_u64());
    let mut bytes = Vec::new();
    for offset in 0..len as u128 {
        let at = start + offset;
        // Running over the end is told apart from starting behind it.
        if start < end && at >= end || at >> 64 != 0 {
            bytes.push(Err(Reason::OutOfRange));
            continue;
        }
        let mut byte = [0];
        bytes.push(translate(memory, mode, root, VirtAddr::new(at as u64)).and_then(|found| {
            match memory.read_into(found.phys, &mut byte) {
                Ok(()) => Ok(byte[0]),
                Err(error) => Err(error.reason().unwrap_or(Reason::OutOfRange)),
            }
        }));
    }
    bytes
}

#[derive(Clone, Copy)]
struct Rights {
    writable: bool,
    user: bool,
    no_execute: bool,
}

impl Rights {
    const ALL: Self = Self { writable: true, user: true, no_execute: false };

    fn and_entry(self, entry: u64) -> Self {
        Self {
            writable: self.writable && bit(entry, 1),
            user: self.user && bit(entry, 2),
            no_execute: self.no_execute || bit(entry, 63),
        }
    }
}

struct Walk<'a> {
    memory: &'a dyn PhysicalMemory,
    va: u64,
}

impl Walk<'_> {
    fn two_levels(&self, root: u64, pse: bool) -> Result<Translation, Reason> {
        let pde = self.entry32(2, root, self.va >> 22)?;
        if pse && bit(pde, 7) {
            if bit(pde, 21) {
                return Err(stop(2, root, pde, StopCause::ReservedBit));
            }
            let base = field(pde, 22, 31) | field(pde, 13, 20) << 19;
            return self.page(2, 22, base, pde, Rights::ALL.and_entry(pde));
        }
        let table = field(pde, 12, 31);
        let pte = self.entry32(1, table, self.va >> 12 & 0x3ff)?;
        self.page(1, 12, field(pte, 12, 31), pte, Rights::ALL.and_entry(pde).and_entry(pte))
    }

    fn pae(&self, root: u64) -> Result<Translation, Reason> {
        let pdpte = self.entry64(3, root, self.va >> 30)?;
        let must_be_zero = bit(pdpte, 1) || bit(pdpte, 2) || field(pdpte, 5, 8) != 0 || field(pdpte, 52, 63) != 0;
        if must_be_zero {
            return Err(stop(3, root, pdpte, StopCause::ReservedBit));
        }
        let directory = field(pdpte, 12, 51);
        let pde = self.entry64(2, directory, self.va >> 21 & 0x1ff)?;
        if field(pde, 52, 62) != 0 || bit(pde, 7) && field(pde, 13, 20) != 0 {
            return Err(stop(2, directory, pde, StopCause::ReservedBit));
        }
        let rights = Rights::ALL.and_entry(pde);
        if bit(pde, 7) {
            return self.page(2, 21, field(pde, 21, 51), pde, rights);
        }
        let table = field(pde, 12, 51);
        let pte = self.entry64(1, table, self.va >> 12 & 0x1ff)?;
        if field(pte, 52, 62) != 0 {
            return Err(stop(1, table, pte, StopCause::ReservedBit));
        }
        self.page(1, 12, field(pte, 12, 51), pte, rights.and_entry(pte))
    }

    fn five_levels(&self, root: u64) -> Result<Translation, Reason> {
        let pml5e = self.entry64(5, root, self.va >> 48 & 0x1ff)?;
        if bit(pml5e, 7) {
            return Err(stop(5, root, pml5e, StopCause::ReservedBit));
        }
        self.four_levels(field(pml5e, 12, 51), Rights::ALL.and_entry(pml5e))
    }

    fn four_levels(&self, pml4: u64, rights: Rights) -> Result<Translation, Reason> {
        let pml4e = self.entry64(4, pml4, self.va >> 39 & 0x1ff)?;
        if bit(pml4e, 7) {
            return Err(stop(4, pml4, pml4e, StopCause::ReservedBit));
        }
        let rights = rights.and_entry(pml4e);

        let pdpt = field(pml4e, 12, 51);
        let pdpte = self.entry64(3, pdpt, self.va >> 30 & 0x1ff)?;
        let rights = rights.and_entry(pdpte);
        if bit(pdpte, 7) {
            if field(pdpte, 13, 29) != 0 {
                return Err(stop(3, pdpt, pdpte, StopCause::ReservedBit));
            }
            return self.page(3, 30, field(pdpte, 30, 51), pdpte, rights);
        }

        let directory = field(pdpte, 12, 51);
        let pde = self.entry64(2, directory, self.va >> 21 & 0x1ff)?;
        let rights = rights.and_entry(pde);
        if bit(pde, 7) {
            if field(pde, 13, 20) != 0 {
                return Err(stop(2, directory, pde, StopCause::ReservedBit));
            }
            return self.page(2, 21, field(pde, 21, 51), pde, rights);
        }

        let table = field(pde, 12, 51);
        let pte = self.entry64(1, table, self.va >> 12 & 0x1ff)?;
        self.page(1, 12, field(pte, 12, 51), pte, rights.and_entry(pte))
    }

    fn page(&self, level: u8, shift: u8, base: u64, entry: u64, rights: Rights) -> Result<Translation, Reason> {
        let mut flags = PageFlags::empty();
        flags.set(PageFlags::WRITABLE, rights.writable);
        flags.set(PageFlags::USER, rights.user);
        flags.set(PageFlags::NO_EXECUTE, rights.no_execute);
        flags.set(PageFlags::ACCESSED, bit(entry, 5));
        flags.set(PageFlags::DIRTY, bit(entry, 6));
        flags.set(PageFlags::GLOBAL, bit(entry, 8));
        let page = PageSize::from_shift(shift).ok_or(Reason::OutOfRange)?;
        let phys = PhysAddr::new(base + self.va % (1 << shift));
        Ok(Translation { phys, page, level, flags })
    }

    fn entry32(&self, level: u8, table: u64, index: u64) -> Result<u64, Reason> {
        let mut bytes = [0; 4];
        self.load(level, table, table + index * 4, &mut bytes)?;
        present(level, table, u64::from(u32::from_le_bytes(bytes)))
    }

    fn entry64(&self, level: u8, table: u64, index: u64) -> Result<u64, Reason> {
        let mut bytes = [0; 8];
        self.load(level, table, table + index * 8, &mut bytes)?;
        present(level, table, u64::from_le_bytes(bytes))
    }

    fn load(&self, level: u8, table: u64, at: u64, bytes: &mut [u8]) -> Result<(), Reason> {
        self.memory.read_into(PhysAddr::new(at), bytes).map_err(|error| match error.reason() {
            Some(Reason::NotInImage { .. }) => stop(level, table, 0, StopCause::TableNotInImage),
            _ => stop(level, table, 0, StopCause::TableUnreadable),
        })
    }
}

fn present(level: u8, table: u64, entry: u64) -> Result<u64, Reason> {
    if bit(entry, 0) { Ok(entry) } else { Err(stop(level, table, entry, StopCause::NotPresent)) }
}

fn stop(level: u8, table: u64, entry: u64, cause: StopCause) -> Reason {
    Reason::NotMapped(Stop { level, table: PhysAddr::new(table), entry, cause })
}

fn bit(entry: u64, number: u32) -> bool {
    entry >> number & 1 == 1
}

/// Bits `low` to `high` of the entry, in place.
fn field(entry: u64, low: u32, high: u32) -> u64 {
    let width = high - low + 1;
    (entry >> low & ((1 << width) - 1)) << low
}

//! Page tables of x86: four levels, PAE, two levels.
//!
//! Owns: entries and the tables they lie in. Must not know: why a page is mapped.
//! Keeps: an upper entry is made once; leaves are what the caller says, present or not.
//! Source: Intel SDM volume 3A, chapter 4; flags as Windows sets them (0x63 for its own tables, 0x67 for those of processes).

use fastrand::Rng;

use crate::{
    Error,
    physical::{PAGE, Physical},
};

/// A paging mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Paging {
    /// Four levels, 64 bits.
    Four,
    /// Physical address extension: three levels, 32 bits.
    Pae,
    /// Two levels, 32 bits.
    Two,
}

/// Present.
pub(crate) const PRESENT: u64 = 1;
/// Writable.
pub(crate) const WRITE: u64 = 2;
/// For user mode.
pub(crate) const USER: u64 = 4;
const ACCESSED_DIRTY: u64 = 0x60;
/// A leaf above the last level.
pub(crate) const LARGE: u64 = 0x80;
const GLOBAL: u64 = 0x100;
/// Not executable; only entries of 64 bits have it.
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
/// Frame numbers, in entries of 64 bits.
pub(crate) const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// What a page may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rights {
    pub(crate) user: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
}

impl Rights {
    pub(crate) const KERNEL: Self = Self { user: false, write: true, execute: false };
    pub(crate) const CODE: Self = Self { user: false, write: false, execute: true };
}

impl Paging {
    /// Bytes in an entry, and in a pointer of structures that hold entries.
    pub(crate) fn entry(self) -> u64 {
        if self == Self::Two { 4 } else { 8 }
    }

    /// The lowest bit of an address that selects an entry, for each level from the root on.
    fn shifts(self) -> &'static [u32] {
        match self {
            Self::Four => &[39, 30, 21, 12],
            Self::Pae => &[30, 21, 12],
            Self::Two => &[22, 12],
        }
    }

    /// Bytes of the pages that a leaf one level above the last maps.
    pub(crate) fn large(self) -> u64 {
        if self == Self::Two { 4 << 20 } else { 2 << 20 }
    }

    /// The address belongs to the system.
    pub(crate) fn is_kernel(self, address: u64) -> bool {
        match self {
            Self::Four => address >> 63 != 0,
            _ => address >= 0x8000_0000,
        }
    }

    fn index(self, address: u64, shift: u32) -> u64 {
        let entries = if self == Self::Two { 1024 } else { 512 };
        (address >> shift) % entries
    }

    /// A leaf that is present.
    pub(crate) fn leaf(self, frame: u64, rights: Rights) -> u64 {
        let mut entry = (frame * PAGE) | PRESENT | ACCESSED_DIRTY;
        entry |= if rights.user { USER } else { GLOBAL };
        entry |= if rights.write { WRITE } else { 0 };
        // Windows keeps its own idea of writable in a bit that the processor ignores.
        entry |= if rights.write && rights.user { 0x800 } else { 0 };
        entry | if rights.execute || self == Self::Two { 0 } else { NO_EXECUTE }
    }

    /// An entry that leads to another table.
    pub(crate) fn table(self, frame: u64, user: bool) -> u64 {
        (frame * PAGE) | PRESENT | WRITE | ACCESSED_DIRTY | if user { USER } else { 0 }
    }

    /// Where the leaf for pages of `size` bytes lies, with the tables above it made.
    fn slot(self, memory: &mut Physical, rng: &mut Rng, root: u64, address: u64, size: u64) -> Result<u64, Error> {
        let mut table = root;
        for (level, &shift) in self.shifts().iter().enumerate() {
            let slot = table + self.index(address, shift) * self.entry();
            if 1 << shift == size {
                return Ok(slot);
            }
            let mut entry = memory.number(slot, self.entry() as usize);
            if entry & PRESENT == 0 {
                let frame = memory.frame(rng)?;
                let top_of_pae = self == Self::Pae && level == 0;
                entry = if top_of_pae { (frame * PAGE) | PRESENT } else { self.table(frame, !self.is_kernel(address)) };
                self.put(memory, slot, entry);
            }
            if entry & LARGE != 0 && shift != 39 {
                return Err(Error::Overlap { address });
            }
            table = entry & FRAME;
        }
        Err(Error::Overlap { address })
    }

    /// Writes an entry where it lies.
    pub(crate) fn put(self, memory: &mut Physical, slot: u64, entry: u64) {
        memory.write(slot, &entry.to_le_bytes()[..self.entry() as usize]);
    }

    /// Sets the leaf of `size` bytes at `address`: present or not, as the caller has made it.
    pub(crate) fn set(
        self,
        memory: &mut Physical,
        rng: &mut Rng,
        root: u64,
        address: u64,
        size: u64,
        entry: u64,
    ) -> Result<(), Error> {
        let slot = self.slot(memory, rng, root, address, size)?;
        self.put(memory, slot, entry);
        Ok(())
    }

    /// Makes the tables for the page at `address`, and leaves its own entry as it is.
    pub(crate) fn prepare(self, memory: &mut Physical, rng: &mut Rng, root: u64, address: u64) -> Result<(), Error> {
        self.slot(memory, rng, root, address, PAGE).map(|_| ())
    }
}

//! A machine built in code: physical memory, page tables of any x86 mode, and every address that was made on the way.
//!
//! Owns: [`MachineBuilder`] and the encoding of entries. Must not know: the walker, or the data it walks by.
//! Keeps: tables are written from the formats in the Intel SDM, volume 3A, chapter "Paging", independently of `paging`, so that
//! both have to be wrong in the same way for a test to pass wrongly.

use std::sync::Arc;

use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr},
    error::{Error, Result},
    memory::{BufferMemory, Run, RunMap, SourceConfig, TargetFacts},
    paging::{AddressSpace, Architecture, x86},
    view::SpaceView,
};

/// Bits of page-table entries, the same in all modes.
pub mod entry_bits {
    /// The entry is present.
    pub const PRESENT: u64 = 1;
    /// Writes are allowed.
    pub const WRITABLE: u64 = 1 << 1;
    /// User mode is allowed.
    pub const USER: u64 = 1 << 2;
    /// The entry was used.
    pub const ACCESSED: u64 = 1 << 5;
    /// The page was written.
    pub const DIRTY: u64 = 1 << 6;
    /// The entry is a page at a level above the lowest; at the lowest it is PAT.
    pub const LARGE: u64 = 1 << 7;
    /// The translation is global.
    pub const GLOBAL: u64 = 1 << 8;
    /// PAT of a large page.
    pub const LARGE_PAT: u64 = 1 << 12;
    /// Instruction fetches are refused; not in 32-bit entries.
    pub const NO_EXECUTE: u64 = 1 << 63;
}

use entry_bits::{LARGE, PRESENT, USER, WRITABLE};

/// A paging mode of x86.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagingMode {
    /// 32-bit, two levels, CR4.PSE off.
    X86NoPse,
    /// 32-bit, two levels, 4 MiB pages.
    X86,
    /// 32-bit, three levels of 64-bit entries.
    Pae,
    /// 64-bit, four levels.
    X64,
    /// 64-bit, five levels.
    La57,
}

impl PagingMode {
    /// Every mode.
    pub const ALL: [Self; 5] = [Self::X86NoPse, Self::X86, Self::Pae, Self::X64, Self::La57];

    /// The walker's data for this mode.
    pub fn architecture(self) -> &'static Architecture {
        match self {
            Self::X86NoPse => &x86::X86_NO_PSE,
            Self::X86 => &x86::X86,
            Self::Pae => &x86::X86_PAE,
            Self::X64 => &x86::X64,
            Self::La57 => &x86::X64_LA57,
        }
    }

    /// Page sizes of the mode, as binary logarithms.
    pub fn page_shifts(self) -> &'static [u8] {
        match self {
            Self::X86NoPse => &[12],
            Self::X86 => &[12, 22],
            Self::Pae => &[12, 21],
            Self::X64 | Self::La57 => &[12, 21, 30],
        }
    }

    /// Size of an entry in bytes.
    pub fn entry_bytes(self) -> u64 {
        match self {
            Self::X86NoPse | Self::X86 => 4,
            Self::Pae | Self::X64 | Self::La57 => 8,
        }
    }

    /// Lowest address bit and number of bits that index each level, from the root down.
    fn indices(self) -> &'static [(u8, u8)] {
        match self {
            Self::X86NoPse | Self::X86 => &[(22, 10), (12, 10)],
            Self::Pae => &[(30, 2), (21, 9), (12, 9)],
            Self::X64 => &[(39, 9), (30, 9), (21, 9), (12, 9)],
            Self::La57 => &[(48, 9), (39, 9), (30, 9), (21, 9), (12, 9)],
        }
    }
}

/// A finished machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its memory.
    pub memory: Arc<BufferMemory>,
    /// The address space below its root.
    pub space: AddressSpace,
    /// Its paging mode.
    pub mode: PagingMode,
    /// Physical address of the root table.
    pub root: PhysAddr,
}

impl Machine {
    /// The address space as a view.
    pub fn view(&self) -> SpaceView {
        SpaceView::new(self.memory.clone(), self.space.clone())
    }
}

/// Where one entry on the way to a page lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryPlace {
    /// Its level: 1 for base pages.
    pub level: u8,
    /// Physical address of its table.
    pub table: PhysAddr,
    /// Physical address of the entry.
    pub at: PhysAddr,
}

/// A page that was mapped, and every address that was made for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MappedPage {
    /// Its first virtual address.
    pub virt: VirtAddr,
    /// Its first physical address.
    pub phys: PhysAddr,
    /// Its size.
    pub page: PageSize,
    /// The entries from the root down; the last maps the page.
    pub entries: Vec<EntryPlace>,
}

/// Builds a [`Machine`].
///
/// ```
/// use memflow_core::{MemoryViewExt, PageSize, PhysAddr, VirtAddr};
/// use memflow_core::testkit::{entry_bits::{PRESENT, WRITABLE}, MachineBuilder, PagingMode};
///
/// let mut builder = MachineBuilder::new(PagingMode::X64, 1 << 20)?;
/// let frame = builder.frame()?;
/// builder.write(frame, b"hello\0")?;
/// let page = builder.map(VirtAddr::new(0xffff_8000_0000_0000), frame, PageSize::KIB_4, PRESENT | WRITABLE)?;
/// assert_eq!(page.entries.len(), 4);
///
/// let view = builder.build()?.view();
/// assert_eq!(view.read_utf8_lossy(page.virt, 64)?, "hello");
/// # Ok::<(), memflow_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MachineBuilder {
    mode: PagingMode,
    runs: Vec<Run>,
    bytes: Vec<u8>,
    root: PhysAddr,
    next_frame: PhysAddr,
    low_memory: u64,
}

impl MachineBuilder {
    /// A machine with `low_memory` bytes from address zero, of which the second page holds the root table. Frames are given out from there on.
    ///
    /// # Errors
    /// [`Error::Range`] when the memory does not hold the root table.
    pub fn new(mode: PagingMode, low_memory: u64) -> Result<Self> {
        let mut builder = Self {
            mode,
            runs: Vec::new(),
            bytes: Vec::new(),
            root: PhysAddr::new(0),
            next_frame: PhysAddr::new(0x1000),
            low_memory,
        };
        builder.add_memory(PhysAddr::new(0), low_memory)?;
        // The root of PAE is 32 bytes and may lie anywhere in a page: here it does not lie at the start.
        builder.root = match mode {
            PagingMode::Pae => builder.frame()?.wrapping_add(0x3e0),
            _ => builder.frame()?,
        };
        Ok(builder)
    }

    /// Adds memory elsewhere.
    ///
    /// # Errors
    /// [`Error::Range`] when it does not fit this machine's address space.
    pub fn add_memory(&mut self, start: PhysAddr, len: u64) -> Result<&mut Self> {
        let out_of_range = || Error::Range { address: start.into(), len };
        let range = PhysRange::new(start, len).ok_or_else(out_of_range)?;
        self.runs.push(Run { range, offset: self.bytes.len() as u64 });
        let len = usize::try_from(len).map_err(|_| out_of_range())?;
        self.bytes.resize(self.bytes.len() + len, 0);
        Ok(self)
    }

    /// Takes memory out again: the address space of the machine has a hole there.
    pub fn remove_memory(&mut self, hole: PhysRange) -> &mut Self {
        let Some(last) = hole.last() else { return self };
        let mut runs = Vec::new();
        for run in self.runs.drain(..) {
            let end = run.range.last();
            let below =
                PhysRange::between(run.range.start(), hole.start().min(run.range.end().unwrap_or(hole.start())));
            runs.extend(below.map(|range| Run { range, offset: run.offset }));
            let above = last.checked_add(1).map(|start| start.max(run.range.start()));
            if let (Some(start), Some(end)) = (above, end)
                && let (Some(range), Some(skipped)) =
                    (PhysRange::inclusive(start, end), start.offset_from(run.range.start()))
            {
                runs.push(Run { range, offset: run.offset + skipped });
            }
        }
        self.runs = runs;
        self
    }

    /// Physical address of the root table.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// The paging mode.
    pub fn mode(&self) -> PagingMode {
        self.mode
    }

    /// The next unused page of low memory, zeroed.
    ///
    /// # Errors
    /// [`Error::Range`] when low memory is used up.
    pub fn frame(&mut self) -> Result<PhysAddr> {
        let frame = self.next_frame;
        let end = frame.wrapping_add(0x1000);
        if end.as_u64() > self.low_memory {
            return Err(Error::Range { address: frame.into(), len: 0x1000 });
        }
        self.next_frame = end;
        Ok(frame)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// [`Error::Range`] when the machine has no memory there.
    pub fn write(&mut self, phys: PhysAddr, bytes: &[u8]) -> Result<&mut Self> {
        self.bytes_mut(phys, bytes.len() as u64)?.copy_from_slice(bytes);
        Ok(self)
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// [`Error::Range`] when the machine has no memory there.
    pub fn set_entry(&mut self, at: PhysAddr, entry: u64) -> Result<&mut Self> {
        match self.mode.entry_bytes() {
            4 => self.write(at, &(entry as u32).to_le_bytes()),
            _ => self.write(at, &entry.to_le_bytes()),
        }
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`Error::Range`] when the machine has no memory there.
    pub fn entry(&mut self, at: PhysAddr) -> Result<u64> {
        let len = self.mode.entry_bytes();
        let bytes = self.bytes_mut(at, len)?;
        Ok(bytes.iter().rev().fold(0, |entry, byte| entry << 8 | u64::from(*byte)))
    }

    /// Maps the page that holds `virt` to `phys`, with `bits` in its entry. Tables that are missing are made, with all rights.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the mode has no pages of this size, or when a larger page is in the way.
    pub fn map(&mut self, virt: VirtAddr, phys: PhysAddr, page: PageSize, bits: u64) -> Result<MappedPage> {
        if !self.mode.page_shifts().contains(&page.shift()) {
            return Err(unsupported(format!("a page of {page}"), format!("{:?} has none", self.mode)));
        }
        let (levels, entry_bytes) = (self.mode.indices(), self.mode.entry_bytes());
        let mut table = self.root;
        let mut entries = Vec::new();
        for (depth, (shift, index_bits)) in levels.iter().enumerate() {
            let level = (levels.len() - depth) as u8;
            let index = (virt.as_u64() >> shift) & ((1 << index_bits) - 1);
            let at = table.wrapping_add(index * entry_bytes);
            entries.push(EntryPlace { level, table, at });
            if *shift == page.shift() {
                self.set_entry(at, page_entry(self.mode, phys, page, bits))?;
                break;
            }
            let entry = self.entry(at)?;
            if entry & PRESENT == 0 {
                table = self.frame()?;
                // The root entries of PAE have no rights.
                let rights = if self.mode == PagingMode::Pae && depth == 0 { 0 } else { WRITABLE | USER };
                self.set_entry(at, table.as_u64() | PRESENT | rights)?;
            } else if entry & LARGE != 0 && *shift != 12 && self.mode != PagingMode::X86NoPse {
                return Err(unsupported(format!("a page at {virt}"), "a larger page is in the way".to_owned()));
            } else {
                table = PhysAddr::new(entry & 0x000f_ffff_ffff_f000);
            }
        }
        Ok(MappedPage { virt: virt.page_base(page), phys: phys.page_base(page), page, entries })
    }

    /// The machine.
    ///
    /// # Errors
    /// [`Error::Overlap`] when memory was added twice.
    pub fn build(self) -> Result<Machine> {
        let runs = RunMap::new(self.runs)?;
        let config = SourceConfig { name: "synthetic machine".into(), runs, facts: TargetFacts::default() };
        Ok(Machine {
            memory: Arc::new(BufferMemory::new(config, self.bytes)?),
            space: AddressSpace::new(self.mode.architecture(), self.root.as_u64()),
            mode: self.mode,
            root: self.root,
        })
    }

    fn bytes_mut(&mut self, phys: PhysAddr, len: u64) -> Result<&mut [u8]> {
        let place = self.runs.iter().find_map(|run| {
            let inside = phys.offset_from(run.range.start())?;
            (inside.checked_add(len)? <= run.range.len()).then_some((run.offset + inside) as usize)
        });
        place
            .and_then(|from| self.bytes.get_mut(from..)?.get_mut(..len as usize))
            .ok_or(Error::Range { address: phys.into(), len })
    }
}

/// The entry that maps a page.
fn page_entry(mode: PagingMode, phys: PhysAddr, page: PageSize, bits: u64) -> u64 {
    let base = phys.page_base(page).as_u64();
    match (mode, page.shift()) {
        (_, 12) => base | bits,
        // Bits 32 to 39 of the address are bits 13 to 20 of the entry.
        (PagingMode::X86, _) => (base & 0xffc0_0000) | (base >> 32 & 0xff) << 13 | LARGE | bits,
        _ => base | LARGE | bits,
    }
}

fn unsupported(what: String, why: String) -> Error {
    Error::Unsupported { what, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixture_returns_every_address_it_made() {
        let mut builder = MachineBuilder::new(PagingMode::Pae, 0x10000).unwrap();
        let page = builder.map(VirtAddr::new(0x4020_1234), PhysAddr::new(0x9000), PageSize::KIB_4, 0x7).unwrap();
        let places: Vec<_> = page.entries.iter().map(|entry| (entry.level, entry.at.as_u64())).collect();
        assert_eq!(places, [(3, 0x13e8), (2, 0x2008), (1, 0x3008)]);
        assert_eq!(builder.entry(PhysAddr::new(0x3008)).unwrap(), 0x9007);
    }

    #[test]
    fn holes_split_memory() {
        let mut builder = MachineBuilder::new(PagingMode::X64, 0x10000).unwrap();
        builder.remove_memory(PhysRange::new(PhysAddr::new(0x4000), 0x1000).unwrap());
        let machine = builder.build().unwrap();
        let regions = crate::memory::PhysicalMemory::metadata(&*machine.memory).runs;
        let ranges: Vec<_> = regions.runs().iter().map(|run| (run.range.to_string(), run.offset)).collect();
        assert_eq!(ranges, [("0x0-0x3fff".to_owned(), 0), ("0x5000-0xffff".to_owned(), 0x5000)]);
    }

    #[test]
    fn misuse_is_an_error() {
        let mut builder = MachineBuilder::new(PagingMode::X86NoPse, 0x3000).unwrap();
        assert!(builder.map(VirtAddr::new(0), PhysAddr::new(0), PageSize::MIB_4, 1).is_err());
        assert!(builder.map(VirtAddr::new(0), PhysAddr::new(0), PageSize::KIB_4, 1).is_ok());
        assert!(builder.frame().is_err());
        assert!(builder.write(PhysAddr::new(0x2fff), &[1, 2]).is_err());
    }
}

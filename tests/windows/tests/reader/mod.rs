//! A second reader of the images: page tables, lists and structures, from what is documented of them.
//!
//! Owns: a walk for each paging mode, and reading by virtual address. Must not know: how images are built.
//! Keeps: nothing of the generator but bytes, offsets and what a walk begins with.

use memflow_windows_images::{Offsets, Paging, Windows};

/// An address space of an image.
pub(crate) struct Reader<'a> {
    pub(crate) windows: &'a Windows,
    pub(crate) offsets: &'a Offsets,
    pub(crate) root: u64,
}

/// Where a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Walk {
    /// At a page: its physical address, with the distance in it, and its size.
    Page(u64, u64),
    /// At an entry of the last level that is not present.
    Entry(u64),
    /// At a table that is not there.
    NoTable,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(windows: &'a Windows, offsets: &'a Offsets, dtb: u64) -> Self {
        // PAE's tables begin at multiples of 32.
        let root = if windows.truth.paging == Paging::Pae { dtb & !0x1f } else { dtb & !0xfff };
        Self { windows, offsets, root }
    }

    pub(crate) fn system(windows: &'a Windows, offsets: &'a Offsets) -> Self {
        Self::new(windows, offsets, windows.truth.dtb)
    }

    pub(crate) fn width(&self) -> u64 {
        if self.offsets.wide { 8 } else { 4 }
    }

    fn physical_number(&self, at: u64, bytes: usize) -> Option<u64> {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(&self.windows.read(at, bytes)?);
        Some(u64::from_le_bytes(number))
    }

    pub(crate) fn walk(&self, address: u64) -> Walk {
        let (shifts, width, bits): (&[u32], u64, u32) = match self.windows.truth.paging {
            Paging::Four => (&[39, 30, 21, 12], 8, 9),
            Paging::Pae => (&[30, 21, 12], 8, 9),
            Paging::Two => (&[22, 12], 4, 10),
        };
        let mut table = self.root;
        for (level, shift) in shifts.iter().enumerate() {
            let index = address >> shift & ((1 << bits) - 1);
            let Some(entry) = self.physical_number(table + index * width, width as usize) else { return Walk::NoTable };
            let frame = entry & 0x000f_ffff_ffff_f000;
            let last = level + 1 == shifts.len();
            if entry & 1 == 0 {
                return if last { Walk::Entry(entry) } else { Walk::NoTable };
            }
            if last || (entry & 0x80 != 0 && *shift < 39 && !(shifts.len() == 3 && level == 0)) {
                let size = 1_u64 << shift;
                return Walk::Page((frame & !(size - 1)) | (address & (size - 1)), size);
            }
            table = frame;
        }
        Walk::NoTable
    }

    /// The physical address of a byte, also of a page in transition.
    pub(crate) fn physical(&self, address: u64) -> Option<u64> {
        match self.walk(address) {
            Walk::Page(at, _) => Some(at),
            Walk::Entry(entry) if entry & 0xc01 == 0x800 => {
                let mask = self.windows.truth.invalid_pte_mask;
                let entry = if entry & 0x10 == 0 { entry ^ mask } else { entry };
                Some((entry & 0x0000_ffff_ffff_f000) | (address & 0xfff))
            }
            Walk::Entry(entry) => self.prototype(address, entry),
            Walk::NoTable => None,
        }
    }

    /// The page behind an entry that names a prototype.
    fn prototype(&self, address: u64, entry: u64) -> Option<u64> {
        let at = match self.windows.truth.paging {
            Paging::Four if entry & 0x8000_0000_0007_0401 == 0x8000_0000_0000_0400 => entry >> 16 | 0xffff << 48,
            Paging::Pae if entry & 0x401 == 0x400 => entry >> 32,
            _ => return None,
        };
        if at as u32 == 0xffff_ffff || at == 0xffff_ffff_ffff_0000 {
            return None;
        }
        let entry = self.number(at, 8)?;
        let mask = self.windows.truth.invalid_pte_mask;
        match entry & 0xc01 {
            entry_bits if entry_bits & 1 == 1 => Some((entry & 0x000f_ffff_ffff_f000) | (address & 0xfff)),
            0x800 => {
                let entry = if entry & 0x10 == 0 { entry ^ mask } else { entry };
                Some((entry & 0x0000_ffff_ffff_f000) | (address & 0xfff))
            }
            _ => None,
        }
    }

    pub(crate) fn bytes(&self, address: u64, length: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = address;
        while at < address + length {
            let here = (0x1000 - at % 0x1000).min(address + length - at);
            bytes.extend(self.windows.read(self.physical(at)?, here as usize)?);
            at += here;
        }
        Some(bytes)
    }

    /// The same with zeros in place of pages that cannot be read.
    pub(crate) fn padded(&self, address: u64, length: u64) -> Vec<u8> {
        let pages = (address..address + length).step_by(0x1000);
        pages.flat_map(|at| self.bytes(at, 0x1000).unwrap_or_else(|| vec![0; 0x1000])).collect()
    }

    pub(crate) fn number(&self, address: u64, bytes: u64) -> Option<u64> {
        let mut number = [0; 8];
        number[..bytes as usize].copy_from_slice(&self.bytes(address, bytes)?);
        Some(u64::from_le_bytes(number))
    }

    pub(crate) fn pointer(&self, address: u64) -> Option<u64> {
        self.number(address, self.width())
    }

    /// A field of a structure by its name in the table, as wide as a pointer.
    pub(crate) fn field(&self, at: u64, name: &str) -> u64 {
        self.pointer(at + self.offset(name)).unwrap_or_else(|| panic!("{name} of {at:#x} cannot be read"))
    }

    pub(crate) fn offset(&self, name: &str) -> u64 {
        self.offsets.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    pub(crate) fn list(&self, head: u64, width: u64) -> Vec<u64> {
        let mut entries = Vec::new();
        let (mut before, mut at) = (head, self.number(head, width).unwrap());
        while at != head {
            assert_eq!(self.number(at + width, width), Some(before), "{at:#x} does not lead back");
            entries.push(at);
            (before, at) = (at, self.number(at, width).unwrap());
            assert!(entries.len() < 10_000, "the list does not close");
        }
        assert_eq!(self.number(head + width, width), Some(before), "the head does not know its last entry");
        entries
    }

    pub(crate) fn string(&self, at: u64, width: u64) -> String {
        let length = self.number(at, 2).unwrap();
        if length == 0 {
            return String::new();
        }
        let bytes = self.bytes(self.number(at + width, width).unwrap(), length).unwrap();
        let units: Vec<u16> = bytes.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        String::from_utf16(&units).unwrap()
    }
}

//! A page walker that shares nothing with the library: the reference for translations.
//!
//! Source: Intel SDM volume 3A, chapter 4 (paging), the figures of each mode. It reads the RAM file through the layout that
//! QEMU's `info mtree -f` gives, one entry at a time.

use std::{fs::File, os::unix::fs::FileExt};

use memflow_guests::monitor::RamRun;

/// A paging mode, by what CR4 and EFER say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// 32-bit, two levels.
    Legacy,
    /// Physical address extension, three levels.
    Pae,
    /// Four levels.
    Four,
    /// Five levels.
    Five,
}

/// The result of a walk that reached a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walked {
    /// Physical address.
    pub phys: u64,
    /// Bytes in the page.
    pub page: u64,
    /// Every level allows writes.
    pub writable: bool,
    /// Every level allows user mode.
    pub user: bool,
    /// Some level forbids execution.
    pub no_execute: bool,
    /// Accessed, of the last entry.
    pub accessed: bool,
    /// Dirty, of the last entry.
    pub dirty: bool,
    /// Global, of the last entry.
    pub global: bool,
}

/// The RAM of a guest and where its pieces lie in the file.
#[derive(Debug)]
pub struct Walker {
    file: File,
    runs: Vec<RamRun>,
}

impl Walker {
    /// A walker over a RAM file with the layout that QEMU told.
    pub fn new(file: File, runs: Vec<RamRun>) -> Self {
        Self { file, runs }
    }

    /// Reads `buf.len()` bytes at a physical address that must lie in one run.
    pub fn read(&self, phys: u64, buf: &mut [u8]) -> Option<()> {
        let run = self.runs.iter().find(|run| phys >= run.phys && phys - run.phys < run.len)?;
        let inside = phys - run.phys;
        if run.len - inside < buf.len() as u64 {
            return None;
        }
        self.file.read_exact_at(buf, run.offset + inside).ok()
    }

    fn entry(&self, phys: u64, bytes: usize) -> Option<u64> {
        let mut buf = [0; 8];
        self.read(phys, &mut buf[..bytes])?;
        Some(u64::from_le_bytes(buf))
    }

    /// Walks; `None` when no page is reached.
    pub fn walk(&self, mode: Mode, cr3: u64, va: u64) -> Option<Walked> {
        match mode {
            Mode::Legacy => self.walk_legacy(cr3, va),
            Mode::Pae => self.walk_pae(cr3, va),
            Mode::Four | Mode::Five => {
                let bits = if mode == Mode::Four { 48 } else { 57 };
                let sign = (va as i64) >> (bits - 1);
                if sign != 0 && sign != -1 {
                    return None;
                }
                let top = if mode == Mode::Four { 39 } else { 48 };
                self.walk_long(cr3 & 0x000f_ffff_ffff_f000, va, top, (true, true, false))
            }
        }
    }

    fn walk_legacy(&self, cr3: u64, va: u64) -> Option<Walked> {
        if va >> 32 != 0 {
            return None;
        }
        let pde = self.entry((cr3 & 0xffff_f000) + (va >> 22) * 4, 4)?;
        if pde & 1 == 0 {
            return None;
        }
        if pde & 0x80 != 0 {
            // PSE-36: bits 20..13 are address bits 39..32; bit 21 is reserved.
            if pde & (1 << 21) != 0 {
                return None;
            }
            let high = (pde >> 13) & 0xff;
            return Some(leaf(
                pde,
                (pde & 0xffc0_0000) | (high << 32) | (va & 0x3f_ffff),
                4 << 20,
                (true, true, false),
            ));
        }
        let pte = self.entry((pde & 0xffff_f000) + ((va >> 12) & 0x3ff) * 4, 4)?;
        let rights = (pde & 2 != 0, pde & 4 != 0, false);
        (pte & 1 != 0).then(|| leaf(pte, (pte & 0xffff_f000) | (va & 0xfff), 4096, rights))
    }

    fn walk_pae(&self, cr3: u64, va: u64) -> Option<Walked> {
        if va >> 32 != 0 {
            return None;
        }
        let pdpte = self.entry((cr3 & 0xffff_ffe0) + (va >> 30) * 8, 8)?;
        if pdpte & 1 == 0 {
            return None;
        }
        self.walk_long(pdpte & 0x000f_ffff_ffff_f000, va, 21, (true, true, false))
    }

    fn walk_long(&self, table: u64, va: u64, shift: u32, rights: (bool, bool, bool)) -> Option<Walked> {
        let entry = self.entry(table + ((va >> shift) & 0x1ff) * 8, 8)?;
        if entry & 1 == 0 {
            return None;
        }
        let frame = entry & 0x000f_ffff_ffff_f000;
        let large = entry & 0x80 != 0;
        if shift == 12 {
            return Some(leaf(entry, frame | (va & 0xfff), 4096, rights));
        }
        if large {
            let page = 1u64 << shift;
            // Bit 12 is PAT; the other bits below the page's frame must be zero, and no page is larger than 1 GiB.
            if shift > 30 || frame & (page - 1) & !0x1000 != 0 {
                return None;
            }
            return Some(leaf(entry, (frame & !(page - 1)) | (va & (page - 1)), page, rights));
        }
        let rights = (rights.0 && entry & 2 != 0, rights.1 && entry & 4 != 0, rights.2 || entry >> 63 != 0);
        self.walk_long(frame, va, shift - 9, rights)
    }
}

fn leaf(entry: u64, phys: u64, page: u64, (writable, user, no_execute): (bool, bool, bool)) -> Walked {
    Walked {
        phys,
        page,
        writable: writable && entry & 2 != 0,
        user: user && entry & 4 != 0,
        no_execute: no_execute || entry >> 63 != 0,
        accessed: entry & 0x20 != 0,
        dirty: entry & 0x40 != 0,
        global: entry & 0x100 != 0,
    }
}

//! Pools: memory that the kernel hands out, with the headers and tags that it puts before each piece.
//!
//! Owns: regions of the kernel's half, headers of pieces. Must not know: what a piece holds.
//! Keeps: a piece smaller than a page crosses no page; larger ones begin at a page and have no header.

use crate::{
    Error,
    machine::{KERNEL, Machine},
    physical::PAGE,
    tables::Rights,
};

/// Which pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pool {
    /// Always in memory.
    NonPaged,
    /// May be paged out.
    Paged,
}

/// Addresses that are handed out from below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    next: u64,
    end: u64,
    /// Size of the piece before the next one, in units of headers; 0 at the begin of a page.
    before: u64,
}

impl Region {
    pub(crate) fn new(start: u64, bytes: u64) -> Self {
        Self { next: start, end: start + bytes, before: 0 }
    }
}

/// The regions of the kernel.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) non_paged: Region,
    pub(crate) paged: Region,
    /// Stacks and other mappings in whole pages.
    pub(crate) system: Region,
    /// Images of drivers.
    pub(crate) drivers: Region,
    /// Where the records of frames begin; none of them is there.
    pub(crate) pfn_database: u64,
}

impl Machine {
    /// Fills memory of the kernel with what fields might hold that nobody is interested in: zeros, small numbers, pointers, bits.
    pub(crate) fn clutter(&mut self, at: u64, size: u64) -> Result<(), Error> {
        let width = self.pointer();
        let pool = self.pools.non_paged.next & !(PAGE - 1);
        for slot in 0..size / width {
            let value = match self.rng.u8(0..10) {
                0..=4 => 0,
                5 | 6 => self.rng.u64(0..0x1000),
                7 | 8 => pool - self.rng.u64(0..0x1_0000) / 16 * 16,
                _ => self.rng.u64(..),
            };
            self.put_pointer(at + slot * width, value)?;
        }
        Ok(())
    }

    /// A piece of a pool, filled with zeros, whose header has `tag`.
    pub(crate) fn pool(&mut self, pool: Pool, size: u64, tag: &[u8; 4]) -> Result<u64, Error> {
        let header = 2 * self.pointer();
        let region = match pool {
            Pool::NonPaged => &mut self.pools.non_paged,
            Pool::Paged => &mut self.pools.paged,
        };
        let total = (size + header).next_multiple_of(header);
        let big = total > PAGE;
        if big || region.next % PAGE + total > PAGE {
            region.next = region.next.next_multiple_of(PAGE);
            region.before = 0;
        }
        if region.next.is_multiple_of(PAGE) {
            region.before = 0;
        }
        let (at, before) = (region.next, region.before);
        let taken = if big { size.next_multiple_of(PAGE) } else { total };
        region.next += taken;
        region.before = total / header;
        if region.next > region.end {
            return Err(Error::OutOfMemory);
        }
        self.map_all(KERNEL, at, taken, Rights::KERNEL)?;
        if big {
            return Ok(at);
        }
        let kind = if pool == Pool::Paged { 3 } else { 2 };
        let units = total / header;
        let word =
            if self.pointer() == 8 { before | units << 16 | kind << 24 } else { before | units << 16 | kind << 25 };
        self.put(KERNEL, at, 4, word)?;
        self.write(KERNEL, at + 4, tag)?;
        Ok(at + header)
    }

    /// Addresses of whole pages for mappings of the system; nothing is mapped yet.
    pub(crate) fn system_pages(&mut self, pages: u64) -> Result<u64, Error> {
        take(&mut self.pools.system, pages * PAGE, PAGE)
    }

    /// Addresses for the image of a driver.
    pub(crate) fn driver_pages(&mut self, bytes: u64) -> Result<u64, Error> {
        // Images of drivers lie apart by a random number of pages.
        let gap = self.rng.u64(1..8) * PAGE;
        take(&mut self.pools.drivers, gap, PAGE)?;
        take(&mut self.pools.drivers, bytes, PAGE)
    }
}

fn take(region: &mut Region, bytes: u64, align: u64) -> Result<u64, Error> {
    let at = region.next.next_multiple_of(align);
    region.next = at + bytes.next_multiple_of(align);
    if region.next > region.end { Err(Error::OutOfMemory) } else { Ok(at) }
}

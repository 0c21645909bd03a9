//! The least that a walk can cost: raw pointers, no check, nothing reported but the address.
//!
//! Owns: the unchecked walks, one by one and interleaved, and the reads on top of them. Must not know: the library's walker.
//! Keeps: only addresses whose whole walk was checked before, load by load, are ever walked unchecked.
//! Source: Intel SDM, volume 3A, chapter "Paging".

use std::{fmt, ops::Range, ptr};

use memflow_core::{PhysAddr, memory::Liveness};

use crate::image::Image;

/// The bits of an entry that hold an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The entry is present.
const PRESENT: u64 = 1;
/// The entry is a page, above the lowest level.
const LARGE: u64 = 1 << 7;
/// The bytes of a base page.
const PAGE: usize = 4096;

/// Why an image or an address cannot be walked without checks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UncheckedError {
    /// The memory has no direct map, or one that may change.
    NotFrozen,
    /// The paging mode is not a 64-bit one of x86.
    Mode(&'static str),
    /// The walk of this address leaves the first region of the memory, or ends without a page.
    Address(u64),
}

impl fmt::Display for UncheckedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFrozen => f.write_str("the memory does not lie in this process, or may change"),
            Self::Mode(name) => write!(f, "no bare walk for {name}"),
            Self::Address(address) => write!(f, "{address:#x} is not mapped, or not to memory at hand"),
        }
    }
}

impl std::error::Error for UncheckedError {}

/// An address space for which there are bare walks.
#[derive(Clone, Copy)]
pub struct Bare<'a> {
    image: &'a Image,
    // INVARIANT: physical memory `0..len` can be read at `base` for as long as the image is borrowed, and does not change.
    base: *const u8,
    len: u64,
    root: u64,
    five_levels: bool,
}

// SAFETY: `base` leads to memory that does not change and that the image, which is borrowed, keeps in place for every thread.
unsafe impl Send for Bare<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Bare<'_> {}

impl fmt::Debug for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bare({})", self.image.name)
    }
}

impl<'a> Bare<'a> {
    /// Bare walks of an image: its first region, which has to start at address zero, holds all that they touch.
    ///
    /// # Errors
    /// [`UncheckedError::NotFrozen`] and [`UncheckedError::Mode`].
    pub fn new(image: &'a Image) -> Result<Self, UncheckedError> {
        let map = image.memory.direct_map().ok_or(UncheckedError::NotFrozen)?;
        let region = map.regions().first().ok_or(UncheckedError::NotFrozen)?;
        if map.liveness() != Liveness::Frozen || !region.range.start().is_null() {
            return Err(UncheckedError::NotFrozen);
        }
        let mode = image.space.architecture();
        let five_levels = match (mode.name, mode.levels.len()) {
            ("x86-64 4-level", 4) => false,
            ("x86-64 5-level", 5) => true,
            (name, _) => return Err(UncheckedError::Mode(name)),
        };
        let root = image.space.root().as_u64();
        Ok(Self { image, base: region.ptr, len: region.range.len(), root, five_levels })
    }

    /// The image.
    pub fn image(&self) -> &'a Image {
        self.image
    }

    /// Checks that a walk of each address ends at `span` bytes of one page, and that it and those bytes stay in the first region.
    ///
    /// # Errors
    /// [`UncheckedError::Address`] with the first address that cannot be walked.
    pub fn check(self, addresses: Vec<u64>, span: usize) -> Result<Checked<'a>, UncheckedError> {
        match addresses.iter().find(|address| !self.is_walkable(**address, span as u64)) {
            Some(address) => Err(UncheckedError::Address(*address)),
            None => Ok(Checked { bare: self, addresses, span }),
        }
    }

    fn is_walkable(&self, address: u64, span: u64) -> bool {
        let Some(map) = self.image.memory.direct_map() else { return false };
        let mut table = self.root;
        let mut shift = if self.five_levels { 48 } else { 39 };
        loop {
            let at = table + (address >> shift & 511) * 8;
            let Ok(entry) = map.load_u64(PhysAddr::new(at)) else { return false };
            if at + 8 > self.len || entry & PRESENT == 0 {
                return false;
            }
            if shift == 12 || (shift <= 30 && entry & LARGE != 0) {
                let (phys, last) =
                    (page_address(entry, address, shift), page_address(entry, address + span - 1, shift));
                return last == phys + span - 1 && last < self.len;
            }
            table = entry & ADDRESS;
            shift -= 9;
        }
    }

    /// Walks one address.
    ///
    /// # Safety
    /// [`is_walkable`](Self::is_walkable) said yes to the address.
    #[inline(always)]
    unsafe fn walk<const LEVELS: u32>(&self, address: u64) -> u64 {
        let mut table = self.root;
        let mut shift = 12 + 9 * (LEVELS - 1);
        loop {
            // SAFETY: the walk was checked: the table lies in the memory.
            let entry = unsafe { self.entry(table + (address >> shift & 511) * 8) };
            if shift == 12 || (shift <= 30 && entry & LARGE != 0) {
                return page_address(entry, address, shift);
            }
            table = entry & ADDRESS;
            shift -= 9;
        }
    }

    /// Loads an entry.
    ///
    /// # Safety
    /// The eight bytes at `at` lie in the memory; `at` is a multiple of eight.
    #[inline(always)]
    unsafe fn entry(&self, at: u64) -> u64 {
        // SAFETY: inside the memory, by the caller's word.
        let place = unsafe { self.base.add(at as usize) }.cast::<u64>();
        // SAFETY: readable and unchanging (INVARIANT); a mapping or an aligned table of one, so aligned to eight bytes or not
        // at all, hence unaligned.
        unsafe { place.read_unaligned() }
    }

    /// Asks the processor to fetch the line of a physical address.
    #[inline(always)]
    fn prefetch(&self, at: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let place = self.base.wrapping_add(at as usize);
            // SAFETY: a hint, which faults at no address; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// Walks `N` addresses side by side: while one waits for memory, the others go on.
    ///
    /// # Safety
    /// [`is_walkable`](Self::is_walkable) said yes to each address.
    #[inline(always)]
    unsafe fn walk_together<const LEVELS: u32, const N: usize>(&self, addresses: &[u64; N], out: &mut [u64; N]) {
        let top = 12 + 9 * (LEVELS - 1);
        let mut at = [0; N];
        for (at, address) in at.iter_mut().zip(addresses) {
            *at = self.root + (address >> top & 511) * 8;
        }
        // Lanes that have not reached their page; `N` is at most 64.
        let mut open = u64::MAX >> (64 - N);
        let mut shift = top;
        loop {
            for lane in 0..N {
                if open >> lane & 1 == 0 {
                    continue;
                }
                // SAFETY: the walk was checked: the table lies in the memory.
                let entry = unsafe { self.entry(at[lane]) };
                if shift == 12 || (shift <= 30 && entry & LARGE != 0) {
                    out[lane] = page_address(entry, addresses[lane], shift);
                    open &= !(1 << lane);
                } else {
                    at[lane] = (entry & ADDRESS) + (addresses[lane] >> (shift - 9) & 511) * 8;
                    self.prefetch(at[lane]);
                }
            }
            if shift == 12 || open == 0 {
                return;
            }
            shift -= 9;
        }
    }
}

/// The physical address below the entry of a page.
#[inline(always)]
fn page_address(entry: u64, address: u64, shift: u32) -> u64 {
    let inside = (1 << shift) - 1;
    (entry & ADDRESS & !inside) | (address & inside)
}

/// Runs `$body` with `$levels` as a constant.
macro_rules! by_levels {
    ($bare:expr, $levels:ident => $body:expr) => {
        if $bare.five_levels {
            const $levels: u32 = 5;
            $body
        } else {
            const $levels: u32 = 4;
            $body
        }
    };
}

/// Addresses that may be walked without checks.
#[derive(Clone, Debug)]
pub struct Checked<'a> {
    bare: Bare<'a>,
    // INVARIANT: `is_walkable` said yes to each with `span` bytes.
    addresses: Vec<u64>,
    span: usize,
}

impl<'a> Checked<'a> {
    /// The image.
    pub fn image(&self) -> &'a Image {
        self.bare.image
    }

    /// The addresses.
    pub fn addresses(&self) -> &[u64] {
        &self.addresses
    }

    /// Bytes that lie behind each address in its page.
    pub fn span(&self) -> usize {
        self.span
    }

    /// Walks the addresses of a range of indices, one after the other.
    #[inline(never)]
    pub fn translate(&self, range: Range<usize>, out: &mut [u64]) {
        by_levels!(self.bare, LEVELS => {
            for (out, address) in out[range.clone()].iter_mut().zip(&self.addresses[range]) {
                // SAFETY: the address was checked (INVARIANT).
                *out = unsafe { self.bare.walk::<LEVELS>(*address) };
            }
        });
    }

    /// The same, `N` at a time (at most 64).
    #[inline(never)]
    pub fn translate_together<const N: usize>(&self, range: Range<usize>, out: &mut [u64]) {
        let (addresses, _) = self.addresses[range.clone()].as_chunks::<N>();
        let (chunks, _) = out[range.clone()].as_chunks_mut::<N>();
        by_levels!(self.bare, LEVELS => {
            for (out, addresses) in chunks.iter_mut().zip(addresses) {
                // SAFETY: the addresses were checked (INVARIANT).
                unsafe { self.bare.walk_together::<LEVELS, N>(addresses, out) };
            }
        });
        let rest = range.start + range.len() / N * N;
        self.translate(rest..range.end, out);
    }

    /// Reads eight bytes at each address.
    ///
    /// # Panics
    /// When the addresses were not checked for eight bytes.
    #[inline(never)]
    pub fn read(&self, range: Range<usize>, out: &mut [u64]) {
        assert!(self.span >= 8, "checked for {} bytes", self.span);
        by_levels!(self.bare, LEVELS => {
            for (out, address) in out[range.clone()].iter_mut().zip(&self.addresses[range]) {
                // SAFETY: the address was checked (INVARIANT).
                let phys = unsafe { self.bare.walk::<LEVELS>(*address) };
                // SAFETY: checked with eight bytes (asserted above).
                *out = unsafe { self.bare.entry(phys) };
            }
        });
    }

    /// The same, `N` at a time (at most 64).
    ///
    /// # Panics
    /// As [`read`](Self::read).
    #[inline(never)]
    pub fn read_together<const N: usize>(&self, range: Range<usize>, out: &mut [u64]) {
        assert!(self.span >= 8, "checked for {} bytes", self.span);
        let (addresses, _) = self.addresses[range.clone()].as_chunks::<N>();
        let (chunks, _) = out[range.clone()].as_chunks_mut::<N>();
        by_levels!(self.bare, LEVELS => {
            let mut phys = [0; N];
            for (out, addresses) in chunks.iter_mut().zip(addresses) {
                // SAFETY: the addresses were checked (INVARIANT).
                unsafe { self.bare.walk_together::<LEVELS, N>(addresses, &mut phys) };
                phys.iter().for_each(|phys| self.bare.prefetch(*phys));
                for (out, phys) in out.iter_mut().zip(&phys) {
                    // SAFETY: checked with eight bytes (asserted above).
                    *out = unsafe { self.bare.entry(*phys) };
                }
            }
        });
        let rest = range.start + range.len() / N * N;
        self.read(rest..range.end, out);
    }

    /// Copies a page's worth of bytes from each address to its place in `out`.
    ///
    /// # Panics
    /// When the addresses were not checked for that, or `out` is too short.
    #[inline(never)]
    pub fn read_pages(&self, range: Range<usize>, out: &mut [u8]) {
        assert!(self.span >= PAGE, "checked for {} bytes", self.span);
        let (pages, _) = out.as_chunks_mut::<PAGE>();
        by_levels!(self.bare, LEVELS => {
            for (out, address) in pages[range.clone()].iter_mut().zip(&self.addresses[range]) {
                // SAFETY: the address was checked (INVARIANT).
                let phys = unsafe { self.bare.walk::<LEVELS>(*address) };
                // SAFETY: inside the memory, as the walk was checked.
                let from = unsafe { self.bare.base.add(phys as usize) };
                // SAFETY: checked with a page's worth of bytes (asserted above), which never change; `out` is a buffer of ours,
                // so the two do not overlap.
                unsafe { ptr::copy_nonoverlapping(from, out.as_mut_ptr(), PAGE) };
            }
        });
    }

    /// Where the bytes behind each address lie in this process, neighbours joined: what a read of them could cost at best is a copy of
    /// each of these.
    pub fn runs(&self) -> Vec<&'a [u8]> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut phys = vec![0; self.addresses.len()];
        self.translate(0..phys.len(), &mut phys);
        for from in phys {
            match runs.last_mut() {
                Some(run) if run.end == from => run.end += self.span as u64,
                _ => runs.push(from..from + self.span as u64),
            }
        }
        let bytes = |run: Range<u64>| {
            // SAFETY: inside the memory, as each part of the run was checked.
            let from = unsafe { self.bare.base.add(run.start as usize) };
            // SAFETY: readable and unchanging for as long as the image is borrowed (INVARIANT of `Bare`).
            unsafe { std::slice::from_raw_parts(from, (run.end - run.start) as usize) }
        };
        runs.into_iter().map(bytes).collect()
    }
}

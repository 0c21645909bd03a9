//! Physical memory whose bytes lie in this process.
//!
//! Owns: the regions `{phys, len, ptr}` of a target and every access through them.
//! Must not know: who mapped them, paging.
//! Keeps: bytes of live memory are copied, never referenced; only frozen memory lends slices. After each access the backing is
//! asked whether the bytes were really there, so a file that was cut short underneath gives an error and not zeros.

use std::{
    fmt, slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Liveness, Outcome, PhysRead, PhysWrite, Run, RunMap, finish_reads, finish_writes, live,
    table_pages::{TablePages, Window},
};
use crate::{
    address::{PhysAddr, PhysRange},
    error::{Error, Reason, Result},
};

/// What keeps the bytes of a [`DirectMap`] in this process.
///
/// # Safety
/// - The memory given to [`DirectMap::new`] together with a backing stays readable (and writable, where the map says so) at
///   the same address until the backing is dropped.
/// - [`lost_from`](Self::lost_from) answers with the same place each time, which stays until the backing is dropped.
pub unsafe trait Backing: Send + Sync {
    /// Where the backing notes the offset from its base from which on bytes were found missing: `u64::MAX` as long as none were,
    /// never rising. `None` when no bytes can go missing.
    ///
    /// Looked at after an access: bytes at or past the offset must not be trusted.
    fn lost_from(&self) -> Option<&AtomicU64>;
}

/// What [`Backing::lost_from`] stands for when no bytes can go missing.
static NOTHING_LOST: AtomicU64 = AtomicU64::new(u64::MAX);

/// Consecutive physical memory in this process.
#[derive(Clone, Copy)]
pub struct DirectRegion {
    /// The physical addresses.
    pub range: PhysRange,
    /// Where the first byte lies in this process.
    pub ptr: *mut u8,
    /// Offset of that byte from the base of the backing.
    pub offset: u64,
}

impl fmt::Debug for DirectRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectRegion({} at {:p})", self.range, self.ptr)
    }
}

impl DirectRegion {
    /// The regions of `runs` whose offsets are into `len` bytes at `base`.
    ///
    /// # Errors
    /// [`Error::Range`] when a run reaches past those bytes.
    pub fn of_runs(runs: &RunMap, base: *mut u8, len: usize) -> Result<Vec<Self>> {
        let region = |run: &Run| {
            let end = run.offset.checked_add(run.range.len()).filter(|end| *end <= len as u64);
            match (end, usize::try_from(run.offset)) {
                (Some(_), Ok(offset)) => {
                    Ok(Self { range: run.range, ptr: base.wrapping_add(offset), offset: run.offset })
                }
                _ => Err(Error::Range { address: run.range.start().into(), len: run.range.len() }),
            }
        };
        runs.runs().iter().map(region).collect()
    }
}

/// A load that did not work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// No region holds all the bytes.
    NotInImage,
    /// The file behind the region was cut short.
    Truncated,
}

/// Values of one size in the part of a map that is at hand.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a, const SIZE: usize> {
    map: &'a DirectMap,
    /// Where the part starts.
    start: u64,
    // INVARIANT: `SIZE` bytes of a region can be read from each place up to so far behind `ptr`.
    last: u64,
    ptr: *const u8,
    frozen: bool,
}

impl<const SIZE: usize> Values<'_, SIZE> {
    /// Copies the value at `addr` if it is at hand; false if not. What was copied is to be believed only if
    /// [`lost_nothing`](DirectMap::lost_nothing) says so afterwards.
    #[inline(always)]
    pub(crate) fn copy(&self, addr: PhysAddr, value: &mut [u8; SIZE]) -> bool {
        let inside = addr.as_u64().wrapping_sub(self.start);
        if inside > self.last {
            return false;
        }
        // A region lies in this process, so an offset into it fits.
        let ptr = self.ptr.wrapping_add(inside as usize);
        if self.frozen {
            // SAFETY: readable (INVARIANT) for as long as the map is borrowed; frozen memory does not change (contract of `new`).
            unsafe { live::load_frozen(ptr, value) };
        } else {
            // SAFETY: readable (INVARIANT) for as long as the map is borrowed; live memory is never referenced.
            unsafe { live::load(ptr, value) };
        }
        true
    }

    /// As [`DirectMap::lost_nothing`].
    #[inline(always)]
    pub(crate) fn lost_nothing(&self) -> bool {
        self.map.lost_nothing()
    }
}

/// Whether bytes of a map were found missing.
#[derive(Clone, Copy)]
pub(crate) struct Losses<'a>(&'a AtomicU64);

impl Losses<'_> {
    /// As [`DirectMap::lost_nothing`].
    #[inline(always)]
    pub(crate) fn are_none(self) -> bool {
        self.0.load(Ordering::Acquire) == u64::MAX
    }
}

/// Regions of physical memory in this process, sorted by address.
pub struct DirectMap {
    // INVARIANT: sorted, disjoint, not empty; each region is readable for as long as `backing` lives (contract of `new`).
    regions: Box<[DirectRegion]>,
    // INVARIANT: whole pages of one of the regions.
    window: Window,
    liveness: Liveness,
    writable: bool,
    // INVARIANT: what the backing answers to `lost_from`, or `NOTHING_LOST`; so it can be read for as long as `backing` lives.
    lost: *const AtomicU64,
    /// Keeps the regions readable.
    backing: Arc<dyn Backing>,
}

// SAFETY: the pointers are to memory that the backing keeps mapped, whatever thread holds the map; all access to live memory
// is by volatile copies, and frozen memory is only read.
unsafe impl Send for DirectMap {}
// SAFETY: as for Send; no access goes through a `&mut`.
unsafe impl Sync for DirectMap {}

impl fmt::Debug for DirectMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectMap")
            .field("regions", &self.regions)
            .field("liveness", &self.liveness)
            .finish_non_exhaustive()
    }
}

/// Loads whose bytes may turn out to have been missing. The first region, which holds most of the memory of most targets, is at hand.
#[derive(Clone, Copy)]
pub(crate) struct Unconfirmed<'a> {
    map: &'a DirectMap,
    /// Where the first region starts.
    start: u64,
    // INVARIANT: eight bytes can be read from each of so many first bytes of the region at `ptr`.
    starts: u64,
    ptr: *mut u8,
}

impl Unconfirmed<'_> {
    /// The map.
    pub(crate) fn map(&self) -> &DirectMap {
        self.map
    }

    /// As [`DirectMap::load_u64`]; `None` when no region holds all eight bytes.
    #[inline(always)]
    pub(crate) fn load_u64(&self, addr: PhysAddr) -> Option<u64> {
        match self.at_hand(addr) {
            // SAFETY: eight bytes can be read there (INVARIANT), for as long as the map is borrowed.
            Some(ptr) => Some(unsafe { live::load_u64(ptr) }),
            None => self.map.load_u64_further(addr),
        }
    }

    /// As [`DirectMap::load_u32`]; `None` when no region holds all four bytes.
    #[inline(always)]
    pub(crate) fn load_u32(&self, addr: PhysAddr) -> Option<u32> {
        match self.at_hand(addr) {
            // SAFETY: as in `load_u64`.
            Some(ptr) => Some(unsafe { live::load_u32(ptr) }),
            None => self.map.load_u32_further(addr),
        }
    }

    #[inline(always)]
    fn at_hand(&self, addr: PhysAddr) -> Option<*const u8> {
        let inside = addr.as_u64().wrapping_sub(self.start);
        // A region lies in this process, so an offset into it fits.
        (inside < self.starts).then(|| self.ptr.wrapping_add(inside as usize).cast_const())
    }
}

impl DirectMap {
    /// A map of the given regions.
    ///
    /// # Errors
    /// [`Error::Overlap`] when two regions hold the same address.
    ///
    /// # Safety
    /// - every region is readable, and writable if `writable`, until `backing` is dropped;
    /// - with [`Liveness::Frozen`] nobody writes to the bytes;
    /// - no reference of this process points into live regions.
    pub unsafe fn new(
        regions: impl IntoIterator<Item = DirectRegion>,
        liveness: Liveness,
        writable: bool,
        backing: Arc<dyn Backing>,
    ) -> Result<Self> {
        let mut regions: Vec<DirectRegion> = regions.into_iter().filter(|region| !region.range.is_empty()).collect();
        regions.sort_by_key(|region| region.range.start());
        for pair in regions.windows(2) {
            if let [first, second] = pair
                && first.range.intersection(&second.range).is_some()
            {
                return Err(Error::Overlap { first: first.range, second: second.range });
            }
        }
        let lost: *const AtomicU64 = backing.lost_from().unwrap_or(&NOTHING_LOST);
        let window = regions.iter().map(Window::of).fold(Window::EMPTY, Window::larger);
        Ok(Self { regions: regions.into(), window, liveness, writable, lost, backing })
    }

    /// The same regions, as a map that refuses writes. The bytes are shared, not copied: what others change shows here too.
    #[must_use]
    pub fn read_only(&self) -> Self {
        let Self { regions, window, liveness, writable: _, lost, backing } = self;
        Self {
            regions: regions.clone(),
            window: *window,
            liveness: *liveness,
            writable: false,
            lost: *lost,
            backing: backing.clone(),
        }
    }

    /// The regions, sorted by address.
    pub fn regions(&self) -> &[DirectRegion] {
        &self.regions
    }

    /// Whether the bytes change while they are read.
    pub fn liveness(&self) -> Liveness {
        self.liveness
    }

    /// The region that holds `addr`, and the offset of `addr` in it.
    #[inline]
    fn find(&self, addr: PhysAddr) -> Option<(&DirectRegion, u64)> {
        // Few targets have more than three regions, and a search of a sorted handful is a few predicted branches.
        let index = if self.regions.len() <= 4 {
            self.regions.iter().position(|region| region.range.last().is_some_and(|last| addr <= last))?
        } else {
            self.regions.partition_point(|region| region.range.last().is_some_and(|last| last < addr))
        };
        let region = self.regions.get(index)?;
        let inside = addr.offset_from(region.range.start())?;
        Some((region, inside))
    }

    /// Pointer to `len` bytes at `addr`, and the offset of their end in the backing, if one region holds them all.
    #[inline]
    fn locate(&self, addr: PhysAddr, len: u64) -> Option<(*mut u8, u64)> {
        let (region, inside) = self.find(addr)?;
        let rest = region.range.len().checked_sub(inside)?;
        let offset = usize::try_from(inside).ok()?;
        (len <= rest).then(|| (region.ptr.wrapping_add(offset), region.offset.wrapping_add(inside).wrapping_add(len)))
    }

    /// Pointer to `len` bytes at `addr` if one region holds them all.
    pub(super) fn whole(&self, addr: PhysAddr, len: u64) -> Option<*const u8> {
        self.locate(addr, len).map(|(ptr, _)| ptr.cast_const())
    }

    /// The pages that may hold page tables. What is loaded from them is to be believed only if
    /// [`lost_nothing`](Self::lost_nothing) says so afterwards.
    #[inline(always)]
    pub(crate) fn tables(&self) -> TablePages<'_> {
        self.window.tables(self)
    }

    /// A way to load that is to be believed only if [`lost_nothing`](Self::lost_nothing) says so afterwards.
    #[inline]
    pub(crate) fn unconfirmed(&self) -> Unconfirmed<'_> {
        match &*self.regions {
            [first, ..] => Unconfirmed {
                map: self,
                start: first.range.start().as_u64(),
                starts: first.range.len().saturating_sub(7),
                ptr: first.ptr,
            },
            [] => Unconfirmed { map: self, start: 0, starts: 0, ptr: std::ptr::null_mut() },
        }
    }

    #[inline(never)]
    fn load_u64_further(&self, addr: PhysAddr) -> Option<u64> {
        let (ptr, _) = self.locate(addr, 8)?;
        // SAFETY: `locate` says that a region holds the eight bytes, and regions are readable (INVARIANT).
        Some(unsafe { live::load_u64(ptr) })
    }

    #[inline(never)]
    fn load_u32_further(&self, addr: PhysAddr) -> Option<u32> {
        let (ptr, _) = self.locate(addr, 4)?;
        // SAFETY: as in `load_u64_further`.
        Some(unsafe { live::load_u32(ptr) })
    }

    /// Whether the bytes can be written to.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Where the backing notes from which offset on bytes were found missing.
    #[inline]
    pub(crate) fn lost_from(&self) -> &AtomicU64 {
        // SAFETY: it can be read for as long as the backing lives (INVARIANT), which this map owns.
        unsafe { &*self.lost }
    }

    /// True as long as no bytes of the backing were found missing: every load before was good.
    #[inline]
    pub(crate) fn lost_nothing(&self) -> bool {
        self.lost_from().load(Ordering::Acquire) == u64::MAX
    }

    /// What [`lost_nothing`](Self::lost_nothing) looks at, without the way there.
    #[inline]
    pub(crate) fn losses(&self) -> Losses<'_> {
        Losses(self.lost_from())
    }

    /// Checks after an access that the bytes up to `end` of the backing were really there.
    #[inline]
    fn intact(&self, end: u64) -> Result<(), LoadError> {
        if end <= self.lost_from().load(Ordering::Acquire) { Ok(()) } else { Err(LoadError::Truncated) }
    }

    /// Loads a little-endian `u64`, in one access when the address is aligned.
    ///
    /// # Errors
    /// [`LoadError`], when no region holds all eight bytes or the file behind it was cut short.
    #[inline]
    pub fn load_u64(&self, addr: PhysAddr) -> Result<u64, LoadError> {
        let (ptr, end) = self.locate(addr, 8).ok_or(LoadError::NotInImage)?;
        // SAFETY: `locate` says that a region holds the eight bytes, and regions are readable (INVARIANT).
        let value = unsafe { live::load_u64(ptr) };
        self.intact(end).map(|()| value)
    }

    /// Loads a little-endian `u32`, in one access when the address is aligned.
    ///
    /// # Errors
    /// As [`load_u64`](Self::load_u64).
    #[inline]
    pub fn load_u32(&self, addr: PhysAddr) -> Result<u32, LoadError> {
        let (ptr, end) = self.locate(addr, 4).ok_or(LoadError::NotInImage)?;
        // SAFETY: as in `load_u64`.
        let value = unsafe { live::load_u32(ptr) };
        self.intact(end).map(|()| value)
    }

    /// The bytes of frozen memory in place; `None` when the memory is live, when no single region holds them, or when the file
    /// behind them was cut short.
    ///
    /// Frozen files are lent on the promise that nobody writes to them while they are open.
    #[inline]
    pub fn slice(&self, range: PhysRange) -> Option<&[u8]> {
        if self.liveness == Liveness::Live {
            return None;
        }
        let (ptr, end) = self.locate(range.start(), range.len())?;
        self.intact(end).ok()?;
        let len = usize::try_from(range.len()).ok()?;
        // SAFETY:
        // - `ptr..ptr + len` is inside a region, which stays readable as long as `self` holds the backing (INVARIANT);
        // - the memory is frozen: nobody writes to it (contract of `new`);
        // - a region is one mapping or buffer, so `len` is at most `isize::MAX`.
        Some(unsafe { slice::from_raw_parts(ptr, len) })
    }

    /// Copies the bytes at `addr` if they are at hand; false if not. What was copied is to be believed only if
    /// [`lost_nothing`](Self::lost_nothing) says so afterwards.
    #[inline(always)]
    pub(crate) fn copy_at_hand(&self, addr: PhysAddr, buf: &mut [u8]) -> bool {
        let Some(ptr) = self.window.bytes(addr, buf.len()) else { return false };
        // SAFETY: the window says that a region holds the bytes; they are readable (INVARIANT), and unchanged where the map is frozen.
        unsafe { self.copy_out(ptr, buf) };
        true
    }

    /// The values that are at hand, if there is room for one.
    pub(crate) fn values_at_hand<const SIZE: usize>(&self) -> Option<Values<'_, SIZE>> {
        let (start, last, ptr) = self.window.places(SIZE)?;
        Some(Values { map: self, start, last, ptr, frozen: self.liveness == Liveness::Frozen })
    }

    /// Asks the processor to fetch the line at `addr`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, addr: PhysAddr) {
        if let Some(ptr) = self.window.bytes(addr, 1) {
            live::prefetch(ptr);
        }
    }

    /// Carries out one read and records its outcome. Bytes in regions are copied also when others of the same read are in none.
    #[inline]
    pub fn read(&self, op: &mut PhysRead<'_>) {
        if self.copy_at_hand(op.addr, op.buf) && self.lost_nothing() {
            op.outcome = Outcome::Done;
            return;
        }
        let len = op.buf.len() as u64;
        let Some((ptr, end)) = self.locate(op.addr, len) else {
            return self.read_pieces(op);
        };
        // SAFETY: `locate` says that a region holds the bytes; they are readable (INVARIANT), and unchanged where the map is frozen.
        unsafe { self.copy_out(ptr, op.buf) };
        op.outcome = match self.intact(end) {
            Ok(()) => Outcome::Done,
            Err(_) => self.truncated(op.addr, len, end),
        };
    }

    /// Copies bytes of a region.
    ///
    /// # Safety
    /// `ptr..ptr + buf.len()` lies in a region.
    #[inline]
    unsafe fn copy_out(&self, ptr: *const u8, buf: &mut [u8]) {
        match self.liveness {
            // SAFETY: readable by the caller's word and INVARIANT; live memory is never referenced.
            Liveness::Live => unsafe { live::load(ptr, buf) },
            // SAFETY: readable by the caller's word and INVARIANT; frozen memory does not change (contract of `new`).
            Liveness::Frozen => unsafe { live::load_frozen(ptr, buf) },
        }
    }

    /// The outcome of an operation of which the bytes from [`Backing::lost_from`] on were missing. `end` is its end in the backing.
    #[cold]
    fn truncated(&self, addr: PhysAddr, len: u64, end: u64) -> Outcome {
        let kept = len.saturating_sub(end.saturating_sub(self.lost_from().load(Ordering::Acquire)));
        Outcome::Failed { offset: kept, reason: Reason::Truncated { phys: addr.wrapping_add(kept) } }
    }

    /// A read that no single region holds.
    #[cold]
    fn read_pieces(&self, op: &mut PhysRead<'_>) {
        let addr = op.addr;
        op.outcome = Outcome::Done;
        self.for_each_piece(addr, op.buf.len(), |from, len, place| {
            let Some((ptr, end)) = place else {
                op.outcome.fail(from as u64, gap_reason(addr, from));
                return;
            };
            if let Some(buf) = op.buf.get_mut(from..from.saturating_add(len)) {
                // SAFETY: `for_each_piece` gives pointers to `len` bytes of a region, and `buf` has that length.
                unsafe { self.copy_out(ptr, buf) };
            }
            if self.intact(end).is_err() {
                let piece = self.truncated(addr.wrapping_add(from as u64), len as u64, end);
                if let Outcome::Failed { offset, reason } = piece {
                    op.outcome.fail((from as u64).saturating_add(offset), reason);
                }
            }
        });
    }

    /// Carries out a batch of reads. `who` is the source, for the error of a batch that fails.
    ///
    /// # Errors
    /// The first operation that is not done.
    pub fn read_batch(&self, who: &str, ops: &mut [PhysRead<'_>]) -> Result<()> {
        for op in &mut *ops {
            self.read(op);
        }
        finish_reads(who, ops)
    }

    /// Carries out a batch of writes. `who` is the source, for the error of a batch that fails.
    ///
    /// # Errors
    /// The first operation that is not done.
    pub fn write_batch(&self, who: &str, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        for op in &mut *ops {
            self.write(op);
        }
        finish_writes(who, ops)
    }

    /// Carries out one write and records its outcome.
    pub fn write(&self, op: &mut PhysWrite<'_>) {
        if !self.writable {
            op.outcome = Outcome::Failed { offset: 0, reason: Reason::ReadOnly };
            return;
        }
        let (addr, src) = (op.addr, op.buf);
        op.outcome = Outcome::Done;
        self.for_each_piece(addr, src.len(), |from, len, place| {
            let Some((ptr, end)) = place else {
                op.outcome.fail(from as u64, gap_reason(addr, from));
                return;
            };
            if let Some(buf) = src.get(from..from.saturating_add(len)) {
                // SAFETY: `for_each_piece` gives pointers to `len` bytes of a region, which is writable (contract of `new`, `writable`).
                unsafe { live::store(ptr, buf) };
            }
            if self.intact(end).is_err() {
                let piece = self.truncated(addr.wrapping_add(from as u64), len as u64, end);
                if let Outcome::Failed { offset, reason } = piece {
                    op.outcome.fail((from as u64).saturating_add(offset), reason);
                }
            }
        });
    }

    /// Cuts `len` bytes from `addr` at region boundaries: calls `each` with the offset and length of each piece, and with the
    /// pointer to it and its end in the backing, or `None` for a gap.
    fn for_each_piece(&self, addr: PhysAddr, len: usize, mut each: impl FnMut(usize, usize, Option<(*mut u8, u64)>)) {
        let mut from = 0;
        while from < len {
            let rest = len.saturating_sub(from);
            let Some(at) = addr.checked_add(from as u64) else {
                return each(from, rest, None);
            };
            let (piece, place) = match self.find(at) {
                Some((region, inside)) => {
                    let held = usize::try_from(region.range.len().saturating_sub(inside)).unwrap_or(usize::MAX);
                    let piece = rest.min(held);
                    (piece, self.locate(at, piece as u64))
                }
                None => (rest.min(self.bytes_to_next_region(at)), None),
            };
            each(from, piece, place);
            // A region that contains `at` holds at least one byte of it, and a gap is at least one byte long.
            from = from.saturating_add(piece.max(1));
        }
    }

    /// Length of the gap that starts at `addr`, which no region holds.
    fn bytes_to_next_region(&self, addr: PhysAddr) -> usize {
        let next = self.regions.iter().map(|region| region.range.start()).find(|start| *start > addr);
        next.and_then(|start| start.offset_from(addr)).and_then(|gap| usize::try_from(gap).ok()).unwrap_or(usize::MAX)
    }
}

/// Why the byte `from` bytes after `addr` is in no region.
fn gap_reason(addr: PhysAddr, from: usize) -> Reason {
    match addr.checked_add(from as u64) {
        Some(phys) => Reason::NotInImage { phys },
        None => Reason::OutOfRange,
    }
}

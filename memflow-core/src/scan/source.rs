//! Where bytes come from: physical memory, an address space, any view.
//!
//! Owns: which addresses are searched, and how their bytes are had: in place where memory is frozen, else copied.
//! Must not know: patterns.
//! Keeps: segments are disjoint, ascending, and consecutive in the addresses that are searched, however their pages lie in physical
//! memory; what lies in them and cannot be read is a gap, never zeros.

use std::{ops::ControlFlow, sync::Arc};

use super::read::{Gap, add_gap, read_pieces};
use crate::{
    address::{Address, PhysAddr, PhysRange, Range, VirtAddr, VirtRange},
    error::{Reason, Result},
    memory::{DirectMap, Outcome, PhysRead, PhysicalMemory, Piece, RunMap},
    paging::{AddressSpace, MapBudget},
    view::{MemoryView, MemoryViewExt},
};

/// Bytes that are copied at a time where no match is long: with the search of them, they stay in the first-level cache. Measured
/// over 512 MiB: 17 GB/s with 8 KiB, 13 with 16 to 128 KiB, 7 from 192 KiB on.
const SMALL: usize = 8 << 10;
/// Bytes that are looked at in place, or fetched by one call of a device, at a time.
const LARGE: usize = 1 << 20;
/// A chunk is so many times as long as what has to be looked at behind it.
const TIMES_OVERLAP: usize = 16;

/// Consecutive addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    /// The first.
    pub(super) start: u64,
    /// How many.
    pub(super) len: u64,
}

/// Addresses of which nothing could be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unknown {
    /// The addresses.
    pub(super) segment: Segment,
    /// Why.
    pub(super) reason: Reason,
}

/// What is searched.
pub(super) trait Source: Sync {
    /// The addresses, ascending.
    fn segments(&self) -> &[Segment];

    /// How many bytes are best fetched at a time when `overlap` of them are fetched again with the next.
    fn chunk(&self, overlap: usize) -> usize;

    /// The bytes of part of a segment, in place or in `buf`; those that could not be read are in `gaps`, ascending.
    fn fetch<'b>(&'b self, start: u64, len: usize, buf: &'b mut Vec<u8>, gaps: &mut Vec<Gap>) -> &'b [u8];

    /// Asked after the bytes were looked at: why they were not what memory holds.
    fn spoilt(&self, _start: u64, _len: usize) -> Option<Reason> {
        None
    }

    /// True when the bytes are known to be zero without a look.
    fn is_zero(&self, _start: u64, _len: u64) -> bool {
        false
    }
}

/// Sorts ranges and joins those that overlap or touch.
pub(super) fn joined<A: Address>(ranges: &[Range<A>]) -> Vec<Segment> {
    let mut sorted: Vec<(u64, u64)> =
        ranges.iter().filter_map(|range| Some((range.start().to_u64(), range.last()?.to_u64()))).collect();
    sorted.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match joined.last_mut() {
            Some((_, end)) if end.checked_add(1).is_none_or(|next| first <= next) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    // Only a range of all 2^64 addresses, which no `Range` is, could be cut here.
    joined.into_iter().map(|(first, last)| Segment { start: first, len: (last - first).saturating_add(1) }).collect()
}

/// Adds addresses behind those before, joined when they follow.
fn add_segment(segments: &mut Vec<Segment>, start: u64, len: u64) {
    match segments.last_mut() {
        Some(last) if last.start.checked_add(last.len) == Some(start) && last.len.checked_add(len).is_some() => {
            last.len += len;
        }
        _ => segments.push(Segment { start, len }),
    }
}

/// Which parts of physical memory are known to be zero.
struct Zeros {
    /// What the target holds, and what of it may not be zero; `None` when that is all.
    runs: Option<(Arc<RunMap>, Arc<RunMap>)>,
}

impl Zeros {
    fn of(memory: &dyn PhysicalMemory) -> Self {
        let (runs, populated) = (memory.metadata().runs, memory.populated_runs());
        Self { runs: (runs.total_bytes() > populated.total_bytes()).then_some((runs, populated)) }
    }

    fn hold(&self, phys: u64, len: u64) -> bool {
        let (Some((runs, populated)), Some(range)) = (&self.runs, PhysRange::new(PhysAddr::new(phys), len)) else {
            return false;
        };
        populated.pieces(range).all(|piece| matches!(piece, Piece::Gap { .. }))
            && runs.pieces(range).all(|piece| matches!(piece, Piece::Present { .. }))
    }
}

/// The size of chunks where bytes are copied out of this process' memory, or asked of a device.
fn chunk(direct: Option<&DirectMap>, in_place: bool, overlap: usize) -> usize {
    let least = if direct.is_some() && !in_place { SMALL } else { LARGE };
    least.max(overlap.saturating_mul(TIMES_OVERLAP))
}

/// True when some of the memory lends slices.
fn lends(direct: Option<&DirectMap>, runs: &RunMap) -> bool {
    let first = runs.runs().first().and_then(|run| PhysRange::new(run.range.start(), 1));
    direct.zip(first).is_some_and(|(map, first)| map.slice(first).is_some())
}

/// Physical memory.
pub(super) struct Physical<'a> {
    memory: &'a dyn PhysicalMemory,
    direct: Option<&'a DirectMap>,
    in_place: bool,
    segments: Vec<Segment>,
    zeros: Zeros,
    /// Bytes that were asked for and that no run holds.
    pub(super) absent: u64,
}

impl<'a> Physical<'a> {
    /// These addresses, or all when there are none.
    pub(super) fn new(memory: &'a dyn PhysicalMemory, ranges: &[PhysRange]) -> Self {
        let runs = memory.metadata().runs;
        let mut segments = Vec::new();
        let mut absent = 0u64;
        if ranges.is_empty() {
            runs.runs().iter().for_each(|run| add_segment(&mut segments, run.range.start().as_u64(), run.range.len()));
        }
        for asked in joined(ranges) {
            let Some(range) = PhysRange::new(PhysAddr::new(asked.start), asked.len) else { continue };
            for piece in runs.pieces(range) {
                match piece {
                    Piece::Present { range, .. } => add_segment(&mut segments, range.start().as_u64(), range.len()),
                    Piece::Gap { range } => absent = absent.saturating_add(range.len()),
                }
            }
        }
        let direct = memory.direct_map();
        let in_place = lends(direct, &runs);
        Self { memory, direct, in_place, segments, zeros: Zeros::of(memory), absent }
    }
}

impl Source for Physical<'_> {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn chunk(&self, overlap: usize) -> usize {
        chunk(self.direct, self.in_place, overlap)
    }

    fn fetch<'b>(&'b self, start: u64, len: usize, buf: &'b mut Vec<u8>, gaps: &mut Vec<Gap>) -> &'b [u8] {
        let phys = PhysAddr::new(start);
        if let Some(direct) = self.direct {
            if let Some(bytes) = PhysRange::new(phys, len as u64).and_then(|range| direct.slice(range)) {
                return bytes;
            }
            let mut op = PhysRead::new(phys, room(buf, len));
            direct.read(&mut op);
            if op.outcome.is_done() {
                return buf.get(..len).unwrap_or_default();
            }
        }
        let bytes = room(buf, len);
        read_pieces(self.memory, std::iter::once((phys, len)), bytes, gaps);
        bytes
    }

    fn spoilt(&self, start: u64, len: usize) -> Option<Reason> {
        spoilt(self.direct.filter(|_| self.in_place)?, start, len)
    }

    fn is_zero(&self, start: u64, len: u64) -> bool {
        self.zeros.hold(start, len)
    }
}

/// The reason why bytes that were lent are no longer there: the file was cut short meanwhile.
fn spoilt(direct: &DirectMap, phys: u64, len: usize) -> Option<Reason> {
    let range = PhysRange::new(PhysAddr::new(phys), len as u64)?;
    // What no single region holds was not lent, and what it lost was told when it was read.
    if direct.slice(range).is_some() { None } else { truncated(direct, range) }
}

/// The reason why a range is lost from somewhere on: then its last byte is.
fn truncated(direct: &DirectMap, range: PhysRange) -> Option<Reason> {
    let mut byte = [0];
    let mut op = PhysRead::new(range.last()?, &mut byte);
    direct.read(&mut op);
    match op.outcome {
        Outcome::Failed { reason: reason @ Reason::Truncated { .. }, .. } => Some(reason),
        _ => None,
    }
}

/// The first `len` bytes of a buffer that only grows.
fn room(buf: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buf.len() < len {
        buf.resize(len, 0);
    }
    buf.get_mut(..len).unwrap_or_default()
}

/// Consecutive virtual addresses that are consecutive in physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mapped {
    virt: u64,
    phys: u64,
    len: u64,
}

/// An address space.
pub(super) struct Space<'a> {
    memory: &'a dyn PhysicalMemory,
    direct: Option<&'a DirectMap>,
    in_place: bool,
    // INVARIANT: ascending by `virt`, disjoint.
    pieces: Vec<Mapped>,
    segments: Vec<Segment>,
    zeros: Zeros,
    /// Bytes that were asked for and are not mapped.
    pub(super) absent: u64,
    /// Addresses whose tables could not be read.
    pub(super) unknown: Vec<Unknown>,
}

impl<'a> Space<'a> {
    /// What is mapped of these addresses, or of all when there are none.
    ///
    /// # Errors
    /// When the page tables map more than the budget allows.
    pub(super) fn new(
        space: &AddressSpace,
        memory: &'a dyn PhysicalMemory,
        ranges: &[VirtRange],
        budget: MapBudget,
    ) -> Result<Self> {
        let mut pieces: Vec<Mapped> = Vec::new();
        let (mut unknown, mut asked, mut known) = (Vec::new(), 0u64, 0u64);
        let mut each = |range: Option<VirtRange>| -> Result<()> {
            let summary = space.map(memory, range, budget, &mut |run| {
                let (virt, phys, len) = (run.virt.start().as_u64(), run.phys.as_u64(), run.virt.len());
                known = known.saturating_add(len);
                match pieces.last_mut() {
                    // Runs are cut where rights change, which does not matter here.
                    Some(last)
                        if last.virt.checked_add(last.len) == Some(virt)
                            && last.phys.checked_add(last.len) == Some(phys) =>
                    {
                        last.len = last.len.saturating_add(len);
                    }
                    _ => pieces.push(Mapped { virt, phys, len }),
                }
                ControlFlow::Continue(())
            })?;
            unknown.extend(summary.holes.iter().map(|hole| {
                known = known.saturating_add(hole.range.len());
                let segment = Segment { start: hole.range.start().as_u64(), len: hole.range.len() };
                Unknown { segment, reason: hole.reason }
            }));
            Ok(())
        };
        if ranges.is_empty() {
            each(None)?;
        }
        for segment in joined(ranges) {
            asked = asked.saturating_add(segment.len);
            each(VirtRange::new(VirtAddr::new(segment.start), segment.len))?;
        }
        let mut segments = Vec::new();
        pieces.iter().for_each(|piece| add_segment(&mut segments, piece.virt, piece.len));
        let direct = memory.direct_map();
        let in_place = lends(direct, &memory.metadata().runs);
        let absent = asked.saturating_sub(known);
        Ok(Self { memory, direct, in_place, pieces, segments, zeros: Zeros::of(memory), absent, unknown })
    }

    /// The pieces that hold `len` bytes from `start`, as physical addresses and lengths.
    fn pieces(&self, start: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.pieces.partition_point(|piece| piece.virt <= start).saturating_sub(1);
        let mut done = 0;
        self.pieces.get(first..).unwrap_or_default().iter().map_while(move |piece| {
            let inside = start.wrapping_add(done).checked_sub(piece.virt).filter(|inside| *inside < piece.len)?;
            let part = (piece.len - inside).min(len - done);
            done += part;
            (part > 0).then_some((piece.phys.wrapping_add(inside), part))
        })
    }

    /// The one piece of physical memory that holds all bytes.
    fn single(&self, start: u64, len: usize) -> Option<PhysRange> {
        let (phys, part) = self.pieces(start, len as u64).next()?;
        PhysRange::new(PhysAddr::new(phys), part).filter(|_| part == len as u64)
    }
}

impl Source for Space<'_> {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn chunk(&self, overlap: usize) -> usize {
        // What lies scattered is copied, also where memory is frozen.
        chunk(self.direct, self.in_place && self.pieces.len() < self.segments.len().saturating_mul(2), overlap)
    }

    fn fetch<'b>(&'b self, start: u64, len: usize, buf: &'b mut Vec<u8>, gaps: &mut Vec<Gap>) -> &'b [u8] {
        if let Some(bytes) = self.single(start, len).and_then(|range| self.direct?.slice(range)) {
            return bytes;
        }
        let bytes = room(buf, len);
        let length = |part: u64| usize::try_from(part).unwrap_or(usize::MAX);
        let pieces = self.pieces(start, len as u64).map(|(phys, part)| (PhysAddr::new(phys), length(part)));
        read_pieces(self.memory, pieces, bytes, gaps);
        bytes
    }

    fn spoilt(&self, start: u64, len: usize) -> Option<Reason> {
        let range = self.single(start, len)?;
        spoilt(self.direct.filter(|_| self.in_place)?, range.start().as_u64(), len)
    }

    fn is_zero(&self, start: u64, len: u64) -> bool {
        self.zeros.runs.is_some() && self.pieces(start, len).all(|(phys, part)| self.zeros.hold(phys, part))
    }
}

/// Any view, read without knowing how.
pub(super) struct View<'a> {
    view: &'a dyn MemoryView,
    segments: Vec<Segment>,
}

impl<'a> View<'a> {
    /// These addresses.
    pub(super) fn new(view: &'a dyn MemoryView, ranges: &[VirtRange]) -> Self {
        Self { view, segments: joined(ranges) }
    }
}

impl Source for View<'_> {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn chunk(&self, overlap: usize) -> usize {
        LARGE.max(overlap.saturating_mul(TIMES_OVERLAP))
    }

    fn fetch<'b>(&'b self, start: u64, len: usize, buf: &'b mut Vec<u8>, gaps: &mut Vec<Gap>) -> &'b [u8] {
        let bytes = room(buf, len);
        match self.view.read_partial(VirtAddr::new(start), bytes) {
            Ok(partial) => {
                for gap in partial.gaps {
                    let offset = gap.range.start().as_u64().saturating_sub(start);
                    let offset = usize::try_from(offset).unwrap_or(len).min(len);
                    let missing = usize::try_from(gap.range.len()).unwrap_or(len).min(len - offset);
                    add_gap(gaps, Gap { offset, len: missing, reason: gap.reason });
                }
            }
            Err(error) => {
                let reason = error.reason().unwrap_or(Reason::Unknown { status: 0 });
                add_gap(gaps, Gap { offset: 0, len, reason });
            }
        }
        bytes
    }
}

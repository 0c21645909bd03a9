//! An address space over physical memory: the view that processes and kernels are read through.
//!
//! Owns: [`SpaceView`]: zero lengths, the end of the range, and the way from pieces of physical memory back to operations.
//! Must not know: page-table formats, levels, who owns the space.
//! Keeps: bytes go straight into the callers' buffers; memory without a direct map is called at most once per level of tables and
//! once for the bytes, whatever the batch, and writes go where the tables say now; a failed part of an operation does not keep the others from arriving.

mod at_hand;
mod by_threads;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use smallvec::SmallVec;

use super::{MemoryView, MissingValue, ViewMetadata, memory_view::read_as_operations};
use crate::{
    address::{PageSize, VirtAddr},
    error::{Reason, Result},
    memory::{
        DirectMap, Outcome, PhysRead, PhysWrite, PhysicalMemory, ViewRead, ViewWrite, finish_reads, finish_writes,
        parallel,
    },
    paging::{AddressSpace, Merge, Piece, Trust},
};

/// A virtual address space as a view. Cheap to clone: the memory is shared.
///
/// ```
/// # use std::sync::Arc;
/// # use memflow_core::{memory::*, paging::{x86, AddressSpace}, view::SpaceView, *};
/// // Two tables of 32-bit x86: the page at 0x8000_0000 lies at 0x3000.
/// let mut bytes = vec![0; 0x4000];
/// bytes[0x1800..0x1804].copy_from_slice(&0x2003_u32.to_le_bytes());
/// bytes[0x2000..0x2004].copy_from_slice(&0x3003_u32.to_le_bytes());
/// bytes[0x3008..0x300e].copy_from_slice(b"hello\0");
/// let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
///
/// let view = SpaceView::new(Arc::new(BufferMemory::new(config, bytes)?), AddressSpace::new(&x86::X86, 0x1000));
/// assert_eq!(view.read_utf8_lossy(VirtAddr::new(0x8000_0008), 64)?, "hello");
/// assert_eq!(view.read::<u16>(VirtAddr::new(0x8000_0008))?, u16::from_le_bytes(*b"he"));
///
/// let error = view.read::<u64>(VirtAddr::new(0x8000_0ffc)).unwrap_err();
/// assert_eq!(error.to_string(), "read of 8 bytes at 0x80000ffc: not present at level 1 (table 0x2000, entry 0x0)");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct SpaceView {
    memory: Arc<dyn PhysicalMemory>,
    space: AddressSpace,
}

/// Ranges `(op, first, last)` to be walked; a single operation stays on the stack.
type Ranges = SmallVec<[(usize, u64, u64); 2]>;

impl std::fmt::Debug for SpaceView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpaceView({} of {})", self.space.root(), self.memory.metadata().name)
    }
}

impl SpaceView {
    /// The view of `space` over `memory`.
    pub fn new(memory: Arc<dyn PhysicalMemory>, space: AddressSpace) -> Self {
        Self { memory, space }
    }

    /// The physical memory below.
    pub fn memory(&self) -> &Arc<dyn PhysicalMemory> {
        &self.memory
    }

    /// The address space.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// The highest address of the space.
    fn last_address(&self) -> VirtAddr {
        self.space.architecture().last_address()
    }

    /// What has to be walked for an operation, if anything, and its outcome as far as it is known before the walk.
    fn start(&self, index: usize, addr: VirtAddr, len: usize) -> (Option<(usize, u64, u64)>, Outcome) {
        let Some(rest) = (len as u64).checked_sub(1) else { return (None, Outcome::Done) };
        let first = addr.as_u64();
        // An operation that starts in the space may run over its end; one that starts outside is walked, which says what is wrong.
        let end = if addr <= self.last_address() { self.last_address().as_u64() } else { u64::MAX };
        match first.checked_add(rest).filter(|last| *last <= end) {
            Some(last) => (Some((index, first, last)), Outcome::Done),
            None => {
                let offset = end.wrapping_sub(first).saturating_add(1);
                (Some((index, first, end)), Outcome::Failed { offset, reason: Reason::OutOfRange })
            }
        }
    }

    /// Reads where tables and bytes lie in this process: no call, and no allocation but for large batches.
    fn read_in_place(&self, map: &DirectMap, ops: &mut [ViewRead<'_>], ranges: &Ranges) {
        let mut merge = Merge::default();
        self.space.walk_ranges(&*self.memory, Trust::Kept, ranges, |walked| {
            if let Some(piece) = merge.push(&walked) {
                copy_out(map, ops, &piece);
            }
        });
        if let Some(piece) = merge.finish() {
            copy_out(map, ops, &piece);
        }
    }

    /// Reads whatever is special about a batch.
    #[inline(never)]
    fn read_many(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        let mut ranges = Ranges::new();
        let called = match self.memory.direct_map() {
            Some(map) => {
                let complete = at_hand::read(&self.space, map, ops, |index, op| {
                    let (range, outcome) = self.start(index, op.addr, op.buf.len());
                    op.outcome = outcome;
                    ranges.extend(range);
                });
                if complete {
                    return Ok(());
                }
                let lengths = ranges.iter().map(|(_, first, last)| last.wrapping_sub(*first).saturating_add(1));
                match parallel::share(lengths.fold(0, u64::saturating_add)) {
                    Some(share) => by_threads::read(self, map, ops, &ranges, share, by_threads::GRAIN),
                    None => self.read_in_place(map, ops, &ranges),
                }
                Ok(())
            }
            None => {
                for (index, op) in ops.iter_mut().enumerate() {
                    let (range, outcome) = self.start(index, op.addr, op.buf.len());
                    op.outcome = outcome;
                    ranges.extend(range);
                }
                self.read_called(ops, &ranges)
            }
        };
        if ops.iter().all(|op| op.outcome.is_done()) {
            return called;
        }
        finish_reads(&self.memory.metadata().name, ops)
    }

    /// Reads through calls.
    ///
    /// # Errors
    /// What the memory said of the whole call; the operations have their outcomes all the same.
    fn read_called(&self, ops: &mut [ViewRead<'_>], ranges: &Ranges) -> Result<()> {
        let pieces = self.space.pieces(&*self.memory, Trust::Kept, ranges);
        let mut reads: Vec<PhysRead<'_>> = Vec::with_capacity(pieces.len());
        let mut places: Vec<(usize, u64)> = Vec::with_capacity(pieces.len());
        let mut next = pieces.iter().peekable();
        for (index, op) in ops.iter_mut().enumerate() {
            let (addr, outcome) = (op.addr, &mut op.outcome);
            let mut rest = &mut *op.buf;
            let mut at = 0;
            while let Some(piece) = next.next_if(|piece| piece.op == index) {
                let offset = piece.first.as_u64().wrapping_sub(addr.as_u64());
                let (_, from) = std::mem::take(&mut rest).split_at_mut(length(offset.saturating_sub(at), usize::MAX));
                let (buf, after) = from.split_at_mut(length(piece.len, from.len()));
                rest = after;
                at = offset.saturating_add(piece.len);
                match piece.result {
                    Ok(phys) => {
                        reads.push(PhysRead::new(phys, buf));
                        places.push((index, offset));
                    }
                    Err(reason) => outcome.fail(offset, reason),
                }
            }
        }
        if reads.is_empty() {
            return Ok(());
        }
        let called = self.memory.read_batch(&mut reads);
        let outcomes: Vec<Outcome> = reads.iter().map(|read| read.outcome).collect();
        for ((index, offset), outcome) in places.into_iter().zip(outcomes) {
            if let Some(op) = ops.get_mut(index) {
                op.outcome.add_part(offset, outcome);
            }
        }
        called
    }
}

/// Values that are read one by one: walks side by side would cost more to set up than they gain.
const SINGLE: usize = 4;

/// Reads what lies in one page of the smallest size, where tables and bytes lie in this process; false when it is not that simple.
#[inline(always)]
fn read_in_small_page(space: &AddressSpace, map: &DirectMap, op: &mut ViewRead<'_>) -> bool {
    let rest = PageSize::KIB_4.bytes().saturating_sub(op.addr.page_offset(PageSize::KIB_4));
    if op.buf.is_empty() || op.buf.len() as u64 > rest {
        return false;
    }
    let Some(phys) = space.phys_plain(map, op.addr) else { return false };
    let done = map.copy_at_hand(phys, op.buf) && map.lost_nothing();
    op.outcome = if done { Outcome::Done } else { Outcome::NotAttempted };
    done
}

/// The same for pages of any size, and any mode.
#[inline(never)]
fn read_in_page(space: &AddressSpace, map: &DirectMap, op: &mut ViewRead<'_>) -> bool {
    let len = op.buf.len() as u64;
    match space.translate_plain(map, op.addr) {
        Some(found)
            if is_short(op.buf) && found.page.bytes().saturating_sub(op.addr.page_offset(found.page)) >= len =>
        {
            let done = map.copy_at_hand(found.phys, op.buf) && map.lost_nothing();
            op.outcome = if done { Outcome::Done } else { Outcome::NotAttempted };
            done
        }
        _ => false,
    }
}

/// Whether a buffer is neither empty nor so long that several threads share it: one comparison.
#[inline(always)]
fn is_short(buf: &[u8]) -> bool {
    buf.len().wrapping_sub(1) < parallel::LONG - 1
}

/// Copies the bytes of one piece into its operation's buffer.
#[inline]
fn copy_out(map: &DirectMap, ops: &mut [ViewRead<'_>], piece: &Piece) {
    let Some(op) = ops.get_mut(piece.op) else { return };
    let offset = piece.first.as_u64().wrapping_sub(op.addr.as_u64());
    match piece.result {
        Ok(phys) => {
            let from = length(offset, op.buf.len());
            let (_, rest) = op.buf.split_at_mut(from);
            let len = length(piece.len, rest.len());
            let (buf, _) = rest.split_at_mut(len);
            let mut read = PhysRead::new(phys, buf);
            map.read(&mut read);
            let outcome = read.outcome;
            op.outcome.add_part(offset, outcome);
        }
        Err(reason) => op.outcome.fail(offset, reason),
    }
}

/// A length of a buffer, at most `max`.
#[inline]
fn length(bytes: u64, max: usize) -> usize {
    usize::try_from(bytes).map_or(max, |bytes| bytes.min(max))
}

impl MemoryView for SpaceView {
    #[inline]
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        if let ([op], Some(map)) = (&mut *ops, self.memory.direct_map())
            && (read_in_small_page(&self.space, map, op) || read_in_page(&self.space, map, op))
        {
            return Ok(());
        }
        self.read_many(ops)
    }

    fn read_sized(
        &self,
        addresses: &[VirtAddr],
        size: usize,
        values: &mut [u8],
        missing: &mut Vec<MissingValue>,
    ) -> Result<()> {
        let map = self.memory.direct_map();
        if let (1..=SINGLE, Some(map)) = (addresses.len(), map) {
            let mut reads = addresses.iter().zip(values.chunks_exact_mut(size.max(1)));
            // One that is not that simple leaves all to the ways below.
            if reads.all(|(addr, value)| read_in_small_page(&self.space, map, &mut ViewRead::new(*addr, value))) {
                return Ok(());
            }
        }
        let others = match (map, size) {
            (Some(map), 8) => at_hand::read_values::<8>(&self.space, map, addresses, values.as_chunks_mut().0),
            (Some(map), 4) => at_hand::read_values::<4>(&self.space, map, addresses, values.as_chunks_mut().0),
            _ => (0..addresses.len()).collect(),
        };
        if others.is_empty() {
            return Ok(());
        }
        let mut next = others.into_iter().peekable();
        let all = addresses.iter().copied().enumerate().zip(values.chunks_exact_mut(size.max(1)));
        let rest = all.filter(|((index, _), _)| next.next_if_eq(index).is_some());
        read_as_operations(self, rest, missing)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        let mut ranges = Ranges::new();
        for (index, op) in ops.iter_mut().enumerate() {
            let (range, outcome) = self.start(index, op.addr, op.buf.len());
            op.outcome = outcome;
            ranges.extend(range);
        }
        let mut writes: SmallVec<[PhysWrite<'_>; 2]> = SmallVec::new();
        let mut places: SmallVec<[(usize, u64); 2]> = SmallVec::new();
        for piece in self.space.pieces(&*self.memory, Trust::Tables, &ranges) {
            let Some(op) = ops.get_mut(piece.op) else { continue };
            let offset = piece.first.as_u64().wrapping_sub(op.addr.as_u64());
            match piece.result {
                Ok(phys) => {
                    let (_, rest) = op.buf.split_at(length(offset, op.buf.len()));
                    let (buf, _) = rest.split_at(length(piece.len, rest.len()));
                    writes.push(PhysWrite::new(phys, buf));
                    places.push((piece.op, offset));
                }
                Err(reason) => op.outcome.fail(offset, reason),
            }
        }
        let called = if writes.is_empty() { Ok(()) } else { self.memory.write_batch(&mut writes) };
        for ((index, offset), write) in places.into_iter().zip(&writes) {
            if let Some(op) = ops.get_mut(index) {
                op.outcome.add_part(offset, write.outcome);
            }
        }
        if ops.iter().all(|op| op.outcome.is_done()) {
            return called;
        }
        finish_writes(&self.memory.metadata().name, ops)
    }

    fn metadata(&self) -> ViewMetadata {
        ViewMetadata {
            last_address: self.last_address(),
            pointer_size: self.space.architecture().pointer_size,
            read_only: self.memory.metadata().read_only,
        }
    }
}

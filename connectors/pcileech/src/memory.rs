//! Physical memory that LeechCore reads.
//!
//! Owns: the way from a batch of operations to entries of a transfer, and back to outcomes.
//! Must not know: how LeechCore is called, where a map comes from.
//! Keeps: no entry reaches outside of the map; one call for a batch, cut only where it has more entries than a call should; an entry
//! that LeechCore did not mark as done leaves its part of the buffer as it was; a write touches the bytes it is for and no others.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::Arc;

use memflow_core::{
    PhysAddr, PhysicalMemory, Reason, Result,
    memory::{
        Liveness, Lookaside, Metadata, Outcome, PhysRead, PhysWrite, RunMap, TargetFacts, finish_reads, finish_writes,
    },
};

use crate::{
    library::{Device, SLOT},
    raw::{GRAIN, PAGE},
};

/// Entries of one call: 16 MiB, which is what LeechCore itself reads at a time.
const MOST_ENTRIES: usize = 4096;
/// Operations per call at which FPGA boards are busy all the time.
const IDEAL_BATCH: usize = 128;
/// What the system would say of a device that does not answer.
#[cfg(not(windows))]
const NO_ANSWER: i32 = 5;
#[cfg(windows)]
const NO_ANSWER: i32 = 1117;

/// Memory that a device of LeechCore reads and writes.
#[derive(Debug)]
pub struct LeechcoreMemory {
    device: Device,
    name: Arc<str>,
    /// Offsets are the addresses that LeechCore takes.
    runs: Arc<RunMap>,
    facts: TargetFacts,
    /// Whether reads ask for whole pages where less would do.
    whole_pages: bool,
    lookaside: Lookaside,
}

/// A part of an operation that one entry carries.
#[derive(Clone, Copy)]
struct Part {
    /// Index of the operation in its batch.
    op: usize,
    /// Bytes from the start of the operation.
    from: usize,
    /// Length in bytes, at most a page.
    len: usize,
    /// Address for LeechCore; the part does not cross a page there.
    address: u64,
    /// What a read asks for: its first address and length, and where in it the part begins.
    window: Window,
}

/// The bytes that an entry of a read carries: those of a part, and what is read with them.
#[derive(Clone, Copy)]
struct Window {
    start: u64,
    len: u32,
    skip: usize,
}

impl Window {
    /// For a part of a run, of which the device has the addresses from `first` up to `end`. Runs begin and end with a grain, so whole
    /// grains, and what a run has of a page, never leave it.
    fn new(address: u64, len: u64, whole_pages: bool, first: u64, end: u64) -> Self {
        let unit = if whole_pages { PAGE } else { GRAIN };
        let start = address.checked_rem(unit).map_or(address, |over| address.saturating_sub(over)).max(first);
        let stop = address.saturating_add(len).checked_next_multiple_of(unit).map_or(end, |stop| stop.min(end));
        Self {
            start,
            len: u32::try_from(stop.saturating_sub(start)).unwrap_or(0),
            skip: usize::try_from(address.saturating_sub(start)).unwrap_or(usize::MAX),
        }
    }
}

impl LeechcoreMemory {
    pub(crate) fn new(device: Device, name: String, runs: RunMap) -> Self {
        // What the C library buffers for a file it gives again, old as it may be, unless a whole page is asked for.
        let whole_pages = device.is_file();
        let lookaside = Lookaside::by_liveness(liveness(&device));
        let (name, facts) = (name.into(), TargetFacts::default());
        Self { device, name, runs: Arc::new(runs), facts, whole_pages, lookaside }
    }

    /// Adds the parts of an operation that lie in the map, and says what became of the rest.
    fn cut(&self, op: usize, addr: PhysAddr, len: usize, parts: &mut Vec<Part>) -> Outcome {
        self.runs.cut(
            addr,
            len,
            |phys| Reason::NotInImage { phys },
            |part| {
                let Some(run) = self.runs.runs().get(part.run) else { return };
                let run_end = run.offset.saturating_add(run.range.len());
                let mut done: usize = 0;
                while done < part.len {
                    let address = part.offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
                    let in_page = usize::try_from(PAGE.saturating_sub(address % PAGE)).unwrap_or(usize::MAX);
                    let len = in_page.min(part.len.saturating_sub(done));
                    let bytes = u64::try_from(len).unwrap_or(u64::MAX);
                    let window = Window::new(address, bytes, self.whole_pages, run.offset, run_end);
                    parts.push(Part { op, from: part.from.saturating_add(done), len, address, window });
                    done = done.saturating_add(len);
                }
            },
        )
    }
}

/// What takes writes changes, if only by us.
fn liveness(device: &Device) -> Liveness {
    if device.volatile || device.writable { Liveness::Live } else { Liveness::Frozen }
}

/// What became of an operation one of whose parts LeechCore did not do.
fn refused(outcome: &mut Outcome, part: &Part) {
    outcome.fail(u64::try_from(part.from).unwrap_or(u64::MAX), Reason::Io { errno: NO_ANSWER });
}

/// The bytes of a part in a buffer of its operation.
fn bytes_of<'a>(part: &Part, buf: &'a [u8]) -> &'a [u8] {
    buf.get(part.from..).and_then(|rest| rest.get(..part.len)).unwrap_or_default()
}

impl PhysicalMemory for LeechcoreMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let mut parts = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter_mut().enumerate() {
            op.outcome = self.cut(index, op.addr, op.buf.len(), &mut parts);
        }
        for parts in parts.chunks(MOST_ENTRIES) {
            let entries: Vec<(u64, u32)> = parts.iter().map(|part| (part.window.start, part.window.len)).collect();
            let mut data = vec![0; parts.len().saturating_mul(SLOT)];
            let done = self.device.read(&entries, &mut data);
            for ((part, slot), done) in parts.iter().zip(data.chunks(SLOT)).zip(done) {
                let Some(op) = ops.get_mut(part.op) else { continue };
                let to = op.buf.get_mut(part.from..).and_then(|rest| rest.get_mut(..part.len));
                let from = slot.get(part.window.skip..).and_then(|rest| rest.get(..part.len));
                match (to, from) {
                    (Some(to), Some(from)) if done => to.copy_from_slice(from),
                    _ => refused(&mut op.outcome, part),
                }
            }
        }
        finish_reads(&self.name, ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        // Dropped when the writes have been carried out.
        let _writing = self.lookaside.writing(ops);
        let mut parts = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter_mut().enumerate() {
            op.outcome = if self.device.writable {
                self.cut(index, op.addr, op.buf.len(), &mut parts)
            } else {
                Outcome::Failed { offset: 0, reason: Reason::ReadOnly }
            };
        }
        for parts in parts.chunks(MOST_ENTRIES) {
            let mut data = vec![0; parts.len().saturating_mul(SLOT)];
            let mut entries: Vec<(u64, u32)> = Vec::with_capacity(parts.len());
            for (part, slot) in parts.iter().zip(data.chunks_mut(SLOT)) {
                let bytes = ops.get(part.op).map(|op| bytes_of(part, op.buf)).unwrap_or_default();
                if let Some(to) = slot.get_mut(..bytes.len()) {
                    to.copy_from_slice(bytes);
                }
                // To the byte, as `LcWrite` of LeechCore hands writes on: FPGA boards have a bit for each byte of a dword.
                entries.push((part.address, u32::try_from(bytes.len()).unwrap_or(0)));
            }
            let done = self.device.write(&entries, &mut data);
            for (part, _) in parts.iter().zip(done).filter(|(_, done)| !done) {
                if let Some(op) = ops.get_mut(part.op) {
                    refused(&mut op.outcome, part);
                }
            }
        }
        finish_writes(&self.name, ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: self.name.clone(),
            runs: self.runs.clone(),
            liveness: liveness(&self.device),
            read_only: !self.device.writable,
            ideal_batch: IDEAL_BATCH,
        }
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        Some(&self.lookaside)
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

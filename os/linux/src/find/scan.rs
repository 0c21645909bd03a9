//! Looking for bytes in all of physical memory.
//!
//! Owns: how memory is cut into pieces, in which order they are visited. Must not know: what is looked for.
//! Keeps: a piece overlaps the next one, so nothing is missed at a seam; memory that cannot be read is skipped, and said so.

use std::ops::ControlFlow;

use memflow_core::{
    PhysAddr, PhysRange,
    memory::{PhysRead, PhysicalMemory},
};

/// Bytes visited at a time.
const PIECE: u64 = 4 << 20;

/// What a scan could not look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Bytes looked at.
    pub(crate) seen: u64,
    /// Bytes that could not be read.
    pub(crate) unreadable: u64,
}

/// Visits all of memory in pieces, from the highest address down: the kernel's early allocations come from the top.
/// Each piece is followed by up to `overlap` bytes of what comes after it; `visit` gets the address of the first byte and the bytes.
pub(crate) fn pieces_downwards(
    memory: &dyn PhysicalMemory,
    overlap: u64,
    mut visit: impl FnMut(PhysAddr, &[u8]) -> ControlFlow<()>,
) -> Scanned {
    let metadata = memory.metadata();
    let mut scanned = Scanned::default();
    let mut buffer = Vec::new();
    for run in metadata.runs.runs().iter().rev() {
        let mut end = run.range.len();
        while end > 0 {
            let start = end.saturating_sub(1) / PIECE * PIECE;
            let len = (end - start + overlap).min(run.range.len() - start);
            let at = run.range.start().wrapping_add(start);
            end = start;
            let in_place = PhysRange::new(at, len).and_then(|range| memory.direct_map()?.slice(range));
            let bytes = match in_place {
                Some(bytes) => bytes,
                None => {
                    buffer.resize(len as usize, 0);
                    let mut op = [PhysRead::new(at, &mut buffer)];
                    let _ = memory.read_batch(&mut op);
                    if !op[0].outcome.is_done() {
                        scanned.unreadable += len;
                        continue;
                    }
                    &buffer
                }
            };
            scanned.seen += len;
            if visit(at, bytes).is_break() {
                return scanned;
            }
        }
    }
    scanned
}

//! The image of the kernel in an address space that maps it.
//!
//! Owns: where the image may lie and which of it is mapped; searches in it. Must not know: how the address
//! space was found.
//! Keeps: the range is fixed and each step of the walk covers a page or more, so hostile page tables cost a bounded time.
//! Source: Linux `Documentation/arch/x86/x86_64/mm.rst` (kernel text mapping, at most 1 GiB).
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::ControlFlow;

use memflow_core::{
    Error, MemoryViewExt, Result, VirtAddr, VirtRange,
    paging::{MapBudget, PageFlags},
    view::SpaceView,
};

use crate::symbols::{Addresses, Known, LANDMARK, SymbolTable};

/// Where the image may lie.
pub(super) const START: u64 = 0xffff_ffff_8000_0000;
/// Up to where modules start at the earliest.
pub(super) const LEN: u64 = 1 << 30;
/// Tables that map such a range: one of each upper level and one for each 2 MiB.
const MAX_TABLES: u64 = 1 << 10;
/// Changes of rights or frames in the range; kernels have some dozens.
const MAX_RUNS: u64 = 1 << 18;
/// Bytes searched at a time.
const PIECE: u64 = 1 << 20;
/// Landmarks of a symbol table looked at.
const MAX_LANDMARKS: usize = 64;

/// The mapped parts of the image's range, each as long as mapped pages follow each other.
pub(super) fn runs(view: &SpaceView) -> Vec<VirtRange> {
    parts(view).runs
}

/// What is mapped of the image's range.
#[derive(Default)]
struct Parts {
    /// As long as mapped pages follow each other.
    runs: Vec<VirtRange>,
    /// What of it may only be read: constants, among them the symbol table.
    constants: Vec<VirtRange>,
}

/// Puts `next` behind the last range, or makes it longer if it follows at once.
fn extend(ranges: &mut Vec<VirtRange>, next: VirtRange) {
    match ranges.last_mut() {
        Some(last) if last.end() == Some(next.start()) => {
            *last = VirtRange::new(last.start(), last.len() + next.len()).unwrap_or(*last);
        }
        _ => ranges.push(next),
    }
}

fn parts(view: &SpaceView) -> Parts {
    let mut parts = Parts::default();
    let budget = MapBudget { tables: MAX_TABLES, runs: MAX_RUNS };
    // Tables beyond the budget or that cannot be read hide a part of the image; if the symbol table lay there, it is not found, and
    // that is what is told.
    let _ = view.space().map(&**view.memory(), VirtRange::new(VirtAddr::new(START), LEN), budget, &mut |run| {
        extend(&mut parts.runs, run.virt);
        if run.flags.contains(PageFlags::NO_EXECUTE) && !run.flags.contains(PageFlags::WRITABLE) {
            extend(&mut parts.constants, run.virt);
        }
        ControlFlow::Continue(())
    });
    parts
}

/// Calls `visit` with each place of `needle` in these ranges, until it breaks.
pub(super) fn places(
    view: &SpaceView,
    ranges: &[VirtRange],
    needle: &[u8],
    visit: &mut dyn FnMut(VirtAddr) -> ControlFlow<()>,
) {
    let overlap = (needle.len() as u64).saturating_sub(1);
    let mut buffer = vec![0; (PIECE + overlap) as usize];
    for range in ranges {
        let mut from = 0;
        while from < range.len() {
            let at = range.start().wrapping_add(from);
            // So that what lies over the seam is found, once.
            let len = (range.len() - from).min(PIECE + overlap);
            from += PIECE;
            let Some(bytes) = buffer.get_mut(..len as usize) else { return };
            // A part of the image that cannot be read holds nothing; if that hides what is looked for, it is told as not found.
            if view.read_into(at, bytes).is_err() {
                continue;
            }
            for offset in memchr::memmem::find_iter(bytes, needle) {
                if visit(at.wrapping_add(offset as u64)).is_break() {
                    return;
                }
            }
        }
    }
}

/// The symbol table in the image.
pub(super) fn symbols(view: &SpaceView, known: &Known) -> Result<SymbolTable> {
    let Parts { runs, constants } = parts(view);
    let (mut found, mut refused) = (None, None);
    let mut landmarks = 0;
    // Where it belongs first, then everywhere.
    for ranges in [&constants, &runs] {
        places(view, ranges, LANDMARK, &mut |digits| {
            let Some(run) = runs.iter().find(|run| run.contains(digits)) else { return ControlFlow::Continue(()) };
            landmarks += 1;
            match SymbolTable::from_landmark(view, digits, run.start(), known, Addresses::Virtual) {
                Some(Ok(table)) => found = Some(table),
                Some(Err(error)) => refused = Some(error),
                None => {}
            }
            let enough = found.is_some() || landmarks >= MAX_LANDMARKS;
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if found.is_some() {
            break;
        }
        landmarks = 0;
    }
    let mapped: u64 = runs.iter().map(VirtRange::len).sum();
    found.ok_or_else(|| {
        refused.unwrap_or(Error::Corrupt {
            what: "kernel's image",
            address: VirtAddr::new(START).into(),
            expected: "a symbol table (kallsyms)".into(),
            found: match mapped {
                0 => "nothing mapped".into(),
                _ => format!("{mapped:#x} mapped bytes without one").into(),
            },
        })
    })
}

//! The image of the kernel in an address space that maps it.
//!
//! Owns: where the image may lie and which of it is mapped; searches in it. Must not know: how the address
//! space was found.
//! Keeps: the range is fixed and each step of the walk covers a page or more, so hostile page tables cost a bounded time.
//! Source: Linux `Documentation/arch/x86/x86_64/mm.rst` (kernel text mapping, at most 1 GiB).
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::ControlFlow;

use memflow_core::{Error, MemoryViewExt, Result, VirtAddr, VirtRange, paging::MapBudget, view::SpaceView};

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
    let mut runs: Vec<VirtRange> = Vec::new();
    let budget = MapBudget { tables: MAX_TABLES, runs: MAX_RUNS };
    // Tables beyond the budget or that cannot be read hide a part of the image; if the symbol table lay there, it is not found, and
    // that is what is told.
    let _ = view.space().map(&**view.memory(), VirtRange::new(VirtAddr::new(START), LEN), budget, &mut |run| {
        match runs.last_mut() {
            Some(last) if last.end() == Some(run.virt.start()) => {
                *last = VirtRange::new(last.start(), last.len() + run.virt.len()).unwrap_or(*last);
            }
            _ => runs.push(run.virt),
        }
        ControlFlow::Continue(())
    });
    runs
}

/// Calls `visit` with each place of `needle` in the mapped parts and the start of the part, until it breaks.
pub(super) fn places(
    view: &SpaceView,
    runs: &[VirtRange],
    needle: &[u8],
    visit: &mut dyn FnMut(VirtAddr, VirtAddr) -> ControlFlow<()>,
) {
    for run in runs {
        let mut from = 0;
        while from < run.len() {
            let at = run.start().wrapping_add(from);
            // So that what lies over the seam is found, once.
            let overlap = (needle.len() as u64).saturating_sub(1);
            let len = (run.len() - from).min(PIECE + overlap);
            from += PIECE;
            // A part of the image that cannot be read holds nothing; if that hides what is looked for, it is told as not found.
            let Ok(bytes) = view.read_bytes(at, len) else { continue };
            for offset in memchr::memmem::find_iter(&bytes, needle) {
                if visit(at.wrapping_add(offset as u64), run.start()).is_break() {
                    return;
                }
            }
        }
    }
}

/// The symbol table in the image.
pub(super) fn symbols(view: &SpaceView, known: &Known) -> Result<SymbolTable> {
    let runs = runs(view);
    let (mut found, mut refused) = (None, None);
    let mut landmarks = 0;
    places(view, &runs, LANDMARK, &mut |digits, start| {
        landmarks += 1;
        match SymbolTable::from_landmark(view, digits, start, known, Addresses::Virtual) {
            Some(Ok(table)) => found = Some(table),
            Some(Err(error)) => refused = Some(error),
            None => {}
        }
        if found.is_some() || landmarks == MAX_LANDMARKS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
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

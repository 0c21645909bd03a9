//! The image of the kernel in an address space that maps it.
//!
//! Owns: where the image may lie and which of it is mapped; the search for the symbol table in it. Must not know: how the address
//! space was found.
//! Keeps: the range is fixed and each step of the walk covers a page or more, so hostile page tables cost a bounded time.
//! Source: Linux `Documentation/arch/x86/x86_64/mm.rst` (kernel text mapping, at most 1 GiB).

use memflow_core::{Error, MemoryViewExt, PageSize, Reason, Result, VirtAddr, VirtRange, view::SpaceView};

use crate::symbols::{Addresses, Known, LANDMARK, Symbols};

/// Where the image may lie.
const START: u64 = 0xffff_ffff_8000_0000;
/// First byte after: where modules start at the earliest.
const END: u64 = 0xffff_ffff_c000_0000;
/// Bytes searched at a time.
const PIECE: u64 = 1 << 20;
/// Landmarks of a symbol table looked at.
const MAX_LANDMARKS: usize = 64;

/// The mapped parts of the image's range, each as long as mapped pages follow each other.
pub(super) fn runs(view: &SpaceView) -> Vec<VirtRange> {
    let mut runs: Vec<VirtRange> = Vec::new();
    let mut at = START;
    while at < END {
        let address = VirtAddr::new(at);
        let (mapped, page) = match view.space().translate(&**view.memory(), address) {
            Ok(found) => (true, found.page),
            Err(Reason::NotMapped(stop)) => (false, page_of_level(stop.level)),
            Err(_) => (false, PageSize::KIB_4),
        };
        let next = (at | page.offset_mask()).saturating_add(1).min(END);
        if mapped && let Some(range) = VirtRange::new(address, next - at) {
            match runs.last_mut() {
                Some(last) if last.end() == Some(address) => {
                    *last = VirtRange::new(last.start(), last.len() + range.len()).unwrap_or(*last);
                }
                _ => runs.push(range),
            }
        }
        at = next;
    }
    runs
}

/// What an entry of this level covers.
fn page_of_level(level: u8) -> PageSize {
    match level {
        0 | 1 => PageSize::KIB_4,
        2 => PageSize::MIB_2,
        _ => PageSize::GIB_1,
    }
}

/// The symbol table in the image.
pub(super) fn symbols(view: &SpaceView, known: &Known) -> Result<Symbols> {
    let runs = runs(view);
    let mut refused = None;
    let mut landmarks = 0;
    for run in &runs {
        let mut from = 0;
        while from < run.len() {
            let at = run.start().wrapping_add(from);
            let len = (run.len() - from).min(PIECE + LANDMARK.len() as u64);
            from += PIECE;
            // A part of the image that cannot be read has no table; if that hides it, the error below says that none was found.
            let Ok(bytes) = view.read_bytes(at, len) else { continue };
            for offset in memchr::memmem::find_iter(&bytes, LANDMARK) {
                let digits = at.wrapping_add(offset as u64);
                landmarks += 1;
                match Symbols::from_landmark(view, digits, run.start(), known, Addresses::Virtual) {
                    Some(Ok(symbols)) => return Ok(symbols),
                    Some(Err(error)) => refused = Some(error),
                    None => {}
                }
                if landmarks == MAX_LANDMARKS {
                    break;
                }
            }
        }
    }
    let mapped: u64 = runs.iter().map(VirtRange::len).sum();
    Err(refused.unwrap_or(Error::Corrupt {
        what: "kernel's image",
        address: VirtAddr::new(START).into(),
        expected: "a symbol table (kallsyms)".into(),
        found: match mapped {
            0 => "nothing mapped".into(),
            _ => format!("{mapped:#x} mapped bytes without one").into(),
        },
    }))
}

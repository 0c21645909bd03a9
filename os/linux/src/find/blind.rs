//! The kernel through its symbol table, where neither a note nor a register leads to it.
//!
//! Owns: the step from a table in physical memory to page tables. Must not know: encodings of the table.
//! Keeps: everything found here is only a lead: the page tables are walked and the table is read again through them.
//!
//! The kernel's image is contiguous in physical memory as in virtual, both aligned to 2 MiB, so an address of the image differs from
//! its place by one unknown multiple of 2 MiB. Values relative to their place need not even that.
//! Source: Linux `Documentation/arch/x86/boot.rst` (`kernel_alignment`), `arch/x86/boot/compressed/kaslr.c`.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

use memflow_core::{
    Error, PageSize, PhysAddr, Result, VirtAddr,
    memory::PhysicalMemoryExt,
    paging::{AddressSpace, x86},
    view::{PhysicalView, SpaceView},
};

use super::{
    image,
    scan::Scan,
    search::{BANNER, Found, MAX_KERNELS, Search, describe},
};
use crate::symbols::{Addresses, Known, LANDMARK, SymbolTable};

/// Landmarks of a symbol table looked at.
const MAX_LANDMARKS: usize = 64;

/// The kernels whose symbol tables lie in memory.
///
/// # Errors
/// [`Error::Cancelled`].
pub(super) fn find(search: &mut Search<'_>) -> Result<Vec<Found>> {
    let landmarks = Mutex::new(Vec::new());
    let scan = Scan { memory: &**search.memory, progress: search.progress, what: "looking for kallsyms" };
    let scanned = scan.bytes(LANDMARK.len() as u64, &|at, bytes| {
        for offset in memchr::memmem::find_iter(bytes, LANDMARK) {
            let mut landmarks = landmarks.lock().unwrap_or_else(PoisonError::into_inner);
            let place = at.wrapping_add(offset as u64);
            if !landmarks.contains(&place) {
                landmarks.push(place);
            }
            if landmarks.len() >= MAX_LANDMARKS {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    let mut landmarks = landmarks.into_inner().unwrap_or_else(PoisonError::into_inner);
    landmarks.sort_unstable();
    if landmarks.is_empty() {
        search.tell("kallsyms", format!("no table of tokens in {} bytes{scanned}", scanned.seen));
    }
    let count = landmarks.len();
    let mut tables = 0;
    let mut found = Vec::new();
    for landmark in landmarks {
        let what = format!("kallsyms at physical {landmark}");
        match follow(search, landmark) {
            Some(Ok(kernel)) => {
                tables += 1;
                search.tell(what, format!("{}, {}", describe(&kernel.space), kernel.symbols.describe()));
                found.push(kernel);
                if found.len() == MAX_KERNELS {
                    break;
                }
            }
            Some(Err(error)) => {
                tables += 1;
                search.tell_refused(what, error);
            }
            // Other programs have lists of digits too.
            None => {}
        }
    }
    if count > 0 && tables == 0 {
        search.tell(
            "kallsyms",
            format!("no table of tokens around {count} lists of digits in {} bytes{scanned}", scanned.seen),
        );
    }
    Ok(found)
}

/// From a landmark in physical memory to the kernel; `None` when it is no part of a symbol table.
fn follow(search: &Search<'_>, landmark: PhysAddr) -> Option<Result<Found>> {
    let view = PhysicalView::new(search.memory.clone());
    let metadata = search.memory.metadata();
    let start = metadata.runs.find(landmark).map_or(landmark, |run| run.range.start());
    let virt = |address: PhysAddr| VirtAddr::new(address.as_u64());
    let symbols =
        SymbolTable::from_landmark(&view, virt(landmark), virt(start), &Known::default(), Addresses::Physical)?;
    Some(symbols.and_then(|symbols| kernel_of(search, &symbols, landmark)))
}

/// The kernel that a table in physical memory belongs to.
fn kernel_of(search: &Search<'_>, symbols: &SymbolTable, table: PhysAddr) -> Result<Found> {
    let roots = roots(search, symbols, table)?;
    let mut refused = None;
    for root in roots {
        for arch in [&x86::X64, &x86::X64_LA57] {
            let view = SpaceView::new(search.memory.clone(), AddressSpace::new(arch, root.as_u64()));
            // Cheap to refuse: what is not a root maps no image.
            let result = if image::runs(&view).is_empty() { Err(maps_nothing(root)) } else { search.kernel_in(&view) };
            match result {
                Ok(found) => return Ok(found),
                Err(error) => refused = Some(error),
            }
        }
    }
    Err(refused.unwrap_or_else(|| maps_nothing(table)))
}

/// The error for page tables that do not map a kernel.
fn maps_nothing(root: PhysAddr) -> Error {
    Error::Corrupt {
        what: "page tables",
        address: root.into(),
        expected: "the kernel's image mapped in 4 or 5 levels".into(),
        found: "nothing mapped there".into(),
    }
}

/// Where the kernel's own root may lie in physical memory.
fn roots(search: &Search<'_>, symbols: &SymbolTable, table: PhysAddr) -> Result<Vec<PhysAddr>> {
    let root = symbols.require("init_top_pgt").or_else(|_| symbols.require("init_level4_pgt"))?;
    if symbols.is_place_relative() {
        return Ok(vec![PhysAddr::new(root.as_u64())]);
    }
    let banner = symbols.require("linux_banner")?;
    let start = symbols.require("_text").or_else(|_| symbols.require("_stext"))?;
    let end = symbols.require("_end")?;
    let mut roots = Vec::new();
    // The table lies somewhere between the image's first and last byte, at an address with the same offset in 2 MiB.
    let step = PageSize::MIB_2.bytes();
    let mut guess = start.page_base(PageSize::MIB_2).wrapping_add(table.page_offset(PageSize::MIB_2));
    while guess < end {
        let place = |address: VirtAddr| {
            PhysAddr::new(table.as_u64()).wrapping_add(address.as_u64()).wrapping_sub(guess.as_u64())
        };
        let mut text = [0; BANNER.len()];
        if search.memory.read_into(place(banner), &mut text).is_ok() && text == BANNER {
            roots.push(place(root));
        }
        let Some(next) = guess.checked_add(step) else { break };
        guess = next;
    }
    if roots.is_empty() {
        return Err(Error::Corrupt {
            what: "linux_banner",
            address: banner.into(),
            expected: format!("\"Linux version \" in the image around physical {table}").into(),
            found: "other bytes".into(),
        });
    }
    Ok(roots)
}

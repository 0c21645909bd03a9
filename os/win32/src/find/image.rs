//! The kernel's image in an address space: by an address inside it, or by looking at every page that is mapped where images are.
//!
//! Owns: what is a kernel and what is another image. Must not know: where an address space came from.
//! Keeps: an image counts by its CodeView record, the name it was linked with, or sections that only a kernel has; what cannot be read
//! decides nothing. The work for one address space is limited.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::ops::ControlFlow;

use memflow_core::{
    MemoryView, MemoryViewExt, PageSize, VirtAddr, VirtRange,
    memory::{PhysRead, PhysicalMemory, ViewRead},
    paging::{MapBudget, MappedRun},
    view::SpaceView,
};

use crate::{
    bytes::number,
    kdbg::Kdbg,
    pe::{CodeView, Exports, Image},
};

const PAGE: u64 = 0x1000;
/// An address in the kernel is at most this far from its start; the largest kernels have 17 MiB.
const REACH: u64 = 32 << 20;
/// Pages that are read at a time.
const AT_ONCE: u64 = 512;
/// Where images of the kernel lie: x64 since Vista, and 32-bit with 2 GiB for the kernel.
const WIDE_SPACE: (u64, u64) = (0xffff_f800_0000_0000, 0xffff_f8ff_ffff_ffff);
const NARROW_SPACE: (u64, u64) = (0x8000_0000, 0xbfff_ffff);
/// Pages of one space that are looked at: 8 GiB, some fifty times what drivers take. Tables that map one page again and again cost no more.
const MAX_PAGES: u64 = 1 << 21;
/// Bytes of one space that are searched for KDBG.
const MAX_SEARCHED: u64 = 256 << 20;
/// Images that are looked at in one space.
const MAX_IMAGES: usize = 4096;

/// A kernel's image.
#[derive(Clone, Debug)]
pub(crate) struct KernelImage {
    /// Where it starts.
    pub(crate) base: VirtAddr,
    /// Its headers, if they are there.
    pub(crate) image: Option<Image>,
    /// Its CodeView record, if it is there.
    pub(crate) codeview: Option<CodeView>,
    /// By what it was recognised.
    pub(crate) how: String,
}

/// The kernel with an address inside it.
pub(super) fn around(view: &SpaceView, inside: VirtAddr) -> Option<KernelImage> {
    let mut end = inside.page_base(PageSize::KIB_4).checked_add(PAGE)?;
    let lowest = inside.as_u64().saturating_sub(REACH);
    while end.as_u64() > lowest {
        let pages = AT_ONCE.min(end.as_u64().checked_div(PAGE)?);
        let start = end.checked_sub(pages.checked_mul(PAGE)?)?;
        let mut magics = vec![[0; 2]; usize::try_from(pages).ok()?];
        let mut ops: Vec<ViewRead<'_>> = magics
            .iter_mut()
            .zip(0u64..)
            .map(|(magic, page)| ViewRead::new(start.wrapping_add(page.wrapping_mul(PAGE)), magic))
            .collect();
        // A page that is not there stays zero.
        let _ = view.read_batch(&mut ops);
        drop(ops);
        let mut headers: Vec<_> = magics.iter().zip(0u64..).filter(|(magic, _)| *magic == b"MZ").collect();
        // The nearest below comes first.
        headers.reverse();
        let found = headers
            .into_iter()
            .filter_map(|(_, page)| kernel_at(view, start.wrapping_add(page.wrapping_mul(PAGE))))
            .find(|kernel| kernel.image.as_ref().is_none_or(|image| image.contains(inside)));
        if found.is_some() {
            return found;
        }
        if start.as_u64() == 0 {
            return None;
        }
        end = start;
    }
    None
}

/// The kernel somewhere in the part of the space where images are; and how many pages were looked at.
pub(super) fn mapped(view: &SpaceView) -> (Option<KernelImage>, u64) {
    let runs = runs(view);
    let pages = runs.iter().fold(0, |sum: u64, run| sum.saturating_add(run.virt.len() / PAGE));
    let mut looked_at = 0usize;
    for run in &runs {
        let places = || (0..run.virt.len()).step_by(usize::try_from(PAGE).unwrap_or(usize::MAX));
        let mut magics: Vec<[u8; 2]> = places().map(|_| [0; 2]).collect();
        let mut ops: Vec<PhysRead<'_>> = magics
            .iter_mut()
            .zip(places())
            .map(|(magic, offset)| PhysRead::new(run.phys.wrapping_add(offset), magic))
            .collect();
        // A page that is not there stays zero.
        let _ = view.memory().read_batch(&mut ops);
        drop(ops);
        for (_, offset) in magics.iter().zip(places()).filter(|(magic, _)| *magic == b"MZ") {
            looked_at = looked_at.checked_add(1).unwrap_or(MAX_IMAGES);
            if looked_at > MAX_IMAGES {
                return (None, pages);
            }
            let found = kernel_at(view, run.virt.start().wrapping_add(offset));
            if found.is_some() {
                return (found, pages);
            }
        }
    }
    (by_debugger_data(view, &runs), pages)
}

/// What is mapped where images are, by pages that are read at once.
fn runs(view: &SpaceView) -> Vec<MappedRun> {
    let (first, last) = if view.metadata().pointer_size == 8 { WIDE_SPACE } else { NARROW_SPACE };
    let mut runs = Vec::new();
    let mut each = |run| {
        runs.push(run);
        ControlFlow::Continue(())
    };
    let budget = MapBudget { tables: 1 << 14, runs: 1 << 20 };
    let range = VirtRange::inclusive(VirtAddr::new(first), VirtAddr::new(last));
    // Past the budget, what was found until then is looked at.
    if let Err(error) = view.space().map(&**view.memory(), range, budget, &mut each) {
        log::debug!("map of the kernel's space: {error}");
    }
    // Pages of 1 GiB hold no images.
    let mut pages = 0u64;
    runs.retain(|run| {
        let taken = pages.saturating_add(run.virt.len() / PAGE);
        let fits = run.page != PageSize::GIB_1 && taken <= MAX_PAGES;
        pages = if fits { taken } else { pages };
        fits
    });
    runs
}

/// The kernel by its block for debuggers, where the image's first page is not there.
fn by_debugger_data(view: &SpaceView, runs: &[MappedRun]) -> Option<KernelImage> {
    let pointer_size = view.metadata().pointer_size;
    let mut left = MAX_SEARCHED;
    runs.iter().find_map(|run| {
        let len = run.virt.len().min(REACH).min(left);
        left = left.saturating_sub(len);
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        // Gaps stay zero.
        let _ = view.read_partial(run.virt.start(), &mut bytes);
        memchr::memmem::find_iter(&bytes, b"KDBG").find_map(|tag| {
            let block = bytes.get(tag.checked_sub(0x10)?..)?;
            let at = run.virt.start().wrapping_add(number(tag)).wrapping_sub(0x10);
            let base = Kdbg::named_base(block, pointer_size)?;
            let inside = at.offset_from(base).is_some_and(|offset| offset < REACH);
            if !inside || !base.is_page_aligned(PageSize::KIB_4) {
                return None;
            }
            let kdbg = Kdbg::read(view, at, base)?;
            let modules = kdbg.loaded_modules()?.offset_from(base).filter(|offset| *offset < REACH)?;
            let how = format!("KDBG at {at}, with PsLoadedModuleList at {modules:#x} of the image; no headers");
            Some(KernelImage { base, image: None, codeview: None, how })
        })
    })
}

/// The kernel whose headers lie at `base`.
pub(super) fn kernel_at(view: &dyn MemoryView, base: VirtAddr) -> Option<KernelImage> {
    let image = Image::read(view, base).ok()?;
    let codeview = CodeView::read(view, &image);
    let how = match &codeview {
        Some(codeview) => is_kernel_name(&codeview.name).then(|| format!("CodeView {codeview}"))?,
        None => match Exports::read(view, &image) {
            Ok(exports) if !exports.image_name.is_empty() => {
                is_kernel_name(&exports.image_name).then(|| format!("exports of {}", exports.image_name))?
            }
            _ => by_sections(&image)?,
        },
    };
    Some(KernelImage { base, image: Some(image), codeview, how })
}

/// Names of a kernel's image and of its symbols: `ntoskrnl.exe`, `ntkrnlmp.pdb`, `ntkrnlpa`, `ntkrpamp`.
fn is_kernel_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["ntoskrnl.", "ntkrnlmp.", "ntkrnlpa.", "ntkrpamp.", "ntkrla57."].iter().any(|start| name.starts_with(start))
}

/// Sections that are together only in a kernel.
fn by_sections(image: &Image) -> Option<String> {
    let all = ["PAGE", "INIT"].iter().all(|name| image.has_section(name));
    let one = ["POOLCODE", "POOLMI", "INITKDBG", "PAGEVRFY", "MISYSPTE"].iter().find(|name| image.has_section(name));
    one.filter(|_| all && image.size >= 2 << 20).map(|name| format!("sections PAGE, INIT and {name}"))
}

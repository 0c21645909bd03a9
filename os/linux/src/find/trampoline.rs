//! The kernel through the page tables with which it starts processors: the real-mode trampoline in the first MiB of memory.
//!
//! Owns: which pages down there are root page tables of a kernel, and when they decide. Must not know: notes, how an image is searched.
//! Keeps: the running kernel has written its trampoline before it had a process, and over the one of a kernel that ran before, or
//! beside it. So where all roots lead to one image, that kernel is the one that runs; where they lead to several, they decide nothing.
//!
//! It saves looking at all of memory, which is the dearest step where the target says nothing.
//! Source: Linux `arch/x86/realmode/init.c` (`reserve_real_mode` below 1 MiB, `setup_real_mode`: the last entry of `trampoline_pgd` is
//! that of the kernel's own root, since v3.10).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    PageSize, PhysAddr,
    memory::PhysRead,
    paging::{AddressSpace, Architecture, x86},
    view::SpaceView,
};

use super::{
    image,
    search::{Found, Search, describe},
};

/// Pages of the first MiB.
const PAGES: u64 = 256;
/// Offset of a root's last entry, which maps the kernel's image.
const LAST_ENTRY: u64 = 0xff8;
/// An entry is present.
const PRESENT: u64 = 1;
/// In a root's entry, a bit that must be zero.
const LARGE: u64 = 1 << 7;

/// The kernel that the trampoline leads to, if there is one and only one.
pub(super) fn find(search: &mut Search<'_>) -> Option<Found> {
    let mut candidates: Vec<(PhysAddr, &'static Architecture, PhysAddr)> = Vec::new();
    for root in roots(search) {
        for arch in [&x86::X64, &x86::X64_LA57] {
            if let Some(image) = image_of(search, arch, root) {
                candidates.push((root, arch, image));
            }
        }
    }
    let (root, arch, image) = *candidates.first()?;
    if let Some((other_root, _, other)) = candidates.iter().find(|(_, found, other)| (*found, *other) != (arch, image))
    {
        let became = format!("lead to several images, at physical {image} (by {root}) and {other} (by {other_root})");
        search.tell("page tables in the first MiB", became);
        return None;
    }
    let view = SpaceView::new(search.memory.clone(), AddressSpace::new(arch, root.as_u64()));
    let what = format!("boot trampoline: {}", describe(view.space()));
    match search.kernel_in(&view) {
        Ok(found) => {
            let own = describe(&found.space);
            search.tell(what, format!("kernel's own {own}; {}", found.symbols.describe()));
            Some(found)
        }
        Err(error) => {
            // A kernel that cannot be used is remembered by the steps that follow: they know its release.
            search.tell(what, format!("refused: {error}"));
            None
        }
    }
}

/// The pages whose last entry could be that of a root.
fn roots(search: &Search<'_>) -> Vec<PhysAddr> {
    let pages = || (0..PAGES).map(|page| PhysAddr::new(page.saturating_mul(PageSize::KIB_4.bytes())));
    let mut entries: Vec<[u8; 8]> = pages().map(|_| [0; 8]).collect();
    let mut ops: Vec<PhysRead<'_>> = entries
        .iter_mut()
        .zip(pages())
        .map(|(entry, page)| PhysRead::new(page.wrapping_add(LAST_ENTRY), entry))
        .collect();
    // A page that cannot be read keeps a zero, which is no entry.
    let _ = search.memory.read_batch(&mut ops);
    drop(ops);
    let is_root = |entry: &[u8; 8]| u64::from_le_bytes(*entry) & (PRESENT | LARGE) == PRESENT;
    entries.iter().zip(pages()).filter(|(entry, _)| is_root(entry)).map(|(_, page)| page).collect()
}

/// Where the image lies that a root maps, if it maps one.
fn image_of(search: &Search<'_>, arch: &'static Architecture, root: PhysAddr) -> Option<PhysAddr> {
    let space = AddressSpace::new(arch, root.as_u64());
    let view = SpaceView::new(search.memory.clone(), space.clone());
    let start = image::runs(&view).first()?.start();
    space.translate(&**search.memory, start).ok().map(|found| found.phys)
}

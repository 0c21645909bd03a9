//! A kernel that the layout cache knows.
//!
//! Owns: where its image starts, and its own page tables. Must not know: what an entry says, how it is confirmed.
//! Keeps: an entry that memory does not confirm is as good as none: the search goes on as without it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{Error, Result, VirtAddr, VirtRange, paging::AddressSpace, view::SpaceView};

use super::{
    image,
    search::{Found, kernel_space},
};
use crate::{
    layout_cache::{Confirmed, Entry, ROOTS, Recalled, Store, confirm},
    symbols::Known,
    vmcoreinfo::VmcoreInfo,
};

/// Mapped parts of the image's range whose start may be the image's: it is the first, but for what hostile tables map before it.
const MAX_STARTS: usize = 4;

/// The kernel of a note that holds true; `view` is of the kernel's own page tables.
pub(super) fn noted(cache: &Store, view: &SpaceView, note: &VmcoreInfo, known: &Known) -> Option<Found> {
    let entry = cache.load(&note.build_id_bytes()?)?;
    let (_, stext) = known.anchors.iter().find(|(name, _)| *name == "_stext")?;
    let start = stext.wrapping_sub(entry.symbol("_stext")?);
    for (name, expected) in &known.anchors {
        let found = entry.symbol(name).map(|offset| start.wrapping_add(offset));
        if found != Some(*expected) {
            log::debug!("layout cache: {name} at {expected} in the note, at {found:?} in the entry; it is not used");
            return None;
        }
    }
    let confirmed = confirmed(view, entry, start)?;
    Some(found(confirmed.open(view), view.space().clone(), Some(note.clone())))
}

/// The kernel that an address space maps.
pub(super) fn mapped(cache: &Store, view: &SpaceView) -> Option<Found> {
    let starts: Vec<VirtAddr> = image::runs(view).iter().map(VirtRange::start).take(MAX_STARTS).collect();
    for entry in cache.all() {
        for start in &starts {
            let Some(confirmed) = confirmed(view, entry.clone(), *start) else { continue };
            match own_space(view, &confirmed) {
                Ok(space) => {
                    let own = SpaceView::new(view.memory().clone(), space.clone());
                    return Some(found(confirmed.open(&own), space, None));
                }
                Err(error) => log::debug!("layout cache: {error}"),
            }
        }
    }
    None
}

fn confirmed(view: &SpaceView, entry: Entry, start: VirtAddr) -> Option<Confirmed> {
    confirm(view, entry, start).inspect_err(|error| log::debug!("layout cache: {error}")).ok()
}

fn own_space(view: &SpaceView, confirmed: &Confirmed) -> Result<AddressSpace> {
    let missing = |name: &str| Error::NotFound { what: "symbol", name: name.to_owned() };
    let [newer, older] = ROOTS.map(|name| confirmed.address_of(name));
    let root = newer.or(older).ok_or_else(|| missing("init_top_pgt"))?;
    kernel_space(view, root, confirmed.address_of("linux_banner").ok_or_else(|| missing("linux_banner"))?)
}

fn found(recalled: Recalled, space: AddressSpace, note: Option<VmcoreInfo>) -> Found {
    let Recalled { symbols, types, kept } = recalled;
    Found { space, note, symbols, types, kept: Some(kept) }
}

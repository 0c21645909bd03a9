//! The VMCOREINFO note: where it lies in memory, and whether it is true.
//!
//! Owns: which note is believed. Must not know: symbols beyond those in the note, types.
//! Keeps: a note is a claim; it counts when the page tables it names lead to a `uts_namespace` that holds its release.
//! Source: Linux `kernel/vmcore_info.c`, `arch/x86/kernel/vmcore_info_64.c`, `arch/x86/include/asm/page_64_types.h`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

use memflow_core::{
    Error, MemoryViewExt, PhysAddr, Result, VirtAddr,
    memory::PhysRead,
    paging::{AddressSpace, x86},
    view::SpaceView,
};

use super::{scan::Scan, search::Search};
use crate::{
    bytes,
    symbols::Known,
    vmcoreinfo::{self, VmcoreInfo},
};

/// Where the kernel's image is linked, `__START_KERNEL_map`.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// Bytes of `init_uts_ns` that are searched for the release: more than the structure has before and in `release`.
const UTS_LEN: usize = 1024;
/// Bytes in front of the text where the kernel keeps it as an ELF note in a page of its own (`vmcoreinfo_note`).
const NOTE_HEADER: u64 = 24;
/// Notes that one search looks at.
const MAX_NOTES: usize = 256;
/// Bytes of a page that are looked at: the header and the first key.
const START_LEN: usize = 24 + vmcoreinfo::FIRST_KEY.len();

/// A note that holds true.
pub(super) struct Confirmed {
    pub(super) space: AddressSpace,
    pub(super) note: VmcoreInfo,
    pub(super) known: Known,
}

/// A kernel that was seen and cannot be worked with.
pub(super) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::Unsupported { what: what.into(), why: why.into() }
}

/// Checks a note; writes down why it is refused.
pub(super) fn confirm(search: &mut Search<'_>, what: &str, text: &[u8]) -> Option<Confirmed> {
    match check(search, VmcoreInfo::parse(text)) {
        Ok(confirmed) => Some(confirmed),
        Err(error) => {
            search.tell_refused(what, error);
            None
        }
    }
}

/// The notes at the start of pages, where the kernel has kept them since v4.13, by address.
///
/// # Errors
/// [`Error::Cancelled`].
pub(super) fn scan(search: &mut Search<'_>) -> Result<Vec<(PhysAddr, Vec<u8>)>> {
    let found = Mutex::new(Vec::new());
    let scan = Scan { memory: &**search.memory, progress: search.progress, what: "looking for VMCOREINFO" };
    let memory = search.memory;
    let scanned = scan.page_starts::<START_LEN>(&|page, start| {
        for header in [0, NOTE_HEADER] {
            if start.get(bytes::index(header)..).is_some_and(|text| text.starts_with(vmcoreinfo::FIRST_KEY)) {
                let at = page.wrapping_add(header);
                let text = read_text(&**memory, at);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                // Other programs have lines that start alike: files of distributions, crash tools.
                if memchr::memmem::find(&text, b"SYMBOL(init_uts_ns)=").is_some() {
                    found.push((at, text));
                }
                if found.len() >= MAX_NOTES {
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable();
    if found.is_empty() {
        search.tell("VMCOREINFO", format!("at the start of no page of {} bytes{scanned}", scanned.seen));
    }
    Ok(found)
}

/// The bytes of a note, as far as they can be read.
pub(super) fn read_text(memory: &dyn memflow_core::PhysicalMemory, at: PhysAddr) -> Vec<u8> {
    let mut text = vec![0; vmcoreinfo::MAX_LEN];
    // A note near the end of a run is shorter; what is missing stays zero and ends the text.
    let _ = memory.read_batch(&mut [PhysRead::new(at, &mut text)]);
    text
}

/// Follows a note's page tables to the release it states.
fn check(search: &Search<'_>, note: VmcoreInfo) -> Result<Confirmed> {
    let missing = |name: &str| Error::NotFound { what: "key", name: name.to_owned() };
    let release = note.release().ok_or_else(|| missing("OSRELEASE"))?.to_owned();
    let symbol = |name: &str| note.symbol(name).ok_or_else(|| missing(name));
    let root = symbol("swapper_pg_dir")?;
    let uts = symbol("init_uts_ns")?;
    let stext = symbol("_stext")?;
    let kernel = format!("Linux {release}");
    if note.number("kimage_voffset").is_some() {
        return Err(unsupported(format!("{kernel} for AArch64"), "only x86-64 kernels are"));
    }
    if root.as_u64() >> 32 == 0 {
        return Err(unsupported(
            format!("{kernel} for 32-bit x86"),
            "only x86-64 kernels are; its page tables can be read with `translate`",
        ));
    }
    if note.number("sme_mask").is_some_and(|mask| mask != 0) {
        return Err(unsupported(format!("{kernel} with encrypted memory (SME)"), "its page tables are encrypted"));
    }
    let phys_base = note.number("phys_base").ok_or_else(|| missing("NUMBER(phys_base)"))?;
    let root = root
        .as_u64()
        .checked_sub(KERNEL_MAP)
        .and_then(|offset| offset.checked_add_signed(phys_base))
        .ok_or_else(|| missing("swapper_pg_dir in the kernel's image"))?;
    let arch = match note.number("pgtable_l5_enabled") {
        Some(0) | None => &x86::X64,
        Some(_) => &x86::X64_LA57,
    };
    let space = AddressSpace::new(arch, root);
    check_release(search, space.clone(), uts, &release)?;
    let known = Known { anchors: vec![("_stext", stext), ("init_uts_ns", uts)] };
    Ok(Confirmed { space, note, known })
}

fn check_release(search: &Search<'_>, space: AddressSpace, uts: VirtAddr, release: &str) -> Result<()> {
    let view = SpaceView::new(search.memory.clone(), space);
    let mut bytes = vec![0; UTS_LEN];
    view.read_into(uts, &mut bytes)?;
    let mut terminated = release.to_owned().into_bytes();
    terminated.push(0);
    match memchr::memmem::find(&bytes, &terminated) {
        Some(_) => Ok(()),
        None => Err(Error::Corrupt {
            what: "init_uts_ns",
            address: uts.into(),
            expected: format!("{release:?}").into(),
            found: "other bytes; the note is stale or of another kernel".into(),
        }),
    }
}

//! The kernel through its VMCOREINFO note: given by the target, or found in its memory.
//!
//! Owns: which note is believed. Must not know: symbols, types.
//! Keeps: a note is a claim; it counts when the page tables it names lead to a `uts_namespace` that holds its release.
//! Source: Linux `kernel/vmcore_info.c`, `arch/x86/kernel/vmcore_info_64.c`, `arch/x86/include/asm/page_64_types.h`.

use std::ops::ControlFlow;

use memflow_core::{
    Error, MemoryViewExt, PhysAddr, Result,
    memory::PhysicalMemory,
    paging::{AddressSpace, x86},
    view::SpaceView,
};

use super::{Found, scan};
use crate::{
    symbols::Known,
    vmcoreinfo::{self, VmcoreInfo},
};
use std::sync::Arc;

/// Where the kernel's image is linked, `__START_KERNEL_map`.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// Bytes of `init_uts_ns` that are searched for the release: more than the structure has before `release`.
const UTS_LEN: usize = 1024;

/// The kernel of the note that the target gives, or of the first note in its memory that holds true.
pub(crate) fn find_note(memory: &Arc<dyn PhysicalMemory>, evidence: &mut Vec<String>) -> Option<Found> {
    if let Some(text) = &memory.facts().vmcoreinfo {
        let note = VmcoreInfo::parse(text);
        match check(memory, note) {
            Ok(found) => {
                evidence.push(format!("VMCOREINFO given by the target: {}", describe(&found)));
                return Some(found);
            }
            Err(error) => evidence.push(format!("VMCOREINFO given by the target: refused: {error}")),
        }
    }
    let mut result = None;
    let mut hits = 0u32;
    let scanned = scan::pieces_downwards(&**memory, vmcoreinfo::MAX_LEN as u64, |at, bytes| {
        for offset in memchr::memmem::find_iter(bytes, vmcoreinfo::FIRST_KEY) {
            let Some(text) = bytes.get(offset..) else { continue };
            let note = VmcoreInfo::parse(text);
            if note.symbol("swapper_pg_dir").is_none() {
                continue;
            }
            hits += 1;
            let at = at.wrapping_add(offset as u64);
            match check(memory, note) {
                Ok(found) => {
                    evidence.push(format!("VMCOREINFO at physical {at}: {}", describe(&found)));
                    result = Some(found);
                    return ControlFlow::Break(());
                }
                Err(error) => evidence.push(format!("VMCOREINFO at physical {at}: refused: {error}")),
            }
        }
        ControlFlow::Continue(())
    });
    if result.is_none() && hits == 0 {
        evidence.push(format!("VMCOREINFO: none in {} bytes of memory", scanned.seen));
    }
    result
}

fn describe(found: &Found) -> String {
    format!("page tables at {}, {}", found.space.root(), found.space.architecture().name)
}

/// Follows a note's page tables to the release it states.
fn check(memory: &Arc<dyn PhysicalMemory>, note: VmcoreInfo) -> Result<Found> {
    let missing = |name: &str| Error::NotFound { what: "key of VMCOREINFO", name: name.to_owned() };
    let release = note.release().ok_or_else(|| missing("OSRELEASE"))?.to_owned();
    let symbol = |name: &str| note.symbol(name).ok_or_else(|| missing(name));
    let root = symbol("swapper_pg_dir")?;
    let uts = symbol("init_uts_ns")?;
    let stext = symbol("_stext")?;
    let phys_base = note.number("phys_base").ok_or_else(|| missing("NUMBER(phys_base)"))?;
    let root = root
        .as_u64()
        .checked_sub(KERNEL_MAP)
        .and_then(|offset| offset.checked_add_signed(phys_base))
        .map(PhysAddr::new)
        .ok_or_else(|| missing("swapper_pg_dir in the kernel's image"))?;
    let arch = match note.number("pgtable_l5_enabled") {
        Some(0) | None => &x86::X64,
        Some(_) => &x86::X64_LA57,
    };
    let space = AddressSpace::new(arch, root.as_u64());
    let view = SpaceView::new(memory.clone(), space.clone());
    let mut bytes = vec![0; UTS_LEN];
    view.read_into(uts, &mut bytes)?;
    let mut terminated = release.clone().into_bytes();
    terminated.push(0);
    if memchr::memmem::find(&bytes, &terminated).is_none() {
        return Err(Error::Corrupt {
            what: "init_uts_ns",
            address: uts.into(),
            expected: release.into(),
            found: "other bytes; the note is stale or of another kernel".into(),
        });
    }
    let known = Known { anchors: vec![("_stext", stext), ("init_uts_ns", uts)] };
    Ok(Found { space, known, uts: Some(uts), note: Some(note) })
}

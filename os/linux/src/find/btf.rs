//! Type information (BTF) and the name of the idle task, by looking at all of physical memory once.
//!
//! Owns: which places are worth a closer look. Must not know: what the types say, which task a name belongs to.
//! Keeps: everything found here is only a lead; numbers of leads are limited, and a limit that is reached is told.
//!
//! The kernel's image is contiguous in physical memory, so its type information can be read without page tables.
//! Source: Linux `Documentation/bpf/btf.rst`; `include/linux/init_task.h` and `kernel/sched/core.c` (the name: "swapper", and with
//! more than one processor "swapper/0").
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

use memflow_core::{MemoryViewExt, PhysAddr, PhysRange, Result, VirtAddr, view::PhysicalView};

use super::{
    scan::{Scan, Scanned},
    search::{MAX_BTF, Search},
};
use crate::types::{BTF_HEADER_LEN, Types, btf_extent};

/// What a section starts with: magic number, version, no flags.
const START: &[u8] = &[0x9f, 0xeb, 1, 0];
const NAME: &[u8] = b"swapper";
/// Sections looked at; each loaded module has one.
const MAX_SECTIONS: usize = 4096;
/// Places of the name looked at; logs hold it too.
const MAX_NAMES: usize = 1 << 14;
/// Bytes of all sections that are read.
const MAX_READ: u64 = 1 << 30;

/// Where to look closer.
#[derive(Debug, Default)]
pub(super) struct Leads {
    /// What could be type information, the largest first: that of the kernel itself is larger than those of its modules.
    pub(super) sections: Vec<PhysRange>,
    /// Places of the idle task's name.
    pub(super) names: Vec<PhysAddr>,
    pub(super) scanned: Scanned,
}

/// Looks at all of memory.
///
/// # Errors
/// [`Error::Cancelled`](memflow_core::Error::Cancelled).
pub(super) fn scan(search: &mut Search<'_>) -> Result<Leads> {
    let leads = Mutex::new(Leads::default());
    let scan = Scan { memory: &**search.memory, progress: search.progress, what: "looking for BTF" };
    let scanned = scan.bytes(BTF_HEADER_LEN, &|at, bytes| {
        let place = |offset: usize| Some(at.wrapping_add(u64::try_from(offset).ok()?));
        let sections = memchr::memmem::find_iter(bytes, START).filter_map(|offset| {
            let len = btf_extent(bytes.get(offset..)?).filter(|len| *len <= MAX_BTF)?;
            PhysRange::new(place(offset)?, len)
        });
        let names = memchr::memmem::find_iter(bytes, NAME).filter_map(|offset| {
            let rest = bytes.get(offset.checked_add(NAME.len())?..)?;
            if rest.starts_with(b"/0\0") || rest.starts_with(b"\0") { place(offset) } else { None }
        });
        let (sections, names): (Vec<_>, Vec<_>) = (sections.collect(), names.collect());
        let mut leads = leads.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_SECTIONS.saturating_sub(leads.sections.len());
        leads.sections.extend(sections.into_iter().take(room));
        let room = MAX_NAMES.saturating_sub(leads.names.len());
        leads.names.extend(names.into_iter().take(room));
        ControlFlow::Continue(())
    })?;
    let mut leads = leads.into_inner().unwrap_or_else(PoisonError::into_inner);
    leads.scanned = scanned;
    for (what, full) in [
        ("headers of BTF", leads.sections.len() == MAX_SECTIONS),
        ("names of the idle task", leads.names.len() == MAX_NAMES),
    ] {
        if full {
            search.tell(what, "there are more in memory than are looked at");
        }
    }
    // Pieces overlap, so a lead can be seen twice.
    leads.sections.sort_unstable_by_key(|section| (u64::MAX.wrapping_sub(section.len()), section.start()));
    leads.sections.dedup();
    leads.names.sort_unstable();
    leads.names.dedup();
    Ok(leads)
}

/// The types of each section that holds together and describes tasks, as only the kernel's own does, one after the other.
pub(super) fn types_of<'a>(
    search: &Search<'_>,
    leads: &'a Leads,
) -> impl Iterator<Item = (PhysRange, Types)> + use<'a> {
    let view = PhysicalView::new(search.memory.clone());
    let mut left = MAX_READ;
    leads.sections.iter().filter_map(move |section| {
        left = left.checked_sub(section.len())?;
        let bytes = view.read_bytes(VirtAddr::new(section.start().as_u64()), section.len()).ok()?;
        let types = Types::parse(bytes).ok().filter(|types| types.find_field("task_struct", "comm").is_some())?;
        Some((*section, types))
    })
}

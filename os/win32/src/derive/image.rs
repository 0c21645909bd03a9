//! Members that name a process' image, and the root of its tables in user mode.
//!
//! Owns: where the base of the image, the path in the audit record and the second root stand. Must not know: threads, regions.
//! Keeps: as `process`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::paging::AddressSpace;

use super::process::{FROM, Sample, only, places};
use crate::{kernel::Kernel, offsets::Layout, reader::Reader, structure::Structure};

/// Adds what is found.
pub(super) fn members(kernel: &Kernel, layout: &mut Layout, system: &Structure, samples: &[Sample]) {
    let reader = Reader::new(&kernel.view);
    let with_image: Vec<&Sample> = samples.iter().filter(|sample| sample.image.is_some()).collect();
    if !with_image.is_empty() {
        let fits = |offset: &u64| {
            system.word(*offset).is_ok_and(|word| word == 0)
                && with_image.iter().all(|sample| sample.bytes.pointer(*offset).ok() == sample.image)
        };
        if let Some(offset) = only(places(&reader, 0x80).filter(fits)) {
            layout.add("_EPROCESS.SectionBaseAddress", offset, FROM);
        }
    }
    let path = |sample: &Sample, offset: u64| {
        let at = sample.bytes.pointer(offset).ok().filter(|at| reader.is_kernel(*at))?;
        let [len, room]: [u16; 2] = reader.value(at, 0).ok()?;
        let whole = len >= 18 && len <= room && len % 2 == 0;
        let path = whole.then(|| reader.unicode_string(at, 0).ok()).flatten()?;
        path.starts_with("\\Device\\").then_some(())
    };
    let with_block: Vec<&Sample> = samples.iter().filter(|sample| sample.peb.is_some()).collect();
    let fits = |offset: &u64| !with_block.is_empty() && with_block.iter().all(|one| path(one, *offset).is_some());
    if let Some(offset) = only(places(&reader, 0x80).filter(fits)) {
        layout.add("_EPROCESS.SeAuditProcessCreationInfo", offset, FROM);
    }
    user_root(kernel, layout, &with_block);
}

/// Place of the root of user mode: other tables than those of kernel mode, which map the process' block to the same place. Processes that
/// may see the kernel anyway have none: a flag stands there, or nothing.
fn user_root(kernel: &Kernel, layout: &mut Layout, samples: &[&Sample]) {
    let reader = Reader::new(&kernel.view);
    let Some(root) = layout.find("_KPROCESS.DirectoryTableBase").filter(|_| reader.is_wide()) else { return };
    let is_second = |sample: &Sample, offset: u64| {
        let (own, other) = (sample.bytes.word(root).ok()?, sample.bytes.word(offset).ok()?);
        let (view, peb) = (sample.view.as_ref()?, sample.peb?);
        if other >> 12 == 0 || other >> 52 != 0 || other >> 12 == own >> 12 {
            return None;
        }
        let place = |space: &AddressSpace| space.translate(&*kernel.memory, peb).ok().map(|found| found.phys);
        let (first, second) = (place(view.space())?, place(&kernel.space_of_root(other))?);
        (first == second).then_some(())
    };
    let none = |sample: &Sample, offset: u64| sample.bytes.word(offset).is_ok_and(|word| word <= 1);
    let fits = |offset: &u64| {
        samples.iter().any(|one| is_second(one, *offset).is_some())
            && samples.iter().all(|one| none(one, *offset) || is_second(one, *offset).is_some())
    };
    if let Some(offset) = only(places(&reader, 0x80).filter(fits)) {
        layout.add("_KPROCESS.UserDirectoryTableBase", offset, FROM);
    }
}

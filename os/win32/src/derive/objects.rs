//! Members that lead from a process to other objects: its token, its handles, its session, its half of 32-bit code.
//!
//! Owns: how each of these objects is known. Must not know: threads, regions, what is made of them.
//! Keeps: as `process`; an object counts by what it says of the process, or by a text that it begins with.
//! Source: `TOKEN_SOURCE` at the start of `_TOKEN` (Windows SDK); `_HANDLE_TABLE`, whose owner and its number stand in two places only:
//! those of Windows 7 and before, and those since Windows 8; `_MM_SESSION_SPACE` and `_PEB.SessionId`; `_EWOW64PROCESS`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{PageSize, VirtAddr};

use super::process::{FROM, Sample, only, places};
use crate::{kernel::Kernel, offsets::Layout, reader::Reader, structure::Structure};

/// The text with which System's token begins.
const SYSTEM_TOKEN: [u8; 8] = *b"*SYSTEM*";

/// Adds what is found.
pub(super) fn members(kernel: &Kernel, layout: &mut Layout, system: &Structure, samples: &[Sample]) {
    let reader = Reader::new(&kernel.view);
    if samples.is_empty() {
        return;
    }
    token(&reader, layout, system, samples);
    handles(&reader, layout, samples);
    session(&reader, layout, samples);
    if reader.is_wide() {
        narrow_half(&reader, layout, system, samples);
    }
}

/// Place of the token, in whose pointer the low bits count references.
fn token(reader: &Reader<'_>, layout: &mut Layout, system: &Structure, samples: &[Sample]) {
    let mask = reader.either(0xf, 0x7);
    let source = |one: &Structure, offset: u64| {
        let at = VirtAddr::new(one.word(offset).ok()? & !mask);
        reader.is_kernel(at).then(|| reader.value::<[u8; 8]>(at, 0).ok()).flatten()
    };
    let is_source = |text: [u8; 8]| {
        let [first, ..] = text;
        first.is_ascii_graphic() && text.iter().all(|byte| *byte == 0 || *byte == b' ' || byte.is_ascii_graphic())
    };
    let fits = |offset: &u64| {
        source(system, *offset) == Some(SYSTEM_TOKEN)
            && samples.iter().all(|one| source(&one.bytes, *offset).is_some_and(is_source))
    };
    if let Some(offset) = only(places(reader, 0x80).filter(fits)) {
        layout.add("_EPROCESS.Token", offset, FROM);
    }
}

/// Place of the table of handles, which names its process and that one's number; and the form of the table.
fn handles(reader: &Reader<'_>, layout: &mut Layout, samples: &[Sample]) {
    let Some(pid_at) = layout.find("_EPROCESS.UniqueProcessId") else { return };
    let size = reader.pointer_size();
    // Owner, its number, code of the table, the next number.
    let old = [size, size.saturating_mul(2), 0, reader.either(0x5c, 0x38)];
    let new = [reader.either(0x10, 0xc), reader.either(0x28, 0x18), 8, 0];
    for [owner_at, number_at, code_at, next_at] in [old, new] {
        let owned = |one: &Sample, offset: u64| {
            let table = one.bytes.pointer(offset).ok().filter(|table| reader.is_kernel(*table))?;
            let number = u64::from(reader.value::<u32>(table, number_at).ok()?);
            let owner = reader.pointer(table, owner_at).ok()?;
            (owner == one.bytes.at() && Some(number) == one.bytes.word(pid_at).ok()).then_some(())
        };
        let none = |one: &Sample, offset: u64| one.peb.is_none() && one.bytes.word(offset).is_ok_and(|word| word == 0);
        let fits = |offset: &u64| {
            samples.iter().any(|one| owned(one, *offset).is_some())
                && samples.iter().all(|one| none(one, *offset) || owned(one, *offset).is_some())
        };
        if let Some(offset) = only(places(reader, 0x80).filter(fits)) {
            layout.add("_EPROCESS.ObjectTable", offset, FROM);
            layout.add("_HANDLE_TABLE.TableCode", code_at, FROM);
            layout.add("_HANDLE_TABLE.NextHandleNeedingPool", next_at, FROM);
            return;
        }
    }
}

/// Place of the session: what it leads to has the number that the process' block has. Processes of session 0 alone tell nothing.
fn session(reader: &Reader<'_>, layout: &mut Layout, samples: &[Sample]) {
    let numbers: Vec<(&Sample, u32)> = samples
        .iter()
        .filter_map(|one| {
            let (own, peb) = one.own()?;
            Some((one, own.value(peb, own.either(0x2c0, 0x1d4)).ok()?))
        })
        .collect();
    let same = |one: &Sample, number: u32, offset: u64| match one.bytes.pointer(offset) {
        Ok(at) if at.is_null() => number == 0,
        Ok(at) => reader.is_kernel(at) && reader.value::<u32>(at, 8).is_ok_and(|found| found == number),
        Err(_) => false,
    };
    let fits = |offset: &u64| numbers.iter().all(|(one, number)| same(one, *number, *offset));
    if numbers.iter().any(|(_, number)| *number != 0)
        && let Some(offset) = only(places(reader, 0x80).filter(fits))
    {
        layout.add("_EPROCESS.Session", offset, FROM);
    }
}

/// Place of what is known of 32-bit code: the block itself before Windows 10, since then a structure that begins with the way to it.
fn narrow_half(reader: &Reader<'_>, layout: &mut Layout, system: &Structure, samples: &[Sample]) {
    // The block of 32-bit code names the same image as that of 64-bit code.
    let is_block = |one: &Sample, peb: VirtAddr| {
        let own = one.view.as_ref().map(|view| Reader::new(view).narrow())?;
        let low = peb.as_u64() >> 32 == 0 && peb.is_page_aligned(PageSize::KIB_4) && own.is_user(peb);
        let image = low.then(|| own.pointer(peb, 8).ok()).flatten()?;
        (Some(image) == one.image).then_some(())
    };
    let behind = |one: &Sample, offset: u64| {
        let at = one.bytes.pointer(offset).ok().filter(|at| reader.is_kernel(*at))?;
        is_block(one, reader.pointer(at, 0).ok()?)
    };
    let direct = |one: &Sample, offset: u64| is_block(one, one.bytes.pointer(offset).ok()?);
    let place = |has: &dyn Fn(&Sample, u64) -> Option<()>| {
        let none = |one: &Structure, offset: u64| one.word(offset).is_ok_and(|word| word == 0);
        let fits = |offset: &u64| {
            none(system, *offset)
                && samples.iter().any(|one| has(one, *offset).is_some())
                && samples.iter().all(|one| none(&one.bytes, *offset) || has(one, *offset).is_some())
        };
        only(places(reader, 0x80).filter(fits))
    };
    if let Some(offset) = place(&direct) {
        layout.add("_EPROCESS.WoW64Process", offset, FROM);
    } else if let Some(offset) = place(&behind) {
        layout.add("_EPROCESS.WoW64Process", offset, FROM);
        layout.add("_EWOW64PROCESS.Peb", 0, FROM);
    }
}

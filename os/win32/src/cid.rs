//! The kernel's table of process and thread numbers (`PspCidTable`), as a second witness beside the list of processes.
//!
//! Owns: the walk of the table, forms of its entries, which of its objects are processes and threads. Must not know: the list.
//! Keeps: an object counts when it is of its type and bears the number under which it stands; pages that are missing are told.
//! Source: `_HANDLE_TABLE`, `_HANDLE_TABLE_ENTRY`, `DISPATCHER_HEADER` in the kernel's symbols. Since Windows 8, 64-bit systems keep 44
//! bits of an address from bit 20 of an entry on; before, and on 32-bit systems, all of it, with three bits of flags.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::HashSet;

use memflow_core::{
    MemoryView, VirtAddr,
    error::{Error, Result, ResultExt},
    memory::ViewRead,
    os::Listing,
};

use crate::{bytes::Bytes, kernel::Kernel, reader::Reader, structure::Structure};

/// Bytes of a page of the table.
const PAGE: u64 = 0x1000;
/// Pages with entries that are looked at: more than any system has numbers for.
const MAX_PAGES: usize = 1 << 14;
/// Bits of the table's address that say how many levels there are.
const LEVELS: u64 = 3;
/// First byte of a process and of a thread, without its highest bit.
const PROCESS: u8 = 3;
const THREAD: u8 = 6;

/// What stands under a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Numbered {
    /// The number.
    pub(crate) id: u64,
    /// The object.
    pub(crate) at: VirtAddr,
    /// What it is.
    pub(crate) kind: NumberedKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NumberedKind {
    Process,
    /// With the process that it says it belongs to, where that place is known.
    Thread {
        owner: Option<VirtAddr>,
    },
}

/// Processes and threads by their numbers, but for objects that `known` says are known; `None` when it is not known where the table lies.
/// `system` is the process System, if that is known.
///
/// # Errors
/// When the table cannot be started; later problems are in the listing.
pub(crate) fn numbered(
    kernel: &Kernel,
    system: Option<VirtAddr>,
    known: &dyn Fn(VirtAddr) -> bool,
) -> Option<Result<Listing<Numbered>>> {
    let code_at = kernel.layout.find("_HANDLE_TABLE.TableCode")?;
    let named = || kernel.symbol("PspCidTable").or_else(|| kernel.kdbg.as_ref()?.process_numbers());
    let variable = named().or_else(|| *kernel.process_numbers.get_or_init(|| search(kernel, code_at, system?)))?;
    Some(walk(kernel, variable, code_at, known).context(|| "table of process numbers".into()))
}

/// The variable, looked for in the kernel's data: the only one that leads to a table in which System stands under its number.
fn search(kernel: &Kernel, code_at: u64, system: VirtAddr) -> Option<VirtAddr> {
    let image = kernel.image.as_ref()?;
    let reader = Reader::new(&kernel.view);
    let (width, pointer_size) = (reader.pointer_size(), kernel.view.metadata().pointer_size);
    let mut found = HashSet::new();
    for section in image.sections.iter().filter(|section| section.is_writable()) {
        let bytes = image.readable(&kernel.view, section);
        let mut at = 0u64;
        while let Some(word) = Bytes(&bytes).pointer(at, pointer_size) {
            let table = VirtAddr::new(word);
            if reader.is_kernel(table) && word.is_multiple_of(16) && !image.contains(table) {
                let variable = image.at(section.offset).wrapping_add(at);
                let leads = has_system(&reader, table, code_at, system).unwrap_or_default();
                found.extend(leads.then_some((variable, table)));
            }
            at = at.checked_add(width)?;
        }
    }
    let mut tables = found.iter().map(|(_, table)| table);
    let first = tables.next()?;
    // The table of System's own handles may have a handle to it, but no variable leads there.
    tables.all(|table| table == first).then(|| found.iter().map(|(variable, _)| *variable).min()).flatten()
}

/// Whether System stands under its number in a table.
fn has_system(reader: &Reader<'_>, table: VirtAddr, code_at: u64, system: VirtAddr) -> Result<bool> {
    let (mut page, levels) = top(reader, table, code_at)?;
    for _ in 0..levels {
        page = reader.pointer(page, 0)?;
        if !reader.is_kernel(page) {
            return Ok(false);
        }
    }
    // Numbers are multiples of four; each has an entry of two words.
    let entry = reader.pointer(page, reader.pointer_size().saturating_mul(2))?;
    Ok(object(reader, entry.as_u64()) == Some(system))
}

/// The first page of a table, and how many levels of addresses lie above entries.
fn top(reader: &Reader<'_>, table: VirtAddr, code_at: u64) -> Result<(VirtAddr, u64)> {
    let code = reader.pointer(table, code_at)?.as_u64();
    let (top, levels) = (VirtAddr::new(code & !LEVELS), code & LEVELS);
    if levels > 2 || !reader.is_kernel(top) || !top.as_u64().is_multiple_of(PAGE) {
        return Err(Error::Corrupt {
            what: "table of process numbers",
            address: table.into(),
            expected: "the address of a table of up to three levels".into(),
            found: format!("{code:#x}").into(),
        });
    }
    Ok((top, levels))
}

fn walk(
    kernel: &Kernel,
    variable: VirtAddr,
    code_at: u64,
    known: &dyn Fn(VirtAddr) -> bool,
) -> Result<Listing<Numbered>> {
    let reader = Reader::new(&kernel.view);
    let (top, levels) = top(&reader, reader.pointer(variable, 0)?, code_at)?;
    let mut listing = Listing::new();
    let mut pages = vec![Some(top)];
    for _ in 0..levels {
        pages = pages.into_iter().flat_map(|page| below(&reader, page, &mut listing.problems)).collect();
        pages.truncate(MAX_PAGES);
    }
    let mut objects = Vec::new();
    let mut met = 0usize;
    let width = reader.pointer_size();
    let per_page = PAGE.checked_div(width.saturating_mul(2)).unwrap_or_default();
    for (page_number, page) in (0u64..).zip(pages) {
        let Some(page) = page else { continue };
        let bytes =
            match Structure::read(&kernel.view, page, PAGE).and_then(|page| page.slice(0, PAGE).map(<[u8]>::to_vec)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    listing.problems.push(error.context("table of process numbers"));
                    continue;
                }
            };
        for entry in 0..per_page {
            let place = entry.saturating_mul(width).saturating_mul(2);
            let word = Bytes(&bytes).pointer(place, kernel.view.metadata().pointer_size).unwrap_or_default();
            let id = page_number.saturating_mul(per_page).saturating_add(entry).saturating_mul(4);
            match object(&reader, word) {
                Some(at) if known(at) => met = met.saturating_add(1),
                object => objects.extend(object.map(|at| (id, at))),
            }
        }
    }
    if met == 0 && listing.problems.is_empty() {
        listing.problems.push(Error::Corrupt {
            what: "table of process numbers",
            address: top.into(),
            expected: "processes of the list in it".into(),
            found: "none of them".into(),
        });
    }
    kinds(kernel, &objects, &mut listing);
    Ok(listing)
}

/// The pages that a page of addresses names, up to the last; `None` for those that are not there.
fn below(reader: &Reader<'_>, page: Option<VirtAddr>, problems: &mut Vec<Error>) -> Vec<Option<VirtAddr>> {
    let width = reader.pointer_size();
    let per_page = PAGE.checked_div(width).unwrap_or_default();
    let empty = || vec![None; usize::try_from(per_page).unwrap_or_default()];
    let Some(page) = page else { return empty() };
    let structure = match Structure::read(reader.view(), page, PAGE) {
        Ok(structure) => structure,
        Err(error) => {
            problems.push(error.context("table of process numbers"));
            return empty();
        }
    };
    let mut missing = None;
    let mut pages: Vec<Option<VirtAddr>> = (0..per_page)
        .map(|number| match structure.pointer(number.saturating_mul(width)) {
            Ok(page) => Some(page).filter(|page| reader.is_kernel(*page) && page.as_u64().is_multiple_of(PAGE)),
            Err(error) => {
                missing = Some(error);
                None
            }
        })
        .collect();
    problems.extend(missing.map(|error| error.context("table of process numbers")));
    let used = pages.iter().rposition(Option::is_some).map_or(0, |last| last.saturating_add(1));
    pages.truncate(used);
    pages
}

/// The object of an entry.
fn object(reader: &Reader<'_>, word: u64) -> Option<VirtAddr> {
    let whole = VirtAddr::new(word & !7);
    if reader.is_kernel(whole) {
        return Some(whole);
    }
    // The upper 16 bits of such addresses are all ones.
    let packed = VirtAddr::new(word >> 20 << 4 | 0xffff_0000_0000_0000);
    (reader.is_wide() && word >> 20 != 0 && reader.is_kernel(packed)).then_some(packed)
}

/// Adds those objects that are what they must be under their numbers.
fn kinds(kernel: &Kernel, objects: &[(u64, VirtAddr)], listing: &mut Listing<Numbered>) {
    let reader = Reader::new(&kernel.view);
    let layout = &kernel.layout;
    let firsts = words(&reader, objects.iter().map(|(_, at)| Some(*at)));
    let first =
        |word: &Option<u64>| word.and_then(|word| word.to_le_bytes().first().copied()).map(|first| first & 0x7f);
    let kinds: Vec<Option<u8>> = firsts.iter().map(first).collect();
    let own_number = |kind: &Option<u8>| match kind {
        Some(PROCESS) => layout.find("_EPROCESS.UniqueProcessId"),
        Some(THREAD) => layout.find("_ETHREAD.Cid").map(|cid| cid.saturating_add(reader.pointer_size())),
        _ => None,
    };
    let places = objects.iter().zip(&kinds).map(|((_, at), kind)| Some(at.wrapping_add(own_number(kind)?)));
    let numbers = words(&reader, places);
    let owner_at = layout.find("_KTHREAD.Process");
    let owners = objects.iter().zip(&kinds).map(|((_, at), kind)| match kind {
        Some(THREAD) => owner_at.map(|offset| at.wrapping_add(offset)),
        _ => None,
    });
    let owners = words(&reader, owners);
    for ((((id, at), kind), own), owner) in objects.iter().zip(&kinds).zip(&numbers).zip(&owners) {
        let kind = match (kind, own) {
            (Some(PROCESS), Some(own)) if own == id => NumberedKind::Process,
            (Some(THREAD), Some(own)) if own == id => NumberedKind::Thread { owner: owner.map(VirtAddr::new) },
            (None, _) | (Some(PROCESS | THREAD), None) => {
                listing.problems.push(Error::NotFound { what: "readable object with number", name: id.to_string() });
                continue;
            }
            // What stood there last, or something that is neither.
            _ => continue,
        };
        listing.items.push(Numbered { id: *id, at: *at, kind });
    }
}

/// The words at addresses, in one batch; `None` for those that cannot be read.
fn words(reader: &Reader<'_>, places: impl Iterator<Item = Option<VirtAddr>>) -> Vec<Option<u64>> {
    let width = usize::try_from(reader.pointer_size()).unwrap_or(8);
    let places: Vec<Option<VirtAddr>> = places.collect();
    let mut room = vec![[0; 8]; places.len()];
    let mut reads: Vec<ViewRead<'_>> = places
        .iter()
        .zip(&mut room)
        .filter_map(|(place, room)| Some(ViewRead::new((*place)?, room.get_mut(..width)?)))
        .collect();
    // Each outcome is looked at.
    let _ = reader.view().read_batch(&mut reads);
    let mut done: Vec<bool> = reads.iter().map(|read| read.outcome.is_done()).collect();
    done.reverse();
    let value = |(place, room): (&Option<VirtAddr>, &[u8; 8])| {
        (place.is_some() && done.pop().unwrap_or_default()).then(|| u64::from_le_bytes(*room))
    };
    places.iter().zip(&room).map(value).collect()
}

//! The list of a process' threads, and where a thread names its process.
//!
//! Owns: the two lists of a process, the place of the links in a thread, the thread's number. Must not know: regions, images.
//! Keeps: a list counts when its entries lead back and belong to objects that are threads of this very process.
//! Source: `DISPATCHER_HEADER`, whose first byte is 6 for a thread.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{MemoryViewExt, VirtAddr};

use super::process::{FROM, Sample, only, places};
use crate::{bytes::number, kernel::Kernel, list, offsets::Layout, reader::Reader, structure::Structure};

/// First byte of an object that is a thread.
const THREAD: u8 = 6;
/// Bytes of a thread that are looked at; the largest has 0x900.
const LEN: u64 = 0xa00;
/// More threads than any process has.
const MAX_THREADS: u64 = 1 << 18;
/// Distances from a list's head to the number of threads.
const COUNTS: [u64; 3] = [0x10, 0x18, 0x20];

/// Adds what is found.
pub(super) fn members(kernel: &Kernel, layout: &mut Layout, system: &Structure, samples: &[Sample]) {
    let reader = Reader::new(&kernel.view);
    let owner = layout.find("_KTHREAD.Process").or_else(|| layout.find("_KTHREAD.ApcState.Process"));
    let (Some(owner), Some(links)) = (owner, layout.find("_EPROCESS.ActiveProcessLinks")) else { return };
    let distance = |offset: u64| {
        let own = system.at().wrapping_add(offset);
        let next = system.pointer(offset).ok().filter(|next| reader.is_kernel(*next) && *next != own)?;
        reader.links(next).ok().filter(|(_, back)| *back == own)?;
        only(thread_starts(&reader, next, owner, system.at()))
    };
    // The list in the front part of a process is that of the scheduler; the other one is that of the process manager.
    let found: Vec<(u64, u64)> = places(&reader, 0x18).filter_map(|at| Some((at, distance(at)?))).collect();
    for (list_at, links_at) in found {
        let (list, entry) = if list_at < links {
            ("_KPROCESS.ThreadListHead", "_KTHREAD.ThreadListEntry")
        } else {
            ("_EPROCESS.ThreadListHead", "_ETHREAD.ThreadListEntry")
        };
        layout.add(list, list_at, FROM);
        layout.add(entry, links_at, FROM);
    }
    numbers(kernel, layout, system, samples);
}

/// Distances before an entry at which a thread of `process` may begin.
fn thread_starts(
    reader: &Reader<'_>,
    entry: VirtAddr,
    owner: u64,
    process: VirtAddr,
) -> impl Iterator<Item = u64> + use<> {
    let view = reader.view();
    let size = reader.pointer_size();
    let is_thread = |at: VirtAddr| {
        let object = view.read::<u8>(at).is_ok_and(|kind| kind & 0x7f == THREAD);
        object && reader.pointer(at, owner).is_ok_and(|found| found == process)
    };
    // Objects are aligned.
    let starts: Vec<u64> = (0..LEN)
        .step_by(usize::try_from(size).unwrap_or(8))
        .filter(|distance| entry.as_u64().wrapping_sub(*distance) % 16 == 0 || size == 4)
        .filter(|distance| is_thread(entry.wrapping_sub(*distance)))
        .collect();
    starts.into_iter()
}

/// Numbers of threads: of their process, then their own; and how many there are.
fn numbers(kernel: &Kernel, layout: &mut Layout, system: &Structure, samples: &[Sample]) {
    let reader = Reader::new(&kernel.view);
    let (Some(head), Some(links), Some(pid)) = (
        layout.find("_EPROCESS.ThreadListHead"),
        layout.find("_ETHREAD.ThreadListEntry"),
        layout.find("_EPROCESS.UniqueProcessId"),
    ) else {
        return;
    };
    let processes = || std::iter::once(system).chain(samples.iter().map(|sample| &sample.bytes));
    let lists: Vec<(u64, Vec<Structure>, u64)> = processes()
        .filter_map(|process| {
            let nodes = list::nodes(reader, "list of threads", process.at().wrapping_add(head), MAX_THREADS);
            let complete = nodes.problems.is_empty().then_some(number(nodes.items.len()))?;
            let read = |node: VirtAddr| Structure::read(&kernel.view, node.wrapping_sub(links), LEN).ok();
            let threads: Vec<Structure> = nodes.items.into_iter().take(4).filter_map(read).collect();
            Some((process.word(pid).ok()?, threads, complete))
        })
        .collect();
    let size = reader.pointer_size();
    let step = usize::try_from(size).unwrap_or(8);
    let fits = |offset: &u64| {
        let named = |thread: &Structure, pid: u64| {
            let own = thread.word(offset.saturating_add(size));
            thread.word(*offset).is_ok_and(|of| of == pid) && own.is_ok_and(|tid| tid % 4 == 0 && tid != 0)
        };
        lists.iter().all(|(pid, threads, _)| threads.iter().all(|thread| named(thread, *pid)))
    };
    if lists.iter().any(|(_, threads, _)| !threads.is_empty())
        && let Some(offset) = only((0x100..LEN.saturating_sub(32)).step_by(step).filter(fits))
    {
        layout.add("_ETHREAD.Cid", offset, FROM);
    }
    let counted = |distance: &u64| {
        let at = head.saturating_add(*distance);
        let same = |process: &Structure, count: u64| process.u32(at).is_ok_and(|found| u64::from(found) == count);
        processes().zip(&lists).all(|(process, (_, _, count))| same(process, *count))
    };
    if lists.len() == processes().count()
        && let Some(distance) = only(COUNTS.into_iter().filter(counted))
    {
        layout.add("_EPROCESS.ActiveThreads", head.saturating_add(distance), FROM);
    }
}

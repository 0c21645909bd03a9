//! The lists of a process' threads, and members of a thread.
//!
//! Owns: the two lists of a process, where a thread begins, what it says of itself. Must not know: regions, images.
//! Keeps: a list counts when it closes and its entries belong to objects that are threads of this very process; a place of a member
//! counts when it is the only one that fits all threads that were looked at.
//! Source: `DISPATCHER_HEADER`, whose first byte is 6 for a thread; a thread names its process in `ApcState`, then once more.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::VirtAddr;

use super::{
    process::{FROM, Sample, only, places},
    times::times,
};
use crate::{bytes::number, kernel::Kernel, list, offsets::Layout, reader::Reader, structure::Structure};

/// First byte of an object that is a thread.
const THREAD: u8 = 6;
/// Bytes of a thread that are looked at; the largest has 0x900.
const LEN: u64 = 0xa00;
/// More threads than any process has.
const MAX_THREADS: u64 = 1 << 18;
/// Threads of one process that are looked at.
const LOOKED_AT: usize = 4;
/// Distances from a list's head to the number of threads, in pointers.
const COUNTS: [u64; 3] = [2, 3, 4];

/// The threads of one process, by one of its lists.
struct Threads<'a> {
    process: &'a Structure,
    /// `None` for System.
    sample: Option<&'a Sample>,
    /// The bytes before each entry of the list and behind it, the entry in the middle.
    around: Vec<Structure>,
    count: u64,
}

/// Adds what is found.
pub(super) fn members(kernel: &Kernel, layout: &mut Layout, system: &Structure, samples: &[Sample]) {
    let reader = Reader::new(&kernel.view);
    let Some(links) = layout.find("_EPROCESS.ActiveProcessLinks") else { return };
    let candidates = places(&reader, 0x18).filter(|at| *at != links);
    let lists: Vec<(u64, Vec<Threads<'_>>)> =
        candidates.filter_map(|at| Some((at, lists(&reader, at, system, samples)?))).collect();
    let named = layout.find("_KTHREAD.Process").or_else(|| layout.find("_KTHREAD.ApcState.Process"));
    // The list in the front part of a process is that of the scheduler; the other one is that of the process manager.
    for (list_at, threads) in lists {
        let Some((links_at, owners)) = start(&reader, &threads, named) else { continue };
        let (list, entry) = if list_at < links {
            ("_KPROCESS.ThreadListHead", "_KTHREAD.ThreadListEntry")
        } else {
            ("_EPROCESS.ThreadListHead", "_ETHREAD.ThreadListEntry")
        };
        layout.add(list, list_at, FROM);
        layout.add(entry, links_at, FROM);
        if let [first, second] = *owners {
            layout.add("_KTHREAD.ApcState.Process", first, FROM);
            layout.add("_KTHREAD.ApcState", first.saturating_sub(reader.either(0x20, 0x10)), FROM);
            layout.add("_KTHREAD.Process", second, FROM);
        }
        if list_at > links {
            own_members(kernel, layout, links_at, &threads);
            counts(&reader, layout, list_at, &threads);
        }
    }
}

/// The list at a place of System and of all samples; `None` where it is none. System's has threads.
fn lists<'a>(reader: &Reader<'_>, at: u64, system: &'a Structure, samples: &'a [Sample]) -> Option<Vec<Threads<'a>>> {
    let of = |process: &'a Structure, sample: Option<&'a Sample>| {
        let (head, next) = (process.at().wrapping_add(at), process.pointer(at).ok()?);
        if !reader.is_kernel(next) || !reader.links(next).is_ok_and(|(_, back)| back == head) {
            return None;
        }
        let nodes = list::nodes(*reader, "list of threads", head, MAX_THREADS);
        let count = nodes.problems.is_empty().then_some(number(nodes.items.len()))?;
        let around = nodes.items.into_iter().take(LOOKED_AT);
        let read = |node: VirtAddr| Structure::read(reader.view(), node.wrapping_sub(LEN), LEN.saturating_mul(2)).ok();
        Some(Threads { process, sample, around: around.map(read).collect::<Option<_>>()?, count })
    };
    let first = of(system, None).filter(|one| !one.around.is_empty())?;
    let others = samples.iter().map(|sample| of(&sample.bytes, Some(sample)));
    std::iter::once(Some(first)).chain(others).collect()
}

/// How far before an entry of the list a thread begins, and the places in it that name its process.
fn start(reader: &Reader<'_>, threads: &[Threads<'_>], named: Option<u64>) -> Option<(u64, Vec<u64>)> {
    let step = usize::try_from(reader.pointer_size()).unwrap_or(8);
    let owners = |thread: &Structure, process: VirtAddr, distance: u64| {
        let start = LEN.checked_sub(distance)?;
        let [kind] = thread.slice(start, 1).ok()? else { return None };
        if kind & 0x7f != THREAD || !thread.at().wrapping_add(start).as_u64().is_multiple_of(8) {
            return None;
        }
        // Both stand before the entries of lists.
        let names = |offset: &u64| thread.pointer(start.saturating_add(*offset)).is_ok_and(|owner| owner == process);
        let owners: Vec<u64> = (0..distance).step_by(step).filter(names).collect();
        named.map_or(!owners.is_empty(), |named| owners.contains(&named)).then_some(owners)
    };
    let mut found = None;
    for distance in (0x40..LEN).step_by(step) {
        let mut all = threads.iter().flat_map(|one| one.around.iter().map(|thread| (thread, one.process.at())));
        let mut common = all.next().and_then(|(thread, process)| owners(thread, process, distance));
        for (thread, process) in all {
            let Some(known) = &mut common else { break };
            match owners(thread, process, distance) {
                Some(other) => known.retain(|owner| other.contains(owner)),
                None => common = None,
            }
        }
        if let Some(owners) = common.filter(|owners| !owners.is_empty()) {
            if found.is_some() {
                return None;
            }
            found = Some((distance, owners));
        }
    }
    found
}

/// Numbers, block, start and time of a thread whose entry of the list lies at `links`.
fn own_members(kernel: &Kernel, layout: &mut Layout, links: u64, threads: &[Threads<'_>]) {
    let reader = Reader::new(&kernel.view);
    let size = reader.pointer_size();
    let Some(begin) = LEN.checked_sub(links) else { return };
    let end = layout.find("sizeof(_ETHREAD)").unwrap_or(LEN).min(LEN).saturating_sub(32);
    let all = || threads.iter().flat_map(|one| one.around.iter().map(move |thread| (one, thread)));
    let word = |thread: &Structure, offset: u64| thread.word(begin.saturating_add(offset)).ok();
    let places = |from: u64, step: u64| (from..end).step_by(usize::try_from(step).unwrap_or(8));
    let Some(pid) = layout.find("_EPROCESS.UniqueProcessId") else { return };
    let numbered = |offset: &u64| {
        all().all(|(one, thread)| {
            let tid = word(thread, offset.saturating_add(size));
            word(thread, *offset) == one.process.word(pid).ok() && tid.is_some_and(|tid| tid % 4 == 0 && tid != 0)
        })
    };
    if let Some(offset) = only(places(0x100, size).filter(numbered)) {
        layout.add("_ETHREAD.Cid", offset, FROM);
    }
    let of_users = || all().filter_map(|(one, thread)| Some((one.sample?.own()?.0, thread)));
    if of_users().next().is_none() {
        return;
    }
    // A thread's block names itself, and threads of the kernel have none.
    let of_system = || all().filter(|(one, _)| one.sample.is_none()).map(|(_, thread)| thread);
    let is_block = |own: &Reader<'_>, at: u64| {
        let at = VirtAddr::new(at);
        own.is_user(at) && own.pointer(at, own.either(0x30, 0x18)).is_ok_and(|found| found == at)
    };
    let has_block = |offset: &u64| {
        of_system().all(|thread| word(thread, *offset) == Some(0))
            && of_users().all(|(own, thread)| word(thread, *offset).is_some_and(|at| is_block(&own, at)))
    };
    if let Some(offset) = only(places(0x40, size).filter(has_block)) {
        layout.add("_KTHREAD.Teb", offset, FROM);
    }
    // Where the kernel began the thread, then where its program was to begin: in the kernel and its modules, or in memory of users.
    let is_start = |offset: &u64| {
        of_system().all(|thread| word(thread, *offset).is_some_and(|at| reader.is_code(VirtAddr::new(at))))
            && of_users().all(|(own, thread)| word(thread, *offset).is_some_and(|at| own.is_user(VirtAddr::new(at))))
    };
    let mut found = places(0x100, size).filter(is_start);
    if let (Some(first), Some(second), None) = (found.next(), found.next(), found.next()) {
        layout.add("_ETHREAD.StartAddress", first, FROM);
        layout.add("_ETHREAD.Win32StartAddress", second, FROM);
    }
    let Some((times, created)) = times(kernel).zip(layout.find("_EPROCESS.CreateTime")) else { return };
    let is_time = |offset: &u64| {
        all().all(|(one, thread)| {
            let time = thread.u64(begin.saturating_add(*offset)).ok();
            let of_process = one.process.u64(created).ok();
            time.zip(of_process).is_some_and(|(time, first)| times.contains(&time) && time >= first)
        })
    };
    if let Some(offset) = only(places(0x100, 8).filter(is_time)) {
        layout.add("_ETHREAD.CreateTime", offset, FROM);
    }
}

/// How many threads there are, beside the head of the list.
fn counts(reader: &Reader<'_>, layout: &mut Layout, head: u64, threads: &[Threads<'_>]) {
    let counted = |distance: &u64| {
        let at = head.saturating_add(distance.saturating_mul(reader.pointer_size()));
        let same = |one: &Threads<'_>| one.process.u32(at).is_ok_and(|found| u64::from(found) == one.count);
        threads.iter().all(same)
    };
    if let Some(distance) = only(COUNTS.into_iter().filter(counted)) {
        let at = head.saturating_add(distance.saturating_mul(reader.pointer_size()));
        layout.add("_EPROCESS.ActiveThreads", at, FROM);
    }
}

//! Walks of many addresses through tables that have to be called for: devices, plugins, files that cannot be mapped.
//!
//! Owns: which entries are fetched when: all of one level in one call; walks start as deep as earlier ones allow (`tlb`).
//! Must not know: bits of an entry (`entry`), callers' buffers, the operating system.
//! Keeps: each address leaves once, with a page or with the level where it stopped; at most one call per level whatever the batch.
//! Only when a read of several neighbouring entries fails in part are those behind the failure asked for once more, one by one.

use std::ops::Range;

use super::{
    Walked,
    arch::{Architecture, EntrySize},
    entry::{Halt, Next, Node},
    tlb::{Start, Tlb, Trust},
    walk::stop_cause,
};
use crate::{
    address::{PageSize, PhysAddr, PhysRange},
    error::StopCause,
    memory::{Outcome, PhysRead, PhysicalMemory, RunMap},
};

/// Entries of one table are read together when no more than this many unwanted bytes lie between them: a cache line
/// costs a device what eight bytes cost it. The bytes in flight stay below nine times the entries wanted.
const JOIN_GAP: u64 = 64;

/// From so many wanted entries of one page of a table on, they are one read, whatever lies between them: a page costs a device less
/// than so many requests. The bytes in flight stay below 33 times the entries wanted.
const WHOLE_PAGE_FROM: usize = 16;

/// Addresses on their way: `first..=last` of an operation, and the table they have come to, so many levels below the root.
#[derive(Clone, Copy, Debug)]
struct Item {
    op: usize,
    first: u64,
    last: u64,
    depth: usize,
    node: Node,
    /// When the first entry on its way was asked for.
    asked: u64,
}

/// Walks all ranges `(op, first, last)`, level by level, and calls `each` for every part of them, in no particular order.
pub(super) fn walk_ranges(
    arch: &'static Architecture,
    root: PhysAddr,
    memory: &dyn PhysicalMemory,
    trust: Trust,
    ranges: impl Iterator<Item = (usize, u64, u64)>,
    mut each: impl FnMut(Walked),
) {
    let tlb = Tlb::new(arch, root, memory, trust);
    let mut items = Vec::with_capacity(ranges.size_hint().0);
    for (op, mut first, last) in ranges {
        loop {
            let (end, canonical) = arch.canonical_part(first, last);
            if canonical {
                start(&tlb, (op, first, end), &mut items, &mut each);
            } else {
                each(Walked { op, first, last: end, result: Err(Halt::not_canonical(root)) });
            }
            match end.checked_add(1) {
                Some(next) if end < last => first = next,
                _ => break,
            }
        }
    }
    if items.is_empty() {
        return;
    }
    let runs = memory.metadata().runs;
    let mut items = by_address(items);
    for (depth, level) in arch.levels.iter().enumerate() {
        // Those that start deeper wait where they are until the others have come as far.
        if !items.iter().any(|item| item.depth == depth) {
            continue;
        }
        cut_at_entries(&mut items, depth, level.offset_mask());
        let mut wanted: Vec<PhysAddr> = Vec::with_capacity(items.len());
        wanted.extend(
            items
                .iter()
                .filter(|item| item.depth == depth)
                .map(|item| item.node.entry_address(arch, level, item.first)),
        );
        wanted.dedup();
        let entries = read_in_any_order(&wanted, |wanted| read_entries(memory, &tlb, &runs, arch.entry_size, wanted));
        let number = arch.level_number(depth);
        let mut known = wanted.iter().zip(entries);
        let mut current = known.next();
        items.retain_mut(|item| {
            if item.depth != depth {
                return true;
            }
            let at = item.node.entry_address(arch, level, item.first);
            // The addresses of entries were taken in this order.
            if current.is_some_and(|(address, _)| *address != at) {
                current = known.next();
            }
            let entry = current.map_or(Err(StopCause::TableUnreadable), |(_, entry)| entry);
            let next = match entry {
                Ok(entry) => item.node.decode(arch, level, number, entry, item.first),
                Err(cause) => Err(item.node.halt(number, 0, cause)),
            };
            if let Ok(next) = &next {
                tlb.keep(level, number, item.first, next, item.asked);
            }
            let result = match next {
                Ok(Next::Table(node)) => {
                    item.node = node;
                    item.depth = depth.saturating_add(1);
                    return true;
                }
                Ok(Next::Page(found)) => Ok(found),
                Err(halt) => Err(halt),
            };
            each(Walked { op: item.op, first: item.first, last: item.last, result });
            false
        });
        if items.is_empty() {
            return;
        }
    }
    // Only an architecture whose lowest level leads to tables comes here.
    for item in items {
        let result = Err(item.node.halt(0, 0, StopCause::ReservedBit));
        each(Walked { op: item.op, first: item.first, last: item.last, result });
    }
}

/// Starts the walks of canonical addresses `(op, first, last)`: what is known leaves at once.
fn start(
    tlb: &Tlb<'_>,
    (op, mut first, last): (usize, u64, u64),
    items: &mut Vec<Item>,
    each: &mut impl FnMut(Walked),
) {
    loop {
        let (start, covered) = tlb.start(first);
        let end = (first | covered).min(last);
        match start {
            Start::Page(found) => each(Walked { op, first, last: end, result: Ok(found) }),
            Start::Table(depth, node, asked) => items.push(Item { op, first, last: end, depth, node, asked }),
        }
        match end.checked_add(1) {
            Some(next) if end < last => first = next,
            _ => return,
        }
    }
}

/// Sorts items by their first addresses: on every level, those below one table then follow each other, by the entries of that table.
fn by_address(items: Vec<Item>) -> Vec<Item> {
    if items.is_sorted_by_key(|item| item.first) {
        return items;
    }
    // Sorting moves elements about often: places are a quarter as large as items.
    let mut places: Vec<(u64, usize)> = items.iter().enumerate().map(|(place, item)| (item.first, place)).collect();
    places.sort_unstable();
    places.into_iter().filter_map(|(_, place)| items.get(place).copied()).collect()
}

/// Cuts the items at `depth` so that each lies under one entry of that level, whose entries cover the bits of `inside`.
fn cut_at_entries(items: &mut Vec<Item>, depth: usize, inside: u64) {
    if items.iter().all(|item| item.depth != depth || item.last <= item.first | inside) {
        return;
    }
    let mut cut = Vec::with_capacity(items.len().saturating_mul(2));
    for mut item in items.drain(..) {
        while item.depth == depth && item.first | inside < item.last {
            let end = item.first | inside;
            cut.push(Item { last: end, ..item });
            // `end` is below `last`, so there is an address after it.
            item.first = end.wrapping_add(1);
        }
        cut.push(item);
    }
    // Items that overlap are no longer in order once they are cut.
    *items = by_address(cut);
}

/// Reads entries by `read`, which takes sorted and distinct addresses. Those of one table follow each other and ascend, so sorting the
/// tables sorts most batches.
fn read_in_any_order(
    wanted: &[PhysAddr],
    read: impl FnOnce(&[PhysAddr]) -> Vec<Result<u64, StopCause>>,
) -> Vec<Result<u64, StopCause>> {
    if wanted.is_sorted_by(|one, next| one < next) {
        return read(wanted);
    }
    let mut ascending: Vec<(PhysAddr, Range<usize>)> = Vec::new();
    for (place, at) in wanted.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| wanted.get(before));
        let page = |at: &PhysAddr| at.page_base(PageSize::KIB_4);
        let follows = before.is_some_and(|before| before < at && page(before) == page(at));
        match ascending.last_mut().filter(|_| follows) {
            Some((_, stretch)) => stretch.end = place.saturating_add(1),
            None => ascending.push((*at, place..place.saturating_add(1))),
        }
    }
    ascending.sort_unstable_by_key(|(first, _)| *first);
    let mut places: Vec<(PhysAddr, usize)> = Vec::with_capacity(wanted.len());
    for (_, stretch) in ascending {
        places.extend(stretch.filter_map(|place| wanted.get(place).map(|at| (*at, place))));
    }
    // Stretches overlap where tables are used at several addresses.
    if !places.is_sorted_by_key(|(at, _)| *at) {
        places.sort_unstable();
    }
    let mut sorted: Vec<PhysAddr> = places.iter().map(|(at, _)| *at).collect();
    sorted.dedup();
    let mut known = sorted.iter().zip(read(&sorted)).peekable();
    let mut entries = vec![Err(StopCause::TableUnreadable); wanted.len()];
    for (at, place) in places {
        while known.next_if(|(address, _)| **address < at).is_some() {}
        if let (Some(entry), Some((_, found))) = (entries.get_mut(place), known.peek()) {
            *entry = *found;
        }
    }
    entries
}

/// Reads the entries at `wanted`, sorted and distinct, in one call.
fn read_entries(
    memory: &dyn PhysicalMemory,
    tlb: &Tlb<'_>,
    runs: &RunMap,
    size: EntrySize,
    wanted: &[PhysAddr],
) -> Vec<Result<u64, StopCause>> {
    let mut entries = Vec::with_capacity(wanted.len());
    let mut lost = Vec::new();
    let reads = join(runs, size, wanted);
    tlb.will_read(reads.iter().filter_map(|read| PhysRange::new(read.at, read.len)));
    read_joined(memory, size, &reads, wanted, |index, entry| {
        if entry.is_none() {
            lost.push(index);
        }
        entries.push(entry.unwrap_or(Err(StopCause::TableUnreadable)));
    });
    if !lost.is_empty() {
        let again: Vec<PhysAddr> = lost.iter().filter_map(|index| wanted.get(*index).copied()).collect();
        let reads: Vec<TableRead> =
            again.iter().map(|at| TableRead { at: *at, len: size.bytes(), entries: 1 }).collect();
        read_joined(memory, size, &reads, &again, |index, entry| {
            if let (Some(place), Some(entry)) = (lost.get(index).and_then(|index| entries.get_mut(*index)), entry) {
                *place = entry;
            }
        });
    }
    entries
}

/// One read of table memory, and how many of the wanted entries it brings.
#[derive(Clone, Copy, Debug)]
struct TableRead {
    at: PhysAddr,
    len: u64,
    entries: usize,
}

/// Joins wanted entries that lie close together, or many in one page, in one run of the target.
fn join(runs: &RunMap, size: EntrySize, wanted: &[PhysAddr]) -> Vec<TableRead> {
    let mut reads: Vec<TableRead> = Vec::new();
    let mut run: Option<PhysRange> = None;
    let mut page: Option<PhysAddr> = None;
    let mut gap = JOIN_GAP;
    for (index, at) in wanted.iter().enumerate() {
        let base = at.page_base(PageSize::KIB_4);
        // Between the last entry of a page and the first of the next, the gap counts that any two may have.
        let allowed = if page == Some(base) { gap } else { JOIN_GAP };
        if page != Some(base) {
            page = Some(base);
            let rest = wanted.get(index..).unwrap_or_default();
            let many = rest.partition_point(|other| other.page_base(PageSize::KIB_4) == base) >= WHOLE_PAGE_FROM;
            gap = if many { PageSize::KIB_4.bytes() } else { JOIN_GAP };
        }
        let len = at
            .offset_from(reads.last().map_or(*at, |read| read.at))
            .and_then(|offset| offset.checked_add(size.bytes()));
        let in_run = len.and_then(|len| PhysRange::new(*at, size.bytes()).map(|entry| (len, entry.last())));
        match (reads.last_mut(), in_run) {
            (Some(read), Some((len, Some(last))))
                if len.saturating_sub(read.len) <= allowed.saturating_add(size.bytes())
                    && run.is_some_and(|run| run.contains(last)) =>
            {
                read.len = len;
                read.entries = read.entries.saturating_add(1);
            }
            _ => {
                run = runs.find(*at).map(|run| run.range);
                reads.push(TableRead { at: *at, len: size.bytes(), entries: 1 });
            }
        }
    }
    reads
}

/// Carries out `reads` in one call and calls `each` for every wanted entry in order: the entry, why it could not be read, or `None`
/// when a read that it shares with others failed before it was reached.
fn read_joined(
    memory: &dyn PhysicalMemory,
    size: EntrySize,
    reads: &[TableRead],
    wanted: &[PhysAddr],
    mut each: impl FnMut(usize, Option<Result<u64, StopCause>>),
) {
    let total = reads.iter().fold(0u64, |sum, read| sum.saturating_add(read.len));
    let mut buffer = vec![0u8; usize::try_from(total).unwrap_or(usize::MAX)];
    let mut ops = Vec::with_capacity(reads.len());
    let mut rest = buffer.as_mut_slice();
    for read in reads {
        let len = usize::try_from(read.len).unwrap_or(usize::MAX).min(rest.len());
        let (buf, after) = std::mem::take(&mut rest).split_at_mut(len);
        rest = after;
        ops.push(PhysRead::new(read.at, buf));
    }
    // What failed is in the outcomes.
    let _ = memory.read_batch(&mut ops);
    let mut next = wanted.iter().enumerate();
    for (op, read) in ops.iter().zip(reads) {
        for (index, at) in next.by_ref().take(read.entries) {
            let offset = at.offset_from(read.at).unwrap_or(u64::MAX);
            each(index, entry_in(op, offset, size, read.entries > 1));
        }
    }
}

/// The entry at `offset` of a read, as far as the outcome allows.
fn entry_in(op: &PhysRead<'_>, offset: u64, size: EntrySize, shared: bool) -> Option<Result<u64, StopCause>> {
    let arrived = match op.outcome {
        Outcome::Done => u64::MAX,
        Outcome::Failed { offset, .. } => offset,
        Outcome::NotAttempted => 0,
    };
    if offset.saturating_add(size.bytes()) > arrived {
        return if shared { None } else { stop_cause(op.outcome).map(Err) };
    }
    let bytes = usize::try_from(offset).ok().and_then(|offset| op.buf.get(offset..)).unwrap_or_default();
    let entry = match size {
        EntrySize::Eight => bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)),
        EntrySize::Four => bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes).into()),
    };
    Some(entry.ok_or(StopCause::TableUnreadable))
}

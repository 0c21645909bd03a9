//! The maple tree, the kernel's tree of ranges.
//!
//! Owns: the walk over all entries of a tree, level by level, one batch for each level.
//! Must not know: what the entries are.
//! Keeps: a node's children lie inside its own range and no node is visited twice, so any bytes end the walk; a node that
//! contradicts itself is a problem of the listing, its neighbours are still read.
//! Source: include/linux/maple_tree.h, lib/maple_tree.c (mtree_range_walk, ma_data_end); Linux 6.1 and later.

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
    error::{Error, Result},
    os::Listing,
};

use crate::{
    record::{Record, Span, read_each},
    types::{Field, Types},
};

/// `MAPLE_HEIGHT_MAX`.
const MAX_HEIGHT: usize = 31;
/// Nodes of one tree. Each holds about ten entries, and the kernel's own limit on a process' regions is 2^16 by default.
const MAX_NODES: u64 = 1 << 20;
/// Entries of one tree.
const MAX_ENTRIES: usize = 1 << 21;
/// Nodes read with one batch; larger levels take several, so that what is held at a time stays small.
const BATCH: usize = 4096;
/// Nodes are aligned to 256 bytes; the low bits of a pointer to one hold its type.
const NODE_MASK: u64 = 0xff;
/// Entries below this, with bit 1 set, are marks of the tree itself.
const FIRST_POINTER: u64 = 4096;

const DENSE: u64 = 0;
const LEAF_64: u64 = 1;
const RANGE_64: u64 = 2;
const ARANGE_64: u64 = 3;

/// Where the parts of the nodes lie.
#[derive(Clone, Debug)]
pub(super) struct MapleLayout {
    node: Span,
    word: u64,
    dense_slots: Field,
    /// `maple_range_64`, of leaves and inner nodes without gaps.
    pivots: Field,
    slots: Field,
    /// `maple_arange_64`, of inner nodes that also record the gaps below them.
    gap_pivots: Field,
    gap_slots: Field,
    gap_end: Field,
}

impl MapleLayout {
    pub(super) fn new(types: &Types) -> Result<Self> {
        let (dense_slots, parent) = (types.field("maple_node", "slot")?, types.field("maple_node", "parent")?);
        let [pivots, slots] = [types.field("maple_range_64", "pivot")?, types.field("maple_range_64", "slot")?];
        let [gap_pivots, gap_slots] =
            [types.field("maple_arange_64", "pivot")?, types.field("maple_arange_64", "slot")?];
        let gap_end = types.field("maple_arange_64", "meta.end")?;
        Self::from_fields(parent.size, dense_slots, [pivots, slots], [gap_pivots, gap_slots, gap_end])
    }

    fn from_fields(word: u64, dense_slots: Field, range: [Field; 2], gaps: [Field; 3]) -> Result<Self> {
        let [pivots, slots] = range;
        let [gap_pivots, gap_slots, gap_end] = gaps;
        let start = Field { offset: 0, size: word, bits: None };
        let node = Span::of("maple_node", [start, dense_slots, pivots, slots, gap_pivots, gap_slots, gap_end])?;
        Ok(Self { node, word, dense_slots, pivots, slots, gap_pivots, gap_slots, gap_end })
    }
}

/// An entry of a tree: what it holds for a range of indexes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MapleEntry {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) value: VirtAddr,
}

/// A node on the way: its address with the type in the low bits, and the indexes it is for.
type NodeRef = MapleEntry;

/// All entries of the tree whose `ma_root` is `root`, by index.
pub(super) fn entries(view: &dyn MemoryView, layout: &MapleLayout, root: VirtAddr) -> Listing<MapleEntry> {
    let mut found = Listing::new();
    if root.as_u64() & 3 != 2 || root.as_u64() < FIRST_POINTER {
        // A tree with at most one entry, at index 0, has no node.
        if !root.is_null() {
            found.items.push(MapleEntry { first: 0, last: 0, value: root });
        }
        return found;
    }
    let mut seen: HashSet<u64> = HashSet::new();
    let mut level: Vec<NodeRef> = vec![MapleEntry { first: 0, last: u64::MAX, value: root }];
    for _ in 0..MAX_HEIGHT {
        level.retain(|node| match visit(&mut seen, node.value, root) {
            Ok(()) => true,
            Err(error) => {
                found.problems.push(error);
                false
            }
        });
        let mut next = Vec::new();
        for nodes in level.chunks(BATCH) {
            let at = |node: &NodeRef| (VirtAddr::new(node.value.as_u64() & !NODE_MASK), layout.node);
            for (node, record) in nodes.iter().zip(read_each(view, nodes.iter().map(at))) {
                let into = if is_leaf(node.value) { &mut found.items } else { &mut next };
                if let Err(error) = record.and_then(|record| decode(layout, node, &record, into)) {
                    found.problems.push(error);
                }
            }
            if found.items.len() > MAX_ENTRIES || next.len() > MAX_ENTRIES {
                let limit = u64::try_from(MAX_ENTRIES).unwrap_or(u64::MAX);
                found.problems.push(Error::Limit { what: "maple tree", address: root.into(), limit });
                next.clear();
                break;
            }
        }
        if next.is_empty() {
            found.items.sort_by_key(|entry| entry.first);
            return found;
        }
        level = next;
    }
    found.problems.push(Error::Limit {
        what: "height of a maple tree",
        address: root.into(),
        limit: u64::try_from(MAX_HEIGHT).unwrap_or(u64::MAX),
    });
    found
}

fn kind(node: VirtAddr) -> u64 {
    node.as_u64() >> 3 & 0xf
}

fn is_leaf(node: VirtAddr) -> bool {
    matches!(kind(node), DENSE | LEAF_64)
}

fn visit(seen: &mut HashSet<u64>, node: VirtAddr, root: VirtAddr) -> Result<()> {
    let entries = u64::try_from(seen.len()).unwrap_or(u64::MAX);
    if entries >= MAX_NODES {
        return Err(Error::Limit { what: "maple tree", address: root.into(), limit: MAX_NODES });
    }
    if !seen.insert(node.as_u64() & !NODE_MASK) {
        return Err(Error::Cycle { what: "maple tree", address: node.into(), entries });
    }
    Ok(())
}

/// Adds what a node holds: entries for a leaf, children for an inner node. What was added before an error stands.
fn decode(layout: &MapleLayout, node: &NodeRef, record: &Record, into: &mut Vec<MapleEntry>) -> Result<()> {
    let word = layout.word;
    let corrupt = |expected: &'static str, found: String| Error::Corrupt {
        what: "maple tree node",
        address: node.value.into(),
        expected: expected.into(),
        found: found.into(),
    };
    let count = |field: Field| field.size.checked_div(word).unwrap_or_default();
    let leaf = is_leaf(node.value);
    let (pivots, slots) = match kind(node.value) {
        DENSE => {
            for slot in 0..count(layout.dense_slots) {
                let Some(index) = node.first.checked_add(slot).filter(|index| *index <= node.last) else { break };
                push(into, leaf, index, index, record.element(layout.dense_slots, slot, word)?);
            }
            return Ok(());
        }
        LEAF_64 | RANGE_64 => (layout.pivots, layout.slots),
        ARANGE_64 => (layout.gap_pivots, layout.gap_slots),
        other => return Err(corrupt("a type from 0 to 3", other.to_string())),
    };
    let end = data_end(layout, node, record, pivots)?;
    if end >= count(slots) {
        return Err(corrupt("the index of its last slot", end.to_string()));
    }
    let mut first = node.first;
    for slot in 0..=end {
        let last = if slot < end { record.element(pivots, slot, word)? } else { node.last };
        if last < first || last > node.last {
            return Err(corrupt(
                "ascending pivots inside the range of the node",
                format!("{last:#x} in {:#x}-{:#x}", first, node.last),
            ));
        }
        let value = record.element(slots, slot, word)?;
        if value == 0 && !leaf {
            return Err(corrupt("a child in each slot", format!("none in slot {slot}")));
        }
        push(into, leaf, first, last, value);
        let Some(next) = last.checked_add(1) else { break };
        first = next;
    }
    Ok(())
}

/// The index of the last slot in use.
fn data_end(layout: &MapleLayout, node: &NodeRef, record: &Record, pivots: Field) -> Result<u64> {
    if kind(node.value) == ARANGE_64 {
        return record.number(layout.gap_end);
    }
    let word = layout.word;
    let count = pivots.size.checked_div(word).unwrap_or_default();
    let before = count.saturating_sub(1);
    match record.element(pivots, before, word)? {
        // With the last pivot unused the last slot is not needed either, and its first byte holds the end.
        0 => {
            let offset = count.checked_mul(word).and_then(|at| at.checked_add(layout.slots.offset));
            let offset = offset.ok_or(Error::Range { address: node.value.into(), len: word })?;
            record.number(Field { offset, size: 1, bits: None })
        }
        last if last == node.last => Ok(before),
        _ => Ok(count),
    }
}

fn push(into: &mut Vec<MapleEntry>, leaf: bool, first: u64, last: u64, value: u64) {
    // Marks of the tree itself are no entries (`xa_is_internal`), such as the one a fork leaves where it gave up.
    let mark = value & 3 == 2 && value < FIRST_POINTER;
    if value != 0 && !(leaf && mark) {
        into.push(MapleEntry { first, last, value: VirtAddr::new(value) });
    }
}

#[cfg(test)]
mod tests;

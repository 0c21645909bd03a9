//! The tree of a process' regions: its root, the form of its nodes, and the bits of their flags.
//!
//! Owns: which forms there have been, and how one is confirmed. Must not know: threads.
//! Keeps: a root counts when the tree below it has the region of the process' block, and that of its image; flags count when they call the
//! one private and writable, the other an image.
//! Source: forms of `_MMVAD_SHORT` and places of flags of Windows 7 to 11, 64-bit.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::VirtAddr;

use super::process::{Sample, places, view_of};
use crate::{kernel::Kernel, offsets::Layout, reader::Reader, structure::Structure};

const FROM: &str = "regions of process blocks and images, found by it";
/// A balanced tree is no deeper.
const MAX_DEPTH: usize = 64;
/// Distance from the root to the last hint.
const HINTS: u64 = 0x40;
/// Bytes of a node.
const NODE: u64 = 0x80;

/// Places of members that go together: name and number.
type Form = &'static [(&'static str, u64)];

/// Since Windows 8.1.
const BALANCED: Form = &[
    ("_MMVAD_SHORT.StartingVpn", 0x18),
    ("_MMVAD_SHORT.EndingVpn", 0x1c),
    ("_MMVAD_SHORT.StartingVpnHigh", 0x20),
    ("_MMVAD_SHORT.EndingVpnHigh", 0x21),
    ("_MMVAD_SHORT.u", 0x30),
];
/// Windows Vista and 7.
const TABLE: Form = &[("_MMVAD_SHORT.StartingVpn", 0x18), ("_MMVAD_SHORT.EndingVpn", 0x20), ("_MMVAD_SHORT.u", 0x28)];
/// The same since Windows 7.
const FILES: Form = &[
    ("_MMVAD.Subsection", 0x48),
    ("_SUBSECTION.ControlArea", 0),
    ("_CONTROL_AREA.FilePointer", 0x40),
    ("_FILE_OBJECT.FileName", 0x58),
];
/// First bits of type, protection and private memory, in the order of the systems that had them.
const FLAGS: [[u64; 3]; 5] = [[52, 56, 63], [0, 3, 15], [0, 3, 14], [4, 7, 20], [4, 7, 21]];

/// Adds what is found.
pub(super) fn members(kernel: &Kernel, layout: &mut Layout, samples: &[Sample]) {
    let reader = Reader::new(&kernel.view);
    let known: Vec<(&Sample, VirtAddr, VirtAddr)> =
        samples.iter().filter_map(|sample| Some((sample, sample.peb?, sample.image?))).collect();
    // Forms of 32-bit systems are others.
    if known.is_empty() || !reader.is_wide() || known.iter().any(|(sample, ..)| view_of(sample).is_none()) {
        return;
    }
    for (form, balanced) in [(BALANCED, true), (TABLE, false)] {
        let find = |sample: &Sample, offset: u64, at: VirtAddr| {
            let root = offset.saturating_add(if balanced { 0 } else { 0x10 });
            search(&reader, sample.bytes.pointer(root).ok()?, balanced, at.as_u64() >> 12)
        };
        let fits = |offset: &u64| {
            known.iter().all(|(sample, peb, image)| {
                find(sample, *offset, *peb).is_some() && find(sample, *offset, *image).is_some()
            })
        };
        // A little behind the root stands the node that was found last, which may be the root.
        let found: Vec<u64> = places(&reader, 0x100).filter(fits).collect();
        let Some(root) = found.first().copied() else { continue };
        if found.iter().any(|other| other.saturating_sub(root) > HINTS) {
            continue;
        }
        layout.add("_EPROCESS.VadRoot", root, FROM);
        for (name, value) in form.iter().chain(FILES) {
            layout.add(*name, *value, FROM);
        }
        let flags_at = if balanced { 0x30 } else { 0x28 };
        let flags = |sample: &Sample, at: VirtAddr| find(sample, root, at)?.u64(flags_at).ok();
        let pairs: Vec<(u64, u64)> = known
            .iter()
            .filter_map(|(sample, peb, image)| Some((flags(sample, *peb)?, flags(sample, *image)?)))
            .collect();
        let bits =
            |flags: u64, first: u64, mask: u64| flags.checked_shr(u32::try_from(first).ok()?).map(|bits| bits & mask);
        let true_of = |[kind, protection, private]: [u64; 3]| {
            let sense = |(block, image): &(u64, u64)| {
                // Images are mapped for execution and copied when they are written to.
                bits(*block, private, 1) == Some(1)
                    && bits(*block, protection, 0x1f) == Some(4)
                    && bits(*image, private, 1) == Some(0)
                    && bits(*image, protection, 0x1f) == Some(7)
                    && bits(*image, kind, 7) == Some(2)
            };
            pairs.iter().all(sense)
        };
        // Those of the older form have 64 bits.
        let mut sets =
            FLAGS.into_iter().filter(|[.., private]| (*private > 32) != balanced).filter(|set| true_of(*set));
        if let (Some([kind, protection, private]), None) = (sets.next(), sets.next()) {
            for (name, first, count) in
                [("VadType", kind, 3), ("Protection", protection, 5), ("PrivateMemory", private, 1)]
            {
                layout.add(format!("_MMVAD_FLAGS.{name}@bit"), first, FROM);
                layout.add(format!("_MMVAD_FLAGS.{name}@bits"), count, FROM);
            }
        }
        return;
    }
}

/// The node of a tree that has a page.
fn search(reader: &Reader<'_>, root: VirtAddr, balanced: bool, page: u64) -> Option<Structure> {
    let mut at = root;
    for _ in 0..MAX_DEPTH {
        if !reader.is_kernel(at) {
            return None;
        }
        let node = Structure::read(reader.view(), at, NODE).ok()?;
        let (first, last) = if balanced {
            let high = |offset: u64| node.slice(offset, 1).ok()?.first().map(|byte| u64::from(*byte) << 32);
            (u64::from(node.u32(0x18).ok()?) | high(0x20)?, u64::from(node.u32(0x1c).ok()?) | high(0x21)?)
        } else {
            (node.u64(0x18).ok()?, node.u64(0x20).ok()?)
        };
        let (left, right) = if balanced { (0, 8) } else { (8, 0x10) };
        if first > last {
            return None;
        }
        at = if page < first {
            node.pointer(left).ok()?
        } else if page > last {
            node.pointer(right).ok()?
        } else {
            return Some(node);
        };
    }
    None
}

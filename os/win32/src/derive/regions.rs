//! The tree of a process' regions: its root, the form of its nodes, and the bits of their flags.
//!
//! Owns: which forms there have been, and how one is confirmed. Must not know: threads.
//! Keeps: a root counts when the tree below it has the region of the process' block, and that of its image; flags count when they call the
//! one private and writable, the other an image.
//! Source: forms of `_MMVAD_SHORT` and places of flags of Windows 7 to 11.
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

/// A form of the tree and of its nodes.
#[derive(Debug)]
struct Form {
    wide: bool,
    /// Distance from the place in the process to the pointer to the first node.
    root: u64,
    left: u64,
    right: u64,
    start: u64,
    end: u64,
    /// The high bytes of the numbers of pages, one each.
    high: Option<(u64, u64)>,
    flags: u64,
    /// First bits of type, protection and private memory, in the order of the systems that had them.
    bits: &'static [[u64; 3]],
    /// What goes with this form.
    more: &'static [(&'static str, u64)],
}

/// What follows the flags on x64 in both forms, and on the way to the name of a file.
macro_rules! wide_members {
    ($($more:tt)*) => {
        &[
            ("_MMVAD.Subsection", 0x48),
            ("_MMVAD.FirstPrototypePte", 0x50),
            ("_MMVAD.LastContiguousPte", 0x58),
            ("_SUBSECTION.ControlArea", 0),
            ("_CONTROL_AREA.FilePointer", 0x40),
            ("_FILE_OBJECT.FileName", 0x58),
            $($more)*
        ]
    };
}

/// The forms: since Windows 8.1, then Windows 7, of x64 and of x86.
static FORMS: [Form; 4] = [
    Form {
        wide: true,
        root: 0,
        left: 0,
        right: 8,
        start: 0x18,
        end: 0x1c,
        high: Some((0x20, 0x21)),
        flags: 0x30,
        bits: &[[0, 3, 15], [0, 3, 14], [4, 7, 20], [4, 7, 21]],
        more: wide_members!(("_MMVAD_SHORT.VadNode", 0)),
    },
    Form {
        wide: true,
        root: 0x10,
        left: 8,
        right: 0x10,
        start: 0x18,
        end: 0x20,
        high: None,
        flags: 0x28,
        bits: &[[52, 56, 63]],
        more: wide_members!(),
    },
    Form {
        wide: false,
        root: 0,
        left: 0,
        right: 4,
        start: 0xc,
        end: 0x10,
        high: None,
        flags: 0x1c,
        bits: &[[0, 3, 15], [0, 3, 14], [4, 7, 20], [4, 7, 21]],
        more: &[
            ("_MMVAD_SHORT.VadNode", 0),
            ("_MMVAD.Subsection", 0x2c),
            ("_MMVAD.FirstPrototypePte", 0x30),
            ("_MMVAD.LastContiguousPte", 0x34),
            ("_SUBSECTION.ControlArea", 0),
            ("_CONTROL_AREA.FilePointer", 0x24),
            ("_FILE_OBJECT.FileName", 0x30),
        ],
    },
    Form {
        wide: false,
        root: 8,
        left: 4,
        right: 8,
        start: 0xc,
        end: 0x10,
        high: None,
        flags: 0x14,
        bits: &[[20, 24, 31]],
        more: &[
            ("_MMVAD.Subsection", 0x24),
            ("_MMVAD.FirstPrototypePte", 0x28),
            ("_MMVAD.LastContiguousPte", 0x2c),
            ("_SUBSECTION.ControlArea", 0),
            ("_CONTROL_AREA.FilePointer", 0x24),
            ("_FILE_OBJECT.FileName", 0x30),
        ],
    },
];

impl Form {
    /// First and last page of a node.
    fn pages(&self, node: &Structure) -> Option<(u64, u64)> {
        match self.high {
            Some((start_high, end_high)) => {
                let high = |offset: u64| node.slice(offset, 1).ok()?.first().map(|byte| u64::from(*byte) << 32);
                let low = |offset: u64| node.u32(offset).ok().map(u64::from);
                Some((low(self.start)? | high(start_high)?, low(self.end)? | high(end_high)?))
            }
            None => Some((node.word(self.start).ok()?, node.word(self.end).ok()?)),
        }
    }

    /// The flags of a node: 32 bits, and as wide as a pointer before Windows 8.1.
    fn flags(&self, node: &Structure) -> Option<u64> {
        if self.root == 0 { node.u32(self.flags).ok().map(u64::from) } else { node.word(self.flags).ok() }
    }

    /// The node of the tree at a place of a process that has a page.
    fn search(&self, reader: &Reader<'_>, process: &Structure, offset: u64, page: u64) -> Option<Structure> {
        // The older tree hangs on a node in the process, which is its own parent.
        if self.root != 0 && process.pointer(offset).ok()? != process.at().wrapping_add(offset) {
            return None;
        }
        let mut at = process.pointer(offset.saturating_add(self.root)).ok()?;
        for _ in 0..MAX_DEPTH {
            if !reader.is_kernel(at) {
                return None;
            }
            let node = Structure::read(reader.view(), at, NODE).ok()?;
            let (first, last) = self.pages(&node)?;
            if first > last {
                return None;
            }
            at = if page < first {
                node.pointer(self.left).ok()?
            } else if page > last {
                node.pointer(self.right).ok()?
            } else {
                return Some(node);
            };
        }
        None
    }

    /// The first bits of type, protection and private memory: those by which blocks are private and writable, images are images.
    fn bits(&self, pairs: &[(u64, u64)]) -> Option<[u64; 3]> {
        let bits =
            |flags: u64, first: u64, mask: u64| flags.checked_shr(u32::try_from(first).ok()?).map(|bits| bits & mask);
        let true_of = |[kind, protection, private]: &[u64; 3]| {
            let sense = |(block, image): &(u64, u64)| {
                // Images are mapped for execution and copied when they are written to.
                bits(*block, *private, 1) == Some(1)
                    && bits(*block, *protection, 0x1f) == Some(4)
                    && bits(*image, *private, 1) == Some(0)
                    && bits(*image, *protection, 0x1f) == Some(7)
                    && bits(*image, *kind, 7) == Some(2)
            };
            pairs.iter().all(sense)
        };
        let mut sets = self.bits.iter().filter(|set| true_of(set));
        match (sets.next(), sets.next()) {
            (Some(set), None) => Some(*set),
            _ => None,
        }
    }
}

/// Adds what is found.
pub(super) fn members(kernel: &Kernel, layout: &mut Layout, samples: &[Sample]) {
    let reader = Reader::new(&kernel.view);
    let known: Vec<(&Sample, u64, u64)> = samples
        .iter()
        .filter(|sample| view_of(sample).is_some())
        .filter_map(|sample| {
            let page = |at: VirtAddr| at.as_u64() >> 12;
            Some((sample, page(sample.peb?), page(sample.image?)))
        })
        .collect();
    if known.is_empty() {
        return;
    }
    for form in FORMS.iter().filter(|form| form.wide == reader.is_wide()) {
        let find = |sample: &Sample, offset: u64, page: u64| form.search(&reader, &sample.bytes, offset, page);
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
        layout.add("_MMVAD_SHORT.StartingVpn", form.start, FROM);
        layout.add("_MMVAD_SHORT.EndingVpn", form.end, FROM);
        if let Some((start, end)) = form.high {
            layout.add("_MMVAD_SHORT.StartingVpnHigh", start, FROM);
            layout.add("_MMVAD_SHORT.EndingVpnHigh", end, FROM);
        }
        layout.add("_MMVAD_SHORT.u", form.flags, FROM);
        for (name, value) in form.more {
            layout.add(*name, *value, FROM);
        }
        let flags = |sample: &Sample, page: u64| form.flags(&find(sample, root, page)?);
        let pairs: Vec<(u64, u64)> = known
            .iter()
            .filter_map(|(sample, peb, image)| Some((flags(sample, *peb)?, flags(sample, *image)?)))
            .collect();
        if let Some([kind, protection, private]) = form.bits(&pairs) {
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

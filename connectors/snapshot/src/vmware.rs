//! Snapshot states of VMware (`.vmss`, `.vmsn`): where the guest's memory lies, and the registers of its vCPUs.
//!
//! The memory itself is in the state, or in a `.vmem` file beside it. A state is a list of groups, a group a list of tags, a tag a name
//! with up to three indices and a value.
//!
//! Owns: the walk over groups and tags, and what they become. Must not know: files, which of the two holds the memory.
//! Keeps: each step moves on; what is kept is never more than the tags in the file.
//!
//! Sources: VMware's reader in the crash utility (`vmware_vmss.h`: header, groups, tags, blocks), and the names that volatility's and
//! LeechCore's readers use (`regionPPN`, `regionPageNum`, `regionSize`, `CR`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::BTreeMap;

use memflow_core::{
    Error, PhysAddr, PhysRange, Result,
    memory::{Run, RunMap, VcpuRegisters, X86Registers},
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};

use crate::input::{ReadAt, View};

/// First bytes of a state: written by old versions, whole, being restored, in part.
pub(crate) const MAGIC: [[u8; 4]; 4] = [
    0xbed0_bed0u32.to_le_bytes(),
    0xbed2_bed2u32.to_le_bytes(),
    0xbad1_bad1u32.to_le_bytes(),
    0xbed3_bed3u32.to_le_bytes(),
];
/// The one whose blocks have sizes of 32 bits.
const OLD_MAGIC: u32 = 0xbed0_bed0;
const HEADER: u64 = 12;
const GROUP: u64 = 80;
/// More groups than any version writes; they are some fifty.
const MAX_GROUPS: u32 = 4096;
/// Units of the numbers of pages.
const PAGE: u64 = 0x1000;
/// Sizes of values that stand for blocks.
const COMPRESSED_BLOCK: u8 = 0x3e;
const BLOCK: u8 = 0x3f;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: U32,
    version: U32,
    groups: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Group {
    name: [u8; 64],
    offset: U64,
    size: U64,
}

/// What a state says of its guest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Where the memory lies in the state itself: offset and length.
    pub memory: Option<(u64, u64)>,
    /// Guest pages, by first page in the guest: where they begin in the memory, and how many they are. None when the memory is in one
    /// piece from address zero on, up to the hole of a PC.
    pub regions: Vec<(u64, u64, u64)>,
    /// The registers of each vCPU.
    pub vcpus: Vec<VcpuRegisters>,
}

impl State {
    /// The runs of memory whose bytes begin at `base` of some file; `None` when the state does not list them.
    ///
    /// # Errors
    /// [`Error::Overlap`] and [`Error::Range`] for regions that cannot be.
    pub fn runs(&self, base: u64) -> Result<Option<RunMap>> {
        if self.regions.is_empty() {
            return Ok(None);
        }
        let runs = self.regions.iter().map(|&(guest, memory, pages)| {
            let bytes = |pages: u64| pages.checked_mul(PAGE);
            let range =
                bytes(guest).zip(bytes(pages)).and_then(|(start, len)| PhysRange::new(PhysAddr::new(start), len));
            let offset = bytes(memory).and_then(|offset| offset.checked_add(base));
            match range.zip(offset) {
                Some((range, offset)) => Ok(Run { range, offset }),
                None => Err(Error::Range { address: PhysAddr::new(u64::MAX).into(), len: pages }),
            }
        });
        RunMap::new(runs.collect::<Result<Vec<_>>>()?).map(Some)
    }
}

/// A tag: its name, its indices, and its value or where the value is.
struct Tag {
    name: Vec<u8>,
    indices: [u32; 3],
    value: Value,
}

enum Value {
    /// A number.
    Number(u64),
    /// Bytes in the file.
    Block { offset: u64, len: u64, compressed: bool },
    /// Something else.
    Other,
}

/// Reads the groups of a state that matter here.
///
/// # Errors
/// [`Error::Format`] for groups and tags that leave the file; [`Error::Unsupported`] for memory that is compressed; [`Error::Io`] when the
/// input cannot be read.
pub fn parse(input: &dyn ReadAt) -> Result<State> {
    let view = View::new(input, "VMware state");
    let header: Header = view.read(0, "the header")?;
    let groups = header.groups.get();
    if groups > MAX_GROUPS {
        return Err(view.bad(8, format!("{MAX_GROUPS} groups at most"), format!("{groups}")));
    }
    let narrow = header.magic.get() == OLD_MAGIC;
    let mut found = Found::default();
    let mut taken: u64 = 0;
    for number in 0..u64::from(groups) {
        let at = number.saturating_mul(GROUP).saturating_add(HEADER);
        let group: Group = view.read(at, "a group")?;
        let name = group.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let take: fn(&mut Found, &Tag) = match name {
            b"memory" => Found::memory,
            b"cpu" => Found::cpu,
            _ => continue,
        };
        let (offset, size) = (group.offset.get(), group.size.get());
        let end = offset.checked_add(size).filter(|end| *end <= view.size());
        let end = end.ok_or_else(|| {
            view.bad(at.saturating_add(64), "a group inside the file", format!("{size:#x} bytes at {offset:#x}"))
        })?;
        // Groups that all name the same tags would cost more than the file has bytes.
        taken = taken.saturating_add(size);
        if taken > view.size() {
            return Err(view.bad(
                at.saturating_add(64),
                "groups that lie apart in the file",
                format!("{taken:#x} bytes of groups in {:#x}", view.size()),
            ));
        }
        let mut at = offset;
        while at < end {
            let Some((tag, next)) = tag(&view, at, narrow)? else { break };
            take(&mut found, &tag);
            at = next;
        }
    }
    found.state(&view)
}

/// The tag at `at`, and where the next one is; `None` at the end of a group.
fn tag(view: &View<'_>, at: u64, narrow: bool) -> Result<Option<(Tag, u64)>> {
    const WHAT: &str = "a tag";
    let [flags, name_len] = view.read::<[u8; 2]>(at, WHAT)?;
    if (flags, name_len) == (0, 0) {
        return Ok(None);
    }
    let mut next = at.saturating_add(2);
    let name = view.bytes(next, name_len.into(), "the name of a tag")?;
    next = next.saturating_add(name_len.into());
    let mut indices = [0; 3];
    for index in indices.iter_mut().take(usize::from(flags >> 6)) {
        *index = view.read::<U32>(next, "an index of a tag")?.get();
        next = next.saturating_add(4);
    }
    let value = match flags & 0x3f {
        kind @ (BLOCK | COMPRESSED_BLOCK) => {
            let (len, width) = if narrow {
                (u64::from(view.read::<U32>(next, WHAT)?.get()), 4)
            } else {
                (view.read::<U64>(next, WHAT)?.get(), 8)
            };
            // The length when unpacked, and padding so that the block begins at a page.
            next = next.saturating_add(width).saturating_add(width);
            let padding: U16 = view.read(next, WHAT)?;
            let offset = next.saturating_add(2).saturating_add(padding.get().into());
            next = offset
                .checked_add(len)
                .filter(|next| *next <= view.size())
                .ok_or_else(|| view.ends_early(offset, len, "a block"))?;
            Value::Block { offset, len, compressed: kind == COMPRESSED_BLOCK }
        }
        len => {
            let bytes = view.bytes(next, len.into(), "the value of a tag")?;
            next = next.saturating_add(len.into());
            let mut number = [0; 8];
            match number.get_mut(..bytes.len()) {
                Some(low) => {
                    low.copy_from_slice(&bytes);
                    Value::Number(u64::from_le_bytes(number))
                }
                None => Value::Other,
            }
        }
    };
    Ok(Some((Tag { name, indices, value }, next)))
}

/// What the tags said so far.
#[derive(Default)]
struct Found {
    memory: Option<(u64, u64, bool)>,
    regions: Option<u64>,
    /// By number: first page in the guest, first page in the memory, pages.
    parts: BTreeMap<u32, [Option<u64>; 3]>,
    vcpus: BTreeMap<u32, X86Registers>,
}

impl Found {
    fn memory(&mut self, tag: &Tag) {
        let [index, ..] = tag.indices;
        match (tag.name.as_slice(), &tag.value) {
            (b"Memory", Value::Block { offset, len, compressed }) => self.memory = Some((*offset, *len, *compressed)),
            (b"regionsCount", Value::Number(count)) => self.regions = Some(*count),
            (name, Value::Number(value)) => {
                let place = match name {
                    b"regionPPN" => 0,
                    b"regionPageNum" => 1,
                    b"regionSize" => 2,
                    _ => return,
                };
                if let Some(field) = self.parts.entry(index).or_default().get_mut(place) {
                    *field = Some(*value);
                }
            }
            _ => {}
        }
    }

    fn cpu(&mut self, tag: &Tag) {
        let Value::Number(value) = tag.value else { return };
        let [vcpu, which, _] = tag.indices;
        let known = matches!(tag.name.as_slice(), b"CR" | b"CR64" | b"rip" | b"EFER");
        if !known {
            return;
        }
        let registers = self.vcpus.entry(vcpu).or_default();
        let register = match (tag.name.as_slice(), which) {
            (b"CR" | b"CR64", 0) => &mut registers.cr0,
            (b"CR" | b"CR64", 2) => &mut registers.cr2,
            (b"CR" | b"CR64", 3) => &mut registers.cr3,
            (b"CR" | b"CR64", 4) => &mut registers.cr4,
            (b"rip", _) => &mut registers.rip,
            (b"EFER", _) => &mut registers.efer,
            _ => return,
        };
        // A version that has both forms writes the one of 64 bits last or alone; the other is its lower half.
        *register = Some(register.unwrap_or(0).max(value));
    }

    fn state(self, view: &View<'_>) -> Result<State> {
        if let Some((_, _, true)) = self.memory {
            return Err(Error::Unsupported {
                what: format!("{}: a VMware state with compressed memory", view.path().display()),
                why: "VMware writes it as it is unless told otherwise; take the snapshot again without checkpoint compression".to_owned(),
            });
        }
        let mut regions = Vec::new();
        let count = self.regions.unwrap_or(0);
        for (index, part) in self.parts {
            // Entries behind the count are left from before.
            if u64::from(index) >= count {
                continue;
            }
            let [Some(guest), Some(memory), Some(pages)] = part else {
                return Err(view.bad(
                    0,
                    "place, page and size of each region",
                    format!("region {index} without one of them"),
                ));
            };
            regions.push((guest, memory, pages));
        }
        if u64::try_from(regions.len()).ok() != Some(count) {
            return Err(view.bad(0, format!("{count} regions of memory"), format!("{}", regions.len())));
        }
        Ok(State {
            memory: self.memory.map(|(offset, len, _)| (offset, len)),
            regions,
            vcpus: self.vcpus.into_values().map(VcpuRegisters::X86).collect(),
        })
    }
}

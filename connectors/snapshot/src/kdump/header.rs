//! Header and sub-header of a kdump-compressed dump.
//!
//! Owns: their layouts for 64-bit and 32-bit writers, and which of the two a file has. Must not know: pages.
//! Keeps: every place that is handed out lies in the file or is refused where it is read; sizes are checked before they are multiplied.
//!
//! Sources: makedumpfile, `diskdump_mod.h` (`disk_dump_header`, `kdump_sub_header`, `page_desc`) and `IMPLEMENTATION`;
//! QEMU, `include/sysemu/dump.h` (`DiskDumpHeader32`, `DiskDumpHeader64`, `KdumpSubHeader32`, `KdumpSubHeader64`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::ops::Range;

use memflow_core::{Error, Result, memory::MachineKind};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use crate::input::View;

/// Length of a page descriptor.
pub(super) const DESCRIPTOR: u64 = 24;

/// Bits of `status`.
const STATUS_INCOMPLETE: u32 = 8;
/// Bits of `dump_level`.
const LEVELS: [(u32, &str); 5] =
    [(1, "zeros"), (2, "cache"), (4, "private cache"), (8, "user data"), (16, "free pages")];

/// What both layouts of the header begin with.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Start {
    signature: [u8; 8],
    version: U32,
    /// `new_utsname`: system, node, release, version, machine, domain.
    names: [[u8; 65]; 6],
}

/// The rest of the header, which begins at an offset that depends on the writer's word size.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Sizes {
    status: U32,
    block_size: U32,
    /// In blocks, as the next.
    sub_header: U32,
    bitmaps: U32,
    /// The end of page frame numbers, as far as 32 bits hold it.
    pages: U32,
}

/// Offset of [`Sizes`] after a 64-bit and a 32-bit time stamp.
const SIZES_64: u64 = 424;
const SIZES_32: u64 = 412;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SubHeader64 {
    phys_base: U64,
    dump_level: U32,
    split: U32,
    start_pfn: U64,
    end_pfn: U64,
    offset_vmcoreinfo: U64,
    size_vmcoreinfo: U64,
    offset_note: U64,
    size_note: U64,
    offset_eraseinfo: U64,
    size_eraseinfo: U64,
    start_pfn_64: U64,
    end_pfn_64: U64,
    max_mapnr_64: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SubHeader32 {
    phys_base: U32,
    dump_level: U32,
    split: U32,
    start_pfn: U32,
    end_pfn: U32,
    offset_vmcoreinfo: U64,
    size_vmcoreinfo: U32,
    offset_note: U64,
    size_note: U32,
    offset_eraseinfo: U64,
    size_eraseinfo: U32,
    start_pfn_64: U64,
    end_pfn_64: U64,
    max_mapnr_64: U64,
}

/// What both layouts of the sub-header say; what the file's version does not have is zero.
struct SubHeader {
    dump_level: u32,
    split: bool,
    part: Range<u64>,
    vmcoreinfo: (u64, u64),
    notes: (u64, u64),
    pages: u64,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) machine: Option<MachineKind>,
    /// Bytes in a page.
    pub(super) block_size: u64,
    /// The end of page frame numbers.
    pub(super) pages: u64,
    /// Offset of the bitmap of memory.
    pub(super) bitmap: u64,
    /// Offset of the bitmap of pages in the file; the same as the other where there is one only.
    pub(super) second_bitmap: Option<u64>,
    /// Offset of the first page descriptor.
    pub(super) descriptors: u64,
    /// Offset and length, zero for none.
    pub(super) vmcoreinfo: (u64, u64),
    /// Offset and length, zero for none.
    pub(super) notes: (u64, u64),
    /// The page frame numbers of this part of a dump that was split.
    pub(super) part: Option<Range<u64>>,
    pub(super) incomplete: bool,
    dump_level: u32,
}

impl Header {
    pub(super) fn read(view: &View<'_>) -> Result<Self> {
        let start: Start = view.read(0, "the header")?;
        let version = start.version.get();
        let [.., machine, _] = &start.names;
        let machine_name = text(machine);
        let (at, sizes, wide) = sizes(view, &machine_name)?;
        let block_size = u64::from(sizes.block_size.get());
        let blocks = |count: u64| count.saturating_mul(block_size);
        let sub = sub_header(view, block_size, version, wide)?;
        let sub_blocks = u64::from(sizes.sub_header.get());
        let bitmap_blocks = u64::from(sizes.bitmaps.get());
        let bitmap = blocks(sub_blocks.saturating_add(1));
        let descriptors = blocks(sub_blocks.saturating_add(1).saturating_add(bitmap_blocks));
        let pages = if sub.pages == 0 { u64::from(sizes.pages.get()) } else { sub.pages };
        let half = blocks(bitmap_blocks).checked_div(2).unwrap_or(0);
        let bitmap_len = pages.div_ceil(8);
        let second_bitmap = (bitmap_len <= half).then(|| bitmap.saturating_add(half));
        if second_bitmap.is_none() && bitmap_len > blocks(bitmap_blocks) {
            return Err(view.bad(
                at.saturating_add(12),
                format!("bitmaps for {pages:#x} pages"),
                format!("{bitmap_blocks:#x} blocks of {block_size:#x} bytes"),
            ));
        }
        if descriptors > view.size() {
            return Err(view.ends_early(bitmap, descriptors.saturating_sub(bitmap), "bitmaps"));
        }
        let part = (sub.split).then(|| sub.part.start.min(pages)..sub.part.end.min(pages));
        Ok(Self {
            machine: kind(&machine_name),
            block_size,
            pages,
            bitmap,
            second_bitmap,
            descriptors,
            vmcoreinfo: sub.vmcoreinfo,
            notes: sub.notes,
            part,
            incomplete: sizes.status.get() & STATUS_INCOMPLETE != 0,
            dump_level: sub.dump_level,
        })
    }

    /// True when both describe the same dump, as far as a header tells.
    pub(super) fn same_dump(&self, other: &Self) -> bool {
        let whole = |header: &Self| {
            let Self { machine, block_size, pages, bitmap, descriptors, dump_level, .. } = *header;
            (machine, block_size, pages, bitmap, descriptors, dump_level)
        };
        whole(self) == whole(other)
    }

    /// What the tool was told to leave out, as the end of a sentence.
    pub(super) fn why_left_out(&self) -> String {
        let kinds: Vec<&str> =
            LEVELS.iter().filter(|(bit, _)| self.dump_level & bit != 0).map(|(_, kind)| *kind).collect();
        if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) }
    }
}

/// The sizes in the header, where they are, and whether a 64-bit writer put them there.
fn sizes(view: &View<'_>, machine: &str) -> Result<(u64, Sizes, bool)> {
    let plausible = |sizes: &Sizes| {
        let block = sizes.block_size.get();
        (0x1000..=0x10000).contains(&block) && block.is_power_of_two() && sizes.sub_header.get() <= 0x1000
    };
    // The machine says which it is; names that are not known are tried as both.
    let narrow_machine = matches!(machine, "i386" | "i486" | "i586" | "i686" | "arm" | "armv7l" | "ppc" | "s390");
    let order = if narrow_machine { [SIZES_32, SIZES_64] } else { [SIZES_64, SIZES_32] };
    for at in order {
        let sizes: Sizes = view.read(at, "the header")?;
        if plausible(&sizes) {
            return Ok((at, sizes, at == SIZES_64));
        }
    }
    let [at, _] = order;
    let sizes: Sizes = view.read(at, "the header")?;
    let (block, sub) = (sizes.block_size.get().swap_bytes(), sizes.sub_header.get().swap_bytes());
    if (0x1000..=0x10000).contains(&block) && block.is_power_of_two() && sub <= 0x1000 {
        return Err(Error::Unsupported {
            what: format!("{}: a kdump of a big-endian machine ({machine})", view.path().display()),
            why: "little-endian machines are known".to_owned(),
        });
    }
    Err(view.bad(
        at.saturating_add(4),
        "a block size of 4 to 64 KiB and a sub-header of 0x1000 blocks at most",
        format!("{:#x} and {:#x}", sizes.block_size.get(), sizes.sub_header.get()),
    ))
}

fn sub_header(view: &View<'_>, at: u64, version: u32, wide: bool) -> Result<SubHeader> {
    const WHAT: &str = "the sub-header";
    // The first version has none of it but the physical base.
    let since = |needed: u32, value: u64| if version >= needed { value } else { 0 };
    let mut sub = if wide {
        let raw: SubHeader64 = view.read(at, WHAT)?;
        SubHeader {
            dump_level: raw.dump_level.get(),
            split: raw.split.get() != 0,
            part: if version >= 6 {
                raw.start_pfn_64.get()..raw.end_pfn_64.get()
            } else {
                raw.start_pfn.get()..raw.end_pfn.get()
            },
            vmcoreinfo: (raw.offset_vmcoreinfo.get(), raw.size_vmcoreinfo.get()),
            notes: (raw.offset_note.get(), raw.size_note.get()),
            pages: raw.max_mapnr_64.get(),
        }
    } else {
        let raw: SubHeader32 = view.read(at, WHAT)?;
        SubHeader {
            dump_level: raw.dump_level.get(),
            split: raw.split.get() != 0,
            part: if version >= 6 {
                raw.start_pfn_64.get()..raw.end_pfn_64.get()
            } else {
                raw.start_pfn.get().into()..raw.end_pfn.get().into()
            },
            vmcoreinfo: (raw.offset_vmcoreinfo.get(), raw.size_vmcoreinfo.get().into()),
            notes: (raw.offset_note.get(), raw.size_note.get().into()),
            pages: raw.max_mapnr_64.get(),
        }
    };
    sub.dump_level = if version >= 1 { sub.dump_level } else { 0 };
    sub.split &= version >= 2;
    sub.vmcoreinfo.1 = since(3, sub.vmcoreinfo.1);
    sub.notes.1 = since(4, sub.notes.1);
    sub.pages = since(6, sub.pages);
    Ok(sub)
}

/// A name in a fixed field.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

/// The machine that a kernel of this name runs on (`uname -m`).
fn kind(machine: &str) -> Option<MachineKind> {
    match machine {
        "x86_64" => Some(MachineKind::X86_64),
        "i386" | "i486" | "i586" | "i686" => Some(MachineKind::X86),
        "aarch64" => Some(MachineKind::AArch64),
        _ => None,
    }
}

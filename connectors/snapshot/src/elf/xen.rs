//! Cores of Xen's guests (`xl dump-core`): no segments, but sections with pages and with their frame numbers.
//!
//! Owns: which sections there are, and how they become runs and registers. Must not know: notes of other writers, segments.
//! Keeps: frame numbers are read in pieces; a run stands for consecutive frames that lie in the file one after the other.
//!
//! Source: Xen, `docs/misc/dump-core-format.txt` (sections, notes), `xen/include/public/arch-x86/xen.h` (`vcpu_guest_context` of 64 bits).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    PhysAddr, PhysRange, Result,
    memory::{Run, RunMap, VcpuRegisters, X86Registers},
};
use zerocopy::{
    FromBytes,
    little_endian::{U32, U64},
};

use super::{
    notes::Notes,
    parse::Header,
    raw::{self, SectionHeader64},
};
use crate::{
    image::{ParseOptions, ParsedImage},
    input::View,
};

/// Longest table of the names of sections, and longest section of notes; Xen writes less than a page of each.
const MAX_TEXT: u64 = 1 << 20;
/// Longest list of section headers; Xen writes a dozen.
const MAX_SECTIONS: u16 = 1024;
/// Frame numbers read at one time.
const NUMBERS_PER_READ: u64 = 8192;
/// Frame numbers from here on are none: Xen marks pages that it could not read so.
const NO_FRAME: u64 = 1 << 52;
/// `vcpu_guest_context` of a 64-bit guest: its size, and where the registers are.
const CONTEXT: u64 = 5168;
const RIP: u64 = 648;
const RSP: u64 = 672;
const CONTROL: u64 = 4984;
/// More vCPUs than Xen gives a guest.
const MAX_VCPUS: u64 = 8192;

/// What the note of the header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct XenHeader {
    pub(super) vcpus: u64,
    pub(super) pages: u64,
    pub(super) page_size: u64,
}

impl XenHeader {
    /// `xen_dumpcore_elfnote_header_desc`.
    pub(super) fn read(desc: &[u8]) -> Option<Self> {
        let ([magic, vcpus, pages, page_size], _) = <[U64; 4]>::read_from_prefix(desc).ok()?;
        // Paravirtual, and fully virtual.
        let known = [0xf00f_ebed, 0xf00f_ebee].contains(&magic.get());
        known.then(|| Self { vcpus: vcpus.get(), pages: pages.get(), page_size: page_size.get() })
    }
}

/// Where a section lies.
#[derive(Clone, Copy)]
struct Section {
    offset: u64,
    size: u64,
}

/// The sections that matter.
#[derive(Default)]
struct Sections {
    notes: Option<Section>,
    pages: Option<Section>,
    /// Frame numbers of a fully virtual guest.
    pfn: Option<Section>,
    /// Pairs of frame numbers of a paravirtual one: its own, and the machine's.
    p2m: Option<Section>,
    contexts: Option<Section>,
}

/// Reads the core of a Xen guest into `image`; false when the file is none.
pub(super) fn parse(view: &View<'_>, header: &Header, options: ParseOptions, image: &mut ParsedImage) -> Result<bool> {
    if header.phnum != 0 || !header.wide || header.shnum == 0 {
        return Ok(false);
    }
    let sections = sections(view, header)?;
    let Some(pages) = sections.pages else { return Ok(false) };
    let missing = |what: &'static str| view.bad(header.shoff, what, "none");
    let note = sections.notes.ok_or_else(|| missing("a section .note.Xen"))?;
    let mut notes = Notes::new(header.machine);
    notes.add(view, note.offset, &view.bytes(note.offset, note.size.min(MAX_TEXT), "the section .note.Xen")?)?;
    let xen = notes.xen_header().ok_or_else(|| missing("a note with Xen's header"))?;
    if !xen.page_size.is_power_of_two() || !(0x1000..=0x1_0000).contains(&xen.page_size) {
        return Err(view.bad(note.offset, "pages of 4 to 64 KiB", format!("{:#x} bytes", xen.page_size)));
    }
    let (numbers, width) = match (sections.pfn, sections.p2m) {
        (Some(pfn), _) => (pfn, 8),
        (None, Some(p2m)) => {
            image.notes.push(
                "the guest is paravirtual: addresses are the machine's, as its page tables have them, not those that it takes for physical"
                    .to_owned(),
            );
            (p2m, 16)
        }
        (None, None) => return Err(missing("a section .xen_pfn or .xen_p2m")),
    };
    image.runs = runs(view, options, &xen, pages, numbers, width, &mut image.notes)?;
    if let Some(contexts) = sections.contexts {
        registers(view, options, header.machine, xen.vcpus, contexts, image)?;
    }
    Ok(true)
}

fn sections(view: &View<'_>, header: &Header) -> Result<Sections> {
    const WHAT: &str = "section headers";
    if header.shnum > MAX_SECTIONS || header.shentsize != 64 {
        return Err(view.bad(
            header.shoff,
            format!("at most {MAX_SECTIONS} section headers of 64 bytes"),
            format!("{} of {} bytes", header.shnum, header.shentsize),
        ));
    }
    let table = view.bytes(header.shoff, u64::from(header.shnum).saturating_mul(64), WHAT)?;
    let headers: Vec<SectionHeader64> = table
        .chunks_exact(64)
        .filter_map(|bytes| SectionHeader64::read_from_prefix(bytes).ok().map(|(header, _)| header))
        .collect();
    let Some(names) = headers.get(usize::from(header.shstrndx)) else {
        return Err(view.bad(header.shoff, "the names of sections", format!("section {}", header.shstrndx)));
    };
    let names = view.bytes(names.offset.get(), names.size.get().min(MAX_TEXT), "the names of sections")?;
    let name = |at: U32| {
        let rest = usize::try_from(at.get()).ok().and_then(|at| names.get(at..)).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    };
    let mut found = Sections::default();
    for header in &headers {
        let place = match name(header.name) {
            b".note.Xen" => &mut found.notes,
            b".xen_pages" => &mut found.pages,
            b".xen_pfn" => &mut found.pfn,
            b".xen_p2m" => &mut found.p2m,
            b".xen_prstatus" => &mut found.contexts,
            _ => continue,
        };
        *place = Some(Section { offset: header.offset.get(), size: header.size.get() });
    }
    Ok(found)
}

/// The runs of all pages, whose frame numbers are `width` bytes apart.
fn runs(
    view: &View<'_>,
    options: ParseOptions,
    xen: &XenHeader,
    pages: Section,
    numbers: Section,
    width: u64,
    notes: &mut Vec<String>,
) -> Result<RunMap> {
    let bytes = |count: u64, each: u64| count.saturating_mul(each);
    for (section, each, what) in [(numbers, width, "frame numbers"), (pages, xen.page_size, "pages")] {
        if section.size < bytes(xen.pages, each) {
            let expected = format!("{:#x} {what} of {each:#x} bytes", xen.pages);
            return Err(view.bad(section.offset, expected, format!("{:#x} bytes in their section", section.size)));
        }
    }
    let room = |section: Section, each: u64| view.size().saturating_sub(section.offset).checked_div(each).unwrap_or(0);
    let held = room(pages, xen.page_size).min(room(numbers, width)).min(xen.pages);
    if held < xen.pages {
        let found = format!("the first {held:#x} before the end of the file at {:#x}", view.size());
        if !options.partial {
            let expected = format!("{:#x} pages", xen.pages);
            let found = format!("{found}; it looks truncated, copy it again or open it as a partial image");
            return Err(view.bad(pages.offset, expected, found));
        }
        notes.push(format!("of {:#x} pages the file holds {found}", xen.pages));
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut unread: u64 = 0;
    let mut done: u64 = 0;
    while done < held {
        let step = held.saturating_sub(done).min(NUMBERS_PER_READ);
        let at = numbers.offset.saturating_add(done.saturating_mul(width));
        let table = view.bytes(at, step.saturating_mul(width), "frame numbers")?;
        for entry in table.chunks_exact(usize::try_from(width).unwrap_or(8)) {
            // Of a pair, the machine's is the second.
            let frame = entry.last_chunk().copied().map_or(u64::MAX, u64::from_le_bytes);
            let offset = pages.offset.saturating_add(done.saturating_mul(xen.page_size));
            done = done.saturating_add(1);
            let start =
                Some(frame).filter(|frame| *frame < NO_FRAME).and_then(|frame| frame.checked_mul(xen.page_size));
            let range = start.and_then(|start| PhysRange::new(PhysAddr::new(start), xen.page_size));
            let Some(range) = range else {
                unread = unread.saturating_add(1);
                continue;
            };
            match runs.last_mut() {
                Some(last)
                    if last.range.end() == Some(range.start())
                        && last.offset.checked_add(last.range.len()) == Some(offset) =>
                {
                    let len = last.range.len().saturating_add(range.len());
                    last.range = PhysRange::new(last.range.start(), len).unwrap_or(last.range);
                }
                _ => runs.push(Run { range, offset }),
            }
        }
    }
    if unread > 0 {
        notes.push(format!("{unread:#x} pages have no frame number: Xen could not read them"));
    }
    let map =
        RunMap::new(runs).map_err(|error| view.bad(numbers.offset, "each frame number once", error.to_string()))?;
    match map.is_empty() {
        true => Err(view.bad(pages.offset, "pages with a frame number", "none")),
        false => Ok(map),
    }
}

/// The registers of each vCPU, if they are those of a 64-bit guest.
fn registers(
    view: &View<'_>,
    options: ParseOptions,
    machine: u16,
    vcpus: u64,
    contexts: Section,
    image: &mut ParsedImage,
) -> Result<()> {
    let whole = vcpus.checked_mul(CONTEXT) == Some(contexts.size);
    if machine != raw::MACHINE_X86_64 || vcpus > MAX_VCPUS || !whole {
        image.notes.push("the registers are left aside: only those of 64-bit x86 guests are known".to_owned());
        return Ok(());
    }
    for vcpu in 0..vcpus {
        let context = contexts.offset.saturating_add(vcpu.saturating_mul(CONTEXT));
        let at = |inside: u64| {
            view.read::<U64>(context.saturating_add(inside), "the registers of a vCPU").map(|value| Some(value.get()))
        };
        let read = || {
            let mut registers = X86Registers::default();
            (registers.rip, registers.rsp) = (at(RIP)?, at(RSP)?);
            let [cr0, _, cr2, cr3, cr4] =
                [0u64, 1, 2, 3, 4].map(|index| at(CONTROL.saturating_add(index.saturating_mul(8))));
            (registers.cr0, registers.cr2, registers.cr3, registers.cr4) = (cr0?, cr2?, cr3?, cr4?);
            Ok(registers)
        };
        match read() {
            Ok(registers) => image.facts.vcpus.push(VcpuRegisters::X86(registers)),
            Err(error @ memflow_core::Error::Format { .. }) if options.partial => {
                image.notes.push(format!("registers are incomplete: {error}"));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

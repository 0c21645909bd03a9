//! The order in which a kernel is looked for, and what became of each attempt.
//!
//! Owns: the order, the evidence, which error is told in the end. Must not know: how one attempt works.
//! Keeps: every refused candidate leaves a line of evidence; a kernel that was seen but cannot be used is told rather than "none".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fmt::Display, ops::ControlFlow, sync::Arc};

use memflow_core::{
    Error, MemoryViewExt, PhysAddr, Result, VirtAddr,
    error::ResultExt,
    memory::{MachineKind, PhysicalMemory},
    paging::AddressSpace,
    view::SpaceView,
};

use super::{
    blind, idle, image,
    note::{self, Confirmed, unsupported},
    recall, trampoline, vcpu,
};
use crate::{
    clock::Clock,
    kernel::LinuxOptions,
    layout_cache::{Kept, ROOTS, Store},
    symbols::{Known, SymbolTable, Symbols},
    types::Types,
    vmcoreinfo::VmcoreInfo,
};

/// Told what is done, how many bytes of how many are done; breaks to cancel.
pub(crate) type Progress<'a> = dyn Fn(&'static str, u64, u64) -> ControlFlow<()> + Sync + 'a;

/// Largest BTF section taken; a kernel with every option has about 8 MiB.
pub(super) const MAX_BTF: u64 = 64 << 20;
/// Kernels looked at when several lie in memory.
pub(super) const MAX_KERNELS: usize = 8;
/// Lines of evidence kept.
const MAX_EVIDENCE: usize = 64;
/// What every kernel's `linux_banner` starts with.
pub(super) const BANNER: &[u8] = b"Linux version ";

/// A kernel: its address space and symbols, each confirmed by the other.
pub(crate) struct Found {
    /// The kernel's own address space.
    pub(crate) space: AddressSpace,
    /// The note, if one led here.
    pub(crate) note: Option<VmcoreInfo>,
    /// Its symbols.
    pub(crate) symbols: Symbols,
    /// Its types.
    pub(crate) types: Types,
    /// The entry of the layout cache that they come from.
    pub(crate) kept: Option<Kept>,
}

/// A search in progress.
pub(super) struct Search<'a> {
    pub(super) memory: &'a Arc<dyn PhysicalMemory>,
    pub(super) progress: Option<&'a Progress<'a>>,
    /// Where layouts of kernels are kept, if the caller wants it.
    cache: Option<Store>,
    evidence: Vec<String>,
    /// Notes that hold true, of kernels whose symbols could not be had.
    confirmed: Vec<(AddressSpace, VmcoreInfo)>,
    /// The first kernel that was certainly there and could not be used.
    unusable: Option<Error>,
}

impl Search<'_> {
    /// Writes down what became of something.
    pub(super) fn tell(&mut self, what: impl Display, became: impl Display) {
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(format!("{what}: {became}"));
        }
    }

    /// Writes down why a candidate is refused; a kernel that was there and cannot be used is remembered.
    pub(super) fn tell_refused(&mut self, what: impl Display, error: Error) {
        match error.root_cause() {
            Error::Unsupported { .. } => self.tell_unusable(what, error),
            _ => self.tell(what, format!("refused: {error}")),
        }
    }

    /// Remembers a kernel that was there and cannot be used.
    pub(super) fn tell_unusable(&mut self, what: impl Display, error: Error) {
        self.tell(what, &error);
        self.unusable.get_or_insert(error);
    }

    /// A kernel whose address space was confirmed by a note, if its symbols and types can be had.
    fn kernel_of_note(&mut self, what: &str, confirmed: Confirmed) -> Option<Found> {
        let Confirmed { space, note, known } = confirmed;
        let view = SpaceView::new(self.memory.clone(), space);
        let what = format!("{what}: {}", describe(view.space()));
        if let Some(found) = self.cache.as_ref().and_then(|cache| recall::noted(cache, &view, &note, &known)) {
            self.tell(what, found.symbols.describe());
            return Some(found);
        }
        let release = note.release().unwrap_or("of unknown release").to_owned();
        let symbols = match SymbolTable::from_note(&view, &note, &known) {
            Some(Err(why)) => {
                self.tell(&what, format!("kallsyms where the note says: {why}"));
                image::symbols(&view, &known).map_err(|_| why)
            }
            Some(symbols) => symbols,
            None => image::symbols(&view, &known),
        };
        match symbols.and_then(|symbols| complete(&view, Some(note.clone()), symbols.into())) {
            Ok(found) => {
                self.tell(what, found.symbols.describe());
                Some(found)
            }
            Err(error) => {
                self.tell_unusable(what, error.context(format!("Linux {release}")));
                self.confirmed.push((view.space().clone(), note));
                None
            }
        }
    }

    /// The kernel that an address space maps, without anything else known of it.
    pub(super) fn kernel_in(&self, view: &SpaceView) -> Result<Found> {
        if let Some(found) = self.cache.as_ref().and_then(|cache| recall::mapped(cache, view)) {
            return Ok(found);
        }
        let symbols = image::symbols(view, &Known::default())?;
        let root = ROOTS.iter().find_map(|name| symbols.address_of(name));
        let root = root.map_or_else(|| symbols.require("init_top_pgt"), Ok)?;
        let space = kernel_space(view, root, symbols.require("linux_banner")?)?;
        complete(&SpaceView::new(view.memory().clone(), space), None, symbols.into())
    }

    /// The note that led to these page tables, though not to symbols.
    pub(super) fn confirmed_note(&self, space: &AddressSpace) -> Option<&VmcoreInfo> {
        self.confirmed.iter().find(|(confirmed, _)| confirmed == space).map(|(_, note)| note)
    }

    /// What became of the search for a symbol table.
    pub(super) fn why_no_table(&self) -> String {
        let last = self.evidence.iter().rev().find(|line| line.contains("kallsyms"));
        last.cloned().unwrap_or_else(|| "no kallsyms in memory".to_owned())
    }

    /// The kernel that ran last, of several that lie in memory: a machine that was started again without losing its memory still
    /// holds the kernel it ran before.
    pub(super) fn newest(&mut self, found: Vec<Found>) -> Option<Found> {
        let several = found.len() > 1;
        let clock = |one: &Found| {
            let view = SpaceView::new(self.memory.clone(), one.space.clone());
            Clock::find(&view, &one.symbols, &one.types).and_then(|clock| clock.now()).ok()
        };
        let mut timed: Vec<_> = found.into_iter().map(|one| (clock(&one), one)).collect();
        timed.sort_by_key(|(time, _)| *time);
        let (_, newest) = timed.pop()?;
        for (time, one) in timed {
            let time = time.map_or("a time unknown".to_owned(), |time| format!("{} s after 1970", time.as_secs()));
            self.tell(describe(&one.space), format!("an earlier kernel, whose clock stands at {time}"));
        }
        if several {
            self.tell(describe(&newest.space), "the kernel whose clock is the latest");
        }
        Some(newest)
    }
}

/// Adds types to a kernel whose space and symbols are known.
pub(super) fn complete(view: &SpaceView, note: Option<VmcoreInfo>, symbols: Symbols) -> Result<Found> {
    let types = read_types(view, &symbols).context(|| "types (BTF)".into())?;
    Ok(Found { space: view.space().clone(), note, symbols, types, kept: None })
}

/// Reads the BTF section, which lies between two symbols.
fn read_types(view: &SpaceView, symbols: &Symbols) -> Result<Types> {
    let start = symbols.address_of("__start_BTF").ok_or_else(|| {
        unsupported(
            "a kernel without type information",
            "it was built without CONFIG_DEBUG_INFO_BTF, so nothing says where the members of its structures lie",
        )
    })?;
    let stop = symbols.require("__stop_BTF")?;
    let len = stop.offset_from(start).filter(|len| *len <= MAX_BTF).ok_or_else(|| Error::Corrupt {
        what: "__stop_BTF",
        address: stop.into(),
        expected: format!("an address after __start_BTF ({start})").into(),
        found: stop.to_string().into(),
    })?;
    Types::parse(view.read_bytes(start, len)?)
}

/// Finds a kernel.
///
/// # Errors
/// [`Error::NotRecognised`] with what became of each attempt; [`Error::Cancelled`]; or, when a kernel was certainly there, why it
/// cannot be used.
pub(crate) fn find(memory: &Arc<dyn PhysicalMemory>, options: &LinuxOptions<'_>) -> Result<(Found, Vec<String>)> {
    let mut search = Search {
        memory,
        progress: options.progress,
        cache: options.layout_cache.map(Store::new),
        evidence: Vec::new(),
        confirmed: Vec::new(),
        unusable: None,
    };
    if let Some(found) = attempts(&mut search, options)? {
        return Ok((found, search.evidence));
    }
    Err(search
        .unusable
        .unwrap_or(Error::NotRecognised { what: "Linux kernel", looked_for: search.evidence.join("; ") }))
}

fn attempts(search: &mut Search<'_>, options: &LinuxOptions<'_>) -> Result<Option<Found>> {
    if memory_is_empty(search) {
        return Ok(None);
    }
    if let Some(root) = options.kernel_root {
        return Ok(vcpu::from_root(search, root));
    }
    if let Some(MachineKind::AArch64) = search.memory.facts().machine {
        search.tell_unusable("machine", unsupported("an AArch64 machine", "only x86-64 kernels are"));
        return Ok(None);
    }
    if let Some(text) = search.memory.facts().vmcoreinfo.clone() {
        let what = "VMCOREINFO given by the target";
        if let Some(found) = note::confirm(search, what, &text).and_then(|note| search.kernel_of_note(what, note)) {
            return Ok(Some(found));
        }
    }
    if let Some(found) = vcpu::from_registers(search) {
        return Ok(Some(found));
    }
    if let Some(found) = trampoline::find(search) {
        return Ok(Some(found));
    }
    let mut found: Vec<Found> = Vec::new();
    for (at, text) in note::scan(search)? {
        let what = format!("VMCOREINFO at physical {at}");
        let Some(note) = note::confirm(search, &what, &text) else { continue };
        // Each kernel has two or more copies of its note.
        if found.len() < MAX_KERNELS && found.iter().all(|one| one.space != note.space) {
            found.extend(search.kernel_of_note(&what, note));
        }
    }
    if found.is_empty() && !search.confirmed.is_empty() {
        // A note told which kernel runs; a symbol table elsewhere may be of one that ran before it.
        if let Some(kernel) = idle::find(search)?.filter(|kernel| kernel.note.is_some()) {
            return Ok(Some(kernel));
        }
    }
    if found.is_empty() {
        found = blind::find(search)?;
    }
    if found.is_empty() {
        return idle::find(search);
    }
    Ok(search.newest(found))
}

fn memory_is_empty(search: &mut Search<'_>) -> bool {
    let empty = search.memory.metadata().runs.is_empty();
    if empty {
        search.tell("physical memory", "the target holds none");
    }
    empty
}

/// An address space, for evidence.
pub(super) fn describe(space: &AddressSpace) -> String {
    format!("page tables at physical {}, {}", space.root(), space.architecture().name)
}

/// The kernel's own address space, whose root has this address, reached through any address space that maps the kernel; confirmed
/// by the banner, which both must see.
pub(super) fn kernel_space(view: &SpaceView, root: VirtAddr, banner: VirtAddr) -> Result<AddressSpace> {
    let not_mapped =
        |address, reason| Error::Access { kind: memflow_core::error::AccessKind::Read, address, len: 8, reason };
    let phys = |space: &AddressSpace, address| -> Result<PhysAddr> {
        let found = space.translate(&**view.memory(), address);
        found.map(|found| found.phys).map_err(|reason| not_mapped(address.into(), reason))
    };
    let space = AddressSpace::new(view.space().architecture(), phys(view.space(), root)?.as_u64());
    let (seen, own) = (phys(view.space(), banner)?, phys(&space, banner)?);
    if seen != own {
        return Err(Error::Corrupt {
            what: "linux_banner",
            address: banner.into(),
            expected: format!("at physical {seen} through the kernel's own page tables").into(),
            found: own.to_string().into(),
        });
    }
    let mut text = [0; BANNER.len()];
    SpaceView::new(view.memory().clone(), space.clone()).read_into(banner, &mut text)?;
    if text != BANNER {
        return Err(Error::Corrupt {
            what: "linux_banner",
            address: banner.into(),
            expected: "\"Linux version \"".into(),
            found: format!("{:?}", String::from_utf8_lossy(&text)).into(),
        });
    }
    Ok(space)
}

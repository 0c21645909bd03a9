//! The order in which a kernel is looked for, and what became of each attempt.
//!
//! Owns: the order, the evidence, which error is told in the end. Must not know: how one attempt works.
//! Keeps: every refused candidate leaves a line of evidence; a kernel that was seen but cannot be used is told rather than "none".

use std::{fmt::Display, ops::ControlFlow, sync::Arc};

use memflow_core::{
    Error, MemoryViewExt, PhysAddr, Result,
    memory::{MachineKind, PhysicalMemory},
    paging::AddressSpace,
    view::SpaceView,
};

use super::{blind, image, note, vcpu};
use crate::{
    kernel::LinuxOptions,
    symbols::{Known, Symbols},
    vmcoreinfo::VmcoreInfo,
};

/// Told what is done, how many bytes of how many are done; breaks to cancel.
pub(crate) type Progress = dyn Fn(&'static str, u64, u64) -> ControlFlow<()> + Send + Sync;

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
}

/// A search in progress.
pub(super) struct Search<'a> {
    pub(super) memory: &'a Arc<dyn PhysicalMemory>,
    pub(super) progress: Option<&'a Progress>,
    evidence: Vec<String>,
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

    /// Remembers a kernel that was there and cannot be used.
    pub(super) fn tell_unusable(&mut self, what: impl Display, error: Error) {
        self.tell(what, &error);
        self.unusable.get_or_insert(error);
    }

    /// A kernel whose address space was confirmed by a note, if its symbols can be had.
    fn from_note(&mut self, what: &str, confirmed: note::Confirmed) -> Option<Found> {
        let note::Confirmed { space, note, known } = confirmed;
        let view = SpaceView::new(self.memory.clone(), space.clone());
        let place = format!("{what}: {}", describe(&space));
        let mut why = match Symbols::from_note(&view, &note, &known) {
            Some(Ok(symbols)) => {
                self.tell(place, symbols.describe());
                return Some(Found { space, note: Some(note), symbols });
            }
            Some(Err(why)) => {
                self.tell(&place, format!("kallsyms where the note says: {why}"));
                Some(why)
            }
            None => None,
        };
        match image::symbols(&view, &known) {
            Ok(symbols) => {
                self.tell(place, format!("{}, found in the kernel's image", symbols.describe()));
                return Some(Found { space, note: Some(note), symbols });
            }
            Err(error) => {
                self.tell(&place, format!("kallsyms in the kernel's image: {error}"));
                why = why.or(Some(error));
            }
        }
        if let Some(why) = why {
            let release = note.release().unwrap_or("of unknown release").to_owned();
            self.unusable.get_or_insert(why.context(format!("symbols (kallsyms) of Linux {release}")));
        }
        None
    }
}

/// Finds a kernel.
///
/// # Errors
/// [`Error::NotRecognised`] with what became of each attempt; [`Error::Cancelled`]; or, when a kernel was certainly there, why it
/// cannot be used.
pub(crate) fn find(memory: &Arc<dyn PhysicalMemory>, options: &LinuxOptions) -> Result<(Found, Vec<String>)> {
    let mut search = Search { memory, progress: options.progress.as_deref(), evidence: Vec::new(), unusable: None };
    if let Some(found) = attempts(&mut search, options)? {
        return Ok((found, search.evidence));
    }
    Err(search
        .unusable
        .unwrap_or(Error::NotRecognised { what: "Linux kernel", looked_for: search.evidence.join("; ") }))
}

fn attempts(search: &mut Search<'_>, options: &LinuxOptions) -> Result<Option<Found>> {
    if memory_is_empty(search) {
        return Ok(None);
    }
    if let Some(root) = options.kernel_root {
        return Ok(vcpu::from_root(search, root));
    }
    if let Some(MachineKind::AArch64) = search.memory.facts().machine {
        search.tell_unusable("machine", note::unsupported("an AArch64 machine", "only x86-64 kernels are"));
        return Ok(None);
    }
    if let Some(text) = search.memory.facts().vmcoreinfo.clone() {
        let what = "VMCOREINFO given by the target";
        if let Some(found) = note::confirm(search, what, &text).and_then(|note| search.from_note(what, note)) {
            return Ok(Some(found));
        }
    }
    if let Some(found) = vcpu::from_registers(search) {
        return Ok(Some(found));
    }
    for (at, text) in note::scan(search)? {
        let what = format!("VMCOREINFO at physical {at}");
        if let Some(found) = note::confirm(search, &what, &text).and_then(|note| search.from_note(&what, note)) {
            return Ok(Some(found));
        }
    }
    blind::find(search)
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

/// The kernel's own address space, whose root its symbols name, reached through any address space that maps the kernel; confirmed
/// by the banner, which both must see.
pub(super) fn kernel_space(view: &SpaceView, symbols: &Symbols) -> Result<AddressSpace> {
    // Names of the root: since v4.13, before.
    let root = symbols.require("init_top_pgt").or_else(|_| symbols.require("init_level4_pgt"))?;
    let banner = symbols.require("linux_banner")?;
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

/// The symbols of a kernel whose address space is known, without anything else known of it.
pub(super) fn symbols_and_space(view: &SpaceView) -> Result<(Symbols, AddressSpace)> {
    let symbols = image::symbols(view, &Known::default())?;
    let space = kernel_space(view, &symbols)?;
    Ok((symbols, space))
}

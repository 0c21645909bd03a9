//! The order in which a kernel is looked for, and what became of each attempt.
//!
//! Owns: the order, the evidence, the error in the end. Must not know: how one attempt works.
//! Keeps: every candidate that was refused leaves a line of evidence, as far as there is room; no candidate ends the search.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    borrow::Cow,
    cmp::Reverse,
    fmt::Display,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use memflow_core::{
    Error, PhysAddr, PhysRange, Result, VirtAddr,
    memory::{PhysRead, PhysicalMemory},
    paging::{AddressSpace, Architecture, x86},
    view::SpaceView,
};

use super::{
    given,
    image::{self, KernelImage},
    low_stub, scan,
    tables::{self, Root, Shape},
};
use crate::{kernel::Win32Options, version::SharedData};

/// Told what is done, how many bytes of how many are done; breaks to cancel.
pub(crate) type Progress<'a> = dyn Fn(&'static str, u64, u64) -> ControlFlow<()> + Sync + 'a;

/// Lines of evidence kept.
const MAX_EVIDENCE: usize = 64;
/// Roots that are kept of a scan; a system has one for each process, or two.
const MAX_ROOTS: usize = 1 << 16;
/// Roots of a scan of which the shared page is looked for: that takes a handful of small reads each.
const MAX_LOOKED_AT: usize = 1 << 13;
/// Roots of a scan, without the shared page, in which the kernel is looked for.
const MAX_TRIED: usize = 64;
/// Roots of a scan that are named.
const MAX_NAMED: usize = 4;
/// Of those, how many more once there is a kernel, as they may belong to another one.
const MAX_MORE: usize = 8;
/// An address in a kernel without headers is at most this far from its start.
const REACH: u64 = 32 << 20;
/// Units of 100 ns in a second.
const SECOND: u64 = 10_000_000;
/// Seconds between 1601-01-01, from which Windows counts, and 1970-01-01.
const UNIX_EPOCH: u64 = 11_644_473_600;
/// Windows makes its first tables in low memory.
const LOW_MEMORY: u64 = 16 << 20;

/// A root that may be that of a Windows kernel.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    what: Cow<'static, str>,
    space: AddressSpace,
}

impl Candidate {
    pub(super) fn new(what: impl Into<Cow<'static, str>>, space: AddressSpace) -> Self {
        Self { what: what.into(), space }
    }
}

/// An address that may lie in the kernel's image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hint {
    what: &'static str,
    address: VirtAddr,
}

impl Hint {
    pub(super) fn new(what: &'static str, address: VirtAddr) -> Self {
        Self { what, address }
    }
}

/// A kernel: an address space and the image that it maps.
#[derive(Debug)]
pub(crate) struct Found {
    /// The address space through which it was found.
    pub(crate) view: SpaceView,
    /// The image.
    pub(crate) kernel: KernelImage,
}

impl Found {
    /// Where its first page lies.
    fn place(&self) -> Option<PhysAddr> {
        self.view.space().translate(&**self.view.memory(), self.kernel.base).ok().map(|found| found.phys)
    }

    /// Whether an address space maps this very kernel.
    fn is_in(&self, space: &AddressSpace) -> bool {
        let place = space.translate(&**self.view.memory(), self.kernel.base).ok().map(|found| found.phys);
        place.is_some() && place == self.place()
    }

    /// Whether an address lies in the kernel's image.
    fn holds(&self, address: VirtAddr) -> bool {
        match &self.kernel.image {
            Some(image) => image.contains(address),
            None => address.offset_from(self.kernel.base).is_some_and(|offset| offset < REACH),
        }
    }

    /// What the system's clock says, in units of 100 ns since 1601-01-01.
    fn clock(&self) -> Option<u64> {
        SharedData::read(&self.view).map(|shared| shared.now)
    }

    /// The kernel, its page tables and its clock, for evidence.
    fn describe(&self) -> String {
        let (base, root) = (self.kernel.base, self.view.space().root());
        let epoch = UNIX_EPOCH.saturating_mul(SECOND);
        let clock = self.clock().and_then(|clock| clock.checked_sub(epoch)?.checked_div(SECOND));
        let clock = clock.map_or_else(
            || "whose clock cannot be read".to_owned(),
            |seconds| format!("whose clock stands at {seconds} s since 1970"),
        );
        format!("the one at {base} (page tables at {root}), {clock}")
    }
}

/// A search in progress.
struct Search<'a> {
    memory: &'a Arc<dyn PhysicalMemory>,
    options: &'a Win32Options<'a>,
    hints: Vec<Hint>,
    tried: Vec<AddressSpace>,
    /// Kernels that do not hold the address that the caller gave.
    refused: Vec<Found>,
    evidence: Vec<String>,
}

impl Search<'_> {
    fn tell(&mut self, what: impl Display, became: impl Display) {
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(format!("{what}: {became}"));
        }
    }

    /// The kernel below a root, if it is the one that is asked for.
    fn attempt(&mut self, candidate: &Candidate, extra: &[Hint]) -> Option<Found> {
        let is_known = |refused: &Found| refused.is_in(&candidate.space);
        if self.tried.contains(&candidate.space) || self.refused.iter().any(is_known) {
            return None;
        }
        self.tried.push(candidate.space.clone());
        let found = self.look(candidate, extra)?;
        match self.options.kernel.map(VirtAddr::new) {
            Some(wanted) if !found.holds(wanted) => {
                let what = format!("kernel at {}", found.kernel.base);
                self.tell(what, format!("does not hold {wanted}, which the caller gave"));
                self.refused.push(found);
                None
            }
            _ => Some(found),
        }
    }

    /// The kernel below a root.
    fn look(&mut self, candidate: &Candidate, extra: &[Hint]) -> Option<Found> {
        let view = SpaceView::new(self.memory.clone(), candidate.space.clone());
        let what = format!("{}: {}", candidate.what, describe(&candidate.space));
        let mut hints = self.hints.clone();
        hints.extend(extra);
        hints.extend(given::handlers(&view, self.memory.facts()));
        for Hint { what: hint, address } in hints {
            if let Some(kernel) = image::around(&view, address) {
                let found = format!("kernel at {}, below {hint} ({address}), by {}", kernel.base, kernel.how);
                self.tell(what, found);
                return Some(Found { view, kernel });
            }
        }
        match image::mapped(&view) {
            (Some(kernel), pages) => {
                let found = format!("kernel at {}, among {pages} mapped pages, by {}", kernel.base, kernel.how);
                self.tell(what, found);
                Some(Found { view, kernel })
            }
            (None, pages) => {
                self.tell(what, format!("no kernel among {pages} pages mapped where kernels are"));
                None
            }
        }
    }

    fn first_of(&mut self, candidates: &[Candidate]) -> Option<Found> {
        candidates.iter().find_map(|candidate| self.attempt(candidate, &[]))
    }

    /// The kernel below one of the tables in memory that look like roots.
    fn scanned(
        &mut self,
        what: &'static str,
        within: Option<PhysRange>,
        modes: &[&'static Architecture],
    ) -> Result<Option<Found>> {
        let roots = Mutex::new(Vec::<Root>::new());
        let keep = |root: Root| {
            let mut roots = roots.lock().unwrap_or_else(PoisonError::into_inner);
            if roots.len() < MAX_ROOTS {
                roots.push(root);
            }
        };
        let has = |name: &str| modes.iter().any(|mode| mode.name == name);
        let long = has(x86::X64.name) || has(x86::X64_LA57.name);
        let (pae, narrow) = (has(x86::X86_PAE.name), has(x86::X86.name));
        let memory = &**self.memory;
        scan::pages(memory, within, self.options.progress, &|at, page| {
            if long && let Some(root) = tables::long(at, page) {
                keep(root);
            }
            if narrow && let Some(root) = tables::narrow(at, page) {
                keep(root);
            }
            if pae {
                tables::pae(memory, at, page, &mut |root| keep(root));
            }
        })?;
        let roots = roots.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Found> = Vec::new();
        let mut more = MAX_MORE;
        for space in self.ranked(what, roots, modes) {
            // Most tables are those of processes that share the kernel.
            if found.iter().any(|known| known.is_in(&space)) {
                continue;
            }
            if !found.is_empty() {
                let Some(left) = more.checked_sub(1) else { break };
                more = left;
            }
            found.extend(self.attempt(&Candidate::new("a table that maps itself", space), &[]));
        }
        if within.is_some() && !found.is_empty() {
            self.tell("other memory", "not searched for another kernel");
        }
        Ok(self.latest(found))
    }

    /// Address spaces of roots, the likelier first: those that map the page that the kernel shares with all processes, then those with
    /// more of the kernel and less of users; among equals the lower one, which is the older.
    fn ranked(&mut self, what: &str, mut roots: Vec<Root>, modes: &[&'static Architecture]) -> Vec<AddressSpace> {
        roots.sort_by_key(|root| (Reverse(root.rank), root.at));
        let spaces = roots.iter().flat_map(|root| {
            let of_shape = |arch: &&'static Architecture| match root.shape {
                Shape::Long => arch.pointer_size == 8,
                Shape::Pae(_) => arch.name == x86::X86_PAE.name,
                Shape::Narrow => arch.name == x86::X86.name,
            };
            modes.iter().copied().filter(of_shape).map(|arch| AddressSpace::new(arch, root.at.as_u64()))
        });
        let maps_shared_page = |space: &AddressSpace| {
            let view = SpaceView::new(self.memory.clone(), space.clone());
            SharedData::read(&view).is_some()
        };
        let (mut first, second): (Vec<AddressSpace>, Vec<AddressSpace>) =
            spaces.take(MAX_LOOKED_AT).partition(maps_shared_page);
        let mut became = format!("{} tables that map themselves", roots.len());
        if !first.is_empty() {
            let names: Vec<String> = first.iter().take(MAX_NAMED).map(|space| space.root().to_string()).collect();
            let more = if first.len() > MAX_NAMED { ", …" } else { "" };
            became.push_str(&format!("; {} of them map the shared page: {}{more}", first.len(), names.join(", ")));
        }
        self.tell(what, became);
        first.extend(second.into_iter().take(MAX_TRIED));
        first
    }

    /// Of several kernels, the one whose clock is ahead: others are what was left behind when the machine was booted anew.
    fn latest(&mut self, mut found: Vec<Found>) -> Option<Found> {
        if found.len() > 1 {
            // What is equal stays in the order of likelihood.
            found.sort_by_key(|found| Reverse(found.clock()));
            let all: Vec<String> = found.iter().map(Found::describe).collect();
            let chosen = "the first is taken, as its clock is not behind; kernel=ADDRESS or dtb=ROOT names another";
            self.tell(format!("{} kernels", found.len()), format!("{}: {chosen}", all.join("; ")));
        }
        found.into_iter().next()
    }

    fn run(&mut self) -> Result<Option<Found>> {
        let memory = self.memory.clone();
        if memory.metadata().runs.is_empty() {
            self.tell("physical memory", "the target holds none");
            return Ok(None);
        }
        let modes = given::modes(self.options.arch, memory.facts());
        if modes.is_empty() {
            self.tell("machine", "an AArch64 machine; only x86 and x64 are supported");
            return Ok(None);
        }
        if let Some(arch) = self.options.arch {
            self.tell("architecture", format!("{arch:?}, as the caller says; nothing else was looked for"));
        }
        if let Some(root) = self.options.root {
            let found = self.first_of(&given::by_caller(root, &modes));
            if found.is_none() {
                self.tell(
                    "other page tables",
                    "not looked for, as the caller names these; leave out `dtb` to search all memory",
                );
            }
            return Ok(found);
        }
        if let Some(found) = self.first_of(&given::by_facts(&*memory, &modes)) {
            return Ok(Some(found));
        }
        if modes.iter().any(|mode| mode.name == x86::X64.name) {
            for (candidate, hint) in low_stub::find(&*memory) {
                if let Some(found) = self.attempt(&candidate, &[hint]) {
                    return Ok(Some(found));
                }
            }
        }
        let low = PhysRange::new(PhysAddr::new(0), LOW_MEMORY);
        if let Some(found) = self.scanned("low memory", low, &modes)? {
            return Ok(Some(found));
        }
        self.scanned("all memory", None, &modes)
    }
}

/// Whether there is the page with which a 64-bit Windows starts processors, and it leads to page tables that map themselves: a look at
/// low memory that takes no time. Where it says no, there may be a Windows all the same.
///
/// ```
/// # use memflow_core::memory::*;
/// let config = SourceConfig { name: "zeros".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
/// let memory = BufferMemory::new(config, vec![0; 0x4000])?;
/// assert!(!memflow_win32::is_likely(&memory));
/// # Ok::<(), memflow_core::Error>(())
/// ```
pub fn is_likely(memory: &dyn PhysicalMemory) -> bool {
    low_stub::find(memory).iter().any(|(candidate, _)| {
        let root = candidate.space.root();
        let mut page = [0; tables::PAGE];
        memory.read_batch(&mut [PhysRead::new(root, &mut page)]).is_ok() && tables::long(root, &page).is_some()
    })
}

/// An address space, for evidence.
pub(crate) fn describe(space: &AddressSpace) -> String {
    format!("page tables at physical {}, {}", space.root(), space.architecture().name)
}

/// Finds a kernel.
///
/// # Errors
/// [`Error::NotRecognised`] with what became of each attempt; [`Error::Cancelled`].
pub(crate) fn find(memory: &Arc<dyn PhysicalMemory>, options: &Win32Options<'_>) -> Result<(Found, Vec<String>)> {
    let hints = given::hints(options.kernel, memory.facts());
    let mut search = Search { memory, options, hints, tried: Vec::new(), refused: Vec::new(), evidence: Vec::new() };
    match search.run()? {
        Some(found) => Ok((found, search.evidence)),
        None => Err(Error::NotRecognised { what: "Windows kernel", looked_for: search.evidence.join("; ") }),
    }
}

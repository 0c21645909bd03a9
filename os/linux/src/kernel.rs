//! A found kernel: its memory, types, symbols and identity. What everything else of this crate stands on.
//!
//! Owns: the order of finding (page tables, symbols, types, names) and what is kept of it.
//! Must not know: tasks, modules, files; how each step searches.
//! Keeps: a step that fails says which step it was and what was looked for; nothing is guessed.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fmt, ops::ControlFlow, path::Path, sync::Arc, time::Duration};

use memflow_core::{
    Error, MemoryViewExt, Result, VirtAddr,
    error::ResultExt,
    memory::PhysicalMemory,
    os::{KernelInfo, Listing, LogRecord},
    paging::{AddressSpace, SoftFaults},
    view::SpaceView,
};

use crate::{
    bytes,
    clock::Clock,
    find::{self, Found},
    identity,
    layout_cache::{Keeper, Store},
    log,
    soft_fault::LinuxSoftFaults,
    symbols::Symbols,
    types::Types,
};

/// How far a search is: what is done, bytes done, bytes in all. Breaks to cancel the search.
type ProgressFn<'a> = dyn Fn(&'static str, u64, u64) -> ControlFlow<()> + Sync + 'a;

/// How a kernel is looked for.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct LinuxOptions<'a> {
    /// Value of the page-table root register (CR3) to start from, instead of what the target or its memory says.
    pub kernel_root: Option<u64>,
    /// Called now and then, from several threads, while memory is searched: what is done, bytes done, bytes in all. When it
    /// breaks, the search ends with [`Error::Cancelled`].
    pub progress: Option<&'a ProgressFn<'a>>,
    /// A folder in which what is learnt of a kernel is kept, by the identification of its build, so that the next search for the
    /// same kernel ends sooner. Nothing is kept without one. What lies there is checked against memory before it is used.
    pub layout_cache: Option<&'a Path>,
}

impl fmt::Debug for LinuxOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinuxOptions")
            .field("kernel_root", &self.kernel_root)
            .field("layout_cache", &self.layout_cache)
            .finish_non_exhaustive()
    }
}

/// A Linux kernel found in physical memory.
pub struct Kernel {
    /// The target's memory.
    pub memory: Arc<dyn PhysicalMemory>,
    /// The kernel's address space.
    pub view: SpaceView,
    /// The kernel's types.
    pub types: Types,
    /// The kernel's symbols.
    pub symbols: Symbols,
    /// The kernel's identity, and how it was found.
    pub info: KernelInfo,
    /// What it does with pages of processes that are not present.
    soft_faults: Arc<dyn SoftFaults>,
    /// Writes what was learnt when the kernel is dropped.
    keeper: Option<Keeper>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("info", &self.info).field("view", &self.view).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Finds the kernel in `memory`.
    ///
    /// # Errors
    /// [`Error::NotRecognised`] that lists each thing that was looked for and what became of it; otherwise the step that failed.
    pub fn open(memory: Arc<dyn PhysicalMemory>, options: &LinuxOptions<'_>) -> Result<Self> {
        let (found, evidence) = find::find(&memory, options)?;
        let Found { space, note, mut symbols, mut types, kept } = found;
        let view = SpaceView::new(memory.clone(), space);
        let mut info = identity::identify(&view, &symbols, &types).context(|| "names of the kernel".into())?;
        let noted = note.as_ref().and_then(|note| note.build_id()).map(str::to_owned);
        info.build_id = noted.or_else(|| identity::build_id(&view, &symbols).map(|id| identity::hexadecimal(&id)));
        info.evidence = evidence;
        let keeper = options.layout_cache.map(Store::new).and_then(|store| match kept {
            Some(kept) => Some(Keeper::go_on(store, kept)),
            None => Keeper::start(store, &view, &mut symbols, &mut types),
        });
        Ok(Self { memory, view, types, symbols, info, soft_faults: Arc::new(LinuxSoftFaults), keeper })
    }

    /// True when its layout was learnt in an earlier run: see [`LinuxOptions::layout_cache`].
    pub fn is_recalled(&self) -> bool {
        self.keeper.as_ref().is_some_and(Keeper::is_recalled)
    }

    /// The address space of an `mm_struct`, by its page-table root `pgd`, an address in the kernel's direct map.
    ///
    /// # Errors
    /// [`Error::Access`] when the kernel does not map `pgd`.
    pub fn space_of_pgd(&self, pgd: VirtAddr) -> Result<AddressSpace> {
        let space = self.view.space();
        let root = space.translate(&*self.memory, pgd).map_err(|reason| Error::Access {
            kind: memflow_core::error::AccessKind::Read,
            address: pgd.into(),
            len: 8,
            reason,
        })?;
        Ok(self.space_of_root(root.phys.as_u64()))
    }

    /// The address space of a process, by the value of its page-table root register. Pages that the process may not touch
    /// (`PROT_NONE`) are found in it, pages in swap are told.
    pub fn space_of_root(&self, root: u64) -> AddressSpace {
        AddressSpace::new(self.view.space().architecture(), root).with_soft_faults(self.soft_faults.clone())
    }

    /// The number, flag or pointer in a member of the structure at `address`, zero-extended.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the kernel's types do not have the member, [`Error::Access`] when it cannot be read.
    pub fn number(&self, address: VirtAddr, structure: &str, path: &str) -> Result<u64> {
        let field = self.types.field(structure, path)?;
        let mut raw = [0; 8];
        let len = raw.len().min(bytes::index(field.size));
        self.view.read_into(address.wrapping_add(field.offset), raw.get_mut(..len).unwrap_or_default())?;
        let value = u64::from_le_bytes(raw);
        Ok(match field.bits {
            Some((first, width)) => (value >> first) & 1u64.checked_shl(width.into()).unwrap_or(0).wrapping_sub(1),
            None => value,
        })
    }

    /// The records of the kernel's log, oldest first.
    ///
    /// # Errors
    /// When the log cannot be found or read; records that make no sense are in the problems.
    pub fn log(&self) -> Result<Listing<LogRecord>> {
        log::read_log(self).context(|| "kernel log".into())
    }

    /// The time at which the system was booted, since the start of 1970 (UTC), by its own clock.
    ///
    /// # Errors
    /// When the clock's records cannot be found or make no sense.
    pub fn boot_time(&self) -> Result<Duration> {
        Clock::find(&self.view, &self.symbols, &self.types)?.boot()
    }
}

//! A found kernel: its memory, types, symbols and identity. What everything else of this crate stands on.
//!
//! Owns: the order of finding (page tables, symbols, types, names) and what is kept of it.
//! Must not know: tasks, modules, files; how each step searches.
//! Keeps: a step that fails says which step it was and what was looked for; nothing is guessed.

use std::{fmt, sync::Arc};

use memflow_core::{
    Error, MemoryViewExt, Result, VirtAddr, error::ResultExt, memory::PhysicalMemory, os::KernelInfo,
    paging::AddressSpace, view::SpaceView,
};

use crate::{
    find::{self, Found},
    symbols::Symbols,
    types::{self, Types},
};

/// Largest BTF section taken; a kernel with every option has about 8 MiB.
const MAX_BTF: u64 = 64 << 20;
/// Longest banner taken.
const MAX_BANNER: usize = 1024;

/// How a kernel is looked for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LinuxOptions {
    /// Value of the page-table root register (CR3) to start from, instead of what the target or its memory says.
    pub kernel_root: Option<u64>,
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
    pub fn open(memory: Arc<dyn PhysicalMemory>, options: &LinuxOptions) -> Result<Self> {
        let _ = options;
        let mut evidence = Vec::new();
        let Some(found) = find::find_note(&memory, &mut evidence) else {
            return Err(Error::NotRecognised { what: "Linux kernel", looked_for: evidence.join("; ") });
        };
        let Found { space, note, known, .. } = &found;
        let view = SpaceView::new(memory.clone(), *space);
        let symbols = note
            .as_ref()
            .and_then(|note| Symbols::from_vmcoreinfo(&view, note, known))
            .unwrap_or_else(|| Err(Error::NotFound { what: "key of VMCOREINFO", name: "kallsyms_names".to_owned() }))
            .context(|| "kernel symbols (kallsyms)".into())?;
        evidence.push(format!("kallsyms: {} symbols, {:?} values", symbols.len(), symbols.encoding()));
        let types = read_types(&view, &symbols).context(|| "kernel types (BTF)".into())?;
        let info = identify(&view, &symbols, &types, &found, evidence)?;
        Ok(Self { memory, view, types, symbols, info })
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
        Ok(AddressSpace::new(space.architecture(), root.phys.as_u64()))
    }
}

/// Reads the BTF section through its symbols.
fn read_types(view: &SpaceView, symbols: &Symbols) -> Result<Types> {
    let start = symbols.require("__start_BTF")?;
    let stop = symbols.require("__stop_BTF")?;
    let len = stop.offset_from(start).filter(|len| *len >= types::HEADER_LEN && *len <= MAX_BTF).ok_or_else(|| {
        Error::Corrupt {
            what: "__stop_BTF",
            address: stop.into(),
            expected: format!("an address after __start_BTF ({start})").into(),
            found: stop.to_string().into(),
        }
    })?;
    Types::parse(view.read_bytes(start, len)?)
}

/// The kernel's names.
fn identify(
    view: &SpaceView,
    symbols: &Symbols,
    types: &Types,
    found: &Found,
    evidence: Vec<String>,
) -> Result<KernelInfo> {
    let uts = symbols.require("init_uts_ns")?;
    let text = |path: &str| -> Result<String> {
        let field = types.field("uts_namespace", path)?;
        view.read_utf8_lossy(uts.wrapping_add(field.offset), field.size as usize)
    };
    let release = text("name.release")?;
    let banner = view.read_utf8_lossy(symbols.require("linux_banner")?, MAX_BANNER)?;
    let base = symbols.address_of("_text").map_or_else(|| symbols.require("_stext"), Ok)?;
    let mut info = KernelInfo::new("Linux", release, banner.trim_end(), found.space.architecture().name, base);
    info.hostname = Some(text("name.nodename")?).filter(|name| !name.is_empty() && name != "(none)");
    info.build_id = found.note.as_ref().and_then(|note| note.build_id()).map(str::to_owned);
    info.evidence = evidence;
    Ok(info)
}

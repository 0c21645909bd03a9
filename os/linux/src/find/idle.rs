//! The kernel through its type information and its first task, where no symbol table is left.
//!
//! Owns: the steps from a task's name in physical memory to page tables. Must not know: how memory is searched, other tasks than the
//! first two.
//! Keeps: nothing is believed alone. The types lie in the image that the task lies in, the page tables map both and themselves to
//! where they were found, and the list of tasks leads through them to process 1 and back.
//!
//! The first task (`init_task`, "swapper/0") is its own parent and leader, so it holds its own address. It lies in the kernel's image,
//! which is contiguous in physical memory as in virtual: its address less its place is the same for all of the image, and so is the
//! root page table's (`init_top_pgt`).
//! Source: Linux `init/init_task.c`, `arch/x86/kernel/head_64.S`, `arch/x86/kernel/head64.c` (the root's lower half is cleared).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{borrow::Cow, ops::ControlFlow};

use memflow_core::{
    Error, MemoryViewExt, PageSize, PhysAddr, PhysRange, Result, VirtAddr, VirtRange,
    memory::{PhysRead, PhysicalMemoryExt},
    paging::{AddressSpace, x86},
    view::{PhysicalView, SpaceView},
};

use super::{
    btf, image,
    note::unsupported,
    search::{BANNER, Found, MAX_KERNELS, Search, describe},
};
use crate::{
    bytes::index,
    record::{Record, Span},
    symbols::Symbols,
    types::{Field, Types},
};

/// First tasks looked at for one kernel's types.
const MAX_IDLE: usize = 4;
/// Start of the kernel's half of the address space, with five levels (the larger half).
const KERNEL_HALF: u64 = 0xff00_0000_0000_0000;
/// Offset of a root's last entry, which maps the kernel's image.
const LAST_ENTRY: u64 = 0xff8;
/// Bytes of a root that map the user's half.
const USER_HALF: usize = 2048;
/// Pages whose last entry is read at a time.
const BATCH: u64 = 512;
/// Longest banner taken.
const MAX_BANNER: usize = 1024;

/// Where the members lie that tell the first task.
struct Fields {
    task: Span,
    comm: Field,
    pid: Field,
    tgid: Field,
    group_leader: Field,
    parent: Field,
    real_parent: Field,
    tasks: Field,
    nsproxy: Field,
    uts_ns: Field,
    release: Field,
    version: Field,
}

impl Fields {
    fn new(types: &Types) -> Result<Self> {
        let task = |path| types.field("task_struct", path);
        let [comm, pid, tgid, group_leader] = [task("comm")?, task("pid")?, task("tgid")?, task("group_leader")?];
        let [parent, real_parent, tasks, nsproxy] =
            [task("parent")?, task("real_parent")?, task("tasks")?, task("nsproxy")?];
        let read = [comm, pid, tgid, group_leader, parent, real_parent, tasks, nsproxy];
        Ok(Self {
            task: Span::of("task_struct", read)?,
            comm,
            pid,
            tgid,
            group_leader,
            parent,
            real_parent,
            tasks,
            nsproxy,
            uts_ns: types.field("nsproxy", "uts_ns")?,
            release: types.field("uts_namespace", "name.release")?,
            version: types.field("uts_namespace", "name.version")?,
        })
    }
}

/// What looks like the first task.
struct Idle {
    phys: PhysAddr,
    virt: VirtAddr,
    /// The first node in its list of tasks: of process 1 as long as there are processes.
    next: VirtAddr,
    nsproxy: VirtAddr,
}

impl Idle {
    /// The address in the image of what lies at a physical address.
    fn virt_of(&self, phys: PhysAddr) -> VirtAddr {
        self.virt.wrapping_add(phys.as_u64()).wrapping_sub(self.phys.as_u64())
    }
}

/// The kernel whose types and first task lie in memory.
///
/// # Errors
/// [`Error::Cancelled`].
pub(super) fn find(search: &mut Search<'_>) -> Result<Option<Found>> {
    let leads = btf::scan(search)?;
    let mut seen = false;
    let mut found: Vec<Found> = Vec::new();
    for (section, types) in btf::types_of(search, &leads).take(MAX_KERNELS) {
        seen = true;
        let what = format!("BTF at physical {}", section.start());
        match kernel_of(search, section, types, &leads.names) {
            Ok(kernel) if found.iter().any(|one| one.space == kernel.space) => {}
            Ok(kernel) => {
                search.tell(what, format!("{}, {}", describe(&kernel.space), kernel.symbols.describe()));
                found.push(kernel);
            }
            Err(error) => search.tell_refused(what, error),
        }
    }
    if !seen {
        let scanned = leads.scanned;
        search.tell("BTF", format!("no types of a kernel in {} bytes{scanned}", scanned.seen));
    }
    if found.iter().any(|one| one.note.is_some()) {
        found.retain(|one| one.note.is_some());
    }
    if found.len() > 1 {
        let why = "none of them has a symbol table, so nothing tells which one runs now";
        search.tell_unusable("BTF", unsupported(format!("memory that holds {} kernels", found.len()), why));
        return Ok(None);
    }
    Ok(found.pop())
}

/// The kernel that has these types, at `section`, and one of the tasks whose names lie at `names`.
fn kernel_of(search: &Search<'_>, section: PhysRange, types: Types, names: &[PhysAddr]) -> Result<Found> {
    let fields = Fields::new(&types)?;
    let physical = PhysicalView::new(search.memory.clone());
    let mut refused = None;
    for idle in names.iter().filter_map(|name| first_task(&physical, &fields, *name)).take(MAX_IDLE) {
        match kernel_space(search, &idle, section, &fields) {
            Ok(space) => {
                let view = SpaceView::new(search.memory.clone(), space.clone());
                let symbols = symbols(search, &view, &idle, section, &fields)?;
                let note = search.confirmed_note(&space).cloned();
                return Ok(Found { space, note, symbols, types, kept: None });
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| {
        let found = format!("none among {} places of the name", names.len());
        corrupt("first task (swapper/0)", section.start(), "one that these types describe", found)
    }))
}

fn corrupt(
    what: &'static str,
    at: impl Into<memflow_core::error::AnyAddr>,
    expected: impl Into<Cow<'static, str>>,
    found: impl Into<Cow<'static, str>>,
) -> Error {
    Error::Corrupt { what, address: at.into(), expected: expected.into(), found: found.into() }
}

/// The task whose name lies at `name`, if it can be the first one.
fn first_task(physical: &PhysicalView, fields: &Fields, name: PhysAddr) -> Option<Idle> {
    let phys = name.checked_sub(fields.comm.offset)?;
    let task = Record::read(physical, VirtAddr::new(phys.as_u64()), fields.task).ok()?;
    let virt = task.pointer(fields.group_leader).ok()?;
    let (next, prev) = task.links(fields.tasks).ok()?;
    let idle = Idle { phys, virt, next, nsproxy: task.pointer(fields.nsproxy).ok()? };
    let is_first = task.number(fields.pid).ok()? == 0
        && task.number(fields.tgid).ok()? == 0
        && task.pointer(fields.parent).ok()? == virt
        && task.pointer(fields.real_parent).ok()? == virt;
    let in_image = virt.as_u64().checked_sub(image::START).is_some_and(|offset| offset < image::LEN)
        && virt.page_offset(PageSize::MIB_2) == phys.page_offset(PageSize::MIB_2);
    let leads_on = [next, prev, idle.nsproxy].iter().all(|pointer| pointer.as_u64() >= KERNEL_HALF);
    (is_first && in_image && leads_on).then_some(idle)
}

/// The kernel's own address space: the root is a page of the image that the first task lies in.
fn kernel_space(search: &Search<'_>, idle: &Idle, section: PhysRange, fields: &Fields) -> Result<AddressSpace> {
    let mut refused = None;
    for root in roots(search, idle) {
        for arch in [&x86::X64, &x86::X64_LA57] {
            let space = AddressSpace::new(arch, root.as_u64());
            // Cheap to refuse: most pages map nothing.
            if !maps(search, &space, idle, idle.phys) {
                continue;
            }
            match confirm(search, &space, idle, section, fields) {
                Ok(()) => return Ok(space),
                Err(error) => refused = Some(error.context(describe(&space))),
            }
        }
    }
    Err(refused.unwrap_or_else(|| {
        let expected = format!("page tables in the image that map it to {}", idle.virt);
        corrupt("first task (swapper/0)", idle.phys, expected, "none")
    }))
}

/// Pages of the image that may be a root: the last entry, which maps the image, is present, and none of the user's half is.
fn roots<'a>(search: &'a Search<'_>, idle: &'a Idle) -> impl Iterator<Item = PhysAddr> + 'a {
    let before = idle.virt.as_u64().saturating_sub(image::START);
    let start = idle.phys.as_u64().saturating_sub(before);
    let end = idle.phys.as_u64().saturating_add(image::LEN.saturating_sub(before));
    let image = PhysRange::between(PhysAddr::new(start), PhysAddr::new(end));
    let runs = search.memory.populated_runs();
    let ranges: Vec<PhysRange> = runs.runs().iter().filter_map(|run| run.range.intersection(&image?)).collect();
    ranges.into_iter().flat_map(batches).flat_map(move |batch| {
        let mut entries = vec![[0; 8]; batch.len()];
        let mut ops: Vec<PhysRead<'_>> = entries
            .iter_mut()
            .zip(&batch)
            .map(|(entry, page)| PhysRead::new(page.wrapping_add(LAST_ENTRY), entry))
            .collect();
        // A page that cannot be read keeps a zero, which is no entry.
        let _ = search.memory.read_batch(&mut ops);
        drop(ops);
        let present = entries.into_iter().zip(batch).filter(|(entry, _)| u64::from_le_bytes(*entry) & 1 == 1);
        present.map(|(_, page)| page).filter(|page| {
            let mut user = [0; USER_HALF];
            search.memory.read_into(*page, &mut user).is_ok() && user.iter().all(|byte| *byte == 0)
        })
    })
}

/// The pages of a range, some at a time.
fn batches(range: PhysRange) -> impl Iterator<Item = Vec<PhysAddr>> {
    let size = PageSize::KIB_4.bytes();
    let first = range.start().as_u64().div_ceil(size);
    let last = range.last().map_or(0, |last| last.as_u64().checked_div(size).unwrap_or(0));
    let mut next = first;
    std::iter::from_fn(move || {
        let until = next.saturating_add(BATCH).min(last.saturating_add(1));
        let batch: Vec<PhysAddr> = (next..until).map(|page| PhysAddr::new(page.saturating_mul(size))).collect();
        next = until;
        (!batch.is_empty()).then_some(batch)
    })
}

/// True when the address in the image of what lies at `phys` leads there.
fn maps(search: &Search<'_>, space: &AddressSpace, idle: &Idle, phys: PhysAddr) -> bool {
    space.translate(&**search.memory, idle.virt_of(phys)).is_ok_and(|found| found.phys == phys)
}

/// Checks that an address space that maps the first task is the kernel's own, and that the types are of the same kernel.
fn confirm(search: &Search<'_>, space: &AddressSpace, idle: &Idle, section: PhysRange, fields: &Fields) -> Result<()> {
    let own = [("page tables", space.root()), ("types (BTF)", section.start())];
    let end = section.last().map(|last| ("end of the types (BTF)", last));
    for (what, phys) in own.into_iter().chain(end) {
        if !maps(search, space, idle, phys) {
            return Err(corrupt(what, phys, format!("mapped at {}", idle.virt_of(phys)), "not in the image"));
        }
    }
    let view = SpaceView::new(search.memory.clone(), space.clone());
    let node = idle.virt.wrapping_add(fields.tasks.offset);
    let first = Record::read(&view, idle.next.wrapping_sub(fields.tasks.offset), fields.task)?;
    let (_, back) = first.links(fields.tasks)?;
    let (pid, parent) = (first.number(fields.pid)?, first.pointer(fields.real_parent)?);
    if pid != 1 || back != node || parent != idle.virt {
        let found = format!("process {pid}, whose list leads back to {back} and whose parent is at {parent}");
        return Err(corrupt("first entry in the list of tasks", idle.next, "process 1 after the first task", found));
    }
    Ok(())
}

/// What is known of symbols without a table.
fn symbols(search: &Search<'_>, view: &SpaceView, idle: &Idle, section: PhysRange, fields: &Fields) -> Result<Symbols> {
    let uts = view.read_pointer(idle.nsproxy.wrapping_add(fields.uts_ns.offset))?;
    let text = |field: Field| view.read_utf8_lossy(uts.wrapping_add(field.offset), index(field.size));
    let (release, version) = (text(fields.release)?, text(fields.version)?);
    if !release.starts_with(|first: char| first.is_ascii_digit())
        || !release.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(corrupt("init_uts_ns", uts, "a release such as 6.1.0", format!("{release:?}")));
    }
    let runs = image::runs(view);
    let mut known = Vec::new();
    let mut add = |name: &str, address: VirtAddr| {
        if known.iter().all(|(known, _)| known != name) {
            known.push((name.to_owned(), address));
        }
    };
    // What is mapped of the image starts with its first byte: `cleanup_highmap` in arch/x86/mm/init_64.c.
    if let Some(start) = runs.first() {
        add("_text", start.start());
    }
    add("init_task", idle.virt);
    add("init_top_pgt", idle.virt_of(view.space().root()));
    add("init_uts_ns", uts);
    add("__start_BTF", idle.virt_of(section.start()));
    add("__stop_BTF", idle.virt_of(section.start()).wrapping_add(section.len()));
    if let Some(banner) = banner(view, &runs, &release, &version) {
        add("linux_banner", banner);
    }
    let mut noted: Vec<_> = search.confirmed_note(view.space()).into_iter().flat_map(|note| note.symbols()).collect();
    noted.sort_unstable();
    for (name, address) in noted {
        add(name, address);
    }
    Ok(Symbols::few(known, search.why_no_table()))
}

/// The banner in the image. It ends with the version and a line feed, which sets it apart from its copy in the log and from the one
/// that was compiled before the version was known.
fn banner(view: &SpaceView, runs: &[VirtRange], release: &str, version: &str) -> Option<VirtAddr> {
    let mut found = None;
    let end = format!(" {version}\n");
    let needle = [BANNER, release.as_bytes(), b" ("].concat();
    image::places(view, runs, &needle, &mut |at| {
        if view.read_utf8_lossy(at, MAX_BANNER).is_ok_and(|text| text.ends_with(&end)) {
            found = Some(at);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    found
}

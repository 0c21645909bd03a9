//! Processes of the kernel's list (`_EPROCESS`).
//!
//! Owns: which members are read, when a structure is a process, the list and its head. Must not know: memory of processes, threads.
//! Keeps: what is not known of this kernel is left out; an entry that is no process is a problem, not a process.
//! Source: `_EPROCESS`, `_KPROCESS` in the kernel's symbols.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::time::Duration;

use memflow_core::{
    MemoryView, VirtAddr,
    error::{Error, Result},
    os::{Listing, ProcessInfo, ProcessState},
};

use crate::{
    bytes::Bytes,
    kernel::Kernel,
    list,
    offsets::{Check, Layout},
    reader::Reader,
    structure::Structure,
};

/// More processes than any system has; numbers end below 2^26.
const MAX_PROCESSES: u64 = 1 << 16;
/// Processes that are looked at to judge a layout.
const MAX_CHECKED: usize = 64;
/// Bytes of `ImageFileName`.
const NAME: u64 = 15;
/// Bytes after which the kernel cuts names.
const CUT: usize = 14;
/// The status of what has not ended (`STATUS_PENDING`).
const STILL_ACTIVE: u32 = 0x103;
/// Highest number of a process.
const MAX_PID: u64 = 1 << 31;
/// Highest number of a session that is believed.
const MAX_SESSION: u32 = 0xffff;

/// Who told of a process first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum FoundBy {
    /// The kernel's list. All others are hidden from it, or behind a gap in what can be read of it.
    List,
    /// The table of process numbers (`PspCidTable`).
    Numbers,
    /// A thread in that table, which belongs to it.
    Thread,
    /// A processor that runs one of its threads.
    Processor,
    /// Whoever asked gave its address.
    Caller,
}

/// What Windows knows of a process beyond [`ProcessInfo`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ProcessDetails {
    /// What every system tells.
    pub info: ProcessInfo,
    /// Who told of it.
    pub found_by: FoundBy,
    /// Path of the image, as the kernel's audit records have it (`\Device\HarddiskVolume2\Windows\explorer.exe`).
    pub image_path: Option<String>,
    /// Root of the page tables in user mode, where kernel and users have tables of their own (KVA shadow).
    pub user_root: Option<u64>,
    /// The process' block in its own memory.
    pub peb: Option<VirtAddr>,
    /// Where `EWOW64PROCESS`, or before Windows 10 the 32-bit block, lies: a process of 32-bit code on x64.
    pub wow64: Option<VirtAddr>,
    /// It runs 32-bit code: under WoW64, or as all processes of a 32-bit system.
    pub narrow: bool,
    /// Its token, which says who it runs as.
    pub token: Option<VirtAddr>,
    /// Its table of handles.
    pub handle_table: Option<VirtAddr>,
    /// Session.
    pub session: Option<u32>,
    /// When it was started, in units of 100 ns since 1601-01-01 00:00 UTC.
    pub create_time: Option<u64>,
    /// When it ended.
    pub exit_time: Option<u64>,
    /// Its exit code, once it has ended.
    pub exit_status: Option<u32>,
    /// Where its main image lies.
    pub image_base: Option<VirtAddr>,
}

/// Offsets in a process, of this kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EprocessLayout {
    root: u64,
    links: u64,
    pid: u64,
    name: u64,
    parent: Option<u64>,
    user_root: Option<u64>,
    peb: Option<u64>,
    wow64: Option<u64>,
    token: Option<u64>,
    handle_table: Option<u64>,
    session: Option<u64>,
    create_time: Option<u64>,
    exit_time: Option<u64>,
    exit_status: Option<u64>,
    image_base: Option<u64>,
    audit: Option<u64>,
    active_threads: Option<u64>,
    /// Bytes that hold all of these.
    len: u64,
}

impl EprocessLayout {
    /// # Errors
    /// [`Error::NotFound`] for a member without which there is no list of processes.
    pub(crate) fn new(layout: &Layout) -> Result<Self> {
        let mut one = Self {
            root: layout.get("_KPROCESS.DirectoryTableBase")?,
            links: layout.get("_EPROCESS.ActiveProcessLinks")?,
            pid: layout.get("_EPROCESS.UniqueProcessId")?,
            name: layout.get("_EPROCESS.ImageFileName")?,
            parent: layout.find("_EPROCESS.InheritedFromUniqueProcessId"),
            user_root: layout.find("_KPROCESS.UserDirectoryTableBase"),
            peb: layout.find("_EPROCESS.Peb"),
            // The name has been written in both ways.
            wow64: layout.find("_EPROCESS.WoW64Process").or_else(|| layout.find("_EPROCESS.Wow64Process")),
            token: layout.find("_EPROCESS.Token"),
            handle_table: layout.find("_EPROCESS.ObjectTable"),
            session: layout.find("_EPROCESS.Session"),
            create_time: layout.find("_EPROCESS.CreateTime"),
            exit_time: layout.find("_EPROCESS.ExitTime"),
            exit_status: layout.find("_EPROCESS.ExitStatus"),
            image_base: layout.find("_EPROCESS.SectionBaseAddress"),
            audit: layout.find("_EPROCESS.SeAuditProcessCreationInfo"),
            active_threads: layout.find("_EPROCESS.ActiveThreads"),
            len: 0,
        };
        let members =
            [Some(one.root), Some(one.links), Some(one.pid), Some(one.name), one.parent, one.user_root, one.peb];
        let more = [
            one.wow64,
            one.token,
            one.handle_table,
            one.session,
            one.create_time,
            one.exit_time,
            one.exit_status,
            one.image_base,
            one.audit,
            one.active_threads,
        ];
        let last = members.into_iter().chain(more).flatten().max().unwrap_or_default();
        one.len = last.saturating_add(16);
        Ok(one)
    }

    /// The process whose links lie at `node`.
    pub(crate) fn of_node(&self, node: VirtAddr) -> VirtAddr {
        node.wrapping_sub(self.links)
    }
}

/// Reads the process at `at`.
///
/// # Errors
/// When it cannot be read, or is no process.
pub(crate) fn read(kernel: &Kernel, layout: &EprocessLayout, at: VirtAddr) -> Result<ProcessDetails> {
    read_in_part(kernel, layout, at).map(|(process, _)| process)
}

/// The same, with why not all of it could be read.
pub(crate) fn read_in_part(
    kernel: &Kernel,
    layout: &EprocessLayout,
    at: VirtAddr,
) -> Result<(ProcessDetails, Option<Error>)> {
    let reader = Reader::new(&kernel.view);
    let structure = Structure::read(&kernel.view, at, layout.len)?;
    let (pid, name) = identity(&structure, layout)?;
    // A member that is not known, or in a page that is missing, is left out.
    let pointer = |offset: Option<u64>| structure.pointer(offset?).ok().filter(|address| !address.is_null());
    let word = |offset: Option<u64>| structure.u64(offset?).ok().filter(|value| *value != 0);
    let mut info = ProcessInfo::new(at, pid, name);
    let parent = layout.parent.and_then(|offset| structure.word(offset).ok());
    info.parent_pid = parent.and_then(|parent| u32::try_from(parent).ok()).unwrap_or_default();
    info.root = Some(structure.word(layout.root)?);
    info.threads = layout.active_threads.and_then(|offset| structure.u32(offset).ok()).unwrap_or_default();
    let create_time = word(layout.create_time);
    let boot = kernel.shared.as_ref().map(|shared| shared.boot());
    if let (Some(start), Some(boot)) = (create_time, boot) {
        info.start_time = ticks(start.saturating_sub(boot));
    }
    let exit_time = word(layout.exit_time);
    let status = layout.exit_status.and_then(|offset| structure.u32(offset).ok());
    let ended = exit_time.is_some() || status.is_some_and(|status| status != STILL_ACTIVE);
    if ended {
        info.state = ProcessState::Zombie;
    }
    let peb = pointer(layout.peb).filter(|peb| reader.is_user(*peb));
    // Processes of the kernel (System, Registry) have no block of a process. One that has ended may have lost it.
    info.kernel_thread = layout.peb.is_some_and(|offset| structure.word(offset).is_ok_and(|peb| peb == 0)) && !ended;
    let mut unread = None;
    let audit = pointer(layout.audit).filter(|audit| reader.is_kernel(*audit));
    let path = audit.map(|audit| reader.unicode_string(audit, 0));
    // The path tells the end of a name that is cut.
    let path = path.and_then(|path| path.map_err(|error| unread = Some(error).filter(|_| info.name.len() >= CUT)).ok());
    let image_path = path.filter(|path| !path.is_empty());
    if let Some(long) = image_path
        .as_ref()
        .and_then(|path| path.rsplit('\\').next())
        .filter(|long| long.len() > info.name.len() && info.name.len() >= CUT && long.starts_with(&info.name))
    {
        info.name = long.to_owned();
    }
    let session = pointer(layout.session).filter(|session| reader.is_kernel(*session)).and_then(|session| {
        // `_MM_SESSION_SPACE`: a count, flags, the number.
        reader.value::<u32>(session, 8).ok().filter(|session| *session <= MAX_SESSION)
    });
    let kernel_pointer = |offset: Option<u64>| pointer(offset).filter(|address| reader.is_kernel(*address));
    // The low bits of a fast reference count references.
    let counts = reader.either(0xf, 0x7);
    let token = pointer(layout.token).map(|token| VirtAddr::new(token.as_u64() & !counts));
    let wow64 = pointer(layout.wow64).filter(|_| reader.is_wide());
    let missing = structure.missing().or_else(|| unread.map(|error| error.context("path")));
    let missing = missing.map(|error| error.context(format!("process {} ({}): known in part", info.pid, info.name)));
    let details = ProcessDetails {
        info,
        found_by: FoundBy::Caller,
        image_path,
        user_root: word(layout.user_root).filter(|root| root >> 12 != 0),
        peb,
        wow64,
        narrow: wow64.is_some() || !reader.is_wide(),
        token: token.filter(|token| reader.is_kernel(*token)),
        handle_table: kernel_pointer(layout.handle_table),
        session,
        create_time,
        exit_time,
        exit_status: status.filter(|_| ended),
        image_base: pointer(layout.image_base),
    };
    Ok((details, missing))
}

/// Number and name, if they can be those of a process.
fn identity(structure: &Structure, layout: &EprocessLayout) -> Result<(u32, String)> {
    let pid = structure.word(layout.pid)?;
    let corrupt = |expected: &'static str, found: u64| Error::Corrupt {
        what: "process",
        address: structure.at().into(),
        expected: expected.into(),
        found: format!("{found:#x}").into(),
    };
    if pid % 4 != 0 || pid >= MAX_PID {
        return Err(corrupt("a process number, which is a multiple of 4", pid));
    }
    let root = structure.word(layout.root)?;
    if root >> 52 != 0 {
        return Err(corrupt("a page-table root below 2^52", root));
    }
    Ok((u32::try_from(pid).unwrap_or_default(), structure.text(layout.name, NAME)?))
}

/// Intervals of 100 ns.
fn ticks(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.saturating_mul(100))
}

/// The processes of the kernel's list.
pub(crate) fn list(kernel: &Kernel, layout: &EprocessLayout, head: VirtAddr) -> Listing<ProcessDetails> {
    let nodes = list::nodes(Reader::new(&kernel.view), "list of processes", head, MAX_PROCESSES);
    let mut listing = Listing { items: Vec::new(), problems: nodes.problems };
    for node in nodes.items {
        let at = layout.of_node(node);
        match read_in_part(kernel, layout, at) {
            Ok((process, missing)) => {
                listing.items.push(ProcessDetails { found_by: FoundBy::List, ..process });
                listing.problems.extend(missing);
            }
            Err(error) => listing.problems.push(error.context(format!("process at {at}"))),
        }
    }
    listing
}

/// Whether processes make sense by a layout.
pub(crate) fn check(kernel: &Kernel, layout: &Layout) -> Check {
    let mut check = Check::default();
    let Ok(layout) = EprocessLayout::new(layout) else { return check };
    let head = kernel.active_processes().ok().or_else(|| search_head(kernel, &layout));
    let Some(head) = head else { return check };
    let nodes = list::nodes(Reader::new(&kernel.view), "list of processes", head, MAX_PROCESSES);
    for node in nodes.items.into_iter().take(MAX_CHECKED) {
        match sensible(kernel, &layout, layout.of_node(node)) {
            Some(true) => check.sensible = check.sensible.saturating_add(1),
            Some(false) => check.senseless = check.senseless.saturating_add(1),
            None => {}
        }
    }
    check
}

/// Whether a structure is a process by a layout; `None` when it cannot be read.
fn sensible(kernel: &Kernel, layout: &EprocessLayout, at: VirtAddr) -> Option<bool> {
    let reader = Reader::new(&kernel.view);
    let structure = match Structure::read(&kernel.view, at, layout.len) {
        Ok(structure) => structure,
        Err(_) => return Some(false),
    };
    match identity(&structure, layout) {
        Ok((0, _)) => return Some(false),
        Ok(_) => {}
        Err(Error::Access { .. }) => return None,
        Err(_) => return Some(false),
    }
    let root = structure.word(layout.root).ok()?;
    let base = kernel.info.base;
    let place = |space: &memflow_core::paging::AddressSpace| space.translate(&*kernel.memory, base).ok();
    // Every process maps the kernel, unless its tables are not there.
    let own = place(&kernel.space_of_root(root)).map(|found| found.phys);
    if own.is_some() && own != place(kernel.view.space()).map(|found| found.phys) {
        return Some(false);
    }
    let peb = layout.peb.and_then(|offset| structure.pointer(offset).ok());
    Some(peb.is_none_or(|peb| peb.is_null() || (reader.is_user(peb) && peb.as_u64().is_multiple_of(0x1000))))
}

/// The list's head, looked for in the kernel's data by a layout that is known.
pub(crate) fn find_head(kernel: &Kernel) -> Option<VirtAddr> {
    EprocessLayout::new(&kernel.layout).ok().and_then(|layout| search_head(kernel, &layout))
}

/// The head: two links in the kernel's data of which the first leads to process 4 and back.
fn search_head(kernel: &Kernel, layout: &EprocessLayout) -> Option<VirtAddr> {
    let image = kernel.image.as_ref()?;
    let reader = Reader::new(&kernel.view);
    let (size, width) = (reader.pointer_size(), kernel.view.metadata().pointer_size);
    image.sections.iter().filter(|section| section.is_writable()).find_map(|section| {
        let bytes = image.readable(&kernel.view, section);
        let mut at = 0u64;
        while let Some(next) = Bytes(&bytes).pointer(at, width) {
            let head = image.at(section.offset).wrapping_add(at);
            let next = VirtAddr::new(next);
            if reader.is_kernel(next)
                && !image.contains(next)
                && reader.links(next).is_ok_and(|(_, back)| back == head)
                && read(kernel, layout, layout.of_node(next)).is_ok_and(|process| process.info.pid == 4)
            {
                return Some(head);
            }
            at = at.checked_add(size)?;
        }
        None
    })
}

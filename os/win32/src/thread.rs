//! Threads of a process (`_ETHREAD`).
//!
//! Owns: which members are read, the list. Must not know: memory of processes.
//! Keeps: a thread counts when it names its process; what is not known of this kernel is left out.
//! Source: `_ETHREAD`, `_KTHREAD`, `KTHREAD_STATE` in the kernel's symbols.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryView, VirtAddr,
    error::{Error, Result},
    os::{Listing, ProcessInfo, ProcessState, ThreadInfo},
};

use crate::{list, offsets::Layout, reader::Reader, structure::Structure};

/// More threads than any process has.
const MAX_THREADS: u64 = 1 << 18;

/// What Windows knows of a thread beyond [`ThreadInfo`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ThreadDetails {
    /// What every system tells.
    pub info: ThreadInfo,
    /// The thread's block in its process' memory.
    pub teb: Option<VirtAddr>,
    /// Where the kernel let it begin: in user mode mostly a function of `ntdll`.
    pub start: Option<VirtAddr>,
    /// Where the program let it begin.
    pub win32_start: Option<VirtAddr>,
    /// Its state, as the kernel numbers it (`KTHREAD_STATE`).
    pub kernel_state: Option<u8>,
    /// When it was started, in units of 100 ns since 1601-01-01 00:00 UTC.
    pub create_time: Option<u64>,
}

/// Offsets in a thread, of this kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EthreadLayout {
    /// In the process.
    head: u64,
    links: u64,
    cid: u64,
    teb: Option<u64>,
    state: Option<u64>,
    win32_start: Option<u64>,
    start: Option<u64>,
    create_time: Option<u64>,
    len: u64,
}

impl EthreadLayout {
    /// # Errors
    /// [`Error::NotFound`] for a member that is not known of this kernel.
    pub(crate) fn new(layout: &Layout) -> Result<Self> {
        let one = Self {
            head: layout.get("_EPROCESS.ThreadListHead")?,
            links: layout.get("_ETHREAD.ThreadListEntry")?,
            cid: layout.get("_ETHREAD.Cid")?,
            teb: layout.find("_KTHREAD.Teb"),
            state: layout.find("_KTHREAD.State"),
            win32_start: layout.find("_ETHREAD.Win32StartAddress"),
            start: layout.find("_ETHREAD.StartAddress"),
            create_time: layout.find("_ETHREAD.CreateTime"),
            len: 0,
        };
        let members = [Some(one.links), Some(one.cid), one.teb, one.state, one.win32_start, one.start, one.create_time];
        let last = members.into_iter().flatten().max().unwrap_or_default();
        Ok(Self { len: last.saturating_add(16), ..one })
    }
}

/// The threads of a process.
pub(crate) fn list(view: &dyn MemoryView, layout: &EthreadLayout, process: &ProcessInfo) -> Listing<ThreadDetails> {
    let reader = Reader::new(view);
    let head = process.address.wrapping_add(layout.head);
    let nodes = list::nodes(reader, "list of threads", head, MAX_THREADS);
    let mut listing = Listing { items: Vec::new(), problems: nodes.problems };
    for node in nodes.items {
        let at = node.wrapping_sub(layout.links);
        match read(&reader, layout, process, at) {
            Ok((thread, missing)) => {
                listing.items.push(thread);
                listing.problems.extend(missing.map(|error| error.context(format!("thread at {at}: known in part"))));
            }
            Err(error) => listing.problems.push(error.context(format!("thread at {at}"))),
        }
    }
    listing
}

/// The thread at an address, and why not all of it could be read.
fn read(
    reader: &Reader<'_>,
    layout: &EthreadLayout,
    process: &ProcessInfo,
    at: VirtAddr,
) -> Result<(ThreadDetails, Option<Error>)> {
    let structure = Structure::read(reader.view(), at, layout.len)?;
    let pid = structure.word(layout.cid)?;
    let tid = structure.word(layout.cid.saturating_add(reader.pointer_size()))?;
    if pid != u64::from(process.pid) || tid % 4 != 0 {
        return Err(Error::Corrupt {
            what: "thread",
            address: at.into(),
            expected: format!("a thread of process {}", process.pid).into(),
            found: format!("thread {tid:#x} of process {pid:#x}").into(),
        });
    }
    let pointer = |offset: Option<u64>| structure.pointer(offset?).ok().filter(|address| !address.is_null());
    let state = layout.state.and_then(|offset| structure.slice(offset, 1).ok()?.first().copied());
    let tid = u32::try_from(tid).unwrap_or(u32::MAX);
    let info =
        ThreadInfo::new(at, tid, process.pid, process.name.clone(), state.map_or(ProcessState::Sleeping, meaning));
    let details = ThreadDetails {
        info,
        teb: pointer(layout.teb).filter(|teb| reader.is_user(*teb)),
        start: pointer(layout.start),
        win32_start: pointer(layout.win32_start),
        kernel_state: state,
        create_time: layout.create_time.and_then(|offset| structure.u64(offset).ok()),
    };
    Ok((details, structure.missing()))
}

/// A state of the kernel's in terms that all systems have.
fn meaning(state: u8) -> ProcessState {
    match state {
        // Ready, running, standby, deferred ready.
        1 | 2 | 3 | 7 => ProcessState::Running,
        // Initialized.
        0 => ProcessState::Parked,
        // Terminated.
        4 => ProcessState::Dead,
        // In transition: its stack is being brought in, or its process is.
        6 | 9 => ProcessState::DiskSleep,
        // Waiting.
        _ => ProcessState::Sleeping,
    }
}

//! Tasks: the kernel's threads and processes (`struct task_struct`).
//!
//! Owns: where the fields of a task lie, the list of processes, the list of a process' threads, the state letter.
//! Must not know: address spaces beyond the root of one, files, modules.
//! Keeps: one read per task while the list is walked, then one batch for what all of them point to; a field that could not be
//! read is a problem of the listing.
//! Source: include/linux/sched.h, include/linux/sched/signal.h, include/linux/cred.h, fs/proc/array.c (what /proc shows of them).

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
    error::{Error, Result, ResultExt},
    os::{Listing, ProcessInfo, ProcessState, ThreadInfo},
};

use crate::{
    list::{self, List},
    record::{Record, Span, read_each},
    types::{Field, Types},
    worker::{self, OwnName, WorkerLayout},
};

/// The kernel never hands out a process id as large as this (`PID_MAX_LIMIT`, include/linux/threads.h).
const PID_LIMIT: u32 = 1 << 22;

/// `PF_KTHREAD`: a thread of the kernel. `PF_WQ_WORKER`: one that works for a workqueue.
const PF_KTHREAD: u32 = 0x0020_0000;
const PF_WQ_WORKER: u32 = 0x0000_0020;

/// Where the fields lie that the lists of processes and threads need.
#[derive(Clone, Debug)]
pub(crate) struct TaskLayout {
    span: Span,
    state: Field,
    exit_state: Field,
    flags: Field,
    pid: Field,
    tgid: Field,
    comm: Field,
    tasks: Field,
    thread_node: Field,
    real_parent: Field,
    mm: Field,
    fs: Field,
    real_cred: Field,
    signal: Field,
    start_time: Field,
    kthread: Option<Field>,
    parent: Span,
    cred: Span,
    euid: Field,
    egid: Field,
    group: Span,
    nr_threads: Field,
    thread_head: Field,
    mm_root: Span,
    pgd: Field,
    worker: Option<WorkerLayout>,
}

impl TaskLayout {
    /// The layout of this kernel.
    ///
    /// # Errors
    /// [`Error::NotFound`] with the structure and the field that the kernel's type information does not have.
    pub(crate) fn new(types: &Types) -> Result<Self> {
        let task = |path| types.field("task_struct", path);
        // Linux 5.14 (2f064a59a11f) renamed `state`, 5.5 (cf25e24db61c) renamed `real_start_time`.
        let state = types.find_field("task_struct", "__state").map_or_else(|| task("state"), Ok)?;
        let start_time =
            types.find_field("task_struct", "start_boottime").map_or_else(|| task("real_start_time"), Ok)?;
        // Linux 5.17 (e32cf5dfbe22) gave the pointer to `struct kthread` a member of its own.
        let kthread = types
            .find_field("task_struct", "worker_private")
            .or_else(|| types.find_field("task_struct", "set_child_tid"));
        let [exit_state, flags, pid, tgid, comm] =
            [task("exit_state")?, task("flags")?, task("pid")?, task("tgid")?, task("comm")?];
        let [tasks, thread_node, real_parent, mm] =
            [task("tasks")?, task("thread_node")?, task("real_parent")?, task("mm")?];
        let [fs, real_cred, signal] = [task("fs")?, task("real_cred")?, task("signal")?];
        let (euid, egid) = (types.field("cred", "euid")?, types.field("cred", "egid")?);
        let nr_threads = types.field("signal_struct", "nr_threads")?;
        let thread_head = types.field("signal_struct", "thread_head")?;
        let pgd = types.field("mm_struct", "pgd")?;
        let read =
            [state, exit_state, flags, pid, tgid, comm, tasks, thread_node, real_parent, mm, fs, real_cred, signal];
        Ok(Self {
            span: Span::of("task_struct", read.into_iter().chain([start_time]).chain(kthread))?,
            state,
            exit_state,
            flags,
            pid,
            tgid,
            comm,
            tasks,
            thread_node,
            real_parent,
            mm,
            fs,
            real_cred,
            signal,
            start_time,
            kthread,
            parent: Span::of("task_struct", [tgid])?,
            cred: Span::of("cred", [euid, egid])?,
            euid,
            egid,
            group: Span::of("signal_struct", [nr_threads])?,
            nr_threads,
            thread_head,
            mm_root: Span::of("mm_struct", [pgd])?,
            pgd,
            worker: WorkerLayout::new(types),
        })
    }
}

/// One task, as its own structure describes it.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    address: VirtAddr,
    pid: u32,
    pub(crate) tgid: u32,
    state: ProcessState,
    /// The name that the task carries, at most 15 bytes.
    comm: String,
    kernel_thread: bool,
    worker: bool,
    kthread: VirtAddr,
    start_time: Duration,
    pub(crate) fs: VirtAddr,
    mm: VirtAddr,
    real_parent: VirtAddr,
    real_cred: VirtAddr,
    signal: VirtAddr,
}

impl Task {
    /// Reads the task at `address`.
    pub(crate) fn read(view: &dyn MemoryView, layout: &TaskLayout, address: VirtAddr) -> Result<Self> {
        Self::parse(layout, &Record::read(view, address, layout.span)?)
    }

    fn parse(layout: &TaskLayout, record: &Record) -> Result<Self> {
        let pid = record.u32(layout.pid)?;
        let tgid = record.u32(layout.tgid)?;
        for (what, id) in [("a process id", pid), ("a thread group id", tgid)] {
            if id > PID_LIMIT {
                return Err(Error::Corrupt {
                    what: "task_struct",
                    address: record.address().into(),
                    expected: what.into(),
                    found: format!("{id:#x}").into(),
                });
            }
        }
        let flags = record.u32(layout.flags)?;
        let kthread = match layout.kthread {
            Some(field) if flags & PF_KTHREAD != 0 => record.pointer(field)?,
            _ => VirtAddr::new(0),
        };
        Ok(Self {
            address: record.address(),
            pid,
            tgid,
            state: state(record.number(layout.state)?, record.number(layout.exit_state)?),
            comm: record.text(layout.comm)?,
            kernel_thread: flags & PF_KTHREAD != 0,
            worker: flags & PF_WQ_WORKER != 0,
            kthread,
            start_time: Duration::from_nanos(record.number(layout.start_time)?),
            fs: record.pointer(layout.fs)?,
            mm: record.pointer(layout.mm)?,
            real_parent: record.pointer(layout.real_parent)?,
            real_cred: record.pointer(layout.real_cred)?,
            signal: record.pointer(layout.signal)?,
        })
    }

    fn own_name(&self) -> OwnName<'_> {
        OwnName { comm: &self.comm, kthread: self.kthread, worker: self.worker }
    }

    /// The `mm_struct` of its address space. A thread of the kernel has none of its own, even while it borrows one; a process that has
    /// ended has given its own back.
    pub(crate) fn mm(&self) -> Option<VirtAddr> {
        (!self.kernel_thread && !self.mm.is_null()).then_some(self.mm)
    }
}

/// The state that /proc shows (`task_state_index`, include/linux/sched.h; the numbers are those of Linux 4.14 and later).
fn state(state: u64, exit_state: u64) -> ProcessState {
    const UNINTERRUPTIBLE: u64 = 0x2;
    const NOLOAD: u64 = 0x400;
    /// Waiting for a sleeping lock of a real-time kernel (5.16), or frozen (6.1): shown as what they were before.
    const RTLOCK_WAIT: u64 = 0x1000;
    const FROZEN: u64 = 0x8000;
    const IDLE: u64 = UNINTERRUPTIBLE | NOLOAD;
    const SHOWN: u64 = 0x7f;

    if state & (RTLOCK_WAIT | FROZEN) != 0 {
        return ProcessState::DiskSleep;
    }
    if state & IDLE == IDLE {
        return ProcessState::Idle;
    }
    match ((state | exit_state) & SHOWN).checked_ilog2() {
        None => ProcessState::Running,
        Some(0) => ProcessState::Sleeping,
        Some(1) => ProcessState::DiskSleep,
        Some(2) => ProcessState::Stopped,
        Some(3) => ProcessState::Traced,
        Some(4) => ProcessState::Dead,
        Some(5) => ProcessState::Zombie,
        Some(_) => ProcessState::Parked,
    }
}

/// Turns the address of a process' top page table into the value of its root register.
pub(crate) type RootOf<'a> = &'a dyn Fn(VirtAddr) -> Result<u64>;

/// The processes, in the order of the kernel's list. The idle task that heads the list is none.
pub(crate) fn processes(
    view: &dyn MemoryView,
    layout: &TaskLayout,
    init_task: VirtAddr,
    root_of: RootOf<'_>,
) -> Listing<ProcessInfo> {
    let list = List {
        what: "process list",
        head: init_task.wrapping_add(layout.tasks.offset),
        node: layout.tasks,
        span: layout.span,
        limit: PID_LIMIT.into(),
    };
    let mut problems = Vec::new();
    let found = list::collect(view, list, |record| {
        let task = Task::parse(layout, record)?;
        if task.pid != task.tgid || task.pid == 0 {
            return Err(Error::Corrupt {
                what: "process list",
                address: task.address.into(),
                expected: "the first thread of a process".into(),
                found: format!("thread {} of process {}", task.pid, task.tgid).into(),
            });
        }
        Ok(task)
    });
    problems.extend(found.problems);
    let items = describe(view, layout, &found.items, root_of, &mut problems);
    Listing { items, problems }
}

/// Adds what each task points to: its parent, credentials, thread count, page tables and full name.
pub(crate) fn describe(
    view: &dyn MemoryView,
    layout: &TaskLayout,
    tasks: &[Task],
    root_of: RootOf<'_>,
    problems: &mut Vec<Error>,
) -> Vec<ProcessInfo> {
    let parents = read_each(view, tasks.iter().map(|task| (task.real_parent, layout.parent)));
    let creds = read_each(view, tasks.iter().map(|task| (task.real_cred, layout.cred)));
    let groups = read_each(view, tasks.iter().map(|task| (task.signal, layout.group)));
    let mut roots = read_each(view, tasks.iter().filter_map(Task::mm).map(|mm| (mm, layout.mm_root))).into_iter();
    let names = worker::names(view, layout.worker.as_ref(), &tasks.iter().map(Task::own_name).collect::<Vec<_>>());
    let mut items = Vec::with_capacity(tasks.len());
    for ((((task, parent), cred), group), name) in tasks.iter().zip(parents).zip(creds).zip(groups).zip(names) {
        let mut note = |error: Error| problems.push(error.context(format!("process {} ({})", task.pid, task.comm)));
        let name = name.unwrap_or_else(|error| {
            note(error.context("full name"));
            task.comm.clone()
        });
        let mut info = ProcessInfo::new(task.address, task.pid, name);
        match parent.and_then(|parent| parent.u32(layout.tgid)) {
            Ok(tgid) => info.parent_pid = tgid,
            Err(error) => note(error.context("parent")),
        }
        match cred.and_then(|cred| Ok((cred.u32(layout.euid)?, cred.u32(layout.egid)?))) {
            Ok((uid, gid)) => (info.uid, info.gid) = (Some(uid), Some(gid)),
            Err(error) => note(error.context("credentials")),
        }
        match group.and_then(|group| group.u32(layout.nr_threads)) {
            Ok(threads) => info.threads = threads,
            Err(error) => note(error.context("number of threads")),
        }
        if task.mm().is_some() {
            let root = roots
                .next()
                .transpose()
                .and_then(|mm| mm.map(|mm| mm.pointer(layout.pgd).and_then(root_of)).transpose());
            match root {
                Ok(root) => info.root = root,
                Err(error) => note(error.context("page tables")),
            }
        }
        info.state = task.state;
        info.kernel_thread = task.kernel_thread;
        info.start_time = task.start_time;
        items.push(info);
    }
    items
}

/// The threads of the process that `task` belongs to, first thread first.
///
/// # Errors
/// When the kernel's record of the process cannot be read.
pub(crate) fn threads(view: &dyn MemoryView, layout: &TaskLayout, task: &Task) -> Result<Listing<ThreadInfo>> {
    if task.signal.is_null() {
        return Err(Error::Corrupt {
            what: "task_struct",
            address: task.address.into(),
            expected: "a pointer to its signal_struct".into(),
            found: "null".into(),
        })
        .context(|| format!("threads of process {}", task.tgid).into());
    }
    let list = List {
        what: "thread list",
        head: task.signal.wrapping_add(layout.thread_head.offset),
        node: layout.thread_node,
        span: layout.span,
        limit: PID_LIMIT.into(),
    };
    let found = list::collect(view, list, |record| {
        let thread = Task::parse(layout, record)?;
        if thread.tgid != task.tgid {
            return Err(Error::Corrupt {
                what: "thread list",
                address: thread.address.into(),
                expected: format!("a thread of process {}", task.tgid).into(),
                found: format!("thread {} of process {}", thread.pid, thread.tgid).into(),
            });
        }
        Ok(thread)
    });
    let mut listing = Listing { items: Vec::new(), problems: found.problems };
    let names =
        worker::names(view, layout.worker.as_ref(), &found.items.iter().map(Task::own_name).collect::<Vec<_>>());
    for (thread, name) in found.items.into_iter().zip(names) {
        let name = name.unwrap_or_else(|error| {
            listing.problems.push(error.context(format!("full name of thread {}", thread.pid)));
            thread.comm
        });
        listing.items.push(ThreadInfo::new(thread.address, thread.pid, thread.tgid, name, thread.state));
    }
    Ok(listing)
}

#[cfg(test)]
mod tests;

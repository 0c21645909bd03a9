//! Full names of the kernel's threads.
//!
//! Owns: the two cases where /proc shows more than the 15 bytes of `comm`: a thread whose name did not fit, and a worker of a
//! workqueue, which also says what it works on.
//! Must not know: lists of tasks. Keeps: a few batches for all tasks, however many there are.
//! Source: fs/proc/array.c (proc_task_name), kernel/kthread.c, kernel/workqueue.c (wq_worker_comm), kernel/workqueue_internal.h.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    error::{Error, Result},
};

use crate::{
    record::{Record, Span, read_each, text},
    types::{Field, Types},
};

/// /proc shows at most this many bytes of a kernel thread's name (the buffer of `proc_task_name`, without its last byte).
const MAX_NAME: usize = 63;

/// Where the fields lie that make up the name of a kernel thread.
#[derive(Clone, Debug)]
pub(crate) struct WorkerLayout {
    kthread: Span,
    data: Field,
    full_name: Option<Field>,
    worker: Span,
    pool: Field,
    desc: Field,
    current_work: Field,
    rescue: Option<Rescue>,
}

/// Since Linux 6.8 (b6a46f7263bd) a rescuer is called after its workqueue with a prefix, since 6.10 (2a1b02bcba78) in full.
#[derive(Clone, Debug)]
struct Rescue {
    rescue_wq: Field,
    queue: Span,
    name: Field,
}

impl WorkerLayout {
    /// The layout of this kernel; `None` when its type information does not describe its threads, which then go by `comm`.
    pub(crate) fn new(types: &Types) -> Option<Self> {
        let data = types.find_field("kthread", "data")?;
        // Linux 5.17 (d6986ce24fc0).
        let full_name = types.find_field("kthread", "full_name");
        let pool = types.find_field("worker", "pool")?;
        let desc = types.find_field("worker", "desc")?;
        let current_work = types.find_field("worker", "current_work")?;
        let rescue = types.find_field("worker", "rescue_wq").zip(types.find_field("workqueue_struct", "name"));
        let rescue = rescue.and_then(|(rescue_wq, name)| {
            Some(Rescue { rescue_wq, queue: Span::of("workqueue_struct", [name]).ok()?, name })
        });
        let fields = [pool, desc, current_work].into_iter().chain(rescue.as_ref().map(|rescue| rescue.rescue_wq));
        Some(Self {
            kthread: Span::of("kthread", [data].into_iter().chain(full_name)).ok()?,
            data,
            full_name,
            worker: Span::of("worker", fields).ok()?,
            pool,
            desc,
            current_work,
            rescue,
        })
    }
}

/// What a task itself says of its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnName<'a> {
    /// The name that the task carries.
    pub(crate) comm: &'a str,
    /// Its `struct kthread`; null for tasks of users.
    pub(crate) kthread: VirtAddr,
    /// True when it works for a workqueue.
    pub(crate) worker: bool,
}

/// The name that /proc shows for each task.
pub(crate) fn names(
    view: &dyn MemoryView,
    layout: Option<&WorkerLayout>,
    tasks: &[OwnName<'_>],
) -> Vec<Result<String>> {
    let mut names: Vec<Result<String>> = tasks.iter().map(|task| Ok(task.comm.to_owned())).collect();
    let Some(layout) = layout else { return names };
    let threads: Vec<usize> =
        tasks.iter().enumerate().filter(|(_, task)| !task.kthread.is_null()).map(|(index, _)| index).collect();
    let chosen = || threads.iter().filter_map(|index| tasks.get(*index));
    let kthreads = read_each(view, chosen().map(|task| (task.kthread, layout.kthread)));
    let mut workers = Vec::new();
    for (index, kthread) in threads.iter().copied().zip(kthreads) {
        let (Some(task), Some(name)) = (tasks.get(index), names.get_mut(index)) else { continue };
        let long = kthread.and_then(|kthread| {
            if task.worker {
                workers.push((index, kthread.pointer(layout.data)?));
                return Ok(None);
            }
            full_name(view, layout, &kthread)
        });
        match long {
            Ok(Some(long)) => *name = Ok(long),
            Ok(None) => {}
            Err(error) => *name = Err(error),
        }
    }
    let records = read_each(view, workers.iter().map(|(_, worker)| (*worker, layout.worker)));
    for ((index, _), worker) in workers.into_iter().zip(records) {
        if let (Some(task), Some(name)) = (tasks.get(index), names.get_mut(index)) {
            *name = worker.and_then(|worker| worker_name(view, layout, task, &worker));
        }
    }
    names
}

/// The name of a thread of the kernel that does not fit its `comm`; `None` when it fits.
fn full_name(view: &dyn MemoryView, layout: &WorkerLayout, kthread: &Record) -> Result<Option<String>> {
    let Some(field) = layout.full_name else { return Ok(None) };
    let at = kthread.pointer(field)?;
    if at.is_null() {
        return Ok(None);
    }
    view.read_c_string(at, MAX_NAME).map(|name| Some(text(&name)))
}

/// The name of a worker: who it is, and, once it has worked, on what; `+` while it does, `-` afterwards.
fn worker_name(view: &dyn MemoryView, layout: &WorkerLayout, task: &OwnName<'_>, worker: &Record) -> Result<String> {
    let mut name = match &layout.rescue {
        Some(rescue) => rescuer_name(view, rescue, task, worker)?.unwrap_or_else(|| task.comm.to_owned()),
        None => task.comm.to_owned(),
    };
    let work = worker.text(layout.desc)?;
    if worker.pointer(layout.pool)? != VirtAddr::new(0) && !work.is_empty() {
        name.push(if worker.pointer(layout.current_work)?.is_null() { '-' } else { '+' });
        name.push_str(&work);
    }
    if name.len() > MAX_NAME {
        let end = (0..=MAX_NAME).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
        name.truncate(end);
    }
    Ok(name)
}

/// The full name of a rescuer that carries the prefix and was cut by `comm`.
fn rescuer_name(view: &dyn MemoryView, rescue: &Rescue, task: &OwnName<'_>, worker: &Record) -> Result<Option<String>> {
    const PREFIX: &str = "kworker/R-";

    let queue = worker.pointer(rescue.rescue_wq)?;
    if queue.is_null() || !task.comm.starts_with(PREFIX) {
        return Ok(None);
    }
    let name = format!("{PREFIX}{}", Record::read(view, queue, rescue.queue)?.text(rescue.name)?);
    if !name.starts_with(task.comm) {
        return Err(Error::Corrupt {
            what: "worker",
            address: worker.address().into(),
            expected: format!("a rescuer called {}", task.comm).into(),
            found: name.into(),
        });
    }
    Ok(Some(name))
}

#[cfg(test)]
mod tests;

//! An opened process.
//!
//! Owns: [`LinuxProcess`]: a process is the view of its address space and adds what the kernel's records say of it.
//! Must not know: page sizes, how a record is read.

use std::{fmt, sync::Arc};

use memflow_core::{
    MemoryView,
    error::{Error, Result, ResultExt},
    memory::{PhysicalMemory, ViewRead, ViewWrite},
    os::{Listing, MemoryRegion, Process, ProcessInfo, ThreadInfo},
    paging::AddressSpace,
    view::{SpaceView, ViewMetadata},
};

use crate::{
    mm::{self, Mm},
    os::System,
    task::{self, Task},
    vfs::{Place, Vfs},
};

/// A process of a Linux system.
///
/// Its memory is that of its own page tables. A thread of the kernel, and a process that has ended, have no address space of
/// their own: they are read through the kernel's.
pub struct LinuxProcess {
    system: Arc<System>,
    info: ProcessInfo,
    own: Option<SpaceView>,
}

impl fmt::Debug for LinuxProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinuxProcess").field("info", &self.info).finish_non_exhaustive()
    }
}

impl LinuxProcess {
    /// Opens the process as it is now.
    pub(crate) fn open(system: Arc<System>, process: &ProcessInfo) -> Result<Self> {
        let kernel = &system.kernel;
        let task = read_task(&system, process)?;
        let has_space = task.mm().is_some();
        let mut problems = Vec::new();
        let info =
            task::describe(&kernel.view, &system.tasks, &[task], &|pgd| system.root_of(pgd), &mut problems).pop();
        let info = info.ok_or_else(|| gone(process))?;
        if has_space && info.root.is_none() {
            // The root is looked for last.
            return Err(problems.pop().unwrap_or_else(|| gone(process)));
        }
        let own = info.root.map(|root| SpaceView::new(kernel.memory.clone(), kernel.space_of_root(root)));
        Ok(Self { system, info, own })
    }

    /// The view of its own memory, or the kernel's.
    fn view(&self) -> &SpaceView {
        self.own.as_ref().unwrap_or(&self.system.kernel.view)
    }

    fn task(&self) -> Result<Task> {
        read_task(&self.system, &self.info)
    }

    /// The record of its address space, if it has one.
    fn mm(&self) -> Result<Option<(Task, Mm)>> {
        let task = self.task()?;
        let Some(address) = task.mm() else { return Ok(None) };
        let mm = Mm::read(&self.system.kernel.view, self.system.mm_layout()?, address)?;
        Ok(Some((task, mm)))
    }

    /// Files as this process sees them: a walker, and its root directory.
    fn files(&self, task: &Task) -> Result<(Vfs<'_>, Option<Place>)> {
        let vfs = self.system.vfs()?;
        let root =
            if task.fs.is_null() { None } else { Some(vfs.root_of(task.fs).context(|| "root directory".into())?) };
        Ok((vfs, root))
    }

    fn named<T>(&self, what: &'static str, result: Result<T>) -> Result<T> {
        result.context(|| format!("process {} ({}): {what}", self.info.pid, self.info.name).into())
    }
}

/// The task that was listed, if it is still the same process.
fn read_task(system: &System, process: &ProcessInfo) -> Result<Task> {
    match Task::read(&system.kernel.view, &system.tasks, process.address) {
        Ok(task) if task.tgid == process.pid => Ok(task),
        Ok(_) => Err(gone(process)),
        Err(error) => Err(error.context(format!("process {} ({})", process.pid, process.name))),
    }
}

fn gone(process: &ProcessInfo) -> Error {
    Error::NotFound { what: "process with pid", name: process.pid.to_string() }
}

impl MemoryView for LinuxProcess {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        self.view().read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        self.view().write_batch(ops)
    }

    fn metadata(&self) -> ViewMetadata {
        self.view().metadata()
    }
}

impl Process for LinuxProcess {
    fn info(&self) -> &ProcessInfo {
        &self.info
    }

    fn address_space(&self) -> Option<&AddressSpace> {
        self.own.as_ref().map(SpaceView::space)
    }

    fn space_view(&self) -> Option<&SpaceView> {
        Some(self.view())
    }

    fn physical_memory(&self) -> &dyn PhysicalMemory {
        &*self.system.kernel.memory
    }

    fn executable(&self) -> Result<Option<String>> {
        let path = || {
            let Some((task, mm)) = self.mm()? else { return Ok(None) };
            if mm.exe_file.is_null() {
                return Ok(None);
            }
            let (mut vfs, root) = self.files(&task)?;
            let place = vfs.place(mm.exe_file)?;
            vfs.path(place, root).map(Some)
        };
        self.named("executable", path())
    }

    fn command_line(&self) -> Result<Vec<String>> {
        let strings = || self.mm()?.map_or(Ok(Vec::new()), |(_, mm)| mm::command_line(self.view(), &mm));
        self.named("command line", strings())
    }

    fn environment(&self) -> Result<Vec<String>> {
        let strings = || self.mm()?.map_or(Ok(Vec::new()), |(_, mm)| mm::environment(self.view(), &mm));
        self.named("environment", strings())
    }

    fn memory_map(&self) -> Result<Listing<MemoryRegion>> {
        let map = || {
            let Some((task, mm)) = self.mm()? else { return Ok(Listing::new()) };
            let (mut vfs, root) = self.files(&task)?;
            let (layout, names) = (self.system.mm_layout()?, self.system.name_sources()?);
            Ok(mm::memory_map(&self.system.kernel.view, layout, names, &mut vfs, &mm, root))
        };
        self.named("memory map", self.system.settled(map))
    }

    fn threads(&self) -> Result<Listing<ThreadInfo>> {
        let threads = || task::threads(&self.system.kernel.view, &self.system.tasks, &self.task()?);
        self.named("threads", self.system.settled(threads))
    }
}

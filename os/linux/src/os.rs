//! The OS layer's front: a found kernel with its processes, modules, symbols and log.
//!
//! Owns: [`LinuxOs`], which hands each question to the module that answers it, and the layouts those modules need, each derived once.
//! Must not know: how anything is read.

use std::sync::{Arc, OnceLock};

use memflow_core::{
    MemoryView, VirtAddr,
    error::{Error, Result, ResultExt},
    memory::PhysicalMemory,
    os::{KernelInfo, Listing, Process, ProcessInfo},
    paging::AddressSpace,
};

use crate::{
    kernel::{Kernel, LinuxOptions},
    task::{self, Task, TaskLayout},
};

/// A recognised Linux.
#[derive(Debug)]
pub struct LinuxOs {
    system: Arc<System>,
}

/// What the OS and the processes that were opened from it share.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) kernel: Kernel,
    pub(crate) tasks: TaskLayout,
    pub(crate) init_task: VirtAddr,
}

impl LinuxOs {
    /// Finds the Linux kernel in `memory` and derives from its own type information where its processes lie.
    ///
    /// # Errors
    /// As [`Kernel::open`]; [`Error::NotFound`] when the kernel does not describe a structure that every listing needs.
    pub fn open(memory: Arc<dyn PhysicalMemory>, options: &LinuxOptions) -> Result<Self> {
        let kernel = Kernel::open(memory, options)?;
        let tasks = TaskLayout::new(&kernel.types).context(|| "layout of a task".into())?;
        let init_task = kernel.symbols.require("init_task")?;
        Ok(Self { system: Arc::new(System { kernel, tasks, init_task }) })
    }

    pub fn processes(&self) -> Result<Listing<ProcessInfo>> {
        let System { kernel, tasks, init_task } = &*self.system;
        Ok(task::processes(&kernel.view, tasks, *init_task, &|pgd| Ok(kernel.space_of_pgd(pgd)?.root().as_u64())))
    }
}

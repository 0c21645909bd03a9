//! Which address space a command works in: a process', the kernel's, or physical memory.
//!
//! Owns: the options `--pid` and `--phys` and what they open. Must not know: what is done there.

use clap::Args;
use memflow_core::{
    MemoryView,
    os::{Os, Process},
    view::PhysicalView,
};

use crate::{failure::Outcome, output::Io, target::Target};

/// The options that choose a space; the kernel's is the default.
#[derive(Args, Clone, Debug)]
pub(super) struct SpaceArgs {
    /// In the memory of this process
    #[arg(short, long, value_name = "PID", conflicts_with = "phys")]
    pub(super) pid: Option<u32>,
    /// In physical memory; no operating system is needed
    #[arg(long)]
    pub(super) phys: bool,
}

/// An opened space.
pub(super) enum Space {
    /// A process.
    Process(Box<dyn Os>, Box<dyn Process>),
    /// The kernel.
    Kernel(Box<dyn Os>),
    /// The machine's physical memory.
    Physical(PhysicalView),
}

impl Space {
    /// Opens the chosen space.
    pub(super) fn open(args: &SpaceArgs, target: &mut Target, io: &mut Io<'_>) -> Outcome<Self> {
        if args.phys {
            target.settle(io)?;
            return Ok(Self::Physical(PhysicalView::new(target.memory().clone())));
        }
        let os = target.os(io)?;
        match args.pid {
            None => Ok(Self::Kernel(os)),
            Some(pid) => {
                let process = os.open_pid(pid)?;
                Ok(Self::Process(os, process))
            }
        }
    }

    /// Its memory.
    pub(super) fn view(&self) -> &dyn MemoryView {
        match self {
            Self::Process(_, process) => process,
            Self::Kernel(os) => os.kernel_view(),
            Self::Physical(view) => view,
        }
    }

    /// The operating system, unless the space is physical memory.
    pub(super) fn os(&self) -> Option<&dyn Os> {
        match self {
            Self::Process(os, _) | Self::Kernel(os) => Some(&**os),
            Self::Physical(_) => None,
        }
    }
}

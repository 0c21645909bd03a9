//! TARGET: from its name to physical memory and the operating system in it.
//!
//! Owns: the built-in demo, the choice between the layouts of a raw image, and the words for what was opened.
//! Must not know: commands. Keeps: a layout is kept because a kernel was found in it, and what was chosen is said.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use memflow_core::{Error, PhysicalMemory, os::Os};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_snapshot::{MemoryLayout, OpenOptions, Snapshot};

use crate::{
    failure::{Failure, Outcome},
    output::Io,
    progress,
};

/// The name of the built-in target.
const DEMO: &str = "demo";
/// A small Linux guest; `demo/` says how it was made and what it holds.
static DEMO_IMAGE: &[u8] = include_bytes!("../demo/demo.elf.zst");

/// The target on the command line.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct TargetArgs {
    /// `demo`, or a file with a machine's memory
    target: PathBuf,
    /// Which addresses a raw image holds: auto, flat, q35, i440fx, or runs FIRST-LAST@OFFSET,…
    #[arg(long, value_name = "LAYOUT", default_value = "auto", hide_default_value = true)]
    layout: MemoryLayout,
    /// Open what is there of a file that was cut short
    #[arg(long)]
    partial: bool,
}

/// An opened target.
#[derive(Debug)]
pub(crate) struct Target {
    args: TargetArgs,
    snapshot: Snapshot,
    notes: Vec<String>,
}

impl Target {
    /// Opens the physical memory.
    pub(crate) fn open(args: &TargetArgs, io: &mut Io<'_>) -> Outcome<Self> {
        let snapshot = open(args, &args.layout, io).map_err(Failure::Target)?;
        let notes = snapshot.notes.clone();
        for note in &notes {
            io.note(note);
        }
        Ok(Self { args: args.clone(), snapshot, notes })
    }

    /// The name it was given on the command line.
    pub(crate) fn name(&self) -> String {
        self.args.target.display().to_string()
    }

    /// The file, unless the target is built in.
    pub(crate) fn path(&self) -> Option<&Path> {
        (self.args.target.as_os_str() != DEMO).then_some(self.args.target.as_path())
    }

    /// What kind of file it is.
    pub(crate) fn format(&self) -> String {
        self.snapshot.format.to_string()
    }

    /// What a person should know about it.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Its physical memory.
    pub(crate) fn memory(&self) -> &Arc<dyn PhysicalMemory> {
        &self.snapshot.memory
    }

    /// Finds the operating system, and with it which layout a raw image has if there are several: the first in which the whole
    /// process list can be read, else the first in which there is a kernel.
    pub(crate) fn os(&mut self, io: &mut Io<'_>) -> Outcome<Box<dyn Os>> {
        let first = recognise(self.memory(), io);
        let alternatives = std::mem::take(&mut self.snapshot.alternatives);
        if alternatives.is_empty() || first.as_deref().is_ok_and(lists_every_process) {
            return first.map_err(Failure::Target);
        }
        let mut second_best = None;
        for layout in &alternatives {
            let snapshot = open(&self.args, layout, io).map_err(Failure::Target)?;
            match recognise(&snapshot.memory, io) {
                Ok(os) if lists_every_process(&*os) => return Ok(self.take(layout, snapshot, os, io)),
                Ok(os) => second_best = second_best.or(Some((layout, snapshot, os))),
                Err(error) => log::debug!("layout {layout}: {error}"),
            }
        }
        match (first, second_best) {
            (Ok(os), _) => Ok(os),
            (Err(_), Some((layout, snapshot, os))) => Ok(self.take(layout, snapshot, os, io)),
            (Err(error), None) => {
                let names: Vec<String> = alternatives.iter().map(ToString::to_string).collect();
                let tried = format!("{} (nor in layout {})", self.name(), names.join(" or "));
                Err(Failure::Target(error.context(tried)))
            }
        }
    }

    /// Makes a layout the target's own.
    fn take(&mut self, layout: &MemoryLayout, snapshot: Snapshot, os: Box<dyn Os>, io: &mut Io<'_>) -> Box<dyn Os> {
        let note = format!("the memory layout is {layout}: the kernel was found in it");
        io.note(&note);
        self.notes.clone_from(&snapshot.notes);
        self.notes.push(note);
        self.snapshot = snapshot;
        os
    }

    /// Decides between the layouts of a raw image, for commands that need no operating system.
    pub(crate) fn settle(&mut self, io: &mut Io<'_>) -> Outcome<()> {
        if self.snapshot.alternatives.is_empty() {
            return Ok(());
        }
        match self.os(io) {
            Err(Failure::Target(_)) => {
                io.warn("no kernel tells which addresses this raw image holds; name its --layout if this is wrong");
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

/// Opens the memory in a layout.
fn open(args: &TargetArgs, layout: &MemoryLayout, io: &Io<'_>) -> Result<Snapshot, Error> {
    progress::measure(io.quiet(), "opening the target", |meter| {
        let on_progress = |progress: memflow_snapshot::Progress| {
            meter.set(progress.read, progress.total);
            ControlFlow::Continue(())
        };
        let options = OpenOptions {
            layout: layout.clone(),
            partial: args.partial,
            on_progress: Some(&on_progress),
            ..OpenOptions::default()
        };
        if args.target.as_os_str() == DEMO {
            memflow_snapshot::open_bytes(DEMO, DEMO_IMAGE, &options)
        } else {
            memflow_snapshot::open(&args.target, &options)
        }
    })
}

/// Looks for an operating system.
fn recognise(memory: &Arc<dyn PhysicalMemory>, io: &Io<'_>) -> Result<Box<dyn Os>, Error> {
    let found = progress::measure(io.quiet(), "looking for the kernel", |meter| {
        let progress = |_: &'static str, done, total| {
            meter.set(done, total);
            ControlFlow::Continue(())
        };
        let mut options = LinuxOptions::default();
        options.progress = Some(&progress);
        LinuxOs::open(memory.clone(), &options)
    });
    found.map(|os| Box::new(os) as Box<dyn Os>)
}

/// True when the kernel's process list can be read to its end, which it cannot where memory lies at other addresses than assumed.
fn lists_every_process(os: &dyn Os) -> bool {
    os.processes().is_ok_and(|list| list.is_complete() && !list.items.is_empty())
}

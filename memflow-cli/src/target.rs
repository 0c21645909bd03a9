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
use memflow_core::{
    Error, PhysicalMemory,
    os::Os,
    plugin::{
        ConnectOptions, Connection, Inventory,
        args::{self, ConnectorSpec, OsSpec},
        descriptor::PluginKind,
    },
};
use memflow_snapshot::MemoryLayout;

use crate::{
    cache,
    failure::{Failure, Outcome},
    output::Io,
    plugins::{self, PluginArgs},
    progress,
};

/// The name of the built-in target.
const DEMO: &str = "demo";
/// A small Linux guest; `demo/` says how it was made and what it holds.
static DEMO_IMAGE: &[u8] = include_bytes!("../demo/demo.elf.zst");

/// The connector for files.
const FILES: &str = "snapshot";

/// The target on the command line.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct TargetArgs {
    /// `demo`, a file with a machine's memory, or CONNECTOR:TARGET:KEY=VALUE,…
    target: PathBuf,
    /// Which addresses a raw image holds: auto, flat, q35, i440fx, or runs FIRST-LAST@OFFSET,…
    #[arg(long, value_name = "LAYOUT", default_value = "auto", hide_default_value = true)]
    layout: MemoryLayout,
    /// Open what is there of a file that was cut short
    #[arg(long)]
    partial: bool,
    /// The OS layer that looks for the operating system: NAME:KEY=VALUE,…
    #[arg(long, value_name = "OS", default_value = "linux", hide_default_value = true)]
    os: String,
    /// Neither use nor keep what was learnt of a kernel's build in earlier runs
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    plugins: PluginArgs,
}

/// An opened target.
#[derive(Debug)]
pub(crate) struct Target {
    args: TargetArgs,
    inventory: Inventory,
    spec: ConnectorSpec,
    connection: Connection,
    notes: Vec<String>,
}

impl Target {
    /// Opens the physical memory.
    pub(crate) fn open(args: &TargetArgs, io: &mut Io<'_>) -> Outcome<Self> {
        let inventory = plugins::inventory(&args.plugins).map_err(Failure::Target)?;
        let spec = connector(args, &inventory)?;
        let connection = open(&inventory, &spec, io).map_err(Failure::Target)?;
        let notes = connection.notes.clone();
        for note in &notes {
            io.note(note);
        }
        Ok(Self { args: args.clone(), inventory, spec, connection, notes })
    }

    /// The name it was given on the command line.
    pub(crate) fn name(&self) -> String {
        self.args.target.display().to_string()
    }

    /// The file, unless the target is none.
    pub(crate) fn path(&self) -> Option<&Path> {
        let file = self.spec.name() == FILES && !is_demo(&self.spec);
        self.spec.target().filter(|_| file).map(Path::new)
    }

    /// What kind of target it is.
    pub(crate) fn format(&self) -> String {
        match &*self.connection.format {
            "" => self.spec.name().to_owned(),
            format => format.to_owned(),
        }
    }

    /// What a person should know about it.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Its physical memory.
    pub(crate) fn memory(&self) -> &Arc<dyn PhysicalMemory> {
        &self.connection.memory
    }

    /// Finds the operating system, and with it which layout a raw image has if there are several: the first in which the whole
    /// process list can be read, else the first in which there is a kernel.
    pub(crate) fn os(&mut self, io: &mut Io<'_>) -> Outcome<Arc<dyn Os>> {
        let os: OsSpec = self.args.os.parse().map_err(|error: Error| Failure::Usage(error.to_string()))?;
        let os = if self.args.no_cache { os } else { cache::told(&self.inventory, os) };
        let first = recognise(&self.inventory, &os, self.memory(), io);
        let alternatives = std::mem::take(&mut self.connection.alternatives);
        if alternatives.is_empty() || first.as_deref().is_ok_and(lists_every_process) {
            return first.map_err(Failure::Target);
        }
        let mut second_best = None;
        for arguments in &alternatives {
            let spec = self.spec.clone().with_args(arguments.clone());
            let connection = open(&self.inventory, &spec, io).map_err(Failure::Target)?;
            match recognise(&self.inventory, &os, &connection.memory, io) {
                Ok(os) if lists_every_process(&*os) => return Ok(self.take(spec, connection, os, io)),
                Ok(os) => second_best = second_best.or(Some((spec, connection, os))),
                Err(error) => log::debug!("{arguments}: {error}"),
            }
        }
        match (first, second_best) {
            (Ok(os), _) => Ok(os),
            (Err(_), Some((spec, connection, os))) => Ok(self.take(spec, connection, os, io)),
            (Err(error), None) => {
                let names: Vec<String> = alternatives.iter().map(layout_of).collect();
                let tried = format!("{} (nor in layout {})", self.name(), names.join(" or "));
                Err(Failure::Target(error.context(tried)))
            }
        }
    }

    /// Makes other arguments the target's own.
    fn take(&mut self, spec: ConnectorSpec, connection: Connection, os: Arc<dyn Os>, io: &mut Io<'_>) -> Arc<dyn Os> {
        let note = format!("the memory layout is {}: the kernel was found in it", layout_of(spec.args()));
        io.note(&note);
        self.notes.clone_from(&connection.notes);
        self.notes.push(note);
        (self.spec, self.connection) = (spec, connection);
        os
    }

    /// Decides between the layouts of a raw image, for commands that need no operating system.
    pub(crate) fn settle(&mut self, io: &mut Io<'_>) -> Outcome<()> {
        if self.connection.alternatives.is_empty() {
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

/// The layout among arguments, or all of them.
fn layout_of(args: &args::Args) -> String {
    match args.text("layout") {
        Ok(Some(layout)) => layout.to_owned(),
        _ => args.to_string(),
    }
}

/// The connector that the command line means: that of its name, or the one for files.
fn connector(args: &TargetArgs, inventory: &Inventory) -> Outcome<ConnectorSpec> {
    let usage = |error: Error| Failure::Usage(error.to_string());
    let Some(text) = args.target.to_str() else {
        let name = args.target.display();
        return Err(Failure::Usage(format!("{name}: the name is no UTF-8; link the file under another name")));
    };
    let name = text.split([':', '@']).next().unwrap_or_default();
    let known = |plugin: &Arc<memflow_core::plugin::Plugin>| {
        let descriptor = plugin.descriptor();
        descriptor.kind == PluginKind::Connector && descriptor.name == name
    };
    let named = name.len() < text.len() && args::is_plugin_name(name);
    // A letter and a colon is a drive.
    let looks_named = named && name.len() > 1 && !args.target.exists();
    if named && inventory.plugins().iter().any(known) || looks_named {
        let spec: ConnectorSpec = text.parse().map_err(usage)?;
        if args.layout != MemoryLayout::Auto || args.partial {
            let problem = "--layout and --partial are for files; a connector takes its arguments behind the target";
            return Err(Failure::Usage(problem.to_owned()));
        }
        return Ok(spec);
    }
    let mut arguments = args::Args::new();
    if args.layout != MemoryLayout::Auto {
        arguments.set("layout", args.layout.to_string());
    }
    if args.partial {
        arguments.set("partial", true);
    }
    Ok(ConnectorSpec::new(FILES).map_err(usage)?.with_target(text).with_args(arguments))
}

/// True for the target that is built in.
fn is_demo(spec: &ConnectorSpec) -> bool {
    spec.name() == FILES && spec.target() == Some(DEMO)
}

/// Opens the memory.
fn open(inventory: &Inventory, spec: &ConnectorSpec, io: &Io<'_>) -> Result<Connection, Error> {
    progress::measure(io.quiet(), "opening the target", |meter| {
        let on_progress = |_: &str, done, total| {
            meter.set(done, total);
            ControlFlow::Continue(())
        };
        let mut options = ConnectOptions::default();
        options.content = is_demo(spec).then_some(DEMO_IMAGE);
        options.progress = &on_progress;
        inventory.connect(spec, &options).map(|opened| opened.connection).map_err(|error| plain(error, spec.name()))
    })
}

/// The error of the connector for files without the name of that connector, which nobody asked for.
fn plain(error: Error, name: &str) -> Error {
    match error {
        Error::Context { what, source } if name == FILES && what == "connector snapshot" => *source,
        error => error,
    }
}

/// Looks for an operating system.
fn recognise(
    inventory: &Inventory,
    spec: &OsSpec,
    memory: &Arc<dyn PhysicalMemory>,
    io: &Io<'_>,
) -> Result<Arc<dyn Os>, Error> {
    progress::measure(io.quiet(), "looking for the kernel", |meter| {
        let on_progress = |_: &str, done, total| {
            meter.set(done, total);
            ControlFlow::Continue(())
        };
        inventory.open_os(spec, memory.clone(), &on_progress)
    })
}

/// True when the kernel's process list can be read to its end, which it cannot where memory lies at other addresses than assumed.
fn lists_every_process(os: &dyn Os) -> bool {
    os.processes().is_ok_and(|list| list.is_complete() && !list.items.is_empty())
}

//! TARGET and what lies inside it: from names on the command line to physical memory and the operating system in it.
//!
//! Owns: the built-in demo, files as targets, and the words for what was opened.
//! Must not know: commands. Keeps: what was chosen is said.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf, is_separator},
    sync::Arc,
};

use clap::Args;
use memflow_core::{
    Error, PhysicalMemory,
    error::ErrorKind,
    memory::Metrics,
    os::Os,
    plugin::{
        ChainError, ConnectorLink, Inventory, Plugin,
        args::{self, ConnectorSpec, OsSpec},
        descriptor::PluginKind,
    },
};
use memflow_snapshot::MemoryLayout;

use crate::{
    cache,
    failure::{Failure, Outcome},
    links::{AS_CONNECTOR, LinkArgs, Rest},
    listed,
    named_file::NamedFile,
    output::Io,
    plugins::{self, PluginArgs},
    progress::{self, Meter},
};

/// The name of the built-in target.
const DEMO: &str = "demo";
/// A small Linux guest; `demo/` says how it was made and what it holds.
static DEMO_IMAGE: &[u8] = include_bytes!("../demo/demo.elf.zst");

/// The OS layer for Windows.
const WINDOWS: &str = "win32";
/// The connector for files.
const FILES: &str = "snapshot";

/// The target on the command line.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct TargetArgs {
    /// `demo`, a file with a machine's memory, CONNECTOR:TARGET:KEY=VALUE,… or a name from `memflow targets`
    target: PathBuf,
    /// Which addresses a raw image holds: auto, flat, q35, i440fx, or runs FIRST-LAST@OFFSET,…
    #[arg(long, value_name = "LAYOUT", default_value = "auto", hide_default_value = true)]
    layout: MemoryLayout,
    /// Open what is there of a file that was cut short
    #[arg(long)]
    partial: bool,
    #[command(flatten)]
    links: LinkArgs,
    /// Neither use nor keep what was learnt of a kernel's build in earlier runs
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    plugins: PluginArgs,
}

impl TargetArgs {
    /// The same for another target.
    pub(crate) fn of(&self, target: &Path) -> Self {
        Self { target: target.to_owned(), ..self.clone() }
    }
}

/// An opened target: the last connector of the chain, and what is said about the chain.
#[derive(Debug)]
pub(crate) struct Target {
    first: First,
    rest: Rest,
    /// The last OS layer, with what it is told beyond its arguments, and those that may take its place.
    systems: Vec<OsSpec>,
    meter: Meter,
    link: ConnectorLink,
}

/// What the chain begins with.
#[derive(Debug)]
struct First {
    /// As it was given.
    name: String,
    spec: ConnectorSpec,
    /// The file, unless it is none.
    path: Option<PathBuf>,
    /// Open, if its name cannot be told to a connector.
    file: Option<NamedFile>,
}

impl Target {
    /// Opens the physical memory.
    pub(crate) fn open(args: &TargetArgs, io: &mut Io<'_>) -> Outcome<Self> {
        let inventory = plugins::inventory(&args.plugins).map_err(Failure::Target)?;
        let first = First::new(args, &inventory, io)?;
        let rest = args.links.rest()?;
        // What the user did not say is in no message.
        let used = if args.no_cache { rest.clone() } else { rest.clone().with_os(|os| cache::told(&inventory, os)) };
        let meter = Meter::default();
        let told = meter.clone();
        let chain = inventory.chain().with_progress(move |_, done, total| {
            told.set(done, total);
            ControlFlow::Continue(())
        });
        let explain = |error| Failure::Target(explained(error, &first, &rest));
        let mut link = opening(&meter, io, || match first.is_demo() {
            true => chain.connector_with_content(first.spec.clone(), DEMO_IMAGE),
            false => chain.connector(first.spec.clone()),
        })
        .map_err(explain)?;
        opened(&link, io);
        for (os, connector) in &used.inner {
            let found = recognising(&meter, io, || link.clone().os(os.clone())).map_err(explain)?;
            settled(found.previous(), &link, io);
            link = opening(&meter, io, || found.connector(connector.clone())).map_err(explain)?;
            opened(&link, io);
        }
        let systems = std::iter::once(used.os).chain(used.others).collect();
        Ok(Self { first, rest, systems, meter, link })
    }

    /// The name it was given on the command line, and the links after it.
    pub(crate) fn name(&self) -> String {
        let inner = self.rest.inner.iter().map(|(os, connector)| format!(" -o {os} -c {connector}"));
        format!("{}{}", self.first.name, inner.collect::<String>())
    }

    /// The file, unless the target is none.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.first.path.as_deref()
    }

    /// True for a file that is opened by itself, and for what is built in.
    pub(crate) fn is_file(&self) -> bool {
        self.rest.inner.is_empty() && self.first.spec.name() == FILES
    }

    /// What kind of target it is.
    pub(crate) fn format(&self) -> String {
        match &*self.link.connection().format {
            "" => self.link.spec().name().to_owned(),
            format => format.to_owned(),
        }
    }

    /// What a person should know about it.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut links: Vec<&ConnectorLink> = connectors(&self.link).collect();
        links.reverse();
        links.iter().flat_map(|link| link.connection().notes.iter().map(|note| said_of(link, note))).collect()
    }

    /// What its connectors count, by name, if that was asked for.
    pub(crate) fn metrics(&self) -> Vec<(String, Arc<Metrics>)> {
        counted(&self.link)
    }

    /// Its physical memory.
    pub(crate) fn memory(&self) -> &Arc<dyn PhysicalMemory> {
        self.link.memory()
    }

    /// The memory of the innermost connector that can say whether its machine runs: pausing that one, all machines inside it stand.
    pub(crate) fn controlled(&self) -> Option<Arc<dyn PhysicalMemory>> {
        connectors(&self.link).map(ConnectorLink::memory).find(|memory| memory.control().is_some()).cloned()
    }

    /// Finds the operating system, and with it which layout a raw image has if there are several.
    pub(crate) fn os(&mut self, io: &mut Io<'_>) -> Outcome<Arc<dyn Os>> {
        let memory = self.link.memory();
        // The header of a dump says which system wrote it, and low memory often tells which one was booted: to find out that all of
        // memory holds no other takes longer.
        if self.systems.len() > 1 && (memory.facts().windows.is_some() || memflow_win32::is_likely(&**memory)) {
            self.systems.sort_by_key(|system| system.name() != WINDOWS);
        }
        let mut refused: Option<ChainError> = None;
        for system in &self.systems {
            match recognising(&self.meter, io, || self.link.clone().os(system.clone())) {
                Ok(found) => {
                    settled(found.previous(), &self.link, io);
                    self.link = found.previous().clone();
                    return Ok(found.os().clone());
                }
                // Another system may be there; what else went wrong is said.
                Err(error) if error.source.kind() == ErrorKind::NotRecognised => {
                    refused = Some(match refused {
                        None => error,
                        Some(mut first) => {
                            let source = std::mem::replace(&mut first.source, Box::new(Error::Cancelled));
                            first.source = Box::new(nor(*source, &error.source));
                            first
                        }
                    });
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        Err(match refused {
            Some(error) => self.failed(error),
            None => Failure::Usage("no OS layer to look with".to_owned()),
        })
    }

    fn failed(&self, error: ChainError) -> Failure {
        Failure::Target(explained(error, &self.first, &self.rest))
    }

    /// Decides between the layouts of a raw image, for commands that need no operating system.
    pub(crate) fn settle(&mut self, io: &mut Io<'_>) -> Outcome<()> {
        if self.link.connection().alternatives.is_empty() {
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

impl First {
    fn new(args: &TargetArgs, inventory: &Inventory, io: &mut Io<'_>) -> Outcome<Self> {
        let lossy = args.target.to_string_lossy();
        let (as_connector, name) = match lossy.strip_prefix(AS_CONNECTOR) {
            Some(name) => (true, name.to_owned()),
            None => (false, lossy.clone().into_owned()),
        };
        let usage = |error: Error| Failure::Usage(error.to_string());
        if let Some(text) = args.target.to_str().filter(|text| as_connector || names_connector(text, inventory)) {
            let spec: ConnectorSpec = text.strip_prefix(AS_CONNECTOR).unwrap_or(text).parse().map_err(usage)?;
            if args.layout != MemoryLayout::Auto || args.partial {
                let problem = "--layout and --partial are for files; a connector takes its arguments behind the target";
                return Err(Failure::Usage(problem.to_owned()));
            }
            let path = (spec.name() == FILES).then(|| spec.target().map(PathBuf::from)).flatten();
            return Ok(Self::of_file(name, spec, path, None));
        }
        if let Some(name) = plain_name(args) {
            let spec = listed::named(name, inventory, io)?;
            return Ok(Self::of_file(name.to_owned(), spec, None, None));
        }
        let mut spec = ConnectorSpec::new(FILES).map_err(usage)?;
        if args.layout != MemoryLayout::Auto {
            spec = spec.with_arg("layout", args.layout.to_string());
        }
        if args.partial {
            spec = spec.with_arg("partial", true);
        }
        let path = Some(args.target.clone());
        match args.target.to_str() {
            Some(target) => Ok(Self::of_file(name, spec.with_target(target), path, None)),
            None => {
                let connector = names_connector(&name, inventory) && !args.target.exists();
                if as_connector || connector {
                    let way_out = "a target string is UTF-8; name the file alone, as TARGET";
                    return Err(Failure::Usage(format!("{name}: {way_out}")));
                }
                let file = NamedFile::open(&args.target).map_err(Failure::Target)?;
                Ok(Self::of_file(name, spec.with_target(file.place()), path, Some(file)))
            }
        }
    }

    fn of_file(name: String, spec: ConnectorSpec, path: Option<PathBuf>, file: Option<NamedFile>) -> Self {
        let demo = spec.target() == Some(DEMO);
        Self { name, path: path.filter(|_| !demo), file, spec }
    }

    /// True for the target that is built in.
    fn is_demo(&self) -> bool {
        self.spec.name() == FILES && self.spec.target() == Some(DEMO)
    }
}

/// The name of something that only connectors can know: it has no separator of folders, no file is called so, and nothing is said of how
/// to read a file.
fn plain_name(args: &TargetArgs) -> Option<&str> {
    let name = args.target.to_str()?;
    let about_files = args.layout != MemoryLayout::Auto || args.partial;
    let absent = || matches!(args.target.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound);
    (name != DEMO && !name.is_empty() && !name.contains(is_separator) && !about_files && absent()).then_some(name)
}

/// True for text that is a connector with a target, and not the path of a file.
fn names_connector(text: &str, inventory: &Inventory) -> bool {
    let name = text.split([':', '@']).next().unwrap_or_default();
    let known = |plugin: &Arc<Plugin>| {
        let descriptor = plugin.descriptor();
        descriptor.kind == PluginKind::Connector && descriptor.name == name
    };
    let named = name.len() < text.len() && args::is_plugin_name(name);
    // A letter and a colon is a drive.
    let looks_named = named && name.len() > 1 && !Path::new(text).exists();
    named && inventory.plugins().iter().any(known) || looks_named
}

/// The error of the first OS layer, with what another one looked for in vain.
fn nor(first: Error, other: &Error) -> Error {
    match (first, other.root_cause()) {
        (Error::Context { what, source }, _) => Error::Context { what, source: Box::new(nor(*source, other)) },
        (Error::NotRecognised { what, looked_for }, Error::NotRecognised { what: system, looked_for: more }) => {
            Error::NotRecognised { what, looked_for: format!("{looked_for}; no {system} either; looked for {more}") }
        }
        (first, _) => first,
    }
}

/// The error of a link. Of a single target, which link it is need not be said, nor the connector for files, which nobody named.
fn explained(error: ChainError, first: &First, rest: &Rest) -> Error {
    let error = if rest.inner.is_empty() {
        let named = format!("{} {}", error.kind, error.name);
        match *error.source {
            Error::Context { what, source } if what == "connector snapshot" => *source,
            source @ Error::Context { .. } => source,
            source if error.kind == PluginKind::Os || error.name == FILES => source,
            source => source.context(named),
        }
    } else {
        error.into()
    };
    match &first.file {
        Some(file) => file.named(error),
        None => error,
    }
}

fn opening<T>(meter: &Meter, io: &Io<'_>, work: impl FnOnce() -> T) -> T {
    progress::measure(io.quiet(), "opening the target", meter, work)
}

fn recognising<T>(meter: &Meter, io: &Io<'_>, work: impl FnOnce() -> T) -> T {
    progress::measure(io.quiet(), "looking for the kernel", meter, work)
}

/// Says what there is to know about a link that was opened, and has its metrics told.
fn opened(link: &ConnectorLink, io: &mut Io<'_>) {
    for note in &link.connection().notes {
        io.note(said_of(link, note));
    }
    io.tell_at_the_end(counted(link));
}

/// Says with which arguments an operating system was found, if not with those that were given.
fn settled(link: &ConnectorLink, before: &ConnectorLink, io: &mut Io<'_>) {
    let notes = &link.connection().notes;
    if let Some(note) = notes.last().filter(|_| link.spec() != before.spec()) {
        io.note(said_of(link, note));
    }
    io.tell_at_the_end(counted(link));
}

/// A note, with the link that it is about unless that is the first.
fn said_of(link: &ConnectorLink, note: &str) -> String {
    match link.number() {
        1 => note.to_owned(),
        number => format!("link {number} (connector {}): {note}", link.spec().name()),
    }
}

/// The connectors of a chain, the last one first.
fn connectors(last: &ConnectorLink) -> impl Iterator<Item = &ConnectorLink> {
    std::iter::successors(Some(last), |link| link.previous().map(|os| os.previous()))
}

/// What the connectors of a chain count, the first one first.
fn counted(last: &ConnectorLink) -> Vec<(String, Arc<Metrics>)> {
    let mut all: Vec<_> = connectors(last)
        .filter_map(|link| link.metrics().map(|metrics| (link.spec().to_string(), metrics.clone())))
        .collect();
    all.reverse();
    all
}

//! What a plugin is made of: a description and one function that opens something.
//!
//! The attributes of `memflow-derive` make these from a function. The same definition is linked into a program
//! ([`Inventory`](super::Inventory) takes it as a built-in) or put behind the C interface of a shared library
//! ([`export`](super::export)).
//!
//! Owns: [`Connector`], [`OsLayer`], what each is asked and what it answers. Must not know: how plugins are found or loaded.

use std::{fmt, ops::ControlFlow, sync::Arc};

use super::args::Args;
use crate::{
    error::{Error, Result},
    memory::PhysicalMemory,
    os::Os,
};

/// Is told how far something is: what is being done, how much of it is done, and how much there is in all (0 when that is not known).
/// [`ControlFlow::Break`] cancels. May be called from several threads.
pub type OnProgress<'a> = &'a (dyn Fn(&str, u64, u64) -> ControlFlow<()> + Sync);

/// Says nothing to anybody.
pub(crate) const SILENT: OnProgress<'static> = &|_, _, _| ControlFlow::Continue(());

/// A connector: something that opens targets and hands out their physical memory.
pub trait Connector: 'static {
    /// What goes into the plugin's descriptor section; see [`descriptor`](super::descriptor).
    const DESCRIPTOR: &'static [u8];
    /// Whether [`targets`](Self::targets) can answer.
    const LISTS_TARGETS: bool = false;

    /// Opens a target.
    ///
    /// The arguments have been checked against the descriptor before: there is none that it does not list, and their values are of the
    /// kinds it says.
    ///
    /// # Errors
    /// Why the target cannot be opened.
    fn open(request: &ConnectorRequest<'_>) -> Result<Connection>;

    /// The targets that could be opened now.
    ///
    /// # Errors
    /// Why they cannot be listed.
    fn targets() -> Result<Vec<TargetInfo>> {
        Ok(Vec::new())
    }
}

/// An OS layer: something that recognises an operating system in physical memory.
pub trait OsLayer: 'static {
    /// What goes into the plugin's descriptor section; see [`descriptor`](super::descriptor).
    const DESCRIPTOR: &'static [u8];

    /// Looks for the operating system. Arguments have been checked as for [`Connector::open`].
    ///
    /// # Errors
    /// [`Error::NotRecognised`] when it is not there; otherwise why it cannot be worked with.
    fn open(request: OsRequest<'_>) -> Result<Arc<dyn Os>>;
}

/// What a connector is asked to open.
#[non_exhaustive]
pub struct ConnectorRequest<'a> {
    /// What to open, in the connector's own terms: a path, the name of a machine.
    pub target: Option<&'a str>,
    /// The bytes of the target instead of a place to find them at; `target` is then a name for messages. Only connectors whose
    /// descriptor accepts `content` get this.
    pub content: Option<&'a [u8]>,
    /// The arguments.
    pub args: &'a Args,
    /// An operating system to look into. Only connectors whose descriptor accepts `os` get this.
    pub input: Option<Arc<dyn Os>>,
    /// Who is told how far it is.
    pub progress: OnProgress<'a>,
}

impl<'a> ConnectorRequest<'a> {
    /// A request for a target, without anything else.
    pub fn new(target: Option<&'a str>, args: &'a Args) -> Self {
        Self { target, content: None, args, input: None, progress: SILENT }
    }

    /// The target.
    ///
    /// # Errors
    /// [`Error::Argument`] when none was given; `expected` says what it must be ("a path").
    pub fn required_target(&self, expected: &'static str) -> Result<&'a str> {
        self.target.ok_or_else(|| Error::Argument {
            what: "target".into(),
            expected: expected.into(),
            found: String::new(),
        })
    }

    /// The operating system to look into.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when there is none, with how one is put before the connector.
    pub fn required_input(&self) -> Result<&Arc<dyn Os>> {
        self.input.as_ref().ok_or_else(|| Error::Unsupported {
            what: "this connector at the start of a chain".to_owned(),
            why: "it looks into an operating system; put the connector and the OS layer of that one before it"
                .to_owned(),
        })
    }

    /// Tells how far it is.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the caller asks to stop.
    pub fn step(&self, stage: &str, done: u64, total: u64) -> Result<()> {
        step(self.progress, stage, done, total)
    }
}

impl fmt::Debug for ConnectorRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorRequest")
            .field("target", &self.target)
            .field("content", &self.content.map(<[u8]>::len))
            .field("args", &self.args)
            .field("input", &self.input.is_some())
            .finish_non_exhaustive()
    }
}

/// What an OS layer is asked to recognise.
#[non_exhaustive]
pub struct OsRequest<'a> {
    /// The physical memory.
    pub memory: Arc<dyn PhysicalMemory>,
    /// The arguments.
    pub args: &'a Args,
    /// Who is told how far it is.
    pub progress: OnProgress<'a>,
}

impl<'a> OsRequest<'a> {
    /// A request for the operating system in `memory`.
    pub fn new(memory: Arc<dyn PhysicalMemory>, args: &'a Args) -> Self {
        Self { memory, args, progress: SILENT }
    }

    /// Tells how far it is.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the caller asks to stop.
    pub fn step(&self, stage: &str, done: u64, total: u64) -> Result<()> {
        step(self.progress, stage, done, total)
    }
}

impl fmt::Debug for OsRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsRequest")
            .field("memory", &self.memory.metadata().name)
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}

fn step(progress: OnProgress<'_>, stage: &str, done: u64, total: u64) -> Result<()> {
    match progress(stage, done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}

/// An opened target.
#[derive(Clone)]
#[non_exhaustive]
pub struct Connection {
    /// Its memory.
    pub memory: Arc<dyn PhysicalMemory>,
    /// What the target is, in a few words ("ELF core, zstd"); empty when there is nothing to say.
    pub format: String,
    /// What a person should know: what is missing, what was assumed.
    pub notes: Vec<String>,
    /// Arguments to open the target with instead, if no operating system is found in its memory; the likelier first.
    pub alternatives: Vec<Args>,
}

impl Connection {
    /// An opened target about which there is nothing more to say.
    pub fn new(memory: Arc<dyn PhysicalMemory>) -> Self {
        Self { memory, format: String::new(), notes: Vec::new(), alternatives: Vec::new() }
    }

    /// The same, with what the target is.
    #[must_use]
    pub fn with_format(mut self, format: impl Into<String>) -> Self {
        self.format = format.into();
        self
    }

    /// The same, with something that a person should know.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same, with arguments to open the target with instead.
    #[must_use]
    pub fn with_alternative(mut self, args: Args) -> Self {
        self.alternatives.push(args);
        self
    }
}

impl<M: PhysicalMemory + 'static> From<M> for Connection {
    fn from(memory: M) -> Self {
        Self::new(Arc::new(memory))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("memory", &self.memory.metadata().name)
            .field("format", &self.format)
            .field("notes", &self.notes)
            .field("alternatives", &self.alternatives)
            .finish()
    }
}

/// A target that a connector could open now.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TargetInfo {
    /// What to give as the target.
    pub name: String,
    /// What it is, for people.
    pub description: String,
}

impl TargetInfo {
    /// A target.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self { name: name.into(), description: description.into() }
    }
}

//! Plugins one behind the other: a machine, the operating system in it, a machine inside a process of that one, and so on.
//!
//! Owns: [`Chain`] and its links, which of them failed, and the choice between the ways in which a connector could open its target.
//! Must not know: what any plugin does.
//! Keeps: a connector is followed by an OS layer and the other way round, as the types say; each step opens its link at once, and a
//! link keeps those before it.

use std::{fmt, ops::ControlFlow, sync::Arc};

use super::{ConnectOptions, Inventory, Layered};
use crate::{
    error::{Error, ErrorKind, Result},
    memory::{Metrics, PhysicalMemory},
    os::Os,
    plugin::{
        args::{Args, ConnectorSpec, OsSpec},
        definition::Connection,
        descriptor::PluginKind,
    },
};

/// Who is told how far it is.
type Progress = dyn Fn(&str, u64, u64) -> ControlFlow<()> + Send + Sync;
/// Bytes of a target that is no place.
type Content = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The start of a chain of plugins.
///
/// ```no_run
/// # fn main() -> memflow_core::Result<()> {
/// use memflow_core::{
///     os::Os as _,
///     plugin::{
///         Inventory,
///         args::{ConnectorSpec, OsSpec},
///     },
/// };
///
/// let inventory = Inventory::builder().standard_folders().build();
/// let inner = inventory
///     .chain()
///     .connector(ConnectorSpec::new("snapshot")?.with_target("host.elf"))?
///     .os(OsSpec::new("linux")?)?
///     .connector(ConnectorSpec::new("process")?.with_target("qemu-system-x86"))?
///     .os("linux".parse()?)?;
/// println!("{} inside", inner.os().processes()?.items.len());
/// # Ok(())
/// # }
/// ```
///
/// Each step opens its link before it returns. A link can be cloned, and continued in several ways; it keeps all that lies before it.
#[derive(Clone)]
pub struct Chain {
    inventory: Inventory,
    progress: Arc<Progress>,
}

/// A chain that ends with a connector.
#[derive(Clone)]
pub struct ConnectorLink {
    chain: Chain,
    number: usize,
    spec: ConnectorSpec,
    content: Option<Content>,
    previous: Option<Arc<OsLink>>,
    layered: Layered,
}

/// A chain that ends with an OS layer.
#[derive(Clone)]
pub struct OsLink {
    number: usize,
    spec: OsSpec,
    os: Arc<dyn Os>,
    previous: ConnectorLink,
}

/// Which link of a chain failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", self.link(), self.cause())]
#[non_exhaustive]
pub struct ChainError {
    /// Where it stands: 1 for the first connector, 2 for its OS layer, and so on.
    pub number: usize,
    /// What it is.
    pub kind: PluginKind,
    /// The name that was asked for.
    pub name: String,
    /// Why.
    pub source: Box<Error>,
}

impl ChainError {
    fn new(number: usize, kind: PluginKind, name: &str, source: Error) -> Self {
        Self { number, kind, name: name.to_owned(), source: Box::new(source) }
    }

    fn link(&self) -> String {
        format!("link {} ({} {})", self.number, self.kind, self.name)
    }

    /// The reason, without the name of the plugin before it.
    fn cause(&self) -> &Error {
        match &*self.source {
            Error::Context { what, source } if *what == format!("{} {}", self.kind, self.name) => source,
            error => error,
        }
    }
}

impl From<ChainError> for Error {
    fn from(error: ChainError) -> Self {
        let link = error.link();
        let named = format!("{} {}", error.kind, error.name);
        match *error.source {
            Self::Context { what, source } if what == named => source.context(link),
            source => source.context(link),
        }
    }
}

impl Inventory {
    /// Begins a chain of these plugins.
    pub fn chain(&self) -> Chain {
        Chain { inventory: self.clone(), progress: Arc::new(|_, _, _| ControlFlow::Continue(())) }
    }
}

impl Chain {
    /// Tells how far each link is as it is opened: what is being done, how much of it is done, and how much there is in all (0 when that
    /// is not known). [`ControlFlow::Break`] cancels. May be called from several threads.
    #[must_use]
    pub fn with_progress(self, tell: impl Fn(&str, u64, u64) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self { progress: Arc::new(tell), ..self }
    }

    /// Opens the target that the chain begins with.
    ///
    /// # Errors
    /// When there is no such connector, it does not take the arguments, it works only inside an operating system, or it cannot open
    /// the target.
    pub fn connector(self, spec: ConnectorSpec) -> Result<ConnectorLink, ChainError> {
        self.connect(1, spec, None, None)
    }

    /// As [`connector`](Self::connector), of a target whose bytes are given; what the spec has as target is then a name for messages.
    ///
    /// # Errors
    /// As [`connector`](Self::connector), and when the connector does not take bytes.
    pub fn connector_with_content(
        self,
        spec: ConnectorSpec,
        content: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<ConnectorLink, ChainError> {
        self.connect(1, spec, Some(Arc::new(content)), None)
    }

    fn connect(
        self,
        number: usize,
        spec: ConnectorSpec,
        content: Option<Content>,
        previous: Option<Arc<OsLink>>,
    ) -> Result<ConnectorLink, ChainError> {
        let options = ConnectOptions {
            content: content.as_deref().map(|content| content.as_ref()),
            input: previous.as_ref().map(|link| link.os.clone()),
            progress: &|stage, done, total| (self.progress)(stage, done, total),
        };
        match self.inventory.connect(&spec, &options) {
            Ok(layered) => Ok(ConnectorLink { chain: self, number, spec, content, previous, layered }),
            Err(error) => Err(ChainError::new(number, PluginKind::Connector, spec.name(), error)),
        }
    }
}

impl ConnectorLink {
    /// Where it stands: 1 for the first connector, 3 for the next.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What was asked for; when an operating system was found only with other arguments, with those.
    pub fn spec(&self) -> &ConnectorSpec {
        &self.spec
    }

    /// What was opened.
    pub fn connection(&self) -> &Connection {
        &self.layered.connection
    }

    /// The physical memory.
    pub fn memory(&self) -> &Arc<dyn PhysicalMemory> {
        &self.layered.connection.memory
    }

    /// What is counted, if that was asked for.
    pub fn metrics(&self) -> Option<&Arc<Metrics>> {
        self.layered.metrics.as_ref()
    }

    /// The link before it, unless it is the first.
    pub fn previous(&self) -> Option<&OsLink> {
        self.previous.as_deref()
    }

    /// Recognises the operating system in this memory.
    ///
    /// Where the connector proposes other arguments, as for a raw image of which nothing says what addresses it holds, they are tried
    /// too: the first with which the whole process list can be read is kept, else the first with which a system is found. The
    /// [`previous`](OsLink::previous) link is then the one that was opened so, and says it in its notes.
    ///
    /// # Errors
    /// When there is no such OS layer, it does not take the arguments, or it does not find its system.
    pub fn os(self, spec: OsSpec) -> Result<OsLink, ChainError> {
        let number = self.number.saturating_add(1);
        let failed = |error| ChainError::new(number, PluginKind::Os, spec.name(), error);
        let found = |os, previous| Ok(OsLink { number, spec: spec.clone(), os, previous });
        self.chain.inventory.find(PluginKind::Os, spec.name(), spec.version()).map_err(failed)?;
        let first = match self.recognise(&spec) {
            Err(error) if !depends_on_memory(&error) => return Err(failed(error)),
            first => first,
        };
        let alternatives = self.connection().alternatives.clone();
        if alternatives.is_empty() || first.as_deref().is_ok_and(lists_every_process) {
            return first.map_err(failed).and_then(|os| found(os, self));
        }
        let mut second_best = None;
        for args in &alternatives {
            let other = self.reopen(args)?;
            match other.recognise(&spec) {
                Ok(os) if lists_every_process(&*os) => return found(os, other.instead_of(&self)),
                Ok(os) => second_best = second_best.or(Some((os, other))),
                Err(error) => log::debug!("{args}: {error}"),
            }
        }
        match (first, second_best) {
            (Ok(os), _) => found(os, self),
            (Err(_), Some((os, other))) => found(os, other.instead_of(&self)),
            (Err(error), None) => {
                let tried: Vec<String> = alternatives.iter().map(|args| changed(self.spec.args(), args)).collect();
                let target = self.spec.target().unwrap_or(self.spec.name());
                Err(failed(error.context(format!("{target} (nor with {})", tried.join(" or ")))))
            }
        }
    }

    fn recognise(&self, spec: &OsSpec) -> Result<Arc<dyn Os>> {
        let Chain { inventory, progress } = &self.chain;
        inventory.open_os(spec, self.memory().clone(), &|stage, done, total| progress(stage, done, total))
    }

    /// The same target, opened with other arguments. Those of layers are its own.
    fn reopen(&self, args: &Args) -> Result<Self, ChainError> {
        let mut all = self.spec.args().clone();
        for (key, value) in args.iter() {
            all.set(key, value.clone());
        }
        let spec = self.spec.clone().with_args(all);
        self.chain.clone().connect(self.number, spec, self.content.clone(), self.previous.clone())
    }

    /// The link, with a note that it took the place of another.
    fn instead_of(mut self, other: &Self) -> Self {
        let note =
            format!("opened with {}: the operating system was found so", changed(other.spec.args(), self.spec.args()));
        self.layered.connection.notes.push(note);
        self
    }
}

impl OsLink {
    /// Where it stands: 2 for the first OS layer, 4 for the next.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What was asked for.
    pub fn spec(&self) -> &OsSpec {
        &self.spec
    }

    /// The operating system.
    pub fn os(&self) -> &Arc<dyn Os> {
        &self.os
    }

    /// The connector in whose memory it was found.
    pub fn previous(&self) -> &ConnectorLink {
        &self.previous
    }

    /// Opens a target inside this operating system.
    ///
    /// # Errors
    /// When there is no such connector, it does not take the arguments, it does not look into operating systems, or it cannot open
    /// the target.
    pub fn connector(self, spec: ConnectorSpec) -> Result<ConnectorLink, ChainError> {
        let (chain, number) = (self.previous.chain.clone(), self.number.saturating_add(1));
        chain.connect(number, spec, None, Some(Arc::new(self)))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("inventory", &self.inventory).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectorLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, spec, previous, layered, .. } = self;
        f.debug_struct("ConnectorLink")
            .field("number", number)
            .field("spec", spec)
            .field("layered", layered)
            .field("previous", previous)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OsLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, spec, os, previous } = self;
        f.debug_struct("OsLink")
            .field("number", number)
            .field("spec", spec)
            .field("kernel", &os.kernel().release)
            .field("previous", previous)
            .finish()
    }
}

/// Whether other memory could make the error go away.
fn depends_on_memory(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Argument | ErrorKind::Cancelled)
}

/// True when the process list can be read to its end, which it cannot where memory lies at other addresses than assumed.
fn lists_every_process(os: &dyn Os) -> bool {
    os.processes().is_ok_and(|list| list.is_complete() && !list.items.is_empty())
}

/// The arguments that are not the same in `given`.
fn changed(given: &Args, args: &Args) -> String {
    let other = args.iter().filter(|(key, value)| given.get(key) != Some(value));
    other.fold(Args::new(), |all, (key, value)| all.with(key, value.clone())).to_string()
}

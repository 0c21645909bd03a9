//! A plugin that can be used: what it says about itself, and its code, built in or in a file that is loaded when first called.
//!
//! Must not know: how it was found.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    os::Os,
    plugin::{
        args::{self, ArgSpec, Args},
        definition::{Connection, Connector, ConnectorRequest, OsLayer, OsRequest, TargetInfo},
        descriptor::{Accepts, Descriptor},
        library,
    },
};

/// Where a plugin comes from; the order is that of preference between equal versions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// A file that was named.
    Named(PathBuf),
    /// A file in a folder of `MEMFLOW_PLUGIN_PATH`.
    Environment(PathBuf),
    /// Linked into this program.
    BuiltIn,
    /// A file in another folder.
    Folder(PathBuf),
}

impl Origin {
    /// The file, unless it is built in.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::BuiltIn => None,
            Self::Named(path) | Self::Environment(path) | Self::Folder(path) => Some(path),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => path.display().fmt(f),
            None => f.write_str("built in"),
        }
    }
}

type OpenConnector = fn(&ConnectorRequest<'_>) -> Result<Connection>;
type OpenOs = fn(OsRequest<'_>) -> Result<Arc<dyn Os>>;
type Targets = fn() -> Result<Vec<TargetInfo>>;

enum Code {
    Connector { open: OpenConnector, targets: Option<Targets> },
    Os(OpenOs),
    File(PathBuf),
}

/// A plugin that can be used.
pub struct Plugin {
    descriptor: Descriptor,
    args: Vec<ArgSpec>,
    origin: Origin,
    code: Code,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("descriptor", &self.descriptor)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// The descriptor of a plugin that is linked in.
fn own_descriptor(section: &[u8]) -> Result<Descriptor> {
    let bad = |problem: String| Error::Unsupported { what: "a built-in plugin".to_owned(), why: problem };
    let mut all = Descriptor::parse_section(section).map_err(|error| bad(error.to_string()))?;
    match all.pop() {
        Some(Ok(descriptor)) if all.is_empty() => Ok(descriptor),
        Some(Err(error)) => Err(bad(error.to_string())),
        _ => Err(bad("its section must hold one descriptor".to_owned())),
    }
}

impl Plugin {
    pub(super) fn built_in_connector<C: Connector>() -> Result<Self> {
        let targets = C::LISTS_TARGETS.then_some(C::targets as Targets);
        Self::new(own_descriptor(C::DESCRIPTOR)?, Origin::BuiltIn, Code::Connector { open: C::open, targets })
    }

    pub(super) fn built_in_os<O: OsLayer>() -> Result<Self> {
        Self::new(own_descriptor(O::DESCRIPTOR)?, Origin::BuiltIn, Code::Os(O::open))
    }

    /// The plugin of an accepted descriptor in a file.
    ///
    /// # Errors
    /// When it describes its arguments in a way that cannot be read.
    pub(super) fn in_file(descriptor: Descriptor, origin: Origin, path: PathBuf) -> Result<Self> {
        Self::new(descriptor, origin, Code::File(path))
    }

    fn new(descriptor: Descriptor, origin: Origin, code: Code) -> Result<Self> {
        let args = descriptor.args.iter().map(|line| line.parse::<ArgSpec>()).collect::<Result<_>>()?;
        Ok(Self { descriptor, args, origin, code })
    }

    /// What it says about itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The arguments that it takes.
    pub fn args(&self) -> &[ArgSpec] {
        &self.args
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The targets that a connector could open now; `None` when it cannot tell. Loads its file.
    ///
    /// # Errors
    /// When the file cannot be loaded, or the targets cannot be listed.
    pub fn targets(&self) -> Result<Option<Vec<TargetInfo>>> {
        match &self.code {
            Code::Connector { targets, .. } => targets.map(|targets| targets()).transpose(),
            Code::Os(_) => Ok(None),
            Code::File(path) => library::load(path, &self.descriptor)?.targets(),
        }
    }

    /// The arguments, checked, with the defaults of those that were not given. `more` are accepted besides its own.
    pub(super) fn checked(&self, given: &Args, more: &[ArgSpec]) -> Result<Args> {
        let all: Vec<ArgSpec> = self.args.iter().chain(more).cloned().collect();
        args::check(&all, given).and_then(|()| args::complete(&self.args, given)).map_err(|error| self.context(error))
    }

    fn context(&self, error: Error) -> Error {
        error.context(format!("{} {}", self.descriptor.kind, self.descriptor.name))
    }

    fn refuse(&self, what: &str) -> Error {
        Error::Unsupported {
            what: format!("{what} for {} {}", self.descriptor.kind, self.descriptor.name),
            why: "it does not say that it accepts that".to_owned(),
        }
    }

    pub(super) fn open_connector(&self, request: &ConnectorRequest<'_>) -> Result<Connection> {
        let accepts = |what| self.descriptor.accepts.contains(&what);
        if request.content.is_some() && !accepts(Accepts::Content) {
            return Err(self.refuse("a target in memory"));
        }
        if request.input.is_some() && !accepts(Accepts::Os) {
            return Err(Error::Unsupported {
                what: format!("connector {} behind an OS layer", self.descriptor.name),
                why: "it does not look into operating systems; put it first, or take a connector that accepts `os` \
                      (`memflow plugins show NAME`)"
                    .to_owned(),
            });
        }
        match &self.code {
            Code::Connector { open, .. } => open(request),
            Code::File(path) => library::load(path, &self.descriptor)?.open_connector(request),
            Code::Os(_) => Err(self.refuse("a target to open")),
        }
    }

    pub(super) fn open_os(&self, request: OsRequest<'_>) -> Result<Arc<dyn Os>> {
        match &self.code {
            Code::Os(open) => open(request),
            Code::File(path) => library::load(path, &self.descriptor)?.open_os(request),
            Code::Connector { .. } => Err(self.refuse("memory to look into")),
        }
    }
}

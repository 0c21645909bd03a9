//! Which plugins there are, which one is meant by a name, and opening targets with them.
//!
//! Owns: the search for files, the choice between plugins of one name, and calls of what was chosen.
//! Must not know: how a file is analysed or loaded.
//! Keeps: no code of a file runs before it is chosen; each file that is not taken has its reason in [`Inventory::rejected`].
//!
//! Files are looked for in this order: those that were named, the folders of `MEMFLOW_PLUGIN_PATH`, the user's folder
//! (`~/.local/lib/memflow`), the system's (`/usr/local/lib/memflow`, `/usr/lib/memflow`), and beside the executable. Never in the
//! current directory: relative paths are refused. In folders only files that are called like plugins are looked at
//! (`libmemflow_NAME.so`, `memflow_NAME.dll`, `libmemflow_NAME.dylib`).
//!
//! Of several plugins of one name, a file that was named comes first; then the newest version; then those of
//! `MEMFLOW_PLUGIN_PATH`, those that are built in, and the other folders in their order.

mod chain;
mod choose;
mod layers;
mod plugin;
mod search;

use std::{ffi::OsString, path::PathBuf, sync::Arc};

pub use self::{
    chain::{Chain, ChainError, ConnectorLink, OsLink},
    layers::{LayerArgs, Layered},
    plugin::{Origin, Plugin},
    search::{Place, PlaceState, Rejected},
};
use super::{
    ABI,
    analyze::HostAbi,
    args::{ConnectorSpec, OsSpec},
    definition::{Connector, ConnectorRequest, OnProgress, OsLayer, OsRequest, SILENT},
    descriptor::PluginKind,
};
use crate::{error::Result, memory::PhysicalMemory, os::Os};

/// The plugins that were found. A clone is of the same ones, and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    plugins: Arc<[Arc<Plugin>]>,
    rejected: Arc<[Rejected]>,
    places: Arc<[Place]>,
}

/// Collects where to look for plugins; [`build`](Self::build) looks.
#[derive(Debug, Default)]
pub struct InventoryBuilder {
    built_in: Vec<Plugin>,
    files: Vec<PathBuf>,
    environment: Option<OsString>,
    folders: Vec<PathBuf>,
}

impl InventoryBuilder {
    /// Adds a connector that is linked into this program.
    ///
    /// # Errors
    /// When its descriptor is not a good one.
    pub fn connector<C: Connector>(mut self) -> Result<Self> {
        self.built_in.push(Plugin::built_in_connector::<C>()?);
        Ok(self)
    }

    /// Adds an OS layer that is linked into this program.
    ///
    /// # Errors
    /// When its descriptor is not a good one.
    pub fn os_layer<O: OsLayer>(mut self) -> Result<Self> {
        self.built_in.push(Plugin::built_in_os::<O>()?);
        Ok(self)
    }

    /// Adds a file, whatever it is called; it comes before all others of its name.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(path.into());
        self
    }

    /// Adds a folder, after those that were added before.
    #[must_use]
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.folders.push(path.into());
        self
    }

    /// Adds the folders of `MEMFLOW_PLUGIN_PATH`, the user's, the system's, and that of the executable.
    #[must_use]
    pub fn standard_folders(mut self) -> Self {
        self.environment = std::env::var_os("MEMFLOW_PLUGIN_PATH");
        self.folders.extend(search::standard_folders());
        self
    }

    /// Looks for plugins. What cannot be used is in [`Inventory::rejected`]; nothing is loaded.
    pub fn build(self) -> Inventory {
        let host = HostAbi::this_build(ABI);
        let mut found = search::Search::new(&host);
        for path in self.files {
            found.file(&path, &Origin::Named(path.clone()));
        }
        if let Some(list) = self.environment {
            for folder in std::env::split_paths(&list).filter(|folder| !folder.as_os_str().is_empty()) {
                found.folder(&folder, Origin::Environment);
            }
        }
        found.plugins.extend(self.built_in);
        for folder in self.folders {
            found.folder(&folder, Origin::Folder);
        }
        let search::Search { plugins, rejected, places, .. } = found;
        Inventory { plugins: choose::ordered(plugins).into(), rejected: rejected.into(), places: places.into() }
    }
}

impl Inventory {
    /// An inventory that looks nowhere yet.
    pub fn builder() -> InventoryBuilder {
        InventoryBuilder::default()
    }

    /// The plugins, by kind and name; of those with one name, the one that is taken first.
    pub fn plugins(&self) -> &[Arc<Plugin>] {
        &self.plugins
    }

    /// What was found and cannot be used, and why.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Where files were looked for, and what was there.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The plugin that is meant by a name, and by a version (`1`, `1.2` or `1.2.3`) if one is given.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), which lists what there is, and what was rejected.
    pub fn find(&self, kind: PluginKind, name: &str, version: Option<&str>) -> Result<&Arc<Plugin>> {
        choose::find(self, kind, name, version)
    }

    /// Opens a target.
    ///
    /// # Errors
    /// When there is no such connector, it does not take the arguments, or it cannot open the target.
    pub fn connect(&self, spec: &ConnectorSpec, options: &ConnectOptions<'_>) -> Result<Layered> {
        let plugin = self.find(PluginKind::Connector, spec.name(), spec.version())?;
        let mut own = spec.args().clone();
        let layers = LayerArgs::take(plugin.args(), &mut own)?;
        let args = plugin.checked(&own, layers::specs())?;
        let request = ConnectorRequest {
            target: spec.target(),
            content: options.content,
            args: &args,
            input: options.input.clone(),
            progress: options.progress,
        };
        layers.apply(plugin.open_connector(&request)?)
    }

    /// Recognises an operating system in `memory`.
    ///
    /// # Errors
    /// When there is no such OS layer, it does not take the arguments, or it does not find its system.
    pub fn open_os(
        &self,
        spec: &OsSpec,
        memory: Arc<dyn PhysicalMemory>,
        progress: OnProgress<'_>,
    ) -> Result<Arc<dyn Os>> {
        let plugin = self.find(PluginKind::Os, spec.name(), spec.version())?;
        let args = plugin.checked(spec.args(), &[])?;
        plugin.open_os(OsRequest { memory, args: &args, progress })
    }
}

/// What a connector is given beside the arguments.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectOptions<'a> {
    /// The bytes of the target instead of a place to find them at.
    pub content: Option<&'a [u8]>,
    /// An operating system to look into.
    pub input: Option<Arc<dyn Os>>,
    /// Who is told how far it is.
    pub progress: OnProgress<'a>,
}

impl Default for ConnectOptions<'_> {
    fn default() -> Self {
        Self { content: None, input: None, progress: SILENT }
    }
}

impl std::fmt::Debug for ConnectOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("content", &self.content.map(<[u8]>::len))
            .field("input", &self.input.is_some())
            .finish_non_exhaustive()
    }
}

/// Tells loaded plugins the level that the log has now: what they log beyond it is not made. Call it after changing the level.
pub fn forward_log_level() {
    super::library::forward_log_level();
}

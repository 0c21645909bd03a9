//! Files that may be plugins.
//!
//! Owns: folders, names of files, opening them, and a record of everything that was not taken.
//! Must not know: which of several plugins is taken.
//! Keeps: a file is looked at once, however many links lead to it; a relative path is never searched.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File, Metadata},
    path::{Path, PathBuf},
};

use semver::Version;

use super::{Origin, Plugin};
use crate::plugin::{
    analyze::{HostAbi, analyze_file},
    descriptor::PluginKind,
};

/// Largest file that is looked at: no plugin comes near it.
const MAX_FILE: u64 = 256 << 20;

/// A file, or a plugin of one, that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Rejected {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// A folder that was searched.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Place {
    /// The folder.
    pub path: PathBuf,
    /// What came of it.
    pub state: PlaceState,
}

/// What came of a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PlaceState {
    /// It was searched; so many files in it are called like plugins.
    Searched {
        /// Number of files.
        files: usize,
    },
    /// There is no such folder.
    Absent,
    /// It cannot be searched, and why.
    Unreadable(String),
}

/// The folders that are searched after `MEMFLOW_PLUGIN_PATH`.
pub(super) fn standard_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(home) = std::env::home_dir().filter(|home| home.is_absolute()) {
        folders.push(home.join(".local/lib/memflow"));
    }
    if cfg!(unix) {
        folders.extend(["/usr/local/lib/memflow", "/usr/lib/memflow"].map(PathBuf::from));
    }
    if let Ok(program) = std::env::current_exe() {
        folders.extend(program.parent().map(Path::to_owned));
    }
    folders
}

/// True when a file is called like a plugin on this system.
fn is_called_like_a_plugin(name: &str) -> bool {
    let (prefix, suffix) = if cfg!(windows) {
        ("memflow_", ".dll")
    } else if cfg!(target_vendor = "apple") {
        ("libmemflow_", ".dylib")
    } else {
        ("libmemflow_", ".so")
    };
    name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix)).is_some_and(|name| !name.is_empty())
}

/// A search that goes on.
pub(super) struct Search<'h> {
    host: &'h HostAbi<'h>,
    seen: BTreeSet<Identity>,
    pub(super) plugins: Vec<Plugin>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) places: Vec<Place>,
}

impl<'h> Search<'h> {
    pub(super) fn new(host: &'h HostAbi<'h>) -> Self {
        Self { host, seen: BTreeSet::new(), plugins: Vec::new(), rejected: Vec::new(), places: Vec::new() }
    }

    fn reject(&mut self, path: &Path, reason: impl fmt::Display) {
        self.rejected.push(Rejected { path: path.to_owned(), reason: reason.to_string() });
    }

    /// Looks at the files of a folder, in the order of their names.
    pub(super) fn folder(&mut self, folder: &Path, origin: fn(PathBuf) -> Origin) {
        let state = self.search_folder(folder, origin);
        self.places.push(Place { path: folder.to_owned(), state });
    }

    fn search_folder(&mut self, folder: &Path, origin: fn(PathBuf) -> Origin) -> PlaceState {
        if !folder.is_absolute() {
            return PlaceState::Unreadable("a relative path is not searched; give the whole path".to_owned());
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return PlaceState::Absent,
            Err(error) => return PlaceState::Unreadable(error.to_string()),
        };
        let mut paths = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) if entry.file_name().to_str().is_some_and(is_called_like_a_plugin) => {
                    paths.push(entry.path())
                }
                Ok(_) => {}
                Err(error) => return PlaceState::Unreadable(error.to_string()),
            }
        }
        paths.sort();
        for path in &paths {
            self.file(path, &origin(path.clone()));
        }
        PlaceState::Searched { files: paths.len() }
    }

    /// Looks at a file.
    pub(super) fn file(&mut self, path: &Path, origin: &Origin) {
        let (real, metadata) =
            match fs::canonicalize(path).and_then(|real| fs::metadata(&real).map(|found| (real, found))) {
                Ok(found) => found,
                Err(error) => return self.reject(path, format_args!("cannot be opened: {error}")),
            };
        if !self.seen.insert(identity(&real, &metadata)) {
            return;
        }
        let opened = match open(&real, &metadata) {
            Ok(file) => file,
            Err(reason) => return self.reject(path, reason),
        };
        let file = match analyze_file(&opened, self.host) {
            Ok(file) => file,
            Err(reason) => return self.reject(path, reason),
        };
        let mut taken: Vec<(PluginKind, String, Version)> = Vec::new();
        for plugin in file.plugins {
            match plugin {
                Ok(descriptor) => {
                    let name = descriptor.name.clone();
                    let key = (descriptor.kind, name.clone(), descriptor.version.clone());
                    if taken.contains(&key) {
                        let (kind, name, version) = key;
                        let text = format_args!("{kind} `{name}` {version}: is twice in the file; the first is taken");
                        self.reject(path, text);
                        continue;
                    }
                    taken.push(key);
                    match Plugin::in_file(descriptor, origin.clone(), real.clone()) {
                        Ok(plugin) => self.plugins.push(plugin),
                        Err(error) => self.reject(path, format_args!("{name}: {error}")),
                    }
                }
                Err(rejected) => self.reject(path, rejected),
            }
        }
    }
}

/// What is the same for all names of a file.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

/// Device and number of the file.
#[cfg(unix)]
fn identity(_: &Path, metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Its path without links.
#[cfg(not(unix))]
fn identity(real: &Path, _: &Metadata) -> Identity {
    real.to_owned()
}

/// A regular file of sensible size.
fn open(path: &Path, metadata: &Metadata) -> Result<File, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let sensible = |metadata: &Metadata| match metadata.len() {
        _ if !metadata.is_file() => Err("is not a regular file".to_owned()),
        len if len > MAX_FILE => Err(format!("has {len} bytes, at most {MAX_FILE} are read")),
        _ => Ok(()),
    };
    // A device or a pipe is not opened at all: that alone may do something.
    sensible(metadata)?;
    let mut options = File::options();
    // It may have become one meanwhile, and then nobody waits for its other end.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.read(true).open(path).map_err(failed)?;
    sensible(&file.metadata().map_err(failed)?)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_plugins_are_told_from_others() {
        let suffix = if cfg!(target_vendor = "apple") { "dylib" } else { "so" };
        if cfg!(unix) {
            assert!(is_called_like_a_plugin(&format!("libmemflow_snapshot.{suffix}")));
            assert!(!is_called_like_a_plugin(&format!("libmemflow_.{suffix}")));
            assert!(!is_called_like_a_plugin(&format!("memflow_snapshot.{suffix}")));
            assert!(!is_called_like_a_plugin(&format!("libmemflow_snapshot.{suffix}.1")));
        }
    }
}

//! The folder in which OS layers keep what they learn of a kernel's build for the next run.
//!
//! Owns: where it lies, and which OS layers are told. Must not know: what a layer keeps there.
//! Keeps: only layers that say they take such a folder are told, and an argument that the user gave stays.

use std::{ffi::OsString, path::PathBuf};

use memflow_core::plugin::{
    Inventory,
    args::{ArgValue, OsSpec},
    descriptor::PluginKind,
};

/// The environment variable that names the folder; empty for none.
const VARIABLE: &str = "MEMFLOW_CACHE_DIR";
/// The argument of an OS layer that takes it.
const ARGUMENT: &str = "layout_cache";

/// The folder; `None` when the user wants none or has no place for it.
pub(crate) fn folder() -> Option<PathBuf> {
    folder_of(std::env::var_os(VARIABLE), std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir())
}

fn folder_of(own: Option<OsString>, caches: Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(own) = own {
        return (!own.is_empty()).then(|| own.into());
    }
    // Relative paths in it are to be ignored: XDG Base Directory Specification.
    let caches = caches.map(PathBuf::from).filter(|folder| folder.is_absolute());
    let caches = caches.or_else(|| {
        let home = home.filter(|home| home.is_absolute())?;
        Some(home.join(match () {
            () if cfg!(windows) => "AppData/Local",
            () if cfg!(target_vendor = "apple") => "Library/Caches",
            () => ".cache",
        }))
    });
    caches.map(|caches| caches.join("memflow"))
}

/// The OS layer with the folder among its arguments, if it takes one and the user has not given it.
pub(crate) fn told(inventory: &Inventory, mut spec: OsSpec) -> OsSpec {
    let takes = inventory
        .find(PluginKind::Os, spec.name(), spec.version())
        .is_ok_and(|plugin| plugin.args().iter().any(|argument| argument.name == ARGUMENT));
    if takes && spec.args().get(ARGUMENT).is_none() {
        match folder().map(|folder| ArgValue::path(&folder)) {
            Some(Ok(folder)) => drop(spec.args_mut().set(ARGUMENT, folder)),
            Some(Err(error)) => log::debug!("nothing is kept for the next run: {error}"),
            None => {}
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_word_comes_first_and_relative_folders_are_ignored() {
        let of = |own: Option<&str>, caches: Option<&str>, home: Option<&str>| {
            folder_of(own.map(Into::into), caches.map(Into::into), home.map(Into::into))
        };
        assert_eq!(of(Some("here"), Some("/caches"), Some("/home/u")), Some("here".into()));
        assert_eq!(of(Some(""), Some("/caches"), Some("/home/u")), None);
        assert_eq!(of(None, Some("relative"), None), None);
        assert_eq!(of(None, None, Some("relative")), None);
        if cfg!(target_os = "linux") {
            assert_eq!(of(None, Some("/caches"), Some("/home/u")), Some("/caches/memflow".into()));
            assert_eq!(of(None, Some("relative"), Some("/home/u")), Some("/home/u/.cache/memflow".into()));
        }
    }
}

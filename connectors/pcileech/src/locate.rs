//! Where LeechCore may lie.
//!
//! Owns: the places that are tried, and what is said when it is in none of them. Must not know: its functions.
//! Keeps: the current folder is no such place.

use std::{
    io,
    path::{Path, PathBuf},
};

use memflow_core::{Error, Result};

use crate::library::Library;

/// The library's file name.
const NAME: &str = if cfg!(windows) {
    "leechcore.dll"
} else if cfg!(target_os = "macos") {
    "leechcore.dylib"
} else {
    "leechcore.so"
};
/// The way out.
const INSTALL: &str = "install LeechCore (its releases, or the Python package leechcorepyc, hold the library; on Linux it needs libusb-1.0-0) \
                       and name it with lib=FILE";

/// Loads the library that was asked for, or the one in the first place that has one.
///
/// # Errors
/// There is none, or it cannot be loaded; the error says where it was looked for, and what to install.
pub(crate) fn load(asked: Option<&Path>) -> Result<Library> {
    if let Some(path) = asked {
        // A bare name would be searched for.
        let path =
            std::path::absolute(path).map_err(|error| Error::io(format!("finding {}", path.display()), error))?;
        let path = if path.is_dir() { path.join(NAME) } else { path };
        if !path.exists() {
            return Err(Error::io(format!("loading {} ({INSTALL})", path.display()), io::ErrorKind::NotFound.into()));
        }
        return Library::load(&path);
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    if let Some(path) = beside.as_ref().filter(|path| path.exists()) {
        return Library::load(path);
    }
    let mut looked_for: Vec<String> = beside.iter().map(|path| path.display().to_string()).collect();
    // Only where a name alone never means the current folder.
    if cfg!(unix) {
        match Library::load(&PathBuf::from(NAME)) {
            Err(Error::Io { source, .. }) => looked_for.push(format!("the system's libraries ({source})")),
            other => return other,
        }
    }
    let what = format!("loading LeechCore, looked for {NAME} in {}; {INSTALL}", looked_for.join(" and "));
    Err(Error::io(what, io::ErrorKind::NotFound.into()))
}

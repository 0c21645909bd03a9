//! Files whose names are no text. Targets of connectors are text, so such a file is opened here and handed on as a place that is.
//!
//! Owns: the place, and the file's own name in errors. Must not know: connectors.
//! Keeps: the place leads to the file for as long as this lives, whatever becomes of its name.

use std::path::{Path, PathBuf};

use memflow_core::Error;

/// A file that is held open.
#[derive(Debug)]
pub(crate) struct NamedFile {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    descriptor: std::os::fd::OwnedFd,
}

impl NamedFile {
    /// Finds the file. That takes no right to read it and does not wait for a pipe.
    #[cfg(target_os = "linux")]
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        use rustix::fs::{Mode, OFlags, open};
        let descriptor = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Error::io(format!("opening {}", path.display()), error.into()))?;
        Ok(Self { path: path.to_owned(), descriptor })
    }

    /// This system has no place that leads to an open file without opening it again by its name.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let problem = "the name is no UTF-8; link the file under another name".into();
        Err(Error::File { path: path.to_owned(), problem })
    }

    /// A path in UTF-8 that leads to the file.
    #[cfg(target_os = "linux")]
    pub(crate) fn place(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.descriptor.as_raw_fd())
    }

    /// There is none without an open file.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn place(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// An error that names the place, with the name of the file instead.
    pub(crate) fn named(&self, error: Error) -> Error {
        let (text, place) = (error.to_string(), self.place());
        match text.strip_prefix(&place).and_then(|rest| rest.strip_prefix(": ")) {
            Some(problem) => Error::File { path: self.path.clone(), problem: problem.to_owned().into() },
            None if text.contains(&place) => {
                let name = self.path.display().to_string();
                Error::File { path: self.path.clone(), problem: text.replace(&place, &name).into() }
            }
            None => error,
        }
    }
}

//! From a path to the machine's memory.
//!
//! Owns: [`open`], its options, and what is said when the system does not let it.
//! Must not know: how headers or notes are laid out.
//! Keeps: an error says which right, setting or kernel option is missing.
//! Source: `open_kcore` in `fs/proc/kcore.c` of Linux: CAP_SYS_RAWIO, then `security_locked_down(LOCKDOWN_KCORE)`, a reason of
//! lockdown's level "confidentiality".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use memflow_core::{
    Error, Result,
    memory::{MachineKind, TargetFacts},
};

use crate::{
    headers::{Headers, ReadAt},
    iomem,
    memory::KcoreMemory,
    segments::physical_runs,
};

/// Where the kernel puts it.
pub const KCORE: &str = "/proc/kcore";
/// The kernel's list of what lies at which physical address.
const IOMEM: &str = "/proc/iomem";
/// What the kernel forbids to root, the level in force in brackets.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// How a kcore is opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// A file in the form of `/proc/iomem`: memory outside of its System RAM is left out. That of this machine is used for
    /// [`KCORE`] anyway, as far as it may be read.
    pub iomem: Option<PathBuf>,
}

impl Options {
    /// The same, with a list of System RAM to keep to.
    #[must_use]
    pub fn with_iomem(mut self, path: impl Into<PathBuf>) -> Self {
        self.iomem = Some(path.into());
        self
    }
}

/// An open kcore.
#[derive(Debug)]
#[non_exhaustive]
pub struct Kcore {
    /// The memory, with what the kernel says about itself as facts.
    pub memory: KcoreMemory,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What it is, in a few words.
    pub format: String,
}

/// Opens a kcore: [`KCORE`], or a copy of one under another path.
///
/// # Errors
/// [`Error::Io`] when the system refuses, with the right that is missing; [`Error::File`] for what cannot be a kcore;
/// [`Error::Format`], [`Error::Unsupported`] and [`Error::Overlap`] for contents that do not say where memory lies.
///
/// # Examples
/// ```
/// use memflow_kcore::{Options, open};
///
/// let error = open("/no such folder/kcore".as_ref(), &Options::default()).unwrap_err();
/// assert!(error.to_string().starts_with("opening /no such folder/kcore"));
/// ```
pub fn open(path: &Path, options: &Options) -> Result<Kcore> {
    let file = open_file(path)?;
    refuse_hidden(path, &file)?;
    let headers = Headers::read(&file, path)?;
    let mut runs = physical_runs(&headers.segments, path)?;
    let given = options.iomem.as_deref();
    if let Some(list) = given.or_else(|| (path == Path::new(KCORE)).then_some(Path::new(IOMEM))) {
        match ram_of(list, given.is_some())? {
            Some(ram) => runs = iomem::inside(&runs, &ram)?,
            None => log::debug!(
                "{}: tells no addresses; the segments of {} are taken as they are",
                list.display(),
                path.display()
            ),
        }
        if runs.is_empty() {
            let problem = format!("none of its memory is System RAM of {}", list.display());
            return Err(Error::File { path: path.to_owned(), problem: problem.into() });
        }
    }
    let mut notes = Vec::new();
    if headers.vmcoreinfo.is_none() {
        notes.push(
            "there is no VMCOREINFO note (kernels before Linux 4.19 write none); the kernel has to be searched for"
                .to_owned(),
        );
    }
    let mut facts = TargetFacts::default();
    facts.machine = Some(headers.machine);
    facts.vmcoreinfo = headers.vmcoreinfo;
    let machine = match headers.machine {
        MachineKind::AArch64 => "arm64",
        _ => "x86-64",
    };
    let memory = KcoreMemory::new(file, format!("kcore {}", path.display()), runs, facts);
    Ok(Kcore { memory, notes, format: format!("running kernel's memory, {machine}") })
}

/// The System RAM in a list. A list that was asked for must tell it.
fn ram_of(path: &Path, asked: bool) -> Result<Option<memflow_core::memory::RunMap>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if asked => return Err(Error::io(format!("reading {}", path.display()), error)),
        Err(_) => return Ok(None),
    };
    let ram = iomem::system_ram(&text);
    if asked && ram.is_none() {
        let problem = "tells no addresses of System RAM; it does to readers with CAP_SYS_ADMIN";
        return Err(Error::File { path: path.to_owned(), problem: problem.into() });
    }
    Ok(ram)
}

fn open_file(path: &Path) -> Result<File> {
    let opening = |error: io::Error| {
        let lockdown = fs::read_to_string(LOCKDOWN).unwrap_or_default();
        let what = format!("opening {}{}", path.display(), way_out(&error, path == Path::new(KCORE), &lockdown));
        Error::io(what, error)
    };
    // Asked before opening, as opening a pipe waits for its other end.
    let metadata = fs::metadata(path).map_err(opening)?;
    if !metadata.is_file() && !is_device(&metadata) {
        let problem = "is no file; name a kcore";
        return Err(Error::File { path: path.to_owned(), problem: problem.into() });
    }
    File::open(path).map_err(opening)
}

/// What could be done about an error, in parentheses; `proc` when it is the kernel's own file.
fn way_out(error: &io::Error, proc: bool, lockdown: &str) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if !proc => " (run as a user who may read it)".to_owned(),
        io::ErrorKind::PermissionDenied if lockdown.contains("[confidentiality]") => format!(
            " (the kernel is locked down: {LOCKDOWN} says confidentiality, set by lockdown=confidentiality or secure boot; nobody may read it)"
        ),
        io::ErrorKind::PermissionDenied => {
            " (it takes root with CAP_SYS_RAWIO, which containers drop, and a kernel that is not in \
             lockdown=confidentiality)"
                .to_owned()
        }
        io::ErrorKind::NotFound if proc => {
            " (the kernel was built without CONFIG_PROC_KCORE, or this container hides it)".to_owned()
        }
        _ => String::new(),
    }
}

/// Containers hide the file behind an empty one, or behind /dev/null.
fn refuse_hidden(path: &Path, file: &File) -> Result<()> {
    let mut byte = [0];
    let empty = ReadAt::read_at(file, &mut byte, 0)
        .map_err(|error| Error::io(format!("reading {}", path.display()), error))
        .map(|count| count == 0)?;
    if empty {
        let problem = "is empty; containers hide the kernel's memory like this, so run on the host";
        return Err(Error::File { path: path.to_owned(), problem: problem.into() });
    }
    Ok(())
}

#[cfg(unix)]
fn is_device(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_char_device(&metadata.file_type())
}

#[cfg(not(unix))]
fn is_device(_: &fs::Metadata) -> bool {
    false
}

impl ReadAt for File {
    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buf, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_the_right_that_is_missing() {
        let denied = io::Error::from_raw_os_error(1);
        let open = "[none] integrity confidentiality";
        assert_eq!(
            way_out(&denied, true, open),
            " (it takes root with CAP_SYS_RAWIO, which containers drop, and a kernel that is not in lockdown=confidentiality)"
        );
        let locked = way_out(&denied, true, "none integrity [confidentiality]");
        assert!(locked.starts_with(" (the kernel is locked down: /sys/kernel/security/lockdown says"), "{locked}");
        assert_eq!(way_out(&denied, false, open), " (run as a user who may read it)");
        let missing = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(
            way_out(&missing, true, open),
            " (the kernel was built without CONFIG_PROC_KCORE, or this container hides it)"
        );
        assert_eq!(way_out(&missing, false, open), "");
    }
}

//! The folder in which entries lie.
//!
//! Owns: names of files, reading and writing them whole, how many there are. Must not know: what an entry says.
//! Keeps: a file under its final name is complete; what cannot be read or written costs time, never an answer.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::entry::{Entry, MAX_LEN};
use crate::identity::hexadecimal;

/// Entries kept in a folder; the oldest go.
const MAX_ENTRIES: usize = 64;
const PREFIX: &str = "linux-";
const SUFFIX: &str = ".layout";

/// A folder of entries.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// The entries in `folder`, which need not exist yet.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The entry of a kernel.
    pub(crate) fn load(&self, build_id: &[u8]) -> Option<Entry> {
        let path = self.path(build_id);
        let entry = read(&path)?;
        if entry.build_id != build_id {
            log::debug!("{}: is of another kernel; it is not used", path.display());
            return None;
        }
        Some(entry)
    }

    /// All entries, those first that were written last.
    pub(crate) fn all(&self) -> impl Iterator<Item = Entry> {
        let finished = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(SUFFIX));
        self.files().into_iter().map(|(_, path)| path).filter(finished).take(MAX_ENTRIES).filter_map(|path| read(&path))
    }

    /// Writes an entry in place of the one that the kernel has.
    pub(crate) fn save(&self, entry: &Entry) {
        let path = self.path(&entry.build_id);
        match entry.to_bytes().ok_or_else(|| io::Error::other("larger than an entry may be")) {
            Ok(bytes) => match self.write(&path, &bytes) {
                Ok(()) => log::debug!("{}: written, {} bytes", path.display(), bytes.len()),
                Err(error) => {
                    log::warn!("layout cache: writing {}: {error}; the next run starts without", path.display())
                }
            },
            Err(error) => log::debug!("{}: {error}", path.display()),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        // Beside its final place, under a name that nobody else has.
        let mut file = tempfile::Builder::new().prefix(PREFIX).suffix(".part").tempfile_in(&self.folder)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        for (_, old) in self.files().into_iter().skip(MAX_ENTRIES) {
            // Another process may have been faster.
            let _ = fs::remove_file(old);
        }
        Ok(())
    }

    fn path(&self, build_id: &[u8]) -> PathBuf {
        self.folder.join(format!("{PREFIX}{}{SUFFIX}", hexadecimal(build_id)))
    }

    /// Files that are called like entries, or like one that was never finished, the newest first.
    fn files(&self) -> Vec<(SystemTime, PathBuf)> {
        let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort_unstable_by(|a, b| b.cmp(a));
        files
    }
}

/// The entry in a file; what is none is as good as absent, and written anew.
fn read(path: &Path) -> Option<Entry> {
    let bytes = match read_bytes(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            log::debug!("{}: {error}", path.display());
            return None;
        }
    };
    Entry::parse(&bytes).inspect_err(|reason| log::debug!("{} {reason}; it is not used", path.display())).ok()
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("is no regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than an entry has makes it one that is cut short.
    File::open(path)?.take(MAX_LEN.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! A file that is either whole or not there.
//!
//! Owns: the partial file beside the wanted one, what becomes of it, and holes in it.
//! Must not know: what is written. Keeps: the wanted name appears only after every byte is on the disk; a failure or Ctrl-C leaves
//! neither the wanted file nor a partial one; a target is never overwritten by its own dump. The file holds what was in a
//! machine's memory, so only its owner may read it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{
    failure::{Failure, Outcome},
    interrupt::Unfinished,
    output::size,
};

/// Zeros for streams, which have no holes.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// What an existing file of the wanted name means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Existing {
    /// It stays, and the dump fails.
    Kept,
    /// It is replaced once the dump is whole.
    Replaced,
}

/// The output of a dump.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    existing: Existing,
    // Bytes and holes so far.
    len: u64,
    // The system ends a process that makes a file larger than this.
    limit: u64,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    /// A file that will get the wanted name.
    Partial { file: NamedTempFile, unfinished: Unfinished },
    /// Standard output, a device or a pipe: what is written is gone.
    Stream(File),
    /// Standard output.
    Stdout(io::Stdout),
}

impl OutputFile {
    /// Begins the file. `-` is standard output; `source` is a file that must not be overwritten.
    pub(crate) fn create(path: &Path, existing: Existing, source: Option<&Path>) -> Outcome<Self> {
        let begin = |sink| Ok(Self { path: path.to_owned(), existing, len: 0, limit: u64::MAX, sink });
        if path.as_os_str() == "-" {
            return begin(Sink::Stdout(io::stdout()));
        }
        let failed = |error| Failure::output(format!("creating {}", path.display()), error);
        let mut wanted = path.to_owned();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Failure::Usage(format!("{} is a directory; name the file to write", path.display())));
            }
            Ok(metadata) if !metadata.is_file() => {
                return begin(Sink::Stream(OpenOptions::new().write(true).open(path).map_err(failed)?));
            }
            Ok(_) => {
                wanted = path.canonicalize().map_err(failed)?;
                if source.and_then(|source| source.canonicalize().ok()).is_some_and(|source| source == wanted) {
                    return Err(Failure::Usage(format!("{} is the target itself; name another file", path.display())));
                }
                if existing == Existing::Kept {
                    return Err(Failure::Usage(format!("{} exists already; --force replaces it", path.display())));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let folder = folder_of(&wanted);
        if !folder.is_dir() {
            let problem = format!("the folder {} does not exist", folder.display());
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, problem)));
        }
        let file =
            tempfile::Builder::new().prefix(".memflow-").suffix(".partial").tempfile_in(folder).map_err(failed)?;
        let unfinished = Unfinished::new(file.path());
        Ok(Self { path: wanted, existing, len: 0, limit: limit(), sink: Sink::Partial { file, unfinished } })
    }

    /// True when the bytes go to standard output, where nothing else may be printed then.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self.sink, Sink::Stdout(_))
    }

    /// Bytes and holes written so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.grow_to(self.len.saturating_add(bytes.len() as u64))?;
        let written = match &mut self.sink {
            Sink::Partial { file, .. } => file.write_all(bytes),
            Sink::Stream(file) => file.write_all(bytes),
            Sink::Stdout(stdout) => stdout.write_all(bytes),
        };
        written.map_err(|error| self.failed(error))?;
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Appends zeros; a hole where the file can have one.
    pub(crate) fn skip(&mut self, len: u64) -> Outcome<()> {
        let end = self.len.saturating_add(len);
        self.grow_to(end)?;
        if let Sink::Partial { file, .. } = &mut self.sink {
            file.seek(SeekFrom::Start(end)).map_err(|error| self.failed(error))?;
            self.len = end;
            return Ok(());
        }
        while self.len < end {
            let step = usize::try_from(end - self.len).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write(ZEROS.get(..step).unwrap_or_default())?;
            if crate::interrupt::requested() {
                return Err(Failure::Interrupted);
            }
        }
        Ok(())
    }

    /// True when what was written can be written over.
    pub(crate) fn can_patch(&self) -> bool {
        matches!(self.sink, Sink::Partial { .. })
    }

    /// Writes over bytes that were written or skipped before.
    pub(crate) fn patch(&mut self, offset: u64, bytes: &[u8]) -> Outcome<()> {
        let Sink::Partial { file, .. } = &mut self.sink else {
            return Err(self.failed(io::ErrorKind::Unsupported.into()));
        };
        let end = self.len;
        let written = file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| file.write_all(bytes))
            .and_then(|()| file.seek(SeekFrom::Start(end)));
        written.map(drop).map_err(|error| self.failed(error))
    }

    /// Brings every byte to the disk, and then the file to its name.
    pub(crate) fn finish(self) -> Outcome<()> {
        let path = self.path;
        let failed = |error| Failure::output(format!("writing {}", path.display()), error);
        match self.sink {
            Sink::Stdout(mut stdout) => stdout.flush().map_err(failed),
            Sink::Stream(file) => match file.sync_all() {
                // Pipes and some devices have nothing to bring to a disk, and say so in these two ways.
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                    Ok(())
                }
                done => done.map_err(failed),
            },
            Sink::Partial { file, unfinished } => {
                file.as_file().set_len(self.len).map_err(failed)?;
                file.as_file().sync_all().map_err(failed)?;
                match self.existing {
                    Existing::Kept => file.persist_noclobber(&path).map_err(|error| failed(error.error))?,
                    Existing::Replaced => file.persist(&path).map_err(|error| failed(error.error))?,
                };
                drop(unfinished);
                sync_folder(&path).map_err(failed)
            }
        }
    }

    /// Refuses what the system would end the process for.
    fn grow_to(&self, end: u64) -> Outcome<()> {
        if end <= self.limit {
            return Ok(());
        }
        let problem = format!("files may have at most {} here (ulimit -f)", size(self.limit));
        Err(self.failed(io::Error::new(io::ErrorKind::FileTooLarge, problem)))
    }

    fn failed(&self, error: io::Error) -> Failure {
        Failure::output(format!("writing {} at offset {:#x}", self.path.display(), self.len), error)
    }
}

/// The largest file that this process may make. Past it comes SIGXFSZ, which ends the process before anything can be put right.
#[cfg(target_os = "linux")]
fn limit() -> u64 {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX)
}

/// Elsewhere it is not asked for.
#[cfg(not(target_os = "linux"))]
fn limit() -> u64 {
    u64::MAX
}

/// The folder that a file lies in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Brings the file's name to the disk.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Other systems do not open folders; they keep names in their own time.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect()
    }

    #[test]
    fn file_appears_whole_with_its_holes_as_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut file = OutputFile::create(&path, Existing::Kept, None).unwrap();
        file.write(b"ab").unwrap();
        file.skip(3).unwrap();
        file.write(b"c").unwrap();
        file.skip(2).unwrap();
        assert!(!path.exists());
        assert_eq!(file.len(), 8);
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ab\0\0\0c\0\0");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn unfinished_file_leaves_nothing_and_keeps_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, "old").unwrap();
        let failure = OutputFile::create(&path, Existing::Kept, None).unwrap_err();
        assert!(failure.to_string().ends_with("out exists already; --force replaces it"), "{failure}");
        let mut file = OutputFile::create(&path, Existing::Replaced, None).unwrap();
        file.write(b"new").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn target_is_never_overwritten_by_its_own_dump() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, "memory").unwrap();
        let failure = OutputFile::create(&path, Existing::Replaced, Some(&path)).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert_eq!(fs::read(&path).unwrap(), b"memory");
    }

    #[test]
    fn folder_that_does_not_exist_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let failure = OutputFile::create(&folder.path().join("no/out"), Existing::Kept, None).unwrap_err();
        assert_eq!(failure.exit_code(), 4);
        assert!(failure.to_string().ends_with("/no does not exist"), "{failure}");
    }
}

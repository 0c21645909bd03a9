//! Bytes by position: what every parser here reads from.
//!
//! Owns: [`ReadAt`], its two implementations, and the checked view through which parsers read.
//! Must not know: formats.
//! Keeps: nothing is allocated before the bytes that would fill it are known to be there; an error names file, offset and bytes.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use memflow_core::{
    Error, Result,
    memory::{ByteSource, PageBuffer, RunMap},
};
use zerocopy::{FromBytes, IntoBytes};

use crate::blocks::populated;

/// Bytes that are read by position. No shared seek offset: calls do not disturb each other.
pub trait ReadAt: Send + Sync {
    /// The name of the bytes, for messages.
    fn path(&self) -> &Path;

    /// How many bytes there are.
    fn size(&self) -> u64;

    /// Reads some bytes from `offset` on; zero when there are none.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// The bytes that are not known to be zeros, in order and apart; `None` where nothing is known.
    fn populated(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn path(&self) -> &Path {
        (**self).path()
    }

    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }

    fn populated(&self) -> Option<Vec<Range<u64>>> {
        (**self).populated()
    }
}

/// A file.
#[derive(Debug)]
pub struct FileInput {
    path: PathBuf,
    file: File,
    size: u64,
}

impl FileInput {
    /// Opens a file for reading, and for writing too if asked.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses; [`Error::File`] for what cannot hold a memory image: a directory, a pipe, a
    /// device that does not tell its length.
    pub fn open(path: &Path, writable: bool) -> Result<Self> {
        let opening = |source| open_error(path, writable, source);
        // Asked before opening, as opening a pipe waits for its other end.
        refuse_odd_files(path, &std::fs::metadata(path).map_err(opening)?)?;
        let file = File::options().read(true).write(writable).open(path).map_err(opening)?;
        let metadata = file.metadata().map_err(opening)?;
        refuse_odd_files(path, &metadata)?;
        let size = if metadata.is_file() { metadata.len() } else { device_size(path, &file)? };
        Ok(Self { path: path.to_owned(), file, size })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The open file, for keeps.
    pub fn into_file(self) -> File {
        self.file
    }
}

/// The error for a file that the system does not open.
fn open_error(path: &Path, writable: bool, source: io::Error) -> Error {
    let action = if writable { "opening for writing" } else { "opening" };
    let way_out = match source.kind() {
        io::ErrorKind::PermissionDenied if writable => " (open it read-only, or run as a user who may write it)",
        io::ErrorKind::PermissionDenied => " (run as a user who may read it)",
        _ => "",
    };
    Error::io(format!("{action} {}{way_out}", path.display()), source)
}

/// Directories, pipes and sockets hold no memory image.
fn refuse_odd_files(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    let problem = if metadata.is_dir() {
        "is a directory; name the memory image inside it"
    } else if is_stream(metadata) {
        "is a pipe or socket, which cannot be read by position; save it to a file first"
    } else {
        return Ok(());
    };
    Err(Error::File { path: path.to_owned(), problem: problem.into() })
}

#[cfg(unix)]
fn is_stream(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_fifo() || metadata.file_type().is_socket()
}

#[cfg(not(unix))]
fn is_stream(_: &std::fs::Metadata) -> bool {
    false
}

/// Length of a block or character device: where its end is.
fn device_size(path: &Path, mut file: &File) -> Result<u64> {
    let size = file.seek(SeekFrom::End(0)).unwrap_or(0);
    if size == 0 {
        let problem = "is a device that does not tell its length; copy what it holds to a file first";
        return Err(Error::File { path: path.to_owned(), problem: problem.into() });
    }
    Ok(size)
}

impl ReadAt for FileInput {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, buf, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.file, buf, offset)
    }
}

/// Bytes in memory.
#[derive(Clone, Copy, Debug)]
pub struct BytesInput<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl<'a> BytesInput<'a> {
    /// `bytes` under the name `path`.
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes }
    }
}

impl ReadAt for BytesInput<'_> {
    fn path(&self) -> &Path {
        self.path
    }

    fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut rest = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..)).unwrap_or_default();
        rest.read(buf)
    }
}

/// Bytes in memory, for keeps.
#[derive(Debug)]
pub(crate) struct OwnedInput {
    path: PathBuf,
    bytes: PageBuffer,
}

impl OwnedInput {
    /// `bytes` under the name `path`.
    pub(crate) fn new(path: &Path, bytes: PageBuffer) -> Self {
        Self { path: path.to_owned(), bytes }
    }
}

impl OwnedInput {
    /// A copy of `bytes`.
    ///
    /// # Errors
    /// As [`PageBuffer::append`].
    pub(crate) fn copy(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut copy = PageBuffer::new();
        copy.append(bytes)?;
        Ok(Self::new(path, copy))
    }
}

impl ReadAt for OwnedInput {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        BytesInput::new(&self.path, self.bytes.bytes()).size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        BytesInput::new(&self.path, self.bytes.bytes()).read_at(offset, buf)
    }
}

/// Any input as what memory is made over.
#[derive(Debug)]
pub(crate) struct InputSource<I>(I);

impl<I: ReadAt> InputSource<I> {
    /// The bytes of `input`.
    pub(crate) fn new(input: I) -> Self {
        Self(input)
    }
}

impl<I: ReadAt> ByteSource for InputSource<I> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn populated(&self, runs: &Arc<RunMap>) -> Arc<RunMap> {
        populated(runs, self.0.populated())
    }
}

/// Checked reading of one format from an input.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    input: &'a dyn ReadAt,
    format: &'static str,
}

impl<'a> View<'a> {
    /// Reads `input` as `format`, which errors will name.
    pub(crate) fn new(input: &'a dyn ReadAt, format: &'static str) -> Self {
        Self { input, format }
    }

    pub(crate) fn path(&self) -> &'a Path {
        self.input.path()
    }

    pub(crate) fn size(&self) -> u64 {
        self.input.size()
    }

    /// An error about the bytes at `offset`.
    pub(crate) fn bad(
        &self,
        offset: u64,
        expected: impl Into<Cow<'static, str>>,
        found: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::Format {
            path: self.path().to_owned(),
            format: self.format,
            offset,
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// The error for bytes that lie past the end.
    pub(crate) fn ends_early(&self, offset: u64, len: u64, what: &str) -> Error {
        self.bad(
            offset,
            format!("{len:#x} bytes of {what}"),
            format!("the end of the file at {:#x}; it looks truncated, copy it again", self.size()),
        )
    }

    /// Fills `buf` from `offset`; `what` names the bytes.
    pub(crate) fn fill(&self, offset: u64, buf: &mut [u8], what: &str) -> Result<()> {
        let len = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        if offset.checked_add(len).is_none_or(|end| end > self.size()) {
            return Err(self.ends_early(offset, len, what));
        }
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            match self.input.read_at(at, rest) {
                Ok(0) => return Err(self.bad(at, what.to_owned(), "the end of the file, which shrank meanwhile")),
                Ok(count) => {
                    rest = rest.get_mut(count..).unwrap_or_default();
                    at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What is compressed and makes no sense is damage of the file, as any other.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(self.bad(at, what.to_owned(), format!("damaged data ({error})")));
                }
                Err(error) => return Err(Error::io(format!("reading {} at {at:#x}", self.path().display()), error)),
            }
        }
        Ok(())
    }

    /// Reads a raw structure.
    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, offset: u64, what: &str) -> Result<T> {
        let mut value = T::new_zeroed();
        self.fill(offset, value.as_mut_bytes(), what)?;
        Ok(value)
    }

    /// Reads `len` bytes, which are known to be there before anything is allocated.
    pub(crate) fn bytes(&self, offset: u64, len: u64, what: &str) -> Result<Vec<u8>> {
        if offset.checked_add(len).is_none_or(|end| end > self.size()) {
            return Err(self.ends_early(offset, len, what));
        }
        let len = usize::try_from(len)
            .map_err(|_| self.bad(offset, what.to_owned(), "more bytes than this machine addresses"))?;
        let mut bytes = vec![0; len];
        self.fill(offset, &mut bytes, what)?;
        Ok(bytes)
    }

    /// True when the `len` bytes at both offsets are equal.
    pub(crate) fn same_bytes(&self, first: u64, second: u64, len: u64) -> Result<bool> {
        const CHUNK: usize = 64 << 10;
        let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut done: u64 = 0;
        while done < len {
            let step = usize::try_from(len.saturating_sub(done)).unwrap_or(CHUNK).min(CHUNK);
            let (Some(a), Some(b)) = (a.get_mut(..step), b.get_mut(..step)) else { return Ok(false) };
            self.fill(first.saturating_add(done), a, "memory")?;
            self.fill(second.saturating_add(done), b, "memory")?;
            if a != b {
                return Ok(false);
            }
            done = done.saturating_add(u64::try_from(step).unwrap_or(u64::MAX));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn missing_permission_names_the_file_and_the_way_out() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(
            open_error("/x/ram".as_ref(), false, denied()).to_string(),
            "opening /x/ram (run as a user who may read it): permission denied"
        );
        assert_eq!(
            open_error("/x/ram".as_ref(), true, denied()).to_string(),
            "opening for writing /x/ram (open it read-only, or run as a user who may write it): permission denied"
        );
    }

    #[test]
    fn reads_past_the_end_are_errors_before_anything_is_allocated() {
        let input = BytesInput::new("x".as_ref(), &[1, 2, 3]);
        let view = View::new(&input, "test");
        assert_eq!(view.bytes(1, 2, "bytes").unwrap(), [2, 3]);
        assert!(view.bytes(3, 0, "bytes").unwrap().is_empty());
        for (offset, len) in [(1, 3), (4, 0), (0, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX)] {
            assert!(matches!(view.bytes(offset, len, "bytes"), Err(Error::Format { .. })), "{offset} {len}");
        }
    }
}

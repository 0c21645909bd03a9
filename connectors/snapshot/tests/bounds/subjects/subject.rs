//! A small, whole file of some format, and where its structures lie.
//!
//! Owns: how such a file is opened. Must not know: formats, what is done to it.

use std::{
    fs,
    iter::once,
    ops::Range,
    path::{Path, PathBuf},
};

use memflow_core::Result;
use memflow_snapshot::{OpenOptions, Snapshot, open, open_bytes};
use tempfile::TempDir;

/// What decoders of zstd and xz reserve for the window that a frame names: 128 MiB and some. They touch as much of it as they unpack.
pub(crate) const WINDOW: u64 = 130 << 20;

/// A file, and what in it is not content of memory.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Where its structures lie, in order.
    pub(crate) structures: Vec<Range<usize>>,
    /// Bytes that a decoder reserves on the word of a header.
    pub(crate) reserved: u64,
    /// Where it lies, if it is nothing without the files beside it.
    folder: Option<Folder>,
}

/// Files that are opened together.
struct Folder {
    dir: TempDir,
    /// The one that is named to open them.
    opened: PathBuf,
    /// The one that suffers.
    changed: PathBuf,
}

impl Subject {
    pub(crate) fn new(name: &'static str, bytes: Vec<u8>, structures: impl IntoIterator<Item = Range<usize>>) -> Self {
        let structures: Vec<Range<usize>> = structures.into_iter().collect();
        assert!(
            structures.iter().all(|part| part.start < part.end && part.end <= bytes.len()),
            "{name}: {structures:?}"
        );
        Self { name, bytes, structures, reserved: 0, folder: None }
    }

    /// A file that is structure from end to end.
    pub(crate) fn whole(name: &'static str, bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self::new(name, bytes, once(0..len))
    }

    /// A file that is structure but for these pages, and for long runs of one byte.
    pub(crate) fn around(name: &'static str, bytes: Vec<u8>, pages: &[Vec<u8>]) -> Self {
        const LONG: usize = 64;
        let mut structures: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let rest = &bytes[at..];
            let same = rest.iter().take_while(|next| **next == byte).count();
            let page = pages.iter().find(|page| rest.starts_with(page)).map(Vec::len);
            match page.or(Some(same).filter(|same| *same >= LONG)) {
                Some(len) => at += len,
                None => {
                    match structures.last_mut().filter(|last| last.end == at) {
                        Some(last) => last.end += 1,
                        None => structures.push(at..at + 1),
                    }
                    at += 1;
                }
            }
        }
        Self::new(name, bytes, structures)
    }

    /// The same, unpacked by a decoder that takes a header at its word for its window.
    pub(crate) fn with_window(self) -> Self {
        Self { reserved: WINDOW, ..self }
    }

    /// The same, in a new folder under this name. `opened` is opened, be it this one or another of the folder.
    pub(crate) fn in_folder(self, changed: &str, opened: &str, others: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        others(dir.path());
        let folder = Folder { opened: dir.path().join(opened), changed: dir.path().join(changed), dir };
        Self { folder: Some(folder), ..self }
    }

    /// The offsets of all bytes of structures.
    pub(crate) fn places(&self) -> Vec<usize> {
        self.structures.iter().cloned().flatten().collect()
    }

    /// Puts bytes in its place, where it has one.
    pub(crate) fn put(&self, bytes: &[u8]) {
        let Some(Folder { dir, changed, .. }) = &self.folder else { return };
        // A new file each time: some file systems wait for the disk when one is written over.
        let _ = fs::remove_file(changed);
        fs::write(changed, bytes).unwrap_or_else(|error| panic!("{}: {error}", dir.path().display()));
    }

    /// Opens these bytes in place of its own. [`put`](Self::put) comes before.
    pub(crate) fn open(&self, bytes: &[u8], options: &OpenOptions<'_>) -> Result<Snapshot> {
        match &self.folder {
            Some(folder) => open(&folder.opened, options),
            None => open_bytes("bounds", bytes, options),
        }
    }
}

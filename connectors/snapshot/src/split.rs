//! From one file of a dump that was split to the others.
//!
//! The names of such files are whatever their writer chose, and none of them names another. So the files beside the one that is opened are
//! asked, or those that the caller names.
//!
//! Owns: the search in a folder. Must not know: how a dump says what it is a part of.
//! Keeps: a file that is not part of the dump is left alone, and so is one that cannot be read; the search ends after some thousand files.

use std::{path::Path, sync::Arc};

use memflow_core::Result;

use crate::{
    container::Container,
    detect::{Detected, detect},
    input::{FileInput, ReadAt},
    kdump,
    options::OpenOptions,
};

/// Most files in a folder that are looked at.
const MOST: usize = 4096;

/// The other files of the dump of which `first` is one; none if it was not split.
///
/// # Errors
/// [`Error::Io`](memflow_core::Error::Io) and [`Error::File`](memflow_core::Error::File) for files that the caller named and that
/// cannot be opened.
pub(crate) fn others(first: &Arc<dyn ReadAt>, options: &OpenOptions<'_>) -> Result<Vec<Arc<dyn ReadAt>>> {
    if !options.parts.is_empty() {
        let open = |path| Ok(Arc::new(FileInput::open(path, false)?) as Arc<dyn ReadAt>);
        return options.parts.iter().map(|path| open(path)).collect();
    }
    if !kdump::is_part(first)? {
        return Ok(Vec::new());
    }
    let mut taken = vec![first.clone()];
    for path in beside(first.path()) {
        match part_of(&taken, &path) {
            Ok(Some(input)) => taken.push(input),
            Ok(None) => {}
            Err(error) => {
                log::debug!("{}: not taken for a part of {}: {error}", path.display(), first.path().display())
            }
        }
    }
    Ok(taken.split_off(1))
}

/// The files in the folder of `path`, in the order of their names.
fn beside(path: &Path) -> Vec<std::path::PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = entries.flatten().take(MOST).filter(|entry| Some(entry.file_name().as_os_str()) != path.file_name());
    let mut files: Vec<_> = files.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The file at `path`, if it belongs to all of `taken`.
fn part_of(taken: &[Arc<dyn ReadAt>], path: &Path) -> Result<Option<Arc<dyn ReadAt>>> {
    let input: Arc<dyn ReadAt> = Arc::new(FileInput::open(path, false)?);
    if detect(&*input)? != Detected::Container(Container::Kdump) {
        return Ok(None);
    }
    for known in taken {
        if !kdump::belong_together(known, &input)? {
            return Ok(None);
        }
    }
    log::debug!(
        "{} is a part of {}",
        path.display(),
        taken.first().map_or(Path::new(""), |first| first.path()).display()
    );
    Ok(Some(input))
}

//! Folders with files of symbols: plain ones, and stores with a folder for each file and each build.
//!
//! Owns: where in a folder a file is. Must not know: where the folder came from, servers.
//! Keeps: a file counts when its identification is the one that was asked for; no file larger than any of symbols is read.
//! Source: Microsoft, "SymStore": `NAME/GUIDAGE/NAME`, below `xx/` with the first two letters where the folder has `index2.txt`.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use super::pdb::Pdb;
use crate::pe::CodeView;

/// The largest file of symbols that is read; that of a kernel has some 15 MiB.
pub(super) const MAX_FILE: u64 = 256 << 20;

/// What a folder has of a build.
#[derive(Debug)]
pub(super) enum Held {
    /// The file, and where it lies.
    This(Box<Pdb>, PathBuf),
    /// Nothing.
    Nothing,
    /// A file that is none or another one: where, and why.
    Other(PathBuf, String),
}

/// Where a store keeps a file.
pub(super) fn place(store: &Path, wanted: &CodeView) -> PathBuf {
    let store = if store.join("index2.txt").exists() {
        let letters: String = wanted.name.chars().take(2).collect();
        store.join(letters)
    } else {
        store.to_owned()
    };
    store.join(&wanted.name).join(format!("{}{:X}", wanted.guid, wanted.age)).join(&wanted.name)
}

/// Whether a name may be part of a path: it comes from the target's memory.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    !name.is_empty() && name.len() < 128 && !name.starts_with('.') && name.chars().all(plain)
}

/// What a folder has of a build, as a store or with the file in itself.
pub(super) fn held(folder: &Path, wanted: &CodeView) -> Held {
    let mut other = Held::Nothing;
    for path in [place(folder, wanted), folder.join(&wanted.name)] {
        match open(&path, wanted) {
            Ok(Some(pdb)) => return Held::This(Box::new(pdb), path),
            Ok(None) => {}
            Err(problem) => other = Held::Other(path, problem),
        }
    }
    other
}

/// The file at a path, if there is one and it is the one that is wanted.
///
/// # Errors
/// A sentence, when there is a file that is another one, or cannot be read.
pub(super) fn open(path: &Path, wanted: &CodeView) -> Result<Option<Pdb>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("no file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(format!("larger than any file of symbols ({} MiB)", MAX_FILE >> 20));
    }
    verified(&bytes, wanted).map(Some)
}

/// A file's contents, if it is the one that is wanted.
///
/// # Errors
/// A sentence on what it is instead.
pub(super) fn verified(bytes: &[u8], wanted: &CodeView) -> Result<Pdb, String> {
    let pdb = Pdb::parse(bytes)?;
    if pdb.guid != wanted.guid || pdb.age != wanted.age {
        return Err(format!(
            "symbols of another build: expected {} age {}, found {} age {}",
            wanted.guid, wanted.age, pdb.guid, pdb.age
        ));
    }
    Ok(pdb)
}

/// The user's own store, where files from servers are kept when nobody names another: in the folder for caches of this system.
pub fn default_store() -> Option<PathBuf> {
    // Relative paths in it are to be ignored: XDG Base Directory Specification.
    let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let caches = caches.or_else(|| {
        let home = std::env::home_dir().filter(|home| home.is_absolute())?;
        Some(home.join(match () {
            () if cfg!(windows) => "AppData/Local",
            () if cfg!(target_vendor = "apple") => "Library/Caches",
            () => ".cache",
        }))
    });
    caches.map(|caches| caches.join("memflow").join("symbols"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_from_the_target_cannot_leave_the_store() {
        assert!(is_plain_name("ntkrnlmp.pdb"));
        for name in ["", "..", ".hidden", "a/b", r"a\b", "C:x", "a\0", "n\u{fc}.pdb", &"x".repeat(200)] {
            assert!(!is_plain_name(name), "{name}");
        }
    }

    #[test]
    fn store_keeps_builds_apart() {
        let wanted = CodeView { name: "ntkrnlmp.pdb".into(), guid: "20C711BBD4C21AA5C45BC774BC7E0472".into(), age: 26 };
        let folder = tempfile::tempdir().unwrap();
        let place = |store: &Path| super::place(store, &wanted).strip_prefix(store).unwrap().to_owned();
        assert_eq!(place(folder.path()), Path::new("ntkrnlmp.pdb/20C711BBD4C21AA5C45BC774BC7E04721A/ntkrnlmp.pdb"));
        std::fs::write(folder.path().join("index2.txt"), "").unwrap();
        assert_eq!(place(folder.path()), Path::new("nt/ntkrnlmp.pdb/20C711BBD4C21AA5C45BC774BC7E04721A/ntkrnlmp.pdb"));
        assert!(matches!(held(folder.path(), &wanted), Held::Nothing));
        std::fs::write(folder.path().join("ntkrnlmp.pdb"), "no symbols").unwrap();
        assert!(matches!(held(folder.path(), &wanted), Held::Other(..)));
    }
}

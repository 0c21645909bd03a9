//! The order in which a kernel's symbols are looked for, and what became of each place.
//!
//! Owns: the order, the evidence. Must not know: formats, protocols.
//! Keeps: a server is asked only when the caller allows it; a file that the caller names and that is another one is an error, all else is
//! told and the search goes on.

use std::{fmt, path::Path};

use memflow_core::error::{Error, Result};

use super::{
    path::{Element, parse},
    pdb::Pdb,
    store::{self, Held},
};
use crate::{kernel::ProgressFn, pe::CodeView};

/// The server of Microsoft, which is asked where none is named.
#[cfg(feature = "download")]
const SERVER: &str = "https://msdl.microsoft.com/download/symbols";

/// Where files of symbols (PDB) may come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SymbolSources<'a> {
    /// A file that must be that of the kernel.
    pub pdb: Option<&'a Path>,
    /// Folders, stores and servers in the grammar of `_NT_SYMBOL_PATH`; `download` among them allows the servers to be asked.
    pub path: Option<&'a str>,
    /// Servers may be asked: those of the path, or that of Microsoft where it names none. Needs the feature `download`.
    pub download: bool,
    /// The store that files from servers go to where the path names none; `None` for [`default_store`](super::default_store).
    pub store: Option<&'a Path>,
}

impl SymbolSources<'_> {
    /// The file that the caller names.
    ///
    /// # Errors
    /// When it cannot be read, or is that of another build.
    fn named(&self, wanted: Option<&CodeView>) -> Result<Option<(Pdb, String)>> {
        let Some(path) = self.pdb else { return Ok(None) };
        let problem = |problem: String| Error::File { path: path.to_owned(), problem: problem.into() };
        let Some(wanted) = wanted else {
            return Err(problem(
                "the kernel's CodeView record is not in memory, so nobody can tell whose file this is".into(),
            ));
        };
        match store::open(path, wanted) {
            Ok(Some(pdb)) => Ok(Some((pdb, format!("{}", path.display())))),
            Ok(None) => Err(problem("there is no such file".into())),
            Err(text) => {
                Err(problem(format!("{text}; the kernel needs {} {}{:X}", wanted.name, wanted.guid, wanted.age)))
            }
        }
    }
}

/// What is told while symbols are looked for.
pub(crate) struct Told<'a> {
    pub(crate) evidence: &'a mut Vec<String>,
    pub(crate) progress: Option<&'a ProgressFn<'a>>,
}

impl Told<'_> {
    fn tell(&mut self, place: impl fmt::Display, became: impl fmt::Display) {
        self.evidence.push(format!("symbols: {place}: {became}"));
    }
}

/// The symbols of a kernel, and where they are from: the file that the caller names; and if nobody else knows the build, from the folders
/// and servers of the path.
///
/// # Errors
/// For a named file that is not the kernel's, a path that cannot be understood, and [`Error::Cancelled`].
pub(crate) fn lookup(
    sources: &SymbolSources<'_>,
    wanted: Option<&CodeView>,
    known: bool,
    told: &mut Told<'_>,
) -> Result<Option<(Pdb, String)>> {
    if let Some((pdb, path)) = sources.named(wanted)? {
        told.tell(&path, format!("symbols of this build, {} numbers", pdb.numbers.len()));
        return Ok(Some((pdb, path)));
    }
    let (elements, allowed) = parse("symbols", sources.path.unwrap_or_default())?;
    let download = sources.download || allowed;
    let Some(wanted) = wanted.filter(|_| !known && (download || !elements.is_empty())) else { return Ok(None) };
    if !store::is_plain_name(&wanted.name) {
        told.tell(wanted, "not a name that a store can have");
        return Ok(None);
    }
    let mut servers = 0usize;
    for element in &elements {
        let (folders, url) = match element {
            Element::Folder(folder) => (vec![folder.clone()], None),
            Element::Server { stores, url } => {
                let own = || sources.store.map(Path::to_owned).or_else(store::default_store);
                (stores.iter().filter_map(|folder| folder.clone().or_else(own)).collect(), Some(url))
            }
        };
        for folder in &folders {
            match store::held(folder, wanted) {
                Held::This(pdb, path) => {
                    told.tell(path.display(), format!("symbols of this build, {} numbers", pdb.numbers.len()));
                    return Ok(Some((*pdb, path.display().to_string())));
                }
                Held::Nothing => told.tell(folder.display(), format!("no {wanted}")),
                Held::Other(path, problem) => told.tell(path.display(), problem),
            }
        }
        if let Some(url) = url {
            servers = servers.saturating_add(1);
            if !download {
                told.tell(url, "not asked, as nobody allowed it; the argument `symbols=download` does");
            } else if let Some(found) = fetched(sources, url, folders.first().map(|folder| &**folder), wanted, told)? {
                return Ok(Some(found));
            }
        }
    }
    if download && servers == 0 {
        return by_default(sources, wanted, told);
    }
    Ok(None)
}

/// From the server of Microsoft, by way of the user's store.
#[cfg(feature = "download")]
fn by_default(sources: &SymbolSources<'_>, wanted: &CodeView, told: &mut Told<'_>) -> Result<Option<(Pdb, String)>> {
    let own = sources.store.map(Path::to_owned).or_else(store::default_store);
    if let Some(folder) = &own
        && let Held::This(pdb, path) = store::held(folder, wanted)
    {
        told.tell(path.display(), format!("symbols of this build, {} numbers", pdb.numbers.len()));
        return Ok(Some((*pdb, path.display().to_string())));
    }
    fetched(sources, SERVER, own.as_deref(), wanted, told)
}

#[cfg(not(feature = "download"))]
fn by_default(_: &SymbolSources<'_>, wanted: &CodeView, told: &mut Told<'_>) -> Result<Option<(Pdb, String)>> {
    told.tell(wanted, "not looked for on a server: this program was built without the feature `download`");
    Ok(None)
}

/// From a server, into a store.
#[cfg(feature = "download")]
fn fetched(
    sources: &SymbolSources<'_>,
    url: &str,
    store: Option<&Path>,
    wanted: &CodeView,
    told: &mut Told<'_>,
) -> Result<Option<(Pdb, String)>> {
    use super::download::{Failure, Limits, fetch};

    let own = || sources.store.map(Path::to_owned).or_else(store::default_store);
    let Some(store) = store.map(Path::to_owned).or_else(own) else {
        told.tell(url, "not asked, as there is no folder to keep files in; name one: `srv*FOLDER*SERVER`");
        return Ok(None);
    };
    let path = store::place(&store, wanted);
    match fetch(url, wanted, &path, &Limits::default(), told.progress) {
        Ok(pdb) => {
            told.tell(url, format!("symbols of this build, {} numbers, now at {}", pdb.numbers.len(), path.display()));
            Ok(Some((pdb, url.to_owned())))
        }
        Err(Failure::Cancelled) => Err(Error::Cancelled),
        Err(failure) => {
            log::warn!("symbols from {url}: {failure}");
            told.tell(url, failure);
            Ok(None)
        }
    }
}

#[cfg(not(feature = "download"))]
fn fetched(
    _: &SymbolSources<'_>,
    url: &str,
    _: Option<&Path>,
    _: &CodeView,
    told: &mut Told<'_>,
) -> Result<Option<(Pdb, String)>> {
    told.tell(url, "not asked: this program was built without the feature `download`");
    Ok(None)
}

//! The grammar of `_NT_SYMBOL_PATH`: folders and stores, one after the other.
//!
//! Owns: the grammar. Must not know: what is in a folder, what a server says.
//! Keeps: an element that means nothing is an error that names it; a server is only a name here.
//! Source: Microsoft, "Symbol path for Windows debuggers": elements between `;`, each a folder, `srv*FOLDER*...*SERVER`,
//! `symsrv*symsrv.dll*FOLDER*...*SERVER` or `cache*FOLDER`.

use std::path::PathBuf;

use memflow_core::error::{Error, Result};

/// The element that allows a server to be asked.
const DOWNLOAD: &str = "download";

/// Where files of symbols may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Element {
    /// A folder with files of symbols, or a store.
    Folder(PathBuf),
    /// Stores, the nearest first, and the server behind them.
    Server {
        /// Folders; `None` for the one that a program chooses.
        stores: Vec<Option<PathBuf>>,
        /// Its address.
        url: String,
    },
}

/// The elements of a path, and whether one of them allows a server to be asked.
///
/// # Errors
/// [`Error::Argument`] for an element that means nothing.
pub(super) fn parse(what: &'static str, path: &str) -> Result<(Vec<Element>, bool)> {
    let mut elements = Vec::new();
    let mut download = false;
    for text in path.split(';').map(str::trim).filter(|text| !text.is_empty()) {
        if text == DOWNLOAD {
            download = true;
            continue;
        }
        let lower = text.to_ascii_lowercase();
        let rest = |prefix: &str| lower.starts_with(prefix).then(|| text.get(prefix.len()..)).flatten();
        let stores = rest("srv*").or_else(|| rest("symsrv*symsrv.dll*")).or_else(|| rest("cache*"));
        match stores {
            Some(stores) => elements.extend(of_stores(what, text, stores)?),
            None if text.contains('*') || is_url(text) => return Err(unknown(what, text)),
            None => elements.push(Element::Folder(text.into())),
        }
    }
    Ok((elements, download))
}

/// What stands between stars: folders, and at the end perhaps a server.
fn of_stores(what: &'static str, text: &str, stores: &str) -> Result<Vec<Element>> {
    let mut folders: Vec<Option<PathBuf>> = Vec::new();
    let mut server = None;
    for part in stores.split('*').map(str::trim) {
        match part {
            _ if server.is_some() => return Err(unknown(what, text)),
            _ if is_url(part) => server = Some(part.to_owned()),
            "" => folders.push(None),
            folder => folders.push(Some(folder.into())),
        }
    }
    Ok(match server {
        Some(url) => vec![Element::Server { stores: folders, url }],
        None => folders.into_iter().flatten().map(Element::Folder).collect(),
    })
}

fn is_url(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.starts_with("https://") || lower.starts_with("http://")
}

fn unknown(what: &'static str, found: &str) -> Error {
    Error::Argument {
        what: what.into(),
        expected: "`download`, a folder, `srv*FOLDER*SERVER` or `cache*FOLDER`, with `;` between them".into(),
        found: found.to_owned(),
    }
}

/// Whether a path can be used.
///
/// # Errors
/// As for [`parse`].
pub(crate) fn check(what: &'static str, path: &str) -> Result<()> {
    parse(what, path).map(drop)
}

/// Whether the path of the environment can be used; if it cannot, the log says why.
pub(crate) fn is_understood(path: &str) -> bool {
    check("_NT_SYMBOL_PATH", path).inspect_err(|error| log::warn!("{error}; it is not used")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Vec<Element> {
        parse("symbols", path).unwrap().0
    }

    #[test]
    fn folders_and_servers_stand_in_their_order() {
        let url = "https://symbols.example/download".to_owned();
        let folder = |name: &str| Element::Folder(name.into());
        assert_eq!(of(r"/a;;C:\b ; c"), [folder("/a"), folder(r"C:\b"), folder("c")]);
        let server = |stores: &[Option<&str>]| Element::Server {
            stores: stores.iter().map(|store| store.map(PathBuf::from)).collect(),
            url: url.clone(),
        };
        assert_eq!(of(&format!("SRV*/a*{url}")), [server(&[Some("/a")])]);
        assert_eq!(of(&format!("symsrv*symsrv.dll*/a*/b*{url};/c")), [server(&[Some("/a"), Some("/b")]), folder("/c")]);
        assert_eq!(of(&format!("srv**{url}")), [server(&[None])]);
        assert_eq!(of(&format!("srv*{url}")), [server(&[])]);
        assert_eq!(of("cache*/a;srv*/b"), [folder("/a"), folder("/b")]);
        assert_eq!(parse("symbols", "download;/a").unwrap(), (vec![folder("/a")], true));
        assert_eq!(parse("symbols", "").unwrap(), (vec![], false));
    }

    #[test]
    fn element_that_means_nothing_is_told() {
        for path in ["https://symbols.example/x", "a*b", "srv*https://a.example*https://b.example", "x;bogus*y"] {
            let error = parse("symbols", path).unwrap_err().to_string();
            assert!(error.starts_with("symbols: expected `download`, a folder, `srv*"), "{error}");
        }
    }
}

//! `memflow cache`: what earlier runs learnt of kernels.
//!
//! Owns: the table, the JSON form, and what is removed. Must not know: what a file says.
//! Keeps: only files that are called like entries are removed.

use std::{fs, io, path::PathBuf, time::SystemTime};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    cache,
    failure::{Failure, Outcome, Status},
    output::{Align, Io, Table, escape, plural, size},
};

/// What entries are called: the system, the identification of the kernel's build, and this.
const SUFFIX: &str = ".layout";

/// Arguments of `memflow cache`.
#[derive(Args, Debug)]
#[command(after_help = "\
What is learnt of a kernel depends only on its build: where its structures have their members, and where its symbols lie in its image. \
It is kept by the build id, checked against the memory before it is used, and learnt again when it does not fit. --no-cache of any \
command neither uses nor keeps it.

JSON: {\"folder\", \"entries\": [{name, size, written}]}; written in seconds since 1970.")]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the kernels
    List,
    /// Forget them all
    Clear,
}

#[derive(Serialize)]
struct Document {
    folder: Option<PathBuf>,
    entries: Vec<Record>,
}

#[derive(Serialize)]
struct Record {
    name: String,
    size: u64,
    written: Option<u64>,
}

/// Lists or removes the entries.
pub(crate) fn run(args: &CacheArgs, io: &mut Io<'_>) -> Outcome {
    let folder = cache::folder();
    let files = folder.as_deref().map_or_else(|| Ok(Vec::new()), entries);
    let name = || folder.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default();
    let files = files.map_err(|error| Failure::Unreadable(format!("{}: {error}", name())))?;
    match args.action {
        Action::List => {
            let document =
                Document { folder: folder.clone(), entries: files.into_iter().map(|(_, file)| file).collect() };
            if io.json {
                io.document(&document)?;
            } else {
                io.table(&table(&document))?;
            }
        }
        Action::Clear => {
            let count = files.len();
            for (path, _) in files {
                let removed = fs::remove_file(&path);
                // Another process may have been faster.
                if let Err(error) = removed.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) }) {
                    return Err(Failure::output(format!("removing {}", path.display()), error));
                }
            }
            io.note(format!("{} forgotten", plural(count as u64, "kernel")));
        }
    }
    Ok(Status::Complete)
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The files of the folder that are called like entries, by name.
fn entries(folder: &std::path::Path) -> io::Result<Vec<(PathBuf, Record)>> {
    let files = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        files => files?,
    };
    let mut entries = Vec::new();
    for file in files {
        let file = file?;
        let Some(name) = file.file_name().to_str().and_then(|name| name.strip_suffix(SUFFIX)).map(str::to_owned) else {
            continue;
        };
        let Ok(metadata) = file.metadata() else { continue };
        let written = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let written = written.map(|time| time.as_secs());
        entries.push((file.path(), Record { name, size: metadata.len(), written }));
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries)
}

fn table(document: &Document) -> Table {
    let mut table = Table::new(&[("KERNEL", Align::Left), ("SIZE", Align::Right)]);
    for entry in &document.entries {
        table.row(vec![escape(&entry.name).into_owned(), size(entry.size)]);
    }
    table
}

//! The verdict over each plugin in a file.
//!
//! Owns: [`analyze`] and the order of its questions. Must not know: file formats, the format of descriptors.
//! Keeps: a plugin that is not taken takes no other one of its file with it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fmt, fs::File};

use super::{
    Machine, Rejection,
    container::{Container, open, section},
    source::{FileSource, Source},
};
use crate::plugin::descriptor::{AbiVersion, BadDescriptor, Descriptor, HOST_TARGET};

/// How exports of plugins of memflow 0.2 begin.
const MEMFLOW_02: [&str; 2] = ["MEMFLOW_CONNECTOR_", "MEMFLOW_OS_"];

/// What plugins are to be loaded into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostAbi<'a> {
    /// The ABI's version.
    pub version: AbiVersion,
    /// The target triple.
    pub target: &'a str,
}

impl HostAbi<'static> {
    /// This build, with the version of the ABI that it has.
    pub const fn this_build(version: AbiVersion) -> Self {
        Self { version, target: HOST_TARGET }
    }
}

/// A shared object with a descriptor section.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AnalyzedFile {
    /// What it is for; of a file for several architectures, the part for this one.
    pub machine: Machine,
    /// Its plugins in their order, each taken or not.
    pub plugins: Vec<Result<Descriptor, RejectedPlugin>>,
}

/// A plugin that is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RejectedPlugin {
    /// Which of the file it is, from 0.
    pub index: usize,
    /// Its name, if the descriptor has a good one.
    pub name: Option<String>,
    /// The descriptor, if that itself is a good one.
    pub descriptor: Option<Box<Descriptor>>,
    /// Why it is not taken.
    pub reason: Rejection,
}

impl fmt::Display for RejectedPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.descriptor, &self.name) {
            (Some(plugin), _) => write!(f, "{} `{}` {}", plugin.kind, plugin.name, plugin.version)?,
            (None, Some(name)) => write!(f, "descriptor of `{name}`")?,
            (None, None) => write!(f, "descriptor {}", self.index)?,
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for RejectedPlugin {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Looks at the bytes of a file, and says of each plugin in it whether `host` can load it.
///
/// Nothing of the file runs, and any bytes may be given. The file's size bounds the time; memory is bounded by the descriptors,
/// which are at most 1 MiB, and by the file's own headers.
///
/// # Errors
/// What is wrong with the file as a whole. [`Rejection::is_uninteresting`] is true for those that never were meant to be plugins.
pub fn analyze(bytes: &[u8], host: &HostAbi<'_>) -> Result<AnalyzedFile, Rejection> {
    look(&bytes, host)
}

/// As [`analyze`], of a file, of which only what is looked at is read: its headers, the descriptors, and the names of its exports.
/// It may change meanwhile.
///
/// # Errors
/// As [`analyze`]; [`Rejection::Unreadable`] when a part cannot be read.
pub fn analyze_file(file: &File, host: &HostAbi<'_>) -> Result<AnalyzedFile, Rejection> {
    let source = FileSource::new(file).map_err(|error| Rejection::Unreadable {
        what: "the file",
        offset: 0,
        problem: error.to_string(),
    })?;
    look(&source, host)
}

fn look(source: &dyn Source, host: &HostAbi<'_>) -> Result<AnalyzedFile, Rejection> {
    let expected = Machine::of_target(host.target);
    let file = open(source, expected.as_ref())?;
    let machine = file.machine();
    if file.descriptors().is_empty() {
        // Without a section, an unreadable symbol table is no news: it is the file of someone else.
        return Err(match file.export_beginning_with(&MEMFLOW_02) {
            Ok(Some(symbol)) => Rejection::Memflow02 { symbol },
            _ => Rejection::NotAPlugin { format: machine.format },
        });
    }
    if expected.is_some_and(|expected| !expected.takes(&machine)) {
        return Err(Rejection::OtherMachine { found: machine, host: host.target.to_owned() });
    }
    let section = section(&*file)?;
    file.check_loaded()?;
    let mut plugins: Vec<_> = Descriptor::parse_section(&section)?
        .into_iter()
        .enumerate()
        .map(|(index, plugin)| match plugin {
            Ok(plugin) => match misfit(&plugin, host) {
                Some(reason) => Err(reject(index, plugin, reason)),
                None => Ok(plugin),
            },
            Err(BadDescriptor { index, name, error }) => {
                Err(RejectedPlugin { index, name, descriptor: None, reason: error.into() })
            }
        })
        .collect();
    check_entries(&mut plugins, &*file);
    Ok(AnalyzedFile { machine, plugins })
}

fn misfit(plugin: &Descriptor, host: &HostAbi<'_>) -> Option<Rejection> {
    if !host.version.accepts(plugin.abi) {
        return Some(Rejection::Abi { found: plugin.abi, host: host.version });
    }
    if plugin.target != host.target {
        return Some(Rejection::Target { found: plugin.target.clone(), host: host.target.to_owned() });
    }
    None
}

/// Looks up the entry tables of all plugins that are still good, in one pass over the file's exports.
fn check_entries(plugins: &mut [Result<Descriptor, RejectedPlugin>], file: &dyn Container) {
    let names: Vec<&str> = plugins.iter().flatten().map(|plugin| plugin.entry.as_str()).collect();
    let answers: Vec<Option<Rejection>> = match file.entries(&names) {
        Ok(problems) => problems
            .into_iter()
            .zip(&names)
            .map(|(problem, name)| Some(Rejection::Entry { symbol: (*name).to_owned(), problem: problem? }))
            .collect(),
        Err(reason) => vec![Some(reason); names.len()],
    };
    let good = plugins.iter_mut().enumerate().filter(|(_, plugin)| plugin.is_ok());
    for ((index, slot), reason) in good.zip(answers) {
        if let (Ok(plugin), Some(reason)) = (&*slot, reason) {
            *slot = Err(reject(index, plugin.clone(), reason));
        }
    }
}

fn reject(index: usize, plugin: Descriptor, reason: Rejection) -> RejectedPlugin {
    RejectedPlugin { index, name: Some(plugin.name.clone()), descriptor: Some(Box::new(plugin)), reason }
}

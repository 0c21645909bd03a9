//! What the analyser asks of a shared object, whatever its format.
//!
//! Owns: [`Container`], recognising the format, and the bytes of the descriptor section.
//! Must not know: what descriptors say.
//! Keeps: what a format's reader cannot find is an answer, never a guess.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::HashMap;

use super::{
    EntryProblem, Format, Machine, Rejection,
    elf::Elf,
    fat,
    macho::MachO,
    pe::Pe,
    reader::{Reader, wide},
    source::Source,
};
use crate::plugin::descriptor::{DescriptorError, MAX_SECTION, excerpt};

/// Longest name of a symbol that is looked at; entries of descriptors are shorter.
pub(super) const MAX_SYMBOL: usize = 256;
/// Most symbols of a file. The largest libraries have some hundred thousand.
pub(super) const MAX_SYMBOLS: u64 = 1 << 20;
/// Most sections with descriptors; linkers make one.
const MAX_SECTIONS: usize = 64;

/// A section in a file.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// False if it is only reserved, with no bytes in the file.
    pub(super) in_file: bool,
}

/// A shared object whose headers have been read.
pub(super) trait Container {
    fn reader(&self) -> Reader<'_>;

    /// What it is for.
    fn machine(&self) -> Machine;

    /// The sections with descriptors.
    fn descriptors(&self) -> &[Place];

    /// Asks that everything that is loaded from the file is there. A loader maps what is not, and the first access ends the process.
    fn check_loaded(&self) -> Result<(), Rejection>;

    /// What is wrong with each of these entry tables, if something is; in the order of the names.
    fn entries(&self, names: &[&str]) -> Result<Vec<Option<EntryProblem>>, Rejection>;

    /// An export whose name begins with one of these.
    fn export_beginning_with(&self, prefixes: &[&str]) -> Result<Option<String>, Rejection>;
}

/// Reads the headers of a shared object of any format; of one that holds several, those for `host`.
pub(super) fn open<'a>(source: &'a dyn Source, host: Option<&Machine>) -> Result<Box<dyn Container + 'a>, Rejection> {
    // The format is told by the bytes; until then, any.
    let whole = Reader::new(Format::Elf, source);
    let file = match fat::slice(whole.of(Format::MachO), host)? {
        Some(slice) => slice,
        None => whole,
    };
    let start = file.bytes("its first bytes", 0, file.size().min(8))?;
    Ok(match start.as_slice() {
        [0x7f, b'E', b'L', b'F', ..] => Box::new(Elf::open(file.of(Format::Elf))?),
        [b'M', b'Z', ..] => Box::new(Pe::open(file.of(Format::Pe))?),
        [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] | [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] => {
            Box::new(MachO::open(file.of(Format::MachO), &start)?)
        }
        [] => return Err(Rejection::NotSharedObject { found: "an empty file".into() }),
        _ => {
            let start = excerpt(&start);
            let found = format!("begins with `{start}`, expected the first bytes of an ELF, PE or Mach-O file");
            return Err(Rejection::NotSharedObject { found: found.into() });
        }
    })
}

/// Adds a section to those found.
pub(super) fn push_place(places: &mut Vec<Place>, place: Place, reader: &Reader<'_>) -> Result<(), Rejection> {
    if places.len() == MAX_SECTIONS {
        let found = format!("more than {MAX_SECTIONS}");
        return Err(reader.malformed("sections with descriptors", place.offset, "one", found));
    }
    places.push(place);
    Ok(())
}

/// The bytes of all descriptor sections.
pub(super) fn section(container: &dyn Container) -> Result<Vec<u8>, Rejection> {
    let (reader, places) = (container.reader(), container.descriptors());
    let total = places.iter().fold(0, |total: u64, place| total.saturating_add(place.len));
    if total > wide(MAX_SECTION) {
        return Err(DescriptorError::SectionTooLarge { found: total, limit: wide(MAX_SECTION) }.into());
    }
    if places.iter().all(|place| !place.in_file) {
        return Err(Rejection::EmptySection { format: reader.format() });
    }
    let mut section = Vec::new();
    for place in places.iter().filter(|place| place.in_file) {
        section.append(&mut reader.bytes("the descriptor section", place.offset, place.len)?);
    }
    Ok(section)
}

/// A format whose exports are a list.
pub(super) trait Exports {
    /// What an export leads to.
    type Export;

    /// Hands each exported name, of that at most `most` bytes, and what it leads to, to `take`, until that returns true.
    fn each_export(&self, most: usize, take: impl FnMut(&[u8], Self::Export) -> bool) -> Result<(), Rejection>;

    /// What keeps an export from being an entry table.
    fn entry_problem(&self, export: Self::Export) -> Option<EntryProblem>;
}

/// [`Container::entries`] of a list.
pub(super) fn entries(file: &impl Exports, names: &[&str]) -> Result<Vec<Option<EntryProblem>>, Rejection> {
    let mut wanted = Wanted::new(names);
    file.each_export(wanted.enough(), |name, export| {
        wanted.export(name, || file.entry_problem(export));
        false
    })?;
    Ok(wanted.answers)
}

/// [`Container::export_beginning_with`] of a list.
pub(super) fn export_beginning_with(file: &impl Exports, prefixes: &[&str]) -> Result<Option<String>, Rejection> {
    let mut found = None;
    file.each_export(MAX_SYMBOL, |name, _| {
        let begins = prefixes.iter().any(|prefix| name.starts_with(prefix.as_bytes()));
        found = begins.then(|| excerpt(name));
        begins
    })?;
    Ok(found)
}

/// Answers for the names that are looked for, given all exports one after the other.
struct Wanted<'n> {
    by_name: HashMap<&'n [u8], Vec<usize>>,
    longest: usize,
    answers: Vec<Option<EntryProblem>>,
}

impl<'n> Wanted<'n> {
    fn new(names: &[&'n str]) -> Self {
        let mut by_name: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            by_name.entry(name.as_bytes()).or_default().push(index);
        }
        let longest = names.iter().map(|name| name.len()).max().unwrap_or_default();
        Self { by_name, longest, answers: vec![Some(EntryProblem::NotExported); names.len()] }
    }

    /// Bytes of a name that tell whether it is one of these.
    const fn enough(&self) -> usize {
        self.longest.saturating_add(1)
    }

    /// Takes note of an export. The first of a name counts.
    fn export(&mut self, name: &[u8], problem: impl FnOnce() -> Option<EntryProblem>) {
        if name.len() > self.longest {
            return;
        }
        let Some(indices) = self.by_name.remove(name) else { return };
        let problem = problem();
        for index in indices {
            if let Some(answer) = self.answers.get_mut(index) {
                *answer = problem;
            }
        }
    }
}

//! What is known of a kernel's structures, and from where.
//!
//! Owns: [`Layout`]: names, numbers and evidence. Must not know: how any of it was found.
//! Keeps: what was found first stays; a source that contradicts it is told. Nothing is without evidence.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{borrow::Cow, collections::BTreeMap};

use memflow_core::error::{Error, Result};

/// A number, and where it is from.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Known {
    value: u64,
    evidence: Cow<'static, str>,
}

/// Offsets of members (`_EPROCESS.Peb`), bits, sizes (`sizeof(_EPROCESS)`) and places in the image (`rva:PsLoadedModuleList`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Layout {
    known: BTreeMap<Cow<'static, str>, Known>,
    conflicts: Vec<String>,
}

impl Layout {
    /// Adds a number, unless there is one of that name.
    pub(crate) fn add(&mut self, name: impl Into<Cow<'static, str>>, value: u64, from: impl Into<Cow<'static, str>>) {
        let (name, evidence) = (name.into(), from.into());
        match self.known.get(&name) {
            Some(known) if known.value != value => {
                let Known { value: first, evidence: source } = known;
                self.conflicts.push(format!("{name} is {first:#x} by {source}, {value:#x} by {evidence}"));
            }
            Some(_) => {}
            None => {
                self.known.insert(name, Known { value, evidence });
            }
        }
    }

    /// The number of that name, if it is known.
    pub(crate) fn find(&self, name: &str) -> Option<u64> {
        self.known.get(name).map(|known| known.value)
    }

    /// The number of that name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not known.
    pub(crate) fn get(&self, name: &'static str) -> Result<u64> {
        self.find(name).ok_or_else(|| Error::NotFound { what: "known offset of", name: name.to_owned() })
    }

    /// How many numbers there are from each source, by name of the source, and what contradicts them.
    pub(crate) fn summary(&self) -> Vec<String> {
        let mut by_source: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, known) in &self.known {
            by_source.entry(&known.evidence).or_default().push(format!("{name} {:#x}", known.value));
        }
        let line = |(source, names): (&str, Vec<String>)| match names.as_slice() {
            [] | [_] | [_, _] | [_, _, _] => format!("offsets: {}: {source}", names.join(", ")),
            [first, second, ..] => {
                format!("offsets: {first}, {second} and {} more: {source}", names.len().saturating_sub(2))
            }
        };
        let lines = by_source.into_iter().map(line);
        lines.chain(self.conflicts.iter().map(|conflict| format!("offsets: {conflict}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    #[test]
    fn first_source_counts_and_contradiction_is_told() {
        let mut layout = Layout::default();
        layout.add("_EPROCESS.Peb", 0x3f8, "the table");
        layout.add("_EPROCESS.Peb", 0x3f8, "KDBG");
        layout.add("_EPROCESS.Peb", 0x550, "PsGetProcessPeb");
        assert_eq!(layout.find("_EPROCESS.Peb"), Some(0x3f8));
        assert!(matches!(layout.get("_EPROCESS.Token"), Err(Error::NotFound { .. })));
        assert_eq!(
            layout.summary(),
            [
                "offsets: _EPROCESS.Peb 0x3f8: the table",
                "offsets: _EPROCESS.Peb is 0x3f8 by the table, 0x550 by PsGetProcessPeb",
            ]
        );
    }
}

//! The kernel's types, as they are asked for.
//!
//! Owns: [`Types`]: questions, and which of them were answered before. Must not know: how an answer is found in type information, where
//! answers are kept from one run to the next.
//! Keeps: answers that are known already are of the same bytes as those that are still to be found: whoever brings them has checked it.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use memflow_core::{Error, Result};

use super::index::Index;
use crate::memo::{Keep, Memo};

/// Where a member lies in a structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Bytes from the start of the structure. For a bit-field, to the byte that holds its first bit.
    pub offset: u64,
    /// Size in bytes. For a bit-field, the bytes that hold its bits.
    pub size: u64,
    /// Bits from the lowest bit at `offset`, and width in bits, of a bit-field.
    pub bits: Option<(u8, u8)>,
}

/// An answer about types. Questions are words with a tabulator between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// To `field`, structure, path.
    Field(Option<Field>),
    /// To `size`, structure.
    Size(Option<u64>),
    /// To `has`, structure.
    Exists(bool),
    /// To `constant`, enumeration, constant.
    Constant(Option<i64>),
}

/// The kernel's types, from its BTF section.
pub struct Types {
    bytes: Arc<Vec<u8>>,
    /// The section, parsed when the first question comes up whose answer is not known.
    index: OnceLock<Index>,
    memo: Option<Arc<Memo<Answer>>>,
}

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Types").field("section", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Types {
    /// Parses a whole BTF section.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the offset in the section at which it contradicts itself or uses a kind that is not known.
    pub fn parse(btf: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = Arc::new(btf.into());
        let index = Index::parse(bytes.clone())?;
        Ok(Self { bytes, index: OnceLock::from(index), memo: None })
    }

    /// The types of a section that was parsed before without an error, with the answers that were found in it.
    pub(crate) fn remembered(bytes: Vec<u8>, memo: Arc<Memo<Answer>>) -> Self {
        Self { bytes: Arc::new(bytes), index: OnceLock::new(), memo: Some(memo) }
    }

    /// Keeps the answers from now on.
    pub(crate) fn remember(&mut self) -> Arc<Memo<Answer>> {
        self.memo.get_or_insert_with(|| Arc::new(Memo::new())).clone()
    }

    /// The section.
    pub(crate) fn section(&self) -> &[u8] {
        &self.bytes
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            Index::parse(self.bytes.clone()).unwrap_or_else(|error| {
                // These very bytes were parsed before, by this very code.
                log::error!("types that were parsed before cannot be: {error}");
                Index::default()
            })
        })
    }

    /// The answer to a question, which is only put into words if answers are kept.
    fn answer(&self, question: impl FnOnce() -> String, find: impl FnOnce(&Index) -> Answer) -> Answer {
        match &self.memo {
            Some(memo) => memo.answer(&question(), || (find(self.index()), Keep::Yes)),
            None => find(self.index()),
        }
    }

    /// The member that `path` names in `structure`, or `None` when the structure or the member does not exist.
    ///
    /// A path is member names joined by dots; each but the last must be a structure, a union or an array of them (`mem.base` is in
    /// the first element, `mem[2].base` in the third). Members of anonymous structures and unions are found by their own name. A
    /// pointer ends a path: what it points to is another structure.
    pub fn find_field(&self, structure: &str, path: &str) -> Option<Field> {
        let question = || format!("field\t{structure}\t{path}");
        match self.answer(question, |index| Answer::Field(index.find_field(structure, path))) {
            Answer::Field(field) => field,
            _ => self.index().find_field(structure, path),
        }
    }

    /// As [`find_field`](Self::find_field).
    ///
    /// # Errors
    /// [`Error::NotFound`] that names the structure, or the structure and the member.
    pub fn field(&self, structure: &str, path: &str) -> Result<Field> {
        if let Some(field) = self.find_field(structure, path) {
            return Ok(field);
        }
        Err(if self.has(structure) {
            Error::NotFound { what: "field", name: format!("{structure}.{path}") }
        } else {
            Error::NotFound { what: "type", name: structure.to_owned() }
        })
    }

    /// Size in bytes of the structure, union, typedef or basic type of that name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such type.
    pub fn size_of(&self, structure: &str) -> Result<u64> {
        let question = || format!("size\t{structure}");
        let size = match self.answer(question, |index| Answer::Size(index.find_size(structure))) {
            Answer::Size(size) => size,
            _ => self.index().find_size(structure),
        };
        size.ok_or_else(|| Error::NotFound { what: "type", name: structure.to_owned() })
    }

    /// True when the structure, union, typedef, enumeration or basic type exists.
    pub fn has(&self, structure: &str) -> bool {
        let question = || format!("has\t{structure}");
        match self.answer(question, |index| Answer::Exists(index.has(structure))) {
            Answer::Exists(exists) => exists,
            _ => self.index().has(structure),
        }
    }

    /// The value of a constant. An empty `enumeration` looks in all of them, named or not.
    pub fn enum_value(&self, enumeration: &str, constant: &str) -> Option<i64> {
        let question = || format!("constant\t{enumeration}\t{constant}");
        match self.answer(question, |index| Answer::Constant(index.enum_value(enumeration, constant))) {
            Answer::Constant(value) => value,
            _ => self.index().enum_value(enumeration, constant),
        }
    }
}

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
use crate::memo::Memo;

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
    /// The section, read and parsed when the first question comes up whose answer is not known; why not, if that failed.
    index: OnceLock<Result<Index, String>>,
    read: Option<Box<ReadSection>>,
    memo: Option<Arc<Memo<Answer>>>,
}

/// Reads the section.
type ReadSection = dyn Fn() -> Result<Vec<u8>> + Send + Sync;

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Types").field("parsed", &self.index.get().is_some()).finish_non_exhaustive()
    }
}

impl Types {
    /// Parses a whole BTF section.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the offset in the section at which it contradicts itself or uses a kind that is not known.
    pub fn parse(btf: impl Into<Vec<u8>>) -> Result<Self> {
        let index = Index::parse(btf.into())?;
        Ok(Self { index: OnceLock::from(Ok(index)), read: None, memo: None })
    }

    /// The types of a section that was parsed before without an error, with the answers that were found in it.
    pub(crate) fn remembered(read: Box<ReadSection>, memo: Arc<Memo<Answer>>) -> Self {
        Self { index: OnceLock::new(), read: Some(read), memo: Some(memo) }
    }

    /// Keeps the answers from now on.
    pub(crate) fn remember(&mut self) -> Arc<Memo<Answer>> {
        self.memo.get_or_insert_with(|| Arc::new(Memo::new())).clone()
    }

    /// The section, if it was read.
    pub(crate) fn section(&self) -> Option<&[u8]> {
        self.index.get()?.as_ref().ok().map(Index::section)
    }

    /// The parsed section.
    fn index(&self) -> Result<&Index> {
        let index = self.index.get_or_init(|| {
            let bytes = self.read.as_ref().map_or_else(|| Ok(Vec::new()), |read| read());
            // These very bytes were parsed before, so only reading them can fail.
            bytes.and_then(Index::parse).map_err(|error| error.to_string())
        });
        index.as_ref().map_err(|why| Error::Unsupported {
            what: "looking up types of this kernel".to_owned(),
            why: format!("they cannot be read again: {why}"),
        })
    }

    /// The answer to a question, which is only put into words if answers are kept.
    fn answer(&self, question: impl FnOnce() -> String, find: impl Fn(&Index) -> Answer) -> Result<Answer> {
        let Some(memo) = &self.memo else { return self.index().map(find) };
        let (question, mut failure) = (question(), None);
        let found = memo.answer(&question, || match self.index() {
            Ok(index) => Some(find(index)),
            Err(error) => {
                failure = Some(error);
                None
            }
        });
        found.ok_or_else(|| failure.unwrap_or(Error::NotFound { what: "answer", name: question }))
    }

    /// The member that `path` names in `structure`, or `None` when the structure or the member does not exist.
    ///
    /// A path is member names joined by dots; each but the last must be a structure, a union or an array of them (`mem.base` is in
    /// the first element, `mem[2].base` in the third). Members of anonymous structures and unions are found by their own name. A
    /// pointer ends a path: what it points to is another structure.
    pub fn find_field(&self, structure: &str, path: &str) -> Option<Field> {
        told(self.look_up(structure, path))?
    }

    fn look_up(&self, structure: &str, path: &str) -> Result<Option<Field>> {
        let question = || format!("field\t{structure}\t{path}");
        match self.answer(question, |index| Answer::Field(index.find_field(structure, path)))? {
            Answer::Field(field) => Ok(field),
            _ => Ok(self.index()?.find_field(structure, path)),
        }
    }

    /// As [`find_field`](Self::find_field).
    ///
    /// # Errors
    /// [`Error::NotFound`] that names the structure, or the structure and the member.
    pub fn field(&self, structure: &str, path: &str) -> Result<Field> {
        if let Some(field) = self.look_up(structure, path)? {
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
        let size = match self.answer(question, |index| Answer::Size(index.find_size(structure)))? {
            Answer::Size(size) => size,
            _ => self.index()?.find_size(structure),
        };
        size.ok_or_else(|| Error::NotFound { what: "type", name: structure.to_owned() })
    }

    /// True when the structure, union, typedef, enumeration or basic type exists.
    pub fn has(&self, structure: &str) -> bool {
        let question = || format!("has\t{structure}");
        match told(self.answer(question, |index| Answer::Exists(index.has(structure)))) {
            Some(Answer::Exists(exists)) => exists,
            _ => told(self.index()).is_some_and(|index| index.has(structure)),
        }
    }

    /// The value of a constant. An empty `enumeration` looks in all of them, named or not.
    pub fn enum_value(&self, enumeration: &str, constant: &str) -> Option<i64> {
        let question = || format!("constant\t{enumeration}\t{constant}");
        match told(self.answer(question, |index| Answer::Constant(index.enum_value(enumeration, constant)))) {
            Some(Answer::Constant(value)) => value,
            _ => told(self.index())?.enum_value(enumeration, constant),
        }
    }
}

/// What there is, where a failure can be told in the log only: types that were read once cannot be read again.
fn told<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(|error| log::error!("{error}")).ok()
}

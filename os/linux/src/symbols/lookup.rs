//! What is known of a kernel's symbols: its whole table, or the few addresses that were found without it.
//!
//! Owns: [`Symbols`], which never lets a missing table look like a kernel without a symbol. Must not know: how a table is encoded,
//! how the few addresses were found.
//! Keeps: without a table, the answer to a name that was not found is "unknown", not "no".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use memflow_core::{Error, Result, VirtAddr, VirtRange};

use super::{SymbolTable, raw::RawTable};
use crate::memo::{Keep, Memo};

/// The symbols of the kernel itself.
///
/// A kernel whose symbol table is damaged or gone has none to list, and only a few addresses that were found in another way.
#[derive(Debug)]
pub struct Symbols(Source);

#[derive(Debug)]
enum Source {
    Table(Box<Whole>),
    Few {
        known: Vec<(String, VirtAddr)>,
        /// Why there is no table.
        why: String,
    },
}

/// A whole table, expanded when the first question comes up whose answer is not known.
struct Whole {
    raw: RawTable,
    table: OnceLock<SymbolTable>,
    memo: Option<Remembered>,
}

/// Answers that were given: offsets in the kernel's image, as addresses differ from boot to boot.
struct Remembered {
    image: VirtRange,
    offsets: Arc<Memo<Option<u64>>>,
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole").field("place", &self.raw.place).finish_non_exhaustive()
    }
}

impl Whole {
    fn table(&self) -> Result<&SymbolTable> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = SymbolTable::decode(self.raw.clone())?;
        Ok(self.table.get_or_init(|| table))
    }

    fn address_of(&self, name: &str) -> Option<VirtAddr> {
        // A table that is not expanded yet was expanded before, from the same bytes, so this does not fail.
        let table = || self.table().inspect_err(|error| log::error!("symbols that were read before: {error}")).ok();
        let Some(Remembered { image, offsets }) = &self.memo else { return table()?.address_of(name) };
        let mut outside = None;
        let offset = offsets.answer(name, || {
            let Some(table) = table() else { return (None, Keep::No) };
            match table.address_of(name) {
                Some(address) if image.contains(address) => (address.offset_from(image.start()), Keep::Yes),
                Some(address) => {
                    outside = Some(address);
                    (None, Keep::No)
                }
                None => (None, Keep::Yes),
            }
        });
        outside.or_else(|| offset.map(|offset| image.start().wrapping_add(offset)))
    }
}

/// What is known of one name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sought {
    At(VirtAddr),
    /// The kernel has no such symbol.
    Absent,
    /// There is no table that would say.
    Unknown,
}

impl From<SymbolTable> for Symbols {
    fn from(table: SymbolTable) -> Self {
        let raw = table.raw().clone();
        Self(Source::Table(Box::new(Whole { raw, table: OnceLock::from(table), memo: None })))
    }
}

impl Symbols {
    /// The symbols of a table that was expanded before without an error, with answers that were found in it: offsets in the image of
    /// the kernel, which lies at `image`.
    pub(crate) fn remembered(raw: RawTable, image: VirtRange, offsets: Arc<Memo<Option<u64>>>) -> Self {
        let memo = Some(Remembered { image, offsets });
        Self(Source::Table(Box::new(Whole { raw, table: OnceLock::new(), memo })))
    }

    /// Keeps answers from now on, of symbols in the kernel's image; `None` without a table.
    pub(crate) fn remember(&mut self, image: VirtRange) -> Option<Arc<Memo<Option<u64>>>> {
        let Source::Table(whole) = &mut self.0 else { return None };
        let memo = || Remembered { image, offsets: Arc::new(Memo::new()) };
        Some(whole.memo.get_or_insert_with(memo).offsets.clone())
    }

    /// The bytes of the table; `None` without one.
    pub(crate) fn raw(&self) -> Option<&RawTable> {
        match &self.0 {
            Source::Table(whole) => Some(&whole.raw),
            Source::Few { .. } => None,
        }
    }

    /// A few addresses, and why there are no more.
    pub(crate) fn few(known: Vec<(String, VirtAddr)>, why: impl Into<String>) -> Self {
        Self(Source::Few { known, why: why.into() })
    }

    /// The kernel's symbol table.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it was not found, with what became of the search.
    pub fn table(&self) -> Result<&SymbolTable> {
        match &self.0 {
            Source::Table(whole) => whole.table(),
            Source::Few { why, .. } => Err(Error::Unsupported {
                what: "looking up symbols of this kernel".to_owned(),
                why: format!("the kernel's symbol table was not found: {why}"),
            }),
        }
    }

    /// The address of the symbol of that name: of the first global one, else of the first. `None` also when the symbol table was not
    /// found and the address is not one of the few that are known without it: [`table`](Self::table) tells.
    pub fn address_of(&self, name: &str) -> Option<VirtAddr> {
        match &self.0 {
            Source::Table(whole) => whole.address_of(name),
            Source::Few { known, .. } => known.iter().find(|(known, _)| known == name).map(|(_, address)| *address),
        }
    }

    /// As [`address_of`](Self::address_of).
    ///
    /// # Errors
    /// [`Error::NotFound`] when no symbol of that name is known, and with it, why there is no symbol table if there is none.
    pub fn require(&self, name: &str) -> Result<VirtAddr> {
        self.address_of(name).ok_or_else(|| {
            let error = Error::NotFound { what: "symbol", name: name.to_owned() };
            match &self.0 {
                Source::Table(_) => error,
                Source::Few { why, .. } => {
                    error.context(format!("the kernel's symbol table was not found ({why}), and without it"))
                }
            }
        })
    }

    /// What is known of a symbol that not every kernel has.
    pub(crate) fn sought(&self, name: &str) -> Sought {
        match (self.address_of(name), &self.0) {
            (Some(address), _) => Sought::At(address),
            (None, Source::Table(_)) => Sought::Absent,
            (None, Source::Few { .. }) => Sought::Unknown,
        }
    }

    /// Number and encoding, or which few there are; for evidence.
    pub(crate) fn describe(&self) -> String {
        match &self.0 {
            Source::Table(whole) => whole.raw.place.describe(),
            Source::Few { known, .. } => {
                let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
                format!("no symbol table, only the addresses of {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn few_addresses_are_not_taken_for_a_table() {
        let symbols = Symbols::few(vec![("init_task".to_owned(), VirtAddr::new(0x1000))], "wiped");
        assert_eq!(symbols.require("init_task").unwrap(), VirtAddr::new(0x1000));
        assert_eq!(symbols.sought("init_task"), Sought::At(VirtAddr::new(0x1000)));
        assert_eq!(symbols.sought("modules"), Sought::Unknown);
        let error = symbols.require("modules").unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(
            error.to_string(),
            "the kernel's symbol table was not found (wiped), and without it: no symbol modules in this target"
        );
        assert_eq!(
            symbols.table().unwrap_err().to_string(),
            "looking up symbols of this kernel is not supported: the kernel's symbol table was not found: wiped"
        );
        assert_eq!(symbols.describe(), "no symbol table, only the addresses of init_task");
    }
}

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

use super::{
    SymbolTable,
    raw::{Place, RawTable},
};
use crate::memo::Memo;

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

/// A whole table.
struct Whole {
    place: Place,
    /// Read and expanded when the first question comes up whose answer is not known; why not, if that failed.
    table: OnceLock<Result<SymbolTable, String>>,
    read: Option<Box<ReadTable>>,
    memo: Option<Remembered>,
}

/// Reads the table.
type ReadTable = dyn Fn() -> Result<RawTable> + Send + Sync;

/// Answers that were given: offsets in the kernel's image, as addresses differ from boot to boot.
struct Remembered {
    image: VirtRange,
    offsets: Arc<Memo<Option<u64>>>,
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Whole {
    fn table(&self) -> Result<&SymbolTable> {
        let table = self.table.get_or_init(|| {
            let read = self.read.as_ref().ok_or_else(|| "nobody says how".to_owned())?;
            // These very bytes were expanded before, so only reading them can fail.
            read().and_then(SymbolTable::decode).map_err(|error| error.to_string())
        });
        table.as_ref().map_err(|why| Error::Unsupported {
            what: "looking up symbols of this kernel".to_owned(),
            why: format!("they cannot be read again: {why}"),
        })
    }

    fn address_of(&self, name: &str) -> Result<Option<VirtAddr>> {
        let Some(Remembered { image, offsets }) = &self.memo else { return Ok(self.table()?.address_of(name)) };
        let mut other = Ok(None);
        let offset = offsets.answer(name, || match self.table().map(|table| table.address_of(name)) {
            Ok(Some(address)) if image.contains(address) => Some(address.offset_from(image.start())),
            Ok(None) => Some(None),
            outside => {
                other = outside;
                None
            }
        });
        match offset {
            Some(offset) => Ok(offset.map(|offset| image.start().wrapping_add(offset))),
            None => other,
        }
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
        let place = table.raw().place;
        Self(Source::Table(Box::new(Whole { place, table: OnceLock::from(Ok(table)), read: None, memo: None })))
    }
}

impl Symbols {
    /// The symbols of a table that was expanded before without an error, with answers that were found in it: offsets in the image of
    /// the kernel, which lies at `image`.
    pub(crate) fn remembered(
        place: Place,
        read: Box<ReadTable>,
        image: VirtRange,
        offsets: Arc<Memo<Option<u64>>>,
    ) -> Self {
        let memo = Some(Remembered { image, offsets });
        Self(Source::Table(Box::new(Whole { place, table: OnceLock::new(), read: Some(read), memo })))
    }

    /// Keeps answers from now on, of symbols in the kernel's image; `None` without a table.
    pub(crate) fn remember(&mut self, image: VirtRange) -> Option<Arc<Memo<Option<u64>>>> {
        let Source::Table(whole) = &mut self.0 else { return None };
        let memo = || Remembered { image, offsets: Arc::new(Memo::new()) };
        Some(whole.memo.get_or_insert_with(memo).offsets.clone())
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
        self.look_up(name).inspect_err(|error| log::error!("{error}")).ok()?
    }

    /// The address, if it is known; a failure to read a table that was read in an earlier run.
    fn look_up(&self, name: &str) -> Result<Option<VirtAddr>> {
        match &self.0 {
            Source::Table(whole) => whole.address_of(name),
            Source::Few { known, .. } => Ok(known.iter().find(|(known, _)| known == name).map(|(_, address)| *address)),
        }
    }

    /// As [`address_of`](Self::address_of).
    ///
    /// # Errors
    /// [`Error::NotFound`] when no symbol of that name is known, and with it, why there is no symbol table if there is none.
    pub fn require(&self, name: &str) -> Result<VirtAddr> {
        self.look_up(name)?.ok_or_else(|| {
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
        match (self.look_up(name), &self.0) {
            (Ok(Some(address)), _) => Sought::At(address),
            (Ok(None), Source::Table(_)) => Sought::Absent,
            (Ok(None), Source::Few { .. }) => Sought::Unknown,
            (Err(error), _) => {
                log::error!("{error}");
                Sought::Unknown
            }
        }
    }

    /// Number and encoding, or which few there are; for evidence.
    pub(crate) fn describe(&self) -> String {
        match &self.0 {
            Source::Table(whole) => whole.place.describe(),
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

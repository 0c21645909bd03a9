//! The bytes of a symbol table, and where they lie.
//!
//! Owns: [`Place`], [`RawTable`]: reading the parts, each with one read. Must not know: what the bytes mean.
//! Keeps: lengths are within limits before anything is read.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::Arc;

use memflow_core::{MemoryView, MemoryViewExt, Result, VirtAddr};

use super::{
    kallsyms::{Encoding, MAX_SYMBOLS, Values, corrupt},
    structure::INDEX_LEN,
};

/// Largest table of names taken: twice what half a million symbols need.
pub(super) const MAX_NAMES: u64 = 64 << 20;
/// Most bytes of the tokens' texts; an index entry has 16 bits, and a token is not longer than a name.
const MAX_TEXTS: u64 = 128 << 10;

/// Where the parts of a table lie, and how values are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) symbols: u32,
    pub(crate) names: VirtAddr,
    /// An upper limit.
    pub(crate) names_len: u64,
    pub(crate) token_table: VirtAddr,
    /// An upper limit.
    pub(crate) texts_len: u64,
    pub(crate) token_index: VirtAddr,
    pub(crate) encoding: Encoding,
    pub(crate) values: VirtAddr,
    /// Where the base of relative values is stored.
    pub(crate) base: Option<VirtAddr>,
}

impl Place {
    /// Checks that no part is larger than any kernel's.
    pub(crate) fn check(&self) -> Result<()> {
        let within = |what: &str, found: u64, limit: u64| {
            if found > limit {
                return Err(corrupt(self.names, format!("at most {limit} {what}"), found.to_string()));
            }
            Ok(())
        };
        within("symbols", self.symbols.into(), MAX_SYMBOLS.into())?;
        within("bytes of names", self.names_len, MAX_NAMES)?;
        within("bytes of tokens", self.texts_len, MAX_TEXTS)
    }

    fn values_len(&self) -> u64 {
        u64::from(self.symbols).saturating_mul(Values::width(self.encoding))
    }

    /// Address and length of each part, in the order of [`RawTable::parts`].
    pub(crate) fn ranges(&self) -> [(VirtAddr, u64); 4] {
        [
            (self.names, self.names_len),
            (self.token_table, self.texts_len),
            (self.token_index, INDEX_LEN),
            (self.values, self.values_len()),
        ]
    }

    /// Number and encoding, for evidence.
    pub(crate) fn describe(&self) -> String {
        let encoding = match self.encoding {
            Encoding::Absolute => "absolute addresses",
            Encoding::Relative => "offsets from a base",
            Encoding::AbsolutePercpu => "offsets from a base, per-CPU ones absolute",
            Encoding::PlaceRelative => "offsets from their place",
        };
        format!("{} symbols (kallsyms, {encoding})", self.symbols)
    }
}

/// The bytes of a table.
#[derive(Clone)]
pub(crate) struct RawTable {
    pub(crate) place: Place,
    pub(super) names: Arc<Vec<u8>>,
    pub(super) texts: Arc<Vec<u8>>,
    pub(super) index: Arc<Vec<u8>>,
    pub(super) values: Arc<Vec<u8>>,
    /// The base of relative encodings; for place-relative ones the address of the values.
    pub(super) base: u64,
}

impl RawTable {
    /// Reads the parts.
    pub(crate) fn read(view: &dyn MemoryView, place: Place) -> Result<Self> {
        place.check()?;
        let (values, base) = read_values(view, &place)?;
        Ok(Self {
            place,
            names: Arc::new(view.read_bytes(place.names, place.names_len)?),
            texts: Arc::new(view.read_bytes(place.token_table, place.texts_len)?),
            index: Arc::new(view.read_bytes(place.token_index, INDEX_LEN)?),
            values: Arc::new(values),
            base,
        })
    }

    /// The parts, all that the table's content depends on but the base.
    pub(crate) fn parts(&self) -> [&[u8]; 4] {
        [&self.names, &self.texts, &self.index, &self.values]
    }
}

/// The values, and their base.
pub(super) fn read_values(view: &dyn MemoryView, place: &Place) -> Result<(Vec<u8>, u64)> {
    let base = match place.base {
        Some(base) => u64::from_le(view.read::<u64>(base)?),
        None => place.values.as_u64(),
    };
    Ok((view.read_bytes(place.values, place.values_len())?, base))
}

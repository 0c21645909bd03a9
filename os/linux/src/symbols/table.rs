//! SymbolTable by name and by address.
//!
//! Owns: [`SymbolTable`], the index over a compressed table. Must not know: the table's encoding, where it came from.
//! Keeps: addresses ascend (checked when made), so a search by address is binary; equal hashes are told apart by the names themselves.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::fmt;

use memflow_core::{Error, Result, VirtAddr, os::SymbolInfo};

use super::{
    kallsyms::{Encoding, Names, Values, corrupt, hash},
    raw::RawTable,
};

/// No symbol: the end of a chain.
const NONE: u32 = u32::MAX;

/// The kernel's own symbol table (kallsyms): its symbols, as `/proc/kallsyms` lists them to root.
///
/// Names stay compressed; a name is looked up by its hash and a listing expands one name after the other.
pub struct SymbolTable {
    names: Names,
    values: Values,
    /// First symbol of each bucket; the number of buckets is a power of two.
    buckets: Vec<u32>,
    /// The next symbol in the bucket of each symbol.
    next: Vec<u32>,
    /// What it was made of.
    raw: RawTable,
}

impl fmt::Debug for SymbolTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SymbolTable")
            .field("count", &self.names.count())
            .field("encoding", &self.values.encoding)
            .finish_non_exhaustive()
    }
}

impl SymbolTable {
    /// Joins names, which are those of `raw`, and its values; the names come back with an error.
    pub(super) fn new(raw: RawTable, names: Names) -> Result<Self, Box<(Error, Names)>> {
        let values = Values { encoding: raw.place.encoding, bytes: raw.values.clone(), base: raw.base };
        if let Err(error) = check_order(raw.place.values, &names, &values) {
            return Err(Box::new((error, names)));
        }
        let size = names.hashes().len().next_power_of_two();
        let mut buckets = vec![NONE; size];
        let mut next = vec![NONE; names.hashes().len()];
        // Backwards, so that a chain lists symbols in ascending order.
        for (index, (hash, next)) in (0..names.count()).rev().zip(names.hashes().iter().zip(&mut next).rev()) {
            if let Some(bucket) = bucket(*hash, size).and_then(|at| buckets.get_mut(at)) {
                *next = *bucket;
                *bucket = index;
            }
        }
        Ok(Self { names, values, buckets, next, raw })
    }

    /// The names again, to be joined with other values.
    pub(super) fn into_names(self) -> Names {
        self.names
    }

    /// What it was made of.
    pub(crate) fn raw(&self) -> &RawTable {
        &self.raw
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.next.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// How values are encoded in this kernel.
    pub(super) fn encoding(&self) -> Encoding {
        self.values.encoding
    }

    /// True when values are relative to their own place.
    pub(crate) fn is_place_relative(&self) -> bool {
        self.values.encoding == Encoding::PlaceRelative
    }

    /// The address of the symbol of that name: of the first global one, else of the first.
    pub fn address_of(&self, name: &str) -> Option<VirtAddr> {
        let mut text = Vec::new();
        let mut first = None;
        for index in self.chain(name.as_bytes()) {
            if let Some(kind) = self.matches(index, name.as_bytes(), &mut text) {
                if kind.is_ascii_uppercase() {
                    return self.values.get(index);
                }
                first = first.or(Some(index));
            }
        }
        first.and_then(|index| self.values.get(index))
    }

    /// As [`address_of`](Self::address_of).
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no symbol of that name.
    pub fn require(&self, name: &str) -> Result<VirtAddr> {
        self.address_of(name).ok_or_else(|| Error::NotFound { what: "symbol", name: name.to_owned() })
    }

    /// All symbols of that name, by address: static functions and variables may share one.
    pub fn named(&self, name: &str) -> Vec<SymbolInfo> {
        let mut text = Vec::new();
        self.chain(name.as_bytes())
            .filter(|index| self.matches(*index, name.as_bytes(), &mut text).is_some())
            .filter_map(|index| self.info(index, &mut Vec::new()))
            .collect()
    }

    /// All symbols, by address.
    pub fn iter(&self) -> impl Iterator<Item = SymbolInfo> + '_ {
        let mut text = Vec::new();
        (0..self.names.count()).filter_map(move |index| self.info(index, &mut text))
    }

    /// All symbols, by address.
    pub fn all(&self) -> Vec<SymbolInfo> {
        self.iter().collect()
    }

    /// The symbol at or before `address` and the distance to it in bytes; of several at one address the first. `None` outside
    /// the kernel's image (`_text` to `_end`).
    pub fn at(&self, address: VirtAddr) -> Option<(SymbolInfo, u64)> {
        let start = self.address_of("_text").or_else(|| self.address_of("_stext"))?;
        let end = self.address_of("_end")?;
        if address < start || address >= end {
            return None;
        }
        let before = self.lower_bound(address.checked_add(1)?).checked_sub(1)?;
        let value = self.values.get(before)?;
        let first = self.lower_bound(value);
        Some((self.info(first, &mut Vec::new())?, address.offset_from(value)?))
    }

    /// Index of the first symbol at or after `address`.
    fn lower_bound(&self, address: VirtAddr) -> u32 {
        let (mut low, mut high) = (0, self.names.count());
        while low < high {
            let middle = low.midpoint(high);
            if self.values.get(middle).is_some_and(|value| value < address) {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low
    }

    /// SymbolTable whose name's hash falls into the same bucket.
    fn chain(&self, name: &[u8]) -> impl Iterator<Item = u32> + '_ {
        let wanted = hash(name);
        let start = bucket(wanted, self.buckets.len()).and_then(|at| self.buckets.get(at).copied());
        let next = |index: u32| self.next.get(usize::try_from(index).ok()?).copied().filter(|next| *next != NONE);
        std::iter::successors(start.filter(|index| *index != NONE), move |index| next(*index)).filter(move |index| {
            usize::try_from(*index).ok().and_then(|index| self.names.hashes().get(index)) == Some(&wanted)
        })
    }

    /// The type letter of a symbol if it has that name.
    fn matches(&self, index: u32, name: &[u8], text: &mut Vec<u8>) -> Option<u8> {
        self.names.expand(index, text)?;
        text.split_first().filter(|(_, found)| *found == name).map(|(kind, _)| *kind)
    }

    fn info(&self, index: u32, text: &mut Vec<u8>) -> Option<SymbolInfo> {
        self.names.expand(index, text)?;
        let (kind, name) = text.split_first()?;
        Some(SymbolInfo {
            address: self.values.get(index)?,
            kind: char::from(*kind),
            name: String::from_utf8_lossy(name).into_owned(),
            module: None,
        })
    }
}

/// Checks that there is a value for each name and that they ascend.
fn check_order(at: VirtAddr, names: &Names, values: &Values) -> Result<()> {
    let mut last = VirtAddr::new(0);
    for index in 0..names.count() {
        let value = values
            .get(index)
            .ok_or_else(|| corrupt(at, format!("{} values", names.count()), format!("{} bytes", values.bytes.len())))?;
        if value < last {
            return Err(corrupt(at, "ascending addresses", format!("{value} after {last} at symbol {index}")));
        }
        last = value;
    }
    Ok(())
}

/// The bucket of a hash. The last letters of a name only reach the low bits of the hash, the multiplication spreads them.
fn bucket(hash: u64, buckets: usize) -> Option<usize> {
    let mask = u64::try_from(buckets).ok()?.checked_sub(1)?;
    usize::try_from((hash.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) & mask).ok()
}

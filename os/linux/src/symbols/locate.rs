//! Where the kernel's symbol table lies, and in which encoding.
//!
//! Owns: reading the tables in bulk, choosing the encoding. Must not know: names beyond the ones that check a choice.
//! Keeps: an encoding is only taken when every known symbol has its known address and all addresses ascend.
//! Source: Linux `kernel/vmcore_info.c` (table addresses, since v6.0), `scripts/kallsyms.c` (order and encodings).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fmt, sync::Arc};

use memflow_core::{MemoryView, MemoryViewExt, Result, VirtAddr};

use super::{
    SymbolTable,
    kallsyms::{Encoding, MAX_SYMBOLS, Names, Tokens, corrupt},
    raw::{MAX_NAMES, Place, RawTable, read_values},
    structure,
};
use crate::{bytes::Bytes, vmcoreinfo::VmcoreInfo};

/// Start of the kernel's half of the address space, with five levels (the larger half).
const KERNEL_HALF: u64 = 0xff00_0000_0000_0000;

/// What is known of the kernel before its symbols are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Addresses of symbols that the table must confirm.
    pub(crate) anchors: Vec<(&'static str, VirtAddr)>,
}

/// What the addresses of a view are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// Those of the kernel.
    Virtual,
    /// Physical ones; the image of the kernel is contiguous in them.
    Physical,
}

/// Addresses of the tables, and how values are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tables {
    symbols: u32,
    names: VirtAddr,
    /// An upper limit.
    names_len: u64,
    token_table: VirtAddr,
    token_index: VirtAddr,
}

/// Where values lie and how they are encoded: one way to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    encoding: Encoding,
    values: VirtAddr,
    /// Where the base of relative values is stored.
    base: Option<VirtAddr>,
}

impl SymbolTable {
    /// The table whose place VMCOREINFO gives (since v6.0); `None` when it does not give it.
    pub(crate) fn from_note(view: &dyn MemoryView, note: &VmcoreInfo, known: &Known) -> Option<Result<Self>> {
        let count = note.symbol("kallsyms_num_syms")?;
        let names = note.symbol("kallsyms_names")?;
        let token_table = note.symbol("kallsyms_token_table")?;
        let token_index = note.symbol("kallsyms_token_index")?;
        let base = note.symbol("kallsyms_relative_base");
        let choices = match (note.symbol("kallsyms_offsets"), note.symbol("kallsyms_addresses")) {
            (Some(values), _) if base.is_some() => {
                vec![
                    Choice { encoding: Encoding::AbsolutePercpu, values, base },
                    Choice { encoding: Encoding::Relative, values, base },
                ]
            }
            (Some(values), _) => vec![Choice { encoding: Encoding::PlaceRelative, values, base: None }],
            (None, Some(values)) => vec![Choice { encoding: Encoding::Absolute, values, base: None }],
            (None, None) => return None,
        };
        let names_len = token_table.offset_from(names).filter(|len| *len <= MAX_NAMES);
        Some(view.read::<u32>(count).and_then(|symbols| {
            let symbols = u32::from_le(symbols);
            let names_len = names_len
                .ok_or_else(|| corrupt(names, "names before the tokens", format!("tokens at {token_table}")))?;
            let tables = Tables { symbols, names, names_len, token_table, token_index };
            Self::read(view, tables, &choices, known, Addresses::Virtual)
        }))
    }

    /// The table around a [`LANDMARK`](structure::LANDMARK) at `digits`; nothing before `start` is looked at. `None` when there are
    /// no tokens around it.
    pub(crate) fn from_landmark(
        view: &dyn MemoryView,
        digits: VirtAddr,
        start: VirtAddr,
        known: &Known,
        addresses: Addresses,
    ) -> Option<Result<Self>> {
        match structure::around(view, digits, start) {
            Ok(None) => None,
            Ok(Some(found)) => Some(Self::from_structure(view, found, known, addresses)),
            Err(error) => Some(Err(error)),
        }
    }

    fn from_structure(
        view: &dyn MemoryView,
        found: structure::Found,
        known: &Known,
        addresses: Addresses,
    ) -> Result<Self> {
        let structure::Found { count, symbols, names, names_len, token_table, token_index } = found;
        let offsets_len = u64::from(symbols).saturating_mul(4);
        let align = |at: VirtAddr, to: u64| VirtAddr::new(at.as_u64().next_multiple_of(to));
        // Since v6.4 the values follow the index of the tokens, before they came first.
        let after = token_index.wrapping_add(structure::INDEX_LEN);
        let base_after = align(align(after, 8).wrapping_add(offsets_len), 8);
        let base_before = count.wrapping_sub(8);
        let before = base_before.wrapping_sub(offsets_len.next_multiple_of(8));
        let relative = |encoding, values, base| Choice { encoding, values, base: Some(base) };
        let choices = [
            relative(Encoding::AbsolutePercpu, align(after, 8), base_after),
            relative(Encoding::Relative, align(after, 8), base_after),
            Choice { encoding: Encoding::PlaceRelative, values: align(after, 4), base: None },
            relative(Encoding::AbsolutePercpu, before, base_before),
            relative(Encoding::Relative, before, base_before),
            Choice { encoding: Encoding::Absolute, values: align(after, 8), base: None },
            Choice {
                encoding: Encoding::Absolute,
                values: count.wrapping_sub(offsets_len.saturating_mul(2)),
                base: None,
            },
        ];
        let tables = Tables { symbols, names, names_len, token_table, token_index };
        Self::read(view, tables, &choices, known, addresses)
    }

    /// Reads the tables, each with one read, and picks the first way to read values that makes sense.
    fn read(
        view: &dyn MemoryView,
        tables: Tables,
        choices: &[Choice],
        known: &Known,
        addresses: Addresses,
    ) -> Result<Self> {
        let Tables { symbols: count, names, names_len, token_table, token_index } = tables;
        if count == 0 || count > MAX_SYMBOLS {
            return Err(corrupt(names, format!("1 to {MAX_SYMBOLS} symbols"), format!("{count}")));
        }
        let index = Arc::new(view.read_bytes(token_index, structure::INDEX_LEN)?);
        let last = Bytes(&index).u16(structure::INDEX_LEN.saturating_sub(2)).unwrap_or(0);
        // The last token is one of the short ones; the texts end soon after its start.
        let texts_len =
            token_index.offset_from(token_table).unwrap_or(u64::MAX).min(u64::from(last).saturating_add(256));
        let texts = Arc::new(view.read_bytes(token_table, texts_len)?);
        let tokens = parse_tokens(token_table, &texts, &index)?;
        let bytes = Arc::new(view.read_bytes(names, names_len)?);
        let mut parsed = Names::parse(names, bytes.clone(), count, tokens)?;
        let mut refused = Vec::new();
        for choice in choices {
            let Choice { encoding, values, base } = *choice;
            let place =
                Place { symbols: count, names, names_len, token_table, texts_len, token_index, encoding, values, base };
            let raw = match read_values(view, &place) {
                Ok((values, base)) => RawTable {
                    place,
                    names: bytes.clone(),
                    texts: texts.clone(),
                    index: index.clone(),
                    values: Arc::new(values),
                    base,
                },
                Err(why) => {
                    refused.push(format!("{choice}: {why}"));
                    continue;
                }
            };
            parsed = match Self::new(raw, parsed) {
                Ok(symbols) => match symbols.confirm(known, addresses, names) {
                    Ok(()) => return Ok(symbols),
                    Err(why) => {
                        refused.push(format!("{choice}: {why}"));
                        symbols.into_names()
                    }
                },
                Err(refusal) => {
                    let (why, names) = *refusal;
                    refused.push(format!("{choice}: {why}"));
                    names
                }
            };
        }
        Err(corrupt(names, "values that agree with known symbols", refused.join("; ")))
    }

    /// The table of bytes that were read.
    pub(crate) fn decode(raw: RawTable) -> Result<Self> {
        let Place { symbols, names, token_table, .. } = raw.place;
        let tokens = parse_tokens(token_table, &raw.texts, &raw.index)?;
        let names = Names::parse(names, raw.names.clone(), symbols, tokens)?;
        Self::new(raw, names).map_err(|refusal| refusal.0)
    }

    /// Checks what is known of addresses without this table; `table` is where a part of it lies.
    fn confirm(&self, known: &Known, addresses: Addresses, table: VirtAddr) -> Result<()> {
        for (name, expected) in &known.anchors {
            let found = self.require(name)?;
            if found != *expected {
                return Err(corrupt(table, format!("{name} at {expected}"), found.to_string()));
            }
        }
        let text = self.require("_text").or_else(|_| self.require("_stext"))?;
        let end = self.require("_end")?;
        // Values relative to their place are of the same kind as the place, all others are always virtual.
        let same_kind = addresses == Addresses::Virtual || self.encoding() == Encoding::PlaceRelative;
        if same_kind && !(text..end).contains(&table) {
            return Err(corrupt(table, "an image that contains its own symbol table", format!("{text} to {end}")));
        }
        if !same_kind && text.as_u64() < KERNEL_HALF {
            return Err(corrupt(table, "an image in the kernel's half of the address space", text.to_string()));
        }
        Ok(())
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} values at {}", self.encoding, self.values)
    }
}

fn parse_tokens(token_table: VirtAddr, texts: &[u8], index: &[u8]) -> Result<Tokens> {
    Tokens::parse(texts, index).ok_or_else(|| corrupt(token_table, "256 tokens", "texts that leave the table"))
}

//! Where the kernel's symbol table lies, and in which encoding.
//!
//! Owns: reading the tables in bulk, choosing the encoding. Must not know: names beyond the ones that check a choice.
//! Keeps: an encoding is only taken when every known symbol has its known address and all addresses ascend.
//! Source: Linux `kernel/vmcore_info.c` (table addresses, since v6.0), `scripts/kallsyms.c` (order and encodings).

use memflow_core::{Error, MemoryViewExt, Result, VirtAddr, view::SpaceView};

use super::{
    Symbols,
    kallsyms::{Encoding, MAX_SYMBOLS, Names, Tokens, Values, corrupt},
};
use crate::{bytes::Bytes, vmcoreinfo::VmcoreInfo};

/// Largest table of names taken: twice what half a million symbols need.
const MAX_NAMES: u64 = 64 << 20;
/// Largest table of tokens: 256 texts; the index is 16 bits wide.
const MAX_TOKENS: u64 = 1 << 16;

/// What is known of the kernel before its symbols are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Addresses of symbols that the table must confirm.
    pub(crate) anchors: Vec<(&'static str, VirtAddr)>,
}

/// Addresses of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) count: VirtAddr,
    pub(super) names: VirtAddr,
    pub(super) token_table: VirtAddr,
    pub(super) token_index: VirtAddr,
    /// Absolute addresses or offsets.
    pub(super) values: VirtAddr,
    /// Where the base of relative offsets is stored.
    pub(super) base: Option<VirtAddr>,
    pub(super) absolute: bool,
}

impl Tables {
    fn from_vmcoreinfo(info: &VmcoreInfo) -> Option<Self> {
        let offsets = info.symbol("kallsyms_offsets");
        Some(Self {
            count: info.symbol("kallsyms_num_syms")?,
            names: info.symbol("kallsyms_names")?,
            token_table: info.symbol("kallsyms_token_table")?,
            token_index: info.symbol("kallsyms_token_index")?,
            values: offsets.or_else(|| info.symbol("kallsyms_addresses"))?,
            base: info.symbol("kallsyms_relative_base"),
            absolute: offsets.is_none(),
        })
    }
}

impl Symbols {
    /// The table whose place VMCOREINFO gives; `None` when it does not give it.
    pub(crate) fn from_vmcoreinfo(view: &SpaceView, info: &VmcoreInfo, known: &Known) -> Option<Result<Self>> {
        let tables = Tables::from_vmcoreinfo(info)?;
        Some(Self::read(view, tables, known))
    }

    /// Reads the tables, each with one read, and picks the encoding.
    pub(super) fn read(view: &SpaceView, tables: Tables, known: &Known) -> Result<Self> {
        let count = u32::from_le(view.read::<u32>(tables.count)?);
        if count == 0 || count > MAX_SYMBOLS {
            return Err(corrupt(tables.count, format!("1 to {MAX_SYMBOLS} symbols"), format!("{count}")));
        }
        let index = view.read_bytes(tables.token_index, 512)?;
        let last = Bytes(&index).u16(510).unwrap_or(0);
        // The last token is one of the short ones; the texts end soon after its start.
        let token_len = tables.token_index.offset_from(tables.token_table).unwrap_or(MAX_TOKENS);
        let token_len = token_len.min(u64::from(last) + 256);
        let token_table = view.read_bytes(tables.token_table, token_len)?;
        let tokens = Tokens::parse(&token_table, &index)
            .ok_or_else(|| corrupt(tables.token_table, "256 tokens", "texts that leave the table"))?;
        let names_len =
            tables.token_table.offset_from(tables.names).filter(|len| *len <= MAX_NAMES).ok_or_else(|| {
                corrupt(tables.names, "names before the tokens", format!("tokens at {}", tables.token_table))
            })?;
        let names = view.read_bytes(tables.names, names_len)?;
        let first = if tables.absolute { Encoding::Absolute } else { Encoding::Relative };
        let bytes = view.read_bytes(tables.values, u64::from(count) * Values::width(first))?;
        let choices: &[Encoding] = match (tables.absolute, tables.base) {
            (true, _) => &[Encoding::Absolute],
            (false, Some(_)) => &[Encoding::AbsolutePercpu, Encoding::Relative],
            (false, None) => &[Encoding::PlaceRelative],
        };
        let base = match tables.base {
            Some(base) => u64::from_le(view.read::<u64>(base)?),
            None => tables.values.as_u64(),
        };
        let names = Names::parse(tables.names, names, count, tokens)?;
        let mut refused = Vec::new();
        let mut parts = (names, bytes);
        for encoding in choices {
            let values = Values { encoding: *encoding, bytes: parts.1, base };
            match Self::new(tables.values, parts.0, values) {
                Ok(symbols) => match symbols.confirm(known) {
                    Ok(()) => return Ok(symbols),
                    Err(why) => {
                        refused.push(format!("{encoding:?}: {why}"));
                        parts = symbols.into_parts();
                    }
                },
                Err((why, names, bytes)) => {
                    refused.push(format!("{encoding:?}: {why}"));
                    parts = (names, bytes);
                }
            }
        }
        Err(corrupt(tables.values, "values that agree with known symbols", refused.join("; ")))
    }

    /// Checks the symbols whose address is known from elsewhere.
    fn confirm(&self, known: &Known) -> Result<()> {
        for (name, expected) in &known.anchors {
            match self.address_of(name) {
                Some(found) if found == *expected => {}
                Some(found) => return Err(corrupt(found, format!("{name} at {expected}"), format!("{found}"))),
                None => return Err(Error::NotFound { what: "symbol", name: (*name).to_owned() }),
            }
        }
        Ok(())
    }
}

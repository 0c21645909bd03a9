//! The version resource of an image.
//!
//! Owns: [`VersionInfo`], the way to it through the tree of resources, the blocks in it. Must not know: whose image it is.
//! Keeps: tables and blocks lie inside the resource directory; lengths that lie end the walk.
//! Source: Microsoft, "PE Format", the resource section; `VS_VERSIONINFO` of the Windows SDK.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::BTreeMap;

use memflow_core::{MemoryView, Result, error::Error};

use super::headers::{Image, RESOURCES};
use crate::bytes::{Bytes, number};

/// The type of a version resource.
const VERSION: u32 = 16;
/// The bit of an entry that leads to another table.
const TABLE: u32 = 1 << 31;
/// Bytes before the entries of a table.
const TABLE_HEADER: u64 = 16;
/// Entries of a table that are looked at.
const MAX_ENTRIES: u64 = 4096;
/// Longest version resource.
const MAX_VERSION: u32 = 1 << 16;
/// The first number of the fixed part.
const SIGNATURE: u32 = 0xfeef_04bd;

/// What an image says of its version.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct VersionInfo {
    /// Version of the file, from major to minor.
    pub file: [u16; 4],
    /// Version of the product.
    pub product: [u16; 4],
    /// Texts by name (`OriginalFilename`), of the first language.
    pub texts: BTreeMap<String, String>,
}

impl VersionInfo {
    /// The version resource of an image; `None` when it has none.
    ///
    /// # Errors
    /// When the resources cannot be read, or are damaged.
    pub(crate) fn read(view: &dyn MemoryView, image: &Image) -> Result<Option<Self>> {
        let Some((start, _)) = image.directory(RESOURCES) else { return Ok(None) };
        let Some(kind) = entry(view, image, start, 0, Some(VERSION))? else { return Ok(None) };
        // The first name, the first language.
        let mut at = kind;
        for _ in 0..2 {
            at = match at & TABLE {
                0 => break,
                _ => entry(view, image, start, at ^ TABLE, None)?.ok_or_else(|| corrupt(image, start))?,
            };
        }
        let leaf = start.checked_add(at).filter(|_| at & TABLE == 0).ok_or_else(|| corrupt(image, start))?;
        let leaf = image.bytes(view, leaf, 16)?;
        let (Some(place), Some(len)) = (Bytes(&leaf).u32(0), Bytes(&leaf).u32(4)) else {
            return Err(corrupt(image, start));
        };
        let bytes = image.bytes(view, place, len.min(MAX_VERSION))?;
        Self::parse(&bytes).map(Some).ok_or_else(|| corrupt(image, place))
    }

    /// Parses a resource.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let root = Block::parse(bytes)?;
        if root.key != "VS_VERSION_INFO" {
            return None;
        }
        let fixed = Bytes(root.value);
        let mut info = Self::default();
        if fixed.u32(0) == Some(SIGNATURE) {
            let version = |at: u64| -> Option<[u16; 4]> {
                let part = |distance: u64| fixed.u16(at.checked_add(distance)?);
                Some([part(2)?, part(0)?, part(6)?, part(4)?])
            };
            (info.file, info.product) = (version(8)?, version(16)?);
        }
        let mut tables = root.inner().filter(|block| block.key == "StringFileInfo");
        if let Some(table) = tables.next().and_then(|all| all.inner().next()) {
            info.texts = table.inner().map(|text| (text.key.clone(), text.text())).collect();
        }
        Some(info)
    }
}

/// Where an entry of the table at `at` leads: that of a number, or the first.
fn entry(view: &dyn MemoryView, image: &Image, start: u32, at: u32, id: Option<u32>) -> Result<Option<u32>> {
    let table = start.checked_add(at).ok_or_else(|| corrupt(image, start))?;
    let header = image.bytes(view, table, 16)?;
    let count = |at| Bytes(&header).u16(at).map(u64::from);
    let (Some(named), Some(numbered)) = (count(12), count(14)) else { return Err(corrupt(image, table)) };
    let entries = named.saturating_add(numbered).min(MAX_ENTRIES);
    let len = entries.saturating_mul(8).saturating_add(TABLE_HEADER);
    let bytes = image.bytes(view, table, u32::try_from(len).unwrap_or(u32::MAX))?;
    let entry = |number: u64| {
        let at = number.checked_mul(8)?.checked_add(TABLE_HEADER)?;
        Some((Bytes(&bytes).u32(at)?, Bytes(&bytes).u32(at.checked_add(4)?)?))
    };
    let mut all = (0..entries).map_while(entry);
    Ok(all.find(|(found, _)| id.is_none_or(|id| id == *found)).map(|(_, leads)| leads))
}

fn corrupt(image: &Image, at: u32) -> Error {
    Error::Corrupt {
        what: "resources of an image",
        address: image.at(at).into(),
        expected: "a version resource inside the image".into(),
        found: "something else".into(),
    }
}

/// A block: its name, its value, blocks inside it.
struct Block<'a> {
    key: String,
    value: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Block<'a> {
    /// The block at the start of some bytes, which begin at a multiple of four of the resource.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let len = u64::from(Bytes(bytes).u16(0)?);
        let own = Bytes(bytes).slice(0, len.min(number(bytes.len())))?;
        let (value_len, is_text) = (u64::from(Bytes(own).u16(2)?), Bytes(own).u16(4)? == 1);
        let units: Vec<u16> = own.get(6..)?.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        let key_len = units.iter().position(|unit| *unit == 0)?;
        let key = String::from_utf16_lossy(units.get(..key_len)?);
        let value_at = number(key_len).checked_add(1)?.checked_mul(2)?.checked_add(6)?.checked_next_multiple_of(4)?;
        // The length of text counts characters.
        let value_len = if is_text { value_len.checked_mul(2)? } else { value_len };
        let value_end = value_at.checked_add(value_len)?.min(number(own.len()));
        let value = Bytes(own).slice(value_at.min(value_end), value_end.saturating_sub(value_at)).unwrap_or_default();
        let rest = value_end.checked_next_multiple_of(4)?;
        let rest = Bytes(own).slice(rest, number(own.len()).saturating_sub(rest)).unwrap_or_default();
        Some(Self { key, value, rest })
    }

    /// The blocks inside.
    fn inner(&self) -> impl Iterator<Item = Block<'a>> + use<'a> {
        let mut rest = self.rest;
        std::iter::from_fn(move || {
            let block = Block::parse(rest)?;
            let len = u64::from(Bytes(rest).u16(0)?).checked_next_multiple_of(4)?;
            // A block is no shorter than its own header.
            rest = match len >= 6 {
                true => Bytes(rest).slice(len, number(rest.len()).saturating_sub(len)).unwrap_or_default(),
                false => &[],
            };
            Some(block)
        })
    }

    /// Its value as text.
    fn text(&self) -> String {
        let units = self.value.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        char::decode_utf16(units.take_while(|unit| *unit != 0))
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn blocks_that_lie_end_the_walk() {
        assert_eq!(VersionInfo::parse(&[]), None);
        assert_eq!(VersionInfo::parse(&[0xff; 64]), None);
        let mut bytes = vec![0xff, 0xff, 0xff, 0xff, 0, 0];
        bytes.extend("VS_VERSION_INFO\0".encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(VersionInfo::parse(&bytes), Some(VersionInfo::default()));
        // A block of no length inside.
        bytes[2..4].fill(0);
        bytes.extend([0; 64]);
        assert_eq!(VersionInfo::parse(&bytes), Some(VersionInfo::default()));
    }
}

//! The CodeView record of an image: which file of symbols belongs to it.
//!
//! Owns: [`CodeView`]. Must not know: where symbols are kept.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::fmt;

use memflow_core::MemoryView;

use super::headers::{DEBUG, Image};
use crate::bytes::{Bytes, number};

/// Size of an entry of the debug directory.
const ENTRY: u64 = 28;
/// Entries that are looked at.
const MAX_ENTRIES: u64 = 64;
/// The type of an entry that leads to a CodeView record.
const CODEVIEW: u32 = 2;
/// Longest record that is taken.
const MAX_RECORD: u32 = 1024;

/// Which file of symbols (PDB) belongs to an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CodeView {
    /// The file's name, without folders.
    pub name: String,
    /// The identification of the build: 32 hexadecimal digits in capitals, as symbol stores write it.
    pub guid: String,
    /// How often the file was changed without a new identification.
    pub age: u32,
}

impl fmt::Display for CodeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} age {}", self.name, self.guid, self.age)
    }
}

impl CodeView {
    /// The record of an image, if it has one that can be read.
    pub(crate) fn read(view: &dyn MemoryView, image: &Image) -> Option<Self> {
        let (start, len) = image.directory(DEBUG)?;
        let directory = image.bytes(view, start, len.min(u32::try_from(ENTRY.checked_mul(MAX_ENTRIES)?).ok()?)).ok()?;
        let entries = number(directory.len()).checked_div(ENTRY)?;
        (0..entries).find_map(|entry| {
            let field = |offset: u64| Bytes(&directory).u32(entry.checked_mul(ENTRY)?.checked_add(offset)?);
            if field(12)? != CODEVIEW {
                return None;
            }
            let record = image.bytes(view, field(20)?, field(16)?.min(MAX_RECORD)).ok()?;
            Self::parse(&record)
        })
    }

    /// Parses a record of the kind `RSDS`.
    fn parse(record: &[u8]) -> Option<Self> {
        let bytes = Bytes(record);
        if bytes.array(0)? != *b"RSDS" {
            return None;
        }
        let tail: [u8; 8] = bytes.array(12)?;
        let tail: String = tail.iter().map(|byte| format!("{byte:02X}")).collect();
        let guid = format!("{:08X}{:04X}{:04X}{tail}", bytes.u32(4)?, bytes.u16(8)?, bytes.u16(10)?);
        let path = Bytes(record.get(24..)?).until_zero();
        let name = path.rsplit(|byte| matches!(byte, b'\\' | b'/')).next()?;
        Some(Self { name: String::from_utf8_lossy(name).into_owned(), guid, age: bytes.u32(20)? })
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

    use super::CodeView;

    #[test]
    fn identification_is_written_as_in_symbol_stores() {
        let mut record = b"RSDS\xbb\x11\xc7\x20\xc2\xd4\xa5\x1a\xc4\x5b\xc7\x74\xbc\x7e\x04\x72\x01\0\0\0".to_vec();
        record.extend(b"d:\\bld\\ntkrnlmp.pdb\0rest");
        let codeview = CodeView::parse(&record).unwrap();
        assert_eq!(codeview.to_string(), "ntkrnlmp.pdb 20C711BBD4C21AA5C45BC774BC7E0472 age 1");
        assert_eq!(CodeView::parse(&record[..20]), None);
        assert_eq!(CodeView::parse(b"NB10"), None);
    }
}

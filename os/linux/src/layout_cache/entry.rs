//! An entry of the cache as bytes.
//!
//! Owns: the format. Must not know: files, memory.
//! Keeps: an entry is whole or refused: a hash covers every byte; what is read back is checked all the same, as anybody can write a
//! file with a right hash. Numbers are little-endian.
//!
//! `"mflayout"`, BLAKE3 hash of the rest (32), format (u32), hash of the code (u64); build identification (u8 length, bytes); hashes of
//! the section of types and of the symbol table (32 each); length of the image (u64); section of types (offset u64, length u64);
//! symbol table (count u32, encoding u8, six u64, base u8 and u64); symbols (u32 count; each a text, u8 and u64); types (u32 count;
//! each a text, u8 and what it says). A text is a u16 length and UTF-8.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::BTreeMap;

use super::material::Material;
use crate::{
    bytes::Bytes,
    memo::MAX_ANSWERS,
    symbols::Encoding,
    types::{Answer, Field},
};

const MAGIC: &[u8; 8] = b"mflayout";
/// Changes when the bytes mean something else.
const FORMAT: u32 = 1;
/// The code that answers depend on: an entry of other code is not used, as that may have had another idea of the same bytes.
const CODE: u64 = fnv(&[
    include_bytes!("../types/btf.rs"),
    include_bytes!("../types/front.rs"),
    include_bytes!("../types/index.rs"),
    include_bytes!("../symbols/kallsyms.rs"),
    include_bytes!("../symbols/lookup.rs"),
    include_bytes!("../symbols/table.rs"),
]);
/// Largest entry that is read or written.
pub(super) const MAX_LEN: u64 = 1 << 20;
/// Longest build identification; the usual ones have 20 bytes.
pub(super) const MAX_BUILD_ID: usize = 64;
/// Largest image of a kernel: where it may lie.
const MAX_IMAGE: u64 = 1 << 30;

/// FNV-1a, 64 bits.
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "evaluated by the compiler, over its own files"
)]
const fn fnv(files: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut file = 0;
    while file < files.len() {
        let mut at = 0;
        while at < files[file].len() {
            hash = (hash ^ files[file][at] as u64).wrapping_mul(0x100_0000_01b3);
            at += 1;
        }
        file += 1;
    }
    hash
}

/// Where something lies in the kernel's image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// Bytes from the start of the image, `_text`.
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Where the symbol table lies in the kernel's image, and its encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TablePlace {
    pub(crate) symbols: u32,
    pub(crate) encoding: Encoding,
    pub(crate) names: Part,
    pub(crate) texts: Part,
    pub(crate) index: u64,
    pub(crate) values: u64,
    pub(crate) base: Option<u64>,
}

/// What is kept of a kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) build_id: Vec<u8>,
    /// Hashes of the bytes that the answers were found in.
    pub(crate) material: Material,
    /// Bytes from `_text` to `_end`.
    pub(crate) image_len: u64,
    pub(crate) section: Part,
    pub(crate) table: TablePlace,
    /// Offsets of symbols; `None` for those that the kernel does not have.
    pub(crate) symbols: BTreeMap<String, Option<u64>>,
    pub(crate) types: BTreeMap<String, Answer>,
}

impl Entry {
    /// The offset of a symbol, if the entry says that there is one.
    pub(crate) fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).copied().flatten()
    }

    /// The entry as bytes; `None` when it is larger than an entry may be.
    pub(super) fn to_bytes(&self) -> Option<Vec<u8>> {
        let rest = [FORMAT.to_le_bytes().as_slice(), &CODE.to_le_bytes(), &self.to_body()?].concat();
        let bytes = [MAGIC.as_slice(), blake3::hash(&rest).as_bytes(), &rest].concat();
        (u64::try_from(bytes.len()).ok()? <= MAX_LEN).then_some(bytes)
    }

    /// What the entry says, without what tells whether it is whole and of this version.
    pub(crate) fn to_body(&self) -> Option<Vec<u8>> {
        let mut out = Writer(Vec::new());
        out.u8(u8::try_from(self.build_id.len()).ok()?);
        out.0.extend(&self.build_id);
        out.0.extend(self.material.section);
        out.0.extend(self.material.table);
        out.u64(self.image_len);
        out.part(self.section);
        let TablePlace { symbols, encoding, names, texts, index, values, base } = self.table;
        out.u32(symbols);
        out.u8(encoding_number(encoding));
        out.part(names);
        out.part(texts);
        out.u64(index);
        out.u64(values);
        out.option(base);
        out.u32(u32::try_from(self.symbols.len()).ok()?);
        for (name, offset) in &self.symbols {
            out.text(name)?;
            out.option(*offset);
        }
        out.u32(u32::try_from(self.types.len()).ok()?);
        for (question, answer) in &self.types {
            out.text(question)?;
            out.answer(*answer);
        }
        Some(out.0)
    }

    /// Reads an entry back.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("is no entry of the layout cache")?;
        let (hash, rest) = rest.split_first_chunk::<32>().ok_or("is cut short")?;
        if blake3::hash(rest) != *hash {
            return Err("is damaged: its hash is wrong");
        }
        let mut reader = Reader { bytes: Bytes(rest), at: 0 };
        if reader.u32() != Some(FORMAT) || reader.u64() != Some(CODE) {
            return Err("was written by another version");
        }
        Self::parse_body(rest.get(12..).unwrap_or_default())
    }

    /// Reads back what [`to_body`](Self::to_body) made.
    pub(crate) fn parse_body(body: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader { bytes: Bytes(body), at: 0 };
        let entry = reader.entry().ok_or("makes no sense")?;
        if reader.at != reader.bytes.len() {
            return Err("has more bytes than an entry");
        }
        Ok(entry)
    }
}

fn encoding_number(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Absolute => 0,
        Encoding::Relative => 1,
        Encoding::AbsolutePercpu => 2,
        Encoding::PlaceRelative => 3,
    }
}

fn encoding_of(number: u8) -> Option<Encoding> {
    [Encoding::Absolute, Encoding::Relative, Encoding::AbsolutePercpu, Encoding::PlaceRelative]
        .into_iter()
        .find(|encoding| encoding_number(*encoding) == number)
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn part(&mut self, part: Part) {
        self.u64(part.offset);
        self.u64(part.len);
    }

    fn option(&mut self, value: Option<u64>) {
        self.u8(value.is_some().into());
        self.u64(value.unwrap_or(0));
    }

    fn text(&mut self, text: &str) -> Option<()> {
        self.0.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
        self.0.extend(text.bytes());
        Some(())
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Field(None) => self.u8(0),
            Answer::Field(Some(Field { offset, size, bits })) => {
                self.u8(1);
                self.u64(offset);
                self.u64(size);
                let (first, width) = bits.unwrap_or((0, 0));
                for byte in [bits.is_some().into(), first, width] {
                    self.u8(byte);
                }
            }
            Answer::Size(size) => {
                self.u8(2);
                self.option(size);
            }
            Answer::Exists(exists) => {
                self.u8(3);
                self.u8(exists.into());
            }
            Answer::Constant(value) => {
                self.u8(4);
                self.option(value.map(i64::cast_unsigned));
            }
        }
    }
}

struct Reader<'a> {
    bytes: Bytes<'a>,
    at: u64,
}

impl<'a> Reader<'a> {
    fn advance<T>(&mut self, read: Option<T>, len: u64) -> Option<T> {
        let value = read?;
        self.at = self.at.checked_add(len)?;
        Some(value)
    }

    fn u8(&mut self) -> Option<u8> {
        self.advance(self.bytes.u8(self.at), 1)
    }

    fn u16(&mut self) -> Option<u16> {
        self.advance(self.bytes.u16(self.at), 2)
    }

    fn u32(&mut self) -> Option<u32> {
        self.advance(self.bytes.u32(self.at), 4)
    }

    fn u64(&mut self) -> Option<u64> {
        self.advance(self.bytes.u64(self.at), 8)
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        self.advance(self.bytes.slice(self.at, len), len)
    }

    fn hash(&mut self) -> Option<[u8; 32]> {
        self.take(32)?.first_chunk::<32>().copied()
    }

    fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn option(&mut self) -> Option<Option<u64>> {
        let (given, value) = (self.bool()?, self.u64()?);
        (given || value == 0).then_some(given.then_some(value))
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.u16()?;
        std::str::from_utf8(self.take(len.into())?).ok()
    }

    /// A part that lies in the image.
    fn part(&mut self, image_len: u64) -> Option<Part> {
        let part = Part { offset: self.u64()?, len: self.u64()? };
        (part.offset.checked_add(part.len)? <= image_len).then_some(part)
    }

    fn offset(&mut self, image_len: u64) -> Option<u64> {
        self.u64().filter(|offset| *offset < image_len)
    }

    fn answer(&mut self) -> Option<Answer> {
        Some(match self.u8()? {
            0 => Answer::Field(None),
            1 => {
                let (offset, size) = (self.u64()?, self.u64()?);
                let (given, first, width) = (self.bool()?, self.u8()?, self.u8()?);
                Answer::Field(Some(Field { offset, size, bits: given.then_some((first, width)) }))
            }
            2 => Answer::Size(self.option()?),
            3 => Answer::Exists(self.bool()?),
            4 => Answer::Constant(self.option()?.map(u64::cast_signed)),
            _ => return None,
        })
    }

    /// So many named things; no more than a memo keeps.
    fn map<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<BTreeMap<String, T>> {
        let count = self.u32().filter(|count| usize::try_from(*count).is_ok_and(|count| count <= MAX_ANSWERS))?;
        let mut map = BTreeMap::new();
        for _ in 0..count {
            let name = self.text()?.to_owned();
            if map.insert(name, read(self)?).is_some() {
                return None;
            }
        }
        Some(map)
    }

    fn entry(&mut self) -> Option<Entry> {
        let len = self.u8().filter(|len| (1..=MAX_BUILD_ID).contains(&usize::from(*len)))?;
        let build_id = self.take(len.into())?.to_vec();
        let material = Material { section: self.hash()?, table: self.hash()? };
        let image_len = self.u64().filter(|len| *len <= MAX_IMAGE)?;
        let section = self.part(image_len)?;
        let symbols = self.u32()?;
        let encoding = encoding_of(self.u8()?)?;
        let (names, texts) = (self.part(image_len)?, self.part(image_len)?);
        let (index, values) = (self.offset(image_len)?, self.offset(image_len)?);
        let base = self.option()?;
        if base.is_some_and(|base| base >= image_len) {
            return None;
        }
        let table = TablePlace { symbols, encoding, names, texts, index, values, base };
        let symbols =
            self.map(|reader| reader.option().filter(|offset| offset.is_none_or(|offset| offset < image_len)))?;
        let types = self.map(Self::answer)?;
        Some(Entry { build_id, material, image_len, section, table, symbols, types })
    }
}

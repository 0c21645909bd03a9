//! The BTF section: header, type records and strings.
//!
//! Owns: the format; a type is asked for by its id. Must not know: which names matter, paths through structures.
//! Keeps: every record was seen whole once, so the number of types is bounded by the bytes; ids and offsets out of a record are
//! checked again when they are followed.
//! Source: Linux `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h` (v6.12; the wider `vlen` and `kind` fields of later
//! versions use bits that were zero before).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::borrow::Cow;

use memflow_core::{Error, Result, VirtAddr};

use crate::bytes::Bytes;

/// First two bytes of a section, little-endian.
const MAGIC: u16 = 0xeb9f;
/// Length of the header that every version has.
pub(crate) const HEADER_LEN: u64 = 24;
/// Length of a type record before its kind's own data.
const RECORD_LEN: u64 = 12;
/// Longest name: `KSYM_NAME_LEN`, the limit of `btf_name_valid_identifier` in `kernel/bpf/btf.c`.
const MAX_NAME: usize = 512;

/// The kinds of type, `BTF_KIND_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Int,
    Pointer,
    Array,
    Struct,
    Union,
    Enum,
    Forward,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Function,
    FunctionProto,
    Variable,
    DataSection,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Pointer,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Forward,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Function,
            13 => Self::FunctionProto,
            14 => Self::Variable,
            15 => Self::DataSection,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// Length of the kind's own data, for `vlen` elements.
    fn data_len(self, vlen: u32) -> u64 {
        let each = match self {
            Self::Int | Self::Variable | Self::DeclTag => return 4,
            Self::Array => return 12,
            Self::Struct | Self::Union | Self::DataSection | Self::Enum64 => 12,
            Self::Enum | Self::FunctionProto => 8,
            _ => return 0,
        };
        u64::from(vlen).saturating_mul(each)
    }
}

/// A type record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// Offset of its name in the strings.
    pub(super) name: u32,
    pub(super) kind: Kind,
    /// Meaning depends on the kind: bit-fields in a structure, signed constants in an enumeration.
    pub(super) flag: bool,
    /// Number of members, constants, ….
    pub(super) vlen: u32,
    /// Size in bytes, or the id of another type: depends on the kind.
    pub(super) size_or_type: u32,
    /// Offset of the kind's own data in the types.
    data: u64,
}

/// A member of a structure or union.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub(super) name: u32,
    pub(super) type_id: u32,
    pub(super) bit_offset: u32,
    /// Width in bits when it is a bit-field, else zero.
    pub(super) bit_len: u32,
}

/// An element of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Array {
    pub(super) element: u32,
    pub(super) count: u32,
}

/// A parsed section.
pub(super) struct Btf {
    bytes: Vec<u8>,
    types_at: u64,
    types_len: u64,
    strings_at: u64,
    strings_len: u64,
    /// Offset of record `id - 1` in the types; type 0 is `void` and has no record.
    records: Vec<u32>,
}

/// Where the parts of a section lie, from its header.
struct Header {
    types_at: u64,
    types_len: u64,
    strings_at: u64,
    strings_len: u64,
}

fn corrupt(offset: u64, expected: impl Into<Cow<'static, str>>, found: impl Into<Cow<'static, str>>) -> Error {
    Error::Corrupt {
        what: "BTF section",
        address: VirtAddr::new(offset).into(),
        expected: expected.into(),
        found: found.into(),
    }
}

fn header(bytes: Bytes<'_>) -> Result<Header> {
    let short = || corrupt(0, format!("a header of {HEADER_LEN} bytes"), format!("{} bytes", bytes.len()));
    let magic = bytes.u16(0).ok_or_else(short)?;
    if magic != MAGIC {
        return Err(corrupt(0, format!("magic number {MAGIC:#x}"), format!("{magic:#x}")));
    }
    let version = bytes.u8(2).ok_or_else(short)?;
    if version != 1 {
        return Err(corrupt(2, "version 1", format!("{version}")));
    }
    let field = |at| bytes.u32(at).map(u64::from).ok_or_else(short);
    let header_len = field(4)?;
    if header_len < HEADER_LEN {
        return Err(corrupt(4, format!("a header of at least {HEADER_LEN} bytes"), format!("{header_len}")));
    }
    // Four 32-bit numbers cannot overflow a sum of two or three of them in 64 bits.
    Ok(Header {
        types_at: header_len.saturating_add(field(8)?),
        types_len: field(12)?,
        strings_at: header_len.saturating_add(field(16)?),
        strings_len: field(20)?,
    })
}

/// Bytes from the start of a section to the end of its last part, if a whole section of a kernel can start with these bytes.
pub(crate) fn extent(start: &[u8]) -> Option<u64> {
    let header = header(Bytes(start)).ok()?;
    let flags = *start.get(3)?;
    let (types, strings) = (header.types_len, header.strings_len);
    let end = |at: u64, len: u64| at.saturating_add(len);
    (flags == 0 && types != 0 && strings != 0).then(|| end(header.types_at, types).max(end(header.strings_at, strings)))
}

impl Btf {
    /// Reads the header and walks all records once.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let view = Bytes(&bytes);
        let Header { types_at, types_len, strings_at, strings_len } = header(view)?;
        let types = view.slice(types_at, types_len).ok_or_else(|| {
            corrupt(12, format!("types inside {} bytes", view.len()), format!("{types_len:#x} bytes at {types_at:#x}"))
        })?;
        let strings = view.slice(strings_at, strings_len).ok_or_else(|| {
            corrupt(20, format!("strings inside {} bytes", view.len()), format!("{strings_len:#x} at {strings_at:#x}"))
        })?;
        if strings.first() != Some(&0) || strings.last() != Some(&0) {
            return Err(corrupt(strings_at, "strings that start and end with a zero byte", "other bytes"));
        }
        let types = Bytes(types);
        // A record of the kernel's section has 32 bytes on average.
        let mut records = Vec::with_capacity(usize::try_from(types_len.wrapping_div(24)).unwrap_or(0));
        let mut at = 0;
        while at < types_len {
            let offset = types_at.saturating_add(at);
            let record = record(types, at).map_err(|found| corrupt(offset, "a type record", found))?;
            let end = record.data.saturating_add(record.kind.data_len(record.vlen));
            if end > types_len {
                return Err(corrupt(offset, "a type record inside the types", format!("one that ends at {end:#x}")));
            }
            records.push(u32::try_from(at).map_err(|_| corrupt(offset, "a 32-bit offset", "a larger one"))?);
            at = end;
        }
        Ok(Self { types_at, types_len, strings_at, strings_len, records, bytes })
    }

    /// The section.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn types(&self) -> Bytes<'_> {
        Bytes(Bytes(&self.bytes).slice(self.types_at, self.types_len).unwrap_or_default())
    }

    /// Ids of all types but `void`.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        1..=u32::try_from(self.records.len()).unwrap_or(u32::MAX)
    }

    /// The record of a type; `None` for `void` and for ids that do not exist.
    pub(super) fn record(&self, id: u32) -> Option<Record> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        record(self.types(), u64::from(*self.records.get(index)?)).ok()
    }

    /// The name at `offset`; `None` when it is longer than any.
    pub(super) fn string(&self, offset: u32) -> Option<&[u8]> {
        Bytes(Bytes(&self.bytes).slice(self.strings_at, self.strings_len)?).short_string(offset.into(), MAX_NAME)
    }

    /// Members of a structure or union.
    pub(super) fn members(&self, of: Record) -> impl Iterator<Item = Member> + '_ {
        let types = self.types();
        let count = if matches!(of.kind, Kind::Struct | Kind::Union) { of.vlen } else { 0 };
        (0..u64::from(count)).map_while(move |index| {
            let at = of.data.checked_add(index.checked_mul(12)?)?;
            let offset = types.u32(at.checked_add(8)?)?;
            let (bit_offset, bit_len) = if of.flag { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            Some(Member { name: types.u32(at)?, type_id: types.u32(at.checked_add(4)?)?, bit_offset, bit_len })
        })
    }

    /// Names (as string offsets) and values of an enumeration's constants.
    pub(super) fn constants(&self, of: Record) -> impl Iterator<Item = (u32, i64)> + '_ {
        let types = self.types();
        let (count, step) = match of.kind {
            Kind::Enum => (of.vlen, 8),
            Kind::Enum64 => (of.vlen, 12),
            _ => (0, 0),
        };
        (0..u64::from(count)).map_while(move |index| {
            let at = of.data.checked_add(index.checked_mul(step)?)?;
            let value = match of.kind {
                Kind::Enum64 => i64::from_le_bytes(types.u64(at.checked_add(4)?)?.to_le_bytes()),
                _ if of.flag => types.i32(at.checked_add(4)?)?.into(),
                _ => types.u32(at.checked_add(4)?)?.into(),
            };
            Some((types.u32(at)?, value))
        })
    }

    /// The elements of an array.
    pub(super) fn array(&self, of: Record) -> Option<Array> {
        let types = self.types();
        if of.kind != Kind::Array {
            return None;
        }
        Some(Array { element: types.u32(of.data)?, count: types.u32(of.data.checked_add(8)?)? })
    }

    /// Offset in bits inside its storage and width in bits of an integer type.
    pub(super) fn integer_bits(&self, of: Record) -> Option<(u32, u32)> {
        if of.kind != Kind::Int {
            return None;
        }
        let word = self.types().u32(of.data)?;
        Some(((word >> 16) & 0xff, word & 0xff))
    }
}

/// The record at `at` of the types, or what is there instead.
fn record(types: Bytes<'_>, at: u64) -> Result<Record, String> {
    let field = |offset: u64| at.checked_add(offset).and_then(|at| types.u32(at));
    let (Some(name), Some(info), Some(size_or_type), Some(data)) =
        (field(0), field(4), field(8), at.checked_add(RECORD_LEN))
    else {
        return Err("the end of the types".to_owned());
    };
    let number = (info >> 24) & 0x7f;
    let kind = Kind::from_number(number).ok_or_else(|| format!("kind {number}, which this version does not know"))?;
    Ok(Record { name, kind, flag: info >> 31 == 1, vlen: info & 0x00ff_ffff, size_or_type, data })
}

//! Structures by name and members by path.
//!
//! Owns: [`Index`]: names to ids, paths through nested and anonymous members, sizes. Must not know: the bytes of a record, which
//! questions were asked before.
//! Keeps: chains of typedefs and nesting are followed to a limit, because hostile type information may refer to itself.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::Result;

use super::{
    Field,
    btf::{Btf, Kind, Record},
};

/// Longest chain of typedefs and qualifiers, and deepest nesting of anonymous members. The kernel's deepest is below ten.
const DEPTH_LIMIT: u32 = 32;
/// Members looked at for one path, over all structures of that name: above any real structure, and it bounds anonymous members
/// that contain each other.
const MEMBER_LIMIT: u32 = 1 << 14;
/// Types of one name that are looked at. Drivers have structures of the same name, some dozens at most.
const SAME_NAME_LIMIT: usize = 64;

/// A parsed section. Parsing walks the records once; names are resolved by an index that is built at the same time.
pub(super) struct Index {
    btf: Btf,
    /// Hash of the name and id of every type that has a size or constants; sorted.
    names: Vec<(u32, u32)>,
}

impl Index {
    /// Parses a whole section.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let btf = Btf::parse(bytes)?;
        let mut names: Vec<(u32, u32)> = btf
            .ids()
            .filter_map(|id| {
                let record = btf.record(id)?;
                let indexed = matches!(
                    record.kind,
                    Kind::Struct | Kind::Union | Kind::Typedef | Kind::Enum | Kind::Enum64 | Kind::Int | Kind::Float
                );
                (indexed && record.name != 0).then(|| btf.string(record.name).map(|name| (hash(name), id)))?
            })
            .collect();
        names.sort_unstable();
        Ok(Self { btf, names })
    }

    /// The bytes that were parsed.
    pub(super) fn section(&self) -> &[u8] {
        self.btf.bytes()
    }

    /// As [`Types::find_field`](super::Types::find_field).
    pub(super) fn find_field(&self, structure: &str, path: &str) -> Option<Field> {
        let mut budget = MEMBER_LIMIT;
        self.records(structure).find_map(|(_, record)| self.follow(record, path, &mut budget))
    }

    /// Size in bytes of the structure, union, typedef or basic type of that name.
    pub(super) fn find_size(&self, structure: &str) -> Option<u64> {
        self.records(structure).find_map(|(id, _)| self.size(id, DEPTH_LIMIT))
    }

    /// True when the structure, union, typedef, enumeration or basic type exists.
    pub(super) fn has(&self, structure: &str) -> bool {
        self.records(structure).next().is_some()
    }

    /// The value of a constant. An empty `enumeration` looks in all of them, named or not.
    pub(super) fn enum_value(&self, enumeration: &str, constant: &str) -> Option<i64> {
        let in_record = |record: Record| {
            self.btf
                .constants(record)
                .find(|(name, _)| self.btf.string(*name) == Some(constant.as_bytes()))
                .map(|(_, value)| value)
        };
        if enumeration.is_empty() {
            return self.btf.ids().filter_map(|id| self.btf.record(id)).find_map(in_record);
        }
        self.records(enumeration).find_map(|(id, _)| in_record(self.resolve(id)?.1))
    }

    /// Records of that name: structures and unions first, as C keeps their names apart from those of typedefs.
    fn records(&self, name: &str) -> impl Iterator<Item = (u32, Record)> + Clone + '_ {
        let wanted = hash(name.as_bytes());
        let start = self.names.partition_point(|(hash, _)| *hash < wanted);
        let name = name.to_owned().into_bytes();
        let found =
            self.names.get(start..).unwrap_or_default().iter().take_while(move |(hash, _)| *hash == wanted).filter_map(
                move |(_, id)| {
                    let record = self.btf.record(*id)?;
                    (self.btf.string(record.name)? == name).then_some((*id, record))
                },
            );
        let aggregate = |record: &Record| matches!(record.kind, Kind::Struct | Kind::Union);
        let others = found.clone().filter(move |(_, r)| !aggregate(r));
        found.filter(move |(_, r)| aggregate(r)).chain(others).take(SAME_NAME_LIMIT)
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, id: u32) -> Option<(u32, Record)> {
        let mut id = id;
        for _ in 0..DEPTH_LIMIT {
            let record = self.btf.record(id)?;
            match record.kind {
                Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                    id = record.size_or_type;
                }
                _ => return Some((id, record)),
            }
        }
        None
    }

    fn size(&self, id: u32, depth: u32) -> Option<u64> {
        let (_, record) = self.resolve(id)?;
        match record.kind {
            Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float => {
                Some(record.size_or_type.into())
            }
            // Type information of 64-bit kernels; the section does not say the size of a pointer.
            Kind::Pointer => Some(8),
            Kind::Array => {
                let array = self.btf.array(record)?;
                self.size(array.element, depth.checked_sub(1)?)?.checked_mul(array.count.into())
            }
            _ => None,
        }
    }

    fn follow(&self, record: Record, path: &str, budget: &mut u32) -> Option<Field> {
        let mut record = self.through_typedefs(record)?;
        let mut base = 0u64;
        let mut rest = path;
        loop {
            let (head, tail) = match rest.split_once('.') {
                Some((head, tail)) => (head, Some(tail)),
                None => (rest, None),
            };
            let (name, index) = split_index(head)?;
            let found = self.member(record, name.as_bytes(), DEPTH_LIMIT, budget)?;
            let bit = base.checked_add(found.bit_offset)?;
            let (mut id, mut bit) = (found.type_id, bit);
            if let Some(index) = index {
                let array = self.btf.array(self.resolve(id)?.1)?;
                if index >= array.count {
                    return None;
                }
                id = array.element;
                bit = bit.checked_add(self.size(id, DEPTH_LIMIT)?.checked_mul(8)?.checked_mul(index.into())?)?;
            }
            let Some(tail) = tail else {
                return self.finish(bit, id, found.bit_len);
            };
            let (_, mut inner) = self.resolve(id)?;
            for _ in 0..DEPTH_LIMIT {
                match self.btf.array(inner) {
                    Some(array) => inner = self.resolve(array.element)?.1,
                    None => break,
                }
            }
            (record, base, rest) = (inner, bit, tail);
        }
    }

    fn through_typedefs(&self, record: Record) -> Option<Record> {
        match record.kind {
            Kind::Typedef => self.resolve(record.size_or_type).map(|(_, record)| record),
            _ => Some(record),
        }
    }

    /// The member of that name, in the structure itself or in its anonymous members; its offset from the start of `record`.
    fn member(&self, record: Record, name: &[u8], depth: u32, budget: &mut u32) -> Option<Found> {
        let depth = depth.checked_sub(1)?;
        for member in self.btf.members(record) {
            *budget = budget.checked_sub(1)?;
            if member.name != 0 && self.btf.string(member.name) == Some(name) {
                return Some(Found {
                    bit_offset: member.bit_offset.into(),
                    bit_len: member.bit_len,
                    type_id: member.type_id,
                });
            }
        }
        for member in self.btf.members(record).filter(|member| member.name == 0) {
            let Some((_, inner)) = self.resolve(member.type_id) else { continue };
            if let Some(found) = self.member(inner, name, depth, budget) {
                return Some(Found { bit_offset: found.bit_offset.checked_add(member.bit_offset.into())?, ..found });
            }
        }
        None
    }

    fn finish(&self, bit: u64, id: u32, bit_len: u32) -> Option<Field> {
        let offset = bit >> 3;
        let first = u8::try_from(bit & 7).ok()?;
        let integer = self.resolve(id).and_then(|(_, record)| self.btf.integer_bits(record));
        // Old encoders described a bit-field by an integer type of that width.
        let (first, width) = match integer {
            _ if bit_len != 0 => (first, u8::try_from(bit_len).ok()?),
            Some((inside, width)) if u64::from(width) != self.size(id, DEPTH_LIMIT)?.checked_mul(8)? && width != 0 => {
                let bit = bit.checked_add(inside.into())?;
                return Some(bit_field(bit >> 3, u8::try_from(bit & 7).ok()?, u8::try_from(width).ok()?));
            }
            _ => return Some(Field { offset, size: self.size(id, DEPTH_LIMIT)?, bits: None }),
        };
        Some(bit_field(offset, first, width))
    }
}

/// A member, with its offset from the structure that was searched.
struct Found {
    bit_offset: u64,
    bit_len: u32,
    type_id: u32,
}

fn bit_field(offset: u64, first: u8, width: u8) -> Field {
    let bits = u64::from(first).saturating_add(width.into());
    Field { offset, size: bits.div_ceil(8), bits: Some((first, width)) }
}

/// Splits `mem[2]` into name and index.
fn split_index(text: &str) -> Option<(&str, Option<u32>)> {
    match text.split_once('[') {
        None => Some((text, None)),
        Some((name, index)) => Some((name, Some(index.strip_suffix(']')?.parse().ok()?))),
    }
}

/// FNV-1a, 32 bits: short names, no adversary that could do more than make one bucket long.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

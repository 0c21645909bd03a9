//! A file of symbols: its identification, places of members, places in the image.
//!
//! Owns: which of its records are looked at. Must not know: where the file came from, which kernel it is for.
//! Keeps: nothing larger than the file is made of it, whatever it says; what its parser makes a panic of in builds with debug assertions is
//! an error here.
//! Source: LLVM, "The PDB File Format"; the names of kernel structures as everywhere in this crate.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use pdb2::{FallibleIterator, PDB, Source, SourceSlice, SourceView, SymbolData, TypeData, TypeIndex};

use crate::{bytes::index, offsets};

/// Records of types that are read: structures and unions of two ages, lists of members, bit fields.
const STRUCTURES: [u16; 4] = [0x1505, 0x1506, 0x1609, 0x160a];
const MEMBERS: u16 = 0x1203;
const BIT_FIELD: u16 = 0x1205;
/// A public symbol.
const PUBLIC: u16 = 0x110e;
/// Lists of members that go on in another one; each holds some thousand.
const MAX_CONTINUED: usize = 16;

/// What is taken of a file of symbols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pdb {
    /// Identification: 32 hexadecimal digits in capitals.
    pub(crate) guid: String,
    /// Its age, as the image names it.
    pub(crate) age: u32,
    /// Offsets of members, sizes, bits, and places in the image, by the names of the table of builds.
    pub(crate) numbers: BTreeMap<String, u64>,
}

/// The bytes of a file, lent to the parser as far as they are there: no view is larger than the file.
#[derive(Clone, Debug)]
struct File(Arc<[u8]>);

/// Bytes in the order in which a stream has them.
#[derive(Debug)]
struct View(Vec<u8>);

impl SourceView<'_> for View {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl<'s> Source<'s> for File {
    fn view(&mut self, slices: &[SourceSlice]) -> io::Result<Box<dyn SourceView<'s> + Send + Sync>> {
        let total = slices.iter().try_fold(0usize, |sum, slice| sum.checked_add(slice.size));
        if total.is_none_or(|total| total > self.0.len()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a stream that is larger than the file"));
        }
        let mut bytes = Vec::new();
        for slice in slices {
            let start = index(slice.offset);
            let part = start.checked_add(slice.size).and_then(|end| self.0.get(start..end));
            bytes.extend_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        }
        Ok(Box::new(View(bytes)))
    }
}

/// Where members of a structure stand, while they are collected.
#[derive(Debug)]
struct Structure {
    name: String,
    /// The list that is to be looked at next.
    members: TypeIndex,
}

impl Pdb {
    /// Reads a file.
    ///
    /// # Errors
    /// A sentence on what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file = File(bytes.into());
        match catch_unwind(AssertUnwindSafe(|| read(file))) {
            Ok(Ok(pdb)) => Ok(pdb),
            Ok(Err(error)) => Err(format!("no file of symbols that can be read: {error}")),
            Err(_) => Err("no file of symbols: its records contradict each other".to_owned()),
        }
    }
}

fn read(file: File) -> pdb2::Result<Pdb> {
    let mut pdb = PDB::open(file)?;
    let information = pdb.pdb_information()?;
    let guid = information.guid.simple().to_string().to_uppercase();
    // The number in the header of debug information is the one that the image has; the other counts how often tools wrote the file.
    let age = pdb.debug_information()?.age().unwrap_or(information.age);
    let mut numbers = BTreeMap::new();
    types(&mut pdb, &mut numbers)?;
    publics(&mut pdb, &mut numbers)?;
    Ok(Pdb { guid, age, numbers })
}

/// Members and sizes of the structures that the table of builds names.
fn types(pdb: &mut PDB<'_, File>, numbers: &mut BTreeMap<String, u64>) -> pdb2::Result<()> {
    let wanted: BTreeSet<&str> = offsets::columns().filter_map(structure_of).collect();
    let types = pdb.type_information()?;
    let mut left: BTreeMap<TypeIndex, Vec<Structure>> = BTreeMap::new();
    let mut all = types.iter();
    while let Some(one) = all.next()? {
        if !STRUCTURES.contains(&one.raw_kind()) {
            continue;
        }
        let (name, size, members) = match one.parse()? {
            TypeData::Class(class) => (class.name, class.size, class.fields),
            TypeData::Union(union) if !union.properties.forward_reference() => {
                (union.name, union.size, Some(union.fields))
            }
            _ => continue,
        };
        let name = name.to_string();
        // Without members it is only a promise that there will be such a structure.
        if let Some(members) = members.filter(|_| wanted.contains(&*name)) {
            numbers.entry(format!("sizeof({name})")).or_insert(size);
            left.entry(members).or_default().push(Structure { name: name.into_owned(), members });
        }
    }
    let mut bit_fields: BTreeMap<TypeIndex, Vec<String>> = BTreeMap::new();
    for _ in 0..MAX_CONTINUED {
        if left.is_empty() {
            break;
        }
        let looked_for = std::mem::take(&mut left);
        let mut all = types.iter();
        while let Some(one) = all.next()? {
            let Some(structures) = looked_for.get(&one.index()).filter(|_| one.raw_kind() == MEMBERS) else { continue };
            let TypeData::FieldList(list) = one.parse()? else { continue };
            for structure in structures {
                for member in &list.fields {
                    let TypeData::Member(member) = member else { continue };
                    let name = format!("{}.{}", structure.name, member.name);
                    bit_fields.entry(member.field_type).or_default().push(name.clone());
                    numbers.entry(name).or_insert(member.offset);
                }
                if let Some(more) = list.continuation.filter(|more| *more != structure.members) {
                    left.entry(more).or_default().push(Structure { name: structure.name.clone(), members: more });
                }
            }
        }
    }
    let mut all = types.iter();
    while let Some(one) = all.next()? {
        let Some(names) = bit_fields.get(&one.index()).filter(|_| one.raw_kind() == BIT_FIELD) else { continue };
        let TypeData::Bitfield(bits) = one.parse()? else { continue };
        for name in names {
            numbers.entry(format!("{name}@bit")).or_insert(bits.position.into());
            numbers.entry(format!("{name}@bits")).or_insert(bits.length.into());
        }
    }
    Ok(())
}

/// The structure that a column of the table is about.
fn structure_of(column: &'static str) -> Option<&'static str> {
    let inner = column.strip_prefix("sizeof(").and_then(|rest| rest.strip_suffix(')'));
    inner.or_else(|| column.split_once('.').map(|(structure, _)| structure)).filter(|name| name.starts_with('_'))
}

/// Places in the image of the symbols that the table of builds names.
fn publics(pdb: &mut PDB<'_, File>, numbers: &mut BTreeMap<String, u64>) -> pdb2::Result<()> {
    let wanted: BTreeSet<&str> = offsets::columns().filter_map(|column| column.strip_prefix("rva:")).collect();
    let map = pdb.address_map()?;
    let symbols = pdb.global_symbols()?;
    let mut all = symbols.iter();
    while let Some(one) = all.next()? {
        if one.raw_kind() != PUBLIC {
            continue;
        }
        let SymbolData::Public(public) = one.parse()? else { continue };
        let name = public.name.to_string();
        // Names of 32-bit code begin with an underscore.
        let name = wanted.get(&*name).or_else(|| wanted.get(name.strip_prefix('_')?));
        if let Some((name, place)) = name.zip(public.offset.to_rva(&map)) {
            numbers.entry(format!("rva:{name}")).or_insert(place.0.into());
        }
    }
    Ok(())
}

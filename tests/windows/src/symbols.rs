//! The kernel's file of symbols (PDB): public symbols and types, as the build's offsets say.
//!
//! Owns: streams, records of types and of symbols, and blocks of the container. Must not know: where anything is in memory.
//! Keeps: one machine gives one file, byte by byte; each offset, bit and address of the build is in it once.
//! Source: LLVM, "The PDB File Format" (MSF, PDB info, TPI, DBI) and its records of CodeView.

use std::collections::BTreeMap;

use crate::{Offsets, Windows, tables::Paging};

/// The smallest block that there is, so that small files are small.
const BLOCK: usize = 0x200;
/// Members in one list; longer ones go on in another.
const MEMBERS: usize = 12;
/// Number of the first type that a file describes.
const FIRST_TYPE: u32 = 0x1000;
/// Unsigned numbers of 32 and 64 bits.
const ULONG: u32 = 0x22;
const UQUAD: u32 = 0x23;
/// No stream.
const NONE: u16 = 0xffff;

fn put16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend(value.to_le_bytes());
}

fn put32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// A number in a record of types: small ones as they are.
fn put_number(bytes: &mut Vec<u8>, value: u64) {
    if value < 0x8000 {
        put16(bytes, value as u16);
    } else {
        put16(bytes, 0x8004);
        put32(bytes, value as u32);
    }
}

/// Fills up to a multiple of four, with bytes that say how many are left.
fn pad(bytes: &mut Vec<u8>) {
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0xf0 | (4 - bytes.len() % 4) as u8);
    }
}

/// Records of types.
#[derive(Default)]
struct Types {
    bytes: Vec<u8>,
    count: u32,
}

impl Types {
    /// Adds a record; its number. The length that it begins with does not count itself.
    fn add(&mut self, kind: u16, data: &[u8]) -> u32 {
        let mut record = Vec::new();
        put16(&mut record, kind);
        record.extend(data);
        record.splice(0..0, [0, 0]);
        pad(&mut record);
        let length = (record.len() as u16 - 2).to_le_bytes();
        record[..2].copy_from_slice(&length);
        self.bytes.extend(record);
        self.count += 1;
        FIRST_TYPE + self.count - 1
    }

    /// A list of members, as many records as that takes.
    fn members(&mut self, members: &[(String, u64, u32)]) -> u32 {
        let mut rest = None;
        for part in members.rchunks(MEMBERS) {
            let mut list = Vec::new();
            for (name, offset, of) in part {
                put16(&mut list, 0x150d);
                put16(&mut list, 3);
                put32(&mut list, *of);
                put_number(&mut list, *offset);
                put_text(&mut list, name);
                pad(&mut list);
            }
            if let Some(rest) = rest {
                put16(&mut list, 0x1404);
                put16(&mut list, 0);
                put32(&mut list, rest);
            }
            rest = Some(self.add(0x1203, &list));
        }
        rest.unwrap_or_default()
    }

    /// A structure; without members it is the promise of one.
    fn structure(&mut self, name: &str, size: u64, members: Option<(u32, usize)>) {
        let mut data = Vec::new();
        put16(&mut data, members.map_or(0, |(_, count)| count as u16));
        put16(&mut data, if members.is_some() { 0 } else { 0x80 });
        put32(&mut data, members.map_or(0, |(list, _)| list));
        put32(&mut data, 0);
        put32(&mut data, 0);
        put_number(&mut data, size);
        put_text(&mut data, name);
        self.add(0x1505, &data);
    }

    fn bit_field(&mut self, of: u32, bits: u64, first: u64) -> u32 {
        let mut data = Vec::new();
        put32(&mut data, of);
        data.extend([bits as u8, first as u8]);
        self.add(0x1205, &data)
    }

    fn stream(self) -> Vec<u8> {
        let mut stream = Vec::new();
        for value in [2004_0203, 56, FIRST_TYPE, FIRST_TYPE + self.count, self.bytes.len() as u32] {
            put32(&mut stream, value);
        }
        put16(&mut stream, NONE);
        put16(&mut stream, NONE);
        for value in [4, 0x3ffff, 0, 0, 0, 0, 0, 0] {
            put32(&mut stream, value);
        }
        stream.extend(self.bytes);
        stream
    }
}

/// The types of a build.
fn types(offsets: &Offsets) -> Vec<u8> {
    let mut types = Types::default();
    let mut structures: BTreeMap<&str, Vec<(String, u64, u32)>> = BTreeMap::new();
    for (name, value) in offsets.iter().filter(|(name, _)| name.starts_with('_')) {
        let Some((structure, member)) = name.split_once('.') else { continue };
        let (member, offset, of) = match member.split_once('@') {
            None => (member, value, UQUAD),
            Some((member, "bit")) => {
                let bits = offsets.get(&format!("{structure}.{member}@bits")).unwrap_or(1);
                (member, 0, types.bit_field(if offsets.seven() { UQUAD } else { ULONG }, bits, value))
            }
            Some(_) => continue,
        };
        structures.entry(structure).or_default().push((member.to_owned(), offset, of));
    }
    for name in structures.keys() {
        types.structure(name, 0, None);
    }
    for (name, mut members) in structures {
        members.sort_by_key(|(_, offset, _)| *offset);
        let list = types.members(&members);
        let size = offsets.get(&format!("sizeof({name})")).unwrap_or(0x8123);
        types.structure(name, size, Some((list, members.len())));
    }
    types.stream()
}

/// A container of streams.
fn container(streams: &[Vec<u8>]) -> Vec<u8> {
    let mut blocks: Vec<Vec<u8>> = vec![Vec::new(); 3];
    let store = |bytes: &[u8], blocks: &mut Vec<Vec<u8>>| -> Vec<u32> {
        let first = blocks.len() as u32;
        blocks.extend(bytes.chunks(BLOCK).map(<[u8]>::to_vec));
        (first..blocks.len() as u32).collect()
    };
    let mut directory = Vec::new();
    put32(&mut directory, streams.len() as u32);
    streams.iter().for_each(|stream| put32(&mut directory, stream.len() as u32));
    for stream in streams {
        let numbers = store(stream, &mut blocks);
        numbers.into_iter().for_each(|number| put32(&mut directory, number));
    }
    let list: Vec<u8> = store(&directory, &mut blocks).into_iter().flat_map(u32::to_le_bytes).collect();
    let list_at = store(&list, &mut blocks);
    let mut head = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0".to_vec();
    for value in [BLOCK as u32, 1, blocks.len() as u32, directory.len() as u32, 0] {
        put32(&mut head, value);
    }
    list_at.into_iter().for_each(|number| put32(&mut head, number));
    blocks[0] = head;
    blocks.iter().flat_map(|block| block.iter().copied().chain(std::iter::repeat(0)).take(BLOCK)).collect()
}

impl Windows {
    /// The kernel's file of symbols. `offsets` are those that the machine was built with.
    pub fn symbol_file(&self, offsets: &Offsets) -> Vec<u8> {
        let kernel = &self.truth.kernel;
        let mut information = Vec::new();
        // Tools have written the file some more times since it was linked.
        for value in [2000_0404, 0x5f00_0000, kernel.age + 3] {
            put32(&mut information, value);
        }
        let guid = u128::from_str_radix(&kernel.guid, 16).unwrap_or_default().to_be_bytes();
        information.extend([3, 2, 1, 0, 5, 4, 7, 6].map(|at: usize| guid[at]));
        information.extend(&guid[8..]);
        for value in [0, 0, 1, 0, 0, 2014_0508] {
            put32(&mut information, value);
        }

        let sections = self.truth.drivers.first().map(|kernel| kernel.sections.as_slice()).unwrap_or_default();
        let mut headers = Vec::new();
        for section in sections {
            let mut name = section.name.as_bytes().to_vec();
            name.resize(8, 0);
            headers.extend(name);
            for value in [section.size, section.rva, section.size, section.rva, 0, 0, 0, section.characteristics] {
                put32(&mut headers, value);
            }
        }
        let mut symbols = Vec::new();
        for (name, rva) in offsets.iter().filter_map(|(name, rva)| Some((name.strip_prefix("rva:")?, rva as u32))) {
            let inside = |section: &crate::truth::Section| rva >= section.rva && rva - section.rva < section.size;
            let Some(number) = sections.iter().position(inside) else { continue };
            let mut record = vec![0, 0];
            put16(&mut record, 0x110e);
            put32(&mut record, 0);
            put32(&mut record, rva - sections[number].rva);
            put16(&mut record, number as u16 + 1);
            put_text(&mut record, &if offsets.wide { name.to_owned() } else { format!("_{name}") });
            record.resize(record.len().next_multiple_of(4), 0);
            let length = (record.len() as u16 - 2).to_le_bytes();
            record[..2].copy_from_slice(&length);
            symbols.extend(record);
        }

        let mut debug = Vec::new();
        for value in [u32::MAX, 1999_0903, kernel.age] {
            put32(&mut debug, value);
        }
        for value in [NONE, 0x8e1d, NONE, 0, 6, 0] {
            put16(&mut debug, value);
        }
        for value in [0, 0, 0, 0, 0, 0, 22, 0] {
            put32(&mut debug, value);
        }
        put16(&mut debug, 0);
        put16(&mut debug, if self.truth.paging == Paging::Four { 0x8664 } else { 0x14c });
        put32(&mut debug, 0);
        for stream in [NONE, NONE, NONE, NONE, NONE, 5, NONE, NONE, NONE, NONE, NONE] {
            put16(&mut debug, stream);
        }
        container(&[Vec::new(), information, types(offsets), debug, Types::default().stream(), headers, symbols])
    }
}

//! Portable executables as they lie in memory: headers, sections, exports, imports, debug directory.
//!
//! Owns: bytes of one image by relative address. Must not know: where the image lies, who loads it.
//! Keeps: pages that nothing was written to take no memory. Resources are in `resource`.
//! Source: Microsoft's specification of the PE format.

use std::collections::BTreeMap;

use crate::{
    physical::{PAGE, Page},
    truth::{Export, Import, Section},
};

const EXECUTE: u32 = 0x6000_0020;
const READ: u32 = 0x4000_0040;
const WRITE: u32 = 0xc000_0040;
const DISCARD: u32 = 0x0200_0000;

/// What a section is for; the flags that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    Code,
    /// Code that is thrown away after the start.
    Start,
    Constants,
    Data,
    Relocations,
}

impl Use {
    fn characteristics(self) -> u32 {
        match self {
            Self::Code => EXECUTE,
            Self::Start => EXECUTE | DISCARD,
            Self::Constants => READ,
            Self::Data => WRITE,
            Self::Relocations => READ | DISCARD,
        }
    }
}

/// The symbol file that an image names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CodeView {
    /// 32 hex digits as they are written.
    pub(crate) guid: String,
    pub(crate) age: u32,
    pub(crate) file: String,
}

impl CodeView {
    /// The GUID as it lies in memory: its first three numbers are little endian.
    fn guid_bytes(&self) -> [u8; 16] {
        let digits = u128::from_str_radix(&self.guid, 16).unwrap_or(0).to_be_bytes();
        let [a, b, c, d, e, f, g, h, rest @ ..] = digits;
        let mut bytes = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[8..].copy_from_slice(&rest);
        bytes
    }
}

/// An image.
#[derive(Clone, Debug)]
pub(crate) struct Pe {
    pub(crate) wide: bool,
    pub(crate) dll: bool,
    pub(crate) timestamp: u32,
    pub(crate) entry: u32,
    pub(crate) size: u32,
    pub(crate) sections: Vec<Section>,
    pub(crate) exports: Vec<Export>,
    pub(crate) imports: Vec<Import>,
    pub(crate) pages: BTreeMap<u64, Page>,
    directories: [(u32, u32); 16],
}

impl Pe {
    pub(crate) fn new(wide: bool, dll: bool, timestamp: u32) -> Self {
        Self {
            wide,
            dll,
            timestamp,
            entry: 0,
            size: PAGE as u32,
            sections: Vec::new(),
            exports: Vec::new(),
            imports: Vec::new(),
            pages: BTreeMap::new(),
            directories: [(0, 0); 16],
        }
    }

    /// Writes bytes at a relative address.
    pub(crate) fn write(&mut self, at: u32, bytes: &[u8]) {
        for (at, byte) in (u64::from(at)..).zip(bytes) {
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
            page[(at % PAGE) as usize] = *byte;
        }
    }

    /// Writes a number of 32 bits.
    pub(crate) fn put(&mut self, at: u32, value: u32) {
        self.write(at, &value.to_le_bytes());
    }

    /// Adds a section that ends `size` bytes behind `at`; sections have to come in the order of their addresses.
    pub(crate) fn section(&mut self, name: &str, at: u32, size: u32, what: Use) {
        self.sections.push(Section { name: name.to_owned(), rva: at, size, characteristics: what.characteristics() });
        self.size = (at + size).next_multiple_of(PAGE as u32);
    }

    /// Adds a section behind the last one, and says where it begins.
    pub(crate) fn next_section(&mut self, name: &str, size: u32, what: Use) -> u32 {
        let at = self.size;
        self.section(name, at, size, what);
        at
    }

    pub(crate) fn directory(&mut self, index: usize, at: u32, size: u32) {
        self.directories[index] = (at, size);
    }

    /// Writes the export directory at `at`; names are sorted, as the loader searches them by halves. Returns where it ends.
    pub(crate) fn export(&mut self, at: u32, module: &str, mut exports: Vec<(String, u32)>) -> u32 {
        exports.sort();
        let count = exports.len() as u32;
        let (functions, names) = (at + 40, at + 40 + 4 * count);
        let ordinals = names + 4 * count;
        let mut text = ordinals + 2 * count;
        let header =
            [0, self.timestamp, 0, text, 1, count, count, functions, names, ordinals].map(u32::to_le_bytes).concat();
        self.write(at, &header);
        self.write(text, module.as_bytes());
        text += module.len() as u32 + 1;
        for (index, (name, rva)) in (0..).zip(&exports) {
            self.put(functions + 4 * index, *rva);
            self.put(names + 4 * index, text);
            self.write(ordinals + 2 * index, &(index as u16).to_le_bytes());
            self.write(text, name.as_bytes());
            text += name.len() as u32 + 1;
        }
        self.directory(0, at, text - at);
        self.exports = (1..).zip(exports).map(|(ordinal, (name, rva))| Export { name, rva, ordinal }).collect();
        text
    }

    /// Writes import descriptors at `at` and address tables at `table`. `resolve` says what the loader put into the latter. Returns where
    /// the descriptors, with all that belongs to them, end.
    pub(crate) fn import(
        &mut self,
        at: u32,
        table: u32,
        imports: &[(String, Vec<String>)],
        resolve: impl Fn(&str, &str) -> Option<u64>,
    ) -> u32 {
        let width = if self.wide { 8 } else { 4 };
        let descriptors = 20 * (imports.len() as u32 + 1);
        let (mut next, mut slot) = ((at + descriptors).next_multiple_of(8), table);
        for (index, (module, names)) in (0..).zip(imports) {
            let lookup = next;
            let mut text = lookup + width * (names.len() as u32 + 1);
            let first = slot;
            for (name_index, name) in (0..).zip(names) {
                self.put(lookup + name_index * width, text);
                let bound = resolve(module, name).unwrap_or(u64::from(text)).to_le_bytes();
                self.write(slot, &bound[..width as usize]);
                // The hint before the name.
                self.write(text, &[0, 0]);
                self.write(text + 2, name.as_bytes());
                self.imports.push(Import { module: module.clone(), name: name.clone(), slot });
                text = (text + name.len() as u32 + 3).next_multiple_of(2);
                slot += width;
            }
            slot += width;
            self.write(text, module.as_bytes());
            let descriptor = [lookup, 0, 0, text, first].map(u32::to_le_bytes).concat();
            self.write(at + index * 20, &descriptor);
            next = (text + module.len() as u32 + 1).next_multiple_of(8);
        }
        self.directory(1, at, descriptors);
        self.directory(12, table, slot - table);
        next
    }

    /// Writes a debug directory with one entry, which names the symbol file. Returns where it ends.
    pub(crate) fn debug(&mut self, at: u32, view: &CodeView) -> u32 {
        let record =
            [b"RSDS".as_slice(), &view.guid_bytes(), &view.age.to_le_bytes(), view.file.as_bytes(), b"\0"].concat();
        let data = at + 28;
        let entry = [0, self.timestamp, 0, 2, record.len() as u32, data, data].map(u32::to_le_bytes).concat();
        self.write(at, &entry);
        self.write(data, &record);
        self.directory(6, at, 28);
        (data + record.len() as u32).next_multiple_of(4)
    }

    /// Writes the headers, for an image that is loaded at `base`.
    pub(crate) fn headers(&mut self, base: u64, kernel: bool) {
        const NEW_HEADER: u32 = 0xf0;
        self.write(0, b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0\xb8\0\0\0\0\0\0\0\x40\0\0\0");
        self.put(0x3c, NEW_HEADER);
        // mov dx, text; print; exit(1)
        self.write(0x40, b"\x0e\x1f\xba\x0e\0\xb4\x09\xcd\x21\xb8\x01\x4c\xcd\x21");
        self.write(0x4e, b"This program cannot be run in DOS mode.\r\r\n$");
        let optional: u16 = if self.wide { 0xf0 } else { 0xe0 };
        let machine: u16 = if self.wide { 0x8664 } else { 0x14c };
        let mut kind: u16 = if self.wide { 0x22 } else { 0x102 };
        kind |= if self.dll { 0x2000 } else { 0 };
        let mut bytes = b"PE\0\0".to_vec();
        bytes.extend(machine.to_le_bytes());
        bytes.extend((self.sections.len() as u16).to_le_bytes());
        bytes.extend([self.timestamp, 0, 0].map(u32::to_le_bytes).concat());
        bytes.extend(optional.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(if self.wide { 0x20b_u16 } else { 0x10b }.to_le_bytes());
        bytes.extend([14, 16]);
        let code: u32 =
            self.sections.iter().filter(|section| section.characteristics & 0x20 != 0).map(|s| s.size).sum();
        let first_code = self.sections.iter().find(|section| section.characteristics & 0x20 != 0).map_or(0, |s| s.rva);
        bytes.extend([code, self.size - code, 0, self.entry, first_code].map(u32::to_le_bytes).concat());
        if self.wide {
            bytes.extend(base.to_le_bytes());
        } else {
            bytes.extend([first_code, base as u32].map(u32::to_le_bytes).concat());
        }
        bytes.extend([PAGE as u32, 0x200].map(u32::to_le_bytes).concat());
        bytes.extend([10_u16, 0, 10, 0, 10, 0].map(u16::to_le_bytes).concat());
        bytes.extend([0, self.size, 0x400, self.timestamp ^ 0x5a5a].map(u32::to_le_bytes).concat());
        bytes.extend([if kernel { 1_u16 } else { 3 }, 0x4160].map(u16::to_le_bytes).concat());
        for reserved in [0x4_0000_u64, 0x1000, 0x10_0000, 0x1000] {
            bytes.extend(&reserved.to_le_bytes()[..if self.wide { 8 } else { 4 }]);
        }
        bytes.extend([0, 16].map(u32::to_le_bytes).concat());
        for (at, size) in self.directories {
            bytes.extend([at, size].map(u32::to_le_bytes).concat());
        }
        // In the file, sections follow each other without the gaps that memory has.
        let mut in_file = 0x400;
        for section in &self.sections {
            let mut name = section.name.clone().into_bytes();
            name.resize(8, 0);
            bytes.extend(name);
            let raw = section.size.next_multiple_of(0x200);
            bytes.extend([section.size, section.rva, raw, in_file, 0, 0, 0].map(u32::to_le_bytes).concat());
            bytes.extend(section.characteristics.to_le_bytes());
            in_file += raw;
        }
        self.write(NEW_HEADER, &bytes);
    }

    /// The bytes of the page that begins at a relative address.
    pub(crate) fn page(&self, at: u32) -> Option<&Page> {
        self.pages.get(&(u64::from(at) / PAGE))
    }

    /// What a page of the image may be used for: write and execute.
    pub(crate) fn rights(&self, at: u32) -> (bool, bool) {
        let section = self.sections.iter().rev().find(|section| section.rva <= at);
        let flags = section.map_or(READ, |section| section.characteristics);
        (flags & 0x8000_0000 != 0, flags & 0x2000_0000 != 0)
    }
}

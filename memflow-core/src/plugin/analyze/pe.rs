//! PE: sections and exports of a DLL.
//!
//! Owns: what of a PE file is looked at, and where. Must not know: descriptors.
//! Keeps: tables are walked, not collected; goblin's reader of the export table is not used, as it believes its sizes.
//! Source: Microsoft, "PE Format": "File Headers", "Section Table", "The .edata Section".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use goblin::pe::{
    characteristic::IMAGE_FILE_DLL,
    data_directories::{DataDirectory, SIZEOF_DATA_DIRECTORY},
    export::{ExportDirectoryTable, SIZEOF_EXPORT_DIRECTORY_TABLE},
    header::{CoffHeader, PE_MAGIC, PE_POINTER_OFFSET, SIZEOF_COFF_HEADER},
    optional_header::{MAGIC_32, MAGIC_64},
    section_table::{IMAGE_SCN_CNT_CODE, IMAGE_SCN_MEM_EXECUTE},
};
use scroll::LE;

use super::{
    EntryProblem, Format, Machine, Rejection,
    container::{self, Container, Exports, Place, push_place},
    machine::pe_architecture,
    reader::{Reader, Table},
};

/// Size of a section header.
const SECTION: usize = 40;
/// Most sections. Windows took 96 for a long time.
const MAX_SECTIONS: u16 = 1024;
/// Most exported names: ordinals have 16 bits.
const MAX_NAMES: u32 = 1 << 16;

/// A DLL.
pub(super) struct Pe<'a> {
    reader: Reader<'a>,
    machine: Machine,
    sections: Vec<Section>,
    exports: DataDirectory,
    descriptors: Vec<Place>,
}

/// What is read of a section header.
#[derive(Clone, Copy)]
struct Section {
    is_descriptor: bool,
    /// Address, relative to the image.
    address: u32,
    /// Bytes that are loaded from the file.
    len: u32,
    /// Where they lie.
    offset: u32,
    /// Bytes that it has in the file, with the linker's padding.
    raw_size: u32,
    characteristics: u32,
}

impl<'a> Pe<'a> {
    pub(super) fn open(reader: Reader<'a>) -> Result<Self, Rejection> {
        let pointer: u32 = reader.record("the offset of the PE header", PE_POINTER_OFFSET.into(), 4, LE)?;
        let start = u64::from(pointer);
        let magic: u32 = reader.record("the PE signature", start, 4, LE)?;
        if magic != PE_MAGIC {
            return Err(Rejection::NotSharedObject { found: "a program for DOS".into() });
        }
        let coff: CoffHeader = reader.record("the file header", start.saturating_add(4), SIZEOF_COFF_HEADER, LE)?;
        if coff.characteristics & IMAGE_FILE_DLL == 0 {
            return Err(Rejection::NotSharedObject { found: "a program (PE)".into() });
        }
        let optional = start.saturating_add(24);
        let size = u64::from(coff.size_of_optional_header);
        reader.check("the optional header", optional, size)?;
        // The number of data directories and the first of them lie behind fields as wide as addresses.
        let (bits, directories) = match reader.record("the magic number of the optional header", optional, 2, LE)? {
            MAGIC_32 => (32, 92),
            MAGIC_64 => (64, 108),
            found => {
                let found = format!("{found:#x}");
                return Err(reader.malformed(
                    "the magic number of the optional header",
                    optional,
                    "0x10b or 0x20b",
                    found,
                ));
            }
        };
        let at = optional.saturating_add(directories);
        let count: u32 = reader.record("the number of data directories", at, 4, LE)?;
        let exports = if count == 0 {
            DataDirectory::default()
        } else {
            reader.record("the directory of exports", at.saturating_add(4), SIZEOF_DATA_DIRECTORY, LE)?
        };
        let machine = Machine {
            format: Format::Pe,
            architecture: pe_architecture(coff.machine),
            bits,
            big_endian: false,
            os: None,
        };
        let at = optional.saturating_add(size);
        if coff.number_of_sections > MAX_SECTIONS {
            let found = coff.number_of_sections.to_string();
            return Err(reader.malformed("the number of sections", start, format!("at most {MAX_SECTIONS}"), found));
        }
        let headers = reader.table("the section headers", at, coff.number_of_sections.into(), SECTION)?;
        let mut pe = Self { reader, machine, sections: Vec::new(), exports, descriptors: Vec::new() };
        for index in 0..headers.count {
            let section = section(&reader, headers, index)?;
            if section.is_descriptor {
                let (offset, len) = (section.offset.into(), section.len.into());
                push_place(&mut pe.descriptors, Place { offset, len, in_file: offset != 0 && len != 0 }, &reader)?;
            }
            pe.sections.push(section);
        }
        Ok(pe)
    }

    /// The section that loads this address from the file, and where it lies in the file.
    fn locate(&self, address: u32) -> Option<(Section, u64)> {
        self.sections.iter().find_map(|section| Some((*section, section.offset_of(address)?)))
    }

    /// The offset of a table that an address of the export directory leads to.
    fn offset(&self, what: &'static str, address: u32) -> Result<u64, Rejection> {
        match self.locate(address) {
            Some((_, offset)) => Ok(offset),
            None => {
                let found = format!("address {address:#x}");
                Err(self.reader.malformed(what, 0, "an address in a section", found))
            }
        }
    }
}

impl Section {
    /// Where the byte at an address lies in the file, if this section takes it from there.
    fn offset_of(&self, address: u32) -> Option<u64> {
        let within = address.checked_sub(self.address).filter(|at| *at < self.len && self.offset != 0)?;
        u64::from(self.offset).checked_add(within.into())
    }
}

fn section(reader: &Reader<'_>, headers: Table, index: u64) -> Result<Section, Rejection> {
    let start = index.saturating_mul(headers.record).saturating_add(headers.offset);
    let field = |at: u64| reader.record::<u32, _, _>(headers.what, start.saturating_add(at), 4, LE);
    let (virtual_size, raw_size) = (field(8)?, field(16)?);
    Ok(Section {
        is_descriptor: reader.bytes(headers.what, start, 8)? == Format::Pe.section().as_bytes(),
        address: field(12)?,
        // The file's part is rounded up to whole blocks; the section ends earlier. Zero: not given.
        len: if virtual_size == 0 { raw_size } else { raw_size.min(virtual_size) },
        offset: field(20)?,
        raw_size,
        characteristics: field(36)?,
    })
}

impl Exports for Pe<'_> {
    type Export = u32;

    fn each_export(&self, most: usize, mut take: impl FnMut(&[u8], u32) -> bool) -> Result<(), Rejection> {
        if self.exports.virtual_address == 0 {
            return Ok(());
        }
        let reader = self.reader;
        let at = self.offset("the export directory", self.exports.virtual_address)?;
        let directory: ExportDirectoryTable =
            reader.record("the export directory", at, SIZEOF_EXPORT_DIRECTORY_TABLE, LE)?;
        let count = directory.number_of_name_pointers;
        if count == 0 {
            return Ok(());
        }
        if count > MAX_NAMES {
            let expected = format!("at most {MAX_NAMES}");
            return Err(reader.malformed("the number of exported names", at, expected, count.to_string()));
        }
        let table =
            |what, address, count: u32, size| reader.table(what, self.offset(what, address)?, count.into(), size);
        let names = table("the exported names", directory.name_pointer_rva, count, 4)?;
        let ordinals = table("the ordinals of exports", directory.ordinal_table_rva, count, 2)?;
        let addresses =
            table("the addresses of exports", directory.export_address_table_rva, directory.address_table_entries, 4)?;
        for index in 0..names.count {
            let Some((_, offset)) = self.locate(reader.entry(names, index, LE)?) else { continue };
            let Some(name) = reader.name("a name", offset, most)? else { continue };
            let ordinal: u16 = reader.entry(ordinals, index, LE)?;
            if u64::from(ordinal) >= addresses.count {
                let expected = format!("less than {}", addresses.count);
                return Err(reader.malformed(ordinals.what, ordinals.offset, expected, ordinal.to_string()));
            }
            if take(&name, reader.entry(addresses, ordinal.into(), LE)?) {
                break;
            }
        }
        Ok(())
    }

    fn entry_problem(&self, address: u32) -> Option<EntryProblem> {
        let directory = self.exports.virtual_address;
        if address.checked_sub(directory).is_some_and(|at| at < self.exports.size) {
            return Some(EntryProblem::NotData { found: "in another DLL" });
        }
        match self.locate(address) {
            Some((section, _)) if section.characteristics & (IMAGE_SCN_CNT_CODE | IMAGE_SCN_MEM_EXECUTE) != 0 => {
                Some(EntryProblem::NotData { found: "a function" })
            }
            Some((_, offset)) if offset < self.reader.size() => None,
            _ => Some(EntryProblem::NotInFile { address: address.into() }),
        }
    }
}

impl Container for Pe<'_> {
    fn reader(&self) -> Reader<'_> {
        self.reader
    }

    fn machine(&self) -> Machine {
        self.machine
    }

    fn descriptors(&self) -> &[Place] {
        &self.descriptors
    }

    fn check_loaded(&self) -> Result<(), Rejection> {
        for section in self.sections.iter().filter(|section| section.offset != 0) {
            self.reader.check("a section", section.offset.into(), section.raw_size.into())?;
        }
        Ok(())
    }

    fn entries(&self, names: &[&str]) -> Result<Vec<Option<EntryProblem>>, Rejection> {
        container::entries(self, names)
    }

    fn export_beginning_with(&self, prefixes: &[&str]) -> Result<Option<String>, Rejection> {
        container::export_beginning_with(self, prefixes)
    }
}

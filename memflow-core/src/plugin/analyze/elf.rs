//! ELF: segments, sections and dynamic symbols.
//!
//! Owns: what of an ELF file is looked at, and where. Must not know: descriptors.
//! Keeps: tables are walked, not collected; a table that does not lie in the file is told before it is walked.
//! Source: System V ABI, "Object Files" and "Program Loading and Dynamic Linking"; `DF_1_PIE`: GNU binutils, `elf/common.h`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use goblin::{
    container::{Container as Class, Ctx},
    elf::{
        Dyn, Header, ProgramHeader, SectionHeader, Sym,
        dynamic::{DF_1_PIE, DT_FLAGS_1, DT_NULL},
        header, program_header as segment, section_header as section,
        sym::{self, STV_DEFAULT, STV_PROTECTED},
    },
};
use scroll::{Endian, ctx::SizeWith};

use super::{
    EntryProblem, Format, Machine, Rejection,
    container::{self, Container, Exports, MAX_SYMBOL, MAX_SYMBOLS, Place, push_place},
    machine::{elf_architecture, elf_os},
    reader::{Name, Reader, Table, wide},
};

/// A shared object in ELF.
pub(super) struct Elf<'a> {
    reader: Reader<'a>,
    ctx: Ctx,
    machine: Machine,
    segments: Table,
    descriptors: Vec<Place>,
    symbols: Option<Symbols>,
}

/// The dynamic symbols and their names.
struct Symbols {
    table: Table,
    names: SectionHeader,
}

impl<'a> Elf<'a> {
    pub(super) fn open(reader: Reader<'a>) -> Result<Self, Rejection> {
        let ident = reader.bytes("the identification", 0, wide(header::SIZEOF_IDENT))?;
        let field = |at: usize| ident.get(at).copied().unwrap_or_default();
        let bad = |what, at: usize, found: u8| reader.malformed(what, wide(at), "1 or 2", found.to_string());
        let (class, bits) = match field(header::EI_CLASS) {
            header::ELFCLASS32 => (Class::Little, 32),
            header::ELFCLASS64 => (Class::Big, 64),
            found => return Err(bad("the class", header::EI_CLASS, found)),
        };
        let order = match field(header::EI_DATA) {
            header::ELFDATA2LSB => Endian::Little,
            header::ELFDATA2MSB => Endian::Big,
            found => return Err(bad("the byte order", header::EI_DATA, found)),
        };
        let ctx = Ctx::new(class, order);
        let header: Header = reader.record("the file header", 0, Header::size(ctx), order)?;
        shared_object(&header)?;
        let machine = Machine {
            format: Format::Elf,
            architecture: elf_architecture(header.e_machine, bits),
            bits,
            big_endian: order == Endian::Big,
            os: elf_os(field(header::EI_OSABI)),
        };
        let segments = segments(&reader, &header, ctx)?;
        let mut elf = Self { reader, ctx, machine, segments, descriptors: Vec::new(), symbols: None };
        elf.find_sections(&header)?;
        elf.refuse_programs()?;
        Ok(elf)
    }

    /// Finds the sections with descriptors and the dynamic symbols.
    fn find_sections(&mut self, header: &Header) -> Result<(), Rejection> {
        let Some((table, names)) = sections(&self.reader, header, self.ctx)? else { return Ok(()) };
        let names: SectionHeader = self.reader.entry(table, names, self.ctx)?;
        self.reader.check("the names of sections", names.sh_offset, names.sh_size)?;
        for index in 0..table.count {
            let header: SectionHeader = self.reader.entry(table, index, self.ctx)?;
            if header.sh_type == section::SHT_DYNSYM && self.symbols.is_none() {
                self.symbols = Some(self.symbols(table, &header)?);
            }
            let name = string(&self.reader, &names, header.sh_name, MAX_SYMBOL)?;
            if name.as_deref() == Some(Format::Elf.section().as_bytes()) && header.sh_type != section::SHT_NULL {
                let in_file = header.sh_type != section::SHT_NOBITS;
                let place = Place { offset: header.sh_offset, len: header.sh_size, in_file };
                push_place(&mut self.descriptors, place, &self.reader)?;
            }
        }
        Ok(())
    }

    fn symbols(&self, sections: Table, header: &SectionHeader) -> Result<Symbols, Rejection> {
        // In a file of debug symbols, the section has a size and no bytes.
        let size = Sym::size_with(&self.ctx);
        let count = header.sh_size.checked_div(wide(size)).unwrap_or_default();
        let names = self.reader.entry(sections, header.sh_link.into(), self.ctx)?;
        Ok(Symbols {
            table: Table { what: "the dynamic symbols", offset: header.sh_offset, count, record: wide(size) },
            names,
        })
    }

    /// Programs are position-independent too, and have the same type; a flag tells.
    fn refuse_programs(&self) -> Result<(), Rejection> {
        for index in 0..self.segments.count {
            let header: ProgramHeader = self.reader.entry(self.segments, index, self.ctx)?;
            if header.p_type != segment::PT_DYNAMIC {
                continue;
            }
            let size = Dyn::size_with(&self.ctx);
            let count = header.p_filesz.checked_div(wide(size)).unwrap_or_default();
            let table = self.reader.table("the dynamic section", header.p_offset, count, size)?;
            for index in 0..count {
                let entry: Dyn = self.reader.entry(table, index, self.ctx)?;
                match entry.d_tag {
                    DT_NULL => break,
                    DT_FLAGS_1 if entry.d_val & DF_1_PIE != 0 => {
                        return Err(Rejection::NotSharedObject { found: "a program (ELF)".into() });
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        let found = "no dynamic section (ELF); link it with `-shared`";
        Err(Rejection::NotSharedObject { found: found.into() })
    }

    /// True if a segment that is loaded takes these addresses from the file; `check_loaded` has seen that it has them.
    fn in_file(&self, address: u64, len: u64) -> bool {
        (0..self.segments.count).any(|index| {
            let Ok(header) = self.reader.entry::<ProgramHeader, _, _>(self.segments, index, self.ctx) else {
                return false;
            };
            let inside = address
                .checked_sub(header.p_vaddr)
                .and_then(|at| at.checked_add(len))
                .is_some_and(|end| end <= header.p_filesz);
            header.p_type == segment::PT_LOAD && inside
        })
    }
}

/// The symbol is defined elsewhere.
const SHN_UNDEF: usize = 0;
/// Its value is no address.
const SHN_ABS: usize = 0xfff1;

fn shared_object(header: &Header) -> Result<(), Rejection> {
    let found = match header.e_type {
        header::ET_DYN => return Ok(()),
        header::ET_REL => "an object file (ELF); link it with `-shared`",
        header::ET_EXEC => "a program (ELF)",
        header::ET_CORE => "a memory image (ELF core)",
        _ => "an ELF file of no known type",
    };
    Err(Rejection::NotSharedObject { found: found.into() })
}

fn segments(reader: &Reader<'_>, header: &Header, ctx: Ctx) -> Result<Table, Rejection> {
    let size = ProgramHeader::size(ctx);
    if header.e_phnum != 0 && usize::from(header.e_phentsize) != size {
        let found = header.e_phentsize.to_string();
        return Err(reader.malformed("the size of a program header", 0, size.to_string(), found));
    }
    reader.table("the program headers", header.e_phoff, header.e_phnum.into(), size)
}

/// The section headers, and the index of the one with their names; nothing if the file has none.
fn sections(reader: &Reader<'_>, header: &Header, ctx: Ctx) -> Result<Option<(Table, u64)>, Rejection> {
    if header.e_shoff == 0 {
        return Ok(None);
    }
    let size = SectionHeader::size(ctx);
    if usize::from(header.e_shentsize) != size {
        let found = header.e_shentsize.to_string();
        return Err(reader.malformed("the size of a section header", 0, size.to_string(), found));
    }
    // Numbers that do not fit the file header stand in the first section header.
    let first = reader.table("the section headers", header.e_shoff, 1, size)?;
    let extended: SectionHeader = reader.entry(first, 0, ctx)?;
    let count = if header.e_shnum == 0 { extended.sh_size } else { header.e_shnum.into() };
    let names: u64 = if header.e_shstrndx == SHN_XINDEX { extended.sh_link.into() } else { header.e_shstrndx.into() };
    let table = reader.table(first.what, first.offset, count, size)?;
    if names >= count {
        let expected = format!("less than {count}");
        return Err(reader.malformed("the index of the section names", 0, expected, names.to_string()));
    }
    Ok(Some((table, names)))
}

/// `SHN_XINDEX` as `e_shstrndx` has it.
const SHN_XINDEX: u16 = 0xffff;

/// The string at an offset of a string table.
fn string(reader: &Reader<'_>, table: &SectionHeader, at: usize, most: usize) -> Result<Option<Name>, Rejection> {
    let at = wide(at);
    let (Some(room), Some(offset)) = (table.sh_size.checked_sub(at), table.sh_offset.checked_add(at)) else {
        return Ok(None);
    };
    reader.name("a name", offset, usize::try_from(room).unwrap_or(usize::MAX).min(most))
}

impl Exports for Elf<'_> {
    type Export = Sym;

    fn each_export(&self, most: usize, mut take: impl FnMut(&[u8], Sym) -> bool) -> Result<(), Rejection> {
        let Some(symbols) = &self.symbols else { return Ok(()) };
        let (table, names) = (symbols.table, &symbols.names);
        if table.count > MAX_SYMBOLS {
            let (expected, found) = (format!("at most {MAX_SYMBOLS}"), table.count.to_string());
            return Err(self.reader.malformed("the number of dynamic symbols", table.offset, expected, found));
        }
        self.reader.check(table.what, table.offset, table.count.saturating_mul(table.record))?;
        self.reader.check("the names of dynamic symbols", names.sh_offset, names.sh_size)?;
        for index in 0..table.count {
            let symbol: Sym = self.reader.entry(table, index, self.ctx)?;
            let bound = matches!(symbol.st_bind(), sym::STB_GLOBAL | sym::STB_WEAK | sym::STB_GNU_UNIQUE);
            let visible = matches!(symbol.st_visibility(), STV_DEFAULT | STV_PROTECTED);
            if !bound || !visible || symbol.st_shndx == SHN_UNDEF {
                continue;
            }
            let Some(name) = string(&self.reader, names, symbol.st_name, most)? else { continue };
            if take(&name, symbol) {
                break;
            }
        }
        Ok(())
    }

    fn entry_problem(&self, symbol: Sym) -> Option<EntryProblem> {
        let found = match symbol.st_type() {
            _ if symbol.st_shndx == SHN_ABS => "a number, not an address",
            sym::STT_OBJECT if symbol.st_size == 0 => "an object of 0 bytes",
            sym::STT_OBJECT if self.in_file(symbol.st_value, symbol.st_size) => return None,
            sym::STT_OBJECT => return Some(EntryProblem::NotInFile { address: symbol.st_value }),
            sym::STT_FUNC | sym::STT_GNU_IFUNC => "a function",
            sym::STT_TLS => "a variable of each thread",
            _ => "a symbol without a type",
        };
        Some(EntryProblem::NotData { found })
    }
}

impl Container for Elf<'_> {
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
        for index in 0..self.segments.count {
            let header: ProgramHeader = self.reader.entry(self.segments, index, self.ctx)?;
            if header.p_type == segment::PT_LOAD {
                self.reader.check("a segment", header.p_offset, header.p_filesz)?;
            }
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

//! Mach-O: segments, sections and exports of a library or bundle.
//!
//! Owns: what of a Mach-O file is looked at, and where. Must not know: descriptors, files with several slices.
//! Keeps: memory is bounded by the load commands, which lie in the file.
//! Source: `mach-o/loader.h`.
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
    mach::{
        constants::{
            S_ATTR_PURE_INSTRUCTIONS, S_ATTR_SOME_INSTRUCTIONS, S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL, S_ZEROFILL,
            SECTION_TYPE,
        },
        header::{Header, MH_BUNDLE, MH_CORE, MH_DYLIB, MH_EXECUTE, MH_OBJECT, SIZEOF_HEADER_32, SIZEOF_HEADER_64},
        load_command::{
            DyldInfoCommand, LC_DYLD_EXPORTS_TRIE, LC_DYLD_INFO, LC_DYLD_INFO_ONLY, LC_SEGMENT, LC_SEGMENT_64,
            LinkeditDataCommand, LoadCommandHeader, SIZEOF_SECTION_32, SIZEOF_SECTION_64, SegmentCommand32,
            SegmentCommand64,
        },
        segment::Section,
    },
};
use scroll::{Endian, ctx::TryFromCtx};

use super::{
    EntryProblem, Format, Machine, Rejection,
    container::{Container, Place, push_place},
    export_trie::{self, Broken, Export},
    machine::macho_architecture,
    reader::{Reader, name, wide},
};

/// Size of a command's own header.
const COMMAND: u64 = 8;
/// Largest export trie that is looked into.
const MAX_TRIE: u64 = 16 << 20;

/// A library or bundle.
pub(super) struct MachO<'a> {
    reader: Reader<'a>,
    machine: Machine,
    descriptors: Vec<Place>,
    sections: Vec<Section>,
    /// Offset and size of each segment.
    segments: Vec<(u64, u64)>,
    /// Address of the file's first byte.
    base: u64,
    /// Offset and size of the export trie.
    exports: Option<(u64, u64)>,
}

/// What the two widths of a segment command have in common.
struct Segment {
    vmaddr: u64,
    fileoff: u64,
    filesize: u64,
    sections: u32,
    /// Size of the command before its sections.
    size: usize,
}

impl<'a> MachO<'a> {
    /// `start` are the first bytes, by which it was recognised.
    pub(super) fn open(reader: Reader<'a>, start: &[u8]) -> Result<Self, Rejection> {
        let (class, order) = match start {
            [0xce, ..] => (Class::Little, Endian::Little),
            [0xcf, ..] => (Class::Big, Endian::Little),
            [.., _] if start.get(3) == Some(&0xce) => (Class::Little, Endian::Big),
            _ => (Class::Big, Endian::Big),
        };
        let (header_size, bits) = if class.is_big() { (SIZEOF_HEADER_64, 64) } else { (SIZEOF_HEADER_32, 32) };
        let ctx = Ctx::new(class, order);
        // goblin asks for the size of the larger header in any case.
        let header: Header = reader.record("the file header", 0, SIZEOF_HEADER_64, ctx)?;
        shared_object(&header)?;
        let machine = Machine {
            format: Format::MachO,
            architecture: macho_architecture(header.cputype),
            bits,
            big_endian: order == Endian::Big,
            os: None,
        };
        let mut macho = Self {
            reader,
            machine,
            descriptors: Vec::new(),
            sections: Vec::new(),
            segments: Vec::new(),
            base: 0,
            exports: None,
        };
        macho.find_commands(wide(header_size), &header, ctx)?;
        Ok(macho)
    }

    fn find_commands(&mut self, start: u64, header: &Header, ctx: Ctx) -> Result<(), Rejection> {
        let commands = "the load commands";
        self.reader.check(commands, start, header.sizeofcmds.into())?;
        let end = start.saturating_add(header.sizeofcmds.into());
        let mut at = start;
        for _ in 0..header.ncmds {
            if end.saturating_sub(at) < COMMAND {
                let found = format!("{} in {} bytes", header.ncmds, header.sizeofcmds);
                return Err(self.reader.malformed(commands, at, "commands of at least 8 bytes", found));
            }
            let command: LoadCommandHeader = self.reader.record("a load command", at, 8, ctx.le)?;
            let size = u64::from(command.cmdsize);
            let next = at.saturating_add(size);
            if size < COMMAND || next > end {
                let expected = format!("a size from 8 to {}", end.saturating_sub(at));
                return Err(self.reader.malformed("a load command", at, expected, size.to_string()));
            }
            self.command(command.cmd, at, size, ctx)?;
            at = next;
        }
        Ok(())
    }

    fn command(&mut self, command: u32, at: u64, size: u64, ctx: Ctx) -> Result<(), Rejection> {
        match command {
            LC_SEGMENT => {
                let command: SegmentCommand32 = self.body(at, size, size_of::<SegmentCommand32>(), ctx)?;
                let segment = Segment {
                    vmaddr: command.vmaddr.into(),
                    fileoff: command.fileoff.into(),
                    filesize: command.filesize.into(),
                    sections: command.nsects,
                    size: size_of::<SegmentCommand32>(),
                };
                self.segment(&segment, at, size, Ctx::new(Class::Little, ctx.le))?;
            }
            LC_SEGMENT_64 => {
                let command: SegmentCommand64 = self.body(at, size, size_of::<SegmentCommand64>(), ctx)?;
                let segment = Segment {
                    vmaddr: command.vmaddr,
                    fileoff: command.fileoff,
                    filesize: command.filesize,
                    sections: command.nsects,
                    size: size_of::<SegmentCommand64>(),
                };
                self.segment(&segment, at, size, Ctx::new(Class::Big, ctx.le))?;
            }
            LC_DYLD_INFO | LC_DYLD_INFO_ONLY => {
                let command: DyldInfoCommand = self.body(at, size, size_of::<DyldInfoCommand>(), ctx)?;
                self.exports = Some((command.export_off.into(), command.export_size.into()));
            }
            LC_DYLD_EXPORTS_TRIE => {
                let command: LinkeditDataCommand = self.body(at, size, size_of::<LinkeditDataCommand>(), ctx)?;
                self.exports = Some((command.dataoff.into(), command.datasize.into()));
            }
            _ => {}
        }
        Ok(())
    }

    /// The command at `at` as its kind has it, if its size has room for that.
    fn body<T>(&self, at: u64, size: u64, len: usize, ctx: Ctx) -> Result<T, Rejection>
    where
        T: for<'b> TryFromCtx<'b, Endian, Error = scroll::Error>,
    {
        let what = "a load command";
        if wide(len) > size {
            return Err(self.reader.malformed(what, at, format!("at least {len} bytes"), size.to_string()));
        }
        self.reader.record(what, at, len, ctx.le)
    }

    fn segment(&mut self, segment: &Segment, at: u64, size: u64, ctx: Ctx) -> Result<(), Rejection> {
        let what = "the sections of a segment";
        let record = if ctx.container.is_big() { SIZEOF_SECTION_64 } else { SIZEOF_SECTION_32 };
        let start = at.saturating_add(wide(segment.size));
        let room = size.saturating_sub(wide(segment.size));
        if u64::from(segment.sections).saturating_mul(wide(record)) > room {
            let found = format!("{} sections in {room} bytes", segment.sections);
            return Err(self.reader.malformed(what, at, "sections in the segment's command", found));
        }
        // Its bytes are those of the file from the start: the address zero of exports.
        if segment.fileoff == 0 && segment.filesize != 0 {
            self.base = segment.vmaddr;
        }
        self.segments.push((segment.fileoff, segment.filesize));
        let table = self.reader.table(what, start, segment.sections.into(), record)?;
        for index in 0..table.count {
            let section: Section = self.reader.entry(table, index, ctx)?;
            if name(&section.segname, 16) == b"__DATA" && name(&section.sectname, 16) == b"__memflow" {
                let place = Place { offset: section.offset.into(), len: section.size, in_file: has_bytes(&section) };
                push_place(&mut self.descriptors, place, &self.reader)?;
            }
            self.sections.push(section);
        }
        Ok(())
    }

    fn trie(&self) -> Result<(Vec<u8>, u64), Rejection> {
        let (offset, len) = self.exports.unwrap_or_default();
        if len > MAX_TRIE {
            let expected = format!("at most {MAX_TRIE} bytes");
            return Err(self.reader.malformed("the exports", offset, expected, len.to_string()));
        }
        Ok((self.reader.bytes("the exports", offset, len)?, offset))
    }

    fn broken(&self, broken: Broken, offset: u64) -> Rejection {
        self.reader.malformed("the exports", offset.saturating_add(wide(broken.at)), "a node of their tree", "none")
    }

    fn entry_problem(&self, export: Export) -> Option<EntryProblem> {
        let address = match export {
            Export::Address(address) => address.wrapping_add(self.base),
            Export::Other(found) => return Some(EntryProblem::NotData { found }),
        };
        let home = self.sections.iter().find_map(|section| {
            let within = address.checked_sub(section.addr).filter(|at| *at < section.size)?;
            Some((section, u64::from(section.offset).saturating_add(within)))
        });
        match home {
            Some((section, _)) if section.flags & (S_ATTR_PURE_INSTRUCTIONS | S_ATTR_SOME_INSTRUCTIONS) != 0 => {
                Some(EntryProblem::NotData { found: "a function" })
            }
            Some((section, offset)) if has_bytes(section) && offset < self.reader.size() => None,
            _ => Some(EntryProblem::NotInFile { address }),
        }
    }
}

fn has_bytes(section: &Section) -> bool {
    !matches!(section.flags & SECTION_TYPE, S_ZEROFILL | S_GB_ZEROFILL | S_THREAD_LOCAL_ZEROFILL)
}

fn shared_object(header: &Header) -> Result<(), Rejection> {
    let found = match header.filetype {
        MH_DYLIB | MH_BUNDLE => return Ok(()),
        MH_OBJECT => "an object file (Mach-O); link it with `-bundle` or `-dynamiclib`",
        MH_EXECUTE => "a program (Mach-O)",
        MH_CORE => "a memory image (Mach-O core)",
        _ => "a Mach-O file that is neither library nor bundle",
    };
    Err(Rejection::NotSharedObject { found: found.into() })
}

impl Container for MachO<'_> {
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
        for (offset, len) in &self.segments {
            self.reader.check("a segment", *offset, *len)?;
        }
        Ok(())
    }

    fn entries(&self, names: &[&str]) -> Result<Vec<Option<EntryProblem>>, Rejection> {
        let (trie, offset) = self.trie()?;
        if trie.is_empty() {
            return Ok(vec![Some(EntryProblem::NotExported); names.len()]);
        }
        names
            .iter()
            .map(|name| {
                // As the compiler writes names of C.
                let symbol = [b"_", name.as_bytes()].concat();
                Ok(match export_trie::find(&trie, &symbol).map_err(|broken| self.broken(broken, offset))? {
                    Some(export) => self.entry_problem(export),
                    None => Some(EntryProblem::NotExported),
                })
            })
            .collect()
    }

    fn export_beginning_with(&self, prefixes: &[&str]) -> Result<Option<String>, Rejection> {
        let (trie, offset) = self.trie()?;
        for prefix in prefixes.iter().filter(|_| !trie.is_empty()) {
            let symbol = [b"_", prefix.as_bytes()].concat();
            if export_trie::any_begins_with(&trie, &symbol).map_err(|broken| self.broken(broken, offset))? {
                return Ok(Some(format!("{prefix}…")));
            }
        }
        Ok(None)
    }
}

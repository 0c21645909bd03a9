//! Objects: their headers, their types, and tables of handles to them.
//!
//! Owns: headers, the table of types, tables of handles. Must not know: what is in an object.
//! Keeps: the type in a header is hidden by a cookie on builds that have one.
//! Source: the structures of these names in public symbols.

use std::collections::BTreeMap;

use crate::{
    Error,
    machine::{KERNEL, Machine},
    physical::PAGE,
    pool::Pool,
};

/// A type of objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Process,
    Thread,
    Token,
    File,
    Event,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Process => "Process",
            Self::Thread => "Thread",
            Self::Token => "Token",
            Self::File => "File",
            Self::Event => "Event",
        }
    }

    fn tag(self, ten: bool) -> [u8; 4] {
        let mut tag = *match self {
            Self::Process => b"Proc",
            Self::Thread => b"Thre",
            Self::Token => b"Toke",
            Self::File => b"File",
            Self::Event => b"Even",
        };
        // Before Windows 10, the highest bit says that a piece must not be freed by others.
        tag[3] |= if ten { 0 } else { 0x80 };
        tag
    }
}

/// Names of types by their number; those in between are of no use here.
const TYPES: [&str; 9] = ["", "", "Type", "Directory", "SymbolicLink", "Token", "Job", "Process", "Thread"];

/// Entries of a table of handles, by index: the object's word and the word with its rights.
pub(crate) type Entries = BTreeMap<u64, (u64, u64)>;

impl Machine {
    /// Number of a type, as headers have it before it is hidden.
    fn type_index(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Token => 5,
            Kind::Process => 7,
            Kind::Thread => 8,
            Kind::Event if self.offsets.ten() => 16,
            Kind::Event => 12,
            Kind::File if self.offsets.ten() => 37,
            Kind::File if self.offsets.seven() => 28,
            Kind::File => 30,
        }
    }

    /// An object of `size` bytes; the address behind its header.
    pub(crate) fn object(&mut self, kind: Kind, pool: Pool, size: u64) -> Result<u64, Error> {
        let header = self.offsets.need("_OBJECT_HEADER.Body")?;
        // Processes are charged to a quota, which stands before their header.
        let quota = if kind == Kind::Process { 4 * self.pointer() } else { 0 };
        let block = self.pool(pool, quota + header + size, &kind.tag(self.offsets.ten()))?;
        let at = block + quota;
        self.header(kind, at, if quota == 0 { 0 } else { 8 })?;
        if self.cluttered {
            self.clutter_around(kind, at + header, size)?;
        }
        Ok(at + header)
    }

    /// An event with a name, which stands before its header.
    pub(crate) fn event(&mut self, name: &str) -> Result<u64, Error> {
        let (header, width) = (self.offsets.need("_OBJECT_HEADER.Body")?, self.pointer());
        let before = 4 * width;
        let block = self.pool(Pool::NonPaged, before + header + 3 * width, b"Even")?;
        let text = self.pool(Pool::Paged, name.len() as u64 * 2 + 2, b"ObNm")?;
        self.string(KERNEL, width, block + width, text, name)?;
        self.header(Kind::Event, block + before, 2)?;
        // A dispatcher header of a synchronisation event.
        self.put(KERNEL, block + before + header, 1, 1)?;
        Ok(block + before + header)
    }

    fn header(&mut self, kind: Kind, at: u64, mask: u64) -> Result<(), Error> {
        let (pointers, handles) = (self.rng.u64(2..0x8000), self.rng.u64(1..12));
        self.put_pointer(at, pointers)?;
        self.put_pointer(at + self.pointer(), handles)?;
        let mut index = self.type_index(kind);
        if let Some(cookie) = self.cookie {
            index ^= u64::from(cookie) ^ (at >> 8 & 0xff);
        }
        self.field(at, "_OBJECT_HEADER.TypeIndex", 1, index)?;
        self.field(at, "_OBJECT_HEADER.InfoMask", 1, mask)
    }

    /// Clutter in a process or a thread, but for the fields that are known: they are zero until they are written.
    fn clutter_around(&mut self, kind: Kind, at: u64, size: u64) -> Result<(), Error> {
        let prefixes = match kind {
            Kind::Process => ["_EPROCESS.", "_KPROCESS."],
            Kind::Thread => ["_ETHREAD.", "_KTHREAD."],
            Kind::Token | Kind::File | Kind::Event => return Ok(()),
        };
        self.clutter(at, size)?;
        let known: Vec<(bool, u64)> = self
            .offsets
            .iter()
            .filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .map(|(name, offset)| (name == "_EPROCESS.VadRoot", offset))
            .collect();
        for (tree, offset) in known {
            let bytes = if tree { 8 * self.pointer() } else { 16 };
            let bytes = bytes.min(size - offset);
            self.write(KERNEL, at + offset, &vec![0; bytes as usize])?;
        }
        Ok(())
    }

    /// Types, and the table of them at `table`; that of events if there are any.
    pub(crate) fn types(&mut self, table: u64, events: bool) -> Result<(), Error> {
        let width = self.pointer();
        let file = self.type_index(Kind::File);
        self.put_pointer(table + width, 0xbad0_b0b0)?;
        let event = events.then(|| (self.type_index(Kind::Event), "Event"));
        let named = (2..9).map(|index| (index, TYPES[index as usize])).chain([(file, "File")]).chain(event);
        for (index, name) in named {
            let object = self.pool(Pool::NonPaged, 0x28 * width, b"ObjT")?;
            let text = self.pool(Pool::Paged, 32, b"ObNm")?;
            self.string(KERNEL, width, object + 2 * width, text, name)?;
            self.put(KERNEL, object + 5 * width, 1, index)?;
            self.put_pointer(table + index * width, object)?;
        }
        Ok(())
    }

    /// An entry of a table of handles. `object` is what the entry points to: a header, or a body in the table of process numbers.
    pub(crate) fn handle_entry(&mut self, object: u64, access: u32) -> (u64, u64) {
        let access = u64::from(access);
        if self.offsets.seven() || self.pointer() == 4 {
            return (object | 1, access);
        }
        let references = self.rng.u64(0x100..0xffff);
        ((object & 0xffff_ffff_fff0) << 16 | references << 1 | 1, access)
    }

    /// A table of handles; the address of the HANDLE_TABLE. `owner` is process and number.
    pub(crate) fn handle_table(&mut self, owner: (u64, u32), entries: &Entries) -> Result<u64, Error> {
        let width = self.pointer();
        let (entry, page_entries) = (2 * width, PAGE / (2 * width));
        let highest = entries.keys().next_back().copied().unwrap_or(0);
        let mut pages = BTreeMap::new();
        for (index, (object, access)) in entries {
            let page = match pages.get(&(index / page_entries)) {
                Some(page) => *page,
                None => {
                    let page = self.pool(Pool::Paged, PAGE, b"Obtb")?;
                    pages.insert(index / page_entries, page);
                    page
                }
            };
            let at = page + index % page_entries * entry;
            self.put_pointer(at, *object)?;
            self.put_pointer(at + width, *access)?;
        }
        let code = if highest < page_entries {
            match pages.get(&0) {
                Some(page) => *page,
                None => self.pool(Pool::Paged, PAGE, b"Obtb")?,
            }
        } else {
            let middle = self.pool(Pool::Paged, PAGE, b"Obtb")?;
            for page in 0..=highest / page_entries {
                let low = match pages.get(&page) {
                    Some(low) => *low,
                    None => self.pool(Pool::Paged, PAGE, b"Obtb")?,
                };
                self.put_pointer(middle + page * width, low)?;
            }
            middle | 1
        };
        let table = self.pool(Pool::NonPaged, 16 * width, b"Obtb")?;
        self.pointer_field(table, "_HANDLE_TABLE.TableCode", code)?;
        let next = (highest / page_entries + 1) * page_entries * 4;
        self.field(table, "_HANDLE_TABLE.NextHandleNeedingPool", 4, next)?;
        let (process, pid) = owner;
        if self.offsets.seven() {
            self.put_pointer(table + width, process)?;
            self.put_pointer(table + 2 * width, u64::from(pid))?;
        } else {
            self.put_pointer(table + 8 + width, process)?;
            self.put(KERNEL, table + 8 + 4 * width, 4, u64::from(pid))?;
        }
        Ok(table)
    }
}

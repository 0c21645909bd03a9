//! Handles of a process: its table, and the objects that they lead to.
//!
//! Owns: the forms of a table's entries, headers and types of objects, their names. Must not know: what an object is for, beyond its name.
//! Keeps: a table is no larger than it says and than anybody allows; an entry that leads to no object is a problem, not a handle.
//! Source: `_HANDLE_TABLE`, `_HANDLE_TABLE_ENTRY`, `_OBJECT_HEADER`, `_OBJECT_TYPE` in the kernel's symbols. Since Windows 10 the type's
//! number in a header is XORed with the second byte of the header's address and a number of the system; the process itself, whose type
//! is known, tells that number.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::BTreeMap;

use memflow_core::{
    VirtAddr,
    error::{Error, Result, ResultExt},
    os::Listing,
};

use crate::{
    bytes::{Bytes, number},
    eprocess,
    kernel::Kernel,
    os::System,
    process::Win32Process,
    reader::Reader,
    structure::Structure,
};

const PAGE: u64 = 0x1000;
/// Handles of a process: Windows allows fewer.
const MAX_HANDLES: u64 = 1 << 24;
/// Tables of handles, all levels together: as many as that takes on x64, and no more work for a table that leads to itself.
const MAX_TABLES: u64 = 1 << 16;
/// Numbers of types are bytes.
const MAX_TYPES: u64 = 256;
/// The first type in the table, and the first two types.
const FIRST_TYPE: u64 = 2;
/// Bits of rights; those above are flags.
const ACCESS: u32 = 0x01ff_ffff;
/// Bits of `_OBJECT_HEADER.InfoMask`: who made it, what it is called.
const HAS_CREATOR: u8 = 1;
const HAS_NAME: u8 = 2;

/// A handle.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Handle {
    /// Its number.
    pub value: u64,
    /// The object, behind its header.
    pub object: VirtAddr,
    /// What kind of object it is (`File`, `Process`, `Key`).
    pub kind: String,
    /// What may be done with the object, as the kind's documentation says.
    pub access: u32,
    /// What the object is called: a file's path without its volume, a process' name and number, a name in the system's folders of objects.
    pub name: Option<String>,
}

/// What is needed to read handles, of this kernel.
#[derive(Clone, Copy)]
struct HandleLayout {
    table: u64,
    code: u64,
    next: Option<u64>,
    body: u64,
    kind: u64,
    info: u64,
    file_name: Option<u64>,
    thread_id: Option<u64>,
}

impl HandleLayout {
    fn new(kernel: &Kernel) -> Result<Self> {
        let layout = &kernel.layout;
        Ok(Self {
            table: layout.get("_EPROCESS.ObjectTable")?,
            code: layout.get("_HANDLE_TABLE.TableCode")?,
            next: layout.find("_HANDLE_TABLE.NextHandleNeedingPool"),
            body: layout.get("_OBJECT_HEADER.Body")?,
            kind: layout.get("_OBJECT_HEADER.TypeIndex")?,
            info: layout.get("_OBJECT_HEADER.InfoMask")?,
            file_name: layout.find("_FILE_OBJECT.FileName"),
            thread_id: layout.find("_ETHREAD.Cid"),
        })
    }
}

/// Names of types by number, and how numbers in headers are hidden.
struct Types {
    names: BTreeMap<u8, String>,
    /// What numbers are XORed with beside the address, if they are hidden.
    cookie: Option<u8>,
}

impl Types {
    fn number(&self, raw: u8, header: VirtAddr) -> u8 {
        match self.cookie {
            Some(cookie) => raw ^ cookie ^ address_byte(header),
            None => raw,
        }
    }
}

fn address_byte(header: VirtAddr) -> u8 {
    let [_, second, ..] = header.as_u64().to_le_bytes();
    second
}

impl Win32Process {
    /// The handles of the process, by number.
    ///
    /// # Errors
    /// When what handles and objects look like is not known of this kernel, or the table cannot be started; later problems are in the
    /// listing.
    pub fn handles(&self) -> Result<Listing<Handle>> {
        let system = self.system();
        let listing = HandleLayout::new(&system.kernel).and_then(|layout| {
            let process = self.details().info.address;
            system.settled(|| list(system, &layout, process))
        });
        listing
            .context(|| format!("process {} ({}): handles", self.details().info.pid, self.details().info.name).into())
    }
}

fn list(system: &System, layout: &HandleLayout, process: VirtAddr) -> Result<Listing<Handle>> {
    let reader = Reader::new(&system.kernel.view);
    let table = reader.pointer(process, layout.table)?;
    if table.is_null() {
        // A process that has ended has closed them.
        return Ok(Listing::new());
    }
    let corrupt = |what: &'static str, at: VirtAddr, expected: &'static str, found: String| Error::Corrupt {
        what,
        address: at.into(),
        expected: expected.into(),
        found: found.into(),
    };
    if !reader.is_kernel(table) {
        return Err(corrupt("handle table", process, "an address of the kernel", table.to_string()));
    }
    let types = types(&system.kernel, &reader, layout, process)?;
    let code = reader.pointer(table, layout.code)?.as_u64();
    let (levels, first) = (code & 3, VirtAddr::new(code & !7));
    if levels > 2 || !reader.is_kernel(first) {
        return Err(corrupt(
            "handle table",
            table,
            "one to three levels of tables of the kernel",
            format!("{code:#x}"),
        ));
    }
    // Without the number behind the last one, a table ends where the next is missing.
    let end = layout.next.and_then(|next| reader.value::<u32>(table, next).ok()).map(|next| u64::from(next) / 4);
    let end = end.unwrap_or(MAX_HANDLES).min(MAX_HANDLES);
    let mut listing = Listing::new();
    let mut walk = Walk { reader, end, pages: Vec::new(), left: MAX_TABLES, problems: &mut listing.problems };
    walk.table(first, levels, 0);
    let pages = walk.pages;
    for (page, start) in pages {
        let bytes = match Structure::read(reader.view(), page, PAGE) {
            Ok(bytes) => bytes,
            Err(error) => {
                listing.problems.push(error);
                continue;
            }
        };
        let size = reader.pointer_size().saturating_mul(2);
        let count = PAGE.checked_div(size).unwrap_or_default().min(end.saturating_sub(start));
        for at in 0..count {
            let offset = at.saturating_mul(size);
            let value = start.saturating_add(at).saturating_mul(4);
            let words =
                bytes.word(offset).and_then(|low| Ok((low, bytes.u32(offset.saturating_add(reader.pointer_size()))?)));
            let (low, access) = match words {
                Ok(words) => words,
                Err(error) => {
                    // The rest of the page is missing too.
                    listing.problems.push(error.context(format!("handles from {value:#x} on")));
                    break;
                }
            };
            let header = VirtAddr::new(object_of(&system.kernel, &reader, low));
            // The first of a page is no handle, and those that are free lead nowhere.
            if header.is_null() || value == 0 {
                continue;
            }
            match handle(system, &reader, layout, &types, header) {
                Ok((object, kind, name)) => {
                    listing.items.push(Handle { value, object, kind, access: access & ACCESS, name });
                }
                Err(error) => listing.problems.push(error.context(format!("handle {value:#x}"))),
            }
        }
    }
    Ok(listing)
}

/// The walk over the levels of a table.
struct Walk<'a> {
    reader: Reader<'a>,
    /// Behind the last handle.
    end: u64,
    /// Pages of handles, each with the number of its first.
    pages: Vec<(VirtAddr, u64)>,
    left: u64,
    problems: &'a mut Vec<Error>,
}

impl Walk<'_> {
    /// Handles that a table of so many levels below it holds.
    fn reach(&self, levels: u64) -> u64 {
        let size = self.reader.pointer_size();
        let below = PAGE.checked_div(size).unwrap_or_default();
        let handles = PAGE.checked_div(size.saturating_mul(2)).unwrap_or_default();
        (0..levels).fold(handles, |handles, _| handles.saturating_mul(below))
    }

    fn table(&mut self, at: VirtAddr, levels: u64, start: u64) {
        if self.left == 0 {
            return;
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.problems.push(Error::Limit { what: "handle table", address: at.into(), limit: MAX_TABLES });
            return;
        }
        let Some(below) = levels.checked_sub(1) else {
            self.pages.push((at, start));
            return;
        };
        let size = self.reader.pointer_size();
        let entries = PAGE.checked_div(size).unwrap_or_default();
        for entry in 0..entries {
            let first = start.saturating_add(entry.saturating_mul(self.reach(below)));
            if first >= self.end {
                return;
            }
            match self.reader.pointer(at, entry.saturating_mul(size)) {
                Ok(next) if self.reader.is_kernel(next) => self.table(next, below, first),
                // Tables are added behind the last one.
                Ok(next) if next.is_null() => return,
                Ok(next) => {
                    let found = next.to_string().into();
                    let expected = "an address of the kernel".into();
                    self.problems.push(Error::Corrupt { what: "handle table", address: at.into(), expected, found });
                    return;
                }
                Err(error) => {
                    self.problems.push(error.context(format!("handles from {:#x} on", first.saturating_mul(4))));
                    return;
                }
            }
        }
    }
}

/// The header that an entry leads to.
fn object_of(kernel: &Kernel, reader: &Reader<'_>, low: u64) -> u64 {
    let packed = reader.is_wide() && (kernel.version.major, kernel.version.minor) >= (6, 2);
    match packed {
        // A lock, references and attributes lie below the address, of which the lowest and the highest bits are known.
        true if low >> 20 == 0 => 0,
        true => (low >> 20) << 4 | 0xffff_0000_0000_0000,
        false => low & !7,
    }
}

/// Object, name of its type and its own name.
fn handle(
    system: &System,
    reader: &Reader<'_>,
    layout: &HandleLayout,
    types: &Types,
    header: VirtAddr,
) -> Result<(VirtAddr, String, Option<String>)> {
    if !reader.is_kernel(header) {
        return Err(Error::Corrupt {
            what: "handle",
            address: header.into(),
            expected: "the address of an object".into(),
            found: header.to_string().into(),
        });
    }
    let raw: u8 = reader.value(header, layout.kind)?;
    let mask: u8 = reader.value(header, layout.info)?;
    let index = types.number(raw, header);
    let Some(kind) = types.names.get(&index) else {
        return Err(Error::Corrupt {
            what: "object",
            address: header.into(),
            expected: "the number of a type".into(),
            found: format!("{index}").into(),
        });
    };
    let object = header.wrapping_add(layout.body);
    let name = match kind.as_str() {
        "File" => layout.file_name.and_then(|name| reader.unicode_string(object, name).ok()),
        "Process" => {
            let process = system.eprocess().and_then(|layout| eprocess::read(&system.kernel, &layout, object)).ok();
            process.map(|process| format!("{} ({})", process.info.name, process.info.pid))
        }
        "Thread" => layout.thread_id.and_then(|id| {
            let process = reader.pointer(object, id).ok()?.as_u64();
            let thread = reader.pointer(object, id.saturating_add(reader.pointer_size())).ok()?.as_u64();
            Some(format!("thread {thread} of process {process}"))
        }),
        _ if mask & HAS_NAME != 0 => {
            // Before the header lie, from it on: who made the object, its name.
            let creator = if mask & HAS_CREATOR != 0 { reader.either(0x20, 0x10) } else { 0 };
            let name = header.wrapping_sub(creator).wrapping_sub(reader.either(0x20, 0x10));
            reader.unicode_string(name, reader.pointer_size()).ok()
        }
        _ => None,
    };
    Ok((object, kind.clone(), name.filter(|name| !name.is_empty())))
}

/// Types by their table, and how their numbers are hidden, by a process' own header.
fn types(kernel: &Kernel, reader: &Reader<'_>, layout: &HandleLayout, process: VirtAddr) -> Result<Types> {
    let none = || Error::NotFound { what: "table", name: "ObTypeIndexTable".to_owned() };
    let table = kernel.symbol("ObTypeIndexTable").filter(|table| is_table(reader, *table));
    let table = table.or_else(|| find_table(kernel, reader)).ok_or_else(none)?;
    let mut names = BTreeMap::new();
    for index in FIRST_TYPE..MAX_TYPES {
        let Ok(at) = reader.pointer(table, index.saturating_mul(reader.pointer_size())) else { break };
        // Images of tests leave numbers out, and the last type is followed by anything.
        if let (true, Ok(index)) = (reader.is_kernel(at), u8::try_from(index))
            && let Some(name) = type_name(reader, at)
        {
            names.insert(index, name);
        }
    }
    let index_of_process =
        names.iter().find(|(_, name)| *name == "Process").map(|(index, _)| *index).ok_or_else(none)?;
    let header = process.wrapping_sub(layout.body);
    let raw: u8 = reader.value(header, layout.kind)?;
    let cookie = (kernel.version.major >= 10).then(|| raw ^ index_of_process ^ address_byte(header));
    if cookie.is_none() && raw != index_of_process {
        return Err(Error::Corrupt {
            what: "object",
            address: header.into(),
            expected: format!("{index_of_process}, the number of the type of processes").into(),
            found: raw.to_string().into(),
        });
    }
    Ok(Types { names, cookie })
}

/// Name of a type: behind the links of its list.
fn type_name(reader: &Reader<'_>, at: VirtAddr) -> Option<String> {
    let name = reader.unicode_string(at, reader.pointer_size().checked_mul(2)?).ok()?;
    (!name.is_empty() && name.len() < 64 && name.chars().all(|letter| letter.is_ascii_graphic())).then_some(name)
}

/// Whether the types that come first on every system are in a table.
fn is_table(reader: &Reader<'_>, table: VirtAddr) -> bool {
    let at = |index: u64| {
        let object = reader.pointer(table, index.saturating_mul(reader.pointer_size())).ok()?;
        reader.is_kernel(object).then(|| type_name(reader, object))?
    };
    at(FIRST_TYPE).as_deref() == Some("Type") && at(FIRST_TYPE.saturating_add(1)).as_deref() == Some("Directory")
}

/// The table, looked for in the kernel's data.
fn find_table(kernel: &Kernel, reader: &Reader<'_>) -> Option<VirtAddr> {
    let image = kernel.image.as_ref()?;
    let size = reader.pointer_size();
    let width = u8::try_from(size).ok()?;
    image.sections.iter().filter(|section| section.is_writable()).find_map(|section| {
        let bytes = image.readable(reader.view(), section);
        let start = image.at(section.offset);
        let word = |at: u64| Bytes(&bytes).pointer(at, width).map(VirtAddr::new);
        let places = (0..number(bytes.len())).step_by(usize::try_from(size).ok()?);
        let mut tables = places.filter_map(|at| {
            // Nothing, a mark, then types.
            let first = word(at.checked_add(size.checked_mul(FIRST_TYPE)?)?)?;
            (word(at)?.is_null() && reader.is_kernel(first) && !image.contains(first)).then(|| start.wrapping_add(at))
        });
        tables.find(|table| is_table(reader, *table))
    })
}

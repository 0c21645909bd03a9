//! What user mode knows of a process: PEB, parameters, the lists of modules; and what it knows of a thread.
//!
//! Owns: these structures in their layouts of 64 and of 32 bits. Must not know: page tables, the kernel's structures.
//! Keeps: pointers in a structure have the width of its layout, whatever the system's is.
//! Source: `_PEB`, `_PEB_LDR_DATA`, `_LDR_DATA_TABLE_ENTRY`, `_RTL_USER_PROCESS_PARAMETERS`, `_TEB` in public symbols.

use crate::{description::ProcessDescription, machine::utf16, offsets::Version, user::Blob};

/// Offsets of one layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Bytes in a pointer.
    pub(crate) width: u64,
    image_base: u64,
    ldr: u64,
    parameters: u64,
    heap: u64,
    processors: u64,
    version: u64,
    session: u64,
    current_directory: u64,
    image_path: u64,
    command_line: u64,
    environment: u64,
    window_title: u64,
    environment_size: u64,
    lists: u64,
    entry_base: u64,
    entry_flags: u64,
    entry_hash: u64,
    entry_time: u64,
    teb_stack: u64,
    teb_self: u64,
    teb_client: u64,
    teb_peb: u64,
}

pub(crate) const WIDE: Layout = Layout {
    width: 8,
    image_base: 0x10,
    ldr: 0x18,
    parameters: 0x20,
    heap: 0x30,
    processors: 0xb8,
    version: 0x118,
    session: 0x2c0,
    current_directory: 0x38,
    image_path: 0x60,
    command_line: 0x70,
    environment: 0x80,
    window_title: 0xb0,
    environment_size: 0x3f0,
    lists: 0x10,
    entry_base: 0x30,
    entry_flags: 0x68,
    entry_hash: 0x70,
    entry_time: 0x80,
    teb_stack: 0x8,
    teb_self: 0x30,
    teb_client: 0x40,
    teb_peb: 0x60,
};

pub(crate) const NARROW: Layout = Layout {
    width: 4,
    image_base: 0x8,
    ldr: 0xc,
    parameters: 0x10,
    heap: 0x18,
    processors: 0x64,
    version: 0xa4,
    session: 0x1d4,
    current_directory: 0x24,
    image_path: 0x38,
    command_line: 0x40,
    environment: 0x48,
    window_title: 0x70,
    environment_size: 0x290,
    lists: 0xc,
    entry_base: 0x18,
    entry_flags: 0x34,
    entry_hash: 0x3c,
    entry_time: 0x44,
    teb_stack: 0x4,
    teb_self: 0x18,
    teb_client: 0x20,
    teb_peb: 0x30,
};

/// A module that is to be in the lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded<'a> {
    pub(crate) base: u64,
    pub(crate) size: u32,
    pub(crate) entry: u32,
    pub(crate) timestamp: u32,
    pub(crate) path: &'a str,
    pub(crate) name: &'a str,
    pub(crate) listed: bool,
}

/// Writes the lists of modules; the address of the PEB_LDR_DATA, and of each module's entry.
pub(crate) fn lists(blob: &mut Blob, layout: Layout, modules: &[Loaded<'_>]) -> (u64, Vec<u64>) {
    let width = layout.width;
    let head = blob.take(layout.lists + 6 * width + 4 * width);
    blob.put(head, 4, layout.lists + 6 * width + 3 * width);
    blob.put(head + 4, 4, 1);
    let mut entries = Vec::new();
    for module in modules {
        let entry = blob.take(0x24 * width);
        let base = entry + layout.entry_base;
        blob.put(base, width, module.base);
        blob.put(base + width, width, if module.entry == 0 { 0 } else { module.base + u64::from(module.entry) });
        blob.put(base + 2 * width, 4, u64::from(module.size));
        blob.string(base + 3 * width, width, module.path);
        blob.string(base + 5 * width, width, module.name);
        blob.put(entry + layout.entry_flags, 4, 0x0008_a2cc);
        blob.put(entry + layout.entry_flags + 4, 2, 0xffff);
        blob.link(width, entry + layout.entry_hash, &[]);
        blob.put(entry + layout.entry_time, 4, u64::from(module.timestamp));
        entries.push(entry);
    }
    for list in 0..3 {
        let at = |entry: &u64| entry + list * 2 * width;
        // The program itself is not initialised like a library; memory order is by address.
        let mut members: Vec<usize> = (0..modules.len()).filter(|index| modules[*index].listed).collect();
        match list {
            1 => members.sort_by_key(|index| modules[*index].base),
            2 => members.retain(|index| *index > 0),
            _ => {}
        }
        let links: Vec<u64> = members.iter().map(|index| at(&entries[*index])).collect();
        blob.link(width, head + layout.lists + list * 2 * width, &links);
    }
    (head, entries)
}

/// The environment as one text: pairs that end in zeros.
fn environment(process: &ProcessDescription) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in &process.environment {
        bytes.extend(utf16(&format!("{name}={value}")));
        bytes.extend([0, 0]);
    }
    bytes.extend([0, 0]);
    bytes
}

/// The command line of a process: its path in quotes if the description has none.
pub(crate) fn command_line(process: &ProcessDescription) -> String {
    if process.command_line.is_empty() { format!("\"{}\"", process.path) } else { process.command_line.clone() }
}

/// Writes the parameters; their address.
pub(crate) fn parameters(blob: &mut Blob, layout: Layout, process: &ProcessDescription) -> u64 {
    let width = layout.width;
    let size = layout.environment_size + 4 * width;
    let at = blob.take(size);
    blob.put(at, 4, size);
    blob.put(at + 4, 4, size);
    // Normalised: texts are reached by pointers, not by distances.
    blob.put(at + 8, 4, 0x6001);
    blob.string(at + layout.current_directory, width, &process.current_directory);
    blob.put(at + layout.current_directory + 2 * width, width, 0x44);
    blob.string(at + layout.image_path, width, &process.path);
    blob.string(at + layout.command_line, width, &command_line(process));
    blob.string(at + layout.window_title, width, &process.path);
    let text = environment(process);
    let buffer = blob.take(text.len() as u64);
    blob.write(buffer, &text);
    blob.put(at + layout.environment, width, buffer);
    blob.put(at + layout.environment_size, width, text.len() as u64);
    at
}

/// What a PEB says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peb {
    pub(crate) image_base: u64,
    pub(crate) ldr: u64,
    pub(crate) parameters: u64,
    pub(crate) heap: u64,
    pub(crate) processors: u32,
    pub(crate) version: Version,
    pub(crate) session: u32,
}

/// A PEB, as a page of bytes.
pub(crate) fn peb(layout: Layout, peb: Peb) -> Vec<u8> {
    let mut blob = Blob { base: 0, bytes: vec![0; 0x1000] };
    let width = layout.width;
    blob.put(3, 1, 0x84);
    blob.put(width, width, u64::MAX);
    blob.put(layout.image_base, width, peb.image_base);
    blob.put(layout.ldr, width, peb.ldr);
    blob.put(layout.parameters, width, peb.parameters);
    blob.put(layout.heap, width, peb.heap);
    blob.put(layout.processors, 4, u64::from(peb.processors));
    blob.put(layout.version, 4, u64::from(peb.version.major));
    blob.put(layout.version + 4, 4, u64::from(peb.version.minor));
    blob.put(layout.version + 8, 2, u64::from(peb.version.build));
    blob.put(layout.version + 12, 4, 2);
    blob.put(layout.session, 4, u64::from(peb.session));
    blob.bytes
}

/// What a TEB says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teb {
    pub(crate) at: u64,
    pub(crate) peb: u64,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) stack: (u64, u64),
    /// The TEB of 32 bits, which the one of 64 bits has in place of its list of exception handlers.
    pub(crate) narrow: u64,
}

/// Writes a TEB into bytes that begin at `base`.
pub(crate) fn teb(blob: &mut Blob, layout: Layout, teb: Teb) {
    let width = layout.width;
    blob.put(teb.at, width, if width == 4 && teb.narrow == 0 { u64::MAX } else { teb.narrow });
    blob.put(teb.at + layout.teb_stack, width, teb.stack.1);
    blob.put(teb.at + layout.teb_stack + width, width, teb.stack.0);
    blob.put(teb.at + layout.teb_self, width, teb.at);
    blob.put(teb.at + layout.teb_client, width, u64::from(teb.pid));
    blob.put(teb.at + layout.teb_client + width, width, u64::from(teb.tid));
    blob.put(teb.at + layout.teb_peb, width, teb.peb);
}

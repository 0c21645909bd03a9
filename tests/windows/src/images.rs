//! Images: programs, libraries and drivers, made up from their names.
//!
//! Owns: what an image of a name exports, imports and says of itself, and where it is loaded. Must not know: who loads it.
//! Keeps: one image for a path, for all processes; an import is bound to the address that the export has.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::{
    offsets::Version,
    pe::{CodeView, Pe, Use},
    resource::texts,
    section::SectionObject,
};

/// An image that processes share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) path: String,
    pub(crate) base: u64,
    pub(crate) pe: Pe,
    pub(crate) version: BTreeMap<String, String>,
    /// Its section, once the first process maps it.
    pub(crate) section: Option<SectionObject>,
}

/// What real modules are known to export, and what is made up else.
fn export_names(name: &str, rng: &mut Rng) -> Vec<String> {
    let known: &[&str] = match name {
        "ntdll.dll" => &["LdrLoadDll", "NtClose", "NtReadFile", "RtlGetVersion", "RtlUserThreadStart"],
        "kernel32.dll" => {
            &["BaseThreadInitThunk", "CreateFileW", "ExitProcess", "GetAsyncKeyStateStub", "LoadLibraryW"]
        }
        "user32.dll" => &["GetAsyncKeyState", "GetMessageW", "MessageBoxW"],
        "hal.dll" => &["HalGetBusData", "HalReturnToFirmware", "KeStallExecutionProcessor"],
        _ => &[],
    };
    let stem: String = name.split('.').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
    let made_up = (0..rng.usize(3..12)).map(|at| format!("{stem}Entry{at:02}"));
    known.iter().map(|name| (*name).to_owned()).chain(made_up).collect()
}

/// A page of code that does nothing: every function at a multiple of 16.
fn code(wide: bool) -> Vec<u8> {
    let function: &[u8] = if wide { &[0x33, 0xc0, 0xc3] } else { &[0x8b, 0xff, 0x33, 0xc0, 0xc3] };
    let mut page = Vec::new();
    while page.len() < 0x1000 {
        page.extend(function);
        page.resize(page.len().next_multiple_of(16), 0xcc);
    }
    page
}

/// Makes an image of a file name. `imports` are modules that are loaded already, with what they export and where they lie.
pub(crate) fn image(
    rng: &mut Rng,
    name: &str,
    wide: bool,
    kernel: bool,
    base: u64,
    version: Version,
    imports: &[&Shared],
) -> (Pe, BTreeMap<String, String>) {
    let dll = !kernel && name.ends_with(".dll");
    let mut pe = Pe::new(wide, dll, rng.u32(0x4000_0000..0x6000_0000));
    let text = pe.next_section(".text", 0x1000 * rng.u32(1..3), Use::Code);
    pe.write(text, &code(wide));
    pe.entry = text + 16 * rng.u32(0..64);
    let constants = pe.next_section(".rdata", 0x2000, Use::Constants);
    let data = pe.next_section(".data", 0x1000, Use::Data);
    pe.write(data, format!("data of {name}").as_bytes());
    let resources = pe.next_section(".rsrc", 0x1000, Use::Constants);
    let relocations = pe.next_section(".reloc", 0x200, Use::Relocations);
    pe.write(relocations, &[0; 12]);

    let names = export_names(name, rng);
    let exports = (0..).zip(names).map(|(index, export)| (export, text + 0x400 + 16 * index)).collect();
    let mut next = constants;
    if dll || name == "hal.dll" {
        next = pe.export(next, name, exports).next_multiple_of(16);
    }
    let wanted: Vec<(String, Vec<String>)> = imports
        .iter()
        .filter(|other| !other.pe.exports.is_empty())
        .map(|other| {
            let count = rng.usize(1..=other.pe.exports.len().min(6));
            let names = other.pe.exports.iter().take(count).map(|export| export.name.clone()).collect();
            (file_name(&other.path).to_owned(), names)
        })
        .collect();
    if !wanted.is_empty() {
        next = pe.import(next, constants + 0x1800, &wanted, |module, name| {
            let other = imports.iter().find(|other| file_name(&other.path) == module)?;
            Some(other.base + u64::from(other.pe.exports.iter().find(|export| export.name == name)?.rva))
        });
    }
    let stem = name.split('.').next().unwrap_or_default();
    let guid = format!("{:032X}", u128::from(rng.u64(..)) << 64 | u128::from(rng.u64(..)));
    pe.debug(next.next_multiple_of(16), &CodeView { guid, age: rng.u32(1..4), file: format!("{stem}.pdb") });
    let texts = texts(name, &format!("{stem} of a synthetic Windows"), version);
    pe.resources(resources, version, &texts);
    pe.headers(base, kernel);
    (pe, texts)
}

/// The last part of a path.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('\\').next().unwrap_or_default()
}

//! Symbols of a loaded module, from the module's own table.
//!
//! Owns: the reading of `struct mod_kallsyms`. Must not know: how modules are listed.
//! Keeps: numbers from the target are limited before anything is allocated.
//! Source: Linux `include/linux/module.h`, `kernel/module/kallsyms.c`, `kernel/kallsyms.c` (letters as `/proc/kallsyms` prints them).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{Error, MemoryViewExt, Result, VirtAddr, os::SymbolInfo, view::SpaceView};

use crate::{
    bytes::{Bytes, index},
    kernel::Kernel,
    record::entry_size,
};

/// Most symbols of one module.
const MAX_SYMBOLS: u64 = 1 << 20;
/// Longest table of names of one module.
const MAX_STRINGS: u64 = 64 << 20;
/// Bytes of an `Elf64_Sym`.
const SYMBOL_LEN: u64 = 24;
/// Longest name.
const MAX_NAME: u64 = 1024;

/// The symbols of the module whose `struct module` lies at `module`, in the order of its table.
///
/// # Errors
/// When the kernel's types lack a member, or when the module's tables cannot be read or contradict themselves.
pub fn module_symbols(kernel: &Kernel, module: VirtAddr) -> Result<Vec<SymbolInfo>> {
    let (types, view) = (&kernel.types, &kernel.view);
    let name_field = types.field("module", "name")?;
    let name = view.read_utf8_lossy(module.wrapping_add(name_field.offset), index(name_field.size))?;
    let table = VirtAddr::new(kernel.number(module, "module", "kallsyms")?);
    if table.is_null() {
        return Ok(Vec::new());
    }
    let symtab = VirtAddr::new(kernel.number(table, "mod_kallsyms", "symtab")?);
    let count = within(kernel.number(table, "mod_kallsyms", "num_symtab")?, "symbols of a module", symtab)?;
    let records = view.read_bytes(symtab, count.saturating_mul(SYMBOL_LEN))?;
    let records: Vec<Record> = records.chunks_exact(index(SYMBOL_LEN)).filter_map(Record::parse).collect();
    let letters = match types.find_field("mod_kallsyms", "typetab") {
        Some(_) => view.read_bytes(VirtAddr::new(kernel.number(table, "mod_kallsyms", "typetab")?), count)?,
        None => records.iter().map(Record::letter).collect(),
    };
    let strtab = VirtAddr::new(kernel.number(table, "mod_kallsyms", "strtab")?);
    let strings = read_strings(view, strtab, &records)?;
    let exported = exported(kernel, module)?;
    let mut symbols = Vec::with_capacity(records.len());
    for (record, letter) in records.iter().zip(letters) {
        let text = Bytes(&strings).short_string(record.name.into(), index(MAX_NAME)).ok_or_else(|| Error::Corrupt {
            what: "names of a module's symbols",
            address: strtab.into(),
            expected: format!("a name at offset {:#x}", record.name).into(),
            found: format!("none that ends within {MAX_NAME:#x} bytes ({:#x} can be read)", strings.len()).into(),
        })?;
        if text.is_empty() {
            continue;
        }
        let is_exported = exported.binary_search_by(|(at, name)| (*at, name.as_slice()).cmp(&(record.value, text)));
        let kind = if is_exported.is_ok() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
        symbols.push(SymbolInfo {
            address: VirtAddr::new(record.value),
            kind: char::from(kind),
            name: String::from_utf8_lossy(text).into_owned(),
            module: Some(name.clone()),
        });
    }
    Ok(symbols)
}

/// An `Elf64_Sym`.
struct Record {
    name: u32,
    info: u8,
    value: u64,
    size: u64,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = Bytes(bytes);
        Some(Self { name: bytes.u32(0)?, info: bytes.u8(4)?, value: bytes.u64(8)?, size: bytes.u64(16)? })
    }

    /// The letter where there is no table of letters (before v5.2): first it replaced the info, then the size.
    fn letter(&self) -> u8 {
        let [low, ..] = self.size.to_le_bytes();
        [self.info, low].into_iter().find(u8::is_ascii_graphic).unwrap_or(b'?')
    }
}

/// A count from the target, if it is within the limit.
fn within(count: u64, what: &'static str, address: VirtAddr) -> Result<u64> {
    if count > MAX_SYMBOLS {
        return Err(Error::Limit { what, address: address.into(), limit: MAX_SYMBOLS });
    }
    Ok(count)
}

/// The names, as far as symbols use them and they can be read: the length of the table is not stored.
fn read_strings(view: &SpaceView, strtab: VirtAddr, records: &[Record]) -> Result<Vec<u8>> {
    let longest = records.iter().map(|record| u64::from(record.name)).max().unwrap_or(0);
    let mut strings = vec![0; index(longest.min(MAX_STRINGS).saturating_add(MAX_NAME))];
    let read = view.read_partial(strtab, &mut strings)?;
    if let Some(end) = read.gaps.first().and_then(|gap| gap.range.start().offset_from(strtab)) {
        strings.truncate(index(end));
    }
    Ok(strings)
}

/// Address and name of what the module exports to all, sorted: `/proc/kallsyms` prints those in upper case (and what is exported to
/// modules of a compatible licence only in lower case).
fn exported(kernel: &Kernel, module: VirtAddr) -> Result<Vec<(u64, Vec<u8>)>> {
    let types = &kernel.types;
    let table = VirtAddr::new(kernel.number(module, "module", "syms")?);
    let count = within(kernel.number(module, "module", "num_syms")?, "exports of a module", table)?;
    let size = entry_size(types, "kernel_symbol")?;
    let bytes = kernel.view.read_bytes(table, count.saturating_mul(size))?;
    let bytes = Bytes(&bytes);
    // Relative to their own place since v4.19 where the architecture can (`CONFIG_HAVE_ARCH_PREL32_RELOCATIONS`).
    let relative = types.find_field("kernel_symbol", "value_offset");
    let (value, name) = match relative {
        Some(value) => (value.offset, types.field("kernel_symbol", "name_offset")?.offset),
        None => (types.field("kernel_symbol", "value")?.offset, types.field("kernel_symbol", "name")?.offset),
    };
    let target = |at: u64| match relative {
        Some(_) => bytes.i32(at).map(|offset| table.wrapping_add(at).wrapping_add(i64::from(offset).cast_unsigned())),
        None => bytes.u64(at).map(VirtAddr::new),
    };
    let mut exported = Vec::new();
    for at in (0..count).map(|index| index.saturating_mul(size)) {
        if let (Some(value), Some(name)) = (target(at.saturating_add(value)), target(at.saturating_add(name))) {
            exported.push((value.as_u64(), kernel.view.read_c_string(name, index(MAX_NAME))?));
        }
    }
    exported.sort_unstable();
    Ok(exported)
}

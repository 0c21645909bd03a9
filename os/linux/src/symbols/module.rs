//! Symbols of a loaded module, from the module's own table.
//!
//! Owns: the reading of `struct mod_kallsyms`. Must not know: how modules are listed.
//! Keeps: numbers from the target are limited before anything is allocated.
//! Source: Linux `include/linux/module.h`, `kernel/module/kallsyms.c`, `kernel/kallsyms.c` (letters as `/proc/kallsyms` prints them).

use memflow_core::{MemoryViewExt, Result, VirtAddr, os::SymbolInfo};

use crate::{bytes::Bytes, kernel::Kernel, record::entry_size};

/// Most symbols of one module.
const MAX_SYMBOLS: u32 = 1 << 20;
/// Longest table of names of one module.
const MAX_STRINGS: u64 = 64 << 20;
/// Bytes of an `Elf64_Sym`.
const SYMBOL_LEN: u64 = 24;
/// Longest name.
const MAX_NAME: u64 = 1024;

/// The symbols of the module whose `struct module` lies at `module`, in the order of its table.
pub fn module_symbols(kernel: &Kernel, module: VirtAddr) -> Result<Vec<SymbolInfo>> {
    let (types, view) = (&kernel.types, &kernel.view);
    let name_field = types.field("module", "name")?;
    let name = view.read_utf8_lossy(module.wrapping_add(name_field.offset), name_field.size as usize)?;
    let pointer = VirtAddr::new(kernel.number(module, "module", "kallsyms")?);
    if pointer.is_null() {
        return Ok(Vec::new());
    }
    let symtab = VirtAddr::new(kernel.number(pointer, "mod_kallsyms", "symtab")?);
    let strtab = VirtAddr::new(kernel.number(pointer, "mod_kallsyms", "strtab")?);
    let count = kernel.number(pointer, "mod_kallsyms", "num_symtab")?;
    if count > u64::from(MAX_SYMBOLS) {
        return Err(memflow_core::Error::Limit {
            what: "symbol table of a module",
            address: symtab.into(),
            limit: MAX_SYMBOLS.into(),
        });
    }
    let records = view.read_bytes(symtab, count * SYMBOL_LEN)?;
    let records = Bytes(&records);
    let letters = match types.find_field("mod_kallsyms", "typetab") {
        Some(_) => {
            let typetab = VirtAddr::new(kernel.number(pointer, "mod_kallsyms", "typetab")?);
            Some(view.read_bytes(typetab, count)?)
        }
        None => None,
    };
    let longest = (0..count).filter_map(|index| records.u32(index * SYMBOL_LEN)).max().unwrap_or(0);
    let mut strings = vec![0; (u64::from(longest).min(MAX_STRINGS) + MAX_NAME) as usize];
    // The length of the table is not stored: what lies past its end may not be mapped, and the terminator check below tells.
    let _ = view.read_partial(strtab, &mut strings)?;
    let exported = exported(kernel, module)?;
    let mut symbols = Vec::with_capacity(count as usize);
    for index in 0..count {
        let at = index * SYMBOL_LEN;
        let (Some(offset), Some(value)) = (records.u32(at), records.u64(at + 8)) else { break };
        let text = Bytes(&strings).short_string(offset.into(), MAX_NAME as usize);
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        // Before v5.2 the letter was kept in the symbol itself: in st_info, then in st_size.
        let letter = match &letters {
            Some(letters) => Bytes(letters).u8(index),
            None => records.u8(at + 4).filter(u8::is_ascii_graphic).or_else(|| records.u8(at + 16)),
        };
        let letter = char::from(letter.unwrap_or(b'?'));
        let kind = if exported.binary_search_by(|(at, name)| (*at, name.as_slice()).cmp(&(value, text))).is_ok() {
            letter.to_ascii_uppercase()
        } else {
            letter.to_ascii_lowercase()
        };
        symbols.push(SymbolInfo {
            address: VirtAddr::new(value),
            kind,
            name: String::from_utf8_lossy(text).into_owned(),
            module: Some(name.clone()),
        });
    }
    Ok(symbols)
}

/// Address and name of what the module exports to all, sorted: `/proc/kallsyms` prints those in upper case (and what is exported to
/// modules of a compatible licence only in lower case).
fn exported(kernel: &Kernel, module: VirtAddr) -> Result<Vec<(u64, Vec<u8>)>> {
    let types = &kernel.types;
    let size = entry_size(types, "kernel_symbol")?;
    let count = kernel.number(module, "module", "num_syms")?.min(MAX_SYMBOLS.into());
    let table = VirtAddr::new(kernel.number(module, "module", "syms")?);
    let bytes = kernel.view.read_bytes(table, count * size)?;
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
    let mut exported = Vec::with_capacity(count as usize);
    for at in (0..count).map(|index| index * size) {
        if let (Some(value), Some(name)) = (target(at + value), target(at + name)) {
            exported.push((value.as_u64(), kernel.view.read_c_string(name, MAX_NAME as usize)?));
        }
    }
    exported.sort_unstable();
    Ok(exported)
}

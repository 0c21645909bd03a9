//! Symbols of a loaded module, from the module's own table.
//!
//! Owns: the reading of `struct mod_kallsyms`. Must not know: how modules are listed.
//! Keeps: numbers from the target are limited before anything is allocated.
//! Source: Linux `include/linux/module.h`, `kernel/module/kallsyms.c`, `kernel/kallsyms.c` (letters as `/proc/kallsyms` prints them).

use memflow_core::{MemoryViewExt, Result, VirtAddr, os::SymbolInfo};

use crate::{bytes::Bytes, kernel::Kernel};

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
    let pointer = VirtAddr::new(read_number(kernel, module, "module", "kallsyms")?);
    if pointer.is_null() {
        return Ok(Vec::new());
    }
    let symtab = VirtAddr::new(read_number(kernel, pointer, "mod_kallsyms", "symtab")?);
    let strtab = VirtAddr::new(read_number(kernel, pointer, "mod_kallsyms", "strtab")?);
    let count = read_number(kernel, pointer, "mod_kallsyms", "num_symtab")?;
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
            let typetab = VirtAddr::new(read_number(kernel, pointer, "mod_kallsyms", "typetab")?);
            Some(view.read_bytes(typetab, count)?)
        }
        None => None,
    };
    let longest = (0..count).filter_map(|index| records.u32(index * SYMBOL_LEN)).max().unwrap_or(0);
    let mut strings = vec![0; (u64::from(longest).min(MAX_STRINGS) + MAX_NAME) as usize];
    // The length of the table is not stored: what lies past its end may not be mapped, and the terminator check below tells.
    let _ = view.read_partial(strtab, &mut strings)?;
    let exported = exported_values(kernel, module)?;
    let mut symbols = Vec::with_capacity(count as usize);
    for index in 0..count {
        let at = index * SYMBOL_LEN;
        let (Some(offset), Some(value)) = (records.u32(at), records.u64(at + 8)) else { break };
        let Some(text) = Bytes(&strings).c_string(offset.into()).filter(|text| !text.is_empty()) else { continue };
        // Before v5.2 the letter was kept in the symbol itself: in st_info, then in st_size.
        let letter = match &letters {
            Some(letters) => Bytes(letters).u8(index),
            None => records.u8(at + 4).filter(u8::is_ascii_graphic).or_else(|| records.u8(at + 16)),
        };
        let letter = char::from(letter.unwrap_or(b'?'));
        let kind = if exported.binary_search(&value).is_ok() {
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

/// Addresses of what the module exports, sorted: `/proc/kallsyms` prints those in upper case.
fn exported_values(kernel: &Kernel, module: VirtAddr) -> Result<Vec<u64>> {
    let mut values = Vec::new();
    let size = kernel.types.size_of("kernel_symbol")?;
    let relative = kernel.types.find_field("kernel_symbol", "value_offset").is_some();
    for (table, count) in [("syms", "num_syms"), ("gpl_syms", "num_gpl_syms")] {
        if kernel.types.find_field("module", table).is_none() {
            continue;
        }
        let count = read_number(kernel, module, "module", count)?.min(MAX_SYMBOLS.into());
        let table = VirtAddr::new(read_number(kernel, module, "module", table)?);
        let bytes = kernel.view.read_bytes(table, count * size)?;
        let bytes = Bytes(&bytes);
        for index in 0..count {
            let at = index * size;
            values.extend(if relative {
                bytes
                    .i32(at)
                    .map(|offset| table.wrapping_add(at).wrapping_add(i64::from(offset).cast_unsigned()).as_u64())
            } else {
                bytes.u64(at)
            });
        }
    }
    values.sort_unstable();
    Ok(values)
}

/// The number or pointer in a member.
fn read_number(kernel: &Kernel, address: VirtAddr, structure: &str, field: &str) -> Result<u64> {
    let field = kernel.types.field(structure, field)?;
    let mut bytes = [0; 8];
    let len = bytes.len().min(field.size as usize);
    kernel.view.read_into(address.wrapping_add(field.offset), bytes.get_mut(..len).unwrap_or_default())?;
    Ok(u64::from_le_bytes(bytes))
}

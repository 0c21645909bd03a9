//! Targets for what a Linux kernel keeps in memory about itself.
//!
//! Owns: the questions that are asked of what was parsed. Must not know: formats.

use memflow_linux::{Types, fuzzing};

use crate::snapshot::assert_readable;

/// Type information. Structures, members and constants are asked for by the names that the corpus uses.
pub fn btf(data: &[u8]) {
    let types = match Types::parse(data) {
        Ok(types) => types,
        Err(error) => return assert_readable(&error),
    };
    for name in ["task", "list_head", "memory", "atomic_t", "level", ""] {
        let size = types.size_of(name);
        assert!(types.has(name) || size.is_err());
        for path in ["next", "comm", "mem.base", "mem[2].size", "flags", "sibling.next.prev", ""] {
            match types.field(name, path) {
                Ok(field) => assert_eq!(types.find_field(name, path), Some(field)),
                Err(error) => assert_readable(&error),
            }
        }
        let _ = types.enum_value(name, "PLUS");
    }
}

/// The symbol table of the kernel, in memory, with or without a note that says where it lies.
pub fn kallsyms(data: &[u8]) {
    let _ = fuzzing::kallsyms(data);
}

/// What was learnt of a kernel in an earlier run.
pub fn layout_entry(data: &[u8]) {
    let _ = fuzzing::layout_entry(data);
}

/// The text of the VMCOREINFO note.
pub fn vmcoreinfo(data: &[u8]) {
    let _ = fuzzing::vmcoreinfo(data);
}

/// The log of a kernel before v5.10: layout, place of the first record, sequence numbers, buffer.
pub fn log_flat(data: &[u8]) {
    let _ = fuzzing::log_flat(data);
}

/// The log of a kernel since v5.10: layout, tail, number of descriptors, descriptors, infos, text.
pub fn log_ring(data: &[u8]) {
    let _ = fuzzing::log_ring(data);
}

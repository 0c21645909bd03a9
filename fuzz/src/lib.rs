//! Fuzz targets: foreign bytes in, and either nothing happens or a panic says what is wrong.
//!
//! Owns: one function for each format, parser and walker that reads foreign bytes, named like the module it tests, and the table of
//! them. Must not know: how inputs are made: libFuzzer drives these functions (`fuzz/libfuzzer`), and so do the ordinary
//! tests that replay the corpus (`fuzz/tests`).
//! Keeps: a target is bounded in time and memory by the length of its input; what a parser accepts is checked against the bytes it
//! had, and against a second opinion where there is one. `docs/fuzzing.md` says how to run them.

mod args;
mod gdb;
mod linux;
mod live;
mod paging;
mod plugin;
mod qemu;
mod scan;
mod snapshot;
mod win32;

pub use self::{
    args::{arg_specs, args},
    gdb::{gdb_description, gdb_layout, gdb_packet},
    linux::{btf, kallsyms, layout_entry, log_flat, log_ring, vmcoreinfo},
    live::{dma_map, iomem, kcore},
    paging::paging,
    plugin::{analyze, descriptor},
    qemu::{qemu_answers, qemu_command_line},
    scan::pattern,
    snapshot::{
        avml, beside, crash_dump, elf, facts_note, firmware, gzip, kdump, libvirt, lime, lz4, migration, open, runs,
        vmware, xz, zstd,
    },
    win32::{kdbg, pdb, pe},
};

/// A fuzz target. Returns for every input.
pub type Target = fn(&[u8]);

/// Every target, with the name of its folder in the corpus and of its program for libFuzzer.
pub const TARGETS: &[(&str, Target)] = &[
    ("analyze", analyze),
    ("arg_specs", arg_specs),
    ("args", args),
    ("avml", avml),
    ("beside", beside),
    ("btf", btf),
    ("crash_dump", crash_dump),
    ("descriptor", descriptor),
    ("dma_map", dma_map),
    ("elf", elf),
    ("facts_note", facts_note),
    ("firmware", firmware),
    ("gdb_description", gdb_description),
    ("gdb_layout", gdb_layout),
    ("gdb_packet", gdb_packet),
    ("gzip", gzip),
    ("iomem", iomem),
    ("kallsyms", kallsyms),
    ("kcore", kcore),
    ("kdbg", kdbg),
    ("kdump", kdump),
    ("layout_entry", layout_entry),
    ("libvirt", libvirt),
    ("lime", lime),
    ("log_flat", log_flat),
    ("log_ring", log_ring),
    ("lz4", lz4),
    ("migration", migration),
    ("open", open),
    ("paging", paging),
    ("pattern", pattern),
    ("pdb", pdb),
    ("pe", pe),
    ("qemu_answers", qemu_answers),
    ("qemu_command_line", qemu_command_line),
    ("runs", runs),
    ("vmcoreinfo", vmcoreinfo),
    ("vmware", vmware),
    ("xz", xz),
    ("zstd", zstd),
];

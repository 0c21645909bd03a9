//! Fuzz targets: foreign bytes in, and either nothing happens or a panic says what is wrong.
//!
//! Owns: one function for each format, parser and walker that reads foreign bytes, named like the module it tests, and the table of
//! them. Must not know: how inputs are made: libFuzzer drives these functions (`fuzz/libfuzzer`), and so do the ordinary
//! tests that replay the corpus (`fuzz/tests`).
//! Keeps: a target is bounded in time and memory by the length of its input; what a parser accepts is checked against the bytes it
//! had, and against a second opinion where there is one. `docs/fuzzing.md` says how to run them.

mod args;
mod linux;
mod paging;
mod plugin;
mod qemu;
mod scan;
mod snapshot;

pub use self::{
    args::{arg_specs, args},
    linux::{btf, kallsyms, layout_entry, log_flat, log_ring, vmcoreinfo},
    paging::paging,
    plugin::{analyze, descriptor},
    qemu::{qemu_answers, qemu_command_line},
    scan::pattern,
    snapshot::{elf, firmware, gzip, lime, open, runs, zstd},
};

/// A fuzz target. Returns for every input.
pub type Target = fn(&[u8]);

/// Every target, with the name of its folder in the corpus and of its program for libFuzzer.
pub const TARGETS: &[(&str, Target)] = &[
    ("analyze", analyze),
    ("arg_specs", arg_specs),
    ("args", args),
    ("btf", btf),
    ("descriptor", descriptor),
    ("elf", elf),
    ("firmware", firmware),
    ("gzip", gzip),
    ("kallsyms", kallsyms),
    ("layout_entry", layout_entry),
    ("lime", lime),
    ("log_flat", log_flat),
    ("log_ring", log_ring),
    ("open", open),
    ("paging", paging),
    ("pattern", pattern),
    ("qemu_answers", qemu_answers),
    ("qemu_command_line", qemu_command_line),
    ("runs", runs),
    ("vmcoreinfo", vmcoreinfo),
    ("zstd", zstd),
];

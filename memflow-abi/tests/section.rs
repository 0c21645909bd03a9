//! The descriptor reaches the file, however eagerly the linker drops what nothing refers to.
//!
//! Owns: one plugin in C, and the compilers and linkers that it is put through. Must not know: what is in a descriptor.
#![cfg(target_os = "linux")]

mod common;

use std::{fs, path::PathBuf, process::Command};

use crate::common::c;

/// How linkers are made to drop things.
const EAGER: &[&str] =
    &["-shared", "-fPIC", "-O2", "-ffunction-sections", "-fdata-sections", "-fvisibility=hidden", "-Wl,--gc-sections"];

/// A plugin, beside data that nothing refers to.
const PLUGIN: &str = "#include \"memflow_plugin.h\"\n\
                      MEMFLOW_DESCRIPTOR(descriptor) = MEMFLOW_PLUGIN_BEGIN MEMFLOW_FIELD(\"name\", \"referred-to\");\n\
                      __attribute__((used)) static const char useless[] = \"dropped by the linker\";\n\
                      MEMFLOW_EXPORT const memflow_PluginEntry entry = { MEMFLOW_HEADER(memflow_PluginEntry), \
                      MEMFLOW_TEXT_OF(descriptor), NULL, NULL, NULL, NULL, NULL, NULL };\n\
                      MEMFLOW_DESCRIPTOR(alone) = MEMFLOW_PLUGIN_BEGIN MEMFLOW_FIELD(\"name\", \"alone\");\n";

/// Calls of compilers for both languages that are there.
fn compilers() -> Vec<Vec<&'static str>> {
    let clang: &[&[&str]] = &[&["clang", "-std=c11", "-xc"], &["clang++", "-std=c++17", "-xc++"]];
    let there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let found: Vec<Vec<_>> = [c::C, c::CPP].iter().chain(clang).map(|compiler| compiler.to_vec()).collect();
    found.into_iter().filter(|compiler| compiler[0].starts_with('c') && there(compiler[0])).collect()
}

/// The bytes of what a compiler makes of the plugin.
fn linked(compiler: &[&str], name: &str, more: &[&str]) -> Vec<u8> {
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.so", compiler[0]));
    c::run(c::compiler(compiler, &c::include(), name, PLUGIN).args(EAGER).args(more).arg("-o").arg(&library));
    fs::read(library).unwrap()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn descriptors_survive_a_linker_that_drops_what_nothing_refers_to() {
    let compilers = compilers();
    assert!(compilers.len() >= 2);
    for compiler in &compilers {
        let bytes = linked(compiler, "eager", &[]);
        assert!(holds(&bytes, "name=referred-to\0"), "{compiler:?}");
        // Otherwise this test would show nothing.
        assert!(!holds(&bytes, "dropped by the linker"), "{compiler:?}");
        let asked = c::output(
            Command::new(compiler[0])
                .args(&compiler[1..])
                .args(["-E", "-dM", "-I"])
                .arg(c::include())
                .arg(common::path("include/memflow_plugin.h")),
        );
        let keeps = holds(&asked.stdout, "#define MEMFLOW_RETAIN , retain");
        assert_eq!(holds(&bytes, "name=alone\0"), keeps, "{compiler:?}");
    }
}

#[test]
fn descriptors_survive_optimisation_of_the_whole_program() {
    for compiler in compilers().iter().filter(|compiler| !compiler[0].starts_with("clang")) {
        assert!(holds(&linked(compiler, "eager-lto", &["-flto"]), "name=referred-to\0"), "{compiler:?}");
    }
}

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

/// Whether a program of that name can be run.
fn there(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok()
}

/// Calls of compilers for both languages: the system's, and those of the other family if they are installed.
fn compilers() -> Vec<&'static [&'static str]> {
    let others: [&[&str]; 4] = [
        &["clang", "-std=c11", "-xc"],
        &["clang++", "-std=c++17", "-xc++"],
        &["clang", "-std=c11", "-xc", "-fuse-ld=lld"],
        &["cc", "-std=c11", "-xc", "-fuse-ld=lld"],
    ];
    let usable = |compiler: &&[&str]| there(compiler[0]) && (!compiler.contains(&"-fuse-ld=lld") || there("ld.lld"));
    [c::C, c::CPP].into_iter().chain(others.into_iter().filter(usable)).collect()
}

/// Whether a compiler can mark data for the linker to keep.
fn can_retain(compiler: &[&str]) -> bool {
    let question = "#if defined(__has_attribute)\n#if __has_attribute(retain)\nyes_it_can\n#endif\n#endif\n";
    let mut call = c::compiler(compiler, &c::include(), &format!("retain-{}", compiler.len()), question);
    // Nothing is linked, so there is no use for the choice of a linker.
    holds(c::run(call.args(["-E", "-Wno-unused-command-line-argument"])).as_bytes(), "yes_it_can")
}

/// The bytes of what a compiler makes of the plugin.
fn linked(compiler: &[&str], name: &str, more: &[&str]) -> Vec<u8> {
    let name = format!("{name}-{}", compiler.len());
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.so", compiler[0]));
    c::run(c::compiler(compiler, &c::include(), &name, PLUGIN).args(EAGER).args(more).arg("-o").arg(&library));
    fs::read(library).unwrap()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn descriptors_survive_a_linker_that_drops_what_nothing_refers_to() {
    for compiler in compilers() {
        let bytes = linked(compiler, "eager", &[]);
        assert!(holds(&bytes, "name=referred-to\0"), "{compiler:?}");
        // Otherwise this test would show nothing.
        assert!(!holds(&bytes, "dropped by the linker"), "{compiler:?}");
        // An entry refers to its descriptor; the mark is for those of which no entry is seen by the linker.
        assert_eq!(holds(&bytes, "name=alone\0"), can_retain(compiler), "{compiler:?}");
    }
}

#[test]
fn descriptors_survive_optimisation_of_the_whole_program() {
    for compiler in [c::C, c::CPP] {
        assert!(holds(&linked(compiler, "eager-lto", &["-flto"]), "name=referred-to\0"), "{compiler:?}");
    }
}

//! Shared objects made while the test runs, and edits of those that are there.
//!
//! Owns: the system's compiler, and reading and writing fields of an ELF file by their offsets.
//! Source: System V ABI, "Object Files", figures "ELF Header", "Section Header", "Symbol Table Entry", "Program Header".

use std::{fs, path::PathBuf, process::Command};

use memflow_core::plugin::descriptor::HOST_TARGET;

/// A folder that is gone after the test.
pub(crate) struct Workshop(tempfile::TempDir);

impl Workshop {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a program in the folder and returns what it prints.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).current_dir(self.0.path()).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// What `cc` makes of a source, called `out`.
    pub(crate) fn cc(&self, source: &str, flags: &[&str]) -> Vec<u8> {
        self.write("in.c", source);
        self.run("cc", &[&["in.c", "-o", "out"], flags].concat());
        self.read("out")
    }

    /// A shared object.
    pub(crate) fn shared(&self, source: &str) -> Vec<u8> {
        self.cc(source, &["-shared", "-fPIC"])
    }
}

/// The entries of a descriptor as strings of C, without the NUL of the last.
pub(crate) fn descriptor(changes: &[(&str, &str)]) -> String {
    let mut entries = vec![
        ("memflow_plugin", "1"),
        ("kind", "connector"),
        ("name", "made"),
        ("version", "1.2.3"),
        ("abi", "1.1"),
        ("target", HOST_TARGET),
        ("entry", "memflow_plugin_made"),
        ("description", "made by a test"),
    ];
    for (key, value) in changes {
        match entries.iter_mut().find(|entry| entry.0 == *key) {
            Some(entry) => entry.1 = value,
            None => entries.push((key, value)),
        }
    }
    entries.iter().map(|(key, value)| format!("\"{key}={value}\\0\" ")).collect()
}

/// A source with these descriptors.
pub(crate) fn source(descriptors: &[String], rest: &str) -> String {
    let strings = descriptors.concat();
    format!("__attribute__((used, section(\"memflow_plugin\"))) static const char descriptors[] = {strings};\n{rest}\n")
}

/// An entry table as plugins have one.
pub(crate) const TABLE: &str = "struct { long size; void *call; } memflow_plugin_made = { 16, &memflow_plugin_made };";

/// Little-endian ELF of 64 bits, for edits.
pub(crate) struct Elf64(pub(crate) Vec<u8>);

impl Elf64 {
    pub(crate) fn get(&self, at: usize, width: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&self.0[at..at + width]);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn set(mut self, at: usize, width: usize, value: u64) -> Self {
        self.0[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        self
    }

    /// Offset of a section header.
    pub(crate) fn section(&self, name: &str) -> usize {
        let (start, count, names) =
            (self.get(0x28, 8) as usize, self.get(0x3c, 2) as usize, self.get(0x3e, 2) as usize);
        let names = self.get(start + names * 64 + 0x18, 8) as usize;
        (0..count)
            .map(|index| start + index * 64)
            .find(|at| self.string(names + self.get(*at, 4) as usize) == name.as_bytes())
            .unwrap_or_else(|| panic!("no section {name}"))
    }

    /// Where the bytes of a section are.
    pub(crate) fn content(&self, name: &str) -> std::ops::Range<usize> {
        let header = self.section(name);
        let start = self.get(header + 0x18, 8) as usize;
        start..start + self.get(header + 0x20, 8) as usize
    }

    /// Offset of a dynamic symbol.
    pub(crate) fn symbol(&self, name: &str) -> usize {
        let names = self.content(".dynstr").start;
        self.content(".dynsym")
            .step_by(24)
            .find(|at| self.string(names + self.get(*at, 4) as usize) == name.as_bytes())
            .unwrap_or_else(|| panic!("no symbol {name}"))
    }

    /// Offsets of the program headers of a type.
    pub(crate) fn segments(&self, kind: u64) -> Vec<usize> {
        let (start, count) = (self.get(0x20, 8) as usize, self.get(0x38, 2) as usize);
        (0..count).map(|index| start + index * 56).filter(|at| self.get(*at, 4) == kind).collect()
    }

    fn string(&self, at: usize) -> &[u8] {
        self.0[at..].split(|byte| *byte == 0).next().unwrap()
    }
}

/// `PT_LOAD`.
pub(crate) const LOAD: u64 = 1;
/// `PT_DYNAMIC`.
pub(crate) const DYNAMIC: u64 = 2;

//! The record of the ABI, shared by the tests of this folder.
//!
//! Owns: the text's form and where the committed one lies. Must not know: who else renders it.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod c;
mod record;

use std::{fmt::Write as _, fs, path::PathBuf};

pub(crate) use record::Record;

/// A path of this package.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The committed record for targets with 64-bit pointers.
pub(crate) fn golden_path() -> PathBuf {
    path("layout-64.txt")
}

/// The committed record. Empty if there is none.
pub(crate) fn golden() -> String {
    fs::read_to_string(golden_path()).unwrap_or_default().replace("\r\n", "\n")
}

/// Folders of the versions before this one, with a header and a record as they were: `(major, minor)` and the folder, in order.
pub(crate) fn frozen() -> Vec<((u16, u16), PathBuf)> {
    let folder = path("../tests/abi");
    let version = |name: &str| {
        let (major, minor) = name.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut found: Vec<_> =
        entries.filter_map(|entry| Some((version(entry.file_name().to_str()?)?, entry.path()))).collect();
    found.sort();
    found
}

/// The record of this build.
pub(crate) fn render() -> String {
    let mut text = format!("abi {}.{}\n", memflow_abi::MAJOR, memflow_abi::MINOR);
    for structure in memflow_abi::STRUCTURES {
        let kind = if structure.grows { "growing" } else { "fixed" };
        writeln!(text, "\n{kind} {} size {} align {}", structure.name, structure.size, structure.align).unwrap();
        for field in structure.fields {
            writeln!(text, "  {} offset {} size {}", field.name, field.offset, field.size).unwrap();
        }
    }
    for numbers in memflow_abi::NUMBERS {
        writeln!(text, "\nnumbers {} size {}", numbers.name, numbers.size).unwrap();
        for (name, value) in numbers.values {
            writeln!(text, "  {name} {value}").unwrap();
        }
    }
    text
}

/// The first line in which two records differ, for messages.
pub(crate) fn first_difference(expected: &str, found: &str) -> String {
    let mut section = "";
    let mut theirs = found.lines();
    for line in expected.lines() {
        if !line.starts_with(' ') && !line.is_empty() {
            section = line;
        }
        let other = theirs.next();
        if other != Some(line) {
            return format!("in \"{section}\": expected \"{line}\", found \"{}\"", other.unwrap_or("the end"));
        }
    }
    format!("after \"{section}\": expected the end, found \"{}\"", theirs.next().unwrap_or("the end"))
}

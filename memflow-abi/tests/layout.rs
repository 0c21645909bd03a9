//! The ABI as it was released: no build may differ from the committed record by accident.
//!
//! Owns: the comparison with `layout-64.txt`, and that the lists behind it leave nothing out.
//! Must not know: the C header; `header.rs` compares that.

mod common;

use std::{collections::BTreeSet, fs};

use memflow_abi::{LAYOUT, MAJOR, MINOR, NUMBERS, STRUCTURES, compatible};

/// The names that follow `macro_name! { … ` in the sources, with the documentation between them left out.
fn defined(macro_name: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in fs::read_dir(common::path("src")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line != format!("{macro_name}! {{") {
                continue;
            }
            let start = lines.find(|line| !line.trim_start().starts_with("//")).unwrap();
            let name = start.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            assert!(names.insert(name.to_owned()), "{name} is defined twice");
        }
    }
    names
}

fn listed(grows: bool) -> BTreeSet<String> {
    STRUCTURES.iter().filter(|structure| structure.grows == grows).map(|structure| structure.name.to_owned()).collect()
}

#[test]
#[cfg(target_pointer_width = "64")]
fn layout_is_the_committed_one() {
    let found = common::render();
    if std::env::var_os("UPDATE_ABI").is_some_and(|value| value == "1") {
        fs::write(common::golden_path(), &found).unwrap();
    }
    let expected = common::golden();
    assert!(
        expected == found,
        "the ABI differs from memflow-abi/layout-64.txt {}. Growing structures may get fields at their end and numbers further \
         names, with a higher minor version; anything else needs a higher major version. If that is meant, rewrite the record \
         with UPDATE_ABI=1",
        common::first_difference(&expected, &found)
    );
}

#[test]
fn version_of_the_package_is_that_of_the_abi() {
    let major = env!("CARGO_PKG_VERSION_MAJOR").parse::<u16>();
    let minor = env!("CARGO_PKG_VERSION_MINOR").parse::<u16>();
    assert_eq!((major, minor), (Ok(MAJOR), Ok(MINOR)));
}

#[test]
fn every_structure_of_the_sources_is_listed() {
    assert_eq!(defined("growing"), listed(true));
    // The header is the one structure that no macro defines.
    let mut fixed = defined("fixed");
    assert!(fixed.insert("Header".to_owned()));
    assert_eq!(fixed, listed(false));
    assert_eq!(STRUCTURES.len(), listed(true).len() + listed(false).len(), "a structure is listed twice");
}

#[test]
fn every_number_of_the_sources_is_listed() {
    let listed: BTreeSet<_> = NUMBERS.iter().map(|numbers| numbers.name.to_owned()).collect();
    assert_eq!(defined("numbers"), listed);
    assert_eq!(NUMBERS.len(), listed.len(), "numbers are listed twice");
}

#[test]
fn growing_structures_begin_with_the_header() {
    for structure in STRUCTURES.iter().filter(|structure| structure.grows) {
        let first = structure.fields.first().map(|field| (field.name, field.offset, field.size));
        assert_eq!(first, Some(("header", 0, size_of::<memflow_abi::Header>())), "{}", structure.name);
    }
}

#[test]
fn gaps_between_fields_are_smaller_than_the_alignment() {
    for structure in STRUCTURES {
        let mut end = 0;
        for field in structure.fields {
            assert!(field.offset >= end && field.offset - end < structure.align, "{}.{}", structure.name, field.name);
            end = field.offset + field.size;
        }
        assert!(structure.size >= end && structure.size - end < structure.align, "{}", structure.name);
    }
}

#[test]
fn own_layout_is_compatible_with_itself() {
    assert_eq!(compatible((MINOR, LAYOUT), (MINOR, LAYOUT)), Ok(()));
}

//! A connector in C under the command: a real guest through it is the guest.
//!
//! The expected values are what the guest said about itself, and what the built-in connector prints.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{
    document::checkout,
    util::{Run, run, run_in},
};

/// Builds the example as its first lines say.
fn build(folder: &Path) -> PathBuf {
    let library = folder.join("libmemflow_craw.so");
    let status = Command::new("cc")
        .args(["-std=c11", "-O2", "-shared", "-fPIC", "-I", "../../memflow-abi/include", "raw_file.c", "-o"])
        .arg(&library)
        .current_dir(checkout().join("examples/c-connector"))
        .status()
        .unwrap_or_else(|error| panic!("cc: {error}; a compiler for C is needed: apt install gcc"));
    assert!(status.success());
    library
}

/// The demo guest's memory as a raw image, and the plugin, in `folder`.
fn guest(folder: &Path) {
    build(folder);
    let dumped = run_in(folder, ["dump", "demo", "-o", "demo.raw", "--phys", "0+96MiB"]);
    assert_eq!(dumped.code, 0, "{}", dumped.err);
}

fn through_c(folder: &Path, line: &str) -> Run {
    run_in(folder, line.split(' ').chain(["--plugin", "libmemflow_craw.so"]))
}

#[test]
fn guest_read_through_a_connector_in_c_is_the_guest() {
    let folder = tempfile::tempdir().unwrap();
    guest(folder.path());
    for line in
        ["ps TARGET --long --json", "modules TARGET", "maps TARGET 1", "dmesg TARGET", "read TARGET linux_banner 64"]
    {
        let expected = run(&line.replace("TARGET", "demo")).complete();
        let found = through_c(folder.path(), &line.replace("TARGET", "craw:demo.raw")).complete();
        assert!(expected == found, "{line}:\n{expected}\n{found}");
    }

    let truth: Value = serde_json::from_str(include_str!("../../demo/truth.json")).unwrap();
    let list = through_c(folder.path(), "ps craw:demo.raw --json").json();
    let found: BTreeMap<u64, &str> = list["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| (process["pid"].as_u64().unwrap(), process["name"].as_str().unwrap()))
        .collect();
    let expected = truth["processes"].as_array().unwrap();
    assert_eq!(found.len(), expected.len());
    for process in expected {
        // Of a kernel thread's name the task itself holds 15 bytes, which is what the guest tells.
        let (pid, name) = (process["pid"].as_u64().unwrap(), process["name"].as_str().unwrap());
        assert!(found[&pid].starts_with(name), "{pid}: {} is {name}", found[&pid]);
    }
}

#[test]
fn errors_of_a_connector_in_c_reach_the_user() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let error = through_c(folder.path(), "ps craw:absent").error(3);
    assert!(error.contains("the image cannot be opened; check that it exists and may be read"), "{error}");
    let error = through_c(folder.path(), "ps craw:absent:base=low").error(3);
    assert!(error.contains("base") && error.contains("low"), "{error}");
    let error = through_c(folder.path(), "ps craw:absent:bse=0").error(3);
    assert!(error.contains("unknown argument `bse`, did you mean `base`?"), "{error}");
}

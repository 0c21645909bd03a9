//! What is kept for the next run: the same answers with it and without, and the commands for it.

use std::{fs, path::Path};

use serde_json::Value;

use super::util::{Run, command};

/// Runs a command line with a folder of its own to keep things in.
fn run(folder: &Path, line: &str) -> Run {
    let output =
        command(folder, line.split_whitespace()).env("MEMFLOW_CACHE_DIR", folder.join("kept")).output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn listed(folder: &Path) -> usize {
    let list: Value = run(folder, "cache list --json").json();
    list["entries"].as_array().unwrap().len()
}

#[test]
fn known_kernel_gives_the_same_json_byte_for_byte() {
    for line in ["ps --long", "info", "modules", "symbols", "symbols init_task", "dmesg", "maps 1"] {
        let folder = tempfile::tempdir().unwrap();
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let demo = if command == "maps" {
            format!("maps demo {rest} --json")
        } else {
            format!("{command} demo {rest} --json")
        };
        let expected = run(folder.path(), &format!("{demo} --no-cache")).complete();
        assert!(!folder.path().join("kept").exists(), "{line}");
        for _ in 0..3 {
            assert_eq!(run(folder.path(), &demo).complete(), expected, "{line}");
            assert_eq!(listed(folder.path()), 1, "{line}");
        }
    }
}

#[test]
fn commands_that_follow_each_other_add_to_what_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let size = || {
        let list: Value = run(folder.path(), "cache list --json").json();
        list["entries"][0]["size"].as_u64().unwrap()
    };
    run(folder.path(), "ps demo").complete();
    let after_ps = size();
    let expected = run(folder.path(), "maps demo 1 --no-cache").complete();
    assert_eq!(run(folder.path(), "maps demo 1").complete(), expected);
    assert!(size() > after_ps);
    assert_eq!(run(folder.path(), "maps demo 1").complete(), expected);
}

#[test]
fn kernels_are_listed_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(listed(folder.path()), 0);
    run(folder.path(), "cache clear").complete();
    run(folder.path(), "ps demo").complete();
    fs::write(folder.path().join("kept/other"), b"").unwrap();
    let list = run(folder.path(), "cache list").complete();
    assert!(list.starts_with("KERNEL") && list.contains("linux-"), "{list}");
    run(folder.path(), "cache clear").complete();
    assert_eq!(listed(folder.path()), 0);
    assert!(folder.path().join("kept/other").exists());
}

#[test]
fn folder_that_cannot_be_written_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("kept"), b"").unwrap();
    let expected = run(folder.path(), "ps demo --no-cache").complete();
    assert_eq!(run(folder.path(), "ps demo").complete(), expected);
}

#[test]
fn given_folder_comes_before_the_usual_one() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "ps demo --os linux:layout_cache=mine").complete();
    run(folder.path(), "ps demo --os linux:layout_cache=off").complete();
    assert!(!folder.path().join("kept").exists());
    assert_eq!(fs::read_dir(folder.path().join("mine")).unwrap().count(), 1);
}

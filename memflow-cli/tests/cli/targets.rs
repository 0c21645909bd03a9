//! What connectors list, and names of targets that are neither files nor target strings.

use std::{fs, path::Path, process::Command};

use super::{
    control::misbehaving,
    util::{Run, command},
};

/// A command with the connectors `faulty` and `twin`, which list targets.
fn with_connectors(folder: &Path, words: &[&str]) -> Command {
    let mut command = command(folder, words);
    command.arg("--plugin").arg(misbehaving());
    command
}

fn run_in(folder: &Path, words: &[&str]) -> Run {
    finished(with_connectors(folder, words))
}

fn run(words: &[&str]) -> Run {
    run_in(&std::env::temp_dir(), words)
}

fn finished(mut command: Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn targets_of_all_connectors_are_listed() {
    let out = run(&["targets"]).complete();
    // Guests that run on this machine meanwhile are listed as well, and widen the columns.
    let lines = out.lines().filter(|line| !line.starts_with("qemu "));
    let lines: Vec<String> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "CONNECTOR NAME DESCRIPTION",
        "faulty any all are the same",
        "faulty two words \\u{1b}[31mwith a colour",
        "twin any the twin",
        "twin sister only here",
    ];
    assert_eq!(lines, expected);
    let one = run(&["targets", "--connector", "twin"]).complete();
    assert_eq!(one.lines().count(), 3, "{one}");
    let document = run(&["targets", "-c", "faulty", "--json"]).json();
    assert_eq!((document["targets"].as_array().unwrap().len(), &document["problems"]), (2, &serde_json::json!([])));
    let expected = serde_json::json!({
        "connector": "faulty", "name": "two words", "description": "\u{1b}[31mwith a colour", "target": "faulty:two words"
    });
    assert_eq!(document["targets"][1], expected);
}

#[test]
fn connectors_that_do_not_list_are_told_from_those_that_are_not_there() {
    let error = run(&["targets", "-c", "snapshot"]).error(1);
    assert_eq!(error, "connector snapshot does not look for targets; it opens what it is told to");
    let error = run(&["targets", "-c", "nosuch"]).error(1);
    assert!(error.contains("nosuch") && error.contains("snapshot@0.1.0"), "{error}");
}

#[test]
fn connector_that_fails_to_list_makes_the_answer_incomplete() {
    let mut failing = with_connectors(&std::env::temp_dir(), &["targets", "--json"]);
    failing.env("FAULTY_TARGETS", "Unsupported");
    let Run { code, out, err } = finished(failing);
    assert_eq!(
        (code, err.as_str()),
        (1, "warning: the targets are incomplete: connector faulty: a is not supported: b\n")
    );
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    let targets = document["targets"].as_array().unwrap();
    let others = targets.iter().filter(|target| target["connector"] != "qemu");
    assert_eq!(others.count(), 2, "those of the others: {document}");
    assert_eq!(document["problems"][0], "connector faulty: a is not supported: b");
}

#[test]
fn plain_name_is_the_target_that_one_connector_lists() {
    let named = |name: &str| {
        let Run { out, .. } = run(&["info", name, "--json"]);
        serde_json::from_str::<serde_json::Value>(&out).unwrap_or_else(|_| panic!("{name}: {out}"))["target"].clone()
    };
    for (name, format) in [("sister", "twin"), ("two words", "faulty")] {
        let target = named(name);
        assert_eq!((&target["name"], &target["format"]), (&name.into(), &format.into()));
    }
}

#[test]
fn plain_name_of_several_connectors_is_refused_with_the_choices() {
    let error = run(&["ps", "any"]).error(2);
    assert_eq!(error, "any is a target of 2 connectors; say which: -c faulty:any or -c twin:any");
    // As the message says.
    assert_eq!(run(&["resume", "-c", "twin:any"]).complete(), "twin:any: running already\n");
}

#[test]
fn name_that_nobody_knows_is_an_error_that_says_where_to_look() {
    let error = run(&["ps", "nobody"]).error(3);
    assert_eq!(error, "nobody: no such file, and no connector lists a target of that name (see `memflow targets`)");
    let mut failing = with_connectors(&std::env::temp_dir(), &["ps", "nobody"]);
    failing.env("FAULTY_TARGETS", "Unsupported");
    let error = finished(failing).error(3);
    assert!(error.ends_with("(see `memflow targets`); connector faulty: a is not supported: b"), "{error}");
}

/// A file is what it always was, and no plugin is asked about it.
#[test]
fn files_come_first_and_no_plugin_is_loaded_for_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sister"), [0; 0x4000]).unwrap();
    let loads = |words: &[&str]| {
        let mut command = with_connectors(folder.path(), words);
        let Run { err, .. } = finished({
            command.env("MEMFLOW_LOG", "debug");
            command
        });
        err.contains("libmisbehaving.so: loaded")
    };
    assert!(!loads(&["info", "sister"]));
    let Run { out, .. } = run_in(folder.path(), &["info", "sister", "--json"]);
    assert!(out.contains("\"format\": \"raw"), "{out}");
    // Nor about what can only be a file, or says which connector is meant.
    for words in [
        &["info", "./nobody"][..],
        &["info", "nobody", "--layout", "flat"],
        &["info", "nobody", "--partial"],
        &["info", "snapshot:nobody"],
        &["info", "-c", "snapshot:nobody"],
        &["info", "demo"],
    ] {
        assert!(!loads(words), "{words:?}");
    }
    assert!(loads(&["info", "nobody"]), "the log says when one is loaded");
    // A link that leads nowhere is no name either.
    std::os::unix::fs::symlink("nowhere", folder.path().join("any")).unwrap();
    let error = run_in(folder.path(), &["ps", "any"]).error(3);
    assert_eq!(error, "opening any: No such file or directory (os error 2)");
}

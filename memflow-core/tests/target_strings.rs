//! The examples of `docs/target-strings.md`: what it shows is accepted, refused and opened as it says.
#![cfg(feature = "inventory")]

use std::{fs, path::Path};

use memflow_core::plugin::args::{ConnectorSpec, OsSpec};

/// The lines of all blocks of one kind.
fn lines(kind: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/target-strings.md");
    let page = fs::read_to_string(path).unwrap();
    let opening = format!("```{kind}");
    let mut found = Vec::new();
    let mut lines = page.lines();
    while lines.by_ref().any(|line| line == opening) {
        found.extend(lines.by_ref().take_while(|line| *line != "```").map(str::to_owned));
    }
    assert!(found.len() > 2, "{kind}: {found:?}");
    found
}

#[test]
fn accepted_examples_are_accepted_and_read_back() {
    for line in lines("connector") {
        let spec: ConnectorSpec = line.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(spec.to_string().parse::<ConnectorSpec>().unwrap(), spec, "{line}");
    }
    for line in lines("os") {
        let spec: OsSpec = line.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(spec.to_string(), line);
    }
}

#[test]
fn refused_examples_give_the_errors_that_are_shown() {
    let lines = lines("rejected");
    let mut shown = Vec::new();
    for line in lines.iter().filter(|line| !line.starts_with("  ")) {
        let error = line.parse::<ConnectorSpec>().map_or_else(|error| error.to_string(), |spec| format!("{spec:?}"));
        shown.extend([line.clone(), format!("  {error}")]);
    }
    assert!(shown == lines, "docs/target-strings.md is to show:\n{}", shown.join("\n"));
}

#[cfg(unix)]
#[test]
fn shell_examples_open_what_they_say() {
    for line in lines("sh") {
        let (_, opened) = line.rsplit_once(" # ").unwrap();
        let script = format!("{line}\nprintf %s \"$target\"");
        let run = std::process::Command::new("sh").args(["-c", &script]).env("DUMPS", "/dumps").output().unwrap();
        assert!(run.status.success(), "{line}");
        let spec: ConnectorSpec = String::from_utf8(run.stdout).unwrap().parse().unwrap();
        assert_eq!(spec.target(), Some(opened), "{line}");
    }
}

//! What the help says, word by word: `tests/cli/snapshots` holds it.

use super::util::run;

#[test]
fn help_of_every_command() {
    insta::assert_snapshot!("memflow", run("--help").complete());
    for command in [
        "ps",
        "info",
        "maps",
        "modules",
        "symbols",
        "dmesg",
        "read",
        "find",
        "strings",
        "dump",
        "diff",
        "convert",
        "translate",
        "targets",
        "pause",
        "resume",
        "cache",
        "completions",
        "man",
    ] {
        insta::assert_snapshot!(command, run(&format!("{command} --help")).complete());
    }
}

#[test]
fn short_help_and_version_are_results() {
    assert!(run("-h").complete().starts_with("Look into the memory of machines and their snapshots\n"));
    assert_eq!(run("--version").complete(), concat!("memflow ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn completions_and_manual_pages_exist() {
    assert!(run("completions bash").complete().contains("--page-tables"));
    assert!(run("man").complete().contains(".TH"));
    assert!(run("man dump").complete().contains("fill"));
    assert!(run("man targets").complete().contains("look for targets"));
    let script = run("completions bash").complete();
    assert!(["targets", "pause", "resume"].iter().all(|command| script.contains(&format!("memflow,{command})"))));
}

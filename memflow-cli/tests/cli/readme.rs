//! The terminal sessions of the README: what they show is what the command prints.
//!
//! A session is a block that begins with `$ memflow …`; `lines=N` after `console` cuts it there, with a `…` in the place of the rest.
//! `UPDATE_README=1` writes them anew.

use std::{env, fs, path::PathBuf};

use super::util::run_in;

const FENCE: &str = "```";

#[test]
fn sessions_of_the_readme_are_real() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let old = fs::read_to_string(&path).unwrap();
    let mut new = String::new();
    let mut sessions = 0;
    let mut lines = old.lines();
    while let Some(line) = lines.next() {
        new.push_str(line);
        new.push('\n');
        let Some(info) = line.strip_prefix(FENCE).filter(|info| info.starts_with("console")) else { continue };
        let command = lines.next().unwrap();
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != FENCE).collect();
        assert!(block.iter().all(|line| !line.starts_with("$ ")), "one command a block: {command}");
        new.push_str(&session(command, info.split_once("lines=").map(|(_, count)| count.parse().unwrap())));
        new.push_str(FENCE);
        new.push('\n');
        sessions += 1;
    }
    assert!(sessions > 8);
    if env::var_os("UPDATE_README").is_some() {
        fs::write(&path, new).unwrap();
    } else {
        assert!(old == new, "the README shows other output than the command prints; UPDATE_README=1 writes it anew");
    }
}

/// The command and its output, messages first, as a terminal shows both.
fn session(command: &str, most: Option<usize>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path(), command.strip_prefix("$ memflow ").unwrap().split(' '));
    let all: Vec<&str> = run.err.lines().chain(run.out.lines()).map(str::trim_end).collect();
    let shown = most.unwrap_or(all.len()).min(all.len());
    let mut text = format!("{command}\n");
    for line in &all[..shown] {
        text.push_str(line);
        text.push('\n');
    }
    if shown < all.len() {
        text.push_str("…\n");
    }
    text
}

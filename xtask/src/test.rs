//! `cargo xtask test` and `cargo xtask ci`: everything that must hold before a change goes in.
//!
//! Owns: which checks there are and their order: the quick ones first, the test runner last, so that its summary is the last thing
//! on the screen. Must not know: how a check works inside.
//! Keeps: one profile for everything that runs, so that nothing is compiled twice; instructions alone are counted in the release
//! profile, with as few packages as they need.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use crate::{bench, guests, tidy};

/// One check: what it is called, and what it does.
type Step = (&'static str, fn() -> Result<(), String>);

/// The checks of both tasks, in order.
const STEPS: &[Step] = &[
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("tidy", || tidy::tidy(&[])),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])),
    ("documentation", || {
        run(command(&["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("documentation tests", || cargo(&["test", "--workspace", "--doc", "--locked", "--quiet"])),
    ("instructions", instructions),
    ("guests", || guests::guests(&[])),
    ("tests", tests),
];

/// Runs every check.
pub(crate) fn test(args: &[String]) -> Result<(), String> {
    no_arguments("test", args)?;
    steps(STEPS)
}

/// What the CI runs: every check, and those that need a tool of their own if it is installed.
pub(crate) fn ci(args: &[String]) -> Result<(), String> {
    no_arguments("ci", args)?;
    if has_subcommand("deny") {
        steps(&[("licences and advisories", || deny(&[]))])?;
    } else {
        println!("cargo-deny is not installed, so licences and advisories are not checked: cargo install cargo-deny");
    }
    steps(STEPS)
}

/// Checks licences and advisories of the dependencies.
pub(crate) fn deny(args: &[String]) -> Result<(), String> {
    no_arguments("deny", args)?;
    if !has_subcommand("deny") {
        return Err("cargo-deny is not installed: cargo install cargo-deny".to_owned());
    }
    cargo(&["deny", "--workspace", "check"])
}

fn no_arguments(task: &str, args: &[String]) -> Result<(), String> {
    match args.first() {
        None => Ok(()),
        Some(arg) => Err(format!("unexpected argument {arg}; cargo xtask {task} takes none")),
    }
}

fn steps(steps: &[Step]) -> Result<(), String> {
    for (name, step) in steps {
        println!("==> {name}");
        let started = Instant::now();
        step().map_err(|error| format!("{name}: {error}"))?;
        // The last words belong to the test runner.
        if *name != "tests" {
            println!("    {name}: {:.1} s", started.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

/// Instructions of the main shapes beside those on record, which are of one kind of processor.
fn instructions() -> Result<(), String> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if std::arch::is_x86_feature_detected!("avx2") {
        return bench::instructions(&[]);
    }
    println!("instructions are on record for x86-64 with AVX2, so they are not counted here");
    Ok(())
}

/// All tests in one call.
fn tests() -> Result<(), String> {
    if has_subcommand("nextest") {
        return cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
    }
    // cargo's own runner sums up each test program on its own; the sum over all of them comes last.
    let mut command = command(&["test", "--workspace", "--lib", "--bins", "--tests", "--locked", "--no-fail-fast"]);
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("cargo: {error}"))?;
    let mut total = Total::default();
    let out = child.stdout.take().ok_or("cargo has no output")?;
    for line in BufReader::new(out).split(b'\n') {
        let line = line.map_err(|error| format!("output of cargo: {error}"))?;
        let text = String::from_utf8_lossy(&line);
        println!("{text}");
        total.add(&text);
    }
    let status = child.wait().map_err(|error| format!("cargo: {error}"))?;
    println!("{} passed, {} failed", total.passed, total.failed);
    std::io::stdout().flush().map_err(|error| format!("standard output: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo test: {status}")) }
}

/// Tests over all test programs.
#[derive(Default, PartialEq, Eq, Debug)]
struct Total {
    passed: u64,
    failed: u64,
}

impl Total {
    /// Adds a summary line of a test program; other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']) {
            match part.trim().split_once(' ') {
                Some((count, "passed")) => self.passed += count.parse::<u64>().unwrap_or(0),
                Some((count, "failed")) => self.failed += count.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// True when `cargo NAME` is a program that can be run.
fn has_subcommand(name: &str) -> bool {
    let version = command(&[name, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

fn cargo(args: &[&str]) -> Result<(), String> {
    run(&mut command(args))
}

pub(crate) fn command(args: &[&str]) -> Command {
    // Set by the cargo that runs this program.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Files that tests make stay in the checkout like everything else.
    command.args(args).current_dir(tidy::root()).env("TMPDIR", temporary_folder());
    command
}

/// Where tests put their files; the system's own place when it cannot be made.
fn temporary_folder() -> PathBuf {
    let folder = tidy::root().join("target").join("tmp");
    match std::fs::create_dir_all(&folder) {
        Ok(()) => folder,
        Err(_) => std::env::temp_dir(),
    }
}

pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("cargo: {error}"))?;
    let line: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if status.success() { Ok(()) } else { Err(format!("cargo {}: {status}", line.join(" "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_all_programs_are_added_up() {
        let mut total = Total::default();
        total.add("test result: ok. 35 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.16s");
        total.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.16s");
        total.add("test a::passed ... ok");
        assert_eq!(total, Total { passed: 37, failed: 1 });
    }
}

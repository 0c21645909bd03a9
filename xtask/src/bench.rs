//! `cargo xtask bench`: how fast it is.
//!
//! Owns: what has to be there before a benchmark runs. Must not know: what is measured.
//! Keeps: always the release profile; peers are built for the comparison alone, and instructions are counted without what the
//! comparison needs, so that the tests can afford it.

use memflow_guests::{BENCH, Guests, TIMED, require};

use crate::test::{command, run};

const USAGE: &str = "cargo xtask bench --compare [--no-peers] [--runs N] [--filter TEXT] [OPTION OF compare…] | --instructions [--update]";

/// Runs one of the benchmark programs.
pub(crate) fn bench(args: &[String]) -> Result<(), String> {
    let (what, rest) = args.split_first().ok_or_else(|| USAGE.to_owned())?;
    match what.as_str() {
        "--compare" => compare(rest),
        "--instructions" => instructions(rest),
        other => Err(format!("unknown argument {other}; {USAGE}")),
    }
}

fn compare(args: &[String]) -> Result<(), String> {
    let guests = Guests::locate().map_err(|error| error.to_string())?;
    if let Err(error) = guests.prepare(&BENCH, &|what| eprintln!("{}: {what}", BENCH.name)) {
        eprintln!("{}: {error}; the demo machine stands in for it", BENCH.name);
    }
    if let Err(error) = guests.prepare(&TIMED, &|what| eprintln!("{}: {what}", TIMED.name)) {
        eprintln!("{}: {error}; there are no cases with the command", TIMED.name);
    }
    let mut cargo = command(&["run", "--release", "--locked", "-p", "memflow-benches", "--bin", "compare"]);
    if !args.iter().any(|arg| arg == "--no-peers") {
        cargo.args(["--features", "peers"]);
    }
    run(cargo.arg("--").args(args.iter().filter(|arg| *arg != "--no-peers")))
}

/// Counts instructions and compares them with those on record.
pub(crate) fn instructions(args: &[String]) -> Result<(), String> {
    require("valgrind", "valgrind").map_err(|error| error.to_string())?;
    let package = ["run", "--release", "--locked", "--quiet", "-p", "memflow-benches", "--no-default-features"];
    let mut cargo = command(&package);
    run(cargo.args(["--bin", "instructions", "--"]).args(args))
}

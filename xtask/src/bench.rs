//! `cargo xtask bench`: how fast it is.
//!
//! Owns: what has to be there before a benchmark runs. Must not know: what is measured.
//! Keeps: always the release profile; peers are built for the comparison alone.

use memflow_guests::{BENCH, Guests};

use crate::test::{command, run};

const USAGE: &str = "cargo xtask bench --compare [--no-peers] [OPTION OF compare…] | --instructions [--update]";

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
    let mut cargo = command(&["run", "--release", "--locked", "-p", "memflow-benches", "--bin", "compare"]);
    if !args.iter().any(|arg| arg == "--no-peers") {
        cargo.args(["--features", "peers"]);
    }
    run(cargo.arg("--").args(args.iter().filter(|arg| *arg != "--no-peers")))
}

fn instructions(args: &[String]) -> Result<(), String> {
    let mut cargo = command(&["run", "--release", "--locked", "-p", "memflow-benches", "--bin", "instructions"]);
    run(cargo.arg("--").args(args))
}

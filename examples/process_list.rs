//! Lists the processes in a memory image: `cargo run -p memflow-examples --bin process_list -- memflow-cli/demo/demo.elf.zst`
#![expect(clippy::print_stderr, reason = "a program for a terminal")]

use std::{
    error::Error,
    io::{Write, stdout},
};

use memflow_core::os::Os;
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_snapshot::OpenOptions;

fn main() -> Result<(), Box<dyn Error>> {
    let image = std::env::args_os().nth(1).ok_or("usage: process_list IMAGE")?;

    // What the file is, is told by its content; so is where in it the kernel lies.
    let snapshot = memflow_snapshot::open(image.as_ref(), &OpenOptions::default())?;
    let os = LinuxOs::open(snapshot.memory, &LinuxOptions::default())?;

    let processes = os.processes()?;
    let mut out = stdout().lock();
    for process in &processes.items {
        writeln!(out, "{:>6} {}", process.pid, process.name)?;
    }
    // A list that is not complete says what is missing.
    for problem in &processes.problems {
        eprintln!("warning: {problem}");
    }
    Ok(())
}

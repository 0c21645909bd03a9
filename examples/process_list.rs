//! Lists the processes in a memory image: `cargo run -p memflow-examples --bin process_list -- demo`
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;

use memflow_core::os::Os;

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    let processes = os.processes()?;
    for process in &processes.items {
        println!("{:>6} {}", process.pid, process.name);
    }
    // A list that is not complete says what is missing.
    for problem in &processes.problems {
        eprintln!("warning: {problem}");
    }
    Ok(())
}

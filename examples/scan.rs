//! Looks for text and for a pattern with wildcards in all of physical memory: `cargo run -p memflow-examples --bin scan -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{error::Error, ops::ControlFlow};

use memflow_core::scan::{Case, Pattern, Scanner, TextEncoding};

fn main() -> Result<(), Box<dyn Error>> {
    let memory = memflow_examples::memory()?;
    let banner = Pattern::text("Linux version ", TextEncoding::Utf8, Case::Sensitive)?;
    // An ELF header: 64 bits, little-endian, whatever the system.
    let program = Pattern::hex("7f 45 4c 46 02 01 01 ??")?;
    let scanner = Scanner::new([banner, program])?;

    let mut found = [0; 2];
    let scanned = scanner.scan().align(1).physical(&*memory, &[], &mut |hit| {
        found[hit.pattern] += 1;
        if hit.pattern == 0 {
            println!("{}: {:?}", hit.addr, String::from_utf8_lossy(hit.bytes));
        }
        ControlFlow::Continue(())
    })?;
    println!("{} banners and {} programs; complete: {}", found[0], found[1], scanned.is_complete());
    Ok(())
}

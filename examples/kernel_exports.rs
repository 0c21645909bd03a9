//! Finds a symbol of the kernel by its name, and the symbol around an address: `cargo run -p memflow-examples --bin kernel_exports -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;

use memflow_core::os::Os;

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    println!("{} symbols", os.symbols()?.into_complete()?.len());
    for symbol in os.symbols_named("init_task")? {
        println!("{} {} {}", symbol.address, symbol.kind, symbol.name);
        let inside = symbol.address.wrapping_add(8);
        if let Some((found, distance)) = os.symbol_at(inside)? {
            println!("{inside} is {}+{distance:#x}", found.name);
        }
    }
    Ok(())
}

//! Lists the modules of the kernel, and what uses them: `cargo run -p memflow-examples --bin module_list -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;

use memflow_core::os::Os;

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    println!("{} {}, kernel at {}", os.kernel().system, os.kernel().release, os.kernel().base);
    // `into_complete` makes one error of a list that lacks something.
    for module in os.modules()?.into_complete()? {
        println!("{} {:#x} {} {}", module.base, module.size, module.name, module.used_by.join(","));
    }
    Ok(())
}

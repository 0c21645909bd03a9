//! Looks at a number of the kernel again and again, and tells when it changes:
//! `cargo run -p memflow-examples --bin watch_value -- demo` (a snapshot stands still; a running guest's clock does not)
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{error::Error, thread, time::Duration};

use memflow_core::{MemoryViewExt, memory::Liveness, os::Os};

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    let clock = os.symbols_named("jiffies_64")?.into_iter().next().ok_or("the kernel has no jiffies_64")?;
    let live = os.physical_memory().metadata().liveness == Liveness::Live;
    println!("{} at {}, {}", clock.name, clock.address, if live { "live" } else { "frozen" });

    let mut last: u64 = os.kernel_view().read_le(clock.address)?;
    println!("{last:#x}");
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(10));
        let now: u64 = os.kernel_view().read_le(clock.address)?;
        if now != last {
            println!("{now:#x}, {} more", now.wrapping_sub(last));
        }
        last = now;
    }
    Ok(())
}

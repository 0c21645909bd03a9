//! Compares what a process says of its memory with what its page tables map: `cargo run -p memflow-examples --bin memory_maps -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{error::Error, ops::ControlFlow};

use memflow_core::{os::Os, paging::MapBudget};

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    let process = os.open_pid(1)?;
    let space = process.address_space().ok_or("a thread of the kernel")?;

    for region in process.memory_map()?.into_complete()? {
        // Pages that are in memory now: the tables are walked for this range alone, and neighbours come as one run.
        let mut present = 0;
        let mapped = space.map(process.physical_memory(), Some(region.range), MapBudget::default(), &mut |run| {
            present += run.virt.len();
            ControlFlow::Continue(())
        })?;
        let whole = if mapped.is_complete() { "" } else { ", and tables that are not in the image" };
        println!("{} {} {present:#x} of {:#x} present{whole}", region.range, region.permissions, region.range.len());
    }
    Ok(())
}

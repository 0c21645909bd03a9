//! Reads variables of a kernel by their symbols, alone and in a batch:
//! `cargo run -p memflow-examples --bin read_kernel_symbol -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;

use memflow_core::{MemoryView, MemoryViewExt, memory::ViewRead};
use memflow_linux::{Kernel, LinuxOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let kernel = Kernel::open(memflow_examples::memory()?, &LinuxOptions::default())?;

    // A symbol gives the address, the kernel's own type information the offset in it.
    let names = kernel.symbols.require("init_uts_ns")?;
    let release = kernel.types.field("uts_namespace", "name.release")?;
    println!("release: {}", kernel.view.read_utf8_lossy(names.wrapping_add(release.offset), 65)?);

    // Any plain type can be read; here the two pointers of a list.
    let tasks = kernel.types.field("task_struct", "tasks")?;
    let first = kernel.symbols.require("init_task")?.wrapping_add(tasks.offset);
    let [next, previous]: [u64; 2] = kernel.view.read(first)?;
    println!("list of tasks: from {next:#x} to {previous:#x}");

    // Many reads are best made at once: the page tables are walked for all of them together, and each has its own outcome.
    let variables = ["jiffies_64", "max_pfn", "_totalram_pages"];
    let mut values = [[0; 8]; 3];
    let addresses = variables.map(|name| kernel.symbols.require(name));
    let mut batch = Vec::new();
    for (address, value) in addresses.into_iter().zip(&mut values) {
        batch.push(ViewRead::new(address?, value));
    }
    kernel.view.read_batch(&mut batch)?;
    for (name, value) in variables.iter().zip(values) {
        println!("{name}: {:#x}", u64::from_le_bytes(value));
    }
    Ok(())
}

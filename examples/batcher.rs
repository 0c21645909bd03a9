//! Reads some members of a structure, in many places, in one batch:
//! `cargo run -p memflow-examples --bin batcher -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;

use memflow_core::{
    os::Os,
    view::{Batch, Ptr64},
};
use memflow_derive::Batcher;

/// Members of the header that every program in memory starts with (`Elf64_Ehdr`).
#[derive(Default, Batcher)]
struct Header {
    #[batch(offset = 0)]
    magic: [u8; 4],
    #[batch(offset = 0x12)]
    machine: u16,
    #[batch(offset = 0x18)]
    entry: Ptr64<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    let process = os.open_pid(1)?;
    let regions = process.memory_map()?.into_complete()?;
    let mut headers: Vec<Header> = regions.iter().map(|_| Header::default()).collect();

    // All members of all structures are one call, and each has an outcome of its own.
    let mut batch = Batch::new();
    for (header, region) in headers.iter_mut().zip(&regions) {
        batch.read_members(region.range.start(), header);
    }
    let committed = batch.commit(&*process);
    println!("{} reads, {} failed", committed.len(), committed.failures().count());
    for (header, region) in headers.iter().zip(&regions).filter(|(header, _)| header.magic == *b"\x7fELF") {
        println!(
            "{}: machine {}, entry {}",
            region.range.start(),
            u16::from_le(header.machine),
            header.entry.address()
        );
    }
    Ok(())
}

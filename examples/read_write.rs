//! Reads a process' memory in several ways, and writes it back where the target takes writes:
//! `cargo run -p memflow-examples --bin read_write -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;

use memflow_core::{MemoryViewExt, VirtAddr, os::Os};

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    let process = os.open_pid(1)?;
    let region = process.memory_map()?.into_complete()?.into_iter().next().ok_or("no memory")?;
    let start = region.range.start();

    // One value, and text up to its end.
    let magic: [u8; 4] = process.read(start)?;
    println!("{start}: {magic:x?}, {:?}", process.read_utf8_lossy(start.wrapping_add(1), 3)?);

    // What can be read of a range, and what is missing, page by page.
    let mut bytes = vec![0; usize::try_from(region.range.len())?];
    let read = process.read_partial(start, &mut bytes)?;
    println!("{} of {} bytes, {} gaps", bytes.len() as u64 - read.missing(), bytes.len(), read.gaps.len());

    // What is not mapped is an error that says why; it is never zeros.
    match process.read::<u64>(VirtAddr::new(0)) {
        Ok(value) => println!("0x0: {value:#x}"),
        Err(error) => println!("error: {error}"),
    }
    match process.write(start, &magic) {
        Ok(()) => println!("written"),
        Err(error) => println!("error: {error}"),
    }
    Ok(())
}

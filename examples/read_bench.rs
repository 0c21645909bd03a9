//! How fast a target is read: `cargo run --release -p memflow-examples --bin read_bench -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use memflow_core::{MemoryViewExt, VirtAddr, os::Os, view::SpaceView};

/// How often `work` is done in a quarter of a second, and how long once takes.
fn measure(what: &str, bytes: usize, mut work: impl FnMut() -> memflow_core::Result<()>) -> memflow_core::Result<()> {
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_millis(250) {
        work()?;
        count += 1;
    }
    let each = start.elapsed() / count;
    println!("{what}: {each:?}, {:.0} MB/s", bytes as f64 / each.as_secs_f64() / 1e6);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    let view = SpaceView::new(os.physical_memory().clone(), os.kernel_space().clone());
    let start = os.kernel().base;
    // Places in the kernel's text, in no order that a processor could guess.
    let places: Vec<VirtAddr> =
        (0..1024_u64).map(|n| start.wrapping_add((n.wrapping_mul(0x9e37_79b1) % 0x10_0000) & !7)).collect();
    let mut values = vec![0_u64; places.len()];
    let mut page = vec![0; 0x1000];

    measure("8 bytes", 8, || view.read::<u64>(start).map(drop))?;
    measure("1024 x 8 bytes in a batch", 8 * 1024, || view.read_values(&places, &mut values).map(drop))?;
    measure("4 KiB", 4096, || view.read_into(start, &mut page))?;
    Ok(())
}

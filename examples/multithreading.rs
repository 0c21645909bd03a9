//! Reads every process from several threads, with one handle and no copies of it:
//! `cargo run -p memflow-examples --bin multithreading -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{
    error::Error,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use memflow_core::{MemoryViewExt, os::Os};

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    let processes = os.processes()?.into_complete()?;
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));

    let work = || -> memflow_core::Result<()> {
        // Each thread takes the next process that nobody has.
        while let Some(info) = processes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let process = os.open(info)?;
            for region in process.memory_map()?.items {
                let mut buf = vec![0; usize::try_from(region.range.len().min(1 << 20)).unwrap_or_default()];
                let read = process.read_partial(region.range.start(), &mut buf)?;
                bytes.fetch_add(buf.len() as u64 - read.missing(), Ordering::Relaxed);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread panicked"))
    })?;
    println!("{} processes, {} bytes", processes.len(), bytes.into_inner());
    Ok(())
}

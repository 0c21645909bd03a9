//! How fast a stub is: `speed ADDRESS`, as in `gdb:ADDRESS`. Reads only; the target is stopped and let go for each batch.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::time::{Duration, Instant};

use memflow_core::{
    Error, PhysAddr, PhysicalMemory, Result,
    memory::{PhysRead, Run},
};
use memflow_gdb::{GdbMemory, Options, Runs, open};

fn main() -> Result<()> {
    let address = std::env::args().nth(1).ok_or_else(|| Error::MissingArgument {
        usage: "ADDRESS".to_owned(),
        help: "HOST:PORT, a port, or the path of a Unix socket".to_owned(),
    })?;
    for (run, name) in [(Runs::Between, "runs between batches"), (Runs::After, "stands")] {
        let mut options = Options::default();
        options.run = run;
        let opened = open(&address.parse()?, &options)?;
        println!("{}; the target {name}", opened.format);
        for (count, len) in [(1, 8), (1, 4096), (16, 8), (256, 8), (16, 4096), (256, 4096), (1, 1 << 20)] {
            let time = median(&opened.memory, count, len)?;
            let rate = (count * len) as f64 / time.as_secs_f64() / 1e6;
            println!("{count:4} x {len:7} bytes  {:9.0} us a batch  {rate:8.2} MB/s", time.as_secs_f64() * 1e6);
        }
    }
    Ok(())
}

/// The median time of 41 batches of `count` reads of `len` bytes, at places that are not neighbours.
fn median(memory: &GdbMemory, count: usize, len: usize) -> Result<Duration> {
    let runs = memory.metadata().runs;
    let Some(run) = runs.runs().iter().max_by_key(|run: &&Run| run.range.len()) else { return Ok(Duration::ZERO) };
    let mut times = Vec::new();
    let mut at = 0_u64;
    for _ in 0..41 {
        let mut buffers = vec![vec![0; len]; count];
        let mut ops: Vec<_> = buffers
            .iter_mut()
            .map(|buf| {
                at = (at + len as u64 + 0x6000) % (run.range.len() - len as u64);
                PhysRead::new(PhysAddr::new(run.range.start().as_u64() + at), buf)
            })
            .collect();
        let started = Instant::now();
        memory.read_batch(&mut ops)?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

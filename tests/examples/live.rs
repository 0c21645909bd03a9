//! Throughput and latency of each way to the memory of one running guest, and the calls of the connector that they took.
//!
//! `cargo run --release -p memflow-tests --example live`
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::time::{Duration, Instant};

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{PhysRead, PhysicalMemoryExt},
};
use memflow_guests::{Guests, Live, MATRIX};
use memflow_qemu::{AccessKind, Options, QemuMemory, Target, open};
use memflow_tests::Random;

const BATCH: usize = 1000;
/// Median of so many.
const REPEATS: usize = 31;
const SINGLE: usize = 2000;
const LARGE: usize = 1 << 20;
/// Where addresses are taken from: above the first MiB, and well inside the guest's 512.
const SPAN: u64 = 480 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec = MATRIX.iter().find(|spec| spec.name == "amd64-6.12-4level-pti").ok_or("no such guest")?;
    let name = format!("live-{}", std::process::id());
    let arguments = "-machine q35,memory-backend=ram -m 512M -object memory-backend-memfd,id=ram,size=512M,share=on \
                     -qmp unix:spare.sock,server=on,wait=off";
    let guest = Guests::locate()?.boot_live(spec, &Live::new(&name, arguments))?;
    println!(
        "{:<12} {:>14} {:>16} {:>12} {:>14}  CALLS (8 BYTES, BATCH, 1 MIB)",
        "ACCESS", "8 BYTES", "8 BYTES, BATCH", "1 MIB", "TOUCHED 1 MIB"
    );
    for access in [AccessKind::Map, AccessKind::ProcessVm, AccessKind::Mem] {
        let mut options = Options::default();
        options.access = access;
        let memory = open(&Target::Name(name.clone()), &options)?.memory;
        measure(&memory)?;
    }
    drop(guest);
    Ok(())
}

fn measure(memory: &QemuMemory) -> memflow_core::Result<()> {
    let mut random = Random(1);
    let mut address = || PhysAddr::new((1 << 20) + (random.below(SPAN) & !7));
    let single: Vec<PhysAddr> = (0..SINGLE).map(|_| address()).collect();
    let many: Vec<PhysAddr> = (0..BATCH).map(|_| address()).collect();
    let mut counts = [0; 3];
    let mut calls = memory.calls();
    let mut called = |memory: &QemuMemory, count: &mut u64| {
        *count = memory.calls() - calls;
        calls = memory.calls();
    };

    let mut word = [0; 8];
    let each = median(|| single.iter().try_for_each(|at| memory.read_into(*at, &mut word)))? / SINGLE as u32;
    called(memory, &mut counts[0]);
    let mut words = vec![[0; 8]; BATCH];
    let batched = median(|| {
        let ops = words.iter_mut().zip(&many);
        memory.read_batch(&mut ops.map(|(word, at)| PhysRead::new(*at, word)).collect::<Vec<_>>())
    })? / BATCH as u32;
    called(memory, &mut counts[1]);
    let mut large = vec![0; LARGE];
    let first = {
        let started = Instant::now();
        memory.read_into(PhysAddr::new(256 << 20), &mut large)?;
        started.elapsed()
    };
    let again = median(|| memory.read_into(PhysAddr::new(256 << 20), &mut large))?;
    called(memory, &mut counts[2]);
    let rate = |time: Duration| format!("{:.2} GB/s", LARGE as f64 / time.as_secs_f64() / 1e9);
    let name = memory.access().to_string();
    println!("{name:<12} {each:>14.1?} {batched:>16.1?} {:>12} {:>14}  {counts:?}", rate(first), rate(again));
    Ok(())
}

/// The median time of a task.
fn median(mut task: impl FnMut() -> memflow_core::Result<()>) -> memflow_core::Result<Duration> {
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let started = Instant::now();
        task()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(REPEATS / 2).copied().unwrap_or_default())
}

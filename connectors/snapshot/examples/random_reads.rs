//! How fast files are read at random: `cargo run --release -p memflow-snapshot --example random_reads -- FILE…`.
//!
//! For each file: how long it took to open, reads of 4 KiB at random addresses for a second, by one thread and by two, first with nothing
//! unpacked and then once more; and a checksum of all pages that were asked for, the same for every file of the same memory.
#![expect(clippy::print_stdout, reason = "an example that prints figures")]

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use memflow_core::{PhysAddr, PhysicalMemory, Result, memory::PhysicalMemoryExt};
use memflow_snapshot::{OpenOptions, open};

const PAGE: u64 = 4096;
/// Pages below this one are in every kind of file.
const FIRST: u64 = 256;
/// Pages that the checksum is of.
const CHECKED: u64 = 2000;

fn main() -> Result<()> {
    let megabytes = std::env::var("UNPACKED_CACHE_MIB").ok().and_then(|text| text.parse::<u64>().ok());
    println!("{:<28}{:>10}{:>12}{:>12}{:>12}{:>12}  pages", "file", "open, ms", "cold 1", "warm 1", "cold 2", "warm 2");
    for path in std::env::args().skip(1) {
        let options = OpenOptions { unpacked_cache: megabytes.map(|mib| mib << 20), ..OpenOptions::default() };
        let mut figures = Vec::new();
        let (mut opened, mut sum) = (Duration::MAX, 0);
        for threads in [1, 2] {
            let started = Instant::now();
            let snapshot = open(Path::new(&path), &options)?;
            opened = opened.min(started.elapsed());
            figures.extend([reads(&*snapshot.memory, threads), reads(&*snapshot.memory, threads)]);
            sum = checksum(&*snapshot.memory);
        }
        let name = Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        print!("{name:<28}{:>10.1}", opened.as_secs_f64() * 1e3);
        figures.iter().for_each(|figure| print!("{figure:>12.0}"));
        println!("  {sum:016x}");
    }
    Ok(())
}

/// A page number for each number, in no order that a disk or a cache could guess.
fn page(number: u64, pages: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    FIRST + (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) % (pages - FIRST)
}

/// Pages from the start up to the end of the memory below the hole.
fn pages(memory: &dyn PhysicalMemory) -> u64 {
    let runs = memory.metadata().runs;
    runs.runs()
        .iter()
        .filter_map(|run| run.range.end())
        .map(PhysAddr::as_u64)
        .filter(|end| *end < 3 << 30)
        .max()
        .unwrap_or(0)
        / PAGE
}

/// Reads in a second, by so many threads.
fn reads(memory: &dyn PhysicalMemory, threads: u64) -> f64 {
    let (pages, done) = (pages(memory), AtomicU64::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let done = &done;
            scope.spawn(move || {
                let mut buf = [0; PAGE as usize];
                let mut number = thread << 40;
                while started.elapsed() < Duration::from_secs(1) {
                    for _ in 0..16 {
                        // Pages that a dump leaves out fail, which counts as well.
                        let _ = memory.read_into(PhysAddr::new(page(number, pages) * PAGE), &mut buf);
                        number += 1;
                    }
                    done.fetch_add(16, Ordering::Relaxed);
                }
            });
        }
    });
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

/// A number for what some pages hold; what a dump left out counts as zeros.
fn checksum(memory: &dyn PhysicalMemory) -> u64 {
    let pages = pages(memory);
    let mut sum = 0u64;
    for number in 0..CHECKED {
        let mut buf = [0; PAGE as usize];
        if memory.read_into(PhysAddr::new(page(number, pages) * PAGE), &mut buf).is_err() {
            buf.fill(0);
        }
        for (index, byte) in (1u64..).zip(buf) {
            sum = sum.rotate_left(5).wrapping_add(index.wrapping_mul(u64::from(byte)));
        }
    }
    sum
}

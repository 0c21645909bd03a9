//! A soak: process lists and random reads from four threads on a guest that is kept busy.
//!
//! `cargo run --release -p memflow-tests --example soak -- SECONDS [map|process_vm|mem]`
//!
//! Bytes that never change (the kernel's constants) are compared with a copy from the start; lists have to hold the processes that
//! live all the time. Prints reads done, wrong answers, and how much memory of its own the program has gained.
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use memflow_core::{MemoryViewExt, VirtAddr, memory::Pause, os::Os};
use memflow_guests::{Guests, Live, MATRIX, RunningGuest};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_qemu::{AccessKind, Options, Target, open};
use memflow_tests::Random;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the threads have done.
#[derive(Default)]
struct Done {
    lists: AtomicU64,
    /// Lists that said themselves that they are not whole: the guest changed them meanwhile.
    torn: AtomicU64,
    reads: AtomicU64,
    wrong: AtomicU64,
}

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let seconds: u64 = words.next().unwrap_or_else(|| "60".into()).parse()?;
    let access: AccessKind = words.next().as_deref().unwrap_or("auto").parse()?;
    let spec = MATRIX.iter().find(|spec| spec.name == "amd64-6.12-4level-pti").ok_or("no such guest")?;
    let name = format!("soak-{}", std::process::id());
    let arguments = "-machine q35,memory-backend=ram -m 512M -object memory-backend-memfd,id=ram,size=512M,share=on \
                     -qmp unix:spare.sock,server=on,wait=off";
    let mut guest = Guests::locate()?.boot_live(spec, &Live::new(&name, arguments))?;
    let mut options = Options::default();
    (options.access, options.timeout) = (access, Duration::from_secs(20));
    let memory = open(&Target::Name(name), &options)?.memory;
    println!("access {}", memory.access());
    let os = LinuxOs::open(memory.clone(), &LinuxOptions::default())?;

    let pause = Pause::new(memory.clone())?;
    let constants = constants(&os)?;
    let lasting: Vec<u32> = os
        .processes()?
        .into_complete()?
        .iter()
        .filter(|process| !process.kernel_thread)
        .map(|process| process.pid)
        .collect();
    pause.end()?;

    let (done, stop) = (Done::default(), AtomicBool::new(false));
    let mut gained = Vec::new();
    let started = Instant::now();
    std::thread::scope(|scope| -> Result<(), Failure> {
        for number in 0..4 {
            let (os, constants, lasting, done, stop) = (&os, &constants, &lasting, &done, &stop);
            scope.spawn(move || work(number, os, constants, lasting, done, stop));
        }
        let outcome = keep_busy(&mut guest, started, Duration::from_secs(seconds), &mut gained);
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{:.0?}: {} reads, {} lists ({} torn and said so), {} wrong answers, {} calls of the connector",
        started.elapsed(),
        count(&done.reads),
        count(&done.lists),
        count(&done.torn),
        count(&done.wrong),
        memory.calls()
    );
    // The first figure is taken when everything has run for a while.
    let (first, last) = (gained.first().copied().unwrap_or(0), gained.last().copied().unwrap_or(0));
    println!(
        "anonymous memory of this program: {first} KiB after a tenth of the time, {last} KiB at the end, {:+} KiB",
        last - first
    );
    if count(&done.wrong) > 0 { Err("wrong answers".into()) } else { Ok(()) }
}

/// Starts and ends processes in the guest, and notes how much memory this program has.
fn keep_busy(guest: &mut RunningGuest, started: Instant, time: Duration, gained: &mut Vec<i64>) -> Result<(), Failure> {
    while started.elapsed() < time {
        let pids = (0..4).map(|_| guest.spawn("busy")).collect::<Result<Vec<u32>, _>>()?;
        for pid in pids {
            guest.command(&format!("kill {pid}"))?;
        }
        if started.elapsed() > time / 10 {
            gained.push(anonymous()?);
        }
    }
    Ok(())
}

/// What one thread does until it is told to stop.
fn work(number: u64, os: &LinuxOs, constants: &(VirtAddr, Vec<u8>), lasting: &[u32], done: &Done, stop: &AtomicBool) {
    let mut random = Random(number);
    let (start, bytes) = constants;
    let mut buffer = vec![0; 4096];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..500 {
            let len = 1 + random.below(4096).min(bytes.len() as u64 - 1);
            let at = random.below(bytes.len() as u64 - len);
            let (at, len) = (at as usize, len as usize);
            let read = os.kernel_view().read_into(VirtAddr::new(start.as_u64() + at as u64), &mut buffer[..len]);
            if read.is_err() || buffer[..len] != bytes[at..at + len] {
                done.wrong.fetch_add(1, Ordering::Relaxed);
            }
            done.reads.fetch_add(1, Ordering::Relaxed);
        }
        match os.processes() {
            Ok(list) if !list.problems.is_empty() => done.torn.fetch_add(1, Ordering::Relaxed),
            Ok(list) if lasting.iter().all(|pid| list.items.iter().any(|process| process.pid == *pid)) => 0,
            _ => done.wrong.fetch_add(1, Ordering::Relaxed),
        };
        done.lists.fetch_add(1, Ordering::Relaxed);
    }
}

/// The kernel's constants: where they start, and a copy.
fn constants(os: &LinuxOs) -> Result<(VirtAddr, Vec<u8>), Failure> {
    let symbol = |name: &str| {
        let found = os.symbols_named(name)?;
        found.first().map(|symbol| symbol.address).ok_or_else(|| Failure::from(format!("no symbol {name}")))
    };
    let (start, end) = (symbol("__start_rodata")?, symbol("__end_rodata")?);
    let mut bytes = vec![0; end.as_u64().saturating_sub(start.as_u64()).min(4 << 20) as usize];
    os.kernel_view().read_into(start, &mut bytes)?;
    Ok((start, bytes))
}

/// Anonymous memory of this process in KiB; pages of the guest that are mapped here are not counted.
fn anonymous() -> Result<i64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    Ok(line.and_then(|line| line.split_whitespace().next()).ok_or("no RssAnon")?.parse()?)
}

//! Throughput and latency of each way to the memory of one running guest, and the calls of the connector that they took.
//!
//! `cargo run --release -p memflow-tests --example live`
//!
//! One guest is read in every way, in turns, by batches of operations at random aligned addresses, all of which were read before: what
//! else the machine does disturbs all alike, and each figure is a median of the times of batches. Throughput is of what was asked for.
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use memflow_core::{PhysAddr, PhysicalMemory, memory::PhysRead};
use memflow_guests::{Guests, Live, MATRIX};
use memflow_qemu::{AccessKind, Options, Target, open};
use memflow_tests::Random;

const MIB: usize = 1 << 20;
/// Operations of one batch, and the bytes of each.
const SHAPES: [(usize, usize); 7] = [(1, 8), (16, 8), (1024, 8), (16384, 8), (1, 4096), (64, 4096), (1, MIB)];
/// Each way has so many turns, each of so many samples, unless they take longer than this.
const ROUNDS: u64 = 8;
const SAMPLES: usize = 100;
const ROUND: Duration = Duration::from_millis(200);
/// Where addresses are taken from: above the first 16 MiB, and well inside the guest's 512.
const FIRST: u64 = 16 << 20;
const SPAN: u64 = 448 << 20;

/// One way to the memory.
struct Way {
    name: &'static str,
    memory: Arc<dyn PhysicalMemory>,
    /// How often the connector was called, where it counts.
    calls: Box<dyn Fn() -> u64>,
}

/// What was measured of one way in one shape: times of a batch, and the calls that all of them took.
#[derive(Default)]
struct Measured {
    times: Vec<Duration>,
    calls: u64,
    batches: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec = MATRIX.iter().find(|spec| spec.name == "amd64-6.12-4level-pti").ok_or("no such guest")?;
    let name = format!("live-{}", std::process::id());
    let arguments = "-machine q35,memory-backend=ram -m 512M -object memory-backend-memfd,id=ram,size=512M,share=on \
                     -qmp unix:spare.sock,server=on,wait=off -gdb unix:gdb.sock,server=on,wait=off";
    let guest = Guests::locate()?.boot_live(spec, &Live::new(&name, arguments))?;
    let mut ways = Vec::new();
    for (called, access) in [("map", AccessKind::Map), ("process_vm", AccessKind::ProcessVm), ("mem", AccessKind::Mem)]
    {
        let mut options = Options::default();
        options.access = access;
        let memory = open(&Target::Name(name.clone()), &options)?.memory;
        let counted = memory.clone();
        ways.push(Way { name: called, memory, calls: Box::new(move || counted.calls()) });
    }
    let stub = memflow_gdb::Address::Unix(guest.folder().join("gdb.sock"));
    let stub = Arc::new(memflow_gdb::open(&stub, &memflow_gdb::Options::default())?.memory);
    let counted = stub.clone();
    ways.push(Way { name: "gdb", memory: stub, calls: Box::new(move || counted.calls()) });

    println!(
        "{:<12} {:>16} {:>14} {:>14} {:>12} {:>16}",
        "WAY", "BATCH", "TIME", "EACH", "THROUGHPUT", "CALLS A BATCH"
    );
    // Whatever is read for the first time is brought here first, and made by the host if the guest never used it.
    let mut page = vec![0; MIB];
    for at in (FIRST..FIRST + SPAN).step_by(MIB) {
        for way in ways.iter().filter(|way| way.name == "map") {
            way.memory.read_batch(&mut [PhysRead::new(PhysAddr::new(at), &mut page)])?;
        }
    }
    for shape in SHAPES {
        let mut measured: Vec<Measured> = ways.iter().map(|_| Measured::default()).collect();
        for round in 0..ROUNDS {
            for (way, measured) in ways.iter().zip(&mut measured) {
                let calls = (way.calls)();
                measure(&*way.memory, shape, &mut Random(round), measured)?;
                measured.calls += (way.calls)() - calls;
            }
        }
        for (way, measured) in ways.iter().zip(&mut measured) {
            print(way.name, shape, measured);
        }
    }
    drop(guest);
    Ok(())
}

/// Times of batches, until a round is full. Small ones are timed together, as asking for the time takes time as well.
fn measure(
    memory: &dyn PhysicalMemory,
    (count, len): (usize, usize),
    random: &mut Random,
    measured: &mut Measured,
) -> memflow_core::Result<()> {
    let group = (256 / count).max(1);
    let mut bytes = vec![0; group * count * len];
    let round = Instant::now();
    for _ in 0..SAMPLES {
        let mut address = || PhysAddr::new((FIRST + random.below(SPAN - len as u64)) & !(len as u64 - 1));
        let mut batches: Vec<Vec<PhysRead<'_>>> = bytes
            .chunks_mut(count * len)
            .map(|batch| batch.chunks_mut(len).map(|bytes| PhysRead::new(address(), bytes)).collect())
            .collect();
        let started = Instant::now();
        batches.iter_mut().try_for_each(|ops| memory.read_batch(ops))?;
        measured.times.push(started.elapsed() / group as u32);
        measured.batches += group as u64;
        if round.elapsed() > ROUND {
            break;
        }
    }
    Ok(())
}

fn print(name: &str, (count, len): (usize, usize), measured: &mut Measured) {
    measured.times.sort_unstable();
    let time = measured.times.get(measured.times.len() / 2).copied().unwrap_or_default();
    let unit = match len {
        MIB => "1 MiB".to_owned(),
        4096 => "4 KiB".to_owned(),
        _ => format!("{len} bytes"),
    };
    println!(
        "{name:<12} {:>16} {:>14} {:>14} {:>12} {:>16}",
        format!("{count} x {unit}"),
        format!("{:.2?}", time),
        format!("{:.2?}", time / count as u32),
        format!("{:.1} MB/s", (count * len) as f64 / time.as_secs_f64() / 1e6),
        format!("{:.2}", measured.calls as f64 / measured.batches as f64)
    );
}

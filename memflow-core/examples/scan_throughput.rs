//! How fast a scan is, beside a bare substring search over the same bytes:
//! `cargo run --release --example scan_throughput -- FILE [TEXTS]`, TEXTS being a file with a text on each line, as names of symbols.
//!
//! Owns: the patterns that are timed, and the table. Must not know: engines.
//! Keeps: one thread, processor time of that thread, the best of several runs: what the scan costs and not what else the machine does.
#![expect(clippy::print_stdout, reason = "a program")]

use std::{error::Error, fs::File, ops::ControlFlow};

use memchr::memmem;
use memflow_core::{
    PhysicalMemory,
    memory::{MapMode, MappedMemory, RunMap, SourceConfig, TargetFacts},
    scan::{Case, Pattern, RegexOptions, Scanner, TextEncoding},
};

/// Runs of each measurement.
const RUNS: usize = 5;
/// What no memory holds, so that all of it is searched.
const NEEDLE: &str = "a needle that nobody has lost";

/// Processor time of this thread in seconds.
fn processor_time() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// The best of several runs, in seconds.
fn best(mut run: impl FnMut()) -> f64 {
    let times = (0..RUNS).map(|_| {
        let started = processor_time();
        run();
        processor_time() - started
    });
    times.fold(f64::INFINITY, f64::min)
}

/// Pseudo-random numbers (SplitMix64, from its published constants).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What becomes of bytes of the file before they are searched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Draw {
    /// Nothing: each is there at least once, and many a thousand times.
    Found,
    /// One byte is changed: as common in memory as patterns get, and yet hardly ever there.
    Missed,
}

/// Bytes of the file: less than half of them zero, and not all of them the same, which whole pages are filled with.
fn patterns(bytes: &[u8], draw: Draw, count: usize, shortest: usize, longest: usize) -> Vec<Pattern> {
    let mut state = 1;
    let mut patterns = Vec::new();
    while patterns.len() < count && bytes.len() > longest {
        let at = random(&mut state) as usize % (bytes.len() - longest);
        let len = shortest + random(&mut state) as usize % (longest - shortest + 1);
        let mut pattern = bytes[at..at + len].to_vec();
        let all_alike = pattern.windows(2).all(|pair| pair[0] == pair[1]);
        if all_alike || pattern.iter().filter(|byte| **byte == 0).count() * 2 > len {
            continue;
        }
        if draw == Draw::Missed {
            pattern[random(&mut state) as usize % len] ^= 0x5a;
        }
        patterns.extend(Pattern::bytes(pattern));
    }
    patterns
}

/// Bytes of no memory.
fn random_patterns(count: usize, len: usize) -> Vec<Pattern> {
    let mut state = 1;
    let words = |_| Pattern::bytes((0..len).map(|_| random(&mut state) as u8).collect::<Vec<u8>>());
    (0..count).flat_map(words).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: scan_throughput FILE; a raw memory image of some 100 MiB")?;
    let file = File::open(&path)?;
    let len = file.metadata()?.len();
    let config = || SourceConfig { name: "file".into(), runs: RunMap::flat(len), facts: TargetFacts::default() };
    // Nobody writes to the file meanwhile, by the word of whoever runs this.
    let frozen = MappedMemory::new(config(), &file, MapMode::Private)?;
    let live = MappedMemory::new(config(), &file, MapMode::Shared)?;
    let bytes = frozen
        .direct_map()
        .zip(memflow_core::PhysRange::new(memflow_core::PhysAddr::new(0), len))
        .and_then(|(map, range)| map.slice(range))
        .ok_or("the file is not mapped in one piece")?;
    let gigabytes = len as f64 / 1e9;

    let sum = best(|| {
        let words = bytes.as_chunks::<8>().0.iter();
        std::hint::black_box(words.fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word))));
    });
    let finder = memmem::Finder::new(NEEDLE);
    let bare = best(|| {
        std::hint::black_box(finder.find_iter(bytes).count());
    });
    println!("{:>8.2} MiB, one thread", len as f64 / (1 << 20) as f64);
    println!("{:<44} {:>8} {:>8}", "", "GB/s", "of bare");
    println!("{:<44} {:>8.2}", "sum of all words", gigabytes / sum);
    println!("{:<44} {:>8.2} {:>8.2}", "bare memmem", gigabytes / bare, 1.0);

    let one = |text: &str| text.parse::<Pattern>().map(|pattern| vec![pattern]);
    let mut lists: Vec<(String, Vec<Pattern>)> = Vec::new();
    for len in [4, 8, 16, 32] {
        lists.push((format!("1,000 of {len} bytes, random"), random_patterns(1000, len)));
        for (draw, kind) in [(Draw::Missed, "one byte changed"), (Draw::Found, "of the file")] {
            lists.push((format!("1,000 of {len} bytes, {kind}"), patterns(bytes, draw, 1000, len, len)));
        }
    }
    if let Some(path) = std::env::args_os().nth(2) {
        let text = std::fs::read_to_string(path)?;
        let names: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let some = names.iter().step_by((names.len() / 1000).max(1)).take(1000);
        let texts = some.map(|name| Pattern::text(name, TextEncoding::Utf8, Case::Sensitive));
        lists.push(("1,000 texts of the list".into(), texts.collect::<Result<_, _>>()?));
    }
    let others: Vec<(&str, Vec<Pattern>)> = vec![
        ("one text", one(&format!("text:{NEEDLE}"))?),
        ("8 bytes, one of them any", one("hex:48 8b 05 ?? 4d 91 37 e2")?),
        ("text without case", one("itext:needle-in-a-haystack")?),
        ("8 texts", (0..8).map(|nth| format!("text:{nth}{NEEDLE}").parse()).collect::<Result<_, _>>()?),
        ("1,000 patterns of 8 to 32 bytes", patterns(bytes, Draw::Missed, 1000, 8, 32)),
        ("1,000 patterns of 6 to 16 bytes", patterns(bytes, Draw::Missed, 1000, 6, 16)),
        ("1,000 patterns of 4 to 8 bytes", patterns(bytes, Draw::Missed, 1000, 4, 8)),
        ("regex with a word in it", vec![Pattern::regex(r"needle-[0-9]+", RegexOptions::default())?]),
        ("regex of classes", vec![Pattern::regex(r"[A-Z]{3}-[0-9]{6}", RegexOptions::default())?]),
    ];
    lists.extend(others.into_iter().map(|(name, patterns)| (name.to_owned(), patterns)));
    for (name, patterns) in lists {
        let scanner = Scanner::new(patterns)?;
        println!("{name}: {}", scanner.engines());
        for (kind, memory) in [("frozen", &frozen as &dyn PhysicalMemory), ("live", &live)] {
            let mut hits = 0;
            let seconds = best(|| {
                hits = 0;
                let scanned = scanner.scan().threads(1).physical(memory, &[], &mut |_| {
                    hits += 1;
                    ControlFlow::Continue(())
                });
                assert!(scanned.is_ok_and(|scanned| scanned.is_complete()));
            });
            let label = format!("{name}, {kind}");
            println!("{label:<44} {:>8.2} {:>8.2}   {hits} hits", gigabytes / seconds, bare / seconds);
        }
    }
    Ok(())
}

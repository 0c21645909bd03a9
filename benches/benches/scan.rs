//! Criterion benchmarks of scans of the demo machine's memory, beside the sum of its words, which is as fast as memory gets.
//! `cargo bench -p memflow-benches --bench scan`.
//!
//! Owns: which scans criterion times. Must not know: engines.
//! Keeps: one thread, timed by its processor time; what is known to be zero is neither searched nor counted; every scan is complete.

use std::{hint::black_box, ops::ControlFlow};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;
use memflow_benches::{Image, Result, measure::Clock};
use memflow_core::{
    PhysRange,
    scan::{Case, Pattern, RegexOptions, Scanner, TextEncoding},
};

/// Patterns when there are many, and their lengths.
const MANY: usize = 1000;
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=32;

/// Many patterns that lie in this memory but for one byte: as common as patterns get, and yet hardly ever there.
fn drawn(bytes: &[u8]) -> Result<Vec<Pattern>> {
    let mut random = Rng::with_seed(1);
    let mut patterns = Vec::new();
    let last = bytes.len().checked_sub(*LENGTHS.end()).ok_or("the memory is smaller than a pattern")?;
    while patterns.len() < MANY {
        let (at, len) = (random.usize(..=last), random.usize(LENGTHS));
        let mut pattern = bytes[at..at + len].to_vec();
        // Most of memory is zero, and so would most patterns be.
        if pattern.iter().filter(|byte| **byte == 0).count() * 2 <= len {
            pattern[random.usize(..len)] ^= 0x5a;
            patterns.push(Pattern::bytes(pattern)?);
        }
    }
    Ok(patterns)
}

/// Patterns of each kind that there is an engine for.
fn kinds(bytes: &[u8]) -> Result<Vec<(&'static str, Vec<Pattern>)>> {
    let text = "a needle that nobody has lost";
    Ok(vec![
        ("one pattern", vec![Pattern::bytes(text)?]),
        ("one pattern, any case", vec![Pattern::text(text, TextEncoding::Utf8, Case::Insensitive)?]),
        // The start of many functions on x86-64, and a call that none of them makes.
        ("wildcards", vec![Pattern::hex("55 48 89 e5 ?? ?? e8 ?? ?? ff 5a 0f 0b")?]),
        ("regular expression", vec![Pattern::regex("[A-Z]{3}-[0-9]{6}", RegexOptions::default())?]),
        ("1,000 patterns", drawn(bytes)?),
    ])
}

/// Times by this thread's processor time, which a busy machine disturbs least.
fn timed(bencher: &mut Bencher<'_>, mut work: impl FnMut()) {
    bencher.iter_custom(|times| Clock::Thread.time(|| (0..times).for_each(|_| work())));
}

fn all(criterion: &mut Criterion) -> Result<()> {
    let image = Image::demo()?;
    let map = image.memory.direct_map().ok_or("the image cannot be mapped")?;
    let runs = image.memory.populated_runs();
    let ranges: Vec<PhysRange> = runs.runs().iter().map(|run| run.range).collect();
    let slices = ranges.iter().map(|range| map.slice(*range));
    let slices: Vec<&[u8]> = slices.collect::<Option<_>>().ok_or("the image is not at hand")?;
    let largest = slices.iter().copied().max_by_key(|slice| slice.len()).ok_or("the image is empty")?;
    let mut group = criterion.benchmark_group("scan, one thread");
    group.throughput(Throughput::Bytes(runs.total_bytes())).sample_size(20);
    group.bench_function("sum of all words", |bencher| {
        let words = || slices.iter().flat_map(|slice| slice.as_chunks::<8>().0);
        timed(bencher, || {
            black_box(words().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word))));
        });
    });
    for (name, patterns) in kinds(largest)? {
        let scanner = Scanner::new(patterns)?;
        group.bench_function(name, |bencher| {
            timed(bencher, || {
                let mut hits = 0_u64;
                let scanned = scanner.scan().threads(1).physical(&*image.memory, &ranges, &mut |_| {
                    hits += 1;
                    ControlFlow::Continue(())
                });
                assert!(scanned.is_ok_and(|scanned| scanned.is_complete()), "the image could not be read");
                black_box(hits);
            });
        });
    }
    group.finish();
    Ok(())
}

fn scans(criterion: &mut Criterion) {
    if let Err(error) = all(criterion) {
        panic!("{error}");
    }
}

criterion_group!(benches, scans);
criterion_main!(benches);

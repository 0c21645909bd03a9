//! Reads over a device that takes 100 µs for each call: what calls cost, and what is kept of page tables spares.
//! `cargo bench -p memflow-benches --bench latency`.
//!
//! Owns: the device and its batch: 16,384 reads of 8 bytes at random addresses below five levels of tables.
//! Must not know: how translations are kept.
//! Keeps: calls are counted where they reach the device, and printed beside the times.
#![expect(clippy::print_stdout, reason = "the counts are part of the result")]

use std::{sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memflow_benches::{Generated, Image, Order, Result};
use memflow_core::{
    MemoryView, PhysicalMemory, VirtAddr,
    memory::{CacheConfig, CacheLayer, DelayLayer, LookasideLayer, Metrics, MetricsLayer, ViewRead},
    view::SpaceView,
};

/// What a call of the device takes.
const LATENCY: Duration = Duration::from_micros(100);
const READS: usize = 16_384;

/// The image behind a slow device, and what reached it.
fn device(image: &Image) -> Result<(Arc<dyn PhysicalMemory>, Arc<Metrics>)> {
    let counted = MetricsLayer::new(Arc::new(DelayLayer::new(image.memory.clone(), LATENCY)?));
    let metrics = counted.metrics();
    Ok((Arc::new(counted), metrics))
}

/// Times batches over `memory`, each after `before`, and says how many calls one made.
fn add(
    criterion: &mut Criterion,
    name: &str,
    (memory, metrics): (Arc<dyn PhysicalMemory>, &Metrics),
    image: &Image,
    addresses: &[u64],
    before: &dyn Fn(&dyn PhysicalMemory),
) {
    let view = SpaceView::new(memory.clone(), image.space.clone());
    let mut words = vec![[0; 8]; addresses.len()];
    let mut batch = || {
        before(&*memory);
        let mut ops: Vec<ViewRead<'_>> =
            words.iter_mut().zip(addresses).map(|(word, addr)| ViewRead::new(VirtAddr::new(*addr), word)).collect();
        view.read_batch(&mut ops)
    };
    let mut calls = 0;
    for _ in 0..2 {
        let start = metrics.snapshot();
        if let Err(error) = batch() {
            panic!("{name}: {error}");
        }
        calls = metrics.snapshot().since(&start).reads.calls;
    }
    println!("{name}: {calls} calls of the device for each batch of {READS} reads");
    let mut group = criterion.benchmark_group("100 us each call, 5 levels, 16384 reads of 8 bytes");
    group.throughput(Throughput::Elements(READS as u64)).sample_size(20);
    group.bench_function(name, |bencher| bencher.iter(&mut batch));
}

fn all(criterion: &mut Criterion) -> Result<()> {
    let image = Generated { gib: 16, five_levels: true, mixed: false }.build()?;
    let addresses = image.addresses(Order::Random, READS, 8);
    let (plain, metrics) = device(&image)?;
    add(criterion, "nothing kept", (plain, &metrics), &image, &addresses, &|_| {});

    let (plain, metrics) = device(&image)?;
    let kept = LookasideLayer::over(plain);
    let flush = |memory: &dyn PhysicalMemory| {
        if let Some(lookaside) = memory.lookaside() {
            lookaside.flush();
        }
    };
    add(criterion, "lookaside, cold", (kept.clone(), &metrics), &image, &addresses, &flush);
    add(criterion, "lookaside, warm", (kept, &metrics), &image, &addresses, &|_| {});

    let (plain, metrics) = device(&image)?;
    let cache =
        CacheLayer::new(LookasideLayer::over(plain), CacheConfig { capacity: 1 << 30, ..CacheConfig::default() })?;
    add(criterion, "lookaside and page cache, warm", (Arc::new(cache), &metrics), &image, &addresses, &|_| {});
    Ok(())
}

fn latency(criterion: &mut Criterion) {
    if let Err(error) = all(criterion) {
        panic!("{error}");
    }
}

criterion_group!(benches, latency);
criterion_main!(benches);

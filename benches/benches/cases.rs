//! Criterion benchmarks of the main cases. `cargo bench -p memflow-benches -- plugin` runs those with that word in their names.
//!
//! Owns: which cases criterion times. Must not know: what they do.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memflow_benches::{
    Bare, Generated, Image, Order, Result,
    cases::{self, Case},
    plugins::Plugins,
};

fn add(criterion: &mut Criterion, case: Case<'_>) {
    let mut group = criterion.benchmark_group(case.name.replace('/', " "));
    group.throughput(Throughput::Elements(case.items as u64)).sample_size(20);
    for mut contender in case.contenders {
        let name = contender.name().to_owned();
        group.bench_function(name, |bencher| bencher.iter(|| contender.run()));
    }
}

fn all(criterion: &mut Criterion) -> Result<()> {
    let real = Image::real(memflow_guests::BENCH.name)?;
    let big = Generated { gib: 16, five_levels: false, mixed: false }.build()?;
    for image in [&real, &big] {
        let bare = Bare::new(image)?;
        for order in Order::ALL {
            let checked = bare.check(image.addresses(order, image.working_set, 8), 8)?;
            add(criterion, cases::translate_single(&checked, order));
            add(criterion, cases::translate_batch(&checked, order, 1024));
            add(criterion, cases::read(&checked, order, 1024));
        }
        let pages = bare.check(image.addresses(Order::Random, cases::page_count(), 4096), 4096)?;
        add(criterion, cases::read_pages(&pages, Order::Random, 64));
        add(criterion, cases::map(image)?);
    }
    add(criterion, cases::sequential(&real)?);
    let plugins = Plugins::open(&Image::real_path(memflow_guests::BENCH.name))?;
    let addresses = plugins.linked.addresses(Order::Random, 16384, 8);
    cases::plugins(&plugins, &addresses).into_iter().for_each(|case| add(criterion, case));
    Ok(())
}

fn cases(criterion: &mut Criterion) {
    if let Err(error) = all(criterion) {
        panic!("{error}");
    }
}

criterion_group!(benches, cases);
criterion_main!(benches);

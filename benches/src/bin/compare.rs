//! `compare`: every case, the library beside bare walks and, with the feature `peers`, other projects.
//!
//! Owns: which cases there are in a run, and their report: a table, JSON, a plot. Must not know: what a case does.
//! Keeps: medians over runs of medians over rounds; a ratio is to the best reference of the same rounds.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks on its streams")]

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use comfy_table::{Cell, CellAlignment, Table, presets};
use memflow_benches::{
    Bare, Checked, Error, Generated, Image, Order, Result,
    cases::{self, Case},
    measure,
    plugins::Plugins,
};
use plotters::prelude::*;
use serde::Serialize;

/// The guest of four levels, and that of five.
const GUESTS: [&str; 2] = [memflow_guests::BENCH.name, "amd64-6.12-5level-nopti"];

/// Times every way to do the same in turns, and prints nanoseconds per item and ratios.
#[derive(Parser)]
struct Options {
    /// Only cases whose names hold this text.
    #[arg(long, default_value = "")]
    filter: String,
    /// Every image, size and order, not only the telling ones.
    #[arg(long)]
    all: bool,
    /// How often everything is repeated.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Milliseconds for each case and run, about.
    #[arg(long, default_value_t = 300)]
    budget: u64,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw them to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// How one contender did in one case.
#[derive(Serialize, Clone, Debug)]
struct Row {
    case: String,
    contender: String,
    /// True for what the others are compared with.
    reference: bool,
    /// What one run does.
    items: usize,
    /// Nanoseconds per item, one for each run.
    ns: Vec<f64>,
    /// Time divided by that of the best reference, one for each run.
    ratio: Vec<f64>,
}

/// The figures of all cases.
struct Report<'o> {
    options: &'o Options,
    rows: Vec<Row>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut report = Report { options: &options, rows: Vec::new() };
    for guest in GUESTS.into_iter().take(if options.all { 2 } else { 1 }) {
        real(&mut report, &Image::real(guest)?)?;
    }
    let telling = |image: &Generated| options.all || (image.five_levels == image.mixed);
    for image in Generated::ALL.into_iter().filter(telling) {
        // Making one takes seconds.
        if case_names(&image.name()).any(|name| name.contains(&options.filter)) {
            generated(&mut report, &image.build()?)?;
        }
    }
    if options.filter.is_empty() || "plugin/translate/ plugin/read8/".contains(&options.filter) {
        plugins(&mut report)?;
    }
    if report.rows.is_empty() {
        return Err(format!("no case holds {:?} in its name", options.filter).into());
    }
    println!("{}", table(&report.rows));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&report.rows)? + "\n")?;
    }
    if let Some(path) = &options.svg {
        plot(&report.rows, path)?;
    }
    Ok(())
}

/// The names that cases of a generated image can have.
fn case_names(image: &str) -> impl Iterator<Item = String> {
    let sizes = || std::iter::once("single".to_owned()).chain(cases::BATCHES.map(|batch| batch.to_string()));
    let orders =
        move || Order::ALL.into_iter().flat_map(move |order| sizes().map(move |size| format!("{order}/{size}")));
    let batched = ["translate", "read8"].into_iter().flat_map(move |what| orders().map(move |rest| (what, rest)));
    batched.chain([("map", "pages".to_owned())]).map(move |(what, rest)| format!("{what}/{image}/{rest}"))
}

impl Report<'_> {
    /// Times a case, if it is asked for.
    fn add<'a>(&mut self, name: &str, case: impl FnOnce() -> Result<Case<'a>>) -> Result<()> {
        if !name.contains(&self.options.filter) {
            return Ok(());
        }
        eprintln!("{name}");
        self.time(case()?);
        Ok(())
    }

    fn time(&mut self, mut case: Case<'_>) {
        let budget = Duration::from_millis(self.options.budget);
        let mut rows: Vec<Row> = Vec::new();
        for (index, contender) in case.contenders.iter().enumerate() {
            rows.push(Row {
                case: case.name.clone(),
                contender: contender.name().to_owned(),
                reference: index < case.references,
                items: case.items,
                ns: Vec::new(),
                ratio: Vec::new(),
            });
        }
        for _ in 0..self.options.runs {
            let timings = measure::compare(case.items, budget, &mut case.contenders);
            let best = timings[..case.references].iter().min_by(|one, other| one.ns().total_cmp(&other.ns()));
            let best = best.unwrap_or(&timings[0]);
            for (row, timing) in rows.iter_mut().zip(&timings) {
                row.ns.push(timing.ns());
                row.ratio.push(timing.ratio_to(best));
            }
        }
        self.rows.extend(rows);
    }
}

/// Addresses of an image, checked for bare walks.
fn checked<'a>(bare: Bare<'a>, order: Order, count: usize, span: usize) -> Result<Checked<'a>> {
    Ok(bare.check(bare.image().addresses(order, count, span as u64), span)?)
}

fn real(report: &mut Report<'_>, image: &Image) -> Result<()> {
    let bare = Bare::new(image)?;
    let name = &image.name;
    for order in Order::ALL {
        let few = checked(bare, order, image.working_set, 8)?;
        let many = checked(bare, order, 1 << 20, 8)?;
        let order = &order.to_string();
        let telling = |batch: usize| report_all(order, batch);
        let single = format!("translate/{name}/{order}/single");
        report.add(&single, || Ok(cases::translate_single(&few, order)))?;
        for batch in cases::BATCHES.into_iter().filter(|batch| report.options.all || telling(*batch)) {
            let set = if batch > few.addresses().len() { &many } else { &few };
            let full = format!("translate/{name}/{order}/{batch}");
            report.add(&full, || Ok(cases::translate_batch(set, order, batch)))?;
        }
        report.add(&format!("read8/{name}/{order}/single"), || Ok(cases::read(&few, order, 0)))?;
        for batch in cases::BATCHES.into_iter().filter(|batch| report.options.all || telling(*batch)) {
            let set = if batch > few.addresses().len() { &many } else { &few };
            report.add(&format!("read8/{name}/{order}/{batch}"), || Ok(cases::read(set, order, batch)))?;
        }
    }
    for batch in [1, 64, 1024] {
        let pages = checked(bare, Order::Random, cases::page_count(), 4096)?;
        report.add(&format!("read4096/{name}/random/{batch}"), || Ok(cases::read_pages(&pages, "random", batch)))?;
    }
    report.add(&format!("sequential/{name}"), || cases::sequential(image))?;
    report.add(&format!("map/{name}"), || cases::map(image))?;
    let many = checked(bare, Order::Random, 1 << 20, 8)?;
    report.add(&format!("threads/{name}/bare"), || Ok(cases::bare_threads(&many)))?;
    report.add(&format!("threads/{name}/2"), || Ok(cases::threads(&many)))
}

/// Sizes and orders that say most.
fn report_all(order: &str, batch: usize) -> bool {
    order == "random" || [16, 16384].contains(&batch)
}

fn generated(report: &mut Report<'_>, image: &Image) -> Result<()> {
    let bare = Bare::new(image)?;
    let name = &image.name;
    for order in Order::ALL {
        let set = checked(bare, order, image.working_set, 8)?;
        let order = &order.to_string();
        let batches = [16, 1024, 1 << 20];
        let batches: Vec<usize> = cases::BATCHES
            .into_iter()
            .filter(|batch| report.options.all || (batches.contains(batch) && (order == "random" || *batch == 1024)))
            .collect();
        if order == "random" || report.options.all {
            let single = format!("translate/{name}/{order}/single");
            report.add(&single, || Ok(cases::translate_single(&set, order)))?;
        }
        for batch in &batches {
            let full = format!("translate/{name}/{order}/{batch}");
            report.add(&full, || Ok(cases::translate_batch(&set, order, *batch)))?;
        }
        if order == "random" || report.options.all {
            for batch in batches {
                report.add(&format!("read8/{name}/{order}/{batch}"), || Ok(cases::read(&set, order, batch)))?;
            }
        }
    }
    // More pages than that are more runs than the default budget of a map.
    if image.count_pages().is_some_and(|pages| pages < 1 << 24) {
        report.add(&format!("map/{name}"), || cases::map(image))?;
    }
    Ok(())
}

fn plugins(report: &mut Report<'_>) -> Result<()> {
    let plugins = Plugins::open(&Image::real_path(GUESTS[0]))?;
    let addresses = plugins.linked.addresses(Order::Random, 16384, 8);
    for case in cases::plugins(&plugins, &addresses) {
        if case.name.contains(&report.options.filter) {
            eprintln!("{}", case.name);
            report.time(case);
        }
    }
    for batch in [1, 64, 16384] {
        let calls = plugins.calls(batch)?;
        println!(
            "a loaded connector without a direct map is called {} times to translate a batch of {batch}, {} times to read it",
            calls.translate, calls.read
        );
    }
    Ok(())
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CASE", "CONTENDER", "NS", "RATIO", "RATIOS OF RUNS"]);
    let mut last = "";
    for row in rows {
        let case = if row.case == last { "" } else { &row.case };
        last = &row.case;
        let ratios: Vec<String> = row.ratio.iter().map(|ratio| format!("{ratio:.2}")).collect();
        table.add_row([
            Cell::new(case),
            Cell::new(&row.contender),
            Cell::new(format!("{:.2}", measure::median(row.ns.clone()))).set_alignment(CellAlignment::Right),
            Cell::new(format!("{:.2}", measure::median(row.ratio.clone()))).set_alignment(CellAlignment::Right),
            Cell::new(ratios.join(" ")),
        ]);
    }
    table
}

/// One line for each case, one mark for each contender, nanoseconds per item on a logarithmic scale.
fn plot(rows: &[Row], path: &std::path::Path) -> Result<()> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.case.as_str()).collect();
    names.dedup();
    let mut contenders: Vec<&str> = Vec::new();
    for row in rows {
        if !contenders.contains(&row.contender.as_str()) {
            contenders.push(&row.contender);
        }
    }
    let drawing = |error: &dyn std::fmt::Display| -> Error { format!("{}: {error}", path.display()).into() };
    let height = 140 + 18 * names.len() as u32;
    let root = SVGBackend::new(path, (1200, height)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| drawing(&error))?;
    let ns = |row: &Row| measure::median(row.ns.clone()).max(0.01);
    let (low, high) = rows.iter().map(ns).fold((f64::MAX, 0.0_f64), |(low, high), ns| (low.min(ns), high.max(ns)));
    let lines = -1.0..names.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption("nanoseconds per item, less is better", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(330)
        .build_cartesian_2d((low / 1.5..high * 1.5).log_scale(), lines)
        .map_err(|error| drawing(&error))?;
    let label = |line: &f64| {
        let index = names.len() as f64 - 1.0 - line;
        let whole = index.fract().abs() < 1e-6 && index >= 0.0;
        if whole { names.get(index as usize).copied().unwrap_or_default().to_owned() } else { String::new() }
    };
    chart
        .configure_mesh()
        .y_labels(names.len() + 2)
        .y_label_formatter(&label)
        .x_label_formatter(&|ns| format!("{ns:.1}"))
        .disable_y_mesh()
        .draw()
        .map_err(|error| drawing(&error))?;
    for (number, contender) in contenders.iter().enumerate() {
        let colour = Palette99::pick(number).to_rgba();
        let marks = rows.iter().filter(|row| row.contender == *contender).filter_map(|row| {
            let line = names.len() as f64 - 1.0 - names.iter().position(|name| *name == row.case)? as f64;
            Some(Circle::new((ns(row), line), 4, colour.filled()))
        });
        chart
            .draw_series(marks)
            .map_err(|error| drawing(&error))?
            .label(*contender)
            .legend(move |at| Circle::new(at, 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .position(SeriesLabelPosition::LowerRight)
        .draw()
        .map_err(|error| drawing(&error))?;
    root.present().map_err(|error| drawing(&error))
}

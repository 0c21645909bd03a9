//! `compare`: every case, the library beside bare walks and, with the feature `peers`, other projects.
//!
//! Owns: which cases there are in a run, and runs in fresh processes. Must not know: what a case does, how figures look.
//! Keeps: an image is made only when a case needs it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks on its streams")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use clap::Parser;
use memflow_benches::{
    Bare, Checked, Generated, Image, Order, Result, WindowsImage,
    cases::{self, Calls, Case},
    measure, plot,
    plugins::{self, Plugins},
    report::{self, Figure, Role, Row},
    tools::{self, Tools},
};

/// The guest of benchmarks, and one of five levels.
const GUESTS: [&str; 2] = [memflow_guests::BENCH.name, "amd64-6.12-5level-nopti"];
/// Where the plot goes.
const PLOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/compare.svg");
/// Addresses of the largest batch.
const MOST: usize = 1 << 20;
/// Pages that two threads read: long beside starting a thread.
const THREAD_PAGES: usize = 1 << 14;

/// Times every way to do the same in turns, and prints nanoseconds per item and ratios.
#[derive(Parser)]
struct Options {
    /// Only cases whose names hold this text.
    #[arg(long, default_value = "")]
    filter: String,
    /// Every image with every size and order, which takes half an hour.
    #[arg(long)]
    all: bool,
    /// How often everything is repeated, each time in a fresh process; the table then has medians and the spread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Milliseconds for each case, about.
    #[arg(long, default_value_t = 160)]
    budget: u64,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw them to this file.
    #[arg(long, value_name = "FILE", default_value = PLOT)]
    svg: PathBuf,
    /// The Python that has `memprocfs` and `volatility3`: that of `target/peers`, or `python3`, if not given.
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// One run, whose rows go to this file.
    #[arg(long, value_name = "FILE", hide = true)]
    rows: Option<PathBuf>,
}

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<()> {
    let rows = if options.runs > 1 { runs(options)? } else { run(options)? };
    if rows.is_empty() {
        return Err(format!("no case holds {:?} in its name", options.filter).into());
    }
    if let Some(path) = &options.rows {
        return Ok(fs::write(path, serde_json::to_string(&rows)?)?);
    }
    println!("{}", report::table(&rows));
    report::summary(&rows).iter().for_each(|line| println!("{line}"));
    if let Some(path) = &options.json {
        fs::write(path, report::json(&rows)?)?;
    }
    if let Some(folder) = options.svg.parent() {
        fs::create_dir_all(folder)?;
    }
    plot::plot(&rows, &options.svg)
}

/// Several runs, each by a process of its own.
fn runs(options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let path = std::env::temp_dir().join(format!("memflow-compare-{}", std::process::id()));
    for number in 1..=options.runs {
        eprintln!("run {number} of {}", options.runs);
        let mut run = Command::new(std::env::current_exe()?);
        run.args(["--filter", &options.filter, "--budget", &options.budget.to_string()]).arg("--rows").arg(&path);
        run.args(options.all.then_some("--all"));
        if let Some(python) = &options.python {
            run.arg("--python").arg(python);
        }
        let status = run.status()?;
        if !status.success() {
            return Err(format!("run {number}: {status}").into());
        }
        report::join(&mut rows, serde_json::from_str(&fs::read_to_string(&path)?)?)?;
        fs::remove_file(&path)?;
    }
    Ok(rows)
}

/// One run in this process.
fn run(options: &Options) -> Result<Vec<Row>> {
    let _own = measure::keep_to_this_thread()?;
    let mut run = Run { options, rows: Vec::new() };
    for (number, guest) in GUESTS.into_iter().enumerate() {
        // Without the guest of benchmarks the demo machine stands in, which is no second image.
        if number == 0 || memflow_guests::Guests::locate().and_then(|guests| guests.captured(guest)).is_ok() {
            run.real(&Image::real(guest)?, number == 0)?;
        }
    }
    for image in Generated::ALL {
        let (name, whole) = (image.name(), !image.mixed);
        if run.wants_some(&name, whole) {
            run.generated(&image.build()?, whole)?;
        }
    }
    run.calls()?;
    run.command_on_windows()?;
    // As below.
    if let Err(error) = run.command() {
        eprintln!("no cases with the command: {error}");
    }
    // The other figures are not lost when cargo cannot build plugins.
    if let Err(error) = run.plugins() {
        eprintln!("no cases with plugins: {error}");
    }
    Ok(run.rows)
}

/// A run and what it has so far.
struct Run<'o> {
    options: &'o Options,
    rows: Vec<Row>,
}

/// What is done at addresses.
const WHAT: [&str; 4] = ["translate", "operations", "values8", "read8"];

/// Every way in which addresses are batched; 0 stands for one by one.
fn sizes() -> impl Iterator<Item = usize> {
    [0].into_iter().chain(cases::BATCHES)
}

fn size_name(size: usize) -> String {
    if size == 0 { "single".to_owned() } else { size.to_string() }
}

/// Sizes of a generated image in an order: all of random ones of base pages, else those that say most.
fn telling(what: &str, order: Order, size: usize, whole: bool) -> bool {
    match (what, order) {
        ("translate", Order::Random) => whole || [0, 1024, MOST].contains(&size),
        ("translate", _) => size == 1024 || (whole && size == 16),
        ("operations", order) => size == 1024 && order == Order::Random,
        ("read8", Order::Random) => size == 1024,
        ("read8", _) => false,
        (_, Order::Random) => size == 1024 || (whole && [16, MOST].contains(&size)),
        _ => false,
    }
}

impl Run<'_> {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.options.filter)
    }

    /// True when there may be a case of a generated image.
    fn wants_some(&self, image: &str, whole: bool) -> bool {
        let chosen = |what: &'static str| {
            let orders = Order::ALL.into_iter();
            orders.flat_map(move |order| sizes().map(move |size| (what, order, size)))
        };
        let mut batched = WHAT.into_iter().flat_map(chosen);
        batched.any(|(what, order, size)| {
            (self.options.all || telling(what, order, size, whole))
                && self.wants(&format!("{what}/{image}/{order}/{}", size_name(size)))
        }) || self.wants(&format!("map/{image}/"))
    }

    /// Takes a case, if it is asked for.
    fn add<'a>(&mut self, name: &str, case: impl FnOnce() -> Result<Case<'a>>) -> Result<()> {
        if self.wants(name) {
            eprintln!("{name}");
            self.rows.push(Row::take(case()?, Duration::from_millis(self.options.budget)));
        }
        Ok(())
    }

    /// Translation or reads of eight bytes.
    fn batched(&mut self, what: &str, set: &Checked<'_>, order: Order, size: usize) -> Result<()> {
        let name = format!("{what}/{}/{order}/{}", set.image().name, size_name(size));
        if (what, size) == ("values8", 0) {
            // One value by itself is a read.
            return Ok(());
        }
        self.add(&name, || {
            Ok(match (what, size) {
                ("translate", 0) => cases::translate_single(set, order),
                ("translate", _) => cases::translate_batch(set, order, size),
                ("operations", 0) => cases::translate_fully(set, order),
                ("operations", _) => cases::translate_operations(set, order, size),
                ("values8", _) => cases::read_values(set, order, size),
                _ => cases::read(set, order, size),
            })
        })
    }

    /// Everything for the image of benchmarks; a few sizes for another one.
    fn real(&mut self, image: &Image, whole: bool) -> Result<()> {
        let bare = Bare::new(image)?;
        let name = &image.name;
        for order in Order::ALL {
            let few = checked(bare, order, image.working_set, 8)?;
            let many = checked(bare, order, MOST, 8)?;
            for what in WHAT {
                for size in sizes() {
                    let telling = whole || (telling(what, order, size, false));
                    if self.options.all || telling {
                        self.batched(what, if size > few.addresses().len() { &many } else { &few }, order, size)?;
                    }
                }
            }
        }
        self.add(&format!("map/{name}/"), || cases::map(image))?;
        if !whole {
            return Ok(());
        }
        for batch in [1, 16, 64, 1024] {
            let pages = checked(bare, Order::Random, cases::page_count(), 4096)?;
            let case = format!("read4096/{name}/random/{batch}");
            self.add(&case, || Ok(cases::read_pages(&pages, Order::Random, batch)))?;
        }
        self.add(&format!("sequential/{name}/"), || cases::sequential(image))?;
        self.add(&format!("sequential/{name}/2 threads"), || cases::sequential_by_threads(image))?;
        for len in cases::COPIES {
            self.add(&format!("copies/{name}/{}MiB", len >> 20), || cases::copies(image, len))?;
        }
        let many = checked(bare, Order::Random, MOST, 8)?;
        self.add(&format!("threads/{name}/translate/1024"), || Ok(cases::translate_by_threads(&many, 1024)))?;
        let pages = checked(bare, Order::Random, THREAD_PAGES, 4096)?;
        self.add(&format!("threads/{name}/read4096/64"), || Ok(cases::read_pages_by_threads(&pages, 64)))?;
        self.add(&format!("scan/{name}/1 pattern"), || cases::scan(image, 1))?;
        self.add(&format!("scan/{name}/1000 patterns"), || cases::scan(image, 1000))?;
        self.tools(image, bare)
    }

    /// The list of processes, and tools in Python beside it and beside translation and reads one by one.
    fn tools(&mut self, image: &Image, bare: Bare<'_>) -> Result<()> {
        let path = Image::real_path(GUESTS[0]);
        let listing = format!("processes/{}", image.name);
        let mut count = 0;
        self.add(&listing, || {
            let (case, processes) = cases::processes(&path, &image.name)?;
            count = processes;
            Ok(case)
        })?;
        let single = |what| format!("{what}/{}/random/single", image.name);
        let [translate, read8] = [single("translate"), single("read8")];
        if path.extension().is_none_or(|extension| extension != "img")
            || ![&listing, &translate, &read8].into_iter().any(|name| self.wants(name))
        {
            return Ok(());
        }
        let few = checked(bare, Order::Random, image.working_set, 8)?;
        for (name, asked) in Tools::new(self.options.python.as_deref(), path).ask(&few, count)? {
            match asked {
                Ok(figures) => {
                    self.join(&translate, figures.translate);
                    self.join(&read8, figures.read8);
                    self.join(&listing, figures.processes);
                }
                Err(why) => eprintln!("{name} does not take part: {why}; to install: {}", tools::INSTALL),
            }
        }
        Ok(())
    }

    /// Adds the figure of a tool to a row.
    fn join(&mut self, case: &str, mut figure: Figure) {
        let Some(row) = self.rows.iter_mut().find(|row| row.case == case) else { return };
        let ours = row.ours().map_or(f64::NAN, Figure::median);
        figure.role = Role::Peer;
        figure.ratio = figure.ns.iter().map(|ns| ns / ours).collect();
        row.figures.push(figure);
    }

    fn generated(&mut self, image: &Image, whole: bool) -> Result<()> {
        let bare = Bare::new(image)?;
        for order in Order::ALL {
            let set = checked(bare, order, image.working_set, 8)?;
            for what in WHAT {
                for size in sizes() {
                    if self.options.all || telling(what, order, size, whole) {
                        self.batched(what, &set, order, size)?;
                    }
                }
            }
        }
        // More pages than that are more than memory has room for when all are listed.
        if image.count_pages().is_some_and(|pages| pages < 1 << 23) {
            self.add(&format!("map/{}/", image.name), || cases::map(image))?;
        }
        Ok(())
    }

    /// The whole command on a Windows of 2 GiB that is made here, with what is known of its build and without.
    fn command_on_windows(&mut self) -> Result<()> {
        let name = |kind: &str| format!("ps/{}MiB{kind}/cold", WindowsImage::MIB);
        for (kind, known) in [("-windows", true), ("-windows-unknown", false)] {
            if self.wants(&name(kind)) {
                let image = WindowsImage::new(known)?;
                let program = plugins::program()?;
                self.add(&name(kind), || cases::command(&program, image.path(), kind, false))?;
            }
        }
        Ok(())
    }

    /// The whole command on the guest of 2 GiB.
    fn command(&mut self) -> Result<()> {
        let states = [("cold", false), ("warm", true)];
        let name = |state: &str| format!("ps/{}MiB/{state}", memflow_guests::TIMED.memory_mib);
        if !states.iter().any(|(state, _)| self.wants(&name(state))) {
            return Ok(());
        }
        let guest = memflow_guests::Guests::locate()?.captured(memflow_guests::TIMED.name)?;
        let program = plugins::program()?;
        for (state, warm) in states {
            self.add(&name(state), || cases::command(&program, &guest.ram(), "", warm))?;
        }
        Ok(())
    }

    /// Calls of memory that has to be called.
    fn calls(&mut self) -> Result<()> {
        let image = Generated { gib: 2, five_levels: true, mixed: false };
        let name = |state: &str| format!("calls/{}/{state}/16384", image.name());
        let own = |state: &str| format!("called/{}/{state}/16384", image.name());
        if !["cold", "warm"].into_iter().any(|state| self.wants(&name(state)) || self.wants(&own(state))) {
            return Ok(());
        }
        let built = image.build()?;
        for (state, cold) in [("cold", true), ("warm", false)] {
            self.add(&own(state), || cases::called(&built, 16384, cold))?;
        }
        let calls = Calls::count(&built, 16384)?;
        for (state, count) in [("cold", calls.cold), ("warm", calls.warm)] {
            let ours = Figure { ns: vec![count as f64], ratio: vec![1.0], ..Figure::new(cases::OURS, Role::Ours) };
            let row = Row { case: name(state), per: "calls".to_owned(), items: calls.addresses, figures: vec![ours] };
            self.rows.push(row);
        }
        Ok(())
    }

    fn plugins(&mut self) -> Result<()> {
        let filter = &self.options.filter;
        if !filter.is_empty() && !["plugin/translate/", "plugin/read8/"].iter().any(|name| name.contains(filter)) {
            return Ok(());
        }
        let plugins = Plugins::open(&Image::real_path(GUESTS[0]))?;
        let addresses = plugins.linked.addresses(Order::Random, 16384, 8);
        for case in cases::plugins(&plugins, &addresses) {
            let name = case.name.clone();
            self.add(&name, || Ok(case))?;
        }
        Ok(())
    }
}

/// Addresses of an image, checked for bare walks.
fn checked<'a>(bare: Bare<'a>, order: Order, count: usize, span: usize) -> Result<Checked<'a>> {
    Ok(bare.check(bare.image().addresses(order, count, span as u64), span)?)
}

//! `instructions`: how many instructions the main cases take, counted by valgrind, so that lost speed shows on any machine.
//!
//! Owns: the cases that are counted, the file of counts, and the margin. Must not know: what a case does.
//! Keeps: what is counted is one run of a contender that ran once before; setting up does not count.
#![expect(clippy::print_stdout, reason = "a command-line tool talks on its streams")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Parser;
use memflow_benches::{
    Bare, Generated, Order, Result,
    cases::{self, Case, OURS},
    measure::Contender,
};

/// The recorded counts.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");
/// A count may be so much above the recorded one, in percent; below it, it is better than recorded.
const MARGIN: f64 = 5.0;
/// Where valgrind counts, and after which it writes what it counted: [`counted`]. Its patterns do not work for the latter.
const COUNTED: &str = "instructions::counted";

/// Counts instructions per item with valgrind, and compares them with `benches/instructions.json`.
#[derive(Parser)]
struct Options {
    /// Record what is counted.
    #[arg(long)]
    update: bool,
    /// Run each case twice, for valgrind.
    #[arg(long, hide = true)]
    run: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.run {
        return every_case(&mut |_, contender| {
            contender.run();
            counted(contender);
        });
    }
    let counts = count()?;
    if options.update {
        fs::write(RECORD, serde_json::to_string_pretty(&counts)? + "\n")?;
        println!("{} counts written to {RECORD}", counts.len());
        return Ok(());
    }
    let recorded: BTreeMap<String, f64> = serde_json::from_str(&fs::read_to_string(RECORD)?)?;
    let mut worse = Vec::new();
    let mut better = false;
    for (name, count) in &counts {
        let before = recorded.get(name).copied();
        let change = before.map(|before| (count / before - 1.0) * 100.0);
        let words = match change {
            None => "not recorded".to_owned(),
            Some(change) => format!("{change:+.1} %"),
        };
        println!("{name:<48} {count:>10.1} instructions per item  {words}");
        better |= change.is_some_and(|change| change < -MARGIN);
        if change.is_none_or(|change| change > MARGIN) {
            worse.push(name.as_str());
        }
    }
    worse.extend(recorded.keys().filter(|name| !counts.contains_key(*name)).map(String::as_str));
    if worse.is_empty() {
        if better {
            println!("faster than recorded; to keep it so: cargo xtask bench --instructions --update");
        }
        return Ok(());
    }
    let names = worse.join(", ");
    Err(format!(
        "{names}: more than {MARGIN} % above benches/instructions.json, or not in both; record them if that is meant: cargo xtask bench --instructions --update"
    )
    .into())
}

/// Calls `each` for every case's name and our contender in it, always in the same order.
fn every_case(each: &mut dyn FnMut(&Case<'_>, &mut Contender<'_>)) -> Result<()> {
    let mut ours = |mut case: Case<'_>| {
        let at = case.contenders.iter().position(|contender| contender.name() == OURS);
        if let Some(at) = at {
            let mut contender = case.contenders.swap_remove(at);
            each(&case, &mut contender);
        }
    };
    for five_levels in [false, true] {
        let image = Generated { gib: 2, five_levels, mixed: false }.build()?;
        let bare = Bare::new(&image)?;
        for order in [Order::Random, Order::Clustered] {
            let checked = bare.check(image.addresses(order, 4096, 8), 8)?;
            let order = &order.to_string();
            ours(cases::translate_single(&checked, order));
            for batch in [16, 1024] {
                ours(cases::translate_batch(&checked, order, batch));
                ours(cases::read(&checked, order, batch));
            }
            ours(cases::read(&checked, order, 0));
        }
        let pages = bare.check(image.addresses(Order::Random, 256, 4096), 4096)?;
        ours(cases::read_pages(&pages, "random", 64));
        ours(cases::map(&image)?);
    }
    Ok(())
}

/// Runs what is counted.
#[inline(never)]
fn counted(contender: &mut Contender<'_>) {
    contender.run();
}

/// Runs this program under valgrind and reads its counts.
fn count() -> Result<BTreeMap<String, f64>> {
    let folder = std::env::temp_dir().join(format!("memflow-instructions-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let counts = count_in(&folder);
    fs::remove_dir_all(&folder)?;
    counts
}

fn count_in(folder: &Path) -> Result<BTreeMap<String, f64>> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["-q", "--tool=callgrind", "--collect-atstart=no"]);
    valgrind.arg(format!("--toggle-collect={COUNTED}")).arg(format!("--dump-after={COUNTED}"));
    valgrind.arg(format!("--callgrind-out-file={}", folder.join("out").display()));
    valgrind.arg(std::env::current_exe()?).arg("--run");
    let status = valgrind.status().map_err(|error| format!("valgrind: {error}; apt-get install valgrind"))?;
    if !status.success() {
        return Err(format!("valgrind: {status}").into());
    }
    let mut names = Vec::new();
    every_case(&mut |case, _| names.push((case.name.clone(), case.items)))?;
    let mut counts = BTreeMap::new();
    for (number, (name, items)) in (1..).zip(names) {
        let total = total(&folder.join(format!("out.{number}")))?;
        counts.insert(name, (total as f64 / items as f64 * 10.0).round() / 10.0);
    }
    Ok(counts)
}

/// The sum that callgrind wrote at the end of a file.
fn total(path: &PathBuf) -> Result<u64> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("valgrind counted nothing")?.trim().parse()?)
}

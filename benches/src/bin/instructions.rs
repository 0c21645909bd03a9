//! `instructions`: how many instructions the main cases take, counted by valgrind, so that lost speed shows on any machine.
//!
//! Owns: the cases that are counted, the file of counts, and the margin. Must not know: what a case does.
//! Keeps: what is counted is one run of a contender that ran once before; setting up does not count.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks on its streams")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use memflow_benches::{
    Bare, Generated, Order, Result,
    cases::{self, Case, OURS},
    measure::Contender,
};

/// The recorded counts.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");
/// A count may be so much above the recorded one, in percent; below it, it is better than recorded.
const MARGIN: f64 = 5.0;
/// How to put counts on record.
const UPDATE: &str = "cargo xtask bench --instructions --update";
/// Where valgrind counts, and after which it writes what it counted: [`counted`]. Its patterns do not work for the latter.
const COUNTED: &str = "instructions::counted";

const USAGE: &str = "usage: instructions [--update]: counts instructions per item with valgrind, and compares them with \
                     benches/instructions.json; --update records them there";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let update = match args.as_slice() {
        [] => false,
        [one] if one == "--update" => true,
        // What valgrind is given: every case twice.
        [one] if one == "--run" => {
            return every_case(&mut |_, contender| {
                contender.run();
                counted(contender);
            });
        }
        _ => return Err(USAGE.into()),
    };
    let counts = count()?;
    if update {
        fs::write(RECORD, serde_json::to_string_pretty(&counts)? + "\n")?;
        println!("{} counts written to {RECORD}", counts.len());
        return Ok(());
    }
    let recorded: BTreeMap<String, f64> = serde_json::from_str(&fs::read_to_string(RECORD)?)?;
    let compared = compare(&counts, &recorded);
    compared.lines.iter().for_each(|line| println!("{line}"));
    if compared.worse.is_empty() {
        return Ok(());
    }
    Err(format!(
        "slower than on record\n  {}\nmore than {MARGIN} % above benches/instructions.json, or not in both; to accept that: {UPDATE}",
        compared.worse.join("\n  ")
    )
    .into())
}

/// Counts beside those on record.
#[derive(PartialEq, Eq, Default, Debug)]
struct Compared {
    /// One for each case that moved by more than the margin, and how many there are.
    lines: Vec<String>,
    /// What is worse, with both counts.
    worse: Vec<String>,
}

fn compare(counts: &BTreeMap<String, f64>, recorded: &BTreeMap<String, f64>) -> Compared {
    let mut compared = Compared::default();
    let mut better = false;
    for (name, count) in counts {
        let Some(before) = recorded.get(name) else {
            compared.worse.push(format!("{name}: {count} instructions per item, none on record"));
            continue;
        };
        let change = (count / before - 1.0) * 100.0;
        let words = format!("{name}: {before} instructions per item on record, {count} now ({change:+.1} %)");
        if change > MARGIN {
            compared.worse.push(words);
        } else if change < -MARGIN {
            better = true;
            compared.lines.push(words);
        }
    }
    let gone = recorded.iter().filter(|(name, _)| !counts.contains_key(*name));
    compared.worse.extend(gone.map(|(name, before)| format!("{name}: {before} on record, not counted any more")));
    if better {
        compared.lines.push(format!("faster than recorded; to keep it so: {UPDATE}"));
    }
    compared.lines.push(format!(
        "{} shapes counted, {} above the margin of {MARGIN} %",
        counts.len(),
        compared.worse.len()
    ));
    compared
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
            ours(cases::translate_single(&checked, order));
            ours(cases::translate_fully(&checked, order));
            for batch in [16, 1024] {
                ours(cases::translate_batch(&checked, order, batch));
                ours(cases::translate_operations(&checked, order, batch));
                ours(cases::read_values(&checked, order, batch));
                ours(cases::read(&checked, order, batch));
            }
            ours(cases::read(&checked, order, 0));
        }
        let pages = bare.check(image.addresses(Order::Random, 256, 4096), 4096)?;
        ours(cases::read_pages(&pages, Order::Random, 64));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn shape_above_the_margin_is_named_with_both_counts() {
        let recorded = counts(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("gone", 7.0)]);
        let compared = compare(&counts(&[("a", 104.9), ("b", 106.0), ("c", 90.0), ("new", 1.0)]), &recorded);
        let worse = [
            "b: 100 instructions per item on record, 106 now (+6.0 %)",
            "new: 1 instructions per item, none on record",
            "gone: 7 on record, not counted any more",
        ];
        assert_eq!(compared.worse, worse);
        assert_eq!(compared.lines[0], "c: 100 instructions per item on record, 90 now (-10.0 %)");
        assert!(compared.lines[1].ends_with("--instructions --update"));
        assert_eq!(compared.lines[2], "4 shapes counted, 3 above the margin of 5 %");
        assert_eq!(compare(&recorded, &recorded).worse, Vec::<String>::new());
    }
}

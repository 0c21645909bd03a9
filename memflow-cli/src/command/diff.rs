//! `memflow diff`: which memory of two targets differs, and whose it is.
//!
//! Owns: the arguments, and the forms of the answer. Must not know: how memory is compared, how owners are found.
//! Keeps: what one of the two lacks or cannot give is told as that and never counted as equal.

mod compare;
mod owners;

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use memflow_core::{PhysAddr, PhysRange, memory::Liveness};
use serde::Serialize;

use self::{
    compare::{Compared, Difference, Kind, compare},
    owners::{Identity, Owner, Owners, attribute, whose},
};
use crate::{
    failure::{Failure, Outcome, Status},
    interrupt,
    output::{Align, Hex, Io, Table, escape, plural, size},
    sweep::{PAGE, Swept},
    target::{Target, TargetArgs},
};

/// Most runs that a table shows.
const SHOWN_RUNS: usize = 32;
/// Most processes that a line of `--pages` names.
const SHOWN_OWNERS: usize = 4;

/// Arguments of `memflow diff`.
#[derive(Args, Debug)]
#[command(after_help = "\
TARGET is A, OTHER is B: two snapshots of one machine, or a snapshot and the machine itself. --layout, --partial, -c and -o hold for \
both; what is for one of them only is said as CONNECTOR:TARGET:KEY=VALUE,….

Memory is compared page by page, at the same physical address. A page counts for every process that maps it in A or in B; what no \
process maps is the kernel's own, a cache, or free. A process is the same in both if it has the same id and was started at the same time. \
Without an operating system that is recognised in both, only runs of memory are told, and the exit code is 1; --no-processes asks for \
no more than that.

What only one of the two has, was left out when one was written, or cannot be read, is told as that and is not equal. Memory that can \
be read in neither, or only in one though both should have it, makes the exit code 1; differences do not. After Ctrl-C, what was \
compared until then is told.

JSON: {\"a\", \"b\", \"ended\": complete or interrupted, \"bytes\": {compared, equal, changed, only_a, left_out_of_b, only_b, left_out_of_a, \
unreadable_in_a, unreadable_in_b, unreadable_in_both}, \"changed_pages\", \"runs\": [{start, size, differences: [{kind, size}]}], \
\"processes\": [{pid, name, in: both, a or b, changed_pages}] or null, \"unmapped_changed_pages\", \"pages\": [{start, size, kind, pids}] \
with --pages, \"problems\"}.")]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The target to compare with
    other: PathBuf,
    /// Also list the memory that differs, by address
    #[arg(long)]
    pages: bool,
    /// Do not look for processes
    #[arg(long)]
    no_processes: bool,
}

#[derive(Serialize)]
struct Document {
    a: String,
    b: String,
    ended: &'static str,
    bytes: BTreeMap<&'static str, u64>,
    changed_pages: u64,
    runs: Vec<RunRecord>,
    processes: Option<Vec<ProcessRecord>>,
    unmapped_changed_pages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<Vec<PageRecord>>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct RunRecord {
    start: Hex,
    size: u64,
    differences: Vec<KindRecord>,
}

#[derive(Serialize)]
struct KindRecord {
    kind: &'static str,
    size: u64,
    #[serde(skip)]
    words: &'static str,
}

#[derive(Serialize)]
struct ProcessRecord {
    pid: u32,
    name: String,
    r#in: &'static str,
    changed_pages: u64,
}

#[derive(Serialize)]
struct PageRecord {
    start: Hex,
    size: u64,
    kind: &'static str,
    pids: Option<Vec<u32>>,
    #[serde(skip)]
    words: &'static str,
}

/// Opens both targets and compares them.
pub(crate) fn run(args: &DiffArgs, io: &mut Io<'_>) -> Outcome {
    let mut a = Target::open(&args.target, io)?;
    let mut b = Target::open(&args.target.of(&args.other), io)?;
    let mut problems = Vec::new();
    let owners = if args.no_processes {
        a.settle(io)?;
        b.settle(io)?;
        None
    } else {
        let owners = owners_of(&mut a, "A", &mut problems, io)?;
        owners.zip(owners_of(&mut b, "B", &mut problems, io)?)
    };
    for (target, letter) in [(&a, 'A'), (&b, 'B')] {
        // Of a file nobody knows whether a machine runs in it.
        if target.memory().metadata().liveness == Liveness::Live && target.path().is_none() {
            io.warn(format_args!("{letter} runs while it is compared: what changes meanwhile is a difference"));
        }
    }
    let compared = {
        let _results = interrupt::Unfinished::results();
        compare(&**a.memory(), &**b.memory(), io.quiet())
    };
    problems.extend(unreadable(&compared));
    if let Some((a, b)) = &owners {
        problems.extend(a.problems.iter().map(|problem| format!("A: {problem}")));
        problems.extend(b.problems.iter().map(|problem| format!("B: {problem}")));
    }
    if compared.swept == Swept::Interrupted {
        problems.push(format!("interrupted after {}; what was compared until then is told", size(compared.looked_at)));
    }
    let document = document(args, (a.name(), b.name()), &compared, owners.as_ref(), problems);
    for problem in &document.problems {
        io.warn(problem);
    }
    if io.json {
        io.document(&document)?;
    } else {
        print(&document, io)?;
    }
    match (compared.swept, document.problems.is_empty()) {
        (Swept::Interrupted, _) => Err(Failure::Interrupted),
        (Swept::All, true) => Ok(Status::Complete),
        (Swept::All, false) => Ok(Status::Incomplete),
    }
}

/// The processes of a target; none, with the reason among the problems, if there is no system that knows them.
fn owners_of(
    target: &mut Target,
    letter: &str,
    problems: &mut Vec<String>,
    io: &mut Io<'_>,
) -> Outcome<Option<Owners>> {
    let found = target.os(io).and_then(|os| Owners::new(&*os));
    match found {
        Ok(owners) => Ok(Some(owners)),
        Err(Failure::Target(error) | Failure::Request(error)) => {
            problems
                .push(format!("whose memory it is, is not known, for {letter}: {error}; --no-processes does not ask"));
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

/// A sentence for each kind of memory that could not be compared though it should be there.
fn unreadable(compared: &Compared) -> Vec<String> {
    let of = |kind: Kind| compared.differences.iter().filter(move |found| found.kind == kind);
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_unreadable());
    let told = kinds.filter_map(|kind| {
        let first = of(kind).next()?;
        let bytes = of(kind).fold(0u64, |sum, found| sum.saturating_add(found.range.len()));
        Some(format!("{} {}, the first at {}", size(bytes), kind.words(), first.range.start()))
    });
    told.collect()
}

/// The addresses of the pages that a range touches.
fn frames(range: PhysRange) -> impl Iterator<Item = PhysAddr> {
    let first = range.start().as_u64() / PAGE;
    let last = range.last().map_or(first, |last| last.as_u64() / PAGE);
    (first..=last).map(|page| PhysAddr::new(page * PAGE))
}

fn document(
    args: &DiffArgs,
    (a, b): (String, String),
    compared: &Compared,
    owners: Option<&(Owners, Owners)>,
    problems: Vec<String>,
) -> Document {
    let mut bytes: BTreeMap<&'static str, u64> = Kind::ALL.iter().map(|kind| (kind.key(), 0)).collect();
    for Difference { range, kind } in &compared.differences {
        let sum = bytes.entry(kind.key()).or_default();
        *sum = sum.saturating_add(range.len());
    }
    let different = bytes.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    bytes.insert("equal", compared.looked_at.saturating_sub(different));
    bytes.insert("compared", compared.looked_at);
    let changed = || compared.differences.iter().filter(|found| found.kind == Kind::Changed).map(|found| found.range);
    let mut changed_pages: Vec<PhysAddr> = changed().flat_map(frames).collect();
    // A page in which runs meet is one page.
    changed_pages.dedup();
    let attributed = owners.map(|(a, b)| attribute(a, b, changed_pages.iter().copied()));
    let (processes, unmapped) = attributed.unzip();
    let listed = args.pages.then(|| {
        let record = |found: &Difference| PageRecord {
            start: found.range.start().into(),
            size: found.range.len(),
            kind: found.kind.key(),
            words: found.kind.words(),
            pids: owners.filter(|_| found.kind == Kind::Changed).map(|(a, b)| {
                let mut pids: Vec<u32> =
                    frames(found.range).flat_map(|page| whose(a, b, page)).map(|(pid, _)| pid).collect();
                pids.sort_unstable();
                pids.dedup();
                pids
            }),
        };
        compared.differences.iter().map(record).collect()
    });
    Document {
        a,
        b,
        ended: if compared.swept == Swept::All { "complete" } else { "interrupted" },
        bytes,
        changed_pages: changed_pages.len() as u64,
        runs: runs(compared),
        processes: processes.map(processes_of),
        unmapped_changed_pages: unmapped,
        pages: listed,
        problems,
    }
}

/// The runs that either has, with what differs in each.
fn runs(compared: &Compared) -> Vec<RunRecord> {
    let mut rest = compared.differences.iter().peekable();
    let mut runs = Vec::with_capacity(compared.held.len());
    for held in &compared.held {
        let mut sums: BTreeMap<Kind, u64> = BTreeMap::new();
        // Differences lie in the runs, and both are in order.
        while let Some(found) = rest.next_if(|found| held.contains(found.range.start())) {
            let sum = sums.entry(found.kind).or_default();
            *sum = sum.saturating_add(found.range.len());
        }
        let record = |(kind, size): (Kind, u64)| KindRecord { kind: kind.key(), size, words: kind.words() };
        let differences = sums.into_iter().map(record).collect();
        runs.push(RunRecord { start: held.start().into(), size: held.len(), differences });
    }
    runs
}

/// Those with changed pages, the most first, and those that are in one of the two only.
fn processes_of(owners: BTreeMap<Identity, Owner>) -> Vec<ProcessRecord> {
    let telling = owners.into_iter().filter(|(_, owner)| owner.changed > 0 || !(owner.in_a && owner.in_b));
    let mut records: Vec<ProcessRecord> = telling
        .map(|((pid, _), owner)| ProcessRecord {
            pid,
            name: owner.name,
            r#in: match (owner.in_a, owner.in_b) {
                (true, false) => "a",
                (false, true) => "b",
                _ => "both",
            },
            changed_pages: owner.changed,
        })
        .collect();
    records.sort_by_key(|record| (std::cmp::Reverse(record.changed_pages), record.pid));
    records
}

fn print(document: &Document, io: &mut Io<'_>) -> Outcome<()> {
    let mut summary = Table::without_header([Align::Left, Align::Right, Align::Left]);
    let of = |key: &str| document.bytes.get(key).copied().unwrap_or(0);
    summary.row(["compared".to_owned(), size(of("compared")), String::new()]);
    summary.row(["equal".to_owned(), size(of("equal")), String::new()]);
    for kind in Kind::ALL {
        let bytes = of(kind.key());
        if bytes > 0 || kind == Kind::Changed {
            let pages = if kind == Kind::Changed { plural(document.changed_pages, "page") } else { String::new() };
            summary.row([kind.words().to_owned(), size(bytes), pages]);
        }
    }
    io.table(&summary)?;
    let telling: Vec<&RunRecord> = document.runs.iter().filter(|run| !run.differences.is_empty()).collect();
    if !telling.is_empty() {
        let mut table = Table::new(&[("RUN", Align::Left), ("SIZE", Align::Right), ("DIFFERENCES", Align::Left)]);
        for run in telling.iter().take(SHOWN_RUNS) {
            let differences = run.differences.iter().map(|kind| format!("{} {}", size(kind.size), kind.words));
            table.row([place(run.start, run.size), size(run.size), differences.collect::<Vec<_>>().join(", ")]);
        }
        io.line("")?;
        io.table(&table)?;
        if let Some(more) = telling.len().checked_sub(SHOWN_RUNS).filter(|more| *more > 0) {
            io.line(format_args!("… and {}; --json has all", plural(more as u64, "run")))?;
        }
    }
    if let Some(processes) = &document.processes {
        let columns =
            [("PID", Align::Right), ("NAME", Align::Left), ("IN", Align::Left), ("CHANGED PAGES", Align::Right)];
        let mut table = Table::new(&columns);
        let unmapped = document.unmapped_changed_pages.unwrap_or(0);
        if unmapped > 0 {
            let name = "[no process: kernel, caches, free]".to_owned();
            table.row(["-".to_owned(), name, "-".to_owned(), unmapped.to_string()]);
        }
        for process in processes {
            let place = match process.r#in {
                "a" => "A only",
                "b" => "B only",
                both => both,
            };
            let name = escape(&process.name).into_owned();
            table.row([process.pid.to_string(), name, place.to_owned(), process.changed_pages.to_string()]);
        }
        if unmapped > 0 || !processes.is_empty() {
            io.line("")?;
            io.table(&table)?;
        }
    }
    if let Some(pages) = document.pages.as_ref().filter(|pages| !pages.is_empty()) {
        let columns =
            [("PAGES", Align::Left), ("SIZE", Align::Right), ("DIFFERENCE", Align::Left), ("PIDS", Align::Left)];
        let mut table = Table::new(&columns);
        for page in pages {
            let pids = page.pids.as_ref().map_or_else(String::new, |pids| shown(pids));
            table.row([place(page.start, page.size), size(page.size), page.words.to_owned(), pids]);
        }
        io.line("")?;
        io.table(&table)?;
    }
    Ok(())
}

/// Some ids, and how many more there are.
fn shown(pids: &[u32]) -> String {
    let first: Vec<String> = pids.iter().take(SHOWN_OWNERS).map(u32::to_string).collect();
    match pids.len().checked_sub(SHOWN_OWNERS).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", first.join(" ")),
        None => first.join(" "),
    }
}

/// First and last address.
fn place(start: Hex, size: u64) -> String {
    let Hex(start) = start;
    // Never empty, and the last byte exists.
    format!("{start:#014x}-{:#014x}", start.saturating_add(size.saturating_sub(1)))
}

//! `memflow ps`: the processes.
//!
//! Owns: the table, the tree and the JSON form of a process. Must not know: how processes are found.

use std::collections::{HashMap, HashSet};

use clap::Args;
use memflow_core::{
    Error,
    os::{Listing, Os, ProcessInfo},
};
use serde::Serialize;

use crate::{
    failure::{Outcome, Status},
    output::{Align, Hex, Io, Table, elapsed, escape, texts},
    progress,
    target::{Target, TargetArgs},
};

/// Arguments of `memflow ps`.
#[derive(Args, Debug)]
#[command(after_help = "\
Columns: UID effective user id; ST state (R running, S sleeping, D waiting on a device, T stopped, t traced, Z ended, I idle \
kernel thread); THR threads; START time from boot to the start, as [[days-]hours:]minutes:seconds. Kernel threads are in \
[brackets]. With --long, EXE is the path of the executable and COMMAND the command line; - where there is none, ? where it \
cannot be read.

JSON: {\"processes\": [{pid, parent_pid, uid, gid, state, threads, start_time, name, kernel_thread, address, \
page_table_root, executable, command_line}], \"problems\": […]}; start_time in seconds; executable and command_line with \
--long only.")]
pub(crate) struct PsArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    filter: Filter,
    /// Also show executables and command lines
    #[arg(short, long)]
    long: bool,
    /// Show children below their parents
    #[arg(short, long)]
    tree: bool,
}

/// Which processes are shown.
#[derive(Args, Clone, Default, Debug)]
struct Filter {
    /// Only processes whose name contains this text (upper and lower case are different)
    #[arg(short, long, value_name = "TEXT")]
    name: Option<String>,
    /// Only the processes with these ids
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Leave out threads of the kernel
    #[arg(short, long, visible_alias = "no-kernel")]
    user_only: bool,
}

impl Filter {
    fn takes(&self, process: &ProcessInfo) -> bool {
        self.name.as_ref().is_none_or(|name| process.name.contains(name))
            && (self.pid.is_empty() || self.pid.contains(&process.pid))
            && !(self.user_only && process.kernel_thread)
    }
}

/// What `--long` adds, and what of it cannot be read.
#[derive(Default)]
struct Details {
    executable: Option<String>,
    executable_unreadable: bool,
    command_line: Vec<String>,
    command_line_unreadable: bool,
    problems: Vec<Error>,
}

/// A process in JSON.
#[derive(Serialize)]
struct Record<'a> {
    pid: u32,
    parent_pid: u32,
    uid: Option<u32>,
    gid: Option<u32>,
    state: char,
    threads: u32,
    start_time: f64,
    name: &'a str,
    kernel_thread: bool,
    address: Hex,
    page_table_root: Option<Hex>,
    #[serde(flatten)]
    details: Option<DetailsRecord<'a>>,
}

#[derive(Serialize)]
struct DetailsRecord<'a> {
    executable: Option<&'a str>,
    command_line: Option<&'a [String]>,
}

#[derive(Serialize)]
struct Document<'a> {
    processes: Vec<Record<'a>>,
    problems: Vec<String>,
}

/// Opens the target and lists its processes.
pub(crate) fn run(args: &PsArgs, io: &mut Io<'_>) -> Outcome {
    let os = Target::open(&args.target, io)?.os(io)?;
    show(args, &*os, io)
}

fn show(args: &PsArgs, os: &dyn Os, io: &mut Io<'_>) -> Outcome {
    let Listing { items, problems } = progress::spin(io.quiet(), "reading the process list", || os.processes())?;
    let mut status = io.problems("the process list", &problems);
    let mut problems = texts(&problems);
    let mut shown: Vec<&ProcessInfo> = items.iter().filter(|process| args.filter.takes(process)).collect();
    for pid in &args.filter.pid {
        if !items.iter().any(|process| process.pid == *pid) {
            let missing = Error::NotFound { what: "process with pid", name: pid.to_string() };
            status = Status::Incomplete;
            io.warn(&missing);
            problems.push(missing.to_string());
        }
    }
    if let (true, Some(name)) = (shown.is_empty(), &args.filter.name) {
        status = Status::Incomplete;
        io.warn(format_args!("no process name contains `{name}`"));
    }
    let depths = if args.tree { arrange(&mut shown) } else { vec![0; shown.len()] };
    let details: Option<Vec<Details>> = args.long.then(|| {
        let read = || shown.iter().map(|process| details(os, process)).collect();
        progress::spin(io.quiet(), "reading command lines", read)
    });
    for problem in details.iter().flatten().flat_map(|details| &details.problems) {
        status = Status::Incomplete;
        io.warn(problem);
        problems.push(problem.to_string());
    }
    if io.json {
        let details = details.as_deref();
        let processes =
            shown.iter().enumerate().map(|(index, process)| record(process, details.and_then(|all| all.get(index))));
        io.document(&Document { processes: processes.collect(), problems })?;
    } else {
        io.table(&table(&shown, &depths, details.as_deref()))?;
    }
    Ok(status)
}

/// Reads what `--long` adds.
fn details(os: &dyn Os, process: &ProcessInfo) -> Details {
    let mut details = Details::default();
    let opened = match os.open(process) {
        Ok(opened) => opened,
        Err(error) => {
            details.executable_unreadable = true;
            details.command_line_unreadable = true;
            details.problems.push(error.context(format!("process {}", process.pid)));
            return details;
        }
    };
    match opened.executable() {
        Ok(executable) => details.executable = executable,
        Err(error) => {
            details.executable_unreadable = true;
            details.problems.push(error.context(format!("executable of process {}", process.pid)));
        }
    }
    match opened.command_line() {
        Ok(command_line) => details.command_line = command_line,
        Err(error) => {
            details.command_line_unreadable = true;
            details.problems.push(error.context(format!("command line of process {}", process.pid)));
        }
    }
    details
}

/// Puts children behind their parents, and says how deep each process lies below its first ancestor.
///
/// Parents that are not shown, and lists in which processes are each other's ancestors, make new first ancestors.
fn arrange(shown: &mut Vec<&ProcessInfo>) -> Vec<usize> {
    let pids: HashSet<u32> = shown.iter().map(|process| process.pid).collect();
    let mut children: HashMap<u32, Vec<&ProcessInfo>> = HashMap::new();
    let mut stack: Vec<(usize, &ProcessInfo)> = Vec::new();
    for process in shown.iter().rev() {
        if pids.contains(&process.parent_pid) && process.parent_pid != process.pid {
            children.entry(process.parent_pid).or_default().push(process);
        } else {
            stack.push((0, process));
        }
    }
    let mut arranged = Vec::with_capacity(shown.len());
    let mut depths = Vec::with_capacity(shown.len());
    loop {
        while let Some((depth, process)) = stack.pop() {
            arranged.push(process);
            depths.push(depth);
            let below = children.remove(&process.pid).unwrap_or_default();
            stack.extend(below.into_iter().map(|child| (depth.saturating_add(1), child)));
        }
        // Only processes that are each other's ancestors are left, if any: start with the first of them.
        let next = shown.iter().find(|process| {
            children.get(&process.parent_pid).is_some_and(|rest| rest.iter().any(|left| std::ptr::eq(*left, **process)))
        });
        let Some(next) = next.copied() else { break };
        if let Some(siblings) = children.get_mut(&next.parent_pid) {
            siblings.retain(|left| !std::ptr::eq(*left, next));
        }
        stack.push((0, next));
    }
    *shown = arranged;
    depths
}

/// The table.
fn table(shown: &[&ProcessInfo], depths: &[usize], details: Option<&[Details]>) -> Table {
    let mut columns = vec![
        ("PID", Align::Right),
        ("PPID", Align::Right),
        ("UID", Align::Right),
        ("ST", Align::Left),
        ("THR", Align::Right),
        ("START", Align::Right),
        ("NAME", Align::Left),
    ];
    if details.is_some() {
        columns.extend([("EXE", Align::Left), ("COMMAND", Align::Left)]);
    }
    let mut table = Table::new(&columns);
    for (index, process) in shown.iter().enumerate() {
        let name = escape(&process.name);
        let indent = "  ".repeat(depths.get(index).copied().unwrap_or_default());
        let mut row = vec![
            process.pid.to_string(),
            process.parent_pid.to_string(),
            process.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string()),
            process.state.to_string(),
            process.threads.to_string(),
            elapsed(process.start_time),
            if process.kernel_thread { format!("{indent}[{name}]") } else { format!("{indent}{name}") },
        ];
        if let Some(details) = details.and_then(|all| all.get(index)) {
            row.push(match &details.executable {
                Some(path) => escape(path).into_owned(),
                None if details.executable_unreadable => "?".to_owned(),
                None => "-".to_owned(),
            });
            row.push(match details.command_line.as_slice() {
                [] if details.command_line_unreadable => "?".to_owned(),
                [] => "-".to_owned(),
                arguments => escape(&arguments.join(" ")).into_owned(),
            });
        }
        table.row(row);
    }
    table
}

/// A process in JSON.
fn record<'a>(process: &'a ProcessInfo, details: Option<&'a Details>) -> Record<'a> {
    Record {
        pid: process.pid,
        parent_pid: process.parent_pid,
        uid: process.uid,
        gid: process.gid,
        state: process.state.letter(),
        threads: process.threads,
        start_time: process.start_time.as_secs_f64(),
        name: &process.name,
        kernel_thread: process.kernel_thread,
        address: process.address.into(),
        page_table_root: process.root.map(Hex),
        details: details.map(|details| DetailsRecord {
            executable: details.executable.as_deref(),
            command_line: (!details.command_line_unreadable).then_some(details.command_line.as_slice()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memflow_core::VirtAddr;

    use super::{
        super::testing::{FakeOs, shown, torn},
        *,
    };

    fn process(pid: u32, parent_pid: u32, name: &str) -> ProcessInfo {
        let mut process = ProcessInfo::new(VirtAddr::new(0xffff_8880_0000_0000 + u64::from(pid)), pid, name);
        process.parent_pid = parent_pid;
        process.uid = Some(0);
        process.start_time = Duration::from_millis(u64::from(pid) * 10);
        process
    }

    fn order(list: &[ProcessInfo]) -> Vec<(u32, usize)> {
        let mut shown: Vec<&ProcessInfo> = list.iter().collect();
        let depths = arrange(&mut shown);
        shown.iter().map(|process| process.pid).zip(depths).collect()
    }

    #[test]
    fn tree_puts_children_behind_parents_in_the_order_of_the_list() {
        let list =
            [process(1, 0, "init"), process(2, 0, "k"), process(9, 1, "b"), process(10, 9, "c"), process(7, 1, "a")];
        assert_eq!(order(&list), [(1, 0), (9, 1), (10, 2), (7, 1), (2, 0)]);
    }

    #[test]
    fn processes_that_are_each_others_ancestors_are_all_shown_once() {
        let list =
            [process(1, 0, "init"), process(5, 6, "x"), process(6, 5, "y"), process(7, 7, "self"), process(8, 5, "z")];
        assert_eq!(order(&list), [(1, 0), (7, 0), (5, 0), (6, 1), (8, 1)]);
    }

    #[test]
    fn duplicate_pids_are_all_shown() {
        let list = [process(1, 0, "init"), process(5, 1, "x"), process(5, 1, "y")];
        assert_eq!(order(&list).len(), 3);
    }

    #[test]
    fn kernel_threads_are_in_brackets_and_names_are_escaped() {
        let mut thread = process(2, 0, "kthreadd");
        thread.kernel_thread = true;
        let mut hostile = process(1234, 1, "\u{1b}[2J");
        hostile.uid = None;
        let text = table(&[&thread, &hostile], &[0, 1], None).to_string();
        assert_eq!(
            text,
            " PID  PPID  UID  ST  THR     START  NAME\n   \
                2     0    0  R     1  00:00.02  [kthreadd]\n\
             1234     1    -  R     1  00:12.34    \\u{1b}[2J\n"
        );
    }

    #[test]
    fn incomplete_list_is_shown_and_named_as_such() {
        let expected = "warning: the process list is incomplete: list loops: 0x1000 comes up again after 3 entries\n";
        let text = shown(false, |io| show(&args(false), &FakeOs::new(), io));
        assert_eq!((text.status, text.err.as_str()), (Status::Incomplete, expected));
        assert_eq!(text.out, "PID  PPID  UID  ST  THR     START  NAME\n  7     0    -  R     1  00:00.00  seven\n");
        let json = shown(true, |io| show(&args(false), &FakeOs::new(), io));
        let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!(document["processes"][0]["pid"], 7);
        assert_eq!(document["problems"][0], torn().to_string());
    }

    #[test]
    fn command_line_that_cannot_be_read_is_a_question_mark() {
        let text = shown(false, |io| show(&args(true), &FakeOs::new(), io));
        assert_eq!(text.status, Status::Incomplete);
        assert!(text.out.ends_with("  seven  ?    ?\n"), "{}", text.out);
        assert!(text.err.contains("warning: process 7: list loops"), "{}", text.err);
    }

    fn args(long: bool) -> PsArgs {
        PsArgs { target: TargetArgs::default(), filter: Filter::default(), long, tree: false }
    }

    #[test]
    fn filters_are_and_ed() {
        let mut thread = process(2, 0, "kthreadd");
        thread.kernel_thread = true;
        let filter = Filter { name: Some("thread".into()), pid: vec![2, 3], user_only: false };
        assert!(filter.takes(&thread));
        assert!(!Filter { user_only: true, ..filter.clone() }.takes(&thread));
        assert!(!Filter { pid: vec![3], ..filter.clone() }.takes(&thread));
        assert!(!Filter { name: Some("Thread".into()), ..filter }.takes(&thread));
    }
}

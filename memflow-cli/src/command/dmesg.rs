//! `memflow dmesg`: the log of the kernel.
//!
//! Owns: the lines and the JSON form of a record. Must not know: how the log is stored.
//! Source of level and facility names: `man 3 syslog`.

use clap::{Args, ValueEnum};
use memflow_core::os::{LogRecord, Os};
use serde::Serialize;

use crate::{
    failure::Outcome,
    output::{Io, escape, texts},
    progress,
    target::{Target, TargetArgs},
};

/// Arguments of `memflow dmesg`.
#[derive(Args, Debug)]
#[command(after_help = "\
Lines are those of dmesg: [seconds since boot] text. Records of several lines are shown with all of them.

JSON: {\"records\": [{sequence, time, level, facility, text}], \"problems\": […]}; time in seconds, level and facility as \
numbers of syslog.")]
pub(crate) struct DmesgArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Only records of this level or a more important one
    #[arg(short, long, value_name = "LEVEL")]
    level: Option<Level>,
}

/// The levels of syslog, most important first.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Emerg,
    Alert,
    Crit,
    Err,
    Warn,
    Notice,
    Info,
    Debug,
}

impl Level {
    fn takes(self, record: &LogRecord) -> bool {
        record.level <= self as u8
    }
}

#[derive(Serialize)]
struct Document<'a> {
    records: Vec<Record<'a>>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Record<'a> {
    sequence: u64,
    time: f64,
    level: u8,
    facility: u8,
    text: &'a str,
}

/// Opens the target and prints the kernel's log.
pub(crate) fn run(args: &DmesgArgs, io: &mut Io<'_>) -> Outcome {
    let os = Target::open(&args.target, io)?.os(io)?;
    show(args.level, &*os, io)
}

fn show(level: Option<Level>, os: &dyn Os, io: &mut Io<'_>) -> Outcome {
    let list = progress::spin(io.quiet(), "reading the kernel's log", || os.kernel_log())?;
    let status = io.problems("the kernel's log", &list.problems);
    let records = list.items.iter().filter(|record| level.is_none_or(|level| level.takes(record)));
    if io.json {
        let records = records
            .map(|record| Record {
                sequence: record.sequence,
                time: record.time.as_secs_f64(),
                level: record.level,
                facility: record.facility,
                text: &record.text,
            })
            .collect();
        io.document(&Document { records, problems: texts(&list.problems) })?;
    } else {
        for record in records {
            io.print(lines(record))?;
        }
    }
    Ok(status)
}

/// A record as dmesg prints it: the time in front of each of its lines.
fn lines(record: &LogRecord) -> String {
    let (seconds, micros) = (record.time.as_secs(), record.time.subsec_micros());
    record.text.split('\n').map(|line| format!("[{seconds:5}.{micros:06}] {}\n", escape(line))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::testing::{FakeOs, shown},
        *,
    };
    use crate::failure::Status;

    #[test]
    fn incomplete_log_is_shown_and_named_as_such() {
        let text = shown(false, |io| show(None, &FakeOs::new(), io));
        assert_eq!((text.status, text.out.as_str()), (Status::Incomplete, "[    0.000000] six\n"));
        assert!(text.err.starts_with("warning: the kernel's log is incomplete: list loops"), "{}", text.err);
    }

    #[test]
    fn lines_look_as_those_of_dmesg() {
        let record = LogRecord::new(Duration::from_nanos(1_234_567_890), 7, 0, 6, "one\ntwo \u{1b}[31m");
        assert_eq!(lines(&record), "[    1.234567] one\n[    1.234567] two \\u{1b}[31m\n");
    }

    #[test]
    fn a_level_takes_itself_and_what_is_more_important() {
        let record = |level| LogRecord::new(Duration::ZERO, 0, 0, level, "");
        assert!(Level::Warn.takes(&record(4)));
        assert!(Level::Warn.takes(&record(0)));
        assert!(!Level::Warn.takes(&record(5)));
    }
}

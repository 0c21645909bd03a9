//! The `memflow` command.
//!
//! Owns: the start and the end of the process: streams, logger, Ctrl-C, exit code. Must not know: targets, formats.
//! Keeps: results go to standard output and messages to standard error; a closed pipe is success.

mod args;
mod cache;
mod command;
mod failure;
mod image;
mod interrupt;
mod links;
mod listed;
mod named_file;
mod output;
mod output_file;
mod parse;
mod pause;
mod plugins;
mod progress;
mod sweep;
mod target;

use std::{
    io::{self, BufWriter, LineWriter, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};

use crate::{
    args::{Cli, Command},
    failure::{Outcome, Status},
    output::Io,
};

/// Bytes of results that are collected before they are written.
const OUT_BUFFER: usize = 64 << 10;

fn main() -> ExitCode {
    let words = links::target_first(std::env::args_os().collect(), Cli::command());
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    env_logger::Builder::from_env(
        env_logger::Env::new().filter_or("MEMFLOW_LOG", "off").write_style("MEMFLOW_LOG_STYLE"),
    )
    .init();
    interrupt::install();
    let mut out = BufWriter::with_capacity(OUT_BUFFER, io::stdout());
    let mut err = LineWriter::new(io::stderr());
    let mut io = Io::new(&mut out, &mut err, cli.common.json, cli.common.verbosity());
    let outcome = run(&cli.command, &mut io).and_then(|status| io.flush().map(|()| status));
    if let Err(failure) = &outcome {
        // Results that are buffered belong before the message, and a document about the failure behind both. The command has
        // failed already, so a stream that takes neither changes nothing.
        let flushed = io.flush();
        let told = io.error(failure).and_then(|()| io.flush());
        log::debug!("results: {flushed:?}, failure: {told:?}");
    }
    io.tell_metrics();
    drop(err.flush());
    // What is left in the buffer could not be written, so it is not tried again.
    drop(out.into_parts());
    match outcome {
        Ok(Status::Complete) => ExitCode::SUCCESS,
        Ok(Status::Incomplete) => ExitCode::from(1),
        Err(failure) => ExitCode::from(failure.exit_code()),
    }
}

fn run(command: &Command, io: &mut Io<'_>) -> Outcome {
    match command {
        Command::Ps(args) => command::ps(args, io),
        Command::Info(args) => command::info(args, io),
        Command::Maps(args) => command::maps(args, io),
        Command::Modules(args) => command::modules(args, io),
        Command::Symbols(args) => command::symbols(args, io),
        Command::Dmesg(args) => command::dmesg(args, io),
        Command::Read(args) => command::read(args, io),
        Command::Find(args) => command::find(args, io),
        Command::Strings(args) => command::strings(args, io),
        Command::Dump(args) => command::dump(args, io),
        Command::Diff(args) => command::diff(args, io),
        Command::Convert(args) => command::convert(args, io),
        Command::Translate(args) => command::translate(args, io),
        Command::Targets(args) => command::targets(args, io),
        Command::Pause(args) => command::pause(args, io),
        Command::Resume(args) => command::resume(args, io),
        Command::Plugins(args) => command::plugins(args, io),
        Command::Cache(args) => command::cache(args, io),
        Command::Completions(args) => command::completions(args, io),
        Command::Man(args) => command::man(args, io),
    }
}

/// Prints what the parser has to say: help and version are results, everything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    match error.print() {
        Err(broken) if broken.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(4),
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
    }
}

//! `memflow pause` and `memflow resume`: whether the target runs.
//!
//! Owns: what is said of the state. Must not know: how a target is stopped.

use clap::Args;
use memflow_core::{Error, memory::RunState};
use serde::Serialize;

use crate::{
    failure::{Failure, Outcome, Status},
    output::{Io, escape},
    target::{Target, TargetArgs},
};

/// Arguments of `memflow pause` and `memflow resume`.
#[derive(Args, Debug)]
#[command(after_help = "\
The target stays as it is left, also after memflow has ended. `memflow dump` needs neither: it pauses the target itself. Which \
targets can be paused is up to their connector; `memflow info` shows the state of those that can. Of a chain, it is the last machine.

JSON: {\"target\", \"state\", \"before\", \"problems\"}; both states are running or paused.")]
pub(crate) struct ControlArgs {
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
struct Document<'a> {
    target: &'a str,
    state: &'static str,
    before: &'static str,
    problems: [&'static str; 0],
}

/// Stops the target.
pub(crate) fn pause(args: &ControlArgs, io: &mut Io<'_>) -> Outcome {
    change(args, RunState::Paused, io)
}

/// Lets the target run.
pub(crate) fn resume(args: &ControlArgs, io: &mut Io<'_>) -> Outcome {
    change(args, RunState::Running, io)
}

fn change(args: &ControlArgs, wanted: RunState, io: &mut Io<'_>) -> Outcome {
    let target = Target::open(&args.target, io)?;
    let name = target.name();
    let control = target.memory().control().ok_or_else(|| {
        Failure::Request(Error::Unsupported {
            what: format!("pausing or resuming {name}"),
            why: "its connector has no control over whether it runs".to_owned(),
        })
    })?;
    let before = control.run_state()?;
    match wanted {
        RunState::Paused => control.pause()?,
        RunState::Running => control.resume()?,
    }
    let state = control.run_state()?;
    if state != wanted {
        let (state, wanted) = (word(state), word(wanted));
        return Err(Failure::Missing(format!("{name} is {state} although its connector says that it is {wanted} now")));
    }
    let (state, before) = (word(state), word(before));
    if io.json {
        io.document(&Document { target: &name, state, before, problems: [] })?;
    } else {
        let already = if before == state { " already" } else { "" };
        io.line(format_args!("{}: {state}{already}", escape(&name)))?;
    }
    Ok(Status::Complete)
}

/// The state in a word.
pub(super) fn word(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Paused => "paused",
    }
}

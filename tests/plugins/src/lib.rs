//! Plugins that misbehave when they are asked to: a connector and an OS layer. The argument `at` names the function of the plugin
//! interface, `fault` what happens in it.
//!
//! Owns: one place of misbehaviour per function that runs a plugin author's code. Must not know: how a host takes it.

mod fault;
mod machine;
mod system;

use std::{env, sync::Mutex};

use memflow_core::{
    Result,
    plugin::{Connection, ConnectorRequest, OsRequest, TargetInfo},
};

use crate::{fault::Fault, machine::Machine, system::System};

/// What listing targets does: it takes no arguments, so the last target that was opened for that says.
static TARGETS: Mutex<Option<Fault>> = Mutex::new(None);

/// A machine of 64 KiB that misbehaves on demand.
#[memflow_derive::connector(
    name = "faulty",
    type = FaultyConnector,
    accepts(content, os),
    targets = targets,
    args(
        fault: choice(none | panic | payload | bomb | error | fewer | contradiction | hang) = "none" => "what happens",
        at: text = "" => "in which function",
        kind: text = "" => "the kind of an error",
        from: size = "0" => "of reads, only those that reach beyond this address",
        size: size = "64KiB" => "how much memory there is",
        state: choice(running | paused) = "running" => "whether the machine runs at first",
        control: flag => "whether it can be paused; it can unless this is no",
        events: path => "a file to which what is asked of the machine is appended, a line each",
    ),
)]
fn open(request: &ConnectorRequest<'_>) -> Result<Connection> {
    let fault = Fault::new(request.args)?;
    if fault.is_at("targets")
        && let Ok(mut targets) = TARGETS.lock()
    {
        *targets = Some(fault.clone());
    }
    fault.trip("open_connector")?;
    Ok(Connection::from(Machine::new(fault, request.args)?))
}

fn targets() -> Result<Vec<TargetInfo>> {
    let fault = TARGETS.lock().ok().and_then(|fault| fault.clone());
    if let Some(fault) = fault {
        fault.trip("targets")?;
    }
    // A process of its own can only be told by its environment.
    if let Ok(kind) = env::var("FAULTY_TARGETS") {
        return Err(fault::error(&kind));
    }
    Ok(vec![TargetInfo::new("any", "all are the same"), TargetInfo::new("two words", "\u{1b}[31mwith a colour")])
}

/// Another connector for a machine of the same name.
#[memflow_derive::connector(name = "twin", type = TwinConnector, targets = twins)]
fn open_twin(request: &ConnectorRequest<'_>) -> Result<Connection> {
    open(request)
}

fn twins() -> Result<Vec<TargetInfo>> {
    Ok(vec![TargetInfo::new("any", "the twin"), TargetInfo::new("sister", "only here")])
}

/// A system of one process that misbehaves on demand.
#[memflow_derive::os_layer(
    name = "faulty-os",
    type = FaultyOs,
    args(
        fault: choice(none | panic | payload | bomb | error | fewer | contradiction) = "none" => "what happens",
        at: text = "" => "in which function",
        kind: text = "" => "the kind of an error",
    ),
)]
fn recognise(request: OsRequest<'_>) -> Result<System> {
    let fault = Fault::new(request.args)?;
    fault.trip("open_os")?;
    Ok(System::new(request.memory, fault))
}

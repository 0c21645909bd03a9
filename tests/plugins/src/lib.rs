//! Plugins that misbehave when they are asked to: a connector and an OS layer. The argument `at` names the function of the plugin
//! interface, `fault` what happens in it.
//!
//! Owns: one place of misbehaviour per function that runs a plugin author's code. Must not know: how a host takes it.

mod fault;
mod machine;
mod system;

use std::sync::Mutex;

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
        fault: choice(none | panic | payload | bomb | error | fewer | contradiction) = "none" => "what happens",
        at: text = "" => "in which function",
        kind: text = "" => "the kind of an error",
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
    Ok(Connection::from(Machine::new(fault)))
}

fn targets() -> Result<Vec<TargetInfo>> {
    let fault = TARGETS.lock().ok().and_then(|fault| fault.clone());
    if let Some(fault) = fault {
        fault.trip("targets")?;
    }
    Ok(vec![TargetInfo::new("any", "all are the same")])
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

//! The connector as a plugin: its target and arguments, and a request as options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: which operating system the process belongs to.

use memflow_core::{
    PhysicalMemory, Result,
    memory::RunMap,
    plugin::{Connection, ConnectorRequest, args::Args},
};

use crate::open::{Options, Target, open as open_target};

#[memflow_derive::connector(
    name = "process",
    description = "memory of a virtual machine, in the process that holds it",
    help = "The target is a pid, or the name of a process that only one has. The connector stands behind an OS layer.",
    accepts(os),
    args(
        runs: text => "where guest-physical memory lies in the process, FIRST-LAST@VIRTUAL,…; \
            without it, the largest writable mapping is all of it, from 0 on",
    ),
)]
fn open(request: &ConnectorRequest<'_>) -> Result<Connection> {
    let os = request.required_input()?;
    let target: Target = request.required_target("the pid or the name of a process")?.parse()?;
    let given: Option<RunMap> = request.args.parse("runs", "runs of guest-physical memory, FIRST-LAST@VIRTUAL")?;
    let options = given.as_ref().map(Options::from).unwrap_or_default();
    let memory = open_target(&**os, &target, &options)?;
    let info = memory.process().info();
    let format = format!("process {} ({}) of {} {}", info.name, info.pid, os.kernel().system, os.kernel().release);
    let note = given.is_none().then(|| {
        let runs = Args::new().with("runs", memory.metadata().runs.to_string());
        format!("guest-physical memory is taken to be {runs}")
    });
    let mut connection = Connection::from(memory).with_format(format);
    connection.notes.extend(note);
    Ok(connection)
}

//! The connector as a plugin: its target and arguments, and a request as options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: how a guest is opened.

use std::time::Duration;

use memflow_core::{
    Error, Result,
    plugin::{Connection, ConnectorRequest, TargetInfo, args::Args},
};

use crate::{
    discover::{Target, discover},
    monitor::{MonitorAddress, MonitorConfig, Protocol},
    open::{Options, RegisterSource, open as open_target},
};

/// As the descriptor says.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

#[memflow_derive::connector(
    name = "qemu",
    description = "running QEMU and KVM guests on this host",
    help = "The target is the name of a guest, its uuid, the pid of its process, or the path of its monitor's socket; \
        without one, the only guest that runs.",
    targets = targets,
    args(
        map: text => "where guest-physical memory lies in the QEMU process, FIRST-LAST@VIRTUAL,…; without it, QEMU is asked",
        access: choice(auto | map | process_vm | mem) = "auto" => "how guest memory is reached",
        timeout: time = "2s" => "longest time for a conversation with one monitor",
        monitor: text => "the monitor to ask, qmp:PATH or qmp:HOST:PORT or hmp:…, or none; without it, those of the command line",
        registers: choice(monitor | stub) = "monitor"
            => "who is asked for registers; stub, QEMU's gdb stub, has those of paging on Arm and stops the guest for a moment",
        writable: flag => "take writes, and write them to the guest",
    ),
)]
fn open(request: &ConnectorRequest<'_>) -> Result<Connection> {
    let Ok(target) = request.target.unwrap_or_default().parse::<Target>();
    let connected = open_target(&target, &options(request.args)?)?;
    let format = format!(
        "{} of pid {}, {}, access {}",
        connected.guest.program(),
        connected.guest.pid(),
        connected.layout.source,
        connected.memory.access(),
    );
    let mut connection = Connection::new(connected.memory).with_format(format);
    connection.notes = connected.notes;
    Ok(connection)
}

/// The guests that run.
fn targets() -> Result<Vec<TargetInfo>> {
    let guests = discover()?;
    let unique = |name: &str| guests.iter().filter(|guest| guest.target() == name).count() == 1;
    let info = |guest: &crate::Guest| {
        let name = guest.target();
        let name = if unique(&name) { name } else { guest.pid().to_string() };
        let called = guest.command_line().name.as_ref().filter(|called| **called != name);
        let called = called.map(|called| format!("{called}, ")).unwrap_or_default();
        TargetInfo::new(name, format!("{called}{}", guest.describe()))
    };
    Ok(guests.iter().map(info).collect())
}

/// The options that the arguments ask for.
fn options(args: &Args) -> Result<Options> {
    let monitor = args.text("monitor")?;
    Ok(Options {
        map: args.parse("map", "runs of guest-physical memory, FIRST-LAST@VIRTUAL")?,
        access: args.text("access")?.map(str::parse).transpose()?.unwrap_or_default(),
        timeout: args.time("timeout")?.unwrap_or(DEFAULT_TIMEOUT),
        use_monitors: monitor != Some("none"),
        monitor: monitor.filter(|text| *text != "none").map(parse_monitor).transpose()?,
        registers: match args.text("registers")? {
            Some("stub") => RegisterSource::Stub,
            _ => RegisterSource::Monitor,
        },
        writable: args.flag("writable")?.unwrap_or(false),
    })
}

/// `qmp:PLACE` or `hmp:PLACE`, the place being a path or a host and its port.
fn parse_monitor(text: &str) -> Result<MonitorConfig> {
    let (protocol, place) = match text.split_once(':') {
        Some(("qmp", place)) => (Protocol::Qmp, place),
        Some(("hmp", place)) => (Protocol::Human, place),
        _ => {
            return Err(Error::Argument {
                what: "monitor".into(),
                expected: "qmp:PATH, qmp:HOST:PORT, hmp:PATH, hmp:HOST:PORT or none".into(),
                found: text.to_owned(),
            });
        }
    };
    let address = match place.rsplit_once(':') {
        Some((host, port)) if !place.contains('/') && port.parse::<u16>().is_ok() => MonitorAddress::tcp(host, port),
        // Relative to where the user is, and not to where QEMU is.
        _ => MonitorAddress::Unix(std::path::absolute(place).unwrap_or_else(|_| place.into())),
    };
    Ok(MonitorConfig { protocol, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitor_is_a_path_or_a_port() {
        let parse = |text: &str| parse_monitor(text).map(|monitor| monitor.to_string()).ok();
        assert_eq!(parse("qmp:/run/vm.sock").as_deref(), Some("QMP at /run/vm.sock"));
        assert_eq!(parse("hmp:localhost:4444").as_deref(), Some("HMP at localhost:4444"));
        assert_eq!(parse("qmp:/run/vm:1").as_deref(), Some("QMP at /run/vm:1"));
        assert_eq!(parse("/run/vm.sock"), None);
    }
}

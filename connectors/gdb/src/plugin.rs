//! The connector as a plugin: its target and arguments, and a request as options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: packets.

use memflow_core::{
    Error, Result,
    plugin::{Connection, ConnectorRequest, args::Args},
};
use memflow_gdb_stub::{Address, Options, Physical, Runs, open as open_stub};

#[memflow_derive::connector(
    name = "gdb",
    description = "a running machine behind a GDB remote stub, such as QEMU's",
    help = "The target is HOST:PORT in quotes, HOST with port=, a port of this machine, or the path of a Unix socket.",
    args(
        port: number => "the port, for a host without one",
        timeout: time = "5s" => "longest wait for the connection and for each answer",
        run: choice(between | after | never) = "between"
            => "when the target runs, between batches and after or only after the end or not because of memflow",
        physical: choice(switch | assume) = "switch"
            => "switch the stub to physical addresses or take its addresses for physical",
        map: text => "which addresses are memory, FIRST-LAST,…; without it the stub is asked",
        size: size => "bytes of memory from address 0 on, instead of map",
        ahead: number => "requests on the way at once, of a stub other than QEMU's; 1 for one that mixes them up",
    ),
)]
fn open(request: &ConnectorRequest<'_>) -> Result<Connection> {
    let target = request.required_target("HOST:PORT, a port, or the path of a Unix socket")?;
    let port = request.args.number("port")?;
    let port = port.map(|port| {
        u16::try_from(port).map_err(|_| Error::Argument {
            what: "port".into(),
            expected: "a number below 65536".into(),
            found: port.to_string(),
        })
    });
    let address = Address::with_port(target, port.transpose()?)?;
    let opened = open_stub(&address, &options(request.args)?)?;
    let mut connection = Connection::from(opened.memory).with_format(opened.format);
    connection.notes = opened.notes;
    Ok(connection)
}

/// The options that the arguments ask for.
fn options(args: &Args) -> Result<Options> {
    let mut options = Options::default();
    options.timeout = args.time("timeout")?.unwrap_or(options.timeout);
    options.run = match args.text("run")? {
        Some("after") => Runs::After,
        Some("never") => Runs::Never,
        _ => Runs::Between,
    };
    if args.text("physical")? == Some("assume") {
        options.physical = Physical::Assume;
    }
    options.map = args.text("map")?.map(str::to_owned);
    options.size = args.size("size")?;
    options.ahead = args.number("ahead")?.map(|ahead| usize::try_from(ahead).unwrap_or(usize::MAX));
    Ok(options)
}

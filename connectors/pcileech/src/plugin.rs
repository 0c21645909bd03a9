//! The connector as a plugin: a request as a device and options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: LeechCore.

use std::fs;

use memflow_core::{
    Error, Result,
    memory::RunMap,
    plugin::{Connection, ConnectorRequest, args::Args},
};

use crate::{
    map::parse_map,
    open::{Connected, Options, open as open_device},
};

#[memflow_derive::connector(
    name = "pcileech",
    description = "what LeechCore reads: PCIe DMA hardware (PCILeech), drivers, dumps",
    help = "The target is a device in LeechCore's terms, such as fpga or file://PATH. LeechCore's library is loaded when it is opened. \
            Only addresses in the map are asked for.",
    args(
        lib: path => "LeechCore's library or its folder; without it, it is looked for beside this program and among the system's",
        map: text => "where memory lies, FIRST-LAST or FIRST-LAST@DEVICE, separated by commas, or a file of such lines",
        remote: text => "the agent to go through, in LeechCore's terms",
        "unsafe-map": choice(all) => "read wherever LeechCore takes memory to be, if a device does not say and there is no map",
    ),
)]
fn open(request: &ConnectorRequest<'_>) -> Result<Connection> {
    let device = request.required_target("a device in LeechCore's terms, such as fpga or file://PATH")?;
    let options = Options {
        library: request.args.path("lib")?,
        map: map(request.args)?,
        remote: request.args.text("remote")?.map(str::to_owned),
        unsafe_map_all: request.args.text("unsafe-map")?.is_some(),
    };
    let Connected { memory, notes, format } = open_device(device, &options)?;
    let mut connection = Connection::from(memory).with_format(format);
    connection.notes = notes;
    Ok(connection)
}

/// The map: a list begins with a digit, anything else is a file.
fn map(args: &Args) -> Result<Option<RunMap>> {
    let Some(text) = args.text("map")? else { return Ok(None) };
    if text.trim_start().starts_with(|first: char| first.is_ascii_digit()) {
        return parse_map(text).map(Some);
    }
    let content =
        fs::read_to_string(text).map_err(|error| Error::io(format!("reading the memory map {text}"), error))?;
    parse_map(&content).map(Some).map_err(|error| error.context(text.to_owned()))
}

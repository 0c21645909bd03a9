//! Functions that take or return something else.

use memflow_core::{
    Result,
    plugin::{Connection, ConnectorRequest, OsRequest},
};

/// No memory.
#[memflow_derive::connector(name = "number", type = Number)]
fn number(_: &ConnectorRequest<'_>) -> Result<u8> {
    Ok(5)
}

/// No operating system.
#[memflow_derive::os_layer(name = "system", type = System)]
fn system(_: OsRequest<'_>) -> Result<u8> {
    Ok(5)
}

/// Another request.
#[memflow_derive::connector(name = "mixed", type = Mixed)]
fn mixed(_: OsRequest<'_>) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

/// The request itself.
#[memflow_derive::connector(name = "owned", type = Owned)]
fn owned(_: ConnectorRequest<'_>) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

/// Cannot fail.
#[memflow_derive::connector(name = "sure", type = Sure)]
fn sure(_: &ConnectorRequest<'_>) -> Connection {
    unreachable!()
}

/// A list of something else.
#[memflow_derive::connector(name = "listed", type = Listed, targets = names)]
fn listed(_: &ConnectorRequest<'_>) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

fn names() -> Vec<&'static str> {
    Vec::new()
}

fn main() {}

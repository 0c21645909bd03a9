//! Two plugins of one module that have no `type`.

use memflow_core::{
    Result,
    plugin::{Connection, ConnectorRequest},
};

/// The first.
#[memflow_derive::connector(name = "first")]
fn first(_: &ConnectorRequest<'_>) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

/// The second has no `type` either.
#[memflow_derive::connector(name = "second")]
fn second(_: &ConnectorRequest<'_>) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

fn main() {}

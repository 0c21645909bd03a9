//! Wrong options of the attribute.

use memflow_core::{
    Result,
    plugin::{Connection, ConnectorRequest},
};

/// Every mistake is told at once.
#[memflow_derive::connector(
    nmae = "a",
    help = 5,
    help = "twice",
    accepts(content, files, content),
    targets,
    description = "two\nlines",
    args,
)]
fn nameless(_: &ConnectorRequest<'_>) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

/// Upper case.
#[memflow_derive::connector(name = "Upper", type = Upper)]
fn upper(_: &ConnectorRequest<'_>) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

#[memflow_derive::connector(name = "undescribed" type = Undescribed)]
fn undescribed(_: &ConnectorRequest<'_>) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

fn main() {}

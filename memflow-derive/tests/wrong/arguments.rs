//! Wrong arguments of a plugin.

use memflow_core::{
    Result,
    plugin::{Connection, ConnectorRequest},
};

/// Every mistake is told at once.
#[memflow_derive::connector(
    name = "arguments",
    args(
        Upper: text,
        kindless,
        strange: colour,
        wordless: choice,
        empty: choice(),
        commas: choice(a, b),
        same: choice(a | a),
        other: choice(a | b) = "c",
        number: number = "ten",
        signed: number = -1,
        size: size = "4KB",
        time: time = 5,
        flag: flag = "maybe",
        size: text,
        both: text required = "x",
        mandatory: text mandatory,
        lines: text => "two\nlines",
        unquoted: text => help,
    )
)]
fn open(_: &ConnectorRequest<'_>) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

fn main() {}

//! What commands print: text that is safe for a terminal, tables, JSON, hexdumps.
//!
//! Must not know: targets, any command.

mod hexdump;
mod io;
mod json;
mod table;
mod text;

pub(crate) use self::{
    hexdump::{Hexdump, Repeats},
    io::{Io, Verbosity},
    json::{Hex, hex_bytes, texts},
    table::{Align, Table},
    text::{elapsed, escape, escape_bytes, plural, size},
};

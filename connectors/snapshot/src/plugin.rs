//! The connector as a plugin: its arguments, and a request as options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: formats.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use memflow_core::{
    Error, Result,
    plugin::{Connection, ConnectorRequest, args::Args},
};

use crate::{
    open::{Snapshot, open as open_file, open_bytes},
    options::{OpenOptions, Progress},
    raw::MemoryLayout,
};

#[memflow_derive::connector(
    name = "snapshot",
    description = "files that hold physical memory: raw images, LiME, AVML, ELF cores, kdump, crash dumps, VMware",
    help = "The target is the path of a file. What it is, is told by its content.",
    accepts(content),
    args(
        layout: text = "auto"
            => "which addresses a raw image holds, auto or flat or q35 or i440fx or runs FIRST-LAST@OFFSET",
        partial: flag => "open what is there of a file that was cut short",
        live: flag => "whether the bytes may change while they are read; without it those of raw images may",
        writable: flag => "take writes, and write them to the file",
        unpacked_cache: size = 256MiB
            => "bytes that are kept unpacked of a compressed file",
        max_unpacked: size => "most bytes to unpack when it is opened, what three quarters of the available memory hold unless given",
        parts: text => "other files of a split dump, with commas between them; without it those beside the first",
    ),
)]
fn open(request: &ConnectorRequest<'_>) -> Result<Connection> {
    let target = request.required_target("the path of a file")?;
    let on_progress = |progress: Progress| match request.step("unpacking", progress.read, progress.total) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let options = OpenOptions { on_progress: Some(&on_progress), ..options(request.args)? };
    let snapshot = match request.content {
        Some(content) => open_bytes(target, content, &options)?,
        None => open_file(Path::new(target), &options)?,
    };
    let Snapshot { memory, format, notes, alternatives } = snapshot;
    let mut connection = Connection::new(memory).with_format(format.to_string());
    connection.notes = notes;
    connection.alternatives =
        alternatives.iter().map(|layout| request.args.clone().with("layout", layout.to_string())).collect();
    Ok(connection)
}

/// The options that the arguments ask for.
fn options(args: &Args) -> Result<OpenOptions<'static>> {
    let layout = match args.text("layout")? {
        None => MemoryLayout::Auto,
        Some(text) => text.parse().map_err(|problem| Error::Argument {
            what: "layout".into(),
            expected: format!("a memory layout ({problem})").into(),
            found: text.to_owned(),
        })?,
    };
    Ok(OpenOptions {
        layout,
        partial: args.flag("partial")?.unwrap_or(false),
        live: args.flag("live")?,
        writable: args.flag("writable")?.unwrap_or(false),
        max_unpacked: args.size("max_unpacked")?,
        unpacked_cache: args.size("unpacked_cache")?,
        parts: args.text("parts")?.map_or_else(Vec::new, |files| files.split(',').map(PathBuf::from).collect()),
        on_progress: None,
    })
}

//! The connector as a plugin: a request as a path and options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: headers, reads.

use std::path::Path;

use memflow_core::{
    Result,
    plugin::{Connection, ConnectorRequest, TargetInfo},
};

use crate::open::{KCORE, Kcore, Options, open as open_path};

#[memflow_derive::connector(
    name = "kcore",
    description = "the memory of this machine, as its Linux kernel shows it in /proc/kcore",
    help = "The target is the path of a kcore; without one it is /proc/kcore. Reading that takes root (CAP_SYS_RAWIO).",
    targets = targets,
    args(
        iomem: path => "a list like /proc/iomem to whose System RAM reads keep; of /proc/kcore it is this machine's",
    ),
)]
fn open(request: &ConnectorRequest<'_>) -> Result<Connection> {
    let options = request.args.path("iomem")?.map_or_else(Options::default, |path| Options::default().with_iomem(path));
    let target = request.target.filter(|target| !target.is_empty()).unwrap_or(KCORE);
    let Kcore { memory, notes, format } = open_path(Path::new(target), &options)?;
    let mut connection = Connection::from(memory).with_format(format);
    connection.notes = notes;
    Ok(connection)
}

/// This machine, if its kernel shows its memory.
fn targets() -> Result<Vec<TargetInfo>> {
    let there = Path::new(KCORE).exists();
    Ok(there.then(|| TargetInfo::new(KCORE, "this machine's memory")).into_iter().collect())
}

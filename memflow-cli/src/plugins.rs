//! Which plugins the command has: those that are built in, and those that are found.
//!
//! Must not know: targets, commands.

use std::path::PathBuf;

use clap::Args;
use memflow_core::{Error, plugin::Inventory};

/// Where plugins are taken from.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct PluginArgs {
    /// Take plugins from this file first, whatever their version; may be repeated
    #[arg(long, value_name = "FILE", global = true)]
    plugin: Vec<PathBuf>,
}

/// The plugins. Nothing is loaded yet.
///
/// # Errors
/// When a file that was named is not a plugin that can be used.
pub(crate) fn inventory(args: &PluginArgs) -> Result<Inventory, Error> {
    let inventory = look(args)?;
    // What was asked for by name must not be missing in silence.
    match inventory.rejected().iter().find(|rejected| args.plugin.contains(&rejected.path)) {
        Some(rejected) => Err(Error::File { path: rejected.path.clone(), problem: rejected.reason.clone().into() }),
        None => Ok(inventory),
    }
}

/// As [`inventory`], with files that were named and cannot be used among the rejected.
///
/// # Errors
/// None but defects of the program.
pub(crate) fn look(args: &PluginArgs) -> Result<Inventory, Error> {
    let mut builder = Inventory::builder()
        .connector::<memflow_snapshot::Plugin>()?
        .connector::<memflow_process::Plugin>()?
        .connector::<memflow_kcore::Plugin>()?
        .connector::<memflow_pcileech::Plugin>()?
        .connector::<memflow_gdb::Plugin>()?
        .os_layer::<memflow_linux::Plugin>()?
        .os_layer::<memflow_win32::Plugin>()?
        .standard_folders();
    #[cfg(target_os = "linux")]
    {
        builder = builder.connector::<memflow_qemu::Plugin>()?;
    }
    for path in &args.plugin {
        builder = builder.file(path);
    }
    Ok(builder.build())
}

//! The OS layer as a plugin: its arguments, and a request as options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: how a kernel is found.

use std::{ops::ControlFlow, sync::Arc};

use memflow_core::{
    Result,
    os::Os,
    plugin::{
        ABI_TEXT, LAYOUT_TEXT, OsLayer, OsRequest,
        descriptor::{HOST_TARGET, join, joined_len},
    },
};

use crate::{kernel::LinuxOptions, os::LinuxOs};

const ENTRIES: &[(&str, &str)] = &[
    ("kind", "os"),
    ("name", "linux"),
    ("version", env!("CARGO_PKG_VERSION")),
    ("abi", ABI_TEXT),
    ("target", HOST_TARGET),
    ("entry", "memflow_plugin_linux"),
    ("description", "Linux without a profile: processes, modules, symbols, the log"),
    ("arg", "kernel_root:number::value of the page-table root register (CR3) to start from"),
    ("layout", LAYOUT_TEXT),
];
static DESCRIPTOR: [u8; joined_len(ENTRIES)] = join(ENTRIES);

/// The OS layer as a plugin.
#[derive(Debug)]
pub struct Plugin;

impl OsLayer for Plugin {
    const DESCRIPTOR: &'static [u8] = &DESCRIPTOR;

    fn open(request: OsRequest<'_>) -> Result<Arc<dyn Os>> {
        let progress = |stage: &'static str, done, total| match request.step(stage, done, total) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let options = LinuxOptions { kernel_root: request.args.number("kernel_root")?, progress: Some(&progress) };
        Ok(Arc::new(LinuxOs::open(request.memory.clone(), &options)?))
    }
}

memflow_core::export_plugin!(memflow_plugin_linux, os_layer Plugin);

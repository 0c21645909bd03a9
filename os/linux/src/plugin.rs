//! The OS layer as a plugin: its arguments, and a request as options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: how a kernel is found.

use std::ops::ControlFlow;

use memflow_core::{Result, plugin::OsRequest};

use crate::{kernel::LinuxOptions, os::LinuxOs};

#[memflow_derive::os_layer(
    name = "linux",
    description = "Linux without a profile: processes, modules, symbols, the log",
    args(
        kernel_root: number => "value of the page-table root register (CR3) to start from",
        layout_cache: path => "folder in which what is learnt of a kernel is kept for the next run; off for none",
    ),
)]
fn open(request: OsRequest<'_>) -> Result<LinuxOs> {
    let progress = |stage: &'static str, done, total| match request.step(stage, done, total) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let layout_cache = request.args.path("layout_cache")?.filter(|folder| folder.as_os_str() != "off");
    let options = LinuxOptions {
        kernel_root: request.args.number("kernel_root")?,
        progress: Some(&progress),
        layout_cache: layout_cache.as_deref(),
    };
    LinuxOs::open(request.memory.clone(), &options)
}

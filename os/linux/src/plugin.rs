//! The OS layer as a plugin: its arguments, and a request as options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: how a kernel is found.

use std::ops::ControlFlow;

use memflow_core::{Result, plugin::OsRequest};

use crate::{kernel::LinuxOptions, os::LinuxOs};

#[memflow_derive::os_layer(
    name = "linux",
    description = "Linux without a profile: processes, modules, symbols, the log",
    args(kernel_root: number => "value of the page-table root register (CR3) to start from"),
)]
fn open(request: OsRequest<'_>) -> Result<LinuxOs> {
    let progress = |stage: &'static str, done, total| match request.step(stage, done, total) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let options = LinuxOptions { kernel_root: request.args.number("kernel_root")?, progress: Some(&progress) };
    LinuxOs::open(request.memory.clone(), &options)
}

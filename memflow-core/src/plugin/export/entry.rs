//! The entry of a plugin: its definition as the table that its file exports.
//!
//! Owns: requests of the host as ours, our answers as the host's. Must not know: what is opened.

use std::ops::ControlFlow;

use memflow_abi::{
    Argument, ConnectorRequest as ConnectorWire, FailureSink, Grows, Host, Memory, OpenReport, Os as OsHandle,
    OsRequest as OsWire, PluginEntry, Progress, RecordSink, Text,
};

use super::{
    guard::{self, fallible, list},
    memory::memory,
    os::{complete, os},
};
use crate::plugin::{
    args::{ArgValue, Args},
    definition::{Connection, Connector, ConnectorRequest, OsLayer, OsRequest},
    import, log,
    wire::{raw, records},
};

/// The entry of a connector, for the symbol that its descriptor names.
pub const fn connector<C: Connector>() -> PluginEntry {
    let mut entry = entry(C::DESCRIPTOR);
    entry.open_connector = Some(open_connector::<C>);
    if C::LISTS_TARGETS {
        entry.targets = Some(targets::<C>);
    }
    entry
}

/// The entry of an OS layer, for the symbol that its descriptor names.
pub const fn os_layer<O: OsLayer>() -> PluginEntry {
    let mut entry = entry(O::DESCRIPTOR);
    entry.open_os = Some(open_os::<O>);
    entry
}

const fn entry(descriptor: &'static [u8]) -> PluginEntry {
    let mut entry = PluginEntry::rust();
    entry.descriptor = Text::bytes(descriptor);
    entry.attach = Some(attach);
    entry.set_log_level = Some(set_log_level);
    entry
}

unsafe extern "C" fn attach(host: Grows<Host>) {
    // SAFETY: the ABI's contract: the host's offer is whole until the process ends.
    guard::quietly((), || unsafe { log::attach(host) });
}

unsafe extern "C" fn set_log_level(level: u32) {
    guard::quietly((), || log::set_level_of_plugin(level));
}

unsafe extern "C" fn targets<C: Connector>(sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { list(sink, failure, || C::targets().map(complete)) }
}

unsafe extern "C" fn open_connector<C: Connector>(
    request: Grows<ConnectorWire>,
    out: *mut Memory,
    failure: FailureSink,
) -> i32 {
    let open = || {
        // SAFETY: the ABI's contract: the request is whole for the call.
        let wire = unsafe { raw::structure(request) }.ok_or_else(|| records::broken("no request"))?;
        // The handle is ours from here on, whatever comes next.
        let input = if wire.input.table.is_null() {
            None
        } else {
            // SAFETY: the ABI's contract: it is a handle that is handed over.
            Some(unsafe { import::os(wire.input, "the host", None) }?)
        };
        // SAFETY: the ABI's contract: texts and arguments are whole for the call.
        let args = unsafe { arguments(wire.arguments, wire.argument_count) };
        // SAFETY: as above.
        let target = unsafe { raw::text(wire.target) };
        // SAFETY: as above.
        let content = unsafe { raw::bytes(wire.content) };
        // INVARIANT: of the request, so it can be called for the call.
        let teller = Teller(wire.progress);
        let connection = C::open(&ConnectorRequest {
            target: target.as_deref(),
            content,
            args: &args,
            input,
            progress: &|stage, done, total| teller.step(stage, done, total),
        })?;
        // SAFETY: the ABI's contract: the report can be called for the call.
        let opened = unsafe { report(wire.report, connection) };
        // SAFETY: the ABI's contract: `out` is the callee's to fill in.
        unsafe { out.write(opened) };
        Ok(())
    };
    // SAFETY: the ABI's contract: the sink can be called for the call.
    unsafe { fallible(failure, open) }
}

unsafe extern "C" fn open_os<O: OsLayer>(request: Grows<OsWire>, out: *mut OsHandle, failure: FailureSink) -> i32 {
    let open = || {
        // SAFETY: the ABI's contract: the request is whole for the call.
        let wire = unsafe { raw::structure(request) }.ok_or_else(|| records::broken("no request"))?;
        // SAFETY: the ABI's contract: it is a handle that is handed over.
        let memory = unsafe { import::memory(wire.memory, "the host") }?;
        // SAFETY: the ABI's contract: texts and arguments are whole for the call.
        let args = unsafe { arguments(wire.arguments, wire.argument_count) };
        // INVARIANT: of the request, so it can be called for the call.
        let teller = Teller(wire.progress);
        let found = O::open(OsRequest {
            memory,
            args: &args,
            progress: &|stage, done, total| teller.step(stage, done, total),
        })?;
        // SAFETY: the ABI's contract: `out` is the callee's to fill in.
        unsafe { out.write(os(found)) };
        Ok(())
    };
    // SAFETY: the ABI's contract: the sink can be called for the call.
    unsafe { fallible(failure, open) }
}

/// Whom to tell progress.
struct Teller(
    // INVARIANT: its function can be called with its context for as long as this lives.
    Progress,
);

// SAFETY: the ABI lets any thread call the function.
unsafe impl Sync for Teller {}

impl Teller {
    fn step(&self, stage: &str, done: u64, total: u64) -> ControlFlow<()> {
        match self.0.step {
            // SAFETY: it can be called (INVARIANT); the text is whole for the call.
            Some(step) if unsafe { step(self.0.context, Text::new(stage), done, total) } != 0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// # Safety
/// As [`raw::items`], and each text as [`raw::bytes`].
unsafe fn arguments(first: *const Argument, count: usize) -> Args {
    let mut args = Args::new();
    // SAFETY: the caller's promise.
    for argument in unsafe { raw::items(first, count) }.unwrap_or_default() {
        // SAFETY: the caller's promise.
        let name = unsafe { raw::string(argument.name) };
        // SAFETY: the caller's promise.
        let value = unsafe { raw::optional_string(argument.value) };
        args.set(name, value.map_or(ArgValue::Bare, ArgValue::Text));
    }
    args
}

/// Tells what was opened, and makes a handle of its memory.
///
/// # Safety
/// The functions of the report can be called with its context.
unsafe fn report(report: OpenReport, connection: Connection) -> Memory {
    let Connection { memory: opened, format, notes, alternatives } = connection;
    // SAFETY: the caller's promise; the text is whole for the call.
    let tell = |take: Option<unsafe extern "C" fn(_, Text)>, text: &str| unsafe {
        if let Some(take) = take {
            take(report.context, Text::new(text));
        }
    };
    tell(report.format, &format);
    for note in &notes {
        tell(report.note, note);
    }
    for alternative in &alternatives {
        tell(report.alternative, &alternative.to_string());
    }
    memory(opened)
}

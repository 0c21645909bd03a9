//! The door of a plugin: what it exports, and what it is asked to open.
//!
//! A plugin exports one [`PluginEntry`] as a data symbol; the descriptor in its file names the symbol. Nothing of the plugin runs
//! before the descriptor has been read and accepted.
//!
//! Must not know: how plugins are found.

use core::ffi::c_void;

use crate::{
    Grows,
    growing::{TypeLayout, fixed, growing, numbers},
    memory::Memory,
    os::Os,
    report::{FailureSink, RecordSink, Text},
};

numbers! {
    /// Levels of log messages; as a most verbose level, 0 turns the log off.
    log_level: u32 {
        /// Nothing is logged.
        OFF = 0,
        /// Something failed.
        ERROR = 1,
        /// A result is worse than asked for.
        WARN = 2,
        /// What a person follows.
        INFO = 3,
        /// Choices.
        DEBUG = 4,
        /// Everything.
        TRACE = 5,
    }
}

growing! {
    /// A message for the host's log; borrowed for the call.
    LogMessage, LogMessageRef, LogMessagePrefix {
        /// One of [`log_level`].
        level: u32,
        /// Line in `file`, 0 if unknown.
        line: u32,
        /// Who speaks: a module path.
        target: Text,
        /// What is said.
        message: Text,
        /// Source file, if known.
        file: Text,
        /// Module path, if known.
        module: Text,
    }
}

growing! {
    /// What the host offers. Valid until the process ends.
    Host, HostRef, HostPrefix {
        /// Takes a log message.
        log: Option<unsafe extern "C" fn(message: Grows<LogMessage>)>,
        /// Name and version of the host, for messages.
        name: Text,
    }
}

fixed! {
    /// An argument.
    Argument {
        /// Its name.
        name: Text,
        /// Its value.
        value: Text,
    }
}

fixed! {
    /// Where progress is told.
    Progress {
        /// First argument of `step`.
        context: *mut c_void,
        /// Takes a stage in words, how much is done, and how much there is in all (0 for unknown). Anything but zero asks to stop: the
        /// call then fails with [`failure::CANCELLED`](crate::failure::CANCELLED). Any thread may call it. Absent when nobody listens.
        step: Option<unsafe extern "C" fn(context: *mut c_void, stage: Text, done: u64, total: u64) -> i32>,
    }
}

fixed! {
    /// Where a connector tells what it opened.
    OpenReport {
        /// First argument of every function.
        context: *mut c_void,
        /// What the target is, in a few words ("ELF core, zstd").
        format: Option<unsafe extern "C" fn(context: *mut c_void, format: Text)>,
        /// Something that a person should know: what is missing, what was assumed.
        note: Option<unsafe extern "C" fn(context: *mut c_void, note: Text)>,
        /// Arguments (`key=value,…`) to open the target with instead, if no operating system is found in what was opened; the likelier
        /// first.
        alternative: Option<unsafe extern "C" fn(context: *mut c_void, arguments: Text)>,
    }
}

growing! {
    /// What a connector is asked to open. Everything is borrowed for the call, but for `input`.
    ConnectorRequest, ConnectorRequestRef, ConnectorRequestPrefix {
        /// What to open, in the connector's own terms; none if it was not said.
        target: Text,
        /// The bytes of the target instead of a place to find them at; only for connectors that accept `content`. A null pointer means
        /// that there are none; `target` is then a name for messages.
        content: Text,
        /// The arguments.
        arguments: *const Argument,
        /// Number of arguments.
        argument_count: usize,
        /// Progress.
        progress: Progress,
        /// An operating system to look into, only for connectors that accept `os`. The connector owns the handle.
        input: Os,
        /// Takes notes about what was opened.
        report: OpenReport,
    }
}

growing! {
    /// What an OS layer is asked to recognise. Everything is borrowed for the call, but for `memory`.
    OsRequest, OsRequestRef, OsRequestPrefix {
        /// The physical memory. The OS layer owns the handle.
        memory: Memory,
        /// The arguments.
        arguments: *const Argument,
        /// Number of arguments.
        argument_count: usize,
        /// Progress.
        progress: Progress,
    }
}

growing! {
    /// A target that a connector could open now.
    TargetRecord, TargetRecordRef, TargetRecordPrefix {
        /// What to give as `target`.
        name: Text,
        /// For people.
        description: Text,
    }
}

growing! {
    /// What a plugin exports.
    PluginEntry, PluginEntryRef, PluginEntryPrefix {
        /// The descriptor, as in the section of the file: bytes.
        descriptor: Text,
        /// From Rust: the layout of every structure of this crate as the plugin was built with it, a [`TypeLayout`]; compared at load.
        /// Null from other languages.
        layout: *const c_void,
        /// Called once after loading, before anything else.
        attach: Option<unsafe extern "C" fn(host: Grows<Host>)>,
        /// Sets the most verbose [`log_level`] that the plugin sends; called after `attach` and when the host's changes.
        set_log_level: Option<unsafe extern "C" fn(level: u32)>,
        /// For connectors: opens a target and fills in `memory`.
        open_connector: Option<
            unsafe extern "C" fn(request: Grows<ConnectorRequest>, memory: *mut Memory, failure: FailureSink) -> i32,
        >,
        /// For OS layers: recognises an operating system and fills in `os`.
        open_os:
            Option<unsafe extern "C" fn(request: Grows<OsRequest>, os: *mut Os, failure: FailureSink) -> i32>,
        /// For connectors: [`TargetRecord`]s. Absent when targets cannot be listed.
        targets: Option<unsafe extern "C" fn(sink: RecordSink, failure: FailureSink) -> i32>,
    }
}

// SAFETY: an entry is a constant of its plugin: nothing changes it, and its pointers are to other constants and to functions.
unsafe impl Sync for PluginEntry {}

// SAFETY: as for `PluginEntry`: a host's offer is a constant.
unsafe impl Sync for Host {}

impl PluginEntry {
    /// An entry with the layout of this build and no functions.
    pub const fn rust() -> Self {
        Self { layout: core::ptr::from_ref::<TypeLayout>(crate::LAYOUT).cast(), ..Self::empty() }
    }
}

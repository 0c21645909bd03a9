//! Log records of plugins in the host's log.
//!
//! A loaded plugin has a `log` of its own. Its records go through the host's logger, and what is not wanted there is not made.
//!
//! Owns: both ends: what a host offers, and the logger that a plugin installs. Must not know: what is logged, plugins' files.

use std::sync::OnceLock;

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use memflow_abi::{Grows, Host, LogMessage, Text, log_level};

use super::wire::raw;

/// Levels of both sides.
const LEVELS: &[(Level, u32)] = &[
    (Level::Error, log_level::ERROR),
    (Level::Warn, log_level::WARN),
    (Level::Info, log_level::INFO),
    (Level::Debug, log_level::DEBUG),
    (Level::Trace, log_level::TRACE),
];

/// The host, for plugins.
pub(super) static HOST: Host = {
    let mut host = Host::empty();
    host.log = Some(take);
    host.name = Text::new(concat!("memflow ", env!("CARGO_PKG_VERSION")));
    host
};

/// The most verbose level that the host logs now, as a number of the ABI.
pub(super) fn host_level() -> u32 {
    let level = ::log::max_level().to_level();
    LEVELS.iter().find(|(known, _)| Some(*known) == level).map_or(log_level::OFF, |(_, number)| *number)
}

/// Takes a message of a plugin into the host's log.
unsafe extern "C" fn take(message: Grows<LogMessage>) {
    // SAFETY: the ABI's contract: the message is whole for the call.
    let Some(wire) = (unsafe { raw::structure(message) }) else { return };
    let Some((level, _)) = LEVELS.iter().find(|(_, number)| *number == wire.level) else { return };
    // SAFETY: the ABI's contract: so are its texts.
    let [target, text, file, module] =
        [wire.target, wire.message, wire.file, wire.module].map(|text| unsafe { raw::text(text) });
    // A logger that panics must not take the plugin with it.
    let pass_on = || {
        ::log::logger().log(
            &Record::builder()
                .level(*level)
                .target(target.as_deref().unwrap_or("plugin"))
                .args(format_args!("{}", text.as_deref().unwrap_or_default()))
                .file(file.as_deref())
                .line((wire.line != 0).then_some(wire.line))
                .module_path(module.as_deref())
                .build(),
        );
    };
    drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(pass_on)));
}

/// The logger of a loaded plugin.
#[derive(Debug)]
struct ToHost;

static TO_HOST: ToHost = ToHost;
/// Where the records go.
static TAKE: OnceLock<unsafe extern "C" fn(Grows<LogMessage>)> = OnceLock::new();

/// Installs the logger of a plugin. What does not work leaves the plugin without a log, which nobody has to know of.
///
/// # Safety
/// The host's offer is whole, and stays so until the process ends.
pub(super) unsafe fn attach(host: Grows<Host>) {
    // SAFETY: the caller's promise.
    let Some(host) = (unsafe { raw::structure(host) }) else { return };
    let Some(take) = host.log else { return };
    if TAKE.set(take).is_ok() {
        // Refused where a logger is there already, which only a plugin that brings its own has.
        drop(::log::set_logger(&TO_HOST));
    }
}

/// Sets what a plugin logs at most.
pub(super) fn set_level_of_plugin(level: u32) {
    let known = LEVELS.iter().find(|(_, number)| *number == level);
    ::log::set_max_level(match known {
        Some((level, _)) => level.to_level_filter(),
        None if level == log_level::OFF => LevelFilter::Off,
        // A level of a later version is more verbose than those of today.
        None => LevelFilter::Trace,
    });
}

impl Log for ToHost {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let Some(take) = TAKE.get() else { return };
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        let mut message = LogMessage::empty();
        message.level = LEVELS.iter().find(|(level, _)| *level == record.level()).map_or(0, |(_, number)| *number);
        message.line = record.line().unwrap_or(0);
        message.target = Text::new(record.target());
        message.message = Text::new(&text);
        message.file = record.file().map_or(Text::NONE, Text::new);
        message.module = record.module_path().map_or(Text::NONE, Text::new);
        // SAFETY: the host's function takes a message that is whole for the call.
        unsafe { take(Grows::new(&message)) };
    }

    fn flush(&self) {}
}

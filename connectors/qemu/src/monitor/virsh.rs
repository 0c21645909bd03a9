//! The human monitor of a guest that libvirt started, through libvirt's own tool.
//!
//! Owns: the process `virsh`, what is typed to it and where its answers end. Must not know: what is asked.
//! Keeps: the process ends with the session, whatever it does; nothing of libvirt is linked. A domain is named by its uuid.
//! Source: virsh(1): `qemu-monitor-command`, `echo`; what follows `--` is no option, words in single quotes are one.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    io::ErrorKind,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use memflow_core::{Error, Result};

use super::stream::Stream;

/// Begins a line behind each answer. Nothing that QEMU prints does.
const END: &str = "memflow-end-of-answer";
/// What virsh begins a line of input with, where its input is no terminal; the line itself may follow.
const PROMPT: &str = "virsh # ";
/// Lines of what virsh says went wrong.
const MAX_ERRORS: usize = 3;

/// A `virsh` that waits for commands.
pub(crate) struct Virsh {
    process: Child,
    stream: Stream,
    domain: String,
}

impl Virsh {
    /// Starts the tool. `connection` is libvirt's address, unless the user's own settings name one.
    ///
    /// # Errors
    /// There is no such program.
    pub(super) fn start(connection: &str, domain: &str, limit: Duration) -> Result<Self> {
        let context = |error| Error::io("virsh, which speaks for libvirt", error);
        // A domain's uuid is all that may stand between the tool's quotes.
        if domain.is_empty() || !domain.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-') {
            return Err(context(ErrorKind::InvalidInput.into()));
        }
        let (ours, theirs) = UnixStream::pair().map_err(context)?;
        let descriptor = || theirs.try_clone().map(|socket| Stdio::from(OwnedFd::from(socket))).map_err(context);
        let mut command = Command::new("virsh");
        command.arg("--quiet").env("LC_ALL", "C");
        let chosen = ["VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI"];
        if !chosen.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
            command.args(["--connect", connection]);
        }
        command.stdin(descriptor()?).stdout(descriptor()?).stderr(descriptor()?);
        let process = command.spawn().map_err(context)?;
        Ok(Self { process, stream: Stream::over(ours, limit), domain: domain.to_owned() })
    }

    /// Runs a command of the human monitor and returns what it printed.
    pub(super) fn run(&mut self, command: &str) -> Result<String> {
        if command.contains(['\'', '\n', '\\']) {
            return Err(Error::io("a command for virsh", ErrorKind::InvalidInput.into()));
        }
        let ask = format!("qemu-monitor-command --hmp --domain {} -- '{command}'\necho {END}\n", self.domain);
        self.stream.send(ask.as_bytes())?;
        // virsh does not end what it echoes with a line's end, and the next prompt follows it on the line.
        let end = format!("\n{END}");
        let answer = self.stream.until(end.as_bytes(), "an answer of virsh");
        let bytes = match &answer {
            Ok(answer) => answer.strip_suffix(end.as_bytes()).unwrap_or(answer),
            // A virsh that gives up has said why.
            Err(_) => self.stream.unread(),
        };
        let text = String::from_utf8_lossy(bytes).replace('\r', "");
        // The others are the echo of what is typed.
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(PROMPT)).collect();
        let errors: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("error: ")).take(MAX_ERRORS).collect();
        if !errors.is_empty() {
            let why = errors.join("; ").escape_debug().to_string();
            return Err(Error::Unsupported { what: "asking QEMU through virsh".to_owned(), why });
        }
        answer.map(|_| lines.join("\n"))
    }
}

impl Drop for Virsh {
    fn drop(&mut self) {
        // It may wait for a guest that does not answer.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

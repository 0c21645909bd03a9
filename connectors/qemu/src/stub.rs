//! Registers that only QEMU's GDB stub gives.
//!
//! Owns: a stub that QEMU opens for a moment, at a socket that nobody else can reach, and closing it again.
//! Must not know: packets, which registers there are.
//! Keeps: a stub that somebody else has stays theirs, as QEMU has one at a time; a guest that ran runs on, also after an error; the
//! stub is closed and its folder gone before anything is returned.
//! Source: QEMU gdbstub.c (`gdbserver_start`: the stub's socket is the character device `gdb`; `gdb_chr_event`: whoever connects stops
//! the guest), hmp-commands.hx (`gdbserver`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    fs::Permissions,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use memflow_core::{
    Error, Result,
    error::ResultExt,
    memory::{RunState, VcpuRegisters},
};
use memflow_gdb_stub::{Address, Options, vcpus};
use tempfile::TempDir;

use crate::{
    host::HostProcess,
    monitor::{MonitorConfig, Session, parse_running, with_first},
};

/// Where QEMU has its temporary files.
const TEMPORARY: &str = "/tmp";
/// What names of our folders begin with.
const PREFIX: &str = "memflow-gdb-";
const SOCKET: &str = "gdb.sock";
/// Times that the monitors are asked to put everything back: one may be in use by another client for a while.
const TRIES: usize = 3;

/// Reads the registers of each vCPU through a stub that QEMU opens for that.
///
/// # Errors
/// QEMU has a stub already, or cannot open one where this process reaches it; the stub or the monitors don't answer in time. Where the
/// stub could not be closed or the guest let go, the error says so.
pub(crate) fn read(process: &HostProcess, monitors: &[MonitorConfig], limit: Duration) -> Result<Vec<VcpuRegisters>> {
    let arguments = process.arguments().map_err(|error| process.refused("cmdline", error))?;
    if let Some(theirs) = stub_of_device(&arguments) {
        return Err(in_use(theirs));
    }
    let place = Place::make(process)?;
    let started = with_first(process, monitors, limit, &mut Vec::new(), |session| start(session, &place));
    // Nobody has connected before this, so before this the guest was not stopped.
    let ran = matches!(started, Ok(Ok(true)));
    let read = started.and_then(|started| started).and_then(|_| {
        let mut options = Options::default();
        options.timeout = limit;
        vcpus(&Address::Unix(place.socket()), &options)
    });
    let put_back = || with_first(process, monitors, limit, &mut Vec::new(), |session| put_back(session, &place, ran));
    let mut done = put_back();
    for _ in 1..TRIES {
        if done.is_ok() || !process.is_alive() {
            break;
        }
        done = put_back();
    }
    let done = done.context(|| {
        "QEMU's gdb stub may still be open and the guest stand; `gdbserver none` and `cont` at its monitor help".into()
    });
    match (read, done) {
        (Err(read), Err(done)) => Err(done.context(read.to_string())),
        (read, done) => done.and(read),
    }
}

/// Opens the stub, unless QEMU has one. Says whether the guest runs.
///
/// # Errors
/// The outer one is the monitor's; the inner one is QEMU's, and another monitor would say no more.
fn start(session: &mut Session, place: &Place) -> Result<Result<bool>> {
    let before = session.run("info chardev")?;
    if let Some(theirs) = stub_socket(&before).filter(|theirs| !is_left_over(theirs)) {
        return Ok(Err(in_use(theirs)));
    }
    let ran = parse_running(&session.run("info status")?)? == RunState::Running;
    let printed = session.run(&format!("gdbserver unix:{},server=on,wait=off", place.seen_by_qemu.display()))?;
    if stub_socket(&session.run("info chardev")?).is_some_and(|socket| place.is_in(socket)) {
        return Ok(Ok(ran));
    }
    let why = printed.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let why = if why.is_empty() { "it does not say why".to_owned() } else { format!("QEMU says: {why}") };
    Ok(Err(Error::Unsupported { what: "opening a gdb stub in this QEMU".to_owned(), why }))
}

/// Closes the stub, if it is ours, and lets the guest run, if it did.
fn put_back(session: &mut Session, place: &Place, ran: bool) -> Result<()> {
    if stub_socket(&session.run("info chardev")?).is_some_and(|socket| place.is_in(socket)) {
        session.run("gdbserver none")?;
    }
    if !ran || parse_running(&session.run("info status")?)? == RunState::Running {
        return Ok(());
    }
    // The stub was closed with our order to run on still unread, or was not in a state to take one.
    let printed = session.run("cont")?;
    match parse_running(&session.run("info status")?)? {
        RunState::Running => Ok(()),
        _ => Err(Error::Unsupported {
            what: "`cont` for this guest".to_owned(),
            why: format!("QEMU says: {}", printed.trim()),
        }),
    }
}

fn in_use(theirs: &str) -> Error {
    Error::Unsupported {
        what: "a gdb stub of our own in this QEMU".to_owned(),
        why: format!("it has one already, {theirs}, and only one at a time; its target is opened with gdb:ADDRESS"),
    }
}

/// The socket of QEMU's stub in what `info chardev` prints.
fn stub_socket(printed: &str) -> Option<&str> {
    printed.lines().find_map(|line| line.trim().strip_prefix("gdb: filename=")).map(str::trim)
}

/// Whether a stub is what a process of ours left that was killed: nobody is connected, and it is at such a socket.
fn is_left_over(socket: &str) -> bool {
    socket.strip_prefix(&format!("disconnected:unix:{TEMPORARY}/{PREFIX}")).is_some()
}

/// The stub that the command line opens at a character device, which `info chardev` does not tell from others.
fn stub_of_device(arguments: &[String]) -> Option<&str> {
    let pairs = arguments.iter().zip(arguments.iter().skip(1));
    let mut values = pairs.filter(|(option, _)| matches!(option.as_str(), "-gdb" | "--gdb")).map(|(_, value)| value);
    values.find(|value| value.starts_with("chardev:")).map(String::as_str)
}

/// A folder that QEMU's user and the superuser may enter, and nobody else.
struct Place {
    folder: TempDir,
    seen_by_qemu: PathBuf,
}

impl Place {
    fn make(process: &HostProcess) -> Result<Self> {
        let no_folder = |error| Error::io(format!("a folder for a socket of QEMU's in {TEMPORARY}"), error);
        let through = process.own_path(Path::new(TEMPORARY));
        let file = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
        // The plain path, where it leads to the same folder, is there also when the process has ended.
        let plain = Path::new(TEMPORARY);
        let parent = match (file(&through), file(plain)) {
            (Ok(theirs), Ok(ours)) if theirs == ours => plain.to_owned(),
            _ => through,
        };
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent)
            .map_err(no_folder)?;
        let name = folder.path().file_name().unwrap_or_default();
        let seen_by_qemu = Path::new(TEMPORARY).join(name).join(SOCKET);
        let (user, group) = process.owner().map_err(|error| process.refused("status", error))?;
        if user != rustix::process::geteuid() {
            rustix::fs::chown(folder.path(), Some(user), Some(group))
                .map_err(|error| no_folder(error.into()))
                .context(|| {
                    format!("QEMU runs as user {}, and only the superuser can give it one", user.as_raw()).into()
                })?;
        }
        Ok(Self { folder, seen_by_qemu })
    }

    /// The socket as this process reaches it.
    fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    fn is_in(&self, socket: &str) -> bool {
        self.seen_by_qemu.to_str().is_some_and(|path| socket.contains(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stub_is_the_device_of_its_name() {
        let printed = "compat_monitor0: filename=unix:m.sock,server=on\n#chr039: filename=gdb\n\
            gdb: filename=disconnected:unix:/tmp/memflow-gdb-aB3/gdb.sock,server=on\nparallel0: filename=vc\n";
        let socket = stub_socket(printed).unwrap_or_default();
        assert_eq!(socket, "disconnected:unix:/tmp/memflow-gdb-aB3/gdb.sock,server=on");
        assert!(is_left_over(socket));
        // One that is in use, and one of somebody else's.
        assert!(!is_left_over("unix:/tmp/memflow-gdb-aB3/gdb.sock,server=on"));
        assert!(!is_left_over("disconnected:tcp:0.0.0.0:1234,server=on"));
        assert_eq!(stub_socket("#chr039: filename=gdb\nmy-gdb: filename=vc\n"), None);
    }

    #[test]
    fn stub_at_a_device_is_seen_in_the_command_line() {
        let of = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            stub_of_device(&words).map(str::to_owned)
        };
        assert_eq!(of("qemu -chardev socket,id=a -gdb chardev:a").as_deref(), Some("chardev:a"));
        assert_eq!(of("qemu -gdb tcp::1234 -name chardev:a -gdb"), None);
    }
}

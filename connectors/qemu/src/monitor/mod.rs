//! QEMU's monitors: asking a running QEMU what only it knows.
//!
//! Owns: where monitors are, and a session with the first one that answers. Must not know: what is asked.
//! Keeps: a session lasts one question and its follow-ups, so that other tools get their turn: a monitor serves one client at a
//! time. All of a session has one time limit; whatever a monitor does, it ends.

mod answers;
mod human;
mod qmp;
mod stream;
mod virsh;

use std::{fmt, path::PathBuf, time::Duration};

use memflow_core::{Error, Result};

pub(crate) use self::answers::{parse_backends, parse_running};
pub use self::{
    answers::{FlatRange, parse_blocks, parse_flat_view, parse_host_address},
    human::plain_text,
};
use self::{human::Human, qmp::Qmp, stream::Stream, virsh::Virsh};
use crate::host::HostProcess;

/// What is spoken at a monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// JSON, for programs.
    Qmp,
    /// Lines of text, for people.
    Human,
}

/// Where a monitor listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MonitorAddress {
    /// A socket in the guest's file system; relative to the folder that QEMU was started in.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
    /// A socket that QEMU was started with, by its descriptor.
    Descriptor(u32),
    /// Whatever libvirt is connected to, by way of its tool `virsh`: the connection's address, and the domain's uuid.
    Libvirt {
        /// Address of the libvirt that started the guest, `qemu:///system`.
        connection: String,
        /// The uuid of the domain.
        domain: String,
    },
}

impl MonitorAddress {
    /// A port of a host; no host, or any address, is this one.
    pub fn tcp(host: &str, port: &str) -> Self {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Self::Tcp(match bare {
            "" | "0.0.0.0" => format!("127.0.0.1:{port}"),
            "::" => format!("[::1]:{port}"),
            _ if bare.contains(':') => format!("[{bare}]:{port}"),
            _ => format!("{bare}:{port}"),
        })
    }
}

impl fmt::Display for MonitorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
            Self::Descriptor(number) => write!(f, "descriptor {number}"),
            Self::Libvirt { connection, .. } => write!(f, "{connection} through virsh"),
        }
    }
}

/// A monitor of a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonitorConfig {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it listens.
    pub address: MonitorAddress,
}

impl fmt::Display for MonitorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Qmp => "QMP",
            Protocol::Human => "HMP",
        };
        write!(f, "{protocol} at {}", self.address)
    }
}

/// A conversation with one monitor.
pub(crate) enum Session {
    Qmp(Qmp),
    Human(Human),
    Virsh(Virsh),
}

impl Session {
    /// Connects to a monitor of a process; all of the session has to be over within `limit`.
    ///
    /// # Errors
    /// Nobody listens, or nobody greets in time, as when another client is connected.
    pub(crate) fn open(process: &HostProcess, monitor: &MonitorConfig, limit: Duration) -> Result<Self> {
        if let MonitorAddress::Libvirt { connection, domain } = &monitor.address {
            return Virsh::start(connection, domain, limit).map(Self::Virsh);
        }
        let stream = Stream::connect(process, &monitor.address, limit)?;
        match monitor.protocol {
            Protocol::Qmp => Qmp::greet(stream).map(Self::Qmp),
            Protocol::Human => Human::greet(stream).map(Self::Human),
        }
    }

    /// Runs a command of the human monitor and returns what it prints.
    ///
    /// # Errors
    /// No answer in time, or one that is none.
    pub(crate) fn run(&mut self, command: &str) -> Result<String> {
        match self {
            Self::Qmp(qmp) => qmp.human(command),
            Self::Human(human) => human.run(command),
            Self::Virsh(virsh) => virsh.run(command),
        }
    }
}

/// Has `ask` talk to the first monitor that answers it. What the ones before did wrong is added to `notes`.
///
/// # Errors
/// None answers; the error of the last.
pub(crate) fn with_first<T>(
    process: &HostProcess,
    monitors: &[MonitorConfig],
    limit: Duration,
    notes: &mut Vec<String>,
    mut ask: impl FnMut(&mut Session) -> Result<T>,
) -> Result<T> {
    let mut failed: Option<Error> = None;
    let none = || Error::Unsupported {
        what: "a guest without a monitor that can be connected to".to_owned(),
        why: "start it with `-qmp unix:PATH,server=on,wait=off`, or name one with monitor=".to_owned(),
    };
    for monitor in monitors {
        if !process.is_alive() {
            return Err(process.refused("monitor", rustix::io::Errno::SRCH.into()));
        }
        match Session::open(process, monitor, limit).and_then(|mut session| ask(&mut session)) {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                let error = error.context(format!("monitor ({monitor})"));
                log::debug!("{error}");
                notes.push(error.to_string());
                // The first may say why, and the next only that it is no way either.
                failed = Some(match failed.take() {
                    Some(before) => error.context(format!("{before}; then")),
                    None => error,
                });
            }
        }
    }
    Err(failed.unwrap_or_else(none))
}

//! A socket with one deadline for everything that is done with it.
//!
//! Owns: connecting without blocking, reading and writing until the deadline, a limit on what is received.
//! Must not know: what is said. Keeps: no call lasts longer than the deadline; nothing grows beyond the limit.
//! Source: unix(7), connect(2) (a full queue of a listening socket blocks, or is EAGAIN).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use memflow_core::{Error, Result};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

use super::MonitorAddress;
use crate::host::HostProcess;

/// Most bytes that one session receives. The largest answer, the address spaces of a machine with hundreds of devices, has some MiB.
const MAX_RECEIVED: usize = 32 << 20;

pub(super) struct Stream {
    socket: Socket,
    deadline: Instant,
    limit: Duration,
    pending: Vec<u8>,
    received: usize,
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.set_read_timeout(Some(timeout)).and(socket.set_write_timeout(Some(timeout))),
            Self::Tcp(socket) => socket.set_read_timeout(Some(timeout)).and(socket.set_write_timeout(Some(timeout))),
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(buf),
            Self::Tcp(socket) => socket.read(buf),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(bytes),
            Self::Tcp(socket) => socket.write(bytes),
        }
    }
}

impl Stream {
    /// Connects to a monitor of a process.
    pub(super) fn connect(process: &HostProcess, address: &MonitorAddress, limit: Duration) -> Result<Self> {
        let deadline = Instant::now().checked_add(limit).unwrap_or_else(Instant::now);
        let socket = match address {
            MonitorAddress::Unix(path) => connect_unix(&process.own_path(path), deadline).map(Socket::Unix),
            MonitorAddress::Descriptor(number) => {
                bound_path(process, *number).and_then(|path| connect_unix(Path::new(&path), deadline)).map(Socket::Unix)
            }
            MonitorAddress::Tcp(address) => connect_tcp(address, deadline).map(Socket::Tcp),
            // That is no socket of the guest's.
            MonitorAddress::Libvirt { .. } => Err(ErrorKind::InvalidInput.into()),
        };
        let socket = socket.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => late("a connection", limit),
            _ => Error::io("connecting", error),
        })?;
        Ok(Self { socket, deadline, limit, pending: Vec::new(), received: 0 })
    }

    /// A connection that is there already.
    pub(super) fn over(socket: UnixStream, limit: Duration) -> Self {
        let deadline = Instant::now().checked_add(limit).unwrap_or_else(Instant::now);
        Self { socket: Socket::Unix(socket), deadline, limit, pending: Vec::new(), received: 0 }
    }

    /// Sends all of `bytes`.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.wait_at_most("room for a command")?;
            match self.socket.write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if is_wait(&error) => {}
                Err(error) => return Err(Error::io("sending a command", error)),
            }
        }
        Ok(())
    }

    /// What comes up to and with `end`.
    pub(super) fn until(&mut self, end: &[u8], what: &str) -> Result<Vec<u8>> {
        let mut looked_at = 0_usize;
        loop {
            let tail = self.pending.get(looked_at..).unwrap_or_default();
            if let Some(at) = tail.windows(end.len().max(1)).position(|window| window == end) {
                let len = looked_at.saturating_add(at).saturating_add(end.len());
                let rest = self.pending.split_off(len);
                return Ok(std::mem::replace(&mut self.pending, rest));
            }
            looked_at = self.pending.len().saturating_sub(end.len());
            self.receive(what)?;
        }
    }

    /// What came and was not asked for, as when a connection ends within an answer.
    pub(super) fn unread(&self) -> &[u8] {
        &self.pending
    }

    fn receive(&mut self, what: &str) -> Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            self.wait_at_most(what)?;
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Error::io(format!("waiting for {what}"), ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.pending.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    self.received = self.received.saturating_add(count);
                    if self.received > MAX_RECEIVED {
                        return Err(garbage("at most 32 MiB in all", "more"));
                    }
                    return Ok(());
                }
                Err(error) if is_wait(&error) => {}
                Err(error) => return Err(Error::io(format!("waiting for {what}"), error)),
            }
        }
    }

    /// Has the next call wait no longer than the deadline.
    fn wait_at_most(&self, what: &str) -> Result<()> {
        let rest = self.deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(late(what, self.limit));
        }
        // The shortest time that a socket takes is a microsecond.
        let rest = rest.max(Duration::from_millis(1));
        self.socket.set_timeout(rest).map_err(|error| Error::io("setting a time limit", error))
    }
}

/// An answer that is none.
pub(super) fn garbage(expected: &'static str, found: &str) -> Error {
    let found: String = found.chars().filter(|character| !character.is_control()).take(80).collect();
    Error::Argument { what: "answer".into(), expected: expected.into(), found }
}

fn late(what: &str, limit: Duration) -> Error {
    Error::Unsupported {
        what: format!("waiting longer than {limit:?} for {what}"),
        why: "the monitor may be in use by another client, or its guest stopped by a debugger; timeout= waits longer"
            .to_owned(),
    }
}

fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Connects to a socket in a folder. Its path may be longer than a socket's address, so it is reached through the folder.
fn connect_unix(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let folder = File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    let address = SocketAddrUnix::new(short)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            // The queue is full: others wait as well.
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(Errno::AGAIN) => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn connect_tcp(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        // A name may have several addresses; all of them share the time.
        let rest = deadline.saturating_duration_since(Instant::now());
        match TcpStream::connect_timeout(&address, rest.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The path that a socket of a process is bound to.
fn bound_path(process: &HostProcess, descriptor: u32) -> io::Result<String> {
    let inode = process.socket_inode(descriptor).ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
    let table = process.bytes("net/unix")?;
    // Num RefCount Protocol Flags Type St Inode Path
    let found = String::from_utf8_lossy(&table).lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let found = fields.nth(6)?.parse::<u64>().ok()?;
        fields.next().filter(|_| found == inode).map(str::to_owned)
    });
    found.ok_or_else(|| ErrorKind::NotFound.into())
}

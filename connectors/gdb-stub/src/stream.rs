//! The connection to a stub: bytes out and in, each call with a limit on its time.
//!
//! Owns: [`Stream`] over TCP and Unix sockets. Must not know: packets.
//! Keeps: no call takes longer than its limit.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};
#[cfg(unix)]
use std::{os::unix::net::UnixStream, path::Path};

use crate::address::Address;

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there, or nobody answers in time.
    pub(crate) fn connect(address: &Address, limit: Duration) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp(host, port) => Self::Tcp(tcp(host, *port, limit)?),
            #[cfg(unix)]
            Address::Unix(path) => Self::Unix(unix(path, limit)?),
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        match &stream {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(limit))?;
            }
            #[cfg(unix)]
            Self::Unix(stream) => stream.set_write_timeout(Some(limit))?,
        }
        Ok(stream)
    }

    /// Sends all the bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Receives some bytes, before the deadline. Zero: the other side has closed the connection.
    pub(crate) fn receive(&mut self, buf: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // A time of less than the clock's step would count as zero, which means forever.
            let left = Some(left.max(Duration::from_millis(1)));
            let received = match self {
                Self::Tcp(stream) => stream.set_read_timeout(left).and_then(|()| stream.read(buf)),
                #[cfg(unix)]
                Self::Unix(stream) => stream.set_read_timeout(left).and_then(|()| stream.read(buf)),
            };
            match received {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                other => return other,
            }
        }
    }

    /// Receives what is there already: zero bytes when there is nothing.
    pub(crate) fn at_hand(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let set = |stream: &mut Self, on| match stream {
            Self::Tcp(stream) => stream.set_nonblocking(on),
            #[cfg(unix)]
            Self::Unix(stream) => stream.set_nonblocking(on),
        };
        set(self, true)?;
        let received = match self {
            Self::Tcp(stream) => stream.read(buf),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(buf),
        };
        set(self, false)?;
        match received {
            Ok(0) if !buf.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            other => other,
        }
    }
}

/// The first of the host's addresses that takes the connection.
fn tcp(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let deadline = deadline(limit);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A Unix socket; the standard library would wait without limit where nobody takes connections off the queue.
#[cfg(unix)]
fn unix(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    use rustix::{
        io::Errno,
        net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
    };
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let deadline = deadline(limit);
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The time after `limit`; a limit that the clock cannot hold is a year.
pub(crate) fn deadline(limit: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let now = Instant::now();
    now.checked_add(limit.min(YEAR)).unwrap_or(now)
}

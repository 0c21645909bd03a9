//! Packets over a connection, until it is lost.
//!
//! Owns: [`Link`]: what was received and not yet asked for, and why the connection is lost, if it is.
//! Must not know: what packets mean, whether the target runs.
//! Keeps: a connection that broke once is not used again: whatever arrives late would be taken for the answer to something else.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use memflow_core::{Error, Result};

use crate::{
    address::Address,
    packet::{Decoder, Frame},
    stream::{Stream, deadline},
};

/// Longest packet that is taken. Stubs have a few KiB; the longest that is ever asked for is half of this.
const MAX_PACKET: usize = 256 << 10;

/// A connection that carries packets.
#[derive(Debug)]
pub(crate) struct Link {
    stream: Stream,
    /// "GDB stub HOST:PORT".
    name: String,
    timeout: Duration,
    decoder: Decoder,
    received: VecDeque<Frame>,
    lost: Option<(io::ErrorKind, String)>,
}

impl Link {
    /// Connects; `timeout` is the longest wait for that and for each answer.
    ///
    /// # Errors
    /// Nobody listens, or answers in time.
    pub(crate) fn connect(address: &Address, timeout: Duration) -> Result<Self> {
        let name = format!("GDB stub {address}");
        let stream = Stream::connect(address, timeout).map_err(|error| Error::io(name.clone(), error))?;
        let decoder = Decoder::new(MAX_PACKET);
        Ok(Self { stream, name, timeout, decoder, received: VecDeque::new(), lost: None })
    }

    /// "GDB stub HOST:PORT".
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// When an answer that is asked for now must be there.
    pub(crate) fn deadline(&self) -> Instant {
        deadline(self.timeout)
    }

    /// Why the connection cannot be used any more, if that is so.
    pub(crate) fn lost(&self) -> Option<Error> {
        let (kind, why) = self.lost.as_ref()?;
        Some(Error::io(self.name.clone(), io::Error::new(*kind, why.clone())))
    }

    /// Gives the connection up.
    pub(crate) fn lose(&mut self, kind: io::ErrorKind, why: impl Into<String>) -> Error {
        let (kind, why) = self.lost.get_or_insert((kind, why.into()));
        Error::io(self.name.clone(), io::Error::new(*kind, why.clone()))
    }

    /// Gives the connection up for what no stub says.
    pub(crate) fn violation(&mut self, what: impl Into<String>) -> Error {
        self.lose(io::ErrorKind::InvalidData, what)
    }

    fn usable(&self) -> Result<()> {
        self.lost().map_or(Ok(()), Err)
    }

    fn broke(&mut self, error: &io::Error) -> Error {
        let seconds = self.timeout.as_secs_f32();
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => self.lose(
                io::ErrorKind::TimedOut,
                format!("no answer in {seconds} s; it may serve another client, or need a longer `timeout`"),
            ),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                self.lose(io::ErrorKind::UnexpectedEof, "closed the connection")
            }
            kind => self.lose(kind, format!("the connection broke: {error}")),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.usable()?;
        self.stream.send(bytes).map_err(|error| self.broke(&error))
    }

    /// Sends last bytes over a connection that may be lost.
    ///
    /// # Errors
    /// They cannot be sent.
    pub(crate) fn farewell(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.send(bytes)
    }

    /// The next frame.
    ///
    /// # Errors
    /// The connection is lost: now, when there is none before the deadline, or before.
    pub(crate) fn frame(&mut self, deadline: Instant) -> Result<Frame> {
        loop {
            if let Some(frame) = self.received.pop_front() {
                return Ok(frame);
            }
            self.usable()?;
            let mut buf = [0; 64 << 10];
            match self.stream.receive(&mut buf, deadline) {
                Ok(0) => return Err(self.broke(&io::ErrorKind::UnexpectedEof.into())),
                Ok(len) => self.decode(buf.get(..len).unwrap_or_default())?,
                Err(error) => return Err(self.broke(&error)),
            }
        }
    }

    /// The next frame, if it is there already.
    ///
    /// # Errors
    /// As [`frame`](Self::frame).
    pub(crate) fn frame_at_hand(&mut self) -> Result<Option<Frame>> {
        if self.received.is_empty() {
            self.usable()?;
            let mut buf = [0; 16 << 10];
            match self.stream.at_hand(&mut buf) {
                Ok(len) => self.decode(buf.get(..len).unwrap_or_default())?,
                Err(error) => return Err(self.broke(&error)),
            }
        }
        Ok(self.received.pop_front())
    }

    fn decode(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.decoder.take(bytes) {
                Ok((taken, frame)) => {
                    self.received.extend(frame);
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
                Err(violation) => return Err(self.violation(violation.text())),
            }
        }
        Ok(())
    }
}

//! Requests and answers, and whether the target runs meanwhile.
//!
//! Owns: [`Session`]: which answer belongs to which request, stopping the target for them, and leaving.
//! Must not know: what requests ask for.
//! Keeps: of QEMU's stub, the order to run on is on its way before the first answer of a window is waited for, so the guest runs
//! again even if this process is killed; addresses are virtual again by then. Nothing that was not asked for counts as an answer.
//! Source: GDB manual, appendix "GDB Remote Serial Protocol", "Packets", "Stop Reply Packets", "Interrupts"; QEMU gdbstub.c
//! (`gdb_read_byte`: any byte stops a running guest and is not looked at further; `gdb_vm_state_change`), docs/system/gdb.rst.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::time::Duration;

use memflow_core::Result;

use crate::{
    link::Link,
    packet::{Frame, encode},
};

/// Bytes of requests on the way at once: far below what the buffers of any connection take, so that sending cannot block while the
/// other side blocks in its answers.
const WINDOW_BYTES: usize = 6 << 10;
/// Times that a damaged packet is sent again.
const TRIES: usize = 3;
/// Longest output of a monitor command.
const MAX_OUTPUT: usize = 4 << 20;
/// The byte that stops a running target.
const INTERRUPT: u8 = 3;
/// Longest wait for the answer to a farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a stub is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// QEMU's, and those that know its packets: it stops at any byte, so a window of packets can stop the guest, ask, and let it go.
    /// `acks`: it acknowledges packets, which tells an answer from what nobody asked for.
    Qemu { acks: bool },
    /// Any other: without acknowledgements when it agreed to that, and then with so many requests on the way.
    Plain { acks: bool, ahead: usize },
}

/// Whether the target runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    Running,
    /// It stands because we want it to.
    Held,
    /// Somebody else stopped it: it is theirs to let it run again.
    Foreign,
}

/// A request, and what its answer looks like.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    payload: Vec<u8>,
    /// True for monitor commands: their answer is output in pieces, then `OK`.
    output: bool,
}

impl Request {
    /// A request with one packet as its answer.
    pub(crate) fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), output: false }
    }

    /// A monitor command; its answer is the output.
    pub(crate) fn command(line: &str) -> Self {
        let mut payload = b"qRcmd,".to_vec();
        crate::hex::encode(line.as_bytes(), &mut payload);
        Self { payload, output: true }
    }
}

/// A conversation with a stub.
#[derive(Debug)]
pub(crate) struct Session {
    link: Link,
    style: Style,
    standing: Standing,
    /// Whether the target is to run when we leave.
    leave_running: bool,
    /// True when addresses were physical before we came: then they stay so.
    physical_before: bool,
    /// The packet that lets the target run.
    go: &'static [u8],
    /// A stop reply came since this was last cleared.
    stopped: bool,
    /// An acknowledgement came since the last answer.
    acked: bool,
}

impl Session {
    /// A conversation in which nothing has been said; the target stands.
    pub(crate) fn new(link: Link) -> Self {
        let style = Style::Plain { acks: true, ahead: 1 };
        let standing = Standing::Held;
        Self {
            link,
            style,
            standing,
            leave_running: true,
            physical_before: false,
            go: b"c",
            stopped: false,
            acked: false,
        }
    }

    /// The stub's name, for messages.
    pub(crate) fn name(&self) -> &str {
        self.link.name()
    }

    /// The connection.
    pub(crate) fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// True when a stop reply has come. QEMU sends one to whoever connects to a guest that runs.
    pub(crate) fn was_stopped(&self) -> bool {
        self.stopped
    }

    /// How the stub is spoken to from now on.
    pub(crate) fn set_style(&mut self, style: Style) {
        self.style = style;
    }

    /// Whether physical addresses are there to stay.
    pub(crate) fn set_physical_before(&mut self, physical: bool) {
        self.physical_before = physical;
    }

    /// The packet that lets the target run.
    pub(crate) fn set_go(&mut self, go: &'static [u8]) {
        self.go = go;
    }

    /// Whether the target is to run when we leave.
    pub(crate) fn set_leave_running(&mut self, running: bool) {
        self.leave_running = running;
    }

    /// True when the target runs, or is to when we leave.
    pub(crate) fn may_run(&self) -> bool {
        self.leave_running || self.standing == Standing::Running
    }

    /// Whether it is QEMU's stub.
    pub(crate) fn is_qemu(&self) -> bool {
        matches!(self.style, Style::Qemu { .. })
    }

    /// Asks, and returns an answer for each request. The target stands meanwhile, and runs on after if it ran before; see
    /// [`begin`](Self::begin) for stubs that cannot stop it on the way.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) fn ask(&mut self, requests: &[Request]) -> Result<Vec<Vec<u8>>> {
        let was_running = self.begin()?;
        let answers = self.exchange(requests, false);
        self.end(was_running)?;
        answers
    }

    /// As [`ask`](Self::ask), with one request.
    pub(crate) fn ask_one(&mut self, request: Request) -> Result<Vec<u8>> {
        let answers = self.ask(&[request])?;
        Ok(answers.into_iter().next().unwrap_or_default())
    }

    /// Stops the target for a batch, where that is not part of each window. Returns what [`end`](Self::end) wants to know.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn begin(&mut self) -> Result<bool> {
        self.notice()?;
        if self.is_qemu() || self.standing != Standing::Running {
            return Ok(false);
        }
        self.interrupt()?;
        Ok(true)
    }

    /// Ends a batch.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn end(&mut self, was_running: bool) -> Result<()> {
        if was_running { self.resume() } else { Ok(()) }
    }

    /// Asks within a batch; `physical`: addresses in the requests are physical.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn exchange(&mut self, requests: &[Request], physical: bool) -> Result<Vec<Vec<u8>>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut rest = requests;
        while !rest.is_empty() {
            let mut bytes = 0_usize;
            let most = match self.style {
                Style::Plain { ahead, .. } => ahead.max(1),
                Style::Qemu { .. } => usize::MAX,
            };
            // At least one, however long it is: its answer is not on the way while it is sent.
            let fits = rest.iter().take(most).take_while(|request| {
                let first = bytes == 0;
                bytes = bytes.saturating_add(request.payload.len().saturating_add(4));
                first || bytes <= WINDOW_BYTES
            });
            let (window, behind) = rest.split_at(fits.count().max(1).min(rest.len()));
            match self.style {
                Style::Qemu { .. } => {
                    answers.extend(self.qemu_window(window, physical, self.standing == Standing::Running)?)
                }
                Style::Plain { acks: true, .. } => {
                    for request in window {
                        answers.push(self.acknowledged(request)?);
                    }
                }
                Style::Plain { acks: false, .. } => answers.extend(self.plain_window(window)?),
            }
            rest = behind;
        }
        Ok(answers)
    }

    /// One window of QEMU's stub: stop, physical addresses, the requests, virtual addresses, go.
    fn qemu_window(&mut self, requests: &[Request], physical: bool, go: bool) -> Result<Vec<Vec<u8>>> {
        self.notice()?;
        let mut out = self.attention();
        if physical {
            encode(b"Qqemu.PhyMemMode:1", &mut out);
        }
        requests.iter().for_each(|request| encode(&request.payload, &mut out));
        let back = physical && !self.physical_before;
        if back {
            encode(b"Qqemu.PhyMemMode:0", &mut out);
        }
        if go && self.standing != Standing::Foreign {
            encode(self.go, &mut out);
        }
        (self.stopped, self.acked) = (false, false);
        self.link.send(&out)?;
        if physical && self.answer(false)? != b"OK" {
            return Err(self.link.violation("did not switch to physical addresses, although it has them"));
        }
        let answers: Result<Vec<_>> = requests.iter().map(|request| self.answer(request.output)).collect();
        let answers = answers?;
        if back && self.answer(false)? != b"OK" {
            return Err(self.link.violation("did not switch back to virtual addresses"));
        }
        // It ran, although somebody had stopped it: they let it go, and so do we.
        if self.stopped && self.standing == Standing::Foreign {
            self.resume()?;
        }
        Ok(answers)
    }

    /// What goes ahead of packets so that QEMU's stub takes them, whether the guest runs or not: as long as its last answer was not
    /// acknowledged it looks at nothing but the start of a packet, and that byte is lost if the guest runs.
    fn attention(&self) -> Vec<u8> {
        // An order to go is not answered, so nothing is left to acknowledge behind one.
        if self.standing == Standing::Running { vec![INTERRUPT] } else { vec![b'+', INTERRUPT] }
    }

    /// One window of a stub that agreed to do without acknowledgements.
    fn plain_window(&mut self, requests: &[Request]) -> Result<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        requests.iter().for_each(|request| encode(&request.payload, &mut out));
        self.link.send(&out)?;
        requests.iter().map(|request| self.answer(request.output)).collect()
    }

    /// One request and its answer, each sent again when it arrives damaged.
    fn acknowledged(&mut self, request: &Request) -> Result<Vec<u8>> {
        let mut packet = Vec::new();
        encode(&request.payload, &mut packet);
        self.link.send(&packet)?;
        self.answer_or_again(request.output, Some(&packet))
    }

    /// The answer to the oldest request without one.
    fn answer(&mut self, output: bool) -> Result<Vec<u8>> {
        self.answer_or_again(output, None)
    }

    /// As [`answer`](Self::answer); with acknowledgements what is damaged is sent again, a few times.
    fn answer_or_again(&mut self, output: bool, again: Option<&[u8]>) -> Result<Vec<u8>> {
        let deadline = self.link.deadline();
        let (mut collected, mut damaged) = (Vec::new(), 0_usize);
        loop {
            let frame = self.link.frame(deadline)?;
            let payload = match frame {
                Frame::Ack => {
                    self.acked = true;
                    continue;
                }
                Frame::Nack | Frame::Damaged if again.is_some() && damaged < TRIES => {
                    damaged = damaged.saturating_add(1);
                    self.link.send(if frame == Frame::Nack { again.unwrap_or_default() } else { b"-" })?;
                    continue;
                }
                Frame::Nack => return Err(self.link.violation("says that packets arrive damaged")),
                Frame::Damaged => return Err(self.link.violation("sends packets with wrong checksums")),
                Frame::Packet(payload) => payload,
            };
            if again.is_some() {
                self.link.send(b"+")?;
            }
            if self.is_news(&payload, output)? {
                continue;
            }
            match payload.as_slice() {
                b"OK" if output => return Ok(collected),
                [b'O', piece @ ..] if output && piece != b"K" => {
                    let Some(bytes) = crate::hex::decode(piece) else {
                        return Err(self.link.violation("sent output of a command that is not hexadecimal"));
                    };
                    collected.extend(bytes);
                    if collected.len() > MAX_OUTPUT {
                        return Err(self.link.violation("sends output of a command without an end"));
                    }
                }
                _ => {
                    // A packet that was not asked for would shift all answers behind it.
                    let acked = std::mem::take(&mut self.acked);
                    if !acked && self.style == (Style::Qemu { acks: true }) {
                        return Err(self.link.violation("sent an answer that nobody asked for"));
                    }
                    return Ok(payload);
                }
            }
        }
    }

    /// Takes what is no answer to anything: that the target stopped or is gone, or what it prints (unless `output` is waited for).
    fn is_news(&mut self, payload: &[u8], output: bool) -> Result<bool> {
        match payload {
            [b'T' | b'S', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (self.stopped, self.acked) = (true, false);
                Ok(true)
            }
            [b'W' | b'X', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                Err(self.link.lose(std::io::ErrorKind::UnexpectedEof, "says that the target has exited"))
            }
            [b'O', text @ ..] => Ok(!output && text.iter().all(u8::is_ascii_hexdigit)),
            _ => Ok(false),
        }
    }

    /// Takes what came while nothing was asked for.
    ///
    /// # Errors
    /// The connection is lost; an answer came that nobody asked for.
    fn notice(&mut self) -> Result<()> {
        while let Some(frame) = self.link.frame_at_hand()? {
            let Frame::Packet(payload) = frame else { continue };
            // Stops before this one are not news.
            let before = std::mem::take(&mut self.stopped);
            if !self.is_news(&payload, false)? {
                return Err(self.link.violation("sent an answer that nobody asked for"));
            }
            if self.standing == Standing::Running && self.stopped {
                self.standing = Standing::Foreign;
            }
            self.stopped |= before;
        }
        Ok(())
    }

    /// Stops the target and waits until it says so. Stubs that are not QEMU's may not take anything else before.
    fn interrupt(&mut self) -> Result<()> {
        self.stopped = false;
        self.link.send(&[INTERRUPT])?;
        let deadline = self.link.deadline();
        while !self.stopped {
            match self.link.frame(deadline)? {
                Frame::Packet(payload) => {
                    if self.style == (Style::Plain { acks: true, ahead: 1 }) {
                        self.link.send(b"+")?;
                    }
                    if !self.is_news(&payload, false)? {
                        return Err(self.link.violation("sent an answer that nobody asked for"));
                    }
                }
                Frame::Damaged => return Err(self.link.violation("sends packets with wrong checksums")),
                Frame::Ack | Frame::Nack => {}
            }
        }
        self.standing = Standing::Held;
        Ok(())
    }

    /// Whether the target runs.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn runs(&mut self) -> Result<bool> {
        self.notice()?;
        if self.is_qemu() && self.standing == Standing::Foreign {
            // Who stopped it may have let it go since: then this stops it, which it says, and lets it go.
            self.ask_one(Request::new("qC"))?;
        }
        Ok(self.standing == Standing::Running)
    }

    /// Stops the target until [`resume`](Self::resume).
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn pause(&mut self) -> Result<()> {
        self.notice()?;
        if self.standing != Standing::Running {
            return Ok(());
        }
        if !self.is_qemu() {
            return self.interrupt();
        }
        self.standing = Standing::Held;
        self.ask_one(Request::new("qC")).map(drop)
    }

    /// Lets the target run.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.notice()?;
        if self.standing == Standing::Running {
            return Ok(());
        }
        if self.is_qemu() {
            // Somebody else may have let it go already: then it has to be stopped to be told so.
            self.standing = Standing::Held;
            self.qemu_window(&[Request::new("qC")], false, true)?;
        } else {
            let mut packet = Vec::new();
            encode(self.go, &mut packet);
            self.stopped = false;
            self.link.send(&packet)?;
        }
        (self.standing, self.leave_running) = (Standing::Running, true);
        Ok(())
    }

    /// Lets the stub go, and with it the target, unless it stood before we came or is to stand.
    fn leave(&mut self) -> Result<()> {
        let stands = self.begin_leaving()?;
        if !stands {
            return Ok(());
        }
        let mut packet = if self.is_qemu() { self.attention() } else { Vec::new() };
        encode(b"D", &mut packet);
        self.link.send(&packet)?;
        let deadline = crate::stream::deadline(FAREWELL).min(self.link.deadline());
        while !matches!(self.link.frame(deadline)?, Frame::Packet(payload) if payload == b"OK") {}
        Ok(())
    }

    /// True when the target stands and is to run.
    fn begin_leaving(&mut self) -> Result<bool> {
        if let Some(lost) = self.link.lost() {
            return Err(lost);
        }
        self.notice()?;
        match self.standing {
            // QEMU's stub does without a farewell, and would stop the guest to take it.
            Standing::Running if self.is_qemu() => Ok(false),
            Standing::Running => self.interrupt().map(|()| true),
            Standing::Held => Ok(self.leave_running),
            Standing::Foreign => Ok(false),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let stands = self.standing == Standing::Held && self.leave_running;
        if let Err(error) = self.leave() {
            if stands {
                // It may yet read what is sent, if it is only slow.
                let _ = self.link.farewell(b"$D#44");
                log::warn!("{} was not left in order, its target may stand still: {error}", self.name());
            } else {
                log::debug!("{} was not left in order: {error}", self.name());
            }
        }
    }
}

//! Two conversations with a running guest: QMP with QEMU, lines with the agent inside.
//!
//! Owns: sockets, deadlines, framing.
//! Must not know: what the commands mean.
//! Keeps: a socket's path may be longer than a socket address allows, so it is reached through its folder.
//! Source: QEMU docs/interop/qmp-spec.txt; the agent's protocol is in `guest/agent.c`.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, Result, WithPath, unexpected};
use crate::pipe::{in_memory, piped};

/// How long QEMU may take to create its sockets.
const START: Duration = Duration::from_secs(30);

/// A stream with a deadline on every read.
#[derive(Debug)]
struct Stream {
    socket: UnixStream,
    pending: Vec<u8>,
    folder: PathBuf,
    log: &'static str,
}

impl Stream {
    fn connect(folder: &Path, name: &str, log: &'static str) -> Result<Self> {
        let directory = File::open(folder).at(folder)?;
        // A socket address holds 108 bytes; the folder's descriptor makes it short.
        let address = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        let deadline = Instant::now() + START;
        loop {
            match UnixStream::connect(&address) {
                Ok(socket) => {
                    socket.set_read_timeout(Some(Duration::from_millis(500))).at(folder.join(name))?;
                    return Ok(Self { socket, pending: Vec::new(), folder: folder.into(), log });
                }
                Err(_) if Instant::now() >= deadline => {
                    let log = folder.join("qemu.log");
                    return Err(Error::Timeout { what: format!("QEMU's {name}"), seconds: START.as_secs(), log });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn send(&mut self, text: &str) -> Result<()> {
        self.socket.write_all(text.as_bytes()).map_err(|_| self.ended(text.trim_end()))
    }

    /// Reads more bytes; the deadline passes as an error that names what was waited for.
    fn more(&mut self, deadline: Instant, limit: Duration, what: &str) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(self.ended(what)),
                Ok(n) => {
                    self.pending.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    return Ok(());
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
                {
                    if Instant::now() >= deadline {
                        let log = self.folder.join(self.log);
                        return Err(Error::Timeout { what: what.into(), seconds: limit.as_secs(), log });
                    }
                }
                Err(_) => return Err(self.ended(what)),
            }
        }
    }

    fn ended(&self, what: &str) -> Error {
        Error::Ended { what: what.into(), log: self.folder.join(self.log) }
    }

    fn line(&mut self, limit: Duration, what: &str) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut searched = 0;
        loop {
            let tail = self.pending.get(searched..).unwrap_or_default();
            if let Some(at) = tail.iter().position(|&byte| byte == b'\n') {
                let rest = self.pending.split_off(searched + at + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            searched = self.pending.len();
            self.more(deadline, limit, what)?;
        }
    }

    fn exactly(&mut self, len: usize, limit: Duration, what: &str) -> Result<Vec<u8>> {
        let deadline = Instant::now() + limit;
        while self.pending.len() < len {
            self.more(deadline, limit, what)?;
        }
        let rest = self.pending.split_off(len);
        Ok(std::mem::replace(&mut self.pending, rest))
    }
}

/// QEMU's monitor.
#[derive(Debug)]
pub(crate) struct Qmp(Stream);

impl Qmp {
    /// Connects and leaves negotiation mode.
    pub(crate) fn connect(folder: &Path) -> Result<(Self, Value)> {
        let mut this = Self(Stream::connect(folder, "qmp.sock", "qemu.log")?);
        let greeting = this.message(START, "QMP greeting")?;
        this.execute("qmp_capabilities", json!({}), START)?;
        Ok((this, greeting))
    }

    /// Runs one command and returns what it returned.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value, limit: Duration) -> Result<Value> {
        self.request(&json!({ "execute": command, "arguments": arguments }), limit)
    }

    /// Sends one request as it is and returns what it returned; events in between are dropped.
    pub(crate) fn request(&mut self, request: &Value, limit: Duration) -> Result<Value> {
        self.0.send(&format!("{request}\n"))?;
        let what = format!("QMP {}", request.get("execute").unwrap_or(&Value::Null));
        loop {
            let mut message = self.message(limit, &what)?;
            if let Some(error) = message.get("error") {
                return Err(Error::Refused { command: what, answer: error.to_string() });
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// QEMU's own copy of physical memory.
    pub(crate) fn save(&mut self, address: u64, len: u64, limit: Duration) -> Result<Vec<u8>> {
        let folder = self.0.folder.clone();
        let save = |path: &Path| {
            let arguments = json!({ "val": address, "size": len, "filename": path });
            self.execute("pmemsave", arguments, limit).map(drop)
        };
        piped(&folder, save, in_memory)
    }

    fn message(&mut self, limit: Duration, what: &str) -> Result<Value> {
        let line = self.0.line(limit, what)?;
        serde_json::from_str(&line).map_err(|_| unexpected(what, "a line of JSON", &line))
    }
}

/// The agent inside the guest.
#[derive(Debug)]
pub(crate) struct Agent(Stream);

impl Agent {
    pub(crate) fn connect(folder: &Path) -> Result<Self> {
        Stream::connect(folder, "agent.sock", "console.log").map(Self)
    }

    /// Sends one line and returns the answer's bytes.
    pub(crate) fn command(&mut self, line: &str, limit: Duration) -> Result<Vec<u8>> {
        self.send(line)?;
        self.receive(&format!("{line:?}"), limit)
    }

    /// Sends one line.
    pub(crate) fn send(&mut self, line: &str) -> Result<()> {
        self.0.send(&format!("{line}\n"))
    }

    /// Waits for the answer to a line that was sent. If it takes longer, it can be waited for again.
    pub(crate) fn receive(&mut self, line: &str, limit: Duration) -> Result<Vec<u8>> {
        let what = format!("the guest's agent, asked {line}");
        let head = self.0.line(limit, &what)?;
        let parsed =
            head.split_once(' ').and_then(|(status, len)| Some((status.to_owned(), len.parse::<usize>().ok()?)));
        let (status, len) = parsed.ok_or_else(|| unexpected(&what, "OK or ERR and a length", &head))?;
        let body = self.0.exactly(len, limit, &what)?;
        if status == "OK" {
            return Ok(body);
        }
        Err(Error::Refused { command: what, answer: String::from_utf8_lossy(&body).into_owned() })
    }
}

//! A stub that does what a script says.
//!
//! Owns: a listener with one client, the packets it got, and a machine of 64 KiB whose byte at each address is its low byte plus its
//! high byte. Must not know: the connector's code; framing is written again here.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use memflow_gdb::{Address, Opened, Options, Physical, open};
use tempfile::TempDir;

/// Bytes of memory.
pub(crate) const SIZE: u64 = 0x10000;

/// What a stub does about a packet.
pub(crate) enum Reply {
    /// Answers with this payload.
    Packet(Vec<u8>),
    /// Sends these bytes as they are.
    Bytes(Vec<u8>),
    /// Sends these bytes one by one with this time between, until the client has gone.
    Drip(Vec<u8>, Duration),
    /// Sends this again and again until the client has gone.
    Endless(Vec<u8>),
    /// Does nothing.
    Silence,
    /// Closes the connection.
    Close,
    /// Does what the stub does without a script.
    Usual,
}

pub(crate) fn text(payload: &str) -> Reply {
    Reply::Packet(payload.as_bytes().to_vec())
}

type Script = Box<dyn FnMut(&[u8]) -> Reply + Send>;

/// How the stub is.
pub(crate) struct Stub {
    pub(crate) qemu: bool,
    pub(crate) no_ack: bool,
    pub(crate) features: String,
    script: Vec<(&'static str, Script)>,
}

/// A stub that listens.
pub(crate) struct Listening {
    pub(crate) address: Address,
    state: Arc<Mutex<State>>,
    thread: JoinHandle<()>,
    _folder: TempDir,
}

#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) running: bool,
    pub(crate) packets: Vec<String>,
    pub(crate) writes: Vec<(u64, Vec<u8>)>,
    pub(crate) nacks: usize,
}

impl Stub {
    /// As QEMU's.
    pub(crate) fn qemu() -> Self {
        let features = "PacketSize=1000;qXfer:features:read+;vContSupported+;multiprocess+".to_owned();
        Self { qemu: true, no_ack: false, features, script: Vec::new() }
    }

    /// Some other.
    pub(crate) fn plain() -> Self {
        let features = "PacketSize=400;qXfer:memory-map:read+;QStartNoAckMode+".to_owned();
        Self { qemu: false, no_ack: true, features, script: Vec::new() }
    }

    /// The same, with another answer to packets that start like this.
    pub(crate) fn on(mut self, packet: &'static str, script: impl FnMut(&[u8]) -> Reply + Send + 'static) -> Self {
        self.script.push((packet, Box::new(script)));
        self
    }

    pub(crate) fn listen(self) -> Listening {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stub");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State { running: true, ..State::default() }));
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                let acks = true;
                let _ = Server { stub: self, stream, state: shared, acks, last: Vec::new() }.serve();
            }
        });
        Listening { address: Address::Unix(path), state, thread, _folder: folder }
    }
}

impl Listening {
    pub(crate) fn state(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    /// As [`state`](Self::state), when the machine runs: it does when it has read what the client sent last.
    pub(crate) fn state_when_running(&self) -> State {
        for _ in 0..200 {
            if self.state().running {
                return self.state();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not run in two seconds");
    }

    /// Waits until the client has gone; what became of the machine.
    pub(crate) fn end(self) -> State {
        self.thread.join().unwrap();
        self.state.lock().unwrap().clone()
    }

    /// Opens it with an impatient client.
    pub(crate) fn open(&self) -> memflow_core::Result<Opened> {
        open(&self.address, &options())
    }
}

/// Options of an impatient client that takes any stub.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.timeout = Duration::from_millis(400);
    options.physical = Physical::Assume;
    options
}

/// The byte at an address.
pub(crate) fn byte(at: u64) -> u8 {
    (at as u8).wrapping_add((at >> 8) as u8)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A payload as it goes over the wire.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let sum = payload.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", payload, format!("#{sum:02x}").as_bytes()].concat()
}

struct Server {
    stub: Stub,
    stream: UnixStream,
    state: Arc<Mutex<State>>,
    acks: bool,
    last: Vec<u8>,
}

impl Server {
    fn serve(mut self) -> std::io::Result<()> {
        if self.stub.qemu {
            self.state.lock().unwrap().running = false;
            self.send(&frame(b"T02thread:01;"));
        }
        loop {
            let byte = self.byte()?;
            let running = self.state.lock().unwrap().running;
            if running && (self.stub.qemu || byte == 3) {
                self.state.lock().unwrap().running = false;
                self.send(&frame(b"T02thread:01;"));
            } else if byte == b'-' {
                self.state.lock().unwrap().nacks += 1;
                let last = self.last.clone();
                self.send(&last);
            } else if byte == b'$' {
                let mut payload = Vec::new();
                loop {
                    match self.byte()? {
                        b'#' => break,
                        b'}' => payload.push(self.byte()? ^ 0x20),
                        byte => payload.push(byte),
                    }
                }
                self.byte()?;
                self.byte()?;
                if self.acks {
                    self.send(b"+");
                }
                self.packet(&payload)?;
            }
        }
    }

    fn byte(&mut self) -> std::io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// Sends; that the client has gone does not keep a stub from doing what it was told before.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn packet(&mut self, payload: &[u8]) -> std::io::Result<()> {
        self.state.lock().unwrap().packets.push(String::from_utf8_lossy(payload).into_owned());
        let script = self.stub.script.iter_mut().find(|(prefix, _)| payload.starts_with(prefix.as_bytes()));
        let reply = script.map_or(Reply::Usual, |(_, script)| script(payload));
        match reply {
            Reply::Packet(answer) => {
                self.last = frame(&answer);
                let last = self.last.clone();
                self.send(&last);
            }
            Reply::Bytes(bytes) => {
                self.last = bytes.clone();
                self.send(&bytes);
            }
            Reply::Endless(bytes) => loop {
                self.stream.write_all(&bytes)?;
            },
            Reply::Drip(bytes, pause) => loop {
                for byte in &bytes {
                    self.stream.write_all(&[*byte])?;
                    std::thread::sleep(pause);
                }
            },
            Reply::Silence => {}
            Reply::Close => return Err(std::io::ErrorKind::BrokenPipe.into()),
            Reply::Usual => {
                if let Some(answer) = self.usual(payload) {
                    self.last = frame(answer.as_bytes());
                    let last = self.last.clone();
                    self.send(&last);
                }
            }
        }
        Ok(())
    }

    fn usual(&mut self, payload: &[u8]) -> Option<String> {
        let payload_text = String::from_utf8_lossy(payload).into_owned();
        let (name, rest) = payload_text.split_at(payload_text.find([':', ',']).unwrap_or(payload_text.len()));
        let answer = match name {
            "qSupported" => self.stub.features.clone(),
            "QStartNoAckMode" if self.stub.no_ack => {
                self.acks = false;
                "OK".to_owned()
            }
            "qqemu.PhyMemMode" if self.stub.qemu => "0".to_owned(),
            "Qqemu.PhyMemMode" if self.stub.qemu => "OK".to_owned(),
            "qRcmd" if self.stub.qemu => {
                let mtree = "FlatView #0\r\n AS \"memory\", root: system\r\n  0-ffff (prio 0, ram): ram\r\n";
                self.send(&frame(format!("O{}", hex(mtree.as_bytes())).as_bytes()));
                "OK".to_owned()
            }
            "qXfer" if rest.starts_with(":memory-map") && !self.stub.qemu => {
                "l<memory-map><memory type=\"ram\" start=\"0\" length=\"0x10000\"/></memory-map>".to_owned()
            }
            "qXfer" if rest.starts_with(":features:read:target.xml") => {
                "l<target><architecture>i386:x86-64</architecture><reg name=\"rip\" bitsize=\"64\"/>\
                 <reg name=\"cr0\" bitsize=\"32\"/><reg name=\"cr3\" bitsize=\"64\"/></target>"
                    .to_owned()
            }
            "qfThreadInfo" => "m01".to_owned(),
            "qsThreadInfo" => "l".to_owned(),
            "Hg01" | "Hg0" => "OK".to_owned(),
            "p0" | "p2" => "0010000000000000".to_owned(),
            "p1" => "33000580".to_owned(),
            "qC" => "QC01".to_owned(),
            "vCont?" => "vCont;c;s".to_owned(),
            "c" | "vCont;c" => {
                self.state.lock().unwrap().running = true;
                return None;
            }
            "D" => {
                self.state.lock().unwrap().running = true;
                "OK".to_owned()
            }
            _ if name.starts_with('m') => {
                let (at, len) = (number(&name[1..]), number(&rest[1..]));
                if at + len > SIZE { "E14".to_owned() } else { hex(&(at..at + len).map(byte).collect::<Vec<_>>()) }
            }
            _ if name.starts_with('M') => {
                let (at, data) = (number(&name[1..]), rest.split_once(':')?.1);
                let digits: Vec<u8> = (0..data.len() / 2).map(|i| number(&data[2 * i..2 * i + 2]) as u8).collect();
                self.state.lock().unwrap().writes.push((at, digits));
                "OK".to_owned()
            }
            _ => String::new(),
        };
        Some(answer)
    }
}

fn number(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

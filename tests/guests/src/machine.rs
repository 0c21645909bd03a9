//! A guest that runs: QEMU as a child process, its monitor, and the agent inside.
//!
//! Owns: the life of the process and what can be asked of it.
//! Must not know: captures, stamps, what tests want.
//! Keeps: QEMU dies with the value, and with this process if that is killed; all its files lie in one folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::addition;
use crate::channel::{Agent, Qmp};
use crate::error::{Error, Result, WithPath, unexpected};
use crate::pipe::{keep_sparse, piped};
use crate::program::Boot;
use crate::qemu::command_line;
use crate::spec::Spec;
use crate::tool;
use crate::truth::{Truth, unpack};

/// Longest wait for one answer; a boot under emulation on a busy machine is the slowest.
const LIMIT: Duration = Duration::from_secs(240);
/// Longest wait for a script: it may run programs of the host, under emulation.
const SCRIPT: Duration = Duration::from_secs(600);

/// A running guest.
#[derive(Debug)]
pub struct RunningGuest {
    spec: Spec,
    folder: PathBuf,
    temporary: bool,
    process: Child,
    qmp: Qmp,
    agent: Agent,
    version: String,
}

impl RunningGuest {
    /// Starts QEMU in `folder` and returns before the kernel is up; the first command waits for it.
    pub(crate) fn start(spec: &Spec, boot: &Boot, folder: &Path) -> Result<Self> {
        Self::run(spec, command_line(spec, boot), folder)
    }

    /// As [`start`](Self::start), with another command.
    pub(crate) fn run(spec: &Spec, mut command: Command, folder: &Path) -> Result<Self> {
        tool::require("qemu-system-x86_64", "qemu-system-x86")?;
        // A boot that failed leaves its kernel in the file, and a machine finds its memory empty when it is switched on.
        match std::fs::remove_file(folder.join("live.img")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).at(folder.join("live.img"));
            }
            _ => {}
        }
        let log = folder.join("qemu.log");
        let output = std::fs::File::create(&log).at(&log)?;
        let errors = output.try_clone().at(&log)?;
        let mut process = command
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .at("qemu-system-x86_64")?;
        let connected = Qmp::connect(folder).and_then(|qmp| Ok((qmp, Agent::connect(folder)?)));
        let ((qmp, greeting), agent) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                end(&mut process);
                return Err(error);
            }
        };
        let number =
            |key: &str| greeting.pointer(&format!("/QMP/version/qemu/{key}")).and_then(Value::as_u64).unwrap_or(0);
        let version = format!("{}.{}.{}", number("major"), number("minor"), number("micro"));
        Ok(Self { spec: *spec, folder: folder.into(), temporary: false, process, qmp, agent, version })
    }

    /// Removes the folder when the guest ends.
    pub(crate) fn temporary(mut self) -> Self {
        self.temporary = true;
        self
    }

    /// What was booted.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The folder with the guest's sockets, logs and memory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// QEMU's version.
    pub fn qemu_version(&self) -> &str {
        &self.version
    }

    /// The file that is the guest's RAM, live.
    pub fn ram_path(&self) -> PathBuf {
        self.folder.join("live.img")
    }

    /// Sends one QMP request, `{"execute": …, "arguments": …}`, and returns what it returned.
    ///
    /// # Errors
    /// The request is refused, or not answered in ten minutes.
    pub fn qmp(&mut self, request: &Value) -> Result<Value> {
        self.qmp.request(request, LIMIT)
    }

    /// Runs one line of QEMU's human monitor and returns its text.
    ///
    /// # Errors
    /// As [`RunningGuest::qmp`].
    pub fn hmp(&mut self, line: &str) -> Result<String> {
        let answer = self.qmp.execute("human-monitor-command", json!({ "command-line": line }), LIMIT)?;
        Ok(answer.as_str().unwrap_or_default().replace('\r', ""))
    }

    /// Stops all vCPUs.
    ///
    /// # Errors
    /// As [`RunningGuest::qmp`].
    pub fn pause(&mut self) -> Result<()> {
        self.qmp.execute("stop", json!({}), LIMIT).map(drop)
    }

    /// Lets the vCPUs run on.
    ///
    /// # Errors
    /// As [`RunningGuest::qmp`].
    pub fn resume(&mut self) -> Result<()> {
        self.qmp.execute("cont", json!({}), LIMIT).map(drop)
    }

    /// Writes an ELF core of the guest's physical memory, with holes for pages of zeros.
    ///
    /// # Errors
    /// As [`RunningGuest::qmp`].
    pub fn dump_elf(&mut self, to: &Path) -> Result<()> {
        // QEMU writes a dump of several GiB whole, however little of it is more than zeros.
        let Self { folder, qmp, .. } = self;
        let dump = |path: &Path| {
            let arguments = json!({ "paging": false, "protocol": format!("file:{}", path.display()) });
            qmp.execute("dump-guest-memory", arguments, LIMIT).map(drop)
        };
        piped(folder, dump, |pipe| keep_sparse(pipe, to))
    }

    /// Sends a line to the agent inside: `procs`, `spawn NAME` (answers the pid), `kill PID`, `forget`, `exit`.
    ///
    /// # Errors
    /// The agent refuses, or does not answer in ten minutes.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.agent.command(line, LIMIT).map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// Sends a line to the agent without waiting for the answer.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn ask(&mut self, line: &str) -> Result<()> {
        self.agent.send(line)
    }

    /// The answer to what was [asked](Self::ask) before; `None` when it takes longer than `limit`, and can be waited for again.
    ///
    /// # Errors
    /// The guest is gone, or its agent refuses.
    pub fn answer(&mut self, limit: Duration) -> Result<Option<String>> {
        match self.agent.receive("an earlier question", limit) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
            Err(Error::Timeout { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// QEMU's own copy of physical memory; what is no memory reads as the devices there answer.
    ///
    /// # Errors
    /// As [`RunningGuest::qmp`].
    pub fn save(&mut self, address: u64, len: u64) -> Result<Vec<u8>> {
        self.qmp.save(address, len, LIMIT)
    }

    /// Starts a process of that name in the guest and returns its pid.
    ///
    /// # Errors
    /// As [`RunningGuest::command`].
    pub fn spawn(&mut self, name: &str) -> Result<u32> {
        let answer = self.command(&format!("spawn {name}"))?;
        answer.parse().map_err(|_| unexpected("spawn", "a pid", &answer))
    }

    /// What the script of an [`Addition`](crate::Addition) printed, once it is through.
    ///
    /// # Errors
    /// It is not through after ten minutes, or the guest ended.
    pub fn script_output(&mut self) -> Result<String> {
        let log = self.folder.join("console.log");
        let started = Instant::now();
        loop {
            let text = String::from_utf8_lossy(&std::fs::read(&log).at(&log)?).replace('\r', "");
            if let Some((output, _)) = text.split_once(&format!("\n{}", addition::END)) {
                return Ok(output.to_owned());
            }
            let what = "the script of an addition".to_owned();
            if self.process.try_wait().at(&log)?.is_some() {
                return Err(Error::Ended { what, log });
            }
            if started.elapsed() > SCRIPT {
                return Err(Error::Timeout { what, seconds: SCRIPT.as_secs(), log });
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the guest is up and settled, and takes its truth into `folder`.
    ///
    /// # Errors
    /// As [`RunningGuest::command`]; the answer is not what the agent writes.
    pub fn truth_into(&mut self, folder: &Path) -> Result<Truth> {
        let stream = self.agent.command("truth", LIMIT)?;
        unpack(&stream, folder)?;
        Truth::load(folder)
    }

    /// A fresh truth, kept beside the guest's other files.
    ///
    /// # Errors
    /// As [`RunningGuest::truth_into`].
    pub fn truth(&mut self) -> Result<Truth> {
        let folder = self.folder.join("truth");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).at(&folder)?;
        }
        self.truth_into(&folder)
    }
}

/// Closes the pipe that QEMU's life hangs on, and waits until it is gone.
fn end(process: &mut Child) {
    drop(process.stdin.take());
    let _ = process.wait();
}

impl Drop for RunningGuest {
    fn drop(&mut self) {
        end(&mut self.process);
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

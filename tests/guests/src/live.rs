//! Machines that are only run, never captured: the memory and monitors that a test asks for.
//!
//! Owns: their command lines, and machines without an operating system. Must not know: captures, what is under test.
//! Keeps: as captured guests: no network, QEMU ends with this process; a folder of its own for each.
//! Source: qemu(1).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::channel::Qmp;
use crate::error::{Result, WithPath};
use crate::program::Boot;
use crate::spec::Spec;
use crate::tool;

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(60);

/// How a live guest differs from a captured one.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Name of the guest.
    pub name: String,
    /// Arguments that give it memory and monitors: `-machine`, `-m`, `-object`, `-numa`, `-qmp`, …
    pub arguments: Vec<String>,
}

impl Live {
    /// A guest of this name with arguments separated by single spaces.
    pub fn new(name: &str, arguments: &str) -> Self {
        Self { name: name.into(), arguments: arguments.split(' ').map(str::to_owned).collect() }
    }

    /// The command that boots a spec's kernel in the folder it is run in.
    pub(crate) fn command(&self, spec: &Spec, boot: &Boot) -> Command {
        let mut qemu = leashed("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", "tcg"]);
        qemu.args(["-name", &format!("guest={},debug-threads=on", self.name)]);
        qemu.args(["-cpu", spec.cpu(), "-smp", &spec.cpus.to_string()]).args(&self.arguments);
        qemu.args(["-qmp", "unix:qmp.sock,server=on,wait=off", "-serial", "file:console.log"]);
        qemu.args([
            "-device",
            "VGA",
            "-device",
            "virtio-rng-pci",
            "-device",
            "vmcoreinfo",
            "-device",
            "virtio-serial-pci",
        ]);
        qemu.args(["-chardev", "socket,id=agent,path=agent.sock,server=on,wait=off"]);
        qemu.args(["-device", "virtserialport,chardev=agent,name=agent"]);
        qemu.arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initrd);
        qemu.args(["-append", &spec.kernel_command_line()]);
        qemu
    }
}

/// A command whose process is killed when our end of its standard input closes.
fn leashed(program: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<&0; \"$@\" </dev/null 3<&- & read -r _ <&3; kill -9 $!; wait", "sh", program]);
    command
}

/// A machine without an operating system.
#[derive(Debug)]
pub struct BareMachine {
    process: Child,
    qmp: Qmp,
    folder: PathBuf,
}

impl BareMachine {
    /// Starts QEMU in `folder`, which must exist, with a QMP socket that this value is connected to.
    ///
    /// # Errors
    /// The program is not installed, or does not start.
    pub fn start(program: &str, package: &str, arguments: &[String], folder: &Path) -> Result<Self> {
        tool::require(program, package)?;
        let log = folder.join("qemu.log");
        let output = std::fs::File::create(&log).at(&log)?;
        let errors = output.try_clone().at(&log)?;
        let mut process = leashed(program)
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"])
            // Behind the others: this one is in use.
            .args(arguments)
            .args(["-qmp", "unix:qmp.sock,server=on,wait=off"])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .at(program)?;
        match Qmp::connect(folder) {
            Ok((qmp, _)) => Ok(Self { process, qmp, folder: folder.into() }),
            Err(error) => {
                end(&mut process);
                Err(error)
            }
        }
    }

    /// The machine's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a QMP command.
    ///
    /// # Errors
    /// It is refused, or not answered in a minute.
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.qmp.execute(command, arguments, LIMIT)
    }

    /// QEMU's own copy of physical memory; what is no memory reads as the devices there answer.
    ///
    /// # Errors
    /// As [`qmp`](Self::qmp).
    pub fn save(&mut self, address: u64, len: u64) -> Result<Vec<u8>> {
        self.qmp.save(address, len, LIMIT)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        end(&mut self.process);
    }
}

fn end(process: &mut Child) {
    drop(process.stdin.take());
    let _ = process.wait();
}

impl Drop for BareMachine {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

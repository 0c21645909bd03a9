//! The guests on this host, and the choice of one.
//!
//! Owns: which processes are guests, what is said of each, which one a target names. Must not know: how memory is read.
//! Keeps: a name that several guests have is refused, with all of them listed.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{convert::Infallible, path::Path, str::FromStr, sync::Arc};

use memflow_core::{Error, Result, memory::MachineKind, units};

use crate::{command_line::CommandLine, host::HostProcess, layout::MachineType, monitor::MonitorAddress};

/// A QEMU process.
#[derive(Clone, Debug)]
pub struct Guest {
    pub(crate) process: Arc<HostProcess>,
    program: String,
    line: CommandLine,
}

/// Which guest is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The only one.
    Only,
    /// The process with this id, whatever it is called.
    Pid(u32),
    /// The guest with this name or uuid, or with a monitor at this socket.
    Name(String),
}

/// Empty text is the only guest; digits, also behind `pid=`, are a pid; anything else is a name, a uuid or the path of a socket.
impl FromStr for Target {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        let digits = text.strip_prefix("pid=").unwrap_or(text);
        Ok(match digits.parse() {
            _ if text.is_empty() => Self::Only,
            Ok(pid) => Self::Pid(pid),
            Err(_) => Self::Name(text.to_owned()),
        })
    }
}

/// The guests on this host, by pid. Processes that end meanwhile are left out.
///
/// # Errors
/// /proc cannot be read.
pub fn discover() -> Result<Vec<Guest>> {
    let entries = std::fs::read_dir("/proc").map_err(|error| Error::io("/proc", error))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut guests: Vec<Guest> = pids.filter_map(|pid| Guest::of(pid, false)).collect();
    guests.sort_by_key(Guest::pid);
    Ok(guests)
}

/// The guest that a target names.
///
/// # Errors
/// [`Error::NotFound`] when there is none, [`Error::Argument`] when there are several; both list what there is.
pub fn find(target: &Target) -> Result<Guest> {
    let all = discover()?;
    let named = |name: &str| all.iter().filter(|guest| guest.answers_to(name)).cloned().collect::<Vec<_>>();
    match target {
        Target::Pid(pid) => {
            // A guest may have digits for a name.
            let mut found = named(&pid.to_string());
            found.retain(|guest| guest.pid() != *pid);
            found.extend(Guest::of(*pid, true));
            choose(found, &pid.to_string(), &all)
        }
        Target::Name(name) => choose(named(name), name, &all),
        Target::Only => choose(all.clone(), "", &all),
    }
}

/// The only one of the guests that were found.
fn choose(found: Vec<Guest>, name: &str, all: &[Guest]) -> Result<Guest> {
    let list = |guests: &[Guest]| {
        let lines = guests.iter().map(|guest| format!("{} ({})", guest.target(), guest.describe()));
        lines.collect::<Vec<_>>().join("; ")
    };
    match <[Guest; 1]>::try_from(found) {
        Ok([guest]) => Ok(guest),
        Err(none) if none.is_empty() => {
            let here = if all.is_empty() { "no QEMU".to_owned() } else { list(all) };
            let name = if name.is_empty() { "of any name" } else { name }.to_owned();
            Err(Error::NotFound { what: "guest", name }.context(format!("this host runs {here}")))
        }
        Err(several) => Err(Error::Argument {
            what: "guest".into(),
            expected: format!("one of these, by uuid or pid: {}", list(&several)).into(),
            found: name.to_owned(),
        }),
    }
}

impl Guest {
    /// The guest that a process holds; `None` when it is gone or, unless `any` will do, is not QEMU.
    fn of(pid: u32, any: bool) -> Option<Self> {
        let process = HostProcess::open(pid).ok()?;
        let mut arguments = process.arguments().ok()?;
        let first = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
        let file_name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let names =
            [process.program().as_deref().and_then(file_name), file_name(Path::new(&first)), process.name().ok()];
        let names: Vec<String> = names.into_iter().flatten().collect();
        let program = names.iter().find(|name| is_qemu(name)).or_else(|| names.first().filter(|_| any))?.clone();
        // Threads of the kernel have no command line.
        if first.is_empty() {
            return None;
        }
        let line = CommandLine::parse(arguments.iter().map(String::as_str));
        Some(Self { process: Arc::new(process), program, line })
    }

    /// Id of the process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Name of the program.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// What its command line says.
    pub fn command_line(&self) -> &CommandLine {
        &self.line
    }

    /// What to call it: its name, else its pid.
    pub fn target(&self) -> String {
        self.line.name.clone().unwrap_or_else(|| self.pid().to_string())
    }

    /// The machine it plays, as far as that can be told.
    pub fn machine_type(&self) -> Option<MachineType> {
        match self.line.machine.as_deref() {
            Some(name) => MachineType::of(name),
            // The default of QEMU's x86 programs; Arm has none.
            None => {
                matches!(self.machine_kind()?, MachineKind::X86 | MachineKind::X86_64).then_some(MachineType::I440fx)
            }
        }
    }

    /// The kind of processor.
    pub fn machine_kind(&self) -> Option<MachineKind> {
        match self.program.strip_prefix("qemu-system-") {
            Some("x86_64") => Some(MachineKind::X86_64),
            Some("i386") => Some(MachineKind::X86),
            Some("aarch64") => Some(MachineKind::AArch64),
            Some(_) => None,
            // Programs without an architecture in their name are for the host's own.
            None if cfg!(target_arch = "x86_64") => Some(MachineKind::X86_64),
            None if cfg!(target_arch = "aarch64") => Some(MachineKind::AArch64),
            None => None,
        }
    }

    /// What a person needs to tell guests apart.
    pub fn describe(&self) -> String {
        let line = &self.line;
        let mut parts = vec![format!("pid {}", self.pid()), self.program.clone()];
        parts.extend(line.machine.clone());
        parts.extend(line.accelerator.clone());
        parts.extend(line.memory.map(|bytes| units::Size(bytes).to_string()));
        parts.extend(line.uuid.as_ref().map(|uuid| format!("uuid {uuid}")));
        parts.push(match line.monitors.first() {
            Some(monitor) => format!("monitor {monitor}"),
            None => "no monitor".to_owned(),
        });
        parts.join(", ")
    }

    fn answers_to(&self, name: &str) -> bool {
        let at_socket = |path: &Path| {
            let same =
                |ours: &Path| match (std::fs::canonicalize(path), std::fs::canonicalize(self.process.own_path(ours))) {
                    (Ok(theirs), Ok(ours)) => theirs == ours,
                    _ => false,
                };
            self.line.monitors.iter().any(|monitor| match &monitor.address {
                MonitorAddress::Unix(ours) => ours == path || same(ours),
                _ => false,
            })
        };
        self.line.name.as_deref() == Some(name)
            || self.line.uuid.as_deref() == Some(name.to_ascii_lowercase().as_str())
            || name.contains('/') && at_socket(Path::new(name))
    }
}

/// Whether a program is QEMU: as built, as RHEL names it, as Proxmox does.
fn is_qemu(name: &str) -> bool {
    name.starts_with("qemu-system-") || matches!(name, "qemu-kvm" | "kvm" | "QEMULauncher")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_pid_and_anything_else_a_name() {
        let target = |text: &str| text.parse::<Target>().unwrap_or(Target::Only);
        assert_eq!(target(""), Target::Only);
        assert_eq!([target("612"), target("pid=612")], [Target::Pid(612), Target::Pid(612)]);
        assert_eq!(target("web-1"), Target::Name("web-1".into()));
        assert_eq!(target("99999999999"), Target::Name("99999999999".into()));
    }

    #[test]
    fn programs_are_known_by_their_whole_name() {
        assert!(["qemu-system-x86_64", "qemu-kvm", "kvm"].into_iter().all(is_qemu));
        assert!(!["kvm-nx-lpage-recovery-612", "qemu-img", "qemu-ga"].into_iter().any(is_qemu));
    }
}

//! Programs of the host: found, installed where that is allowed, run with their output kept.
//!
//! Owns: how a program is called and what its failure says.
//! Must not know: what the programs are for.
//! Keeps: nothing is installed unless the user is root on a system with apt-get.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::error::{Error, Result};

/// Finds a program on the search path, or in the system folders a user's path may lack.
fn find(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

/// Makes sure a program is there; as root it is installed, else the error says what to install.
///
/// # Errors
/// When it is not there and cannot be installed.
pub fn require(program: &str, package: &str) -> Result<()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    if find(program) {
        return Ok(());
    }
    let missing = || Error::MissingTool { program: program.into(), package: package.into() };
    if !is_root() || !find("apt-get") {
        return Err(missing());
    }
    let _one_at_a_time = INSTALLING.lock().map_err(|_| missing())?;
    if find(program) {
        return Ok(());
    }
    let install = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", package]);
        command
    };
    if run(&mut install()).is_err() {
        run(Command::new("apt-get").arg("update"))?;
        run(&mut install())?;
    }
    if find(program) { Ok(()) } else { Err(missing()) }
}

/// Whether this process runs as root, by the owner of its own entry in /proc.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Runs a command to its end and returns its standard output; its last words are in the error.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let line = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Io { path: command.get_program().into(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut words = String::from_utf8_lossy(&output.stderr).into_owned();
    if words.trim().is_empty() {
        words = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    let lines: Vec<&str> = words.trim().lines().collect();
    let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n");
    Err(Error::Command { command: line, status: output.status.to_string(), output: last })
}

/// The command as one line, cut to a readable length.
fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args() {
        line.push(' ');
        line.push_str(&word.to_string_lossy());
    }
    line.chars().take(300).collect()
}

/// Copies a file and leaves holes where it holds zeros.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("--sparse=always").arg(from).arg(to)).map(drop)
}

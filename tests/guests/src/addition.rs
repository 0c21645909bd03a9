//! Files and a script that a guest gets beside its own: programs of the workspace, run inside.
//!
//! Owns: the second archive that the kernel unpacks over the first, and what a program of the host needs to run in a guest.
//! Must not know: what the programs are.
//! Keeps: guests are booted from what was captured; nothing of an addition changes the guest it is added to.
//! Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst: archives may follow each other, later files win.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result, WithPath};
use crate::initramfs::Archive;
use crate::tool;

/// Starts the script and goes on as the guest would without it.
const INIT: &str = "#!/bin/sh\n/bin/sh /addition/run &\nexec /bin/busybox init\n";
/// What the script begins with: it waits for the guest, and writes to the console.
const PROLOGUE: &str =
    "PATH=/bin:/sbin:/addition\nuntil [ -e /run/ready.all ]; do sleep 1; done\nexec >/dev/ttyS0 2>&1\n";
/// Ends what a script prints.
pub(crate) const END: &str = "@@end of the script";

/// Files and a script for a guest.
#[derive(Debug)]
pub struct Addition {
    archive: Archive,
    folders: Vec<String>,
}

impl Addition {
    /// A shell script that runs once the guest is up. What it prints is in [`RunningGuest::script_output`].
    ///
    /// [`RunningGuest::script_output`]: crate::RunningGuest::script_output
    pub fn script(text: &str) -> Self {
        let mut this = Self { archive: Archive::default(), folders: Vec::new() };
        // What the shell gives to what it starts in the background, before the guest has mounted its own.
        this.archive.character("dev/null", 1, 3);
        this.file("init", 0o755, INIT.as_bytes());
        this.file("addition/run", 0o755, format!("{PROLOGUE}{text}\necho; echo '{END}'\n").as_bytes());
        this
    }

    /// A program of this machine under `/addition`, without its debug information, and the libraries it is linked with.
    ///
    /// # Errors
    /// It cannot be read, or `strip` or `ldd` refuse it.
    pub fn with_program(mut self, path: &Path, name: &str) -> Result<Self> {
        tool::require("strip", "binutils")?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("memflow-addition-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).at(&folder)?;
        let stripped = folder.join(name);
        let program = tool::run(Command::new("strip").arg("-o").arg(&stripped).arg(path))
            .and_then(|_| std::fs::read(&stripped).at(&stripped));
        std::fs::remove_dir_all(&folder).at(folder)?;
        self.file(&format!("addition/{name}"), 0o755, &program?);
        let listed = Command::new("ldd").arg(path).output().at("ldd")?;
        let text = String::from_utf8_lossy(&listed.stdout);
        // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, and the loader as a path alone.
        for library in text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))) {
            self.file(library.trim_start_matches('/'), 0o755, &std::fs::read(library).at(library)?);
        }
        if !text.contains("ld-linux") {
            let hint = "ldd names no loader; is it a program of this machine?".to_owned();
            return Err(Error::MissingFile { path: path.into(), hint });
        }
        Ok(self)
    }

    /// A file, in folders that are made if they are not there.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        let ends = path.match_indices('/').map(|(end, _)| &path[..end]);
        for folder in ends {
            if !self.folders.iter().any(|known| known == folder) {
                self.archive.folder(folder);
                self.folders.push(folder.to_owned());
            }
        }
        self.archive.file(path, mode, bytes);
    }

    /// Writes `initramfs` and the addition behind it.
    pub(crate) fn write_behind(self, initramfs: &Path, to: &Path) -> Result<()> {
        let mut bytes = std::fs::read(initramfs).at(initramfs)?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.archive.write(to)?;
        bytes.extend(std::fs::read(to).at(to)?);
        std::fs::write(to, bytes).at(to)
    }
}

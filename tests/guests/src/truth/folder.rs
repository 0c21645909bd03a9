//! A truth folder: which file answers which question.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result, WithPath, unexpected};
use crate::truth::process::{self, Mapping, Page, Process, Thread};
use crate::truth::system::{self, IoRange, LogRecord, Module, Symbol};

/// What one guest said about itself at one moment.
///
/// The processes are those at the moment of the capture, with two exceptions that lie in how it was taken:
/// the agent's own state (`R` here, `S` in memory) and its own pages; and the names of workers of kernel work queues,
/// which the kernel extends while it prints them ([`Process::task_name`] takes that back).
#[derive(Debug, Clone)]
pub struct Truth {
    folder: PathBuf,
}

impl Truth {
    /// Takes a truth folder; its files are read when they are asked for.
    ///
    /// # Errors
    /// The folder holds no truth.
    pub fn load(folder: impl Into<PathBuf>) -> Result<Self> {
        let this = Self { folder: folder.into() };
        this.agent_pid()?;
        Ok(this)
    }

    /// The bytes of any of the guest's files that were kept, by their path there without the first slash.
    ///
    /// # Errors
    /// The file was not kept, or the guest could not read it (`errors.txt`).
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.folder.join(path);
        if !file.is_file() {
            let hint = format!(
                "kept files are listed in guest/agent.c, unreadable ones in {}/errors.txt",
                self.folder.display()
            );
            return Err(Error::MissingFile { path: file, hint });
        }
        std::fs::read(&file).at(file)
    }

    /// As [`Truth::bytes`], as text.
    ///
    /// # Errors
    /// As [`Truth::bytes`].
    pub fn text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(path)?).into_owned())
    }

    /// The truth's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The pid of the agent that took this truth.
    ///
    /// # Errors
    /// The folder holds no truth.
    pub fn agent_pid(&self) -> Result<u32> {
        let text = self.text("agent")?;
        text.trim().parse().map_err(|_| unexpected("agent", "a pid", &text))
    }

    /// Every process, in the order of their pids; kernel threads included.
    ///
    /// # Errors
    /// A file is missing or not what proc(5) says.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let list = self.text("procs")?;
        let mut processes = Vec::new();
        for line in list.lines() {
            let pid = line.split(' ').next().and_then(|pid| pid.parse().ok());
            let pid = pid.ok_or_else(|| unexpected("procs", "a line that starts with a pid", line))?;
            processes.push(self.process(pid)?);
        }
        processes.sort_by_key(|process| process.pid);
        Ok(processes)
    }

    /// One process.
    ///
    /// # Errors
    /// As [`Truth::processes`].
    pub fn process(&self, pid: u32) -> Result<Process> {
        let file = |name: &str| format!("proc/{pid}/{name}");
        let exe = self.folder.join(file("exe"));
        let exe = if exe.is_file() { Some(self.text(&file("exe"))?) } else { None };
        process::parse(
            &self.text(&file("stat"))?,
            &self.text(&file("status"))?,
            self.text(&file("comm"))?.trim_end_matches('\n'),
            self.bytes(&file("cmdline"))?,
            exe,
        )
    }

    /// The one process of that name.
    ///
    /// # Errors
    /// As [`Truth::processes`]; none or several of that name.
    pub fn process_named(&self, name: &str) -> Result<Process> {
        let mut found: Vec<Process> = self.processes()?.into_iter().filter(|process| process.name == name).collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            _ => Err(unexpected("procs", "exactly one process of that name", &format!("{} named {name}", found.len()))),
        }
    }

    /// The threads of a process, in the order of their ids; the first has the process' id.
    ///
    /// # Errors
    /// As [`Truth::processes`].
    pub fn threads(&self, pid: u32) -> Result<Vec<Thread>> {
        let folder = self.folder.join(format!("proc/{pid}/task"));
        let mut threads = Vec::new();
        for entry in std::fs::read_dir(&folder).at(&folder)?.flatten() {
            let tid = entry.file_name().to_string_lossy().into_owned();
            let stat = self.text(&format!("proc/{pid}/task/{tid}/stat"))?;
            let name = self.text(&format!("proc/{pid}/task/{tid}/comm"))?;
            threads.push(process::parse_thread(&stat, name.trim_end_matches('\n'))?);
        }
        threads.sort_by_key(|thread| thread.tid);
        Ok(threads)
    }

    /// A process' mappings; none for a kernel thread or a zombie.
    ///
    /// # Errors
    /// As [`Truth::processes`].
    pub fn maps(&self, pid: u32) -> Result<Vec<Mapping>> {
        process::parse_maps(&self.text(&format!("proc/{pid}/maps"))?)
    }

    /// The pages of a process that are in memory, from its pagemap; none for a kernel thread or a zombie.
    ///
    /// # Errors
    /// A line that is not two addresses.
    pub fn pages(&self, pid: u32) -> Result<Vec<Page>> {
        let path = format!("proc/{pid}/pages");
        if !self.folder.join(&path).is_file() {
            return Ok(Vec::new());
        }
        process::parse_pages(&self.text(&path)?)
    }

    /// A process' environment, `NAME=value` each.
    ///
    /// # Errors
    /// As [`Truth::processes`].
    pub fn environ(&self, pid: u32) -> Result<Vec<String>> {
        Ok(process::words(&self.bytes(&format!("proc/{pid}/environ"))?))
    }

    /// Every kernel symbol, modules' included.
    ///
    /// # Errors
    /// A line that is not `address kind name`.
    pub fn kallsyms(&self) -> Result<Vec<Symbol>> {
        system::parse_kallsyms(&self.text("proc/kallsyms")?)
    }

    /// Loaded kernel modules, newest first.
    ///
    /// # Errors
    /// A line that is not what proc(5) says.
    pub fn modules(&self) -> Result<Vec<Module>> {
        system::parse_modules(&self.text("proc/modules")?)
    }

    /// The kernel's log. Memory may hold records that were written afterwards.
    ///
    /// # Errors
    /// A record without its prefix.
    pub fn dmesg(&self) -> Result<Vec<LogRecord>> {
        system::parse_kmsg(&self.text("dev/kmsg")?)
    }

    /// Physical address ranges by use.
    ///
    /// # Errors
    /// A line that is not `start-end : name`.
    pub fn iomem(&self) -> Result<Vec<IoRange>> {
        system::parse_iomem(&self.text("proc/iomem")?)
    }

    /// The kernel's banner, as in /proc/version.
    ///
    /// # Errors
    /// The file is missing.
    pub fn version(&self) -> Result<String> {
        Ok(self.text("proc/version")?.trim_end().to_owned())
    }

    /// The kernel's release.
    ///
    /// # Errors
    /// The file is missing.
    pub fn release(&self) -> Result<String> {
        Ok(self.text("proc/sys/kernel/osrelease")?.trim_end().to_owned())
    }

    /// The host name.
    ///
    /// # Errors
    /// The file is missing.
    pub fn hostname(&self) -> Result<String> {
        Ok(self.text("proc/sys/kernel/hostname")?.trim_end().to_owned())
    }

    /// The kernel's command line.
    ///
    /// # Errors
    /// The file is missing.
    pub fn kernel_command_line(&self) -> Result<String> {
        Ok(self.text("proc/cmdline")?.trim_end().to_owned())
    }

    /// When the guest booted, in seconds since 1970.
    ///
    /// # Errors
    /// /proc/stat has no `btime`.
    pub fn boot_time(&self) -> Result<u64> {
        let stat = self.text("proc/stat")?;
        let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
        line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| unexpected("proc/stat", "a btime line", &stat))
    }
}

//! The committed snapshot: a guest made for size, and its truth in one file.
//!
//! Owns: how the snapshot is made small and what its truth file holds.
//! Must not know: who reads the snapshot.
//! Keeps: free memory reads as zero (`init_on_free`), so it costs nothing; what the truth says was true at the instant of
//! the dump.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{Result, WithPath, unexpected};
use crate::guests::Guests;
use crate::spec::DEMO;
use crate::tool;
use crate::truth::{Mapping, Module, Process};

/// `truth.json` beside the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoTruth {
    /// Packages the guest was made of.
    pub packages: Vec<String>,
    /// Host name.
    pub hostname: String,
    /// Kernel release.
    pub release: String,
    /// Kernel banner.
    pub version: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Boot, in seconds since 1970.
    pub boot_time: u64,
    /// Levels of the page tables.
    pub levels: u8,
    /// CR3 of each vCPU.
    pub cr3: Vec<u64>,
    /// Every process.
    pub processes: Vec<DemoProcess>,
    /// Loaded kernel modules.
    pub modules: Vec<Module>,
    /// Memory maps of some processes.
    pub maps: Vec<DemoMaps>,
    /// Some kernel symbols.
    pub symbols: Vec<DemoSymbol>,
}

/// One process of the demo guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoProcess {
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// State, the letter of proc(5).
    pub state: char,
    /// Number of threads.
    pub threads: u32,
    /// Name, as the task holds it.
    pub name: String,
    /// Command line, one string an argument.
    pub cmdline: Vec<String>,
    /// Executable.
    pub exe: Option<String>,
    /// Start, in clock ticks (1/100 s) after boot.
    pub start_ticks: u64,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
}

/// A process' memory map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoMaps {
    /// Process id.
    pub pid: u32,
    /// Its mappings, as /proc/PID/maps lists them.
    pub mappings: Vec<Mapping>,
}

/// A kernel symbol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoSymbol {
    /// Name.
    pub name: String,
    /// Address.
    pub address: u64,
}

/// Makes the snapshot and its truth in `folder`: `demo.elf.zst` and `truth.json`. Returns the snapshot's size.
///
/// # Errors
/// The guest cannot be prepared, or the files cannot be written.
pub fn demo(guests: &Guests, folder: &Path, progress: &dyn Fn(&str)) -> Result<u64> {
    tool::require("zstd", "zstd")?;
    guests.prepare(&DEMO, progress)?;
    let guest = guests.captured(DEMO.name)?;
    let truth = &guest.truth;
    let agent = truth.agent_pid()?;
    let processes = truth.processes()?;

    let mut maps = Vec::new();
    for name in ["init", "worker-pool", "syslogd"] {
        if let Some(process) = processes.iter().find(|process| process.name == name) {
            maps.push(DemoMaps { pid: process.pid, mappings: truth.maps(process.pid)? });
        }
    }
    let kernel: Vec<_> = truth.kallsyms()?.into_iter().filter(|symbol| symbol.module.is_none()).collect();
    let named = ["_stext", "linux_banner", "init_task", "init_mm", "modules"];
    let symbols = kernel
        .iter()
        .enumerate()
        .filter(|(at, symbol)| at % 400 == 0 || named.contains(&symbol.name.as_str()))
        // A name that several symbols share cannot be looked up.
        .filter(|(_, symbol)| kernel.iter().filter(|other| other.name == symbol.name).count() == 1)
        .map(|(_, symbol)| DemoSymbol { name: symbol.name.clone(), address: symbol.address })
        .collect();
    let all = DemoTruth {
        packages: guest.meta.packages.clone(),
        hostname: truth.hostname()?,
        release: truth.release()?,
        version: truth.version()?,
        cmdline: truth.kernel_command_line()?,
        boot_time: truth.boot_time()?,
        levels: guest.meta.levels,
        cr3: guest.meta.cr3.clone(),
        processes: processes.iter().map(|process| demo_process(process, agent)).collect(),
        modules: truth.modules()?,
        maps,
        symbols,
    };
    std::fs::create_dir_all(folder).at(folder)?;
    let text = serde_json::to_string_pretty(&all)
        .map_err(|error| unexpected("truth.json", "serializable values", &error.to_string()))?;
    let path = folder.join("truth.json");
    std::fs::write(&path, text + "\n").at(path)?;

    progress("compressing");
    let snapshot = folder.join("demo.elf.zst");
    let mut zstd = Command::new("zstd");
    zstd.args(["-q", "-f", "--ultra", "-22", "--long=27"]).arg(guest.core()).arg("-o").arg(&snapshot);
    tool::run(&mut zstd)?;
    Ok(std::fs::metadata(&snapshot).at(&snapshot)?.len())
}

fn demo_process(process: &Process, agent: u32) -> DemoProcess {
    DemoProcess {
        pid: process.pid,
        ppid: process.ppid,
        uid: process.uid,
        gid: process.gid,
        // The agent reads its own state while it runs; it slept when the memory was taken.
        state: if process.pid == agent { 'S' } else { process.state },
        threads: process.threads,
        name: process.task_name().to_owned(),
        cmdline: process.arguments(),
        exe: process.exe.clone(),
        start_ticks: process.start_ticks,
        kernel_thread: process.kernel_thread,
    }
}

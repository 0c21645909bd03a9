//! From an operating system and the name of a process to the memory of the machine inside.
//!
//! Owns: [`open`], [`open_process`] and their options. Must not know: which operating system it is.
//! Keeps: a name that several processes have is refused; every error names the process.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::str::FromStr;

use memflow_core::{
    Error, Result, VirtAddr,
    error::ResultExt,
    memory::RunMap,
    os::{Os, Process},
};

use crate::{GuestRun, ProcessMemory, layout};

/// Which process holds the memory. As text: decimal digits are a pid, anything else is a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The process with this id.
    Pid(u32),
    /// The one process of this name.
    Name(String),
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Argument {
            what: "process".into(),
            expected: "a pid below 2^32, or a name that is more than digits".into(),
            found: text.to_owned(),
        };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Pid).map_err(|_| wrong());
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// How the memory lies in the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The runs of guest memory. Empty: the process' largest writable mapping, from physical address zero on.
    pub runs: Vec<GuestRun>,
}

impl Options {
    /// Options with these runs of guest memory; where each lies is for the caller to know.
    ///
    /// ```
    /// # use memflow_core::{PhysAddr, VirtAddr};
    /// # use memflow_process::{GuestRun, Options};
    /// // 4 GiB of a QEMU `q35` machine in one mapping: 2 GiB from zero on, the rest above 4 GiB.
    /// let (mapping, low, high) = (0x7f00_0000_0000, 2 << 30, 2 << 30);
    /// let options = Options::with_runs([
    ///     GuestRun { phys: PhysAddr::new(0), virt: VirtAddr::new(mapping), len: low },
    ///     GuestRun { phys: PhysAddr::new(4 << 30), virt: VirtAddr::new(mapping + low), len: high },
    /// ]);
    /// assert_eq!(options.runs.len(), 2);
    /// ```
    pub fn with_runs(runs: impl IntoIterator<Item = GuestRun>) -> Self {
        Self { runs: runs.into_iter().collect() }
    }
}

/// The runs of a map whose offsets are virtual addresses of the process.
impl From<&RunMap> for Options {
    fn from(map: &RunMap) -> Self {
        Self::with_runs(map.runs().iter().map(|run| GuestRun {
            phys: run.range.start(),
            virt: VirtAddr::new(run.offset),
            len: run.range.len(),
        }))
    }
}

/// Opens the memory of the machine that a process of `os` holds.
///
/// # Errors
/// [`Error::NotFound`] when there is no such process; [`Error::Argument`] when several have the name; as [`open_process`].
pub fn open(os: &dyn Os, target: &Target, options: &Options) -> Result<ProcessMemory> {
    let process = match target {
        Target::Pid(pid) => os.open_pid(*pid)?,
        Target::Name(name) => open_named(os, name)?,
    };
    open_process(process, options)
}

/// Opens the memory of the machine that this process holds.
///
/// # Errors
/// The process is a thread of the kernel; the runs are empty, overlap or leave an address space; or, without runs, the process'
/// memory map cannot be read or does not say which mapping it must be.
pub fn open_process(process: Box<dyn Process>, options: &Options) -> Result<ProcessMemory> {
    let info = process.info();
    let who = format!("process {} ({})", info.name, info.pid);
    let context = || format!("memory in {who}").into();
    if process.address_space().is_none() {
        let error = Error::Unsupported {
            what: "a process without an address space".to_owned(),
            why: "threads of the kernel hold no machine; name the monitor itself".to_owned(),
        };
        return Err(error).context(context);
    }
    let last = process.metadata().last_address;
    let runs = if options.runs.is_empty() {
        layout::largest_mapping(&*process).and_then(|run| layout::given(&[run], last))
    } else {
        layout::given(&options.runs, last)
    };
    let runs = runs.context(context)?;
    Ok(ProcessMemory::new(process, who, runs))
}

/// Opens the one process of this name. A list with problems may lack another one of it, and so does not do.
fn open_named(os: &dyn Os, name: &str) -> Result<Box<dyn Process>> {
    let list = os.processes()?;
    let found: Vec<_> = list.items.iter().filter(|process| process.name == name).collect();
    if let several @ [_, _, ..] = found.as_slice() {
        let pids: Vec<String> = several.iter().map(|process| process.pid.to_string()).collect();
        return Err(Error::Argument {
            what: "process".into(),
            expected: format!("the name of one process, or a pid; the processes {} have this name", pids.join(", "))
                .into(),
            found: name.to_owned(),
        });
    }
    if let Some(problem) = list.problems.into_iter().next() {
        return Err(
            problem.context(format!("process {name}, looked for in a list with problems; its pid finds it anyway"))
        );
    }
    match found.as_slice() {
        [process] => os.open(process),
        _ => Err(Error::NotFound { what: "process", name: name.to_owned() }),
    }
}

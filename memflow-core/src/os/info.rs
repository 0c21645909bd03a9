//! Plain records of what an OS layer found.
//!
//! Owns: structs with public fields, no behaviour beyond text. Must not know: how they were found.
//! Keeps: a field the target does not have is `None`; a field that could not be read is an error of the listing, never a made-up value.

use std::{fmt, time::Duration};

use crate::{
    address::{VirtAddr, VirtRange},
    error::Error,
};

/// A list, and what kept it from being complete. The items are good; with problems there may be more than these.
#[derive(Debug)]
#[must_use = "a listing may be incomplete; look at its problems"]
pub struct Listing<T> {
    /// What was found.
    pub items: Vec<T>,
    /// What could not be read or made no sense, in the order met. Empty means that the list is complete.
    pub problems: Vec<Error>,
}

impl<T> Listing<T> {
    /// An empty, complete list.
    pub fn new() -> Self {
        Self { items: Vec::new(), problems: Vec::new() }
    }

    /// True when nothing kept the list from being complete.
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty()
    }

    /// The items, if the list is complete.
    ///
    /// # Errors
    /// The first problem.
    pub fn into_complete(self) -> Result<Vec<T>, Error> {
        match self.problems.into_iter().next() {
            None => Ok(self.items),
            Some(problem) => Err(problem),
        }
    }
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The kernel that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KernelInfo {
    /// The operating system ("Linux").
    pub system: String,
    /// Its release ("6.1.0-18-amd64").
    pub release: String,
    /// Its full version text, as the kernel prints it.
    pub version: String,
    /// The host name.
    pub hostname: Option<String>,
    /// The architecture of its page tables.
    pub architecture: &'static str,
    /// Where the kernel's code starts.
    pub base: VirtAddr,
    /// Build identification of the kernel image, in hexadecimal.
    pub build_id: Option<String>,
    /// How the kernel was found, a line per step, for people.
    pub evidence: Vec<String>,
}

impl KernelInfo {
    /// A record with the given names; everything else is filled in by its public fields.
    pub fn new(
        system: impl Into<String>,
        release: impl Into<String>,
        version: impl Into<String>,
        architecture: &'static str,
        base: VirtAddr,
    ) -> Self {
        Self {
            system: system.into(),
            release: release.into(),
            version: version.into(),
            hostname: None,
            architecture,
            base,
            build_id: None,
            evidence: Vec::new(),
        }
    }
}

/// The state of a process or thread, in the kernel's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProcessState {
    /// On a CPU or ready for one ("R").
    Running,
    /// Waiting, can be woken by a signal ("S").
    Sleeping,
    /// Waiting, cannot be woken by a signal ("D").
    DiskSleep,
    /// Stopped by a signal ("T").
    Stopped,
    /// Stopped by a debugger ("t").
    Traced,
    /// Ended, not yet waited for ("Z").
    Zombie,
    /// Being removed ("X").
    Dead,
    /// A kernel thread with nothing to do ("I").
    Idle,
    /// Parked ("P").
    Parked,
}

impl ProcessState {
    /// The letter that `ps` and `/proc/PID/stat` use.
    pub fn letter(self) -> char {
        match self {
            Self::Running => 'R',
            Self::Sleeping => 'S',
            Self::DiskSleep => 'D',
            Self::Stopped => 'T',
            Self::Traced => 't',
            Self::Zombie => 'Z',
            Self::Dead => 'X',
            Self::Idle => 'I',
            Self::Parked => 'P',
        }
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

/// A process, as the kernel describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// The kernel's object (Linux: `task_struct`, Windows: `_EPROCESS`).
    pub address: VirtAddr,
    /// Process id.
    pub pid: u32,
    /// Process id of the parent; 0 when there is none.
    pub parent_pid: u32,
    /// Effective user id, where the system has such numbers.
    pub uid: Option<u32>,
    /// Effective group id, where the system has such numbers.
    pub gid: Option<u32>,
    /// State.
    pub state: ProcessState,
    /// Number of threads.
    pub threads: u32,
    /// The kernel's name of the process (Linux: at most 15 bytes).
    pub name: String,
    /// True for a thread of the kernel, which has no address space of its own.
    pub kernel_thread: bool,
    /// Time from boot to the start of the process.
    pub start_time: Duration,
    /// Value of the page-table root register for this process, where it has an address space.
    pub root: Option<u64>,
}

impl ProcessInfo {
    /// A record with the given identity; everything else starts empty and is filled in by its public fields.
    pub fn new(address: VirtAddr, pid: u32, name: impl Into<String>) -> Self {
        Self {
            address,
            pid,
            parent_pid: 0,
            uid: None,
            gid: None,
            state: ProcessState::Running,
            threads: 1,
            name: name.into(),
            kernel_thread: false,
            start_time: Duration::ZERO,
            root: None,
        }
    }
}

/// A thread of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// The kernel's object.
    pub address: VirtAddr,
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub name: String,
    /// State.
    pub state: ProcessState,
}

impl ThreadInfo {
    /// A thread record.
    pub fn new(address: VirtAddr, tid: u32, pid: u32, name: impl Into<String>, state: ProcessState) -> Self {
        Self { address, tid, pid, name: name.into(), state }
    }
}

/// What a memory region may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Permissions {
    /// Reads.
    pub read: bool,
    /// Writes.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
    /// Shared with other processes (`MAP_SHARED`); else private.
    pub shared: bool,
}

impl fmt::Display for Permissions {
    /// As `/proc/PID/maps` writes them: `r-xp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pick = |set, letter| if set { letter } else { '-' };
        write!(
            f,
            "{}{}{}{}",
            pick(self.read, 'r'),
            pick(self.write, 'w'),
            pick(self.execute, 'x'),
            if self.shared { 's' } else { 'p' }
        )
    }
}

/// What a memory region is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RegionKind {
    /// Memory without a file.
    Anonymous,
    /// A file.
    File {
        /// Its path as the process sees it.
        path: String,
        /// Offset of the region's first byte in the file.
        offset: u64,
        /// Inode number.
        inode: u64,
        /// Device number, major.
        device_major: u32,
        /// Device number, minor.
        device_minor: u32,
    },
    /// Memory with a name the system gives it: `[heap]`, `[stack]`, `[vdso]`, `[vvar]`, `[anon:NAME]`.
    Special {
        /// The name with its brackets.
        name: String,
    },
}

/// A region of a process' address space, from the operating system's own records.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryRegion {
    /// The addresses.
    pub range: VirtRange,
    /// What it may be used for.
    pub permissions: Permissions,
    /// What it is.
    pub kind: RegionKind,
}

impl MemoryRegion {
    /// A region record.
    pub fn new(range: VirtRange, permissions: Permissions, kind: RegionKind) -> Self {
        Self { range, permissions, kind }
    }
}

/// A module: a driver of the kernel, or an executable or library of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ModuleInfo {
    /// The kernel's object, where there is one.
    pub address: VirtAddr,
    /// Where the image starts.
    pub base: VirtAddr,
    /// Bytes that the module occupies in memory.
    pub size: u64,
    /// Name.
    pub name: String,
    /// Modules that use this one, where the system tells.
    pub used_by: Vec<String>,
    /// State, in the system's words ("Live").
    pub state: Option<String>,
}

impl ModuleInfo {
    /// A module record.
    pub fn new(address: VirtAddr, base: VirtAddr, size: u64, name: impl Into<String>) -> Self {
        Self { address, base, size, name: name.into(), used_by: Vec::new(), state: None }
    }
}

/// A symbol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SymbolInfo {
    /// Its address.
    pub address: VirtAddr,
    /// Its type letter, as `nm` prints it.
    pub kind: char,
    /// Its name.
    pub name: String,
    /// The module it belongs to; `None` for the kernel itself.
    pub module: Option<String>,
}

/// A record of the kernel's log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogRecord {
    /// Time since boot.
    pub time: Duration,
    /// Sequence number.
    pub sequence: u64,
    /// Facility (syslog).
    pub facility: u8,
    /// Level (syslog): 0 emergency to 7 debug.
    pub level: u8,
    /// Text, without a line end.
    pub text: String,
}

impl LogRecord {
    /// A log record.
    pub fn new(time: Duration, sequence: u64, facility: u8, level: u8, text: impl Into<String>) -> Self {
        Self { time, sequence, facility, level, text: text.into() }
    }
}

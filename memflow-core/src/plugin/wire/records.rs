//! Records of operating systems: kernels, processes, threads, regions, modules, symbols, log messages.
//!
//! Owns: [`Record`], implemented for each in both directions. Must not know: who lists them.
//! Keeps: a record that borrows from ours lives only while it is handed over.

use std::{fmt::Display, time::Duration};

use memflow_abi::{
    Growing, KernelRecord, LogRecord as LogWire, ModuleRecord, ProcessRecord, RegionRecord, SymbolRecord, TargetRecord,
    Text, TextRecord, ThreadRecord, permission, process_present, process_state, region_kind,
};

use super::raw;
use crate::{
    address::{VirtAddr, VirtRange},
    error::{Error, ErrorKind, Result},
    os::{
        KernelInfo, LogRecord, MemoryRegion, ModuleInfo, Permissions, ProcessInfo, ProcessState, RegionKind,
        SymbolInfo, ThreadInfo,
    },
    paging::Architecture,
    plugin::definition::TargetInfo,
};

/// Something that crosses as a record.
pub(crate) trait Record: Sized {
    /// The structure that it crosses as.
    type Wire: Growing;

    /// Most records of a list, and most problems in it. A kernel with all its modules has some hundred thousand symbols.
    const MOST: usize = 1 << 21;

    /// Hands the structure, which borrows from this, to `give`.
    fn with_wire<T>(&self, give: impl FnOnce(&Self::Wire) -> T) -> T;

    /// Takes a structure of the other side.
    ///
    /// # Errors
    /// When it says something impossible.
    ///
    /// # Safety
    /// Texts and arrays of the structure are as [`raw::bytes`] and [`raw::items`] want them.
    unsafe fn from_wire(wire: &Self::Wire) -> Result<Self>;
}

const STATES: &[(ProcessState, u32)] = &[
    (ProcessState::Running, process_state::RUNNING),
    (ProcessState::Sleeping, process_state::SLEEPING),
    (ProcessState::DiskSleep, process_state::DISK_SLEEP),
    (ProcessState::Stopped, process_state::STOPPED),
    (ProcessState::Traced, process_state::TRACED),
    (ProcessState::Zombie, process_state::ZOMBIE),
    (ProcessState::Dead, process_state::DEAD),
    (ProcessState::Idle, process_state::IDLE),
    (ProcessState::Parked, process_state::PARKED),
];

fn state_to_wire(state: ProcessState) -> u32 {
    STATES.iter().find(|(known, _)| *known == state).map_or(0, |(_, number)| *number)
}

fn state_from_wire(number: u32) -> Result<ProcessState> {
    STATES
        .iter()
        .find(|(_, known)| *known == number)
        .map(|(state, _)| *state)
        .ok_or_else(|| broken(format!("state {number} of a process is not one that this build knows")))
}

/// An error about a record that says something impossible.
pub(crate) fn broken(message: impl Display) -> Error {
    Error::Foreign {
        kind: ErrorKind::Contract,
        message: format!("a plugin broke its contract: {message}"),
        access: None,
    }
}

fn optional(text: Option<&String>) -> Text {
    text.map_or(Text::NONE, |text| Text::new(text))
}

/// # Safety
/// As [`raw::items`], and each text as [`raw::bytes`].
unsafe fn strings(what: &str, first: *const Text, count: usize) -> Result<Vec<String>> {
    // SAFETY: the caller's promise.
    let texts = unsafe { raw::list(what, first, count) }.map_err(broken)?;
    // SAFETY: the caller's promise.
    Ok(texts.iter().map(|text| unsafe { raw::string(*text) }).collect())
}

impl Record for String {
    type Wire = TextRecord;

    fn with_wire<T>(&self, give: impl FnOnce(&TextRecord) -> T) -> T {
        let mut wire = TextRecord::empty();
        wire.text = Text::new(self);
        give(&wire)
    }

    unsafe fn from_wire(wire: &TextRecord) -> Result<Self> {
        // SAFETY: the caller's promise.
        Ok(unsafe { raw::string(wire.text) })
    }
}

impl Record for TargetInfo {
    type Wire = TargetRecord;

    fn with_wire<T>(&self, give: impl FnOnce(&TargetRecord) -> T) -> T {
        let mut wire = TargetRecord::empty();
        wire.name = Text::new(&self.name);
        wire.description = Text::new(&self.description);
        give(&wire)
    }

    unsafe fn from_wire(wire: &TargetRecord) -> Result<Self> {
        // SAFETY: the caller's promise.
        let name = unsafe { raw::string(wire.name) };
        // SAFETY: the caller's promise.
        let description = unsafe { raw::string(wire.description) };
        Ok(Self::new(name, description))
    }
}

impl Record for KernelInfo {
    type Wire = KernelRecord;

    fn with_wire<T>(&self, give: impl FnOnce(&KernelRecord) -> T) -> T {
        let evidence: Vec<Text> = self.evidence.iter().map(|line| Text::new(line)).collect();
        let mut wire = KernelRecord::empty();
        wire.system = Text::new(&self.system);
        wire.release = Text::new(&self.release);
        wire.version = Text::new(&self.version);
        wire.hostname = optional(self.hostname.as_ref());
        wire.architecture = Text::new(self.architecture);
        wire.base = self.base.as_u64();
        wire.build_id = optional(self.build_id.as_ref());
        wire.evidence = evidence.as_ptr();
        wire.evidence_count = evidence.len();
        give(&wire)
    }

    unsafe fn from_wire(wire: &KernelRecord) -> Result<Self> {
        // SAFETY: the caller's promise.
        let [system, release, version, name] =
            [wire.system, wire.release, wire.version, wire.architecture].map(|text| unsafe { raw::string(text) });
        let architecture = architecture(&name)?.name;
        let mut kernel = Self::new(system, release, version, architecture, VirtAddr::new(wire.base));
        // SAFETY: the caller's promise.
        [kernel.hostname, kernel.build_id] =
            [wire.hostname, wire.build_id].map(|text| unsafe { raw::optional_string(text) });
        // SAFETY: the caller's promise.
        kernel.evidence = unsafe { strings("the evidence of a kernel", wire.evidence, wire.evidence_count) }?;
        Ok(kernel)
    }
}

/// The paging mode of that name.
///
/// # Errors
/// [`Error::Unsupported`] when this build does not know it.
pub(crate) fn architecture(name: &str) -> Result<&'static Architecture> {
    Architecture::named(name).ok_or_else(|| Error::Unsupported {
        what: format!("paging mode `{name}` of a plugin"),
        why: "this build of memflow does not know it; update memflow".to_owned(),
    })
}

impl Record for ProcessInfo {
    type Wire = ProcessRecord;

    fn with_wire<T>(&self, give: impl FnOnce(&ProcessRecord) -> T) -> T {
        let mut wire = ProcessRecord::empty();
        wire.address = self.address.as_u64();
        wire.pid = self.pid;
        wire.parent_pid = self.parent_pid;
        wire.uid = self.uid.unwrap_or(0);
        wire.gid = self.gid.unwrap_or(0);
        for (there, bit) in [
            (self.uid.is_some(), process_present::UID),
            (self.gid.is_some(), process_present::GID),
            (self.root.is_some(), process_present::ROOT),
            (self.kernel_thread, process_present::KERNEL_THREAD),
        ] {
            wire.present |= if there { bit } else { 0 };
        }
        wire.state = state_to_wire(self.state);
        wire.threads = self.threads;
        wire.name = Text::new(&self.name);
        wire.start_time = nanoseconds(self.start_time);
        wire.root = self.root.unwrap_or(0);
        give(&wire)
    }

    unsafe fn from_wire(wire: &ProcessRecord) -> Result<Self> {
        let has = |bit| wire.present & bit != 0;
        // SAFETY: the caller's promise.
        let mut process = Self::new(VirtAddr::new(wire.address), wire.pid, unsafe { raw::string(wire.name) });
        process.parent_pid = wire.parent_pid;
        process.uid = has(process_present::UID).then_some(wire.uid);
        process.gid = has(process_present::GID).then_some(wire.gid);
        process.root = has(process_present::ROOT).then_some(wire.root);
        process.kernel_thread = has(process_present::KERNEL_THREAD);
        process.state = state_from_wire(wire.state)?;
        process.threads = wire.threads;
        process.start_time = Duration::from_nanos(wire.start_time);
        Ok(process)
    }
}

/// Five hundred years fit.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Record for ThreadInfo {
    type Wire = ThreadRecord;

    fn with_wire<T>(&self, give: impl FnOnce(&ThreadRecord) -> T) -> T {
        let mut wire = ThreadRecord::empty();
        wire.address = self.address.as_u64();
        wire.tid = self.tid;
        wire.pid = self.pid;
        wire.state = state_to_wire(self.state);
        wire.name = Text::new(&self.name);
        give(&wire)
    }

    unsafe fn from_wire(wire: &ThreadRecord) -> Result<Self> {
        // SAFETY: the caller's promise.
        let name = unsafe { raw::string(wire.name) };
        Ok(Self::new(VirtAddr::new(wire.address), wire.tid, wire.pid, name, state_from_wire(wire.state)?))
    }
}

impl Record for MemoryRegion {
    type Wire = RegionRecord;

    fn with_wire<T>(&self, give: impl FnOnce(&RegionRecord) -> T) -> T {
        let mut wire = RegionRecord::empty();
        wire.start = self.range.start().as_u64();
        wire.len = self.range.len();
        let Permissions { read, write, execute, shared } = self.permissions;
        for (allowed, bit) in [
            (read, permission::READ),
            (write, permission::WRITE),
            (execute, permission::EXECUTE),
            (shared, permission::SHARED),
        ] {
            wire.permissions |= if allowed { bit } else { 0 };
        }
        match &self.kind {
            RegionKind::Anonymous => wire.kind = region_kind::ANONYMOUS,
            RegionKind::File { path, offset, inode, device_major, device_minor } => {
                wire.kind = region_kind::FILE;
                wire.name = Text::new(path);
                (wire.file_offset, wire.inode) = (*offset, *inode);
                (wire.device_major, wire.device_minor) = (*device_major, *device_minor);
            }
            RegionKind::Special { name } => {
                wire.kind = region_kind::SPECIAL;
                wire.name = Text::new(name);
            }
        }
        give(&wire)
    }

    unsafe fn from_wire(wire: &RegionRecord) -> Result<Self> {
        let start = VirtAddr::new(wire.start);
        let range = VirtRange::new(start, wire.len)
            .ok_or_else(|| broken(format!("a region of {:#x} bytes at {start} leaves the address space", wire.len)))?;
        let may = |bit| wire.permissions & bit != 0;
        let permissions = Permissions {
            read: may(permission::READ),
            write: may(permission::WRITE),
            execute: may(permission::EXECUTE),
            shared: may(permission::SHARED),
        };
        // SAFETY: the caller's promise.
        let name = unsafe { raw::string(wire.name) };
        let kind = match wire.kind {
            region_kind::ANONYMOUS => RegionKind::Anonymous,
            region_kind::FILE => RegionKind::File {
                path: name,
                offset: wire.file_offset,
                inode: wire.inode,
                device_major: wire.device_major,
                device_minor: wire.device_minor,
            },
            region_kind::SPECIAL => RegionKind::Special { name },
            kind => {
                return Err(broken(format!("kind {kind} of the region at {start} is not one that this build knows")));
            }
        };
        Ok(Self::new(range, permissions, kind))
    }
}

impl Record for ModuleInfo {
    type Wire = ModuleRecord;

    fn with_wire<T>(&self, give: impl FnOnce(&ModuleRecord) -> T) -> T {
        let used_by: Vec<Text> = self.used_by.iter().map(|name| Text::new(name)).collect();
        let mut wire = ModuleRecord::empty();
        wire.address = self.address.as_u64();
        wire.base = self.base.as_u64();
        wire.size = self.size;
        wire.name = Text::new(&self.name);
        wire.state = optional(self.state.as_ref());
        wire.used_by = used_by.as_ptr();
        wire.used_by_count = used_by.len();
        give(&wire)
    }

    unsafe fn from_wire(wire: &ModuleRecord) -> Result<Self> {
        // SAFETY: the caller's promise.
        let name = unsafe { raw::string(wire.name) };
        let mut module = Self::new(VirtAddr::new(wire.address), VirtAddr::new(wire.base), wire.size, name);
        // SAFETY: the caller's promise.
        module.state = unsafe { raw::optional_string(wire.state) };
        // SAFETY: the caller's promise.
        module.used_by = unsafe { strings("the users of a module", wire.used_by, wire.used_by_count) }?;
        Ok(module)
    }
}

impl Record for SymbolInfo {
    type Wire = SymbolRecord;

    fn with_wire<T>(&self, give: impl FnOnce(&SymbolRecord) -> T) -> T {
        let mut wire = SymbolRecord::empty();
        wire.address = self.address.as_u64();
        wire.kind = self.kind.into();
        wire.name = Text::new(&self.name);
        wire.module = optional(self.module.as_ref());
        give(&wire)
    }

    unsafe fn from_wire(wire: &SymbolRecord) -> Result<Self> {
        Ok(Self {
            address: VirtAddr::new(wire.address),
            kind: char::from_u32(wire.kind).unwrap_or(char::REPLACEMENT_CHARACTER),
            // SAFETY: the caller's promise.
            name: unsafe { raw::string(wire.name) },
            // SAFETY: the caller's promise.
            module: unsafe { raw::optional_string(wire.module) },
        })
    }
}

impl Record for LogRecord {
    type Wire = LogWire;

    fn with_wire<T>(&self, give: impl FnOnce(&LogWire) -> T) -> T {
        let mut wire = LogWire::empty();
        wire.time = nanoseconds(self.time);
        wire.sequence = self.sequence;
        wire.facility = self.facility.into();
        wire.level = self.level.into();
        wire.text = Text::new(&self.text);
        give(&wire)
    }

    unsafe fn from_wire(wire: &LogWire) -> Result<Self> {
        let small = |number: u32| {
            u8::try_from(number).map_err(|_| broken(format!("facility or level {number} of a log record is no byte")))
        };
        let (facility, level) = (small(wire.facility)?, small(wire.level)?);
        // SAFETY: the caller's promise.
        let text = unsafe { raw::string(wire.text) };
        Ok(Self::new(Duration::from_nanos(wire.time), wire.sequence, facility, level, text))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn comes_back<R: Record + PartialEq + Debug>(record: &R) {
        // SAFETY: the structure is whole for the call.
        let back = record.with_wire(|wire| unsafe { R::from_wire(wire) }).unwrap();
        assert_eq!(back, *record);
    }

    #[test]
    fn records_come_back_as_they_were() {
        comes_back(&"text".to_owned());
        comes_back(&String::new());
        comes_back(&TargetInfo::new("name", "what it is"));
        let mut kernel = KernelInfo::new("Linux", "6.1", "Linux version 6.1", "x86-64 4-level", VirtAddr::new(1 << 63));
        comes_back(&kernel);
        kernel.hostname = Some("host".into());
        kernel.build_id = Some("abcd".into());
        kernel.evidence = vec!["one".into(), "two".into()];
        comes_back(&kernel);
        let mut process = ProcessInfo::new(VirtAddr::new(7), 3, "name");
        comes_back(&process);
        process.parent_pid = 2;
        (process.uid, process.gid, process.root) = (Some(0), Some(5), Some(0x1000));
        process.kernel_thread = true;
        process.threads = 9;
        process.start_time = Duration::from_nanos(123_456_789);
        for (state, _) in STATES {
            process.state = *state;
            comes_back(&process);
            comes_back(&ThreadInfo::new(VirtAddr::new(7), 3, 4, "thread", *state));
        }
        let range = VirtRange::new(VirtAddr::new(0x1000), 0x2000).unwrap();
        let file = RegionKind::File { path: "/a".into(), offset: 1, inode: 2, device_major: 3, device_minor: 4 };
        for kind in [RegionKind::Anonymous, file, RegionKind::Special { name: "[heap]".into() }] {
            let permissions = Permissions { read: true, write: false, execute: true, shared: false };
            comes_back(&MemoryRegion::new(range, permissions, kind.clone()));
            let permissions = Permissions { read: false, write: true, execute: false, shared: true };
            comes_back(&MemoryRegion::new(range, permissions, kind));
        }
        let mut module = ModuleInfo::new(VirtAddr::new(1), VirtAddr::new(2), 3, "loop");
        comes_back(&module);
        (module.state, module.used_by) = (Some("Live".into()), vec!["a".into(), "b".into()]);
        comes_back(&module);
        for module in [None, Some("loop".to_owned())] {
            comes_back(&SymbolInfo { address: VirtAddr::new(5), kind: 'T', name: "start".into(), module });
        }
        comes_back(&LogRecord::new(Duration::from_micros(5), 6, 1, 7, "text"));
    }

    #[test]
    fn impossible_records_are_errors() {
        let mut region = RegionRecord::empty();
        (region.start, region.len, region.kind) = (u64::MAX, 2, region_kind::ANONYMOUS);
        // SAFETY: the structure is whole and has no pointers.
        assert!(unsafe { MemoryRegion::from_wire(&region) }.is_err());
        (region.start, region.kind) = (0, 99);
        // SAFETY: as above.
        assert!(unsafe { MemoryRegion::from_wire(&region) }.is_err());
        // SAFETY: as above.
        assert!(unsafe { ProcessInfo::from_wire(&ProcessRecord::empty()) }.is_err());
        let mut kernel = KernelRecord::empty();
        kernel.architecture = Text::new("mode of tomorrow");
        // SAFETY: the text is a literal.
        let error = unsafe { KernelInfo::from_wire(&kernel) }.unwrap_err().to_string();
        assert!(error.contains("`mode of tomorrow`") && error.ends_with("update memflow"), "{error}");
    }
}

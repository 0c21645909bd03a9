//! The ways to a guest's memory.
//!
//! Owns: the choice of a way. Must not know: layouts.
//! Keeps: what is chosen was tried; what could not be had, and was better, is said.

mod files;
mod pieces;
mod system;

use std::{fmt, str::FromStr, sync::Arc};

use memflow_core::{
    Error, PhysicalMemory, Result,
    memory::{MapMode, MappedParts, RunMap, SourceConfig},
};

pub(crate) use self::system::{System, SystemCall};
use crate::{
    host::HostProcess,
    layout::{Layout, RunKind},
};

/// How a guest's memory is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AccessKind {
    /// The fastest that works.
    #[default]
    Auto,
    /// Mapped into this process: shared memory of files and memfds.
    Map,
    /// `process_vm_readv` and `process_vm_writev`.
    ProcessVm,
    /// `/proc/PID/mem`.
    Mem,
}

impl fmt::Display for AccessKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Map => "map",
            Self::ProcessVm => "process_vm",
            Self::Mem => "mem",
        })
    }
}

impl FromStr for AccessKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Auto, Self::Map, Self::ProcessVm, Self::Mem];
        all.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| Error::Argument {
            what: "access".into(),
            expected: "auto, map, process_vm or mem".into(),
            found: text.to_owned(),
        })
    }
}

/// A way that works.
pub(crate) enum Access {
    Mapped(Box<MappedParts>),
    System(System),
}

impl Access {
    /// Which way it is.
    pub(crate) fn kind(&self) -> AccessKind {
        match self {
            Self::Mapped(_) => AccessKind::Map,
            Self::System(system) => system.call().into(),
        }
    }
}

impl Access {
    /// What the way reaches, of the runs of the layout.
    pub(crate) fn runs(&self, layout: &RunMap) -> Arc<RunMap> {
        match self {
            Self::Mapped(mapped) => mapped.metadata().runs,
            Self::System(_) => Arc::new(layout.clone()),
        }
    }
}

impl From<SystemCall> for AccessKind {
    fn from(call: SystemCall) -> Self {
        match call {
            SystemCall::ProcessVm => Self::ProcessVm,
            SystemCall::Mem => Self::Mem,
        }
    }
}

/// Opens a way to the memory of `layout`. `config` has its runs, and everything else that memory needs; its runs are replaced by those
/// that the way reaches.
///
/// # Errors
/// No way works, or not the one that was asked for.
pub(crate) fn open(
    kind: AccessKind,
    process: &Arc<HostProcess>,
    layout: &Layout,
    config: &mut SourceConfig,
    writable: bool,
    notes: &mut Vec<String>,
) -> Result<Access> {
    if matches!(kind, AccessKind::Auto | AccessKind::Map) {
        match map(process, layout, config, writable, notes) {
            Ok(memory) => return Ok(Access::Mapped(Box::new(memory))),
            Err(error) if kind == AccessKind::Map => return Err(error),
            Err(error) => log::debug!("{}: not mapped: {error}", config.name),
        }
    }
    let mut last = None;
    for call in [SystemCall::ProcessVm, SystemCall::Mem] {
        if kind != AccessKind::Auto && kind != call.into() {
            continue;
        }
        match System::open(call, process.clone(), &config.runs, writable) {
            Ok(system) => {
                if let Some(error) = last {
                    notes.push(format!("{error}; reading through /proc/{}/mem instead", process.pid()));
                }
                return Ok(Access::System(system));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or(Error::Cancelled))
}

/// Maps the files behind a guest's RAM, all of it or none. What is no RAM and lies in no file is left out of the runs.
fn map(
    process: &HostProcess,
    layout: &Layout,
    config: &mut SourceConfig,
    writable: bool,
    notes: &mut Vec<String>,
) -> Result<MappedParts> {
    let maps = process.mappings()?;
    let shared: Vec<_> = maps.iter().filter(|map| map.shared && map.file != (0, 0)).cloned().collect();
    let holding = |start: u64, len: u64| {
        shared.iter().find(|map| map.start <= start && start.checked_add(len).is_some_and(|end| end <= map.end))
    };
    let in_file = |run: &crate::layout::GuestRun| holding(run.virt, run.range.len()).is_some();
    if let Some(run) = layout.runs.iter().find(|run| run.kind == RunKind::Ram && !in_file(run)) {
        return Err(Error::Unsupported {
            what: format!("mapping {} ({} at {})", config.name, run.region, run.range),
            why: "this RAM is not shared; a guest whose memory backends have share=on can be mapped, others are read by system calls"
                .to_owned(),
        });
    }
    let runs = layout.run_map(in_file)?;
    let used: Vec<_> =
        shared.iter().filter(|map| runs.runs().iter().any(|run| touches(map.start, map.end, run))).collect();
    let (parts, runs) = files::parts(process, &used, &runs, writable)?;
    let mode = if writable { MapMode::SharedWritable } else { MapMode::Shared };
    let left_out = layout.run_map(|run| !in_file(run))?;
    let mapped = SourceConfig { name: config.name.clone(), runs, facts: config.facts.clone() };
    let memory = MappedParts::new(mapped, parts, mode)?;
    if !left_out.is_empty() {
        let ranges: Vec<String> = left_out.runs().iter().map(|run| run.range.to_string()).collect();
        notes.push(format!(
            "memory of devices and ROM at {} is not shared and left out; access=process_vm has it",
            ranges.join(", ")
        ));
    }
    Ok(memory)
}

/// Whether a run whose offsets are addresses lies in these addresses, in part at least.
fn touches(start: u64, end: u64, run: &memflow_core::memory::Run) -> bool {
    run.offset < end && run.offset.saturating_add(run.range.len()) > start
}

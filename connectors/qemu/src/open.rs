//! From a target to the memory of a guest.
//!
//! Owns: [`open`], its options, the order of steps: find, layout, registers, access. Must not know: how any step is done.
//! Keeps: what a step could not have is a note, unless nothing is left without it.

use std::{sync::Arc, time::Duration};

use memflow_core::{
    Result,
    memory::{RunMap, SourceConfig, TargetFacts, VcpuRegisters},
};

use crate::{
    access::{self, AccessKind},
    control::Monitored,
    discover::{Guest, Target, find},
    layout::{Layout, LayoutSource},
    memory::QemuMemory,
    monitor::{MonitorConfig, with_first},
    plugged::{Plugged, parse_memory_devices},
    registers::parse_registers,
};

/// Who is asked for registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RegisterSource {
    /// The monitor, which changes nothing, and does not have the registers of paging on Arm.
    #[default]
    Monitor,
    /// The monitor, and a GDB stub that QEMU opens for a moment and that stops the guest for that: it has those, and of x86 the GS base
    /// that `swapgs` brings.
    Stub,
}

/// How a guest is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where guest memory lies in the QEMU process, offsets being addresses there; asked for where it is not given.
    pub map: Option<RunMap>,
    /// How memory is reached.
    pub access: AccessKind,
    /// Longest time for a conversation with one monitor.
    pub timeout: Duration,
    /// The monitor to ask instead of those that the guest's command line names.
    pub monitor: Option<MonitorConfig>,
    /// Ask monitors at all.
    pub use_monitors: bool,
    /// Who is asked for registers.
    pub registers: RegisterSource,
    /// Take writes.
    pub writable: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            map: None,
            access: AccessKind::Auto,
            timeout: Duration::from_secs(2),
            monitor: None,
            use_monitors: true,
            registers: RegisterSource::default(),
            writable: false,
        }
    }
}

/// An opened guest.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected {
    /// Its memory.
    pub memory: Arc<QemuMemory>,
    /// The guest.
    pub guest: Guest,
    /// Where its memory lies, and who said so.
    pub layout: Layout,
    /// What a person should know: sources that did not answer, what is left out.
    pub notes: Vec<String>,
}

/// Opens the guest that a target names.
///
/// # Errors
/// As [`find`] and [`open_guest`].
pub fn open(target: &Target, options: &Options) -> Result<Connected> {
    open_guest(find(target)?, options)
}

/// Opens a guest.
///
/// # Errors
/// No source says where its memory lies, or the memory cannot be reached: the error names the missing permission or what else
/// would help.
pub fn open_guest(guest: Guest, options: &Options) -> Result<Connected> {
    let mut notes = Vec::new();
    let monitors = match &options.monitor {
        _ if !options.use_monitors => Vec::new(),
        Some(monitor) => vec![monitor.clone()],
        None => guest.command_line().monitors.clone(),
    };
    let name: Arc<str> = format!("guest {}", guest.target()).into();
    let layout = Layout::of(&guest, options.map.as_ref(), &monitors, options.timeout, &mut notes)?;
    let mut facts = TargetFacts::default();
    facts.machine = guest.machine_kind();
    let (mut control, mut devices) = (None, Vec::new());
    // A monitor that did not say where memory lies is not waited for a second time.
    if layout.source != LayoutSource::CommandLine && !monitors.is_empty() {
        let registers = with_first(&guest.process, &monitors, options.timeout, &mut notes, |session| {
            let vcpus = parse_registers(&session.run("info registers -a")?);
            Ok((vcpus, parse_memory_devices(&session.run("info memory-devices")?)))
        });
        if let Ok((vcpus, listed)) = registers {
            (facts.vcpus, devices) = (vcpus, listed);
            let (process, name, monitors) = (guest.process.clone(), name.clone(), monitors.clone());
            let monitored = Monitored { process, name, monitors, limit: options.timeout, source: options.registers };
            complete(&monitored, &mut facts.vcpus, &mut notes);
            control = Some(monitored);
        }
    }
    if control.is_none() {
        notes.push("without a monitor there are no registers, and the guest cannot be paused".to_owned());
    }
    let mut config = SourceConfig { name, runs: layout.run_map(|_| true)?, facts };
    let access = access::open(options.access, &guest.process, &layout, &mut config, options.writable, &mut notes)?;
    log::debug!("{}: {}, access {}", config.name, layout.source, access.kind());
    let runs = access.runs(&config.runs);
    let plugged = Plugged::new(&guest.process, &monitors, options.timeout, devices, &layout, &runs);
    if plugged.is_some() {
        notes.push(
            "memory devices may be unplugged: whether they are there is asked again while memory is read".to_owned(),
        );
    }
    let memory = Arc::new(QemuMemory::new(config, runs, access, (control, plugged), options.writable));
    Ok(Connected { memory, guest, layout, notes })
}

/// Adds what the monitor does not print, or says what is missing and how to have it.
fn complete(monitored: &Monitored, vcpus: &mut Vec<VcpuRegisters>, notes: &mut Vec<String>) {
    if monitored.source == RegisterSource::Stub {
        match monitored.with_stub(vcpus) {
            Ok(complete) => *vcpus = complete,
            Err(error) => notes.push(error.to_string()),
        }
    }
    let lacks = |vcpu: &VcpuRegisters| matches!(vcpu, VcpuRegisters::AArch64(arm) if arm.ttbr1_el1.is_none());
    if monitored.source == RegisterSource::Monitor && vcpus.iter().any(lacks) {
        notes.push(
            "QEMU's monitor prints no registers of paging on Arm (TTBR0_EL1, TTBR1_EL1, TCR_EL1, SCTLR_EL1); name registers=stub to \
             have them, which stops the guest for a moment"
                .to_owned(),
        );
    }
}

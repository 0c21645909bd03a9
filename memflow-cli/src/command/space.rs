//! Which address space a command works in: a process', the kernel's, one named by its page tables, or physical memory.
//!
//! Owns: the options `--pid`, `--phys`, `--vcpu` and `--root` and what they open. Must not know: what is done there.

use clap::{Args, ValueEnum};
use std::sync::Arc;

use memflow_core::{
    MemoryView, PhysicalMemory, VirtAddr, VirtRange,
    memory::{VcpuRegisters, X86Registers},
    os::{Os, Process},
    paging::{AddressSpace, Architecture, x86},
    view::{PhysicalView, SpaceView},
};

use crate::{
    failure::{Failure, Outcome},
    output::{Io, plural},
    parse,
    target::Target,
};

/// The options that name page tables; no operating system is needed.
#[derive(Args, Clone, Debug)]
pub(super) struct TablesArgs {
    /// With the page tables that this vCPU uses, counted from 0; no operating system is needed
    #[arg(long, value_name = "N", conflicts_with_all = ["pid", "root"])]
    vcpu: Option<usize>,
    /// With the page tables at this root (value of CR3); no operating system is needed
    #[arg(long, value_name = "CR3", value_parser = parse::number, conflicts_with = "pid")]
    root: Option<u64>,
    /// Paging mode for --vcpu and --root [default: as the vCPU's registers say; for --root, those of vCPU 0]
    #[arg(long, value_enum, value_name = "MODE", conflicts_with = "pid")]
    paging: Option<Mode>,
}

/// The paging modes of x86.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    #[value(name = "32bit")]
    TwoLevels,
    Pae,
    #[value(name = "4level")]
    FourLevels,
    #[value(name = "5level")]
    FiveLevels,
}

impl Mode {
    fn architecture(self) -> &'static Architecture {
        match self {
            Self::TwoLevels => &x86::X86,
            Self::Pae => &x86::X86_PAE,
            Self::FourLevels => &x86::X64,
            Self::FiveLevels => &x86::X64_LA57,
        }
    }
}

impl TablesArgs {
    /// The space that is named, if one is.
    pub(super) fn space(&self, target: &Target) -> Outcome<Option<AddressSpace>> {
        match (self.vcpu, self.root, self.paging) {
            (Some(vcpu), _, None) => Ok(Some(x86::from_registers(registers(target, vcpu)?)?)),
            (Some(vcpu), _, Some(mode)) => match registers(target, vcpu)?.cr3 {
                Some(cr3) => Ok(Some(AddressSpace::new(mode.architecture(), cr3))),
                None => Err(Failure::Missing(format!("the target does not record CR3 of vCPU {vcpu}; give --root"))),
            },
            (None, Some(root), Some(mode)) => Ok(Some(AddressSpace::new(mode.architecture(), root))),
            (None, Some(root), None) => match registers(target, 0).and_then(|known| Ok(x86::from_registers(known)?)) {
                Ok(space) => Ok(Some(AddressSpace::new(space.architecture(), root))),
                Err(failure) => Err(Failure::Usage(format!("--root needs --paging here: {failure}"))),
            },
            (None, None, Some(_)) => Err(Failure::Usage("--paging needs --vcpu or --root".to_owned())),
            (None, None, None) => Ok(None),
        }
    }
}

/// What the target knows of a vCPU.
fn registers(target: &Target, vcpu: usize) -> Outcome<&X86Registers> {
    let vcpus = &target.memory().facts().vcpus;
    match vcpus.get(vcpu) {
        Some(VcpuRegisters::X86(registers)) => Ok(registers),
        Some(_) => Err(Failure::Missing(format!("vCPU {vcpu} is of a kind whose page tables are not known here"))),
        None => Err(Failure::Missing(format!(
            "there is no vCPU {vcpu}: the target has the registers of {}",
            plural(vcpus.len() as u64, "vCPU")
        ))),
    }
}

/// The options that choose a space; the kernel's is the default.
#[derive(Args, Clone, Debug)]
pub(super) struct SpaceArgs {
    /// In the memory of this process
    #[arg(short, long, value_name = "PID", conflicts_with = "phys")]
    pub(super) pid: Option<u32>,
    /// In physical memory; no operating system is needed
    #[arg(long, conflicts_with_all = ["vcpu", "root", "paging"])]
    pub(super) phys: bool,
    #[command(flatten)]
    tables: TablesArgs,
}

/// An opened space.
pub(super) enum Space {
    /// A process.
    Process(Arc<dyn Os>, Box<dyn Process>),
    /// The kernel.
    Kernel(Arc<dyn Os>),
    /// Page tables that were named.
    Tables(SpaceView),
    /// The machine's physical memory.
    Physical(PhysicalView),
}

impl Space {
    /// Opens the chosen space.
    pub(super) fn open(args: &SpaceArgs, target: &mut Target, io: &mut Io<'_>) -> Outcome<Self> {
        if args.phys {
            target.settle(io)?;
            return Ok(Self::Physical(PhysicalView::new(target.memory().clone())));
        }
        if let Some(space) = args.tables.space(target)? {
            target.settle(io)?;
            return Ok(Self::Tables(SpaceView::new(target.memory().clone(), space)));
        }
        let os = target.os(io)?;
        match args.pid {
            None => Ok(Self::Kernel(os)),
            Some(pid) => {
                let process = os.open_pid(pid)?;
                Ok(Self::Process(os, process))
            }
        }
    }

    /// Its memory.
    pub(super) fn view(&self) -> &dyn MemoryView {
        match self {
            Self::Process(_, process) => process,
            Self::Kernel(os) => os.kernel_view(),
            Self::Tables(view) => view,
            Self::Physical(view) => view,
        }
    }

    /// The address space and the memory that it is in; `None` for physical memory.
    pub(super) fn address_space(&self) -> Outcome<Option<(&AddressSpace, &dyn PhysicalMemory)>> {
        match self {
            Self::Process(_, process) => match process.address_space() {
                Some(space) => Ok(Some((space, process.physical_memory()))),
                None => Err(no_space(process.info().pid)),
            },
            Self::Kernel(os) => Ok(Some((os.kernel_space(), &**os.physical_memory()))),
            Self::Tables(view) => Ok(Some((view.space(), &**view.memory()))),
            Self::Physical(_) => Ok(None),
        }
    }

    /// The operating system, unless none is needed.
    pub(super) fn os(&self) -> Option<&dyn Os> {
        match self {
            Self::Process(os, _) | Self::Kernel(os) => Some(&**os),
            Self::Tables(_) | Self::Physical(_) => None,
        }
    }
}

/// A process that has no memory of its own.
pub(super) fn no_space(pid: u32) -> Failure {
    Failure::Missing(format!("process {pid} is a thread of the kernel or has ended; it has no address space"))
}

/// The part of an address space that belongs to the process, by the convention of every system here.
pub(super) fn lower_half(space: &AddressSpace) -> Option<VirtRange> {
    let architecture = space.architecture();
    let bits = architecture.virtual_bits - u8::from(architecture.sign_extended);
    let len = 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    VirtRange::between(VirtAddr::new(0), VirtAddr::new(len))
}

//! What a target already knows about itself, so that nobody has to search for it.
//!
//! Owns: plain records of vCPU registers and of what dump headers say.
//! Must not know: how they were obtained, what an OS layer makes of them.
//! Keeps: a field that the source does not have is `None`; nothing is guessed here.

use crate::address::VirtAddr;

/// The kind of machine whose memory this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MachineKind {
    /// 32-bit x86.
    X86,
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    AArch64,
}

/// What a connector knows about its target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TargetFacts {
    /// The kind of machine.
    pub machine: Option<MachineKind>,
    /// The registers of each vCPU, in the order of the source.
    pub vcpus: Vec<VcpuRegisters>,
    /// The text of the guest kernel's VMCOREINFO note (Linux, `Documentation/admin-guide/kdump/vmcoreinfo.rst`).
    pub vmcoreinfo: Option<Vec<u8>>,
    /// The value of the register that leads to the page tables, as the header of a dump names it (Windows: `DirectoryTableBase`).
    pub directory_table: Option<u64>,
    /// What the header of a Windows crash dump says.
    pub windows: Option<WindowsFacts>,
}

/// What the header of a Windows crash dump says; what it does not is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WindowsFacts {
    /// The build number (`MinorVersion`), such as 19041.
    pub build: u32,
    /// Whether page tables are in the format of PAE; 32-bit dumps only.
    pub pae: Option<bool>,
    /// Number of processors.
    pub processors: Option<u32>,
    /// The kernel's block of data for debuggers (`KdDebuggerDataBlock`, KDBG).
    pub debugger_data: Option<VirtAddr>,
    /// Head of the list of loaded modules (`PsLoadedModuleList`).
    pub loaded_modules: Option<VirtAddr>,
    /// Head of the list of processes (`PsActiveProcessHead`).
    pub active_processes: Option<VirtAddr>,
    /// The array of page frames (`MmPfnDatabase`).
    pub pfn_database: Option<VirtAddr>,
    /// Why the machine stopped.
    pub bug_check: Option<BugCheck>,
    /// When, in units of 100 ns since 1601-01-01 00:00 UTC.
    pub system_time: Option<u64>,
}

/// Why a Windows machine stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BugCheck {
    /// The stop code.
    pub code: u32,
    /// Its four parameters.
    pub parameters: [u64; 4],
}

/// The registers of one vCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VcpuRegisters {
    /// A vCPU of a 32-bit or 64-bit x86 machine.
    X86(X86Registers),
    /// A vCPU of a 64-bit Arm machine.
    AArch64(AArch64Registers),
}

/// Registers of an x86 vCPU; those that the source does not record are `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct X86Registers {
    /// Control register 0: protection and paging switches.
    pub cr0: Option<u64>,
    /// Control register 2: address of the last page fault.
    pub cr2: Option<u64>,
    /// Control register 3: the root of the page tables, with PCID or cache bits in its low 12 bits.
    pub cr3: Option<u64>,
    /// Control register 4: PAE, PGE, LA57 and others.
    pub cr4: Option<u64>,
    /// The extended feature register: long mode, no-execute.
    pub efer: Option<u64>,
    /// Target of `syscall` in long mode.
    pub lstar: Option<u64>,
    /// Base of the interrupt descriptor table.
    pub idtr_base: Option<u64>,
    /// Base of the global descriptor table.
    pub gdtr_base: Option<u64>,
    /// Base of the GS segment.
    pub gs_base: Option<u64>,
    /// The GS base that `swapgs` would bring in.
    pub kernel_gs_base: Option<u64>,
    /// Instruction pointer.
    pub rip: Option<u64>,
    /// Stack pointer.
    pub rsp: Option<u64>,
}

/// Registers of a 64-bit Arm vCPU; those that the source does not record are `None`. Names as in the Arm Architecture Reference Manual
/// (DDI 0487), chapter D24.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct AArch64Registers {
    /// Root of the page tables of the lower half, with the ASID in its high 16 bits.
    pub ttbr0_el1: Option<u64>,
    /// Root of the page tables of the upper half (the kernel's), with the ASID in its high 16 bits.
    pub ttbr1_el1: Option<u64>,
    /// Translation control: sizes of both halves, granules, width of physical addresses.
    pub tcr_el1: Option<u64>,
    /// System control: the paging switch, endianness.
    pub sctlr_el1: Option<u64>,
    /// Meaning of the memory attributes in page-table entries.
    pub mair_el1: Option<u64>,
    /// Base of the exception vectors.
    pub vbar_el1: Option<u64>,
    /// Software's own: Linux keeps the offset of the vCPU's data here.
    pub tpidr_el1: Option<u64>,
    /// Stack pointer of EL0; Linux keeps the current task here while in the kernel.
    pub sp_el0: Option<u64>,
    /// Program counter.
    pub pc: Option<u64>,
    /// Stack pointer of the current exception level.
    pub sp: Option<u64>,
    /// Process state: flags and exception level, laid out as SPSR_EL1.
    pub pstate: Option<u64>,
}

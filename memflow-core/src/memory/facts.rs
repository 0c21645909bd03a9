//! What a target already knows about itself, so that nobody has to search for it.
//!
//! Owns: plain records of vCPU registers and of what dump headers say.
//! Must not know: how they were obtained, what an OS layer makes of them.
//! Keeps: a field that the source does not have is `None`; nothing is guessed here.

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
}

/// The registers of one vCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VcpuRegisters {
    /// A vCPU of a 32-bit or 64-bit x86 machine.
    X86(X86Registers),
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

//! Registers of vCPUs, each architecture as a structure with a bit for every register that is known.
//!
//! Owns: both directions of each, and the record of one vCPU in a list. Must not know: who asks for registers.
//! Keeps: a register that is not known crosses as such, whatever its number says.

use memflow_abi::{AArch64Vcpu, VcpuRecord, X86Vcpu, aarch64_register, x86_register};

use super::{
    known::{Knowing, Known},
    raw,
    records::{Record, broken},
};
use crate::{
    error::Result,
    memory::{AArch64Registers, VcpuRegisters, X86Registers},
};

/// Most vCPUs of a machine whose registers are listed; KVM has at most 4096.
const MAX_VCPUS: usize = 1 << 16;

pub(crate) fn x86_to_wire(registers: &X86Registers) -> X86Vcpu {
    let mut known = Knowing::default();
    let wire = X86Vcpu {
        known: 0,
        cr0: known.put(registers.cr0, x86_register::CR0),
        cr2: known.put(registers.cr2, x86_register::CR2),
        cr3: known.put(registers.cr3, x86_register::CR3),
        cr4: known.put(registers.cr4, x86_register::CR4),
        efer: known.put(registers.efer, x86_register::EFER),
        lstar: known.put(registers.lstar, x86_register::LSTAR),
        idtr_base: known.put(registers.idtr_base, x86_register::IDTR_BASE),
        gdtr_base: known.put(registers.gdtr_base, x86_register::GDTR_BASE),
        gs_base: known.put(registers.gs_base, x86_register::GS_BASE),
        kernel_gs_base: known.put(registers.kernel_gs_base, x86_register::KERNEL_GS_BASE),
        rip: known.put(registers.rip, x86_register::RIP),
        rsp: known.put(registers.rsp, x86_register::RSP),
    };
    X86Vcpu { known: known.0, ..wire }
}

pub(crate) fn x86_from_wire(wire: &X86Vcpu) -> VcpuRegisters {
    let known = Known(wire.known);
    VcpuRegisters::X86(X86Registers {
        cr0: known.get(x86_register::CR0, wire.cr0),
        cr2: known.get(x86_register::CR2, wire.cr2),
        cr3: known.get(x86_register::CR3, wire.cr3),
        cr4: known.get(x86_register::CR4, wire.cr4),
        efer: known.get(x86_register::EFER, wire.efer),
        lstar: known.get(x86_register::LSTAR, wire.lstar),
        idtr_base: known.get(x86_register::IDTR_BASE, wire.idtr_base),
        gdtr_base: known.get(x86_register::GDTR_BASE, wire.gdtr_base),
        gs_base: known.get(x86_register::GS_BASE, wire.gs_base),
        kernel_gs_base: known.get(x86_register::KERNEL_GS_BASE, wire.kernel_gs_base),
        rip: known.get(x86_register::RIP, wire.rip),
        rsp: known.get(x86_register::RSP, wire.rsp),
    })
}

pub(crate) fn aarch64_to_wire(registers: &AArch64Registers) -> AArch64Vcpu {
    let mut known = Knowing::default();
    let wire = AArch64Vcpu {
        known: 0,
        ttbr0_el1: known.put(registers.ttbr0_el1, aarch64_register::TTBR0_EL1),
        ttbr1_el1: known.put(registers.ttbr1_el1, aarch64_register::TTBR1_EL1),
        tcr_el1: known.put(registers.tcr_el1, aarch64_register::TCR_EL1),
        sctlr_el1: known.put(registers.sctlr_el1, aarch64_register::SCTLR_EL1),
        mair_el1: known.put(registers.mair_el1, aarch64_register::MAIR_EL1),
        vbar_el1: known.put(registers.vbar_el1, aarch64_register::VBAR_EL1),
        tpidr_el1: known.put(registers.tpidr_el1, aarch64_register::TPIDR_EL1),
        sp_el0: known.put(registers.sp_el0, aarch64_register::SP_EL0),
        pc: known.put(registers.pc, aarch64_register::PC),
        sp: known.put(registers.sp, aarch64_register::SP),
        pstate: known.put(registers.pstate, aarch64_register::PSTATE),
    };
    AArch64Vcpu { known: known.0, ..wire }
}

pub(crate) fn aarch64_from_wire(wire: &AArch64Vcpu) -> VcpuRegisters {
    let known = Known(wire.known);
    VcpuRegisters::AArch64(AArch64Registers {
        ttbr0_el1: known.get(aarch64_register::TTBR0_EL1, wire.ttbr0_el1),
        ttbr1_el1: known.get(aarch64_register::TTBR1_EL1, wire.ttbr1_el1),
        tcr_el1: known.get(aarch64_register::TCR_EL1, wire.tcr_el1),
        sctlr_el1: known.get(aarch64_register::SCTLR_EL1, wire.sctlr_el1),
        mair_el1: known.get(aarch64_register::MAIR_EL1, wire.mair_el1),
        vbar_el1: known.get(aarch64_register::VBAR_EL1, wire.vbar_el1),
        tpidr_el1: known.get(aarch64_register::TPIDR_EL1, wire.tpidr_el1),
        sp_el0: known.get(aarch64_register::SP_EL0, wire.sp_el0),
        pc: known.get(aarch64_register::PC, wire.pc),
        sp: known.get(aarch64_register::SP, wire.sp),
        pstate: known.get(aarch64_register::PSTATE, wire.pstate),
    })
}

impl Record for VcpuRegisters {
    type Wire = VcpuRecord;

    const MOST: usize = MAX_VCPUS;

    fn with_wire<T>(&self, give: impl FnOnce(&VcpuRecord) -> T) -> T {
        let mut wire = VcpuRecord::empty();
        match self {
            Self::X86(registers) => {
                let registers = x86_to_wire(registers);
                wire.x86 = &raw const registers;
                give(&wire)
            }
            Self::AArch64(registers) => {
                let registers = aarch64_to_wire(registers);
                wire.aarch64 = &raw const registers;
                give(&wire)
            }
        }
    }

    unsafe fn from_wire(wire: &VcpuRecord) -> Result<Self> {
        // SAFETY: the caller's promise.
        if let Some([registers]) = unsafe { raw::items(wire.x86, 1) } {
            return Ok(x86_from_wire(registers));
        }
        // SAFETY: the caller's promise.
        match unsafe { raw::items(wire.aarch64, 1) } {
            Some([registers]) => Ok(aarch64_from_wire(registers)),
            _ => Err(broken("a vCPU has registers of no kind that this build knows")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back(registers: &VcpuRegisters) {
        // SAFETY: the structure is whole for the call.
        let back = registers.with_wire(|wire| unsafe { VcpuRegisters::from_wire(wire) }).unwrap();
        assert_eq!(back, *registers);
    }

    #[test]
    fn registers_come_back_one_by_one_and_together() {
        comes_back(&VcpuRegisters::X86(X86Registers::default()));
        comes_back(&VcpuRegisters::AArch64(AArch64Registers::default()));
        // All bits but one in turn: a register with another's bit would be lost, or found.
        for bit in 0..12 {
            let at = |index: u64| (index != bit).then_some(index << 32 | 7);
            comes_back(&VcpuRegisters::X86(X86Registers {
                cr0: at(0),
                cr2: at(1),
                cr3: at(2),
                cr4: at(3),
                efer: at(4),
                lstar: at(5),
                idtr_base: at(6),
                gdtr_base: at(7),
                gs_base: at(8),
                kernel_gs_base: at(9),
                rip: at(10),
                rsp: at(11),
            }));
            comes_back(&VcpuRegisters::AArch64(AArch64Registers {
                ttbr0_el1: at(0),
                ttbr1_el1: at(1),
                tcr_el1: at(2),
                sctlr_el1: at(3),
                mair_el1: at(4),
                vbar_el1: at(5),
                tpidr_el1: at(6),
                sp_el0: at(7),
                pc: at(8),
                sp: at(9),
                pstate: at(10),
            }));
        }
    }

    #[test]
    fn vcpu_of_an_unknown_kind_is_an_error() {
        // SAFETY: the structure is whole and has no pointers.
        let error = unsafe { VcpuRegisters::from_wire(&VcpuRecord::empty()) }.unwrap_err();
        assert!(error.to_string().contains("of no kind that this build knows"), "{error}");
    }
}

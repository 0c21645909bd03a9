//! Roots of page tables that somebody knows: the caller, the header of a dump, a vCPU.
//!
//! Owns: which registers and facts lead to a root, and which addresses beside it lie in the kernel.
//! Must not know: how a kernel is recognised. Keeps: what is given is a candidate like any other.
//! Source: Intel SDM volume 3A, "Interrupt Descriptor Table" (gates); `DUMP_HEADER` of the Windows SDK.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    memory::{MachineKind, PhysicalMemory, TargetFacts, VcpuRegisters, X86Registers},
    paging::{AddressSpace, Architecture, x86},
};

use super::search::{Candidate, Hint};
use crate::{bytes::Bytes, kernel::Arch};

/// Vectors of exceptions whose handlers lie in the kernel: division, breakpoint, invalid instruction, protection, page fault.
const VECTORS: [u64; 5] = [0, 3, 6, 13, 14];

/// The paging modes that are tried where nobody names one, the likelier first.
pub(super) const MODES: [&Architecture; 4] = [&x86::X64, &x86::X64_LA57, &x86::X86_PAE, &x86::X86];

/// The modes that the caller and the target leave open.
pub(super) fn modes(arch: Option<Arch>, facts: &TargetFacts) -> Vec<&'static Architecture> {
    let pae = facts.windows.and_then(|windows| windows.pae);
    let of_facts = |mode: &&Architecture| match (facts.machine, pae) {
        (Some(MachineKind::X86_64), _) => mode.pointer_size == 8,
        (Some(MachineKind::X86), Some(true)) => mode.name == x86::X86_PAE.name,
        (Some(MachineKind::X86), Some(false)) => mode.name == x86::X86.name,
        (Some(MachineKind::X86), None) => mode.pointer_size == 4,
        (Some(MachineKind::AArch64), _) => false,
        _ => true,
    };
    let modes: &[&'static Architecture] = match arch {
        None => return MODES.into_iter().filter(of_facts).collect(),
        Some(Arch::X64) => &[&x86::X64, &x86::X64_LA57],
        Some(Arch::X86Pae) => &[&x86::X86_PAE],
        Some(Arch::X86) => &[&x86::X86],
    };
    modes.to_vec()
}

/// Candidates for a root that the caller gives.
pub(super) fn by_caller(root: u64, modes: &[&'static Architecture]) -> Vec<Candidate> {
    modes.iter().map(|arch| Candidate::new("page tables given by the caller", AddressSpace::new(arch, root))).collect()
}

/// Candidates in the target's facts.
pub(super) fn by_facts(memory: &dyn PhysicalMemory, modes: &[&'static Architecture]) -> Vec<Candidate> {
    let facts = memory.facts();
    let mut found: Vec<Candidate> = Vec::new();
    if let Some(root) = facts.directory_table {
        let of = |arch: &&'static Architecture| {
            Candidate::new("page tables named by the dump's header", AddressSpace::new(arch, root))
        };
        found.extend(modes.iter().map(of));
    }
    for (number, vcpu) in facts.vcpus.iter().enumerate() {
        let VcpuRegisters::X86(registers) = vcpu else { continue };
        let Some(root) = registers.cr3 else { continue };
        let spaces = match x86::from_registers(registers) {
            Ok(space) => vec![space],
            // Not all registers are recorded.
            Err(_) => modes.iter().map(|arch| AddressSpace::new(arch, root)).collect(),
        };
        for space in spaces {
            if modes.iter().any(|mode| mode.name == space.architecture().name) {
                found.push(Candidate::new(format!("page tables of vCPU {number}"), space));
            }
        }
    }
    found
}

/// Addresses in the kernel's image that the caller and the target name.
pub(super) fn hints(kernel: Option<u64>, facts: &TargetFacts) -> Vec<Hint> {
    let mut hints = Vec::new();
    if let Some(kernel) = kernel {
        hints.push(Hint::new("the address given by the caller", VirtAddr::new(kernel)));
    }
    if let Some(windows) = &facts.windows {
        for (what, address) in [
            ("the dump's KDBG", windows.debugger_data),
            ("the dump's PsLoadedModuleList", windows.loaded_modules),
            ("the dump's PsActiveProcessHead", windows.active_processes),
        ] {
            hints.extend(address.map(|address| Hint::new(what, address)));
        }
    }
    for vcpu in &facts.vcpus {
        if let VcpuRegisters::X86(X86Registers { lstar: Some(lstar), .. }) = vcpu
            && *lstar != 0
        {
            hints.push(Hint::new("LSTAR", VirtAddr::new(*lstar)));
        }
    }
    hints
}

/// Handlers of exceptions, from the vCPUs' tables of interrupts, as far as the space maps those.
pub(super) fn handlers(view: &dyn MemoryView, facts: &TargetFacts) -> Vec<Hint> {
    let wide = view.metadata().pointer_size == 8;
    let mut hints = Vec::new();
    for vcpu in &facts.vcpus {
        let VcpuRegisters::X86(X86Registers { idtr_base: Some(base), .. }) = vcpu else { continue };
        for vector in VECTORS {
            let mut gate = [0; 16];
            let (len, size) = if wide { (16, 16) } else { (8, 8) };
            let at = VirtAddr::new(base.wrapping_add(vector.wrapping_mul(size)));
            let (gate_bytes, _) = gate.split_at_mut(len);
            if view.read_into(at, gate_bytes).is_ok() {
                hints.extend(gate_target(&gate, wide).map(|handler| Hint::new("IDT", handler)));
            }
        }
    }
    hints
}

/// Where a gate leads.
fn gate_target(gate: &[u8; 16], wide: bool) -> Option<VirtAddr> {
    let bytes = Bytes(gate);
    let low = u64::from(bytes.u16(0)?) | u64::from(bytes.u16(6)?) << 16;
    let high = if wide { u64::from(bytes.u32(8)?) << 32 } else { 0 };
    Some(VirtAddr::new(low | high)).filter(|handler| !handler.is_null())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    #[test]
    fn gates_lead_to_their_handlers() {
        // From the image in `tests/data`: vector 14.
        let gate = [0x00, 0xc8, 0x10, 0, 0, 0x8e, 0x3c, 0x1a, 0x05, 0xf8, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(gate_target(&gate, true), Some(VirtAddr::new(0xffff_f805_1a3c_c800)));
        assert_eq!(gate_target(&gate, false), Some(VirtAddr::new(0x1a3c_c800)));
        assert_eq!(gate_target(&[0; 16], true), None);
    }

    #[test]
    fn modes_are_those_that_nobody_ruled_out() {
        let mut facts = TargetFacts::default();
        assert_eq!(modes(None, &facts).len(), 4);
        facts.machine = Some(MachineKind::X86_64);
        assert_eq!(modes(None, &facts).len(), 2);
        assert_eq!(modes(Some(Arch::X86), &facts), [&x86::X86]);
        facts.machine = Some(MachineKind::AArch64);
        assert!(modes(None, &facts).is_empty());
    }
}

//! The notes of ELF cores and kdumps: what is known of the machine, for the tools that read these.
//!
//! Owns: which note tells what. Must not know: files, where the notes lie.
//! Keeps: a note is written when all that its reader takes from it is known; nothing is made up but zeros in general registers, which no
//! dump tells.
//!
//! Source: `target/i386/arch_dump.c` of QEMU: one `NT_PRSTATUS` per vCPU, one note "QEMU" per vCPU in the same order, VMCOREINFO.

use memflow_core::memory::{MachineKind, TargetFacts, VcpuRegisters, X86Registers};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    elf::raw::{NOTE_PRSTATUS, NoteHeader, PrStatus32, PrStatus64, QemuCpuState},
    facts_note,
};

/// Version of the note "QEMU".
const QEMU_STATE_VERSION: u32 = 1;

/// The notes, and where the text of VMCOREINFO lies among them.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) bytes: Vec<u8>,
    /// Offset and length.
    pub(super) vmcoreinfo: Option<(usize, usize)>,
}

impl Notes {
    /// What is known of a machine.
    pub(super) fn new(facts: &TargetFacts) -> Self {
        let mut notes = Self::default();
        let x86 = || {
            facts.vcpus.iter().filter_map(|vcpu| match vcpu {
                VcpuRegisters::X86(registers) => Some(registers),
                _ => None,
            })
        };
        for (registers, number) in x86().zip(1u32..) {
            match facts.machine {
                Some(MachineKind::X86) => notes.add("CORE", NOTE_PRSTATUS, status32(registers, number).as_bytes()),
                _ => notes.add("CORE", NOTE_PRSTATUS, status64(registers, number).as_bytes()),
            };
        }
        // A state of some vCPUs only would be taken for that of the first ones.
        let states: Option<Vec<Vec<u8>>> = x86().map(qemu_state).collect();
        for state in states.unwrap_or_default() {
            notes.add("QEMU", 0, &state);
        }
        if let Some(text) = &facts.vmcoreinfo {
            let at = notes.add("VMCOREINFO", 0, text);
            notes.vmcoreinfo = Some((at, text.len()));
        }
        if let Some(text) = facts_note::text(facts) {
            notes.add(facts_note::NAME, facts_note::KIND, text.as_bytes());
        }
        notes
    }

    /// Adds a note; returns where its descriptor lies.
    fn add(&mut self, name: &str, kind: u32, desc: &[u8]) -> usize {
        let header = NoteHeader {
            namesz: (name.len() as u32 + 1).into(),
            descsz: u32::try_from(desc.len()).unwrap_or(u32::MAX).into(),
            kind: kind.into(),
        };
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let at = self.bytes.len();
        self.bytes.extend(desc);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        at
    }
}

/// Where `pr_pid` lies in both layouts' heads: QEMU puts the number of the vCPU there, from 1 on.
const PID_64: usize = 32;
const PID_32: usize = 24;

fn status64(registers: &X86Registers, number: u32) -> PrStatus64 {
    let mut status = PrStatus64::new_zeroed();
    if let Some(pid) = status.head.get_mut(PID_64..PID_64 + 4) {
        pid.copy_from_slice(&number.to_le_bytes());
    }
    status.rip = registers.rip.unwrap_or(0).into();
    status.rsp = registers.rsp.unwrap_or(0).into();
    status
}

fn status32(registers: &X86Registers, number: u32) -> PrStatus32 {
    let mut status = PrStatus32::new_zeroed();
    if let Some(pid) = status.head.get_mut(PID_32..PID_32 + 4) {
        pid.copy_from_slice(&number.to_le_bytes());
    }
    // Registers of a 32-bit machine.
    status.eip = (registers.rip.unwrap_or(0) as u32).into();
    status.esp = (registers.rsp.unwrap_or(0) as u32).into();
    status
}

/// The descriptor of a note "QEMU", if all that readers take from it is known.
fn qemu_state(registers: &X86Registers) -> Option<Vec<u8>> {
    let mut state = QemuCpuState::new_zeroed();
    state.version = QEMU_STATE_VERSION.into();
    let kernel_gs_base = registers.kernel_gs_base.map(u64::to_le_bytes);
    let len = size_of::<QemuCpuState>() + kernel_gs_base.map_or(0, |base| base.len());
    state.size = (len as u32).into();
    let [_, _, _, _, _, _, rsp, ..] = &mut state.general;
    *rsp = registers.rsp?.into();
    state.rip = registers.rip?.into();
    state.gs.base = registers.gs_base?.into();
    state.gdt.base = registers.gdtr_base?.into();
    state.idt.base = registers.idtr_base?.into();
    let [cr0, _, cr2, cr3, cr4] = &mut state.cr;
    *cr0 = registers.cr0?.into();
    *cr2 = registers.cr2?.into();
    *cr3 = registers.cr3?.into();
    *cr4 = registers.cr4?.into();
    let mut bytes = state.as_bytes().to_vec();
    bytes.extend(kernel_gs_base.iter().flatten());
    Some(bytes)
}

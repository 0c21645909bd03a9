//! The notes of an ELF core: registers and VMCOREINFO.
//!
//! Owns: which notes are known and what facts they become. Must not know: segments, files.
//! Keeps: notes are walked inside the bytes they came in; a length that leaves them is an error with its offset.
//! Source: System V ABI, chapter 5 (notes); `target/i386/arch_dump.c` and `dump/dump.c` of QEMU: first one `NT_PRSTATUS` per
//! vCPU, then one note "QEMU" per vCPU in the same order, then the guest's VMCOREINFO. `include/VBox/vmm/dbgfcorefmt.h` of VirtualBox:
//! one note "VBCORE" with the version of the format, then one "VBCPU" per vCPU. `xen/include/public/elfnote.h` of Xen: of a host that
//! crashed one note "Xen" per CPU with its control registers, behind its `NT_PRSTATUS`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    Result,
    memory::{TargetFacts, VcpuRegisters, X86Registers},
};
use zerocopy::{FromBytes, little_endian::U64};

use super::{
    raw::{self, NoteHeader, PrStatus32, PrStatus64, QemuCpuState, VirtualBoxCore, VirtualBoxCpu},
    xen::XenHeader,
};
use crate::{
    facts_note::{self, Told},
    input::View,
};

/// The version of the register note that is known.
const QEMU_STATE_VERSION: u32 = 1;
/// Versions of VirtualBox's format whose registers are known: those of VirtualBox 5 to 7.
const VIRTUALBOX_VERSIONS: [u32; 2] = [0x1_0005, 0x1_0006];

/// What notes said so far.
pub(crate) struct Notes {
    machine: u16,
    statuses: Vec<X86Registers>,
    states: Vec<X86Registers>,
    /// Control registers of the CPUs of a host that Xen ran on.
    controls: Vec<X86Registers>,
    /// What the note of a Xen guest's core says.
    xen: Option<XenHeader>,
    /// The version of VirtualBox's format.
    virtualbox: Option<u32>,
    vmcoreinfo: Option<Vec<u8>>,
    /// What a dump of our own tells.
    told: Option<Told>,
    of_process: bool,
    of_machine: bool,
    /// Register notes that were not understood.
    unread: u64,
}

/// One note, inside its segment.
struct Note<'a> {
    name: &'a [u8],
    kind: u32,
    desc: &'a [u8],
}

impl Notes {
    /// Notes of an ELF file for this `e_machine`.
    pub(crate) fn new(machine: u16) -> Self {
        Self {
            machine,
            statuses: Vec::new(),
            states: Vec::new(),
            controls: Vec::new(),
            xen: None,
            virtualbox: None,
            vmcoreinfo: None,
            told: None,
            of_process: false,
            of_machine: false,
            unread: 0,
        }
    }

    /// Adds the notes of one segment, which lies at `offset` in the file.
    pub(crate) fn add(&mut self, view: &View<'_>, offset: u64, segment: &[u8]) -> Result<()> {
        let mut rest = segment;
        while !rest.is_empty() {
            let consumed = segment.len().saturating_sub(rest.len());
            let at = offset.saturating_add(u64::try_from(consumed).unwrap_or(u64::MAX));
            let Some((note, after)) = split_note(rest) else {
                // Writers may fill the segment up with zeros.
                if rest.iter().all(|byte| *byte == 0) {
                    break;
                }
                return Err(view.bad(
                    at,
                    "a note inside its segment",
                    format!("one that needs more than {:#x} bytes", rest.len()),
                ));
            };
            self.take(&note);
            rest = after;
        }
        Ok(())
    }

    /// What the note with the header of a Xen guest's core says.
    pub(super) fn xen_header(&self) -> Option<XenHeader> {
        self.xen
    }

    /// True when a note was seen that only the core of a machine has.
    pub(super) fn of_machine(&self) -> bool {
        self.of_machine
    }

    /// True when a note was seen that only the core of a process has.
    pub(super) fn of_process(&self) -> bool {
        self.of_process
    }

    /// Puts what was said into the facts.
    pub(crate) fn into_facts(self, facts: &mut TargetFacts, remarks: &mut Vec<String>) {
        if self.unread > 0 {
            remarks.push(format!(
                "{} register notes are left aside: only those of x86 machines, QEMU's in version {QEMU_STATE_VERSION} and those of \
                 VirtualBox 5 to 7, are known",
                self.unread
            ));
        }
        let mut registers = if self.states.is_empty() { self.statuses } else { self.states };
        if registers.len() == self.controls.len() {
            for (registers, controls) in registers.iter_mut().zip(self.controls) {
                (registers.cr0, registers.cr2) = (controls.cr0, controls.cr2);
                (registers.cr3, registers.cr4) = (controls.cr3, controls.cr4);
            }
        }
        facts.vcpus = registers.into_iter().map(VcpuRegisters::X86).collect();
        facts.vmcoreinfo = self.vmcoreinfo;
        let Some(Told { vcpus, directory_table, windows, unread }) = self.told else { return };
        // It knows more than the notes of others, which say the same as far as they go.
        facts.vcpus = vcpus;
        facts.directory_table = directory_table;
        facts.windows = windows;
        if unread > 0 {
            remarks.push(format!(
                "{unread} lines of the note {} are left aside: they are not understood",
                facts_note::NAME
            ));
        }
    }

    fn take(&mut self, note: &Note<'_>) {
        match (note.name, note.kind) {
            (b"CORE", raw::NOTE_PRSTATUS) => match status(self.machine, note.desc) {
                Some(registers) => self.statuses.push(registers),
                None => self.unread = self.unread.saturating_add(1),
            },
            (b"CORE", kind) if raw::NOTES_OF_PROCESSES.contains(&kind) => self.of_process = true,
            (b"QEMU", 0) => {
                self.of_machine = true;
                match qemu_state(self.machine, note.desc) {
                    Some(registers) => self.states.push(registers),
                    None => self.unread = self.unread.saturating_add(1),
                }
            }
            (b"VBCORE", raw::NOTE_VIRTUALBOX_CORE) => {
                self.of_machine = true;
                self.virtualbox = virtualbox_version(note.desc);
            }
            (b"VBCPU", raw::NOTE_VIRTUALBOX_CPU) => {
                let known = self.virtualbox.is_some_and(|version| VIRTUALBOX_VERSIONS.contains(&version));
                match virtualbox_cpu(note.desc).filter(|_| known) {
                    Some(registers) => self.states.push(registers),
                    None => self.unread = self.unread.saturating_add(1),
                }
            }
            (b"Xen", raw::NOTE_XEN_CRASH_REGISTERS) => {
                self.of_machine = true;
                self.controls.extend(xen_controls(note.desc));
            }
            (b"Xen", raw::NOTE_XEN_HEADER) => {
                self.of_machine = true;
                self.xen = self.xen.or_else(|| XenHeader::read(note.desc));
            }
            (b"VMCOREINFO", _) => {
                self.of_machine = true;
                // The first counts; nobody writes two.
                self.vmcoreinfo.get_or_insert_with(|| note.desc.to_vec());
            }
            (name, facts_note::KIND) if name == facts_note::NAME.as_bytes() => {
                self.of_machine = true;
                self.told.get_or_insert_with(|| facts_note::parse(note.desc));
            }
            _ => {}
        }
    }
}

/// Takes the first note off `bytes`. Name and descriptor are each padded to four bytes, in both classes; the padding of
/// the very last one may be missing.
fn split_note(bytes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let (header, rest) = NoteHeader::read_from_prefix(bytes).ok()?;
    if header.namesz.get() == 0 && header.descsz.get() == 0 && header.kind.get() == 0 {
        // Zeros are not a note but the end of them.
        return None;
    }
    let (name, rest) = split_padded(rest, header.namesz.get())?;
    let (desc, rest) = split_padded(rest, header.descsz.get())?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some((Note { name, kind: header.kind.get(), desc }, rest))
}

fn split_padded(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok()?;
    let taken = bytes.get(..len)?;
    let padded = len.checked_next_multiple_of(4)?.min(bytes.len());
    Some((taken, bytes.get(padded..)?))
}

/// The version of the format, from a note "VBCORE".
fn virtualbox_version(desc: &[u8]) -> Option<u32> {
    let (raw, _) = VirtualBoxCore::read_from_prefix(desc).ok()?;
    (raw.magic.get() == raw::VIRTUALBOX_MAGIC).then(|| raw.version.get())
}

/// Registers from a note "VBCPU".
fn virtualbox_cpu(desc: &[u8]) -> Option<X86Registers> {
    let (raw, _) = VirtualBoxCpu::read_from_prefix(desc).ok()?;
    let [cr0, cr2, cr3, cr4] = raw.cr.map(|register| Some(register.get()));
    let [_, _, _, _, gs, _] = &raw.segments;
    let mut registers = X86Registers::default();
    (registers.cr0, registers.cr2, registers.cr3, registers.cr4) = (cr0, cr2, cr3, cr4);
    (registers.rip, registers.rsp) = (Some(raw.rip.get()), Some(raw.rsp.get()));
    (registers.gdtr_base, registers.idtr_base) = (Some(raw.gdtr.base.get()), Some(raw.idtr.base.get()));
    (registers.gs_base, registers.kernel_gs_base) = (Some(gs.base.get()), Some(raw.kernel_gs_base.get()));
    (registers.efer, registers.lstar) = (Some(raw.efer.get()), Some(raw.lstar.get()));
    Some(registers)
}

/// CR0, CR2, CR3 and CR4 from a note of Xen, which is of 64 bits (`crash_xen_core_t`).
fn xen_controls(desc: &[u8]) -> Option<X86Registers> {
    let ([cr0, cr2, cr3, cr4], _) = <[U64; 4]>::read_from_prefix(desc).ok()?;
    let mut registers = X86Registers::default();
    (registers.cr0, registers.cr2) = (Some(cr0.get()), Some(cr2.get()));
    (registers.cr3, registers.cr4) = (Some(cr3.get()), Some(cr4.get()));
    Some(registers)
}

/// Instruction and stack pointer from an `NT_PRSTATUS`.
fn status(machine: u16, desc: &[u8]) -> Option<X86Registers> {
    let mut registers = X86Registers::default();
    match machine {
        raw::MACHINE_X86_64 => {
            let (raw, _) = PrStatus64::read_from_prefix(desc).ok()?;
            registers.rip = Some(raw.rip.get());
            registers.rsp = Some(raw.rsp.get());
        }
        raw::MACHINE_386 => {
            let (raw, _) = PrStatus32::read_from_prefix(desc).ok()?;
            registers.rip = Some(raw.eip.get().into());
            registers.rsp = Some(raw.esp.get().into());
        }
        _ => return None,
    }
    Some(registers)
}

/// Registers from a note "QEMU" of an x86 machine, in the known version.
fn qemu_state(machine: u16, desc: &[u8]) -> Option<X86Registers> {
    let (raw, appended) = QemuCpuState::read_from_prefix(desc).ok()?;
    if !matches!(machine, raw::MACHINE_386 | raw::MACHINE_X86_64) || raw.version.get() != QEMU_STATE_VERSION {
        return None;
    }
    let [_, _, _, _, _, _, rsp, ..] = &raw.general;
    let [cr0, _, cr2, cr3, cr4] = &raw.cr;
    let mut registers = X86Registers::default();
    registers.cr0 = Some(cr0.get());
    registers.cr2 = Some(cr2.get());
    registers.cr3 = Some(cr3.get());
    registers.cr4 = Some(cr4.get());
    registers.idtr_base = Some(raw.idt.base.get());
    registers.gdtr_base = Some(raw.gdt.base.get());
    registers.gs_base = Some(raw.gs.base.get());
    registers.rip = Some(raw.rip.get());
    registers.rsp = Some(rsp.get());
    let with_appended = size_of::<QemuCpuState>().saturating_add(size_of::<U64>());
    if usize::try_from(raw.size.get()).is_ok_and(|size| size >= with_appended) {
        registers.kernel_gs_base = U64::read_from_prefix(appended).ok().map(|(value, _)| value.get());
    }
    Some(registers)
}

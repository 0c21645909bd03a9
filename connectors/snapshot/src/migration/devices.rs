//! The registers of vCPUs, from the states of devices behind RAM.
//!
//! Nothing in the stream says how long a state is. Behind all of them is a description in JSON that lists the fields of each, in order,
//! with their sizes; so a field's place is the sum of the sizes before it.
//!
//! Owns: finding the description and the states of vCPUs, and what their fields become. Must not know: RAM, files.
//! Keeps: this is a gift. Whatever does not fit gives no registers, never wrong ones: a state has to begin with its header and end where
//! the description says.
//!
//! Source: QEMU, `migration/savevm.c` (`vmdesc`, section headers), `migration/vmstate.c` (fields, subsections), `target/i386/machine.c`,
//! `target/arm/machine.c` and `cpregs.h`; names and sizes checked against streams of QEMU 7.2 and 10.0.
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
    memory::{AArch64Registers, MachineKind, VcpuRegisters, X86Registers},
};
use serde::Deserialize;

use crate::input::View;

/// More bytes of states than any machine has; they are some hundred KiB, and some MiB with displays.
const MAX_STATES: u64 = 64 << 20;
/// Most descriptions that are tried.
const MAX_TRIES: usize = 16;
/// Kinds of sections.
const DESCRIPTION: u8 = 6;
const FULL: u8 = 4;
const SUBSECTION: u8 = 5;
const FOOTER: u8 = 0x7e;
/// The numbers that Arm's system registers have in a stream: those of KVM, 64 bits wide.
const ARM_REGISTER: u64 = 0x6030_0000_0013_0000;
/// The bit of Arm's process state that says 32 bits.
const ARM_NARROW: u64 = 1 << 4;

/// What is read of the description.
#[derive(Deserialize)]
struct Description {
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    #[serde(default)]
    instance_id: i64,
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    #[serde(default)]
    name: String,
    #[serde(default)]
    size: u64,
    #[serde(default = "one")]
    array_len: u64,
}

fn one() -> u64 {
    1
}

/// The registers of each vCPU, and the kind of machine; none where nothing is described.
///
/// # Errors
/// When the input cannot be read.
pub(super) fn vcpus(view: &View<'_>, start: u64) -> Result<(Option<MachineKind>, Vec<VcpuRegisters>)> {
    let len = view.size().saturating_sub(start).min(MAX_STATES);
    let bytes = view.bytes(start, len, "the states of devices")?;
    let Some((description, states)) = description(&bytes) else { return Ok((None, Vec::new())) };
    let mut rest = states;
    let mut vcpus = Vec::new();
    let mut kind = None;
    for device in description.devices.iter().filter(|device| device.name == "cpu") {
        let Some((state, after)) = state(rest, device) else { break };
        rest = after;
        let fields = Fields { fields: &device.fields, state };
        let Some((machine, registers)) = x86(&fields).or_else(|| arm(&fields)) else { break };
        kind = Some(machine);
        vcpus.push(registers);
    }
    Ok((kind, vcpus))
}

/// The description, and the bytes before it.
fn description(bytes: &[u8]) -> Option<(Description, &[u8])> {
    let begins = |at: usize| {
        let (kind, rest) = bytes.get(at..)?.split_first()?;
        let (len, json) = rest.split_first_chunk()?;
        let json = json.get(..usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
        (*kind == DESCRIPTION && json.starts_with(b"{") && json.ends_with(b"}")).then_some((json, at))
    };
    // It is the last part, but padding may follow.
    let candidates = (0..bytes.len()).rev().filter_map(begins);
    candidates
        .take(MAX_TRIES)
        .find_map(|(json, at)| Some((serde_json::from_slice(json).ok()?, bytes.get(..at).unwrap_or_default())))
}

/// The state of a device, and what follows.
fn state<'a>(states: &'a [u8], device: &Device) -> Option<(&'a [u8], &'a [u8])> {
    let len =
        device.fields.iter().try_fold(0u64, |sum, field| sum.checked_add(field.size.checked_mul(field.array_len)?));
    let len = usize::try_from(len?).ok()?;
    let mut header = vec![u8::try_from(device.name.len()).ok()?];
    header.extend(device.name.as_bytes());
    header.extend(u32::try_from(device.instance_id).ok()?.to_be_bytes());
    states.windows(header.len()).enumerate().filter(|(_, window)| *window == header).find_map(|(at, _)| {
        let (kind, number) = states.get(at.checked_sub(5)?..at)?.split_first()?;
        // Behind the name and the instance is the version.
        let body = states.get(at.checked_add(header.len())?.checked_add(4)?..)?;
        let (state, after) = body.split_at_checked(len)?;
        let ends = match after.split_first()? {
            (&FOOTER, rest) => rest.starts_with(number),
            (&SUBSECTION, _) => true,
            _ => false,
        };
        (*kind == FULL && ends).then_some((state, after))
    })
}

/// The fields of a state, and its bytes.
struct Fields<'a> {
    fields: &'a [Field],
    state: &'a [u8],
}

impl Fields<'_> {
    /// The field of a name, and where it begins.
    fn find(&self, name: &str) -> Option<(&Field, u64)> {
        let mut at: u64 = 0;
        for field in self.fields {
            if field.name == name {
                return Some((field, at));
            }
            at = at.checked_add(field.size.checked_mul(field.array_len)?)?;
        }
        None
    }

    /// The number of this width at an offset.
    fn number(&self, at: u64, width: u64) -> Option<u64> {
        let bytes = self.state.get(usize::try_from(at).ok()?..)?;
        match width {
            4 => bytes.first_chunk().copied().map(|bytes| u32::from_be_bytes(bytes).into()),
            8 => bytes.first_chunk().copied().map(u64::from_be_bytes),
            _ => None,
        }
    }

    /// A number that is a field.
    fn value(&self, name: &str) -> Option<u64> {
        self.item(name, 0)
    }

    /// A number of an array.
    fn item(&self, name: &str, index: u64) -> Option<u64> {
        let (field, at) = self.find(name)?;
        let inside = field.size.checked_mul(Some(index).filter(|index| *index < field.array_len)?)?;
        self.number(at.checked_add(inside)?, field.size)
    }

    /// The base of an x86 segment: behind its selector of 32 bits, and before limit and flags of as many.
    fn base(&self, name: &str, index: u64) -> Option<u64> {
        let (field, at) = self.find(name)?;
        let inside = field.size.checked_mul(Some(index).filter(|index| *index < field.array_len)?)?;
        self.number(at.checked_add(inside)?.checked_add(4)?, field.size.checked_sub(12)?)
    }
}

fn x86(fields: &Fields<'_>) -> Option<(MachineKind, VcpuRegisters)> {
    const RSP: u64 = 4;
    const GS: u64 = 5;
    let cr3 = fields.value("env.cr[3]")?;
    let (general, _) = fields.find("env.regs")?;
    let machine = if general.array_len == 16 { MachineKind::X86_64 } else { MachineKind::X86 };
    let mut registers = X86Registers::default();
    registers.cr0 = fields.value("env.cr[0]");
    registers.cr2 = fields.value("env.cr[2]");
    registers.cr3 = Some(cr3);
    registers.cr4 = fields.value("env.cr[4]");
    registers.efer = fields.value("env.efer");
    registers.lstar = fields.value("env.lstar");
    registers.idtr_base = fields.base("env.idt", 0);
    registers.gdtr_base = fields.base("env.gdt", 0);
    registers.gs_base = fields.base("env.segs", GS);
    registers.kernel_gs_base = fields.value("env.kernelgsbase");
    registers.rip = fields.value("env.eip");
    registers.rsp = fields.item("env.regs", RSP);
    Some((machine, VcpuRegisters::X86(registers)))
}

fn arm(fields: &Fields<'_>) -> Option<(MachineKind, VcpuRegisters)> {
    const SP: u64 = 31;
    let pstate = fields.value("cpsr").filter(|pstate| pstate & ARM_NARROW == 0)?;
    let (indexes, indexes_at) = fields.find("cpreg_vmstate_indexes")?;
    let (_, values_at) = fields.find("cpreg_vmstate_values")?;
    let count = indexes.array_len.min(u64::try_from(fields.state.len()).unwrap_or(u64::MAX));
    let item = |at: u64, index: u64| fields.number(at.checked_add(index.checked_mul(8)?)?, 8);
    // Each a number of its own (Arm ARM D24): op0, op1, CRn, CRm, op2.
    let system = |number: u64| {
        let wanted = ARM_REGISTER.checked_add(number)?;
        let index = (0..count).find(|index| item(indexes_at, *index) == Some(wanted))?;
        item(values_at, index)
    };
    let mut registers = AArch64Registers::default();
    registers.ttbr0_el1 = system(0xc100);
    registers.ttbr1_el1 = system(0xc101);
    registers.tcr_el1 = system(0xc102);
    registers.sctlr_el1 = system(0xc080);
    registers.mair_el1 = system(0xc510);
    registers.vbar_el1 = system(0xc600);
    registers.tpidr_el1 = system(0xc684);
    registers.sp_el0 = fields.item("env.sp_el", 0);
    registers.pc = fields.value("env.pc");
    registers.sp = fields.item("env.xregs", SP);
    registers.pstate = Some(pstate);
    Some((MachineKind::AArch64, VcpuRegisters::AArch64(registers)))
}

//! The registers of each vCPU.
//!
//! Owns: which registers matter by which names, and reading them. Must not know: how a description arrives, what registers are for.
//! Keeps: what the stub does not have is `None`; a register of another width than it says is an error.
//! Source: QEMU gdb-xml/i386-64bit.xml, gdb-xml/aarch64-core.xml; target/arm/helper.c names system registers, those that AArch32
//! has too without their `_EL1`.
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

use crate::{
    description::{Description, Register},
    hex,
    session::{Request, Session},
};

/// Most vCPUs.
const MAX_VCPUS: usize = 4096;

/// Names of a register, and where its value goes.
type Wanted<R> = (&'static [&'static str], fn(&mut R) -> &mut Option<u64>);

const X86: &[Wanted<X86Registers>] = &[
    (&["cr0"], |to| &mut to.cr0),
    (&["cr2"], |to| &mut to.cr2),
    (&["cr3"], |to| &mut to.cr3),
    (&["cr4"], |to| &mut to.cr4),
    (&["efer"], |to| &mut to.efer),
    (&["gs_base"], |to| &mut to.gs_base),
    (&["k_gs_base"], |to| &mut to.kernel_gs_base),
    (&["rip", "eip"], |to| &mut to.rip),
    (&["rsp", "esp"], |to| &mut to.rsp),
];

const AARCH64: &[Wanted<AArch64Registers>] = &[
    (&["TTBR0_EL1"], |to| &mut to.ttbr0_el1),
    (&["TTBR1_EL1"], |to| &mut to.ttbr1_el1),
    (&["TCR_EL1"], |to| &mut to.tcr_el1),
    (&["SCTLR_EL1", "SCTLR"], |to| &mut to.sctlr_el1),
    (&["MAIR_EL1"], |to| &mut to.mair_el1),
    (&["VBAR_EL1", "VBAR"], |to| &mut to.vbar_el1),
    (&["TPIDR_EL1"], |to| &mut to.tpidr_el1),
    (&["SP_EL0"], |to| &mut to.sp_el0),
    (&["pc"], |to| &mut to.pc),
    (&["sp"], |to| &mut to.sp),
    (&["cpsr"], |to| &mut to.pstate),
];

/// The kind of machine that a description is of; `None` for those that nothing is known of here.
pub(crate) fn machine(description: &Description) -> Option<MachineKind> {
    match description.architecture.as_deref()? {
        "i386:x86-64" | "i386:x86-64:intel" => Some(MachineKind::X86_64),
        "i386" | "i386:intel" => Some(MachineKind::X86),
        "aarch64" => Some(MachineKind::AArch64),
        _ => None,
    }
}

/// Reads the registers of each vCPU.
///
/// # Errors
/// The connection is lost, or the stub says what cannot be.
pub(crate) fn read(session: &mut Session, description: &Description) -> Result<Vec<VcpuRegisters>> {
    let Some(machine) = machine(description) else { return Ok(Vec::new()) };
    let vcpus = vcpus(session)?;
    let mut all = Vec::with_capacity(vcpus.len());
    for vcpu in &vcpus {
        all.push(match machine {
            MachineKind::AArch64 => VcpuRegisters::AArch64(of(session, description, vcpu, AARCH64)?),
            _ => VcpuRegisters::X86(of(session, description, vcpu, X86)?),
        });
    }
    if let Some(first) = vcpus.first() {
        session.ask_one(select(first))?;
    }
    Ok(all)
}

/// The packet after which registers and memory are those of a vCPU.
fn select(vcpu: &str) -> Request {
    Request::new(format!("Hg{vcpu}"))
}

/// The names that the stub has for the vCPUs.
fn vcpus(session: &mut Session) -> Result<Vec<String>> {
    let mut vcpus = Vec::new();
    let mut answer = session.ask_one(Request::new("qfThreadInfo"))?;
    while let [b'm', names @ ..] = answer.as_slice() {
        for name in names.split(|byte| *byte == b',') {
            let plain = !name.is_empty()
                && name.len() <= 40
                && name.iter().all(|byte| byte.is_ascii_hexdigit() || b"p.".contains(byte));
            if !plain || vcpus.len() >= MAX_VCPUS {
                return Err(session.link().violation("sent a list of vCPUs that is none"));
            }
            vcpus.push(String::from_utf8_lossy(name).into_owned());
        }
        answer = session.ask_one(Request::new("qsThreadInfo"))?;
    }
    if vcpus.is_empty() {
        // A stub without threads: the one that there is. "0" means any.
        vcpus.push("0".to_owned());
    }
    Ok(vcpus)
}

/// The registers of one vCPU.
fn of<R: Default>(session: &mut Session, description: &Description, vcpu: &str, wanted: &[Wanted<R>]) -> Result<R> {
    let known: Vec<_> = wanted
        .iter()
        .filter_map(|(names, place)| Some((names.iter().find_map(|name| description.register(name))?, place)))
        .filter(|(register, _)| matches!(register.bits, 8 | 16 | 32 | 64))
        .collect();
    let mut requests = vec![select(vcpu)];
    requests.extend(known.iter().map(|(register, _)| Request::new(format!("p{:x}", register.number))));
    let answers = session.ask(&requests)?;
    let mut answers = answers.into_iter();
    if answers.next().as_deref() != Some(b"OK") {
        return Err(session.link().violation(format!("does not select vCPU {vcpu}, which it has listed")));
    }
    let answers: Vec<_> = answers.collect();
    let mut registers = R::default();
    if answers.first().is_some_and(Vec::is_empty) {
        // It has no packet for one register.
        let answers = session.ask(&[select(vcpu), Request::new("g")])?;
        let all = answers.get(1).map(Vec::as_slice).unwrap_or_default();
        for (register, place) in known {
            *place(&mut registers) =
                place_in(description, register).and_then(|(at, len)| value(all.get(at..)?.get(..len)?));
        }
        return Ok(registers);
    }
    for ((register, place), answer) in known.into_iter().zip(answers) {
        let digits = usize::try_from(register.bits / 4).unwrap_or(usize::MAX);
        let found = match answer.as_slice() {
            // Not there, or not now.
            [] | [b'E', _, _] | [b'E', b'.', ..] => None,
            digits if digits.contains(&b'x') => None,
            text if text.len() == digits => value(text),
            _ => {
                let what = format!(
                    "register {} of {} bits has {} digits",
                    register.name.escape_debug(),
                    register.bits,
                    answer.len()
                );
                return Err(session.link().violation(what));
            }
        };
        *place(&mut registers) = found;
    }
    Ok(registers)
}

/// Where the digits of a register lie in the answer to `g`: all registers, by number, without gaps.
fn place_in(description: &Description, register: &Register) -> Option<(usize, usize)> {
    let digits = |register: &Register| usize::try_from(register.bits / 4).ok();
    let before = description.registers.iter().filter(|other| other.number < register.number);
    let at = before.map(digits).try_fold(0_usize, |sum, len| sum.checked_add(len?))?;
    Some((at, digits(register)?))
}

/// A value whose bytes stand in the order of the target, which is little-endian.
fn value(digits: &[u8]) -> Option<u64> {
    let mut bytes = hex::decode(digits)?;
    bytes.resize(8, 0);
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_in_the_answer_to_g_follow_their_numbers() {
        let register = |name: &str, number, bits| Register { name: name.to_owned(), number, bits };
        let registers = vec![register("c", 2, 64), register("a", 0, 32), register("b", 1, 16)];
        let description = Description { architecture: None, registers };
        let places: Vec<_> = description.registers.iter().map(|register| place_in(&description, register)).collect();
        assert_eq!(places, [Some((12, 16)), Some((0, 8)), Some((8, 4))]);
    }

    #[test]
    fn values_are_little_endian_and_unavailable_ones_are_none() {
        assert_eq!(value(b"33000500"), Some(0x0005_0033));
        assert_eq!(value(b"xxxxxxxx"), None);
    }
}

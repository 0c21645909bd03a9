//! A note of our own, with all that is known of a machine: what the notes of others have no place for survives a conversion.
//!
//! Owns: the text of the note, both ways. Must not know: where notes lie.
//! Keeps: what is in the text and cannot be understood is left aside and told; the order and number of vCPUs are those of the text.
//!
//! The text has a line `KEY=VALUE` for each thing that is known, numbers hexadecimal with `0x`: `vcpu=x86` or `vcpu=aarch64` begins a
//! vCPU, and its registers follow; then `directory_table`, and `windows.…` for the header of a crash dump.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::fmt::Write;

use memflow_core::{
    VirtAddr,
    memory::{AArch64Registers, BugCheck, TargetFacts, VcpuRegisters, WindowsFacts, X86Registers},
};

/// Name of the note.
pub(crate) const NAME: &str = "MEMFLOW";
/// Its type: the version of the text.
pub(crate) const KIND: u32 = 1;

/// The registers of an x86 vCPU by name.
fn x86(registers: &mut X86Registers) -> [(&'static str, &mut Option<u64>); 12] {
    [
        ("cr0", &mut registers.cr0),
        ("cr2", &mut registers.cr2),
        ("cr3", &mut registers.cr3),
        ("cr4", &mut registers.cr4),
        ("efer", &mut registers.efer),
        ("lstar", &mut registers.lstar),
        ("idtr_base", &mut registers.idtr_base),
        ("gdtr_base", &mut registers.gdtr_base),
        ("gs_base", &mut registers.gs_base),
        ("kernel_gs_base", &mut registers.kernel_gs_base),
        ("rip", &mut registers.rip),
        ("rsp", &mut registers.rsp),
    ]
}

/// The registers of an Arm vCPU by name.
fn aarch64(registers: &mut AArch64Registers) -> [(&'static str, &mut Option<u64>); 11] {
    [
        ("ttbr0_el1", &mut registers.ttbr0_el1),
        ("ttbr1_el1", &mut registers.ttbr1_el1),
        ("tcr_el1", &mut registers.tcr_el1),
        ("sctlr_el1", &mut registers.sctlr_el1),
        ("mair_el1", &mut registers.mair_el1),
        ("vbar_el1", &mut registers.vbar_el1),
        ("tpidr_el1", &mut registers.tpidr_el1),
        ("sp_el0", &mut registers.sp_el0),
        ("pc", &mut registers.pc),
        ("sp", &mut registers.sp),
        ("pstate", &mut registers.pstate),
    ]
}

/// Addresses in the header of a crash dump by name.
fn windows_addresses(windows: &mut WindowsFacts) -> [(&'static str, &mut Option<VirtAddr>); 4] {
    [
        ("windows.debugger_data", &mut windows.debugger_data),
        ("windows.loaded_modules", &mut windows.loaded_modules),
        ("windows.active_processes", &mut windows.active_processes),
        ("windows.pfn_database", &mut windows.pfn_database),
    ]
}

/// The text for what is known; `None` if that is nothing, or nothing but what every tool's notes tell.
pub(crate) fn text(facts: &TargetFacts) -> Option<String> {
    let mut text = String::new();
    let mut line = |key: &str, value: Option<u64>| {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{key}={value:#x}");
        }
    };
    line("directory_table", facts.directory_table);
    if let Some(mut windows) = facts.windows {
        line("windows.build", Some(windows.build.into()));
        line("windows.pae", windows.pae.map(u64::from));
        line("windows.processors", windows.processors.map(u64::from));
        line("windows.system_time", windows.system_time);
        for (key, value) in windows_addresses(&mut windows) {
            line(key, value.map(VirtAddr::as_u64));
        }
        if let Some(BugCheck { code, parameters }) = windows.bug_check {
            line("windows.bug_check", Some(code.into()));
            parameters.into_iter().for_each(|parameter| line("windows.bug_check.parameter", Some(parameter)));
        }
    }
    for vcpu in &facts.vcpus {
        match vcpu.clone() {
            VcpuRegisters::X86(mut registers) => {
                text.push_str("vcpu=x86\n");
                for (key, value) in x86(&mut registers) {
                    value.map(|value| writeln!(text, "{key}={value:#x}"));
                }
            }
            VcpuRegisters::AArch64(mut registers) => {
                text.push_str("vcpu=aarch64\n");
                for (key, value) in aarch64(&mut registers) {
                    value.map(|value| writeln!(text, "{key}={value:#x}"));
                }
            }
            _ => text.push_str("vcpu=unknown\n"),
        }
    }
    Some(text).filter(|text| !text.is_empty())
}

/// What a text tells.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) vcpus: Vec<VcpuRegisters>,
    pub(crate) directory_table: Option<u64>,
    pub(crate) windows: Option<WindowsFacts>,
    /// Lines that were not understood.
    pub(crate) unread: u64,
}

/// Reads a text.
pub(crate) fn parse(text: &[u8]) -> Told {
    let mut told = Told::default();
    let mut parameters = 0..0;
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let understood = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.split_once('='))
            .and_then(|(key, value)| take(&mut told, &mut parameters, key, value));
        if understood.is_none() {
            told.unread = told.unread.saturating_add(1);
        }
    }
    told
}

/// Takes one line; `None` if it makes no sense.
fn take(told: &mut Told, parameters: &mut std::ops::Range<usize>, key: &str, value: &str) -> Option<()> {
    if key == "vcpu" {
        told.vcpus.push(match value {
            "x86" => VcpuRegisters::X86(X86Registers::default()),
            "aarch64" => VcpuRegisters::AArch64(AArch64Registers::default()),
            _ => return None,
        });
        return Some(());
    }
    let value = u64::from_str_radix(value.strip_prefix("0x")?, 16).ok()?;
    if key == "directory_table" {
        told.directory_table = Some(value);
        return Some(());
    }
    if key.starts_with("windows.") {
        return take_windows(told.windows.get_or_insert_default(), parameters, key, value);
    }
    let field = match told.vcpus.last_mut()? {
        VcpuRegisters::X86(registers) => x86(registers).into_iter().find(|(name, _)| *name == key)?.1,
        VcpuRegisters::AArch64(registers) => aarch64(registers).into_iter().find(|(name, _)| *name == key)?.1,
        _ => return None,
    };
    *field = Some(value);
    Some(())
}

fn take_windows(
    windows: &mut WindowsFacts,
    parameters: &mut std::ops::Range<usize>,
    key: &str,
    value: u64,
) -> Option<()> {
    match key {
        "windows.build" => windows.build = u32::try_from(value).ok()?,
        "windows.pae" => windows.pae = Some(value != 0),
        "windows.processors" => windows.processors = Some(u32::try_from(value).ok()?),
        "windows.system_time" => windows.system_time = Some(value),
        "windows.bug_check" => {
            windows.bug_check = Some(BugCheck { code: u32::try_from(value).ok()?, parameters: [0; 4] });
            *parameters = 0..4;
        }
        "windows.bug_check.parameter" => {
            *windows.bug_check.as_mut()?.parameters.get_mut(parameters.next()?)? = value;
        }
        _ => *windows_addresses(windows).into_iter().find(|(name, _)| *name == key)?.1 = Some(VirtAddr::new(value)),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::as_conversions, clippy::arithmetic_side_effects, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_that_is_told_is_read_again() {
        let mut facts = TargetFacts::default();
        assert_eq!(text(&facts), None);
        let mut number = 0xffff_8000_0000_0000;
        let mut next = || {
            number += 1;
            Some(number)
        };
        let mut first = X86Registers::default();
        x86(&mut first).into_iter().for_each(|(_, field)| *field = next());
        let mut third = AArch64Registers::default();
        aarch64(&mut third).into_iter().for_each(|(_, field)| *field = next());
        facts.vcpus =
            vec![VcpuRegisters::X86(first), VcpuRegisters::X86(X86Registers::default()), VcpuRegisters::AArch64(third)];
        facts.directory_table = next();
        let mut windows = WindowsFacts::default();
        windows.build = 17763;
        windows.pae = Some(false);
        windows.processors = Some(8);
        windows.system_time = next();
        windows_addresses(&mut windows).into_iter().for_each(|(_, field)| *field = next().map(VirtAddr::new));
        windows.bug_check = Some(BugCheck { code: 0xd1, parameters: [1, 0, u64::MAX, 4] });
        facts.windows = Some(windows);
        let told = parse(text(&facts).unwrap().as_bytes());
        assert_eq!(
            (&told.vcpus, told.directory_table, told.windows),
            (&facts.vcpus, facts.directory_table, facts.windows)
        );
        assert_eq!(told.unread, 0);
    }

    #[test]
    fn nonsense_is_counted() {
        let told =
            parse(b"rip=0x1\nvcpu=z80\nvcpu=x86\nrip=1\nrip=0x2\nwhat\n\xff=0x1\nwindows.bug_check.parameter=0x1\n");
        assert_eq!(told.unread, 6);
        let rip = told.vcpus.iter().map(|vcpu| match vcpu {
            VcpuRegisters::X86(registers) => registers.rip,
            _ => None,
        });
        assert_eq!(rip.collect::<Vec<_>>(), [Some(2)]);
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'='), any::<u8>()], 0..200)) {
            parse(&text);
        }
    }
}

//! Registers of vCPUs, as QEMU prints them.
//!
//! Owns: `info registers -a`, for x86 and 64-bit Arm, and what becomes of it with a second source. Must not know: who asked.
//! Keeps: a register that is not printed is `None`: of Arm, QEMU prints none of those that control paging; of x86, neither LSTAR nor
//! the GS base that `swapgs` brings.
//! Source: QEMU target/i386/cpu-dump.c (`x86_cpu_dump_state`), target/arm/cpu.c (`aarch64_cpu_dump_state`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::memory::{AArch64Registers, VcpuRegisters, X86Registers};

/// More vCPUs than QEMU gives any machine.
const MAX_VCPUS: usize = 4096;

/// Reads `info registers -a`: one record per vCPU, in order. What is of neither architecture gives none.
pub fn parse_registers(text: &str) -> Vec<VcpuRegisters> {
    let mut sections: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("CPU#") && sections.len() < MAX_VCPUS {
            sections.push(Vec::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections.iter().filter_map(|lines| vcpu(lines)).collect()
}

fn vcpu(lines: &[&str]) -> Option<VcpuRegisters> {
    let value = |name: &str| {
        let words = lines.iter().flat_map(|line| line.split_ascii_whitespace());
        words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name).and_then(|(_, value)| hex(value))
    };
    // `GS =0000 BASE LIMIT FLAGS`, `IDT=     BASE LIMIT`.
    let base = |name: &str, index: usize| {
        let line =
            lines.iter().find_map(|line| line.trim_start().strip_prefix(name)?.trim_start().strip_prefix('='))?;
        line.split_ascii_whitespace().nth(index).and_then(hex)
    };
    if let Some(cr3) = value("CR3") {
        let mut x86 = X86Registers::default();
        (x86.cr0, x86.cr2, x86.cr3, x86.cr4) = (value("CR0"), value("CR2"), Some(cr3), value("CR4"));
        x86.efer = value("EFER");
        (x86.rip, x86.rsp) = (value("RIP").or_else(|| value("EIP")), value("RSP").or_else(|| value("ESP")));
        (x86.gs_base, x86.idtr_base, x86.gdtr_base) = (base("GS", 1), base("IDT", 0), base("GDT", 0));
        return Some(VcpuRegisters::X86(x86));
    }
    let mut arm = AArch64Registers::default();
    (arm.pc, arm.sp, arm.pstate) = (Some(value("PC")?), value("SP"), value("PSTATE"));
    Some(VcpuRegisters::AArch64(arm))
}

/// What the monitor and the stub say of the same vCPUs, the stub first: it has all of a vCPU's registers at one moment. `None` when
/// they do not speak of the same vCPUs.
pub(crate) fn merged(monitor: &[VcpuRegisters], stub: &[VcpuRegisters]) -> Option<Vec<VcpuRegisters>> {
    if monitor.len() != stub.len() {
        return None;
    }
    let pairs = monitor.iter().zip(stub);
    pairs
        .map(|pair| match pair {
            (VcpuRegisters::X86(monitor), VcpuRegisters::X86(stub)) => {
                let mut both = *stub;
                for (ours, theirs) in [
                    (&mut both.cr0, monitor.cr0),
                    (&mut both.cr2, monitor.cr2),
                    (&mut both.cr3, monitor.cr3),
                    (&mut both.cr4, monitor.cr4),
                    (&mut both.efer, monitor.efer),
                    (&mut both.idtr_base, monitor.idtr_base),
                    (&mut both.gdtr_base, monitor.gdtr_base),
                    (&mut both.gs_base, monitor.gs_base),
                    (&mut both.rip, monitor.rip),
                    (&mut both.rsp, monitor.rsp),
                ] {
                    *ours = ours.or(theirs);
                }
                Some(VcpuRegisters::X86(both))
            }
            (VcpuRegisters::AArch64(monitor), VcpuRegisters::AArch64(stub)) => {
                let mut both = *stub;
                both.pc = both.pc.or(monitor.pc);
                both.sp = both.sp.or(monitor.sp);
                both.pstate = both.pstate.or(monitor.pstate);
                Some(VcpuRegisters::AArch64(both))
            }
            _ => None,
        })
        .collect()
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn long_mode() {
        let text = "\nCPU#0\nRAX=0000000000000001 RBX=ffffffff82a15000\nRSI=00 RDI=00 RBP=00 RSP=ffffffff82a03e98\n\
            RIP=ffffffff81c9a9eb RFL=00000206 [-----P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\nES =0000 0000000000000000 ffffffff 00c00100\n\
            GS =0000 ffff88800fc00000 ffffffff 00c00100\nGDT=     fffffe0000001000 0000007f\nIDT=     fffffe0000000000 00000fff\n\
            CR0=80050033 CR2=00007f0e8b6f1000 CR3=000000000280a000 CR4=00750ef0\nEFER=0000000000000d01\n\nCPU#1\nCR3=0000000000001000\n";
        let vcpus = parse_registers(text);
        assert_eq!(vcpus.len(), 2);
        let VcpuRegisters::X86(first) = vcpus[0] else { panic!("{vcpus:?}") };
        assert_eq!((first.cr0, first.cr3, first.cr4), (Some(0x8005_0033), Some(0x280_a000), Some(0x75_0ef0)));
        assert_eq!((first.gs_base.unwrap(), first.idtr_base.unwrap()), (0xffff_8880_0fc0_0000, 0xffff_fe00_0000_0000));
        assert_eq!((first.rip, first.efer, first.lstar), (Some(0xffff_ffff_81c9_a9eb), Some(0xd01), None));
        assert_eq!(first.rsp, Some(0xffff_ffff_82a0_3e98));
    }

    #[test]
    fn arm_has_no_registers_of_paging() {
        let text = "CPU#0\n PC=ffff800008010000 X00=0000000000000000 X01=0000000000000000\nX29=00 X30=00  SP=ffff80000a003d60\n\
            PSTATE=400003c5 -Z-- EL1h  SVCR=00000000 --  BTYPE=0    FPU disabled\n";
        let vcpus = parse_registers(text);
        let VcpuRegisters::AArch64(arm) = vcpus[0] else { panic!("{vcpus:?}") };
        assert_eq!((arm.pc, arm.sp), (Some(0xffff_8000_0801_0000), Some(0xffff_8000_0a00_3d60)));
        assert_eq!((arm.pstate, arm.ttbr1_el1), (Some(0x4000_03c5), None));
    }

    #[test]
    fn stub_goes_before_the_monitor_for_the_same_vcpus() {
        let (mut monitor, mut stub) = (X86Registers::default(), X86Registers::default());
        (monitor.cr3, monitor.rip, monitor.idtr_base) = (Some(0x1000), Some(1), Some(0xfe00));
        (stub.cr3, stub.kernel_gs_base) = (Some(0x2000), Some(0x8000));
        let (monitor, stub) = ([VcpuRegisters::X86(monitor)], [VcpuRegisters::X86(stub)]);
        let both = merged(&monitor, &stub).unwrap();
        let VcpuRegisters::X86(both) = both[0] else { panic!("{both:?}") };
        assert_eq!((both.cr3, both.rip, both.idtr_base), (Some(0x2000), Some(1), Some(0xfe00)));
        assert_eq!(both.kernel_gs_base, Some(0x8000));

        let mut arm = AArch64Registers::default();
        arm.ttbr1_el1 = Some(0x4000_0000);
        let arm = [VcpuRegisters::AArch64(arm)];
        assert_eq!(merged(&monitor, &arm), None);
        assert_eq!(merged(&monitor, &[]), None);
        let printed = [VcpuRegisters::AArch64(AArch64Registers::default())];
        assert_eq!(merged(&printed, &arm).unwrap(), arm);
    }

    #[test]
    fn anything_else_is_no_vcpu() {
        assert!(parse_registers("").is_empty());
        assert!(parse_registers("CPU#0\n r0=1 nip=2\n").is_empty());
        assert!(parse_registers("CR3=1000").is_empty());
    }
}

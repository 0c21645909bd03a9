//! The monitor's texts as QEMU 7.2 prints them, and what they mean.

use super::*;

#[test]
fn registers_are_kept_apart_by_vcpu() {
    let text = "\nCPU#0\nRAX=0000000000000000 RBX=ffffffff82a1a940\nRIP=ffffffff81e05d0b RFL=00000246 [---Z-P-] CPL=0\n\
                CR0=80050033 CR2=00007f0c1e5b6000 CR3=0000000005c3e001 CR4=00751ef0\nEFER=0000000000000d01\n\
                CPU#1\nRAX=0000000000000001\nCR0=80050033 CR2=0000000000000000 CR3=000000000280a000 CR4=00751ee0\n";
    let cpus = registers(text).unwrap();
    assert_eq!(cpus.len(), 2);
    assert_eq!(cpus[0].get("CR3"), Some(0x5c3_e001));
    assert_eq!(cpus[1].get("CR3"), Some(0x280_a000));
    assert_eq!(cpus[0].get("RIP"), Some(0xffff_ffff_81e0_5d0b));
    assert!(registers("CPU#0\nRAX=1\n").is_err());
}

#[test]
fn tlb_flags_stand_in_their_column() {
    let entries =
        tlb("ffff888000000000: 0000000000000000 XG-DA---W\n00007ffd1000: 0000000000123000 --P-ACTU-\n").unwrap();
    let first = entries[0];
    assert_eq!((first.virt, first.phys), (0xffff_8880_0000_0000, 0));
    assert!(first.no_execute && first.global && !first.large && first.dirty && first.accessed && first.write);
    assert!(!first.user && !first.cache_disable && !first.write_through);
    let second = entries[1];
    assert!(second.large && second.cache_disable && second.write_through && second.user);
    assert!(!second.write && !second.no_execute && !second.dirty);
    assert!(tlb("ffff888000000000: 0000000000000000 XG-DA---Q\n").is_err());
    assert!(tlb("PG disabled\n").is_err());
    let pae = tlb("00000000bfffe000: 800000000d0f1000 X--DA--UW\n").unwrap();
    assert_eq!(pae[0].phys, 0xd0f_1000);
}

#[test]
fn ram_runs_merge_and_stop_at_the_hole() {
    let text = "FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n  0000-0007 (prio 0, i/o): dma\n\n\
                FlatView #1\n AS \"memory\", root: system\n Root memory region: system\n\
                \x20 0000000000000000-000000000009ffff (prio 0, ram): ram\n\
                \x20 00000000000a0000-00000000000bffff (prio 1, i/o): vga\n\
                \x20 00000000000c0000-00000000000fffff (prio 1, rom): ram @00000000000c0000\n\
                \x20 0000000000100000-00000000bfffffff (prio 0, ram): ram @0000000000100000\n\
                \x20 00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios\n\
                \x20 0000000100000000-000000017fffffff (prio 0, ram): ram @00000000c0000000\n\n";
    let run = |phys, len, offset| RamRun { phys, len, offset };
    assert_eq!(
        ram_runs(text).unwrap(),
        [run(0, 0xa_0000, 0), run(0xc_0000, 0xbff4_0000, 0xc_0000), run(0x1_0000_0000, 0x8000_0000, 0xc000_0000)]
    );
    assert!(ram_runs("FlatView #0\n").is_err());
}

#[test]
fn one_address_is_mapped_or_not() {
    assert_eq!(gva2gpa("gpa: 0x1234\r\n").unwrap(), Some(0x1234));
    assert_eq!(gva2gpa("Unmapped\n").unwrap(), None);
    assert!(gva2gpa("No CPU available\n").is_err());
    let sample = gva2gpa_sample("ffff888000001000 1000\n0 unmapped\n").unwrap();
    assert_eq!(sample, [(0xffff_8880_0000_1000, Some(0x1000)), (0, None)]);
    assert!(gva2gpa_sample("0\n").is_err());
}

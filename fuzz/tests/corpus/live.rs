//! Seeds of the targets for live machines.
//!
//! Owns: a kcore of each architecture, lists of memory. Must not know: how they are read.

use super::{
    Seed,
    kcore_builder::{ARM64, Kcore, X86},
};

const IOMEM: &str = "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n000a0000-000fffff : PCI Bus 0000:00\n\
                     00100000-7ffdbfff : System RAM\n  02000000-02ffffff : Kernel code\n100000000-17fffffff : System RAM (kmem)\n";

pub(crate) fn seeds() -> Vec<Seed> {
    let x86 = Kcore::new(X86)
        .note("CORE", 1, &[0; 16])
        .note("VMCOREINFO", 0, b"OSRELEASE=6.12.0\nPAGESIZE=4096\n")
        .virtual_only(0xffff_c900_0000_0000, 1 << 40)
        .area(0xffff_ffff_8100_0000, 0x2000, b'K', 0x100)
        .area(0xffff_8880_0000_1000, 0x1000, b'a', 0x800)
        .area(0xffff_8881_0000_0000, 0x1_0000_0000, b'b', 0x400);
    let arm64 = Kcore::new(ARM64).virtual_only(0xffff_8000_0800_0000, 1 << 30).area(
        0xffff_0000_0000_0000,
        0x4000_0000,
        b'a',
        0x800,
    );
    vec![
        ("kcore", "x86-64", x86.bytes()),
        ("kcore", "arm64", arm64.bytes()),
        ("iomem", "pc", IOMEM.into()),
        ("iomem", "hidden", b"00000000-00000000 : System RAM\n".to_vec()),
        ("dma_map", "list", b"0x1000-0x9ffff,0x100000-0x7fffffff,0x100000000-0x47fffffff".to_vec()),
        ("dma_map", "lines", b"# of a machine\n0x1000 - 0x9ffff\n0x100000-0x1fffff@0x80000000 # moved\n".to_vec()),
    ]
}

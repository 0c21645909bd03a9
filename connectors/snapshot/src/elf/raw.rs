//! The structures of an ELF core as they lie in the file, little-endian.
//!
//! Owns: layouts and constants, nothing else. Must not know: what becomes of them.
//! Source: System V ABI, chapters 4 and 5 (ELF header, program header, note); `include/uapi/linux/elf.h` of Linux;
//! `target/i386/arch_dump.c` of QEMU (register notes, checked against version 1 of its `QEMUCPUState`);
//! `include/VBox/vmm/dbgfcorefmt.h` and `DBGFCoreWrite.cpp` of VirtualBox, `xen/include/public/elfnote.h` of Xen.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};

pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";
pub(super) const CLASS_32: u8 = 1;
pub(super) const CLASS_64: u8 = 2;
pub(super) const DATA_LITTLE_ENDIAN: u8 = 1;
pub(super) const DATA_BIG_ENDIAN: u8 = 2;
pub(super) const TYPE_CORE: u16 = 4;
pub(crate) const MACHINE_386: u16 = 3;
pub(crate) const MACHINE_X86_64: u16 = 62;
pub(super) const MACHINE_AARCH64: u16 = 183;
/// In `e_phnum`: the real number is in `sh_info` of section 0.
pub(super) const PHNUM_EXTENDED: u16 = 0xffff;
pub(super) const SEGMENT_LOAD: u32 = 1;
pub(super) const SEGMENT_NOTE: u32 = 4;
pub(super) const NOTE_PRSTATUS: u32 = 1;
/// VirtualBox's note of the whole machine, its magic, and the note of one vCPU.
pub(super) const NOTE_VIRTUALBOX_CORE: u32 = 0xb00;
pub(super) const VIRTUALBOX_MAGIC: u32 = 0xc01a_c0de;
pub(super) const NOTE_VIRTUALBOX_CPU: u32 = 0xb01;
/// Xen's notes: control registers of a CPU of a host, and the header of a guest's core.
pub(super) const NOTE_XEN_CRASH_REGISTERS: u32 = 0x100_0002;
pub(super) const NOTE_XEN_HEADER: u32 = 0x200_0001;
/// Notes that only cores of a single process have: auxiliary vector, signal information, mapped files.
pub(super) const NOTES_OF_PROCESSES: [u32; 3] = [6, 0x5349_4749, 0x4649_4c45];

/// `e_ident`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Ident {
    pub(super) magic: [u8; 4],
    pub(super) class: u8,
    pub(super) data: u8,
    pub(super) rest: [u8; 10],
}

/// `Elf64_Ehdr` after `e_ident`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header64 {
    pub(super) kind: U16,
    pub(super) machine: U16,
    pub(super) version: U32,
    pub(super) entry: U64,
    pub(super) phoff: U64,
    pub(super) shoff: U64,
    pub(super) flags: U32,
    pub(super) ehsize: U16,
    pub(super) phentsize: U16,
    pub(super) phnum: U16,
    pub(super) shentsize: U16,
    pub(super) shnum: U16,
    pub(super) shstrndx: U16,
}

/// `Elf32_Ehdr` after `e_ident`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header32 {
    pub(super) kind: U16,
    pub(super) machine: U16,
    pub(super) version: U32,
    pub(super) entry: U32,
    pub(super) phoff: U32,
    pub(super) shoff: U32,
    pub(super) flags: U32,
    pub(super) ehsize: U16,
    pub(super) phentsize: U16,
    pub(super) phnum: U16,
    pub(super) shentsize: U16,
    pub(super) shnum: U16,
    pub(super) shstrndx: U16,
}

/// `Elf64_Phdr`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ProgramHeader64 {
    pub(super) kind: U32,
    pub(super) flags: U32,
    pub(super) offset: U64,
    pub(super) vaddr: U64,
    pub(super) paddr: U64,
    pub(super) filesz: U64,
    pub(super) memsz: U64,
    pub(super) align: U64,
}

/// `Elf32_Phdr`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ProgramHeader32 {
    pub(super) kind: U32,
    pub(super) offset: U32,
    pub(super) vaddr: U32,
    pub(super) paddr: U32,
    pub(super) filesz: U32,
    pub(super) memsz: U32,
    pub(super) flags: U32,
    pub(super) align: U32,
}

/// `Elf64_Shdr`, up to `sh_info`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SectionHeader64 {
    pub(super) name: U32,
    pub(super) kind: U32,
    pub(super) flags: U64,
    pub(super) addr: U64,
    pub(super) offset: U64,
    pub(super) size: U64,
    pub(super) link: U32,
    pub(super) info: U32,
}

/// `Elf32_Shdr`, up to `sh_info`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SectionHeader32 {
    pub(super) name: U32,
    pub(super) kind: U32,
    pub(super) flags: U32,
    pub(super) addr: U32,
    pub(super) offset: U32,
    pub(super) size: U32,
    pub(super) link: U32,
    pub(super) info: U32,
}

/// `Elf_Nhdr`, the same for both classes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct NoteHeader {
    pub(super) namesz: U32,
    pub(super) descsz: U32,
    pub(super) kind: U32,
}

/// `elf_prstatus` of x86-64, the general registers of one vCPU.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct PrStatus64 {
    pub(super) head: [u8; 112],
    /// r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax.
    pub(super) general: [U64; 16],
    pub(super) rip: U64,
    pub(super) cs: U64,
    pub(super) eflags: U64,
    pub(super) rsp: U64,
    pub(super) ss: U64,
    /// fs_base, gs_base, ds, es, fs, gs; QEMU leaves the bases zero.
    pub(super) segments: [U64; 6],
    pub(super) tail: [u8; 8],
}

/// `elf_prstatus` of 32-bit x86.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct PrStatus32 {
    pub(super) head: [u8; 72],
    /// ebx, ecx, edx, esi, edi, ebp, eax, ds, es, fs, gs, orig_eax.
    pub(super) general: [U32; 12],
    pub(super) eip: U32,
    pub(super) cs: U32,
    pub(super) eflags: U32,
    pub(super) esp: U32,
    pub(super) ss: U32,
    pub(super) tail: [u8; 4],
}

/// `QEMUCPUSegment`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct QemuSegment {
    pub(super) selector: U32,
    pub(super) limit: U32,
    pub(super) flags: U32,
    pub(super) pad: U32,
    pub(super) base: U64,
}

/// `QEMUCPUState` of QEMU's x86 targets, version 1, without the `kernel_gs_base` that newer QEMU appends.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct QemuCpuState {
    pub(super) version: U32,
    pub(super) size: U32,
    /// rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15.
    pub(super) general: [U64; 16],
    pub(super) rip: U64,
    pub(super) rflags: U64,
    pub(super) cs: QemuSegment,
    pub(super) ds: QemuSegment,
    pub(super) es: QemuSegment,
    pub(super) fs: QemuSegment,
    pub(super) gs: QemuSegment,
    pub(super) ss: QemuSegment,
    pub(super) ldt: QemuSegment,
    pub(super) tr: QemuSegment,
    pub(super) gdt: QemuSegment,
    pub(super) idt: QemuSegment,
    pub(super) cr: [U64; 5],
}

/// `DBGFCOREDESCRIPTOR`, up to the version of the format.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct VirtualBoxCore {
    pub(super) magic: U32,
    pub(super) version: U32,
}

/// `DBGFCORESEL`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct VirtualBoxSegment {
    pub(super) base: U64,
    pub(super) limit: U32,
    pub(super) attributes: U32,
    pub(super) selector: U32,
    pub(super) pad: U32,
}

/// `DBGFCOREXDTR`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct VirtualBoxTable {
    pub(super) base: U64,
    pub(super) limit: U32,
    pub(super) pad: U32,
}

/// `DBGFCORECPU` up to `msrKernelGSBase`; what follows differs between versions 0x10005 and 0x10006.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct VirtualBoxCpu {
    /// rax, rbx, rcx, rdx, rsi, rdi, r8 to r15.
    pub(super) general: [U64; 14],
    pub(super) rip: U64,
    pub(super) rsp: U64,
    pub(super) rbp: U64,
    pub(super) rflags: U64,
    /// cs, ds, es, fs, gs, ss.
    pub(super) segments: [VirtualBoxSegment; 6],
    /// cr0, cr2, cr3, cr4.
    pub(super) cr: [U64; 4],
    pub(super) dr: [U64; 8],
    pub(super) gdtr: VirtualBoxTable,
    pub(super) idtr: VirtualBoxTable,
    pub(super) ldtr: VirtualBoxSegment,
    pub(super) tr: VirtualBoxSegment,
    pub(super) sysenter: [U64; 3],
    pub(super) efer: U64,
    pub(super) star: U64,
    pub(super) pat: U64,
    pub(super) lstar: U64,
    pub(super) cstar: U64,
    pub(super) sfmask: U64,
    pub(super) kernel_gs_base: U64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_formats() {
        assert_eq!(size_of::<Ident>() + size_of::<Header64>(), 64);
        assert_eq!(size_of::<Ident>() + size_of::<Header32>(), 52);
        assert_eq!((size_of::<ProgramHeader64>(), size_of::<ProgramHeader32>()), (56, 32));
        // What follows `sh_info` is `sh_addralign` and `sh_entsize`.
        assert_eq!((size_of::<SectionHeader64>() + 16, size_of::<SectionHeader32>() + 8), (64, 40));
        assert_eq!((size_of::<PrStatus64>(), size_of::<PrStatus32>()), (336, 144));
        assert_eq!(size_of::<QemuCpuState>() + 8, 440);
        // The base of APICs, two extended control registers, and a length before the extended state.
        assert_eq!(
            (size_of::<VirtualBoxSegment>(), size_of::<VirtualBoxTable>(), size_of::<VirtualBoxCpu>()),
            (24, 16, 544)
        );
    }
}

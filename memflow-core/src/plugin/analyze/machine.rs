//! What kind of machine a file is for.
//!
//! Owns: file formats and architectures as a plugin's file names them, and what a target triple stands for in these terms.
//! Must not know: plugins.
//! Source: ELF `e_machine` (System V ABI and its supplements), PE `Machine` (PE format, "Machine Types"), Mach-O `cputype`
//! (`mach/machine.h`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::fmt;

use goblin::{
    elf::header as elf,
    mach::constants::cputype,
    pe::header::{COFF_MACHINE_ARM64, COFF_MACHINE_ARMNT, COFF_MACHINE_X86, COFF_MACHINE_X86_64},
};

use crate::plugin::descriptor::TARGETS;

/// The format of a shared object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Linux, Android, the BSDs.
    Elf,
    /// Windows.
    Pe,
    /// macOS.
    MachO,
}

impl Format {
    /// The section with descriptors, as tools of the format write it.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Elf => "memflow_plugin",
            Self::Pe => ".memflow",
            Self::MachO => "__DATA,__memflow",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf => "ELF",
            Self::Pe => "PE",
            Self::MachO => "Mach-O",
        })
    }
}

/// A processor architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// One that has a name here, which is rustc's.
    Named(&'static str),
    /// Another one, by its number in the format.
    Number(u32),
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Number(number) => write!(f, "machine {number:#x}"),
        }
    }
}

/// What kind of machine a shared object is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The file's format.
    pub format: Format,
    /// The architecture.
    pub architecture: Architecture,
    /// Width of an address in bits, 32 or 64.
    pub bits: u8,
    /// The most significant byte comes first.
    pub big_endian: bool,
    /// The operating system, where the format has a field for it and the file makes use of it.
    pub os: Option<&'static str>,
}

impl Machine {
    /// What a shared object for a target triple looks like; nothing if the triple is not known here.
    pub(super) fn of_target(triple: &str) -> Option<Self> {
        let target = TARGETS.iter().find(|target| target.triple == triple)?;
        let (format, os) = match target.os {
            "windows" => (Format::Pe, None),
            "macos" => (Format::MachO, None),
            "freebsd" => (Format::Elf, Some(FREEBSD)),
            _ => (Format::Elf, Some(LINUX)),
        };
        Some(Self {
            format,
            architecture: Architecture::Named(target.arch),
            bits: if matches!(target.arch, "x86" | "arm") { 32 } else { 64 },
            big_endian: target.arch == "s390x",
            os,
        })
    }

    /// True if a file for `other` can be loaded by a program for this one, as far as the headers say.
    pub(super) fn takes(&self, other: &Self) -> bool {
        *self == Self { os: self.os, ..*other } && (other.os.is_none() || other.os == self.os)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, architecture, bits, big_endian, os } = self;
        let order = if *big_endian { "big-endian " } else { "" };
        write!(f, "{architecture} ({bits}-bit {order}{format}")?;
        match os {
            Some(os) => write!(f, " of {os})"),
            None => f.write_str(")"),
        }
    }
}

const LINUX: &str = "Linux";
const FREEBSD: &str = "FreeBSD";

/// `e_machine`, with the class, which tells the two widths of some architectures apart.
pub(super) fn elf_architecture(machine: u16, bits: u8) -> Architecture {
    Architecture::Named(match (machine, bits) {
        (elf::EM_X86_64, _) => "x86_64",
        (elf::EM_386, _) => "x86",
        (elf::EM_AARCH64, _) => "aarch64",
        (elf::EM_ARM, _) => "arm",
        (elf::EM_RISCV, 64) => "riscv64",
        (elf::EM_RISCV, _) => "riscv32",
        (elf::EM_LOONGARCH, 64) => "loongarch64",
        (elf::EM_PPC64, _) => "powerpc64",
        (elf::EM_PPC, _) => "powerpc",
        (elf::EM_S390, 64) => "s390x",
        (elf::EM_MIPS, 64) => "mips64",
        (elf::EM_MIPS, _) => "mips",
        (elf::EM_SPARCV9, _) => "sparc64",
        _ => return Architecture::Number(machine.into()),
    })
}

/// `EI_OSABI`. Zero is what most linkers write, whatever the system.
pub(super) fn elf_os(abi: u8) -> Option<&'static str> {
    match abi {
        elf::ELFOSABI_NONE => None,
        elf::ELFOSABI_GNU => Some(LINUX),
        elf::ELFOSABI_NETBSD => Some("NetBSD"),
        elf::ELFOSABI_SOLARIS => Some("Solaris"),
        elf::ELFOSABI_FREEBSD => Some(FREEBSD),
        elf::ELFOSABI_OPENBSD => Some("OpenBSD"),
        _ => Some("another system"),
    }
}

pub(super) fn pe_architecture(machine: u16) -> Architecture {
    Architecture::Named(match machine {
        COFF_MACHINE_X86_64 => "x86_64",
        COFF_MACHINE_X86 => "x86",
        COFF_MACHINE_ARM64 => "aarch64",
        COFF_MACHINE_ARMNT => "arm",
        _ => return Architecture::Number(machine.into()),
    })
}

pub(super) fn macho_architecture(cpu: u32) -> Architecture {
    Architecture::Named(match cpu {
        cputype::CPU_TYPE_X86_64 => "x86_64",
        cputype::CPU_TYPE_I386 => "x86",
        cputype::CPU_TYPE_ARM64 => "aarch64",
        cputype::CPU_TYPE_ARM => "arm",
        cputype::CPU_TYPE_POWERPC => "powerpc",
        cputype::CPU_TYPE_POWERPC64 => "powerpc64",
        _ => return Architecture::Number(cpu),
    })
}

//! The guests as data: which kernel, how it pages, on which machine.
//!
//! Owns: the matrix and the names of its guests.
//! Must not know: how a guest is packaged, booted or captured.
//! Keeps: KASLR is on in every guest; nothing here depends on the host.

/// Instruction set of a guest, as Debian names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86, 64-bit.
    Amd64,
    /// x86, 32-bit.
    I386,
}

impl Arch {
    /// The name used in package names.
    pub fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::I386 => "i386",
        }
    }
}

/// How the guest pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging {
    /// 32-bit, two levels, 4 MiB large pages.
    Legacy,
    /// 32-bit with 64-bit entries, three levels.
    Pae,
    /// 64-bit, four levels.
    Level4,
    /// 64-bit, five levels.
    Level5,
}

impl Paging {
    /// Number of table levels.
    pub fn levels(self) -> u8 {
        match self {
            Self::Legacy => 2,
            Self::Pae => 3,
            Self::Level4 => 4,
            Self::Level5 => 5,
        }
    }
}

/// The machine QEMU plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// i440FX: below 4 GiB at most 3 GiB of RAM.
    Pc,
    /// Q35: below 4 GiB at most 2 GiB of RAM once there is more than 2.75 GiB.
    Q35,
}

impl Machine {
    /// QEMU's name of it.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::Pc => "pc",
            Self::Q35 => "q35",
        }
    }
}

/// One guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Name: a folder, an argument.
    pub name: &'static str,
    /// Instruction set.
    pub arch: Arch,
    /// Metapackage whose dependency is the kernel package.
    pub metapackage: &'static str,
    /// First two numbers of the release, "6.12".
    pub series: &'static str,
    /// How it pages.
    pub paging: Paging,
    /// Page-table isolation.
    pub pti: bool,
    /// The machine.
    pub machine: Machine,
    /// RAM in MiB.
    pub memory_mib: u64,
    /// Number of vCPUs.
    pub cpus: u32,
    /// More words for the kernel command line.
    pub cmdline: &'static str,
    /// Host name inside the guest.
    pub hostname: &'static str,
}

impl Spec {
    /// The kernel command line: a kernel that stumbles ends the machine, so that it is noticed at once.
    pub fn kernel_command_line(&self) -> String {
        let pti = if self.pti { "pti=on" } else { "pti=off" };
        let extra = if self.cmdline.is_empty() { String::new() } else { format!(" {}", self.cmdline) };
        format!("console=ttyS0 loglevel=4 panic=-1 oops=panic {pti}{extra}")
    }

    /// QEMU's `-cpu` argument. QEMU 7.2 garbles flags in cmpxchg16b, which the kernel's allocator uses where it is there: a boot in
    /// three then ends in a panic, so it is not there.
    pub fn cpu(&self) -> &'static str {
        match self.paging {
            Paging::Level4 => "max,la57=off,cx16=off",
            _ => "max,cx16=off",
        }
    }
}

const AMD64: Spec = Spec {
    name: "",
    arch: Arch::Amd64,
    metapackage: "linux-image-cloud-amd64",
    series: "6.1",
    paging: Paging::Level4,
    pti: true,
    machine: Machine::Pc,
    memory_mib: 256,
    cpus: 2,
    cmdline: "",
    hostname: "orchard",
};

const NEW: Spec = Spec { series: "6.12", ..AMD64 };

const I386: Spec = Spec { arch: Arch::I386, metapackage: "linux-image-686", paging: Paging::Legacy, ..AMD64 };

/// The guests that differ in kernel, paging and machine.
pub const MATRIX: &[Spec] = &[
    Spec { name: "amd64-6.1-4level-pti", ..AMD64 },
    Spec { name: "amd64-6.12-4level-pti", machine: Machine::Q35, ..NEW },
    Spec { name: "amd64-6.1-4level-nopti", pti: false, machine: Machine::Q35, memory_mib: 4096, ..AMD64 },
    Spec { name: "amd64-6.1-5level-pti", paging: Paging::Level5, machine: Machine::Q35, cpus: 1, ..AMD64 },
    Spec { name: "amd64-6.1-5level-nopti", paging: Paging::Level5, pti: false, ..AMD64 },
    Spec { name: "amd64-6.12-4level-nopti", pti: false, cpus: 1, ..NEW },
    Spec { name: "amd64-6.12-5level-pti", paging: Paging::Level5, memory_mib: 5120, ..NEW },
    Spec { name: "amd64-6.12-5level-nopti", paging: Paging::Level5, pti: false, machine: Machine::Q35, ..NEW },
    Spec { name: "i386-6.1-legacy", cpus: 1, ..I386 },
    Spec {
        name: "i386-6.1-pae",
        metapackage: "linux-image-686-pae",
        paging: Paging::Pae,
        machine: Machine::Q35,
        ..I386
    },
];

/// The guest whose processes are listed against the clock: as much memory as the figures in `docs/os-linux.md` are for.
pub const TIMED: Spec = Spec { name: "amd64-6.12-2gib", memory_mib: 2048, ..NEW };

/// The guest of the committed snapshot: little memory, and what is free reads as zero.
pub const DEMO: Spec = Spec {
    name: "demo",
    memory_mib: 96,
    cpus: 1,
    cmdline: "init_on_free=1 init_on_alloc=1 transparent_hugepage=never nr_cpus=1 audit=0 apparmor=0 selinux=0 cgroup_disable=memory psi=0 ipv6.disable=1 acpiphp.disable=1 8250.nr_uarts=1 thermal.off=1 cpuidle.off=1",
    hostname: "demo",
    ..NEW
};

/// The guest of benchmarks: 512 MiB, as such images are usual.
pub const BENCH: Spec = Spec { name: "bench", memory_mib: 512, ..NEW };

/// A machine whose process `vmm` holds another machine's RAM: [`crate::Inner`].
pub const NESTED: Spec = Spec { name: "nested", cpus: 1, hostname: "manor", ..NEW };

/// The machine inside [`NESTED`]; it is no guest of its own.
pub(crate) const INNER: Spec = Spec {
    name: "inner",
    memory_mib: 96,
    cpus: 1,
    cmdline: "tsc=unstable nr_cpus=1 audit=0 apparmor=0 selinux=0 cgroup_disable=memory psi=0 8250.nr_uarts=1",
    hostname: "cellar",
    ..NEW
};

/// Every guest that tests ask for by name: the matrix, and those made for one purpose.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    MATRIX.iter().chain([&NESTED, &TIMED])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_nothing_turns_kaslr_off() {
        for (i, spec) in all().chain([&INNER, &DEMO, &BENCH]).enumerate() {
            assert!(
                all().chain([&INNER, &DEMO, &BENCH]).skip(i + 1).all(|other| other.name != spec.name),
                "{}",
                spec.name
            );
            assert!(!spec.kernel_command_line().contains("nokaslr"));
        }
    }

    #[test]
    fn the_matrix_holds_every_combination_the_project_promises() {
        for series in ["6.1", "6.12"] {
            for paging in [Paging::Level4, Paging::Level5] {
                for pti in [true, false] {
                    let found = MATRIX.iter().filter(|s| (s.series, s.paging, s.pti) == (series, paging, pti));
                    assert_eq!(found.count(), 1, "{series} {paging:?} {pti}");
                }
            }
        }
        for paging in [Paging::Legacy, Paging::Pae] {
            assert_eq!(MATRIX.iter().filter(|s| s.paging == paging).count(), 1);
        }
        assert!(MATRIX.iter().filter(|s| s.cpus == 2).count() * 2 >= MATRIX.len());
        assert!(MATRIX.iter().any(|s| s.memory_mib > 3584 && s.machine == Machine::Pc));
        assert!(MATRIX.iter().any(|s| s.memory_mib > 3584 && s.machine == Machine::Q35));
    }
}

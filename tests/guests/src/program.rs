//! The guest's own program and its first file system, built for the guest's architecture.
//!
//! Owns: the sources of the guest program, how they are compiled, what goes into the initramfs.
//! Must not know: QEMU, captures.
//! Keeps: nothing is installed for the foreign architecture; the C library comes from unpacked packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result, WithPath};
use crate::initramfs::Archive;
use crate::modules;
use crate::packages::Packages;
use crate::spec::{Arch, INNER, NESTED, Spec};
use crate::tool;

/// Sources of the guest's program and configuration, by file name; part of every guest's key.
const SOURCES: &[(&str, &str)] = &[
    ("guest.h", include_str!("../guest/guest.h")),
    ("main.c", include_str!("../guest/main.c")),
    ("agent.c", include_str!("../guest/agent.c")),
    ("cast.c", include_str!("../guest/cast.c")),
    ("rcS", include_str!("../guest/rcS")),
    ("inittab", include_str!("../guest/inittab")),
];

/// Further sources of a guest with a machine inside.
const NESTED_SOURCES: &[(&str, &str)] =
    &[("vmm.c", include_str!("../guest/vmm.c")), ("inner.c", include_str!("../guest/inner.c"))];

/// Modules inserted where the kernel has them as modules; the first ones carry the channel to the host.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "qemu_fw_cfg",
    "virtio_rng",
    "virtio_balloon",
    "virtio_net",
    "virtio_blk",
    "loop",
    "dummy",
    "tun",
    "veth",
];
/// The demo guest's modules: few, small ones.
const DEMO_MODULES: &[&str] = &["qemu_fw_cfg", "failover", "net_failover", "dummy", "nlmon", "crc-itu-t"];

/// The nested guest's modules: the channel to the host, and what plays `/dev/kvm` on the emulated CPU.
const NESTED_MODULES: &[&str] = &["virtio_pci", "virtio_console", "qemu_fw_cfg", "virtio_rng", "kvm_amd", "dummy"];
/// The inner machine's modules.
const INNER_MODULES: &[&str] = &["failover", "net_failover", "dummy", "nlmon", "crc-itu-t"];

/// Names the guest program goes by; each is a role.
const ROLES: &[&str] = &[
    "bin/guest",
    "bin/agent",
    "bin/launcher",
    "bin/worker-pool",
    "bin/family",
    "bin/zombie-parent",
    "bin/stopped",
    "bin/a-process-with-a-long-name",
    "bin/rewritten",
    "bin/emptied",
    "bin/deleted",
];
/// The role that is a machine's monitor; the agent waits for the inner machine where it is there.
const MONITOR: &[&str] = &["bin/vmm"];
/// The role of the agent inside.
const INNER_AGENT: &[&str] = &["bin/inner-agent"];

/// Busybox programs by name.
const APPLETS: &[&str] = &[
    "sh", "mount", "insmod", "echo", "hostname", "ifconfig", "mkdir", "ln", "sleep", "cat", "ls", "ps", "syslogd",
    "klogd", "crond", "init", "poweroff", "rm",
];

/// What QEMU needs to start a guest.
#[derive(Debug)]
pub(crate) struct Boot {
    /// The compressed kernel.
    pub(crate) kernel: PathBuf,
    /// The initramfs.
    pub(crate) initrd: PathBuf,
    /// Identities of the packages used.
    pub(crate) packages: Vec<String>,
}

/// Text of the file that a guest process maps: numbered lines, a few pages.
pub fn known_text() -> String {
    (0..512).map(|i| format!("line {i:04} of a text that memory must hold\n")).collect()
}

/// The sources of a guest's program.
pub(crate) fn sources(spec: &Spec) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    SOURCES.iter().chain(if *spec == NESTED { NESTED_SOURCES } else { &[] })
}

/// Fetches, unpacks and compiles everything, into `folder`.
pub(crate) fn build(packages: &Packages, spec: &Spec, folder: &Path) -> Result<Boot> {
    let kernel_package = packages.kernel(spec)?;
    let busybox_package = packages.stable("busybox-static", spec.arch)?;
    let kernel = folder.join("kernel");
    let busybox = folder.join("busybox");
    packages.unpack(&kernel_package, &kernel)?;
    packages.unpack(&busybox_package, &busybox)?;
    let program = compile(packages, spec, folder)?;
    let image = folder.join("vmlinuz");
    let packed = find_kernel(&kernel)?;
    std::fs::rename(&packed, &image).at(packed)?;

    let initrd = folder.join("initramfs.cpio");
    let files = Files { busybox: &busybox.join("bin/busybox"), program: &program, kernel: &kernel };
    if *spec == NESTED {
        // The inner machine is started from the same kernel and the same programs.
        let inner = folder.join("inner.cpio");
        let archive = files.archive(&INNER, INNER_MODULES, INNER_AGENT, "::once:/bin/inner-agent")?;
        archive.write(&inner)?;
        let lines = format!("::respawn:/bin/agent\n::once:/bin/vmm {}", INNER.memory_mib);
        let mut archive = files.archive(spec, NESTED_MODULES, MONITOR, &lines)?;
        archive.folder("inner");
        archive.file("inner/vmlinuz", 0o644, &std::fs::read(&image).at(&image)?);
        archive.file("inner/initramfs.cpio", 0o644, &std::fs::read(&inner).at(&inner)?);
        archive.file("inner/cmdline", 0o644, format!("{}\0", INNER.kernel_command_line()).as_bytes());
        archive.write(&initrd)?;
        std::fs::remove_file(&inner).at(inner)?;
    } else {
        let wanted = if spec.name == "demo" { DEMO_MODULES } else { MODULES };
        files.archive(spec, wanted, &[], "::respawn:/bin/agent")?.write(&initrd)?;
    }
    for leftover in [kernel, busybox, folder.join("toolchain")] {
        std::fs::remove_dir_all(&leftover).at(leftover)?;
    }
    std::fs::remove_file(&program).at(program)?;
    Ok(Boot { kernel: image, initrd, packages: vec![kernel_package.identity, busybox_package.identity] })
}

/// The compressed kernel inside an unpacked package.
fn find_kernel(unpacked: &Path) -> Result<PathBuf> {
    let boot = unpacked.join("boot");
    std::fs::read_dir(&boot)
        .at(&boot)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .ok_or_else(|| Error::MissingFile {
            path: boot.join("vmlinuz-*"),
            hint: "the kernel package's layout may have changed".into(),
        })
}

/// Compiles the guest's program against an unpacked C library.
fn compile(packages: &Packages, spec: &Spec, folder: &Path) -> Result<PathBuf> {
    tool::require("gcc", "gcc")?;
    let arch = spec.arch;
    let (width, triple, gcc_triple) = match arch {
        Arch::Amd64 => ("-m64", "x86_64-linux-musl", "x86_64-linux-gnu"),
        Arch::I386 => ("-m32", "i386-linux-musl", "i686-linux-gnu"),
    };
    let root = folder.join("toolchain");
    for name in ["musl-dev", "libgcc-12-dev"] {
        packages.unpack(&packages.stable(name, arch)?, &root)?;
    }
    let sources = root.join("sources");
    std::fs::create_dir_all(&sources).at(&sources)?;
    let mut units = Vec::new();
    for (name, text) in self::sources(spec) {
        let path = sources.join(name);
        std::fs::write(&path, text).at(&path)?;
        if name.ends_with(".c") {
            units.push(path);
        }
    }
    let libc = root.join("usr/lib").join(triple);
    let libgcc = root.join("usr/lib/gcc").join(gcc_triple).join("12");
    let program = folder.join("guest");

    let mut gcc = Command::new("gcc");
    gcc.args([width, "-O2", "-Wall", "-static", "-no-pie", "-fno-pie", "-D_FILE_OFFSET_BITS=64"]);
    gcc.args(["-nostdinc", "-nostdlib", "-nostartfiles", "-isystem"]).arg(root.join("usr/include").join(triple));
    if *spec == NESTED {
        // The kernel's own headers, for /dev/kvm; the C library's come first.
        packages.unpack(&packages.stable("linux-libc-dev", arch)?, &root)?;
        gcc.arg("-DNESTED").arg("-idirafter").arg(root.join("usr/include"));
        gcc.arg("-idirafter").arg(root.join("usr/include").join(gcc_triple));
    }
    gcc.arg("-o").arg(&program);
    gcc.args([libc.join("crt1.o"), libc.join("crti.o")]);
    gcc.args(units);
    gcc.arg("-L").arg(&libc).arg("-L").arg(&libgcc);
    gcc.args(["-Wl,--start-group", "-lgcc", "-lgcc_eh", "-lc", "-Wl,--end-group", "-s"]);
    gcc.arg(libc.join("crtn.o"));
    tool::run(&mut gcc)?;
    Ok(program)
}

/// What every file system of a guest is made of.
struct Files<'a> {
    busybox: &'a Path,
    program: &'a Path,
    /// The unpacked kernel package.
    kernel: &'a Path,
}

impl Files<'_> {
    /// Lays out a guest's file system; `agent` are the last lines of its inittab.
    fn archive(&self, spec: &Spec, modules: &[&str], roles: &[&str], agent: &str) -> Result<Archive> {
        let mut archive = Archive::default();
        for folder in ["bin", "sbin", "dev", "etc", "proc", "sys", "tmp", "run", "var", "root", "lib", "lib/modules"] {
            archive.folder(folder);
        }
        archive.character("dev/console", 5, 1);
        archive.file("bin/busybox", 0o755, &std::fs::read(self.busybox).at(self.busybox)?);
        archive.symlink("init", "/bin/busybox");
        for applet in APPLETS {
            archive.symlink(&format!("bin/{applet}"), "/bin/busybox");
        }
        archive.hard_links(&[ROLES, roles].concat(), &std::fs::read(self.program).at(self.program)?);
        archive.file("etc/known.txt", 0o644, known_text().as_bytes());
        archive.file("etc/hostname", 0o644, format!("{}\n", spec.hostname).as_bytes());
        archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/:/bin/sh\n");
        archive.file("etc/group", 0o644, b"root:x:0:\nusers:x:100:\nworker:x:1000:\n");
        for (name, text) in SOURCES {
            match *name {
                "rcS" => archive.file("etc/rcS", 0o755, text.as_bytes()),
                "inittab" => archive.file("etc/inittab", 0o644, format!("{text}{agent}\n").as_bytes()),
                _ => {}
            }
        }
        let mut list = String::new();
        for module in modules::in_order(self.kernel, modules)? {
            archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, &module.bytes);
            list.push_str(&module.name);
            list.push_str(".ko\n");
        }
        archive.file("etc/modules", 0o644, list.as_bytes());
        Ok(archive)
    }
}

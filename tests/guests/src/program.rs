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
use crate::spec::{Arch, Spec};
use crate::tool;

/// Sources of the guest's program and configuration, by file name; part of every guest's key.
pub(crate) const SOURCES: &[(&str, &str)] = &[
    ("guest.h", include_str!("../guest/guest.h")),
    ("main.c", include_str!("../guest/main.c")),
    ("agent.c", include_str!("../guest/agent.c")),
    ("cast.c", include_str!("../guest/cast.c")),
    ("rcS", include_str!("../guest/rcS")),
    ("inittab", include_str!("../guest/inittab")),
];

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

/// Fetches, unpacks and compiles everything, into `folder`.
pub(crate) fn build(packages: &Packages, spec: &Spec, folder: &Path) -> Result<Boot> {
    let kernel_package = packages.kernel(spec)?;
    let busybox_package = packages.stable("busybox-static", spec.arch)?;
    let kernel = folder.join("kernel");
    let busybox = folder.join("busybox");
    packages.unpack(&kernel_package, &kernel)?;
    packages.unpack(&busybox_package, &busybox)?;
    let program = compile(packages, spec.arch, folder)?;

    let initrd = folder.join("initramfs.cpio");
    let wanted = if spec.name == "demo" { DEMO_MODULES } else { MODULES };
    assemble(spec, &busybox.join("bin/busybox"), &program, &modules::in_order(&kernel, wanted)?, &initrd)?;
    let image = folder.join("vmlinuz");
    let packed = find_kernel(&kernel)?;
    std::fs::rename(&packed, &image).at(packed)?;
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
fn compile(packages: &Packages, arch: Arch, folder: &Path) -> Result<PathBuf> {
    tool::require("gcc", "gcc")?;
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
    for (name, text) in SOURCES {
        let path = sources.join(name);
        std::fs::write(&path, text).at(path)?;
    }
    let libc = root.join("usr/lib").join(triple);
    let libgcc = root.join("usr/lib/gcc").join(gcc_triple).join("12");
    let program = folder.join("guest");

    let mut gcc = Command::new("gcc");
    gcc.args([width, "-O2", "-Wall", "-static", "-no-pie", "-fno-pie", "-D_FILE_OFFSET_BITS=64"]);
    gcc.args(["-nostdinc", "-nostdlib", "-nostartfiles", "-isystem"]).arg(root.join("usr/include").join(triple));
    gcc.arg("-o").arg(&program);
    gcc.args([libc.join("crt1.o"), libc.join("crti.o")]);
    gcc.args(["main.c", "agent.c", "cast.c"].map(|name| sources.join(name)));
    gcc.arg("-L").arg(&libc).arg("-L").arg(&libgcc);
    gcc.args(["-Wl,--start-group", "-lgcc", "-lgcc_eh", "-lc", "-Wl,--end-group", "-s"]);
    gcc.arg(libc.join("crtn.o"));
    tool::run(&mut gcc)?;
    Ok(program)
}

/// Lays out the guest's file system.
fn assemble(spec: &Spec, busybox: &Path, program: &Path, modules: &[modules::Module], to: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for folder in ["bin", "sbin", "dev", "etc", "proc", "sys", "tmp", "run", "var", "root", "lib", "lib/modules"] {
        archive.folder(folder);
    }
    archive.character("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, &std::fs::read(busybox).at(busybox)?);
    archive.symlink("init", "/bin/busybox");
    for applet in APPLETS {
        archive.symlink(&format!("bin/{applet}"), "/bin/busybox");
    }
    archive.hard_links(ROLES, &std::fs::read(program).at(program)?);
    archive.file("etc/known.txt", 0o644, known_text().as_bytes());
    archive.file("etc/hostname", 0o644, format!("{}\n", spec.hostname).as_bytes());
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\nusers:x:100:\nworker:x:1000:\n");
    for (name, text) in SOURCES {
        match *name {
            "rcS" => archive.file("etc/rcS", 0o755, text.as_bytes()),
            "inittab" => archive.file("etc/inittab", 0o644, text.as_bytes()),
            _ => {}
        }
    }
    let mut list = String::new();
    for module in modules {
        archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, &module.bytes);
        list.push_str(&module.name);
        list.push_str(".ko\n");
    }
    archive.file("etc/modules", 0o644, list.as_bytes());
    archive.write(to)
}

//! A 64-bit Arm machine with a packaged kernel: nothing but a shell script runs in it.
//!
//! Owns: kernel, busybox and script as the files that QEMU starts. Must not know: the machine's command line, what the script is for.
//! Keeps: the kernel is fetched once and shared; the first file system is small and made anew for each script.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result, WithPath};
use crate::guests::Guests;
use crate::initramfs::Archive;

/// As Debian names the architecture.
const ARCH: &str = "arm64";
/// The kernel for virtual machines: little is left out that a machine of QEMU's has, and it is up in seconds.
const METAPACKAGE: &str = "linux-image-cloud-arm64";
const SERIES: &str = "6.1";
/// Runs before the script: file systems, and busybox under the names that a script uses.
const INIT: &str = "#!/bin/busybox sh\n/bin/busybox mount -t proc proc /proc\n/bin/busybox mount -t sysfs sys /sys\n\
                    /bin/busybox --install -s /bin\nPATH=/bin\n";

/// What QEMU needs to start the machine.
#[derive(Debug, Clone)]
pub struct ArmBoot {
    /// The kernel, for `-kernel`.
    pub kernel: PathBuf,
    /// The first file system, for `-initrd`.
    pub initrd: PathBuf,
}

impl ArmBoot {
    /// What `-append` has to say: the console is the first serial port, a kernel that stumbles ends the machine.
    pub const COMMAND_LINE: &str = "console=ttyAMA0 loglevel=4 panic=-1 oops=panic";
}

impl Guests {
    /// A machine whose first process is this shell script, which must not end; its files are put into `folder`.
    ///
    /// # Errors
    /// The packages cannot be had, or are not laid out as they used to be.
    pub fn arm(&self, script: &str, folder: &Path) -> Result<ArmBoot> {
        self.with_packages(|packages| {
            let (kernel, busybox) = (folder.join("kernel"), folder.join("busybox"));
            packages.unpack(&packages.kernel_of(METAPACKAGE, SERIES, ARCH)?, &kernel)?;
            packages.unpack(&packages.stable_of("busybox-static", ARCH)?, &busybox)?;
            let boot = ArmBoot { kernel: folder.join("vmlinuz"), initrd: folder.join("initramfs.cpio") };
            let images = kernel.join("boot");
            let named =
                |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz-"));
            let packed = std::fs::read_dir(&images).at(&images)?.flatten().map(|entry| entry.path()).find(named);
            let packed = packed.ok_or_else(|| Error::MissingFile {
                path: images.join("vmlinuz-*"),
                hint: "the kernel package's layout may have changed".into(),
            })?;
            std::fs::rename(&packed, &boot.kernel).at(packed)?;
            let program = busybox.join("bin/busybox");
            let mut archive = Archive::default();
            for name in ["bin", "dev", "proc", "sys", "tmp"] {
                archive.folder(name);
            }
            archive.character("dev/console", 5, 1);
            archive.file("bin/busybox", 0o755, &std::fs::read(&program).at(&program)?);
            archive.file("init", 0o755, format!("{INIT}{script}\n").as_bytes());
            archive.write(&boot.initrd)?;
            for leftover in [kernel, busybox] {
                std::fs::remove_dir_all(&leftover).at(leftover)?;
            }
            Ok(boot)
        })
    }
}

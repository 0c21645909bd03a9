//! A machine whose memory is in huge pages, of a hugetlbfs that only QEMU has mounted and of a memfd: what is read, in place and by system
//! calls, is what QEMU saves.
//!
//! Huge pages are set aside for the test and given back. Where this machine refuses them, or the mount, the test says so and goes on with
//! the nearest that there is: a memfd of huge pages without the mount, and one of small pages without huge ones.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stderr, reason = "what is not checked here is told to whoever runs the test")]

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{PhysWrite, PhysicalMemoryExt},
};
use memflow_guests::BareMachine;
use memflow_qemu::{AccessKind, Connected, LayoutSource, Options, RunKind, Target, open};
use memflow_tests::Random;

const MIB: u64 = 1 << 20;
const RAM: u64 = 64 * MIB;
const HUGE_PAGE: u64 = 2 * MIB;
const PLACES: [u64; 2] = [4 * MIB, 50 * MIB];
const COUNT: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Huge pages that are set aside, until this is dropped.
struct Reserved {
    before: u64,
}

impl Reserved {
    /// The reason, where there are none to be had.
    fn new(more: u64) -> Result<Self, String> {
        let count = || {
            let text = std::fs::read_to_string(COUNT).map_err(|error| format!("{COUNT}: {error}"))?;
            text.trim().parse::<u64>().map_err(|error| format!("{COUNT}: {error}"))
        };
        let before = count()?;
        let wanted = before + more;
        std::fs::write(COUNT, wanted.to_string()).map_err(|error| format!("{COUNT}: {error}"))?;
        let this = Self { before };
        match count()? {
            found if found >= wanted => Ok(this),
            found => Err(format!("{COUNT}: {found} pages, not {wanted}")),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(COUNT, self.before.to_string()) {
            eprintln!("{COUNT} is not what it was, {}: {error}", self.before);
        }
    }
}

/// A program that is QEMU with a hugetlbfs at `mount`, which nobody else sees; the reason, where it cannot be mounted.
fn with_mount(folder: &Path, mount: &Path) -> Result<PathBuf, String> {
    std::fs::create_dir(mount).unwrap();
    let mounts = format!("mount -t hugetlbfs -o pagesize=2M none '{}'", mount.display());
    let tried = Command::new("unshare").args(["-m", "sh", "-c", &mounts]).output();
    let tried = tried.map_err(|error| format!("unshare: {error}"))?;
    if !tried.status.success() {
        return Err(format!("{mounts}: {}", String::from_utf8_lossy(&tried.stderr).trim()));
    }
    let program = folder.join("qemu-with-huge-pages");
    let script =
        format!("#!/bin/sh\nexec unshare -m sh -c \"{mounts} && exec qemu-system-x86_64 \\\"\\$@\\\"\" sh \"$@\"\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    Ok(program)
}

struct Machine {
    bare: BareMachine,
    name: String,
    pattern: Vec<u8>,
}

impl Machine {
    fn start(name: &str, program: &str, backend: &str, folder: &Path) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let mut random = Random(name.len() as u64);
        let pattern: Vec<u8> = (0..MIB / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        std::fs::write(folder.join("pattern"), &pattern).unwrap();
        let mut arguments = vec!["-S".to_owned(), "-name".to_owned(), name.clone()];
        let plain = format!(
            "-qmp unix:spare.sock,server=on,wait=off -machine q35,memory-backend=ram -m 64M \
             -object {backend},id=ram,size=64M,share=on,prealloc=on"
        );
        arguments.extend(plain.split(' ').map(str::to_owned));
        for place in PLACES {
            arguments.extend(["-device".to_owned(), format!("loader,file=pattern,addr={place:#x},force-raw=on")]);
        }
        let bare = BareMachine::start(program, "qemu-system-x86", &arguments, folder).unwrap();
        Self { bare, name, pattern }
    }

    fn open(&self, change: impl FnOnce(&mut Options)) -> Connected {
        let mut options = Options::default();
        options.timeout = Duration::from_secs(20);
        change(&mut options);
        open(&Target::Name(self.name.clone()), &options).unwrap()
    }

    /// Every byte of RAM is the one that QEMU saves, and what was put there is there.
    fn assert_saved(&mut self, connected: &Connected, what: &str) {
        let ram = connected.layout.run_map(|run| run.kind == RunKind::Ram).unwrap();
        // Parts of the first MiB are ROM, of which a PC shows the RAM behind it when it is told to.
        assert!(ram.total_bytes() >= RAM - MIB, "{what}: {} bytes of RAM", ram.total_bytes());
        for run in ram.runs() {
            let mut bytes = vec![0; run.range.len() as usize];
            connected.memory.read_into(run.range.start(), &mut bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
            let saved = self.bare.save(run.range.start().as_u64(), run.range.len()).unwrap();
            let differs = bytes.iter().zip(&saved).position(|(ours, theirs)| ours != theirs);
            assert_eq!(
                (differs, bytes.len()),
                (None, saved.len()),
                "{what}: {} differs from what QEMU saved",
                run.range
            );
        }
        for place in PLACES {
            let mut bytes = vec![0; self.pattern.len()];
            connected.memory.read_into(PhysAddr::new(place), &mut bytes).unwrap();
            assert!(bytes == self.pattern, "{what}: {place:#x} is not what was put there");
        }
    }

    fn assert_every_way(&mut self, what: &str) {
        for access in [AccessKind::Map, AccessKind::ProcessVm] {
            let opened = self.open(|options| (options.access, options.writable) = (access, true));
            assert_eq!((opened.layout.source, opened.memory.access()), (LayoutSource::Monitor, access));
            self.assert_saved(&opened, &format!("{what}, {access}"));
            // The last bytes of one huge page and the first of the next.
            let place = PhysAddr::new(PLACES[1] - 3);
            opened.memory.write_batch(&mut [PhysWrite::new(place, b"written")]).unwrap();
            assert_eq!(self.bare.save(place.as_u64(), 7).unwrap(), b"written", "{what}, {access}");
            let back = [&[0; 3], &self.pattern[..4]].concat();
            opened.memory.write_batch(&mut [PhysWrite::new(place, &back)]).unwrap();
        }
        assert_eq!(self.open(|_| {}).memory.access(), AccessKind::Map, "{what}: what is taken without being asked for");
        let alone = self.open(|options| options.use_monitors = false);
        assert_eq!(alone.layout.source, LayoutSource::CommandLine, "{what}");
        self.assert_saved(&alone, &format!("{what}, command line"));
    }

    /// How many bytes of the process are mapped in huge pages of a file.
    fn huge_bytes(&self) -> u64 {
        let pid = self.open(|_| {}).guest.pid();
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
        let shared = text
            .lines()
            .filter_map(|line| line.strip_prefix("Shared_Hugetlb:").or(line.strip_prefix("Private_Hugetlb:")));
        let kib = shared.map(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
        kib.sum::<u64>() << 10
    }
}

#[test]
fn huge_pages_are_read_in_place_and_by_system_calls() {
    // Dropped after the machines, which have the pages as long as they live.
    let reserved = Reserved::new(RAM / HUGE_PAGE);
    if let Err(why) = &reserved {
        eprintln!("NOT CHECKED: no huge pages on this machine ({why}); the same with small ones instead");
        let folder = tempfile::tempdir().unwrap();
        let mut small = Machine::start("small", "qemu-system-x86_64", "memory-backend-memfd", folder.path());
        return small.assert_every_way("memfd of small pages");
    }
    {
        let folder = tempfile::tempdir().unwrap();
        let backend = "memory-backend-memfd,hugetlb=on,hugetlbsize=2M";
        let mut memfd = Machine::start("hugememfd", "qemu-system-x86_64", backend, folder.path());
        assert_eq!(memfd.huge_bytes(), RAM);
        memfd.assert_every_way("memfd of huge pages");
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("huge");
    match with_mount(folder.path(), &mount) {
        Ok(program) => {
            let backend = format!("memory-backend-file,mem-path={}", mount.display());
            let mut file = Machine::start("hugetlbfs", program.to_str().unwrap(), &backend, folder.path());
            assert_eq!(file.huge_bytes(), RAM);
            assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 0, "the mount is QEMU's alone");
            file.assert_every_way("hugetlbfs");
        }
        Err(why) => eprintln!("NOT CHECKED: hugetlbfs cannot be mounted here ({why}); a memfd of huge pages was"),
    }
}

//! Guests of libvirt: what QEMU says comes through `virsh`, if the guest is libvirt's, and whatever `virsh` does ends soon.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "one run of this program is read by another")]

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use memflow_core::{PhysicalMemory, memory::RunState};
use memflow_qemu::{LayoutSource, Options, Target, open, parse_maps};

const OF_LIBVIRT: &str = "-uuid 4dea22b3-1d52-4f4c-a1f0-7c2f0e3b8c11 -chardev socket,id=charmonitor,fd=999,server=on,wait=off \
     -mon chardev=charmonitor,id=monitor,mode=control";
/// Speaks as virsh does where its input is no terminal: it echoes what is typed, and ends what it prints itself with no line's end.
const VIRSH: &str = r#"#!/bin/sh
echo "$*" >>"$FAKE/started"
case "$MODE" in
    hang) exec sleep 100 ;;
    refuse) echo "error: failed to connect to the hypervisor" >&2; echo "error: no such file" >&2; exit 1 ;;
    flood) exec yes "nothing that was asked for" ;;
esac
while IFS= read -r line; do
    echo "virsh # $line"
    case "$line" in
        echo*) printf '%s' "${line#echo }" ;;
        *"'info mtree -f'") cat "$FAKE/tree" ;;
        *"'gpa2hva "*) cat "$FAKE/host" ;;
        *"'info registers -a'") printf 'CPU#0\r\nCR3=0000000000001000\r\n' ;;
        *"'info status'") [ "$MODE" = nodomain ] && echo "error: failed to get domain" || printf 'VM status: running\r\n\n' ;;
        *) echo ;;
    esac
done
"#;

/// A process called as QEMU is.
struct Fake {
    child: Child,
    folder: tempfile::TempDir,
}

impl Fake {
    fn start(arguments: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu-system-x86_64");
        std::fs::copy("/bin/sh", &program).unwrap();
        let mut command = Command::new(&program);
        command.args(["-c", "echo ready; read -r line", "sh"]).args(arguments.split_whitespace());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let this = Self { child, folder };
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", this.child.id())).unwrap();
        let heap = parse_maps(&maps).into_iter().find(|map| map.path == "[heap]").expect("a shell has a heap");
        this.write(
            "tree",
            "Root memory region: system\n  0000000000000000-0000000000000fff (prio 0, ram): pc.ram\n\n",
            0o644,
        );
        this.write("host", &format!("Host virtual address for 0x0 (pc.ram) is {:#x}\n", heap.start), 0o644);
        this.write("virsh", VIRSH, 0o755);
        this
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What was passed to each `virsh` that was started.
    fn started(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("started")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Opens the guest in a process of its own whose path begins with this folder, or holds nothing, and returns what it says.
    fn opened(&self, mode: &str, path: &Path) -> String {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again
            .args(["--exact", "opened_elsewhere", "--nocapture"])
            .env("MEMFLOW_FAKE_GUEST", self.child.id().to_string());
        again.env("FAKE", self.folder.path()).env("MODE", mode);
        again.env_remove("LIBVIRT_DEFAULT_URI").env_remove("VIRSH_DEFAULT_CONNECT_URI");
        let rest = if path.as_os_str().is_empty() { String::new() } else { ":/usr/bin:/bin".to_owned() };
        again.env("PATH", format!("{}{rest}", path.display()));
        let run = again.output().unwrap();
        assert!(run.status.success(), "{run:?}");
        String::from_utf8_lossy(&run.stdout).into_owned()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the tests run again, with another search path: it opens a guest and prints what came of it.
#[test]
fn opened_elsewhere() {
    let Ok(pid) = std::env::var("MEMFLOW_FAKE_GUEST") else { return };
    let mut options = Options::default();
    options.timeout = Duration::from_secs(1);
    let started = Instant::now();
    match open(&Target::Pid(pid.parse().unwrap()), &options) {
        Ok(connected) => {
            assert_eq!(connected.layout.source, LayoutSource::Monitor);
            assert_eq!(connected.memory.facts().vcpus.len(), 1);
            println!(
                "opened, {:?}",
                connected.memory.control().unwrap().run_state().map(|state| state == RunState::Running)
            );
        }
        Err(error) => println!("refused, {error}"),
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn virsh_speaks_for_a_guest_of_libvirt() {
    let fake = Fake::start(OF_LIBVIRT);
    let said = fake.opened("", fake.folder.path());
    assert!(said.contains("opened, Ok(true)"), "{said}");
    let started = fake.started();
    assert!(
        !started.is_empty() && started.iter().all(|line| line == "--quiet --connect qemu:///system"),
        "{started:?}"
    );
}

#[test]
fn virsh_is_not_started_for_other_guests() {
    let fake = Fake::start("-uuid 4dea22b3-1d52-4f4c-a1f0-7c2f0e3b8c11 -qmp unix:absent.sock,server=on,wait=off");
    assert!(fake.opened("", fake.folder.path()).contains("refused"));
    assert!(fake.started().is_empty());
}

#[test]
fn virsh_that_hangs_refuses_or_floods_is_given_up() {
    for mode in ["hang", "refuse", "flood"] {
        let fake = Fake::start(OF_LIBVIRT);
        // The next source is asked, and has nothing either: the process has no RAM.
        let said = fake.opened(mode, fake.folder.path());
        assert!(said.contains("refused, layout from command line"), "{mode}: {said}");
        assert_eq!(fake.started().len(), 1, "{mode}");
    }
    let fake = Fake::start(OF_LIBVIRT);
    let said = fake.opened("nodomain", fake.folder.path());
    assert!(said.contains("opened, Err") && said.contains("failed to get domain"), "{said}");
    // No such program at all.
    let said = fake.opened("", Path::new(""));
    assert!(said.contains("refused, layout from command line"), "{said}");
}

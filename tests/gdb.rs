//! A running guest behind QEMU's GDB stub: what is read through it is what the guest's RAM file holds, and the guest runs on.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{Pause, PhysRead, PhysWrite, RunState, VcpuRegisters, X86Registers},
    os::Os,
};
use memflow_gdb::{Address, GdbMemory, Options, Runs, open};
use memflow_guests::{
    Guests, RunningGuest,
    monitor::{RamRun, ram_runs, registers},
};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_tests::built;
use serde_json::json;

/// A guest that is up, with a stub that listens on a socket in its folder.
fn guest(name: &str) -> RunningGuest {
    let guests = Guests::locate().unwrap();
    let mut guest = guests.boot(Guests::spec(name).unwrap()).unwrap();
    assert!(guest.command("procs").unwrap().contains("kthreadd"));
    guest.hmp("gdbserver unix:gdb.sock,server=on,wait=off").unwrap();
    guest
}

fn connect(guest: &RunningGuest, options: &Options) -> GdbMemory {
    let address = Address::Unix(guest.folder().join("gdb.sock"));
    open(&address, options).unwrap().memory
}

fn status(guest: &mut RunningGuest) -> String {
    let status = guest.qmp(&json!({ "execute": "query-status" })).unwrap();
    status.get("status").unwrap().as_str().unwrap().to_owned()
}

/// Where QEMU says that the guest's RAM lies in its file.
fn runs(guest: &mut RunningGuest) -> Vec<RamRun> {
    ram_runs(&guest.hmp("info mtree -f").unwrap()).unwrap()
}

/// Says one packet to the stub, and lets the guest go.
fn raw(folder: &Path, packet: &str) -> String {
    let mut stream = UnixStream::connect(folder.join("gdb.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let sum = |text: &str| text.bytes().fold(0_u8, u8::wrapping_add);
    write!(stream, "+${packet}#{:02x}", sum(packet)).unwrap();
    let mut text = String::new();
    // The stop, an acknowledgement, the answer; each packet has two digits behind its `#`.
    while text.matches('#').count() < 2 || !text.contains('+') || text.len() < text.rfind('#').unwrap() + 3 {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    write!(stream, "+$D#44").unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();
    text
}

#[test]
fn memory_registers_and_state_are_the_guests() {
    let mut guest = guest("amd64-6.12-4level-pti");
    let memory = connect(&guest, &Options::default());
    assert_eq!(status(&mut guest), "running");

    let control = memory.control().unwrap();
    assert_eq!(control.run_state().unwrap(), RunState::Running);
    control.pause().unwrap();
    assert_eq!((control.run_state().unwrap(), status(&mut guest).as_str()), (RunState::Paused, "paused"));
    let expected = registers(&guest.hmp("info registers -a").unwrap()).unwrap();
    let found = control.registers().unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let VcpuRegisters::X86(X86Registers { cr0, cr2, cr3, cr4, efer, rip, rsp, gs_base, kernel_gs_base, .. }) =
            found
        else {
            panic!("{found:?}");
        };
        let pairs =
            [("CR0", cr0), ("CR2", cr2), ("CR3", cr3), ("CR4", cr4), ("EFER", efer), ("RIP", rip), ("RSP", rsp)];
        for (name, value) in pairs {
            assert_eq!(*value, expected.get(name), "{name}");
        }
        // Either is the kernel's, which lies in the upper half.
        assert!(gs_base.max(kernel_gs_base).unwrap() > 1 << 63);
    }

    let ram = std::fs::read(guest.ram_path()).unwrap();
    let runs = runs(&mut guest);
    let held = memory.metadata().runs;
    let mut compared = 0;
    for run in &runs {
        assert!(
            held.find(PhysAddr::new(run.phys)).is_some() && held.find(PhysAddr::new(run.phys + run.len - 1)).is_some()
        );
        for at in (0..run.len).step_by(4 << 20) {
            let len = (run.len - at).min(4 << 20) as usize;
            let mut bytes = vec![0xee; len];
            memory.read_batch(&mut [PhysRead::new(PhysAddr::new(run.phys + at), &mut bytes)]).unwrap();
            let offset = (run.offset + at) as usize;
            assert!(bytes == ram[offset..offset + len], "{:#x}", run.phys + at);
            compared += len;
        }
    }
    assert_eq!(compared as u64, runs.iter().map(|run| run.len).sum::<u64>());
    assert_eq!(status(&mut guest), "paused");
    control.resume().unwrap();
    assert_eq!((control.run_state().unwrap(), status(&mut guest).as_str()), (RunState::Running, "running"));

    // What the monitor stops is not let go, and what it lets go runs on.
    guest.pause().unwrap();
    let mut page = [0; 4096];
    memory.read_batch(&mut [PhysRead::new(PhysAddr::new(0x1000), &mut page)]).unwrap();
    assert_eq!((control.run_state().unwrap(), status(&mut guest).as_str()), (RunState::Paused, "paused"));
    guest.resume().unwrap();
    assert_eq!((control.run_state().unwrap(), status(&mut guest).as_str()), (RunState::Running, "running"));
    memory.read_batch(&mut [PhysRead::new(PhysAddr::new(0x1000), &mut page)]).unwrap();
    assert_eq!(status(&mut guest), "running");

    // Holes and ROM: neither is asked for.
    let mut byte = [0xee];
    let hole = memory.read_batch(&mut [PhysRead::new(PhysAddr::new(0xa_0000), &mut byte)]).unwrap_err();
    assert!(hole.is_not_in_image() && byte == [0xee], "{hole}");
    let rom = memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(0xffff_fff0), &byte)]).unwrap_err();
    assert!(rom.to_string().ends_with("the target is read-only"), "{rom}");

    let memory = Arc::new(memory);
    let pause = Pause::new(memory.clone()).unwrap();
    assert_eq!(status(&mut guest), "paused");
    drop((pause, memory));
    assert_eq!(status(&mut guest), "running");

    // All of one moment: it stands until the memory is dropped.
    let mut options = Options::default();
    options.run = Runs::After;
    let memory = connect(&guest, &options);
    assert_eq!(status(&mut guest), "paused");
    drop(memory);
    assert_eq!(status(&mut guest), "running");

    // Whoever stopped it before lets it go.
    guest.pause().unwrap();
    let opened = open(&Address::Unix(guest.folder().join("gdb.sock")), &Options::default()).unwrap();
    assert_eq!(opened.notes, ["the guest stood before memflow connected, and stays so"]);
    opened.memory.read_batch(&mut [PhysRead::new(PhysAddr::new(0x1000), &mut page)]).unwrap();
    drop(opened);
    assert_eq!(status(&mut guest), "paused");
    guest.resume().unwrap();
    assert!(guest.command("procs").unwrap().contains("kthreadd"));
}

#[test]
fn processes_are_the_guests_and_writes_arrive() {
    let mut guest = guest("amd64-6.1-4level-pti");
    let pid = guest.spawn("newcomer").unwrap();
    let truth = guest.truth().unwrap();
    let memory = Arc::new(connect(&guest, &Options::default()));
    let os = LinuxOs::open(memory.clone(), &LinuxOptions::default()).unwrap();
    // The guest runs on while its memory is read: a list may catch it in the middle of a change, and then says so.
    let found = (0..50).find_map(|_| os.processes().unwrap().into_complete().ok()).unwrap();
    for process in truth.processes().unwrap().iter().filter(|process| !process.name.starts_with("kworker")) {
        let ours = found.iter().find(|found| found.pid == process.pid);
        assert_eq!(ours.map(|ours| (ours.name.as_str(), ours.parent_pid)), Some((process.name.as_str(), process.ppid)));
    }
    assert_eq!(status(&mut guest), "running");

    // The name of a task is a variable of the guest's kernel.
    let image = std::fs::read(guest.ram_path()).unwrap();
    let name = b"newcomer\0";
    let runs = runs(&mut guest);
    let places: Vec<u64> = image
        .windows(name.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == name)
        .filter_map(|(at, _)| {
            let run = runs.iter().find(|run| (run.offset..run.offset + run.len).contains(&(at as u64)))?;
            Some(run.phys + at as u64 - run.offset)
        })
        .collect();
    assert!(!places.is_empty());
    for place in places {
        memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(place), b"renamed!\0")]).unwrap();
    }
    drop((os, memory));
    assert_eq!(status(&mut guest), "running");
    let after = guest.truth().unwrap();
    assert_eq!(after.process(pid).unwrap().name, "renamed!");
}

#[test]
fn command_lists_processes_and_leaves_the_guest_running_however_it_ends() {
    let mut guest = guest("amd64-6.1-4level-pti");
    let pid = guest.spawn("newcomer").unwrap();
    let memflow = &built().memflow;
    let target = format!("gdb:{}", guest.folder().join("gdb.sock").display());

    let listed = Command::new(memflow).args(["ps", &target]).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert!(text.lines().any(|line| line.contains("newcomer") && line.contains(&pid.to_string())), "{text}");
    assert_eq!(status(&mut guest), "running");

    // Killed at any moment of its work, it leaves a guest that runs and a stub that is as it was.
    for wait in [500, 600, 700, 850, 1000] {
        let strings = ["strings", &target, "--phys"];
        let mut child =
            Command::new(memflow).args(strings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        assert!(child.try_wait().unwrap().is_none(), "it was to be still at work after {wait} ms");
        child.kill().unwrap();
        child.wait().unwrap();
        // What was sent is carried out.
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(status(&mut guest), "running", "after {wait} ms");
        assert!(raw(guest.folder(), "qqemu.PhyMemMode").contains("$0#30"), "after {wait} ms");
    }

    // The same over TCP, by port and by host and port.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // QEMU 7.2 does not go from one place to another at once.
    guest.hmp("gdbserver none").unwrap();
    guest.hmp(&format!("gdbserver tcp:127.0.0.1:{port}")).unwrap();
    for target in [format!("gdb:{port}"), format!("gdb:127.0.0.1:port={port}"), format!("gdb:\"127.0.0.1:{port}\"")] {
        let info = Command::new(memflow).args(["info", &target]).output().unwrap();
        let text = String::from_utf8_lossy(&info.stdout);
        assert!(text.contains("QEMU GDB stub") && text.contains("Linux"), "{target}: {info:?}");
    }
    assert_eq!(status(&mut guest), "running");
}

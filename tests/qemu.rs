//! Running guests, opened by name: what is read, written, paused and seen equals what QEMU and the guest themselves say.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory, VirtAddr,
    memory::{Pause, PhysRead, PhysWrite, PhysicalMemoryExt, RunState, VcpuRegisters},
    os::Os,
};
use memflow_guests::{Guests, Live, MATRIX, RunningGuest, Spec, keep_sparse, monitor, piped};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_qemu::{AccessKind, Connected, LayoutSource, Options, Target, discover, find, open};
use memflow_tests::built;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// So much is compared at once.
const PIECE: u64 = 16 * MIB;

fn spec() -> &'static Spec {
    MATRIX.iter().find(|spec| spec.name == "amd64-6.12-4level-pti").unwrap()
}

/// A name that no other test's guest has.
fn named(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn boot(name: &str, arguments: &str) -> RunningGuest {
    Guests::locate().unwrap().boot_live(spec(), &Live::new(name, arguments)).unwrap()
}

fn by_name(name: &str, change: impl FnOnce(&mut Options)) -> Connected {
    let mut options = Options::default();
    options.timeout = Duration::from_secs(20);
    change(&mut options);
    open(&Target::Name(name.to_owned()), &options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The memory equals what QEMU itself writes, byte by byte; what is in no run cannot be read. The guest must be paused.
fn assert_saved(memory: &dyn PhysicalMemory, guest: &mut RunningGuest, start: u64, asked: u64) {
    let runs = memory.metadata().runs;
    let mut compared = 0;
    // In pieces: neither copy is ever there as a whole, on a disk or in memory.
    let end = start + asked;
    for start in (start..end).step_by(PIECE as usize) {
        let len = PIECE.min(end - start);
        let saved = guest.save(start, len).unwrap();
        for run in runs.runs() {
            let piece = PhysRange::new(PhysAddr::new(start), len).unwrap();
            let Some(part) = piece.intersection(&run.range) else { continue };
            let mut bytes = vec![0; part.len() as usize];
            memory.read_into(part.start(), &mut bytes).unwrap();
            let theirs = &saved[(part.start().as_u64() - start) as usize..][..bytes.len()];
            if bytes != theirs {
                let differs = bytes.iter().zip(theirs).position(|(ours, theirs)| ours != theirs).unwrap();
                panic!("{:#x} differs from what QEMU saved", part.start().as_u64() + differs as u64);
            }
            compared += part.len();
        }
    }
    assert!(compared > asked / 2, "only {compared:#x} of {asked:#x} bytes are in runs");
    let mut byte = [0];
    let hole = memory.read_into(PhysAddr::new(0xa_0000), &mut byte).unwrap_err();
    assert!(hole.is_not_in_image(), "{hole}");
}

/// Lines of the agent's list: pid and name.
fn listed_inside(guest: &mut RunningGuest) -> Vec<(u32, String)> {
    let text = guest.command("procs").unwrap();
    let line = |line: &str| {
        let mut words = line.splitn(6, ' ');
        let pid = words.next()?.parse().ok()?;
        Some((pid, words.nth(4)?.to_owned()))
    };
    let mut list: Vec<_> = text.lines().map(|text| line(text).unwrap_or_else(|| panic!("{text}"))).collect();
    list.sort();
    list
}

/// The process list that `list` gives while the guest runs is the one it has itself.
fn assert_processes(guest: &mut RunningGuest, list: impl Fn() -> Vec<(u32, String)>) {
    let mut last = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let before = listed_inside(guest);
        let mut ours = list();
        ours.sort();
        let after = listed_inside(guest);
        if before != after {
            continue;
        }
        // Names of workers say what they work on, or not.
        let same = ours.len() == before.len()
            && ours.iter().zip(&before).all(|(ours, theirs)| {
                let plain = theirs.1.get(..15).unwrap_or(&theirs.1);
                ours.0 == theirs.0 && (ours.1.starts_with(plain) || ours.1.starts_with("kworker/"))
            });
        if same {
            assert!(ours.len() > 30, "{ours:?}");
            return;
        }
        last = (ours, before);
    }
    panic!("memflow and the guest never agreed; at last {:?} and {:?}", last.0, last.1);
}

fn through_library(memory: Arc<dyn PhysicalMemory>) -> impl Fn() -> Vec<(u32, String)> {
    let os = LinuxOs::open(memory, &LinuxOptions::default()).unwrap();
    move || os.processes().unwrap().items.into_iter().map(|process| (process.pid, process.name)).collect()
}

fn through_command(target: String) -> impl Fn() -> Vec<(u32, String)> {
    move || {
        let run = Command::new(&built().memflow).args(["ps", "--json", &target]).output().unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        let document: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        let process = |value: &serde_json::Value| {
            (value["pid"].as_u64().unwrap() as u32, value["name"].as_str().unwrap().to_owned())
        };
        document["processes"].as_array().unwrap().iter().map(process).collect()
    }
}

/// Pause and resume as the guest sees them: while it is paused, its agent does not answer.
fn assert_pauses(memory: &Arc<memflow_qemu::QemuMemory>, guest: &mut RunningGuest) {
    let control = memory.control().unwrap();
    assert_eq!(control.run_state().unwrap(), RunState::Running);
    let pause = Pause::new(memory.clone()).unwrap();
    assert_eq!(control.run_state().unwrap(), RunState::Paused);
    guest.ask("procs").unwrap();
    assert_eq!(guest.answer(Duration::from_secs(2)).unwrap(), None, "a guest that stands still has answered");
    pause.end().unwrap();
    assert_eq!(control.run_state().unwrap(), RunState::Running);
    assert!(guest.answer(Duration::from_secs(120)).unwrap().unwrap().contains("agent"));
}

/// Registers equal those that another client of QEMU is told. The guest must be paused.
fn assert_registers(memory: &memflow_qemu::QemuMemory, guest: &mut RunningGuest) {
    let theirs = monitor::registers(&guest.hmp("info registers -a").unwrap()).unwrap();
    let ours = memory.control().unwrap().registers().unwrap();
    assert_eq!((ours.len(), memory.facts().vcpus.len()), (theirs.len(), theirs.len()));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let VcpuRegisters::X86(ours) = ours else { panic!("{ours:?}") };
        let names = ["CR0", "CR2", "CR3", "CR4", "EFER", "RIP", "RSP"];
        let values = [ours.cr0, ours.cr2, ours.cr3, ours.cr4, ours.efer, ours.rip, ours.rsp];
        for (name, value) in names.into_iter().zip(values) {
            assert_eq!(value, theirs.get(name), "{name}");
        }
        assert!(ours.gs_base.is_some() && ours.idtr_base.unwrap() > 0xffff_8000_0000_0000 && ours.gdtr_base.is_some());
    }
}

/// A process of the guest is renamed by writing to its kernel's memory; the guest itself says that it is.
fn assert_writes(name: &str, access: AccessKind, guest: &mut RunningGuest) {
    let memory = by_name(name, |options| (options.access, options.writable) = (access, true)).memory;
    assert_eq!(memory.access(), access);
    let os = LinuxOs::open(memory.clone(), &LinuxOptions::default()).unwrap();
    let pid = guest.spawn("newcomer").unwrap();
    let task = os.open_pid(pid).unwrap().info().address;
    // The kernel keeps the name in the task itself.
    let mut bytes = vec![0; 8192];
    let partial = memflow_core::MemoryViewExt::read_partial(os.kernel_view(), task, &mut bytes).unwrap();
    assert!(partial.missing() < 4096);
    let at = bytes.windows(9).position(|window| window == b"newcomer\0").expect("the name is in the task");
    let place = os.kernel_space().translate(&*memory, VirtAddr::new(task.as_u64() + at as u64)).unwrap().phys;
    memory.write_batch(&mut [PhysWrite::new(place, b"neighbour\0")]).unwrap();
    let found = listed_inside(guest).into_iter().find(|(listed, _)| *listed == pid).unwrap();
    assert_eq!(found.1, "neighbour", "through {access}");
    guest.command(&format!("kill {pid}")).unwrap();
}

#[test]
fn two_guests_at_once_equal_what_they_say_themselves() {
    let (first, second) = (named("q35"), named("i440fx"));
    // Shared memory, and monitors that are free beside the one that the test itself is connected to.
    let shared = "-machine q35,memory-backend=ram -m 512M -object memory-backend-memfd,id=ram,size=512M,share=on \
                  -uuid 0f7a2c3e-6f0e-4d6f-9d1c-2f6a51b0c001 -qmp unix:spare.sock,server=on,wait=off \
                  -monitor unix:human.sock,server=on,wait=off";
    // Anonymous memory, and no monitor but the one in use.
    let (mut one, mut two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| boot(&first, shared));
        let two = boot(&second, "-machine pc -m 512M");
        (one.join().unwrap(), two)
    });

    let found = discover().unwrap();
    for name in [&first, &second] {
        let guest = found.iter().find(|guest| guest.target() == *name).unwrap();
        assert!(guest.describe().contains(&format!("pid {}", guest.pid())), "{}", guest.describe());
        assert_eq!(find(&Target::Pid(guest.pid())).unwrap().target(), *name);
    }
    let error = find(&Target::Only).unwrap_err().to_string();
    assert!(error.contains(&first) && error.contains(&second), "{error}");
    assert_eq!(find(&"0F7A2C3E-6F0E-4D6F-9D1C-2F6A51B0C001".parse().unwrap()).unwrap().target(), first);
    let socket = one.folder().join("spare.sock").display().to_string();
    assert_eq!(find(&Target::Name(socket)).unwrap().target(), first);

    shared_guest(&first, &mut one);
    anonymous_guest(&second, &mut two);
}

fn shared_guest(name: &str, guest: &mut RunningGuest) {
    let mapped = by_name(name, |_| {});
    assert_eq!((mapped.layout.source, mapped.memory.access()), (LayoutSource::Monitor, AccessKind::Map));
    assert!(mapped.memory.direct_map().is_some());
    assert_eq!(mapped.memory.facts().vcpus.len(), 2);

    // By the human monitor, and without any, it is the same memory.
    let socket = guest.folder().join("human.sock");
    let human = by_name(name, |options| {
        options.monitor = Some(memflow_qemu::MonitorConfig {
            protocol: memflow_qemu::Protocol::Human,
            address: memflow_qemu::MonitorAddress::Unix(socket),
        });
    });
    assert_eq!(human.layout.source, LayoutSource::Monitor, "{:?}", human.notes);
    assert_eq!(human.layout.runs, mapped.layout.runs);
    let alone = by_name(name, |options| options.use_monitors = false);
    assert_eq!(alone.layout.source, LayoutSource::CommandLine);
    assert!(alone.memory.control().is_none());

    assert_processes(guest, through_library(mapped.memory.clone()));
    assert_processes(guest, through_command(format!("qemu:{name}")));
    // Its name is enough where no file has it.
    assert_processes(guest, through_command(name.to_owned()));
    assert_listed_and_dumped(name, guest, &mapped.memory);
    assert_pauses(&mapped.memory, guest);
    for access in [AccessKind::Map, AccessKind::ProcessVm, AccessKind::Mem] {
        assert_writes(name, access, guest);
    }

    let pause = Pause::new(human.memory.clone()).unwrap();
    assert_registers(&mapped.memory, guest);
    assert_saved(&*mapped.memory, guest, 0, 512 * MIB);
    for access in [AccessKind::ProcessVm, AccessKind::Mem] {
        let memory = by_name(name, |options| options.access = access).memory;
        // These reach what is not shared as well: ROM, and the display's memory.
        assert!(memory.metadata().runs.total_bytes() > mapped.memory.metadata().runs.total_bytes());
        assert_saved(&*memory, guest, 0, 64 * MIB);
        assert_saved(&*memory, guest, 448 * MIB, 64 * MIB);
        let rom = memory.metadata().runs.find(PhysAddr::new(0xffff_fff0)).copied().expect("the firmware is there");
        let (mut ours, theirs) =
            (vec![0; rom.range.len() as usize], guest.save(rom.range.start().as_u64(), rom.range.len()).unwrap());
        memory.read_into(rom.range.start(), &mut ours).unwrap();
        assert!(ours == theirs, "ROM differs");
    }
    let alone_runs = alone.memory.metadata().runs;
    assert!(alone_runs.runs().iter().all(|run| mapped.memory.metadata().runs.find(run.range.start()).is_some()));
    assert_saved(&*alone.memory, guest, MIB, 16 * MIB);
    pause.end().unwrap();
}

#[test]
fn guests_of_four_gibibytes_and_two_nodes_are_read_by_name_alone() {
    let (first, second) = (named("wide-pc"), named("wide-q35"));
    // Below the hole lies the first node and half of the second, the other half above it.
    let shared = "-machine pc -m 4G -object memory-backend-file,id=low,size=2G,mem-path=low.img,share=on \
                  -object memory-backend-memfd,id=high,size=2G,share=on -numa node,nodeid=0,cpus=0,memdev=low \
                  -numa node,nodeid=1,cpus=1,memdev=high";
    // Here the border of the nodes lies above the hole, which is larger.
    let anonymous = "-machine q35 -m 4G -object memory-backend-ram,id=low,size=3G -object memory-backend-ram,id=high,size=1G \
                     -numa node,nodeid=0,cpus=0,memdev=low -numa node,nodeid=1,cpus=1,memdev=high \
                     -qmp unix:spare.sock,server=on,wait=off";
    let (mut one, mut two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| boot(&first, shared));
        let two = boot(&second, anonymous);
        (one.join().unwrap(), two)
    });
    // The first has no monitor but the one in use.
    wide_guest(&first, &mut one, (LayoutSource::CommandLine, AccessKind::Map), 3 * GIB);
    wide_guest(&second, &mut two, (LayoutSource::Monitor, AccessKind::ProcessVm), 2 * GIB);
}

/// By name alone, the command lists what the guest itself does while it runs, and both sides of the hole are what QEMU has there.
fn wide_guest(name: &str, guest: &mut RunningGuest, expected: (LayoutSource, AccessKind), hole: u64) {
    assert_processes(guest, through_command(name.to_owned()));
    let connected = by_name(name, |options| options.timeout = Duration::from_secs(2));
    assert_eq!((connected.layout.source, connected.memory.access()), expected, "{:?}", connected.notes);
    assert_processes(guest, through_library(connected.memory.clone()));
    let ram = |start: u64, end: u64| {
        let runs = connected.memory.metadata().runs;
        let range = PhysRange::new(PhysAddr::new(start), end - start).unwrap();
        runs.runs().iter().filter_map(|run| run.range.intersection(&range)).map(|part| part.len()).sum::<u64>()
    };
    let above = 4 * GIB - hole;
    assert_eq!((ram(MIB, hole), ram(4 * GIB, 8 * GIB)), (hole - MIB, above));
    guest.pause().unwrap();
    // The start, each border of a node, both sides of the hole, the end.
    for start in
        [0, 2 * GIB - PIECE / 2, hole - PIECE, 4 * GIB, 4 * GIB + above / 2 - PIECE / 2, 4 * GIB + above - PIECE]
    {
        let len = if start < hole { PIECE.min(hole - start) } else { PIECE };
        assert_saved(&*connected.memory, guest, start, len);
    }
    guest.resume().unwrap();
}

/// The command lists the guest, and a dump of it holds a kernel that stood still; afterwards the guest runs again.
fn assert_listed_and_dumped(name: &str, guest: &mut RunningGuest, memory: &Arc<memflow_qemu::QemuMemory>) {
    let command = |arguments: &[&str]| {
        let run = Command::new(&built().memflow).args(arguments).output().unwrap();
        assert!(run.status.success(), "{arguments:?}: {run:?}");
        run
    };
    let listed: serde_json::Value = serde_json::from_slice(&command(&["targets", "--json"]).stdout).unwrap();
    let listed = listed["targets"].as_array().unwrap();
    let target = listed.iter().find(|target| target["name"] == name).unwrap_or_else(|| panic!("{listed:?}"));
    assert_eq!(target["connector"], "qemu");
    assert!(target["description"].as_str().unwrap().contains("512MiB"), "{target}");

    // Written through a pipe, so that its zeros take no room.
    let file = guest.folder().join("dumped.lime");
    let mut printed = Vec::new();
    let dump = |pipe: &Path| {
        printed = command(&["dump", name, "-o", &pipe.display().to_string(), "--json"]).stdout;
        Ok(())
    };
    piped(guest.folder(), dump, |pipe| keep_sparse(pipe, &file)).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&printed).unwrap();
    assert_eq!(said["live"], false, "it stood still while it was copied: {said}");
    assert_eq!(memory.control().unwrap().run_state().unwrap(), RunState::Running);
    assert!(guest.command("procs").is_ok());
    let dumped = through_command(file.display().to_string())();
    assert!(dumped.len() > 30 && dumped.iter().any(|(pid, _)| *pid == 1), "{dumped:?}");
    std::fs::remove_file(file).unwrap();
}

fn anonymous_guest(name: &str, guest: &mut RunningGuest) {
    // Its only monitor has a client: this test.
    let started = std::time::Instant::now();
    let connected = by_name(name, |options| options.timeout = Duration::from_millis(300));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(
        (connected.layout.source, connected.memory.access()),
        (LayoutSource::CommandLine, AccessKind::ProcessVm)
    );
    assert!(
        connected.notes.iter().any(|note| note.contains("300ms") && note.contains("another client")),
        "{:?}",
        connected.notes
    );

    assert_processes(guest, through_library(connected.memory.clone()));
    assert_processes(guest, through_command(format!("qemu:{name}:timeout=300ms")));
    let before = connected.memory.calls();
    let mut buffers = [[0; 8]; 500];
    let mut ops: Vec<PhysRead<'_>> = buffers
        .iter_mut()
        .enumerate()
        .map(|(index, buffer)| PhysRead::new(PhysAddr::new(0x10_0000 + 0x1008 * index as u64), buffer))
        .collect();
    connected.memory.read_batch(&mut ops).unwrap();
    assert_eq!(connected.memory.calls() - before, 1);

    guest.pause().unwrap();
    assert_saved(&*connected.memory, guest, 0, 512 * MIB);
    let error = open(&Target::Name(name.to_owned()), &map_options()).unwrap_err();
    assert!(error.to_string().contains("share=on"), "{error}");
    guest.resume().unwrap();

    // It ends while it is open: reads fail from then on, and go on failing.
    let _ = guest.ask("exit");
    let gone = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        connected.memory.read_into(PhysAddr::new(0x10_0000), &mut [0; 8]).is_err()
    });
    assert!(gone, "a guest that was switched off can still be read");
    let error = connected.memory.read_into(PhysAddr::new(0x10_0000), &mut [0; 8]).unwrap_err().to_string();
    assert!(error.contains("No such process"), "{error}");
}

fn map_options() -> Options {
    let mut options = Options::default();
    (options.timeout, options.access) = (Duration::from_millis(300), AccessKind::Map);
    options
}

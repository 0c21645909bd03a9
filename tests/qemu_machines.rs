//! Machines of every memory layout, without an operating system: paused from the start, their memory filled by QEMU itself.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    sync::Barrier,
    time::{Duration, Instant},
};

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{MachineKind, PhysWrite, PhysicalMemoryExt, RunState, VcpuRegisters},
};
use memflow_guests::BareMachine;
use memflow_qemu::{
    AccessKind, Connected, LayoutSource, MonitorAddress, MonitorConfig, Options, Protocol, RegisterSource, RunKind,
    Target, open,
};
use memflow_tests::Random;
use serde_json::json;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PATTERN: usize = 1 << 20;

struct Machine {
    bare: BareMachine,
    name: String,
    pattern: Vec<u8>,
    places: Vec<u64>,
    _folder: tempfile::TempDir,
}

/// A paused machine with a pattern in its memory at each of these addresses, and a monitor that is free.
fn machine(name: &str, program: &str, arguments: &str, places: &[u64]) -> Machine {
    machine_without_monitor(name, program, &format!("-qmp unix:spare.sock,server=on,wait=off {arguments}"), places)
}

/// The same, with no other monitors than those among the arguments.
fn machine_without_monitor(name: &str, program: &str, arguments: &str, places: &[u64]) -> Machine {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{name}-{}", std::process::id());
    let mut random = Random(name.len() as u64);
    let pattern: Vec<u8> = (0..PATTERN / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    std::fs::write(folder.path().join("pattern"), &pattern).unwrap();
    let mut all = vec!["-S".to_owned(), "-name".to_owned(), name.clone()];
    all.extend(arguments.split(' ').map(str::to_owned));
    for place in places {
        all.extend(["-device".to_owned(), format!("loader,file=pattern,addr={place:#x},force-raw=on")]);
    }
    let package = if program.ends_with("aarch64") { "qemu-system-arm" } else { "qemu-system-x86" };
    let bare = BareMachine::start(program, package, &all, folder.path()).unwrap();
    Machine { bare, name, pattern, places: places.to_vec(), _folder: folder }
}

impl Machine {
    fn open(&self, change: impl FnOnce(&mut Options)) -> memflow_core::Result<Connected> {
        let mut options = Options::default();
        options.timeout = Duration::from_secs(20);
        change(&mut options);
        open(&Target::Name(self.name.clone()), &options)
    }

    /// The pattern is where it was put, and the bytes around each run's ends are those that QEMU has there.
    fn assert_equal(&mut self, memory: &dyn PhysicalMemory, what: &str) {
        for place in self.places.clone() {
            let mut bytes = vec![0; PATTERN];
            memory.read_into(PhysAddr::new(place), &mut bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(bytes == self.pattern, "{what}: {place:#x} is not what was put there");
        }
        for run in memory.metadata().runs.runs() {
            let len = run.range.len().min(MIB);
            for start in [run.range.start().as_u64(), run.range.last().unwrap().as_u64() - (len - 1)] {
                let mut bytes = vec![0; len as usize];
                memory.read_into(PhysAddr::new(start), &mut bytes).unwrap();
                assert!(bytes == self.bare.save(start, len).unwrap(), "{what}: {} differs from QEMU's", run.range);
            }
            for outside in [run.range.start().as_u64().wrapping_sub(1), run.range.last().unwrap().as_u64() + 1] {
                let outside = PhysAddr::new(outside);
                if memory.metadata().runs.find(outside).is_none() {
                    let error = memory.read_into(outside, &mut [0]).unwrap_err();
                    assert!(error.is_not_in_image(), "{what}: {error}");
                }
            }
        }
    }

    /// Every source of the layout and every way to the memory gives the same bytes.
    fn assert_every_way(&mut self, access: &[AccessKind], command_line: bool) {
        let ram = |connected: &Connected| {
            let map = connected.layout.run_map(|run| run.kind == RunKind::Ram).unwrap();
            map.total_bytes()
        };
        let first = self.open(|_| {}).unwrap();
        assert_eq!(first.layout.source, LayoutSource::Monitor, "{:?}", first.notes);
        assert_eq!(first.memory.access(), access[0], "{:?}", first.notes);
        for kind in access {
            let opened = self.open(|options| (options.access, options.writable) = (*kind, true)).unwrap();
            assert_eq!((opened.memory.access(), ram(&opened)), (*kind, ram(&first)));
            self.assert_equal(&*opened.memory, &format!("access {kind}"));
            let place = PhysAddr::new(self.places[0] + 4096);
            opened.memory.write_batch(&mut [PhysWrite::new(place, b"written")]).unwrap();
            assert_eq!(self.bare.save(place.as_u64(), 7).unwrap(), b"written", "access {kind}");
            let back = self.pattern[4096..4103].to_vec();
            opened.memory.write_batch(&mut [PhysWrite::new(place, &back)]).unwrap();
            let read_only = self.open(|options| options.access = *kind).unwrap();
            assert!(read_only.memory.write_batch(&mut [PhysWrite::new(place, b"x")]).is_err());
        }
        if command_line {
            let alone = self.open(|options| options.use_monitors = false).unwrap();
            assert_eq!(alone.layout.source, LayoutSource::CommandLine);
            self.assert_equal(&*alone.memory, "command line");
        }
        // What was found, given by hand.
        let map = first.layout.run_map(|run| run.kind == RunKind::Ram).unwrap();
        let given = self.open(|options| options.map = Some(map.clone())).unwrap();
        assert_eq!(
            (given.layout.source, given.memory.metadata().runs.total_bytes()),
            (LayoutSource::Given, map.total_bytes())
        );
        self.assert_equal(&*given.memory, "by hand");
    }
}

#[test]
fn nodes_of_file_and_memfd_with_memory_above_the_hole() {
    let arguments = "-machine q35 -m 4G -device VGA -object memory-backend-file,id=low,size=3G,mem-path=low.img,share=on \
        -object memory-backend-memfd,id=high,size=1G,share=on -numa node,nodeid=0,memdev=low -numa node,nodeid=1,memdev=high";
    // Across the border of nodes, which lies above the hole; on both sides of the hole; at the end.
    let places = [MIB, 2 * GIB - MIB, 4 * GIB, 5 * GIB - 0x8_0000, 6 * GIB - MIB];
    let mut machine = machine("nodes", "qemu-system-x86_64", arguments, &places);
    machine.assert_every_way(&[AccessKind::Map, AccessKind::ProcessVm, AccessKind::Mem], true);
    let connected = machine.open(|_| {}).unwrap();
    assert_eq!(connected.memory.facts().machine, Some(MachineKind::X86_64));
    assert_eq!(connected.memory.control().unwrap().run_state().unwrap(), RunState::Paused);

    // What the stub adds to the monitor's registers, and what only the monitor has; a machine that stands stays so.
    let stub = machine.open(|options| options.registers = RegisterSource::Stub).unwrap();
    let VcpuRegisters::X86(both) = stub.memory.facts().vcpus[0] else { panic!("{:?}", stub.memory.facts().vcpus) };
    let VcpuRegisters::X86(printed) = connected.memory.facts().vcpus[0] else { panic!("no registers of x86") };
    assert!(both.kernel_gs_base.is_some() && printed.kernel_gs_base.is_none(), "{both:x?}, {:?}", stub.notes);
    assert_eq!((both.cr0, both.cr3, both.idtr_base), (printed.cr0, printed.cr3, printed.idtr_base));
    assert_eq!(stub.memory.control().unwrap().run_state().unwrap(), RunState::Paused);
}

#[test]
fn stub_opens_in_a_machine_of_another_user() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        // Only the superuser can start one, and read its memory.
        return;
    }
    let machine = machine("runas", "qemu-system-x86_64", "-machine q35 -m 64M -runas nobody", &[MIB]);
    let opened = machine.open(|options| options.registers = RegisterSource::Stub).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", opened.guest.pid())).unwrap();
    assert!(status.lines().any(|line| line.starts_with("Uid:") && !line.contains("\t0")), "{status}");
    let VcpuRegisters::X86(vcpu) = opened.memory.facts().vcpus[0] else { panic!("no registers of x86") };
    assert!(vcpu.kernel_gs_base.is_some(), "{:?}", opened.notes);
}

#[test]
fn i440fx_with_memory_above_the_hole_and_a_file_behind_it() {
    let arguments =
        "-machine pc,memory-backend=ram -m 4G -object memory-backend-file,id=ram,size=4G,mem-path=ram.img,share=on";
    let mut machine = machine("file", "qemu-system-x86_64", arguments, &[MIB, 3 * GIB - MIB, 4 * GIB]);
    machine.assert_every_way(&[AccessKind::Map, AccessKind::ProcessVm], true);
}

#[test]
fn anonymous_nodes_of_one_size_need_a_monitor() {
    let arguments = "-machine q35 -m 512M -object memory-backend-ram,id=a,size=256M -object memory-backend-ram,id=b,size=256M \
        -numa node,memdev=a -numa node,memdev=b";
    let mut machine = machine("twins", "qemu-system-x86_64", arguments, &[MIB, 256 * MIB - 0x8_0000, 511 * MIB]);
    machine.assert_every_way(&[AccessKind::ProcessVm, AccessKind::Mem], false);
    let error = machine.open(|options| options.use_monitors = false).unwrap_err().to_string();
    assert!(
        error.contains("memory backend a") && error.contains("map=") && error.contains("one mapping of 256MiB"),
        "{error}"
    );
}

#[test]
fn memory_that_is_plugged_later_is_found_by_the_next_open() {
    let mut machine = machine("plug", "qemu-system-x86_64", "-machine q35 -m 256M,slots=2,maxmem=1G", &[MIB]);
    let before = machine.open(|_| {}).unwrap();
    let bare = &mut machine.bare;
    bare.qmp("object-add", json!({ "qom-type": "memory-backend-ram", "id": "more", "size": 128 * MIB })).unwrap();
    bare.qmp("device_add", json!({ "driver": "pc-dimm", "id": "dimm", "memdev": "more" })).unwrap();
    let after = machine.open(|_| {}).unwrap();
    let dimm = after.layout.runs.iter().find(|run| run.region == "more").unwrap();
    assert_eq!((dimm.range.len(), dimm.kind), (128 * MIB, RunKind::Ram));
    after.memory.read_into(dimm.range.start(), &mut [0; 64]).unwrap();
    assert!(before.memory.read_into(dimm.range.start(), &mut [0; 64]).unwrap_err().is_not_in_image());
    // Without the monitor its address is not known, and that is said.
    let alone = machine.open(|options| options.use_monitors = false).unwrap();
    assert!(alone.memory.metadata().runs.find(dimm.range.start()).is_none());
    machine.assert_equal(&*after.memory, "with a device plugged");
}

#[test]
fn arm_machine_with_its_memory_from_one_gibibyte_on() {
    let arguments =
        "-machine virt,memory-backend=ram -cpu max -smp 2 -m 5G -object memory-backend-memfd,id=ram,size=5G,share=on";
    let mut arm = machine("arm", "qemu-system-aarch64", arguments, &[GIB + 2 * MIB, 4 * GIB - 0x8_0000, 6 * GIB - MIB]);
    arm.assert_every_way(&[AccessKind::Map, AccessKind::ProcessVm], true);
    let connected = arm.open(|_| {}).unwrap();
    assert_eq!(connected.memory.facts().machine, Some(MachineKind::AArch64));
    let [VcpuRegisters::AArch64(first), _] = connected.memory.facts().vcpus[..] else { panic!("two vCPUs") };
    assert!(first.pc.is_some() && first.pstate.is_some() && first.ttbr1_el1.is_none());

    let control = connected.memory.control().unwrap();
    control.resume().unwrap();
    assert_eq!(control.run_state().unwrap(), RunState::Running);
    control.pause().unwrap();

    let mut plain = machine("armanon", "qemu-system-aarch64", "-machine virt -cpu max -m 512M", &[GIB + 2 * MIB]);
    plain.assert_every_way(&[AccessKind::ProcessVm, AccessKind::Mem], true);
}

/// Ports that nobody listens on.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A client that a monitor talks to, so that it answers nobody else.
fn client(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    stream
}

#[test]
fn monitors_on_tcp_answer_also_when_another_client_is_on_the_first() {
    let [plain, device, human] = free_ports();
    let arguments = format!(
        "-machine q35 -m 128M -object memory-backend-ram,id=a,size=64M -object memory-backend-ram,id=b,size=64M \
         -numa node,memdev=a -numa node,memdev=b -qmp tcp:127.0.0.1:{plain},server,nowait \
         -chardev socket,id=mon1,host=127.0.0.1,port={device},server=on,wait=off -mon chardev=mon1,mode=control \
         -monitor tcp:127.0.0.1:{human},server,nowait"
    );
    let mut machine = machine_without_monitor("tcp", "qemu-system-x86_64", &arguments, &[MIB, 100 * MIB]);
    let open = |machine: &Machine| machine.open(|options| options.timeout = Duration::from_millis(1500));
    let state = |connected: &Connected| connected.memory.control().unwrap().run_state().unwrap();

    // Two nodes of one size: without a monitor's word nobody knows which is which.
    let free = open(&machine).unwrap();
    assert_eq!((free.layout.source, free.notes.len()), (LayoutSource::Monitor, 0), "{:?}", free.notes);
    assert_eq!((free.memory.facts().vcpus.len(), state(&free)), (1, RunState::Paused));
    machine.assert_equal(&*free.memory, "over TCP");

    // One after the other is taken: the next one is asked, in the order -qmp, -monitor, -mon.
    let mut clients = Vec::new();
    for (taken, next) in [(plain, "HMP"), (human, "QMP")] {
        clients.push(client(taken));
        let behind = open(&machine).unwrap();
        assert_eq!((behind.layout.source, behind.layout.runs.len()), (LayoutSource::Monitor, free.layout.runs.len()));
        let note = behind.notes.iter().find(|note| note.contains(&format!("127.0.0.1:{taken}")));
        assert!(
            note.is_some_and(|note| note.contains("1.5s") && note.contains("another client")),
            "{:?}",
            behind.notes
        );
        assert_eq!((behind.memory.facts().vcpus.len(), state(&behind)), (1, RunState::Paused), "next is {next}");
        machine.assert_equal(&*behind.memory, "behind another client");
    }
    // What was opened before asks another one as well.
    assert_eq!(state(&free), RunState::Paused);

    // All of them, and the one of this test: nothing is left, soon, and the error says what was tried.
    clients.push(client(device));
    let started = Instant::now();
    let error = open(&machine).unwrap_err().to_string();
    assert!(error.contains("memory backend a") && error.contains("map="), "{error}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    free.memory.read_into(PhysAddr::new(MIB), &mut [0; 64]).unwrap();

    drop(clients);
    let again = open(&machine).unwrap();
    assert_eq!((again.layout.source, state(&again)), (LayoutSource::Monitor, RunState::Paused));
    // One that is named is the only one that is asked.
    for (protocol, port) in [(Protocol::Human, human), (Protocol::Qmp, device)] {
        let address = MonitorAddress::Tcp(format!("127.0.0.1:{port}"));
        let named = machine.open(|options| options.monitor = Some(MonitorConfig { protocol, address })).unwrap();
        assert_eq!((named.layout.source, named.notes.len()), (LayoutSource::Monitor, 0), "{:?}", named.notes);
        machine.assert_equal(&*named.memory, "by a monitor that was named");
    }
}

#[test]
fn machine_that_dies_is_an_error_for_system_calls_and_its_last_state_in_place() {
    let arguments = "-machine q35,memory-backend=ram -m 256M -object memory-backend-memfd,id=ram,size=256M,share=on";
    let mut machine = machine("mortal", "qemu-system-x86_64", arguments, &[MIB]);
    let open = |access| machine.open(|options| (options.access, options.writable) = (access, true)).unwrap().memory;
    let (mapped, called, file) = (open(AccessKind::Map), open(AccessKind::ProcessVm), open(AccessKind::Mem));
    let mut bytes = vec![0; PATTERN];
    // It dies in the middle of reads that are as large as its memory.
    let (ready, readers) = (Barrier::new(3), [called.clone(), file.clone()]);
    std::thread::scope(|scope| {
        let reading = readers.map(|memory| {
            let ready = &ready;
            scope.spawn(move || {
                let mut bytes = vec![0; 128 << 20];
                memory.read_into(PhysAddr::new(MIB), &mut bytes).unwrap();
                ready.wait();
                let started = Instant::now();
                while started.elapsed() < Duration::from_secs(60) {
                    if let Err(error) = memory.read_into(PhysAddr::new(MIB), &mut bytes) {
                        return (error.to_string(), bytes);
                    }
                }
                panic!("a machine that died is read on and on");
            })
        });
        ready.wait();
        std::thread::sleep(Duration::from_millis(30));
        machine.bare.kill();
        for reader in reading {
            let (error, bytes) = reader.join().unwrap();
            assert!(error.contains("No such process") || error.contains("Bad address"), "{error}");
            assert!(bytes[..PATTERN] == machine.pattern, "what was read before stays");
        }
    });
    mapped.read_into(PhysAddr::new(MIB), &mut bytes).unwrap();
    assert!(bytes == machine.pattern, "mapped memory stays what it was");
    for memory in [called, file] {
        for _ in 0..2 {
            let error = memory.read_into(PhysAddr::new(MIB), &mut bytes).unwrap_err().to_string();
            assert!(error.contains("No such process"), "{error}");
            let error = memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(MIB), b"x")]).unwrap_err().to_string();
            assert!(error.contains("No such process"), "{error}");
        }
        assert!(memory.control().unwrap().run_state().is_err());
    }
    assert!(machine.open(|_| {}).unwrap_err().is_not_found());
}

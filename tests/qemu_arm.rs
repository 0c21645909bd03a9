//! A 64-bit Arm machine that runs a packaged kernel: what is read, written and paused equals what QEMU and the guest say.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{AArch64Registers, MachineKind, Pause, PhysWrite, PhysicalMemoryExt, RunState, VcpuRegisters},
};
use memflow_guests::{ArmBoot, BareMachine, Guests};
use memflow_qemu::{AccessKind, Connected, LayoutSource, Options, RegisterSource, Target, open};
use serde_json::json;

const GIB: u64 = 1 << 30;
const RAM: u64 = 256 << 20;
/// What the guest writes to its console, over and over: how often it has, and the text that it holds.
const SCRIPT: &str = "a=memflow; echo \"$a-marks-this-text-0123456789\" >/tmp/mark\n\
    i=0\nwhile :; do i=$((i+1)); echo \"tick $i $(cat /tmp/mark)\"; usleep 100000; done";
const MARK: &[u8] = b"memflow-marks-this-text-0123456789";
const CHANGED: &[u8] = b"changed-";

struct Guest {
    bare: BareMachine,
    name: String,
    folder: tempfile::TempDir,
}

impl Guest {
    fn boot(name: &str, memory: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let boot = Guests::locate().unwrap().arm(SCRIPT, folder.path()).unwrap();
        let name = format!("{name}-{}", std::process::id());
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut arguments: Vec<String> = ["-name", &name, "-cpu", "max", "-smp", "2"].map(str::to_owned).into();
        arguments.extend(memory.split(' ').map(str::to_owned));
        arguments
            .extend(["-qmp", "unix:spare.sock,server=on,wait=off", "-serial", "file:console.log"].map(str::to_owned));
        arguments.extend(["-kernel".to_owned(), text(&boot.kernel), "-initrd".to_owned(), text(&boot.initrd)]);
        arguments.extend(["-append", ArmBoot::COMMAND_LINE].map(str::to_owned));
        let bare = BareMachine::start("qemu-system-aarch64", "qemu-system-arm", &arguments, folder.path()).unwrap();
        let this = Self { bare, name, folder };
        let started = Instant::now();
        while this.ticks() < 3 {
            assert!(started.elapsed() < Duration::from_secs(240), "it does not boot: {}", this.console());
            std::thread::sleep(Duration::from_millis(100));
        }
        this
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("console.log")).unwrap()).replace('\r', "")
    }

    /// Lines that the guest has written.
    fn lines(&self) -> Vec<String> {
        let text = self.console();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter(|line| line.starts_with("tick ")).map(str::to_owned).collect()
    }

    fn ticks(&self) -> usize {
        self.lines().len()
    }

    /// The guest runs: its counter goes on.
    fn assert_goes_on(&self, what: &str) {
        let (stood, started) = (self.ticks(), Instant::now());
        while self.ticks() < stood + 3 {
            assert!(started.elapsed() < Duration::from_secs(60), "{what}: the guest does not go on");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn open(&self, change: impl FnOnce(&mut Options)) -> Connected {
        let mut options = Options::default();
        options.timeout = Duration::from_secs(20);
        change(&mut options);
        open(&Target::Name(self.name.clone()), &options).unwrap()
    }

    fn monitor(&mut self, command: &str) -> String {
        let answer = self.bare.qmp("human-monitor-command", json!({ "command-line": command })).unwrap();
        answer.as_str().unwrap().replace('\r', "")
    }

    /// Every byte of RAM is the one that QEMU saves. The guest must be paused.
    fn assert_saved(&mut self, memory: &dyn PhysicalMemory, what: &str) {
        let saved = self.bare.save(GIB, RAM).unwrap();
        let mut bytes = vec![0; RAM as usize];
        memory.read_into(PhysAddr::new(GIB), &mut bytes).unwrap();
        let differs = bytes.iter().zip(&saved).position(|(ours, theirs)| ours != theirs);
        assert_eq!(differs.map(|at| GIB + at as u64), None, "{what}: differs from what QEMU saved");
        for outside in [GIB - 1, GIB + RAM] {
            let error = memory.read_into(PhysAddr::new(outside), &mut [0]).unwrap_err();
            assert!(error.is_not_in_image(), "{what}: {error}");
        }
    }
}

/// The words `NAME=VALUE` of each vCPU in what QEMU prints of registers.
fn printed(text: &str) -> Vec<Vec<(&str, u64)>> {
    let mut vcpus: Vec<Vec<(&str, u64)>> = Vec::new();
    for line in text.lines() {
        if line.starts_with("CPU#") {
            vcpus.push(Vec::new());
        }
        let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
        let values = pairs.filter_map(|(name, value)| Some((name, u64::from_str_radix(value, 16).ok()?)));
        vcpus.last_mut().into_iter().for_each(|vcpu| vcpu.extend(values.clone()));
    }
    vcpus
}

#[test]
fn kernel_on_arm_is_read_written_and_paused() {
    let mut guest = Guest::boot(
        "arm-linux",
        "-machine virt,memory-backend=ram -m 256M -object memory-backend-memfd,id=ram,size=256M,share=on",
    );
    let mapped = guest.open(|_| {});
    assert_eq!((mapped.layout.source, mapped.memory.access()), (LayoutSource::Monitor, AccessKind::Map));
    assert_eq!(mapped.memory.facts().machine, Some(MachineKind::AArch64));
    assert_eq!(mapped.memory.facts().vcpus.len(), 2);

    // Paused, as the guest sees it: its counter stands, and goes on afterwards.
    let control = mapped.memory.control().unwrap();
    let pause = Pause::new(mapped.memory.clone()).unwrap();
    let stood = guest.ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((guest.ticks(), control.run_state().unwrap()), (stood, RunState::Paused));

    guest.assert_saved(&*mapped.memory, "map");
    for access in [AccessKind::ProcessVm, AccessKind::Mem] {
        let memory = guest.open(|options| options.access = access).memory;
        assert_eq!(memory.access(), access);
        guest.assert_saved(&*memory, &format!("{access}"));
    }
    let alone = guest.open(|options| options.use_monitors = false);
    assert_eq!(alone.layout.source, LayoutSource::CommandLine);
    guest.assert_saved(&*alone.memory, "command line");

    let text = guest.monitor("info registers -a");
    let theirs = printed(&text);
    let ours = control.registers().unwrap();
    assert_eq!((ours.len(), theirs.len()), (2, 2));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let VcpuRegisters::AArch64(ours) = ours else { panic!("{ours:?}") };
        for (name, value) in [("PC", ours.pc), ("SP", ours.sp), ("PSTATE", ours.pstate)] {
            let found = theirs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            assert!(found.is_some() && found == value, "{name}: {value:x?}, QEMU says {found:x?}");
        }
    }
    pause.end().unwrap();
    guest.assert_goes_on("after a pause");
    for access in [AccessKind::Map, AccessKind::ProcessVm, AccessKind::Mem] {
        assert_written(&guest, access);
    }
}

/// A text of the guest is changed from outside, and the guest reads what was written; then it is put back.
fn assert_written(guest: &Guest, access: AccessKind) {
    let memory = guest.open(|options| (options.access, options.writable) = (access, true)).memory;
    assert_eq!(memory.access(), access);
    let mut bytes = vec![0; RAM as usize];
    memory.read_into(PhysAddr::new(GIB), &mut bytes).unwrap();
    // The page that holds the file; elsewhere it lies in what was written to the console.
    let pages = bytes
        .chunks(4096)
        .enumerate()
        .filter(|(_, page)| page.starts_with(MARK) && page[MARK.len()..].starts_with(b"\n\0"));
    let pages: Vec<u64> = pages.map(|(index, _)| GIB + 4096 * index as u64).collect();
    assert!(!pages.is_empty(), "the guest's file is not found");
    for (text, seen) in [(CHANGED, "changed-marks"), (&MARK[..CHANGED.len()], "memflow-marks")] {
        for page in &pages {
            memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(*page), text)]).unwrap();
        }
        let (before, started) = (guest.ticks(), Instant::now());
        // A line that was begun before the write may still have the old text.
        while !guest.lines()[before..].iter().skip(1).any(|line| line.contains(seen)) {
            assert!(started.elapsed() < Duration::from_secs(60), "access {access}: {:?}", guest.lines().last());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// QEMU's gdb stub at a socket, spoken to without any of memflow's code; whoever connects stops the guest.
struct Stub(UnixStream);

impl Stub {
    fn ask(&mut self, payload: &str) -> String {
        let sum = payload.bytes().fold(0_u8, u8::wrapping_add);
        self.0.write_all(format!("+${payload}#{sum:02x}").as_bytes()).unwrap();
        let mut byte = || {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            byte[0]
        };
        while byte() != b'$' {}
        let mut answer = Vec::new();
        loop {
            match byte() {
                b'#' => break,
                // What follows was escaped.
                b'}' => answer.push(byte() ^ 0x20),
                other => answer.push(other),
            }
        }
        // The checksum: nothing is lost on the way.
        byte();
        byte();
        String::from_utf8(answer).unwrap()
    }

    /// A document, from its pieces.
    fn document(&mut self, name: &str) -> String {
        let mut text = String::new();
        loop {
            let piece = self.ask(&format!("qXfer:features:read:{name}:{:x},7f0", text.len()));
            text.push_str(&piece[1..]);
            if piece.starts_with('l') {
                return text;
            }
        }
    }

    /// A register of a vCPU, counted from one, by the name that the document of system registers has for it.
    fn register(&mut self, document: &str, vcpu: usize, name: &str) -> u64 {
        let found = document.split('<').find(|tag| tag.contains(&format!("name=\"{name}\""))).expect(name);
        let number = found.split("regnum=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(self.ask(&format!("Hg{vcpu:x}")), "OK");
        let digits = self.ask(&format!("p{:x}", number.parse::<u32>().unwrap()));
        u64::from_str_radix(&digits, 16).unwrap().swap_bytes()
    }
}

fn arm_registers(vcpus: &[VcpuRegisters]) -> [AArch64Registers; 2] {
    let [VcpuRegisters::AArch64(first), VcpuRegisters::AArch64(second)] = vcpus else { panic!("{vcpus:?}") };
    [*first, *second]
}

#[test]
fn registers_of_paging_on_arm_come_from_the_stub_and_the_guest_goes_on() {
    let mut guest = Guest::boot("arm-stub", "-machine virt -m 256M");
    let lacking = guest.open(|_| {});
    assert!(arm_registers(&lacking.memory.facts().vcpus).iter().all(|vcpu| vcpu.ttbr1_el1.is_none()));
    assert!(lacking.notes.iter().any(|note| note.contains("registers=stub")), "{:?}", lacking.notes);

    // While it runs, and again; nothing of the stub is left.
    let running = guest.open(|options| options.registers = RegisterSource::Stub);
    assert!(running.notes.iter().all(|note| !note.contains("stub")), "{:?}", running.notes);
    let control = running.memory.control().unwrap();
    let again = control.registers().unwrap();
    for vcpu in arm_registers(&running.memory.facts().vcpus).iter().chain(&arm_registers(&again)) {
        // The MMU is on, and the kernel's half has a root in RAM.
        assert_eq!(vcpu.sctlr_el1.unwrap() & 1, 1, "{vcpu:x?}");
        let root = vcpu.ttbr1_el1.unwrap() & 0xffff_ffff_f000;
        assert!((GIB..GIB + RAM).contains(&root), "{vcpu:x?}");
        assert!(vcpu.pc.is_some() && vcpu.sp.is_some() && vcpu.pstate.is_some(), "{vcpu:x?}");
    }
    assert_eq!(control.run_state().unwrap(), RunState::Running);
    let devices = guest.monitor("info chardev");
    assert!(!devices.contains("gdb: filename="), "{devices}");
    guest.assert_goes_on("after a stub");

    // Paused, they are those that QEMU's stub gives to anybody else, and the guest stays paused.
    control.pause().unwrap();
    let ours = arm_registers(&control.registers().unwrap());
    assert_eq!(control.run_state().unwrap(), RunState::Paused);
    let socket = guest.folder.path().join("own.sock");
    guest.monitor(&format!("gdbserver unix:{},server=on,wait=off", socket.display()));
    let mut stub = Stub(UnixStream::connect(&socket).unwrap());
    stub.0.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(stub.ask("qSupported:xmlRegisters=arm").contains("qXfer:features:read+"));
    assert!(stub.document("target.xml").contains("system-registers.xml"));
    let document = stub.document("system-registers.xml");
    for (index, ours) in ours.iter().enumerate() {
        for (name, value) in [
            ("TTBR0_EL1", ours.ttbr0_el1),
            ("TTBR1_EL1", ours.ttbr1_el1),
            ("TCR_EL1", ours.tcr_el1),
            ("SCTLR", ours.sctlr_el1),
        ] {
            let theirs = stub.register(&document, index + 1, name);
            assert_eq!(value, Some(theirs), "vCPU {index}: {name} is {theirs:#x}, not {value:x?}");
        }
    }

    // Somebody else's stub is left alone, and that is said.
    let refused = guest.open(|options| options.registers = RegisterSource::Stub);
    assert!(refused.notes.iter().any(|note| note.contains("has one already")), "{:?}", refused.notes);
    assert_eq!(arm_registers(&refused.memory.facts().vcpus)[0].pc, ours[0].pc);
    let error = refused.memory.control().unwrap().registers().unwrap_err().to_string();
    assert!(error.contains("own.sock"), "{error}");
    assert_eq!(stub.register(&document, 1, "TCR_EL1"), ours[0].tcr_el1.unwrap());
    guest.monitor("gdbserver none");
    control.resume().unwrap();
    guest.assert_goes_on("after a pause with a stub");
}

//! Monitors that lie, stutter or say nothing, and processes that are no QEMU: each is an error of what it touches, soon.

#![cfg(target_os = "linux")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use memflow_core::{
    Error, PhysAddr, PhysicalMemory, Result,
    memory::{PhysRead, PhysWrite, PhysicalMemoryExt, RunState},
};
use memflow_qemu::{
    AccessKind, Connected, LayoutSource, MonitorAddress, MonitorConfig, Options, Protocol, RegisterSource, Target,
    discover, find, open,
};

const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 8}, "package": ""}, "capabilities": []}}"#;

/// A process that is called as QEMU is, with arguments of QEMU's, and a page of memory at a known place.
struct Fake {
    child: Child,
    name: String,
    folder: tempfile::TempDir,
}

impl Fake {
    /// Starts the process; its name is unique.
    fn start(name: &str, arguments: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("{name}-{}", std::process::id());
        // A shell under QEMU's name that waits until its input ends; what follows are its parameters, as far as it knows.
        let program = folder.path().join("qemu-system-x86_64");
        std::fs::copy("/bin/sh", &program).unwrap();
        let mut command = Command::new(&program);
        command.args(["-c", "echo ready; read -r line", "sh", "-name", &format!("guest={name}")]);
        command.args(arguments.split_whitespace()).current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, name, folder }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Serves each connection to a socket with `answer`, in a thread of its own.
    fn serve(&self, name: &str, answer: impl Fn(UnixStream) + Send + Sync + 'static) {
        let listener = UnixListener::bind(self.socket(name)).unwrap();
        thread::spawn(move || listener.incoming().flatten().for_each(&answer));
    }

    /// First and last address of a readable mapping of the process.
    fn mapping(&self) -> (u64, u64) {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        let map = memflow_qemu::parse_maps(&maps).into_iter().find(|map| map.read && map.write && map.path == "[heap]");
        let map = map.expect("a shell has a heap");
        (map.start, map.end - 1)
    }

    /// Physical memory from address zero on, given by hand: the process' heap.
    fn options(&self) -> Options {
        let (first, last) = self.mapping();
        let mut options = Options::default();
        options.timeout = Duration::from_millis(400);
        options.map = Some(format!("0x0-{:#x}@{first:#x}", last - first).parse().unwrap());
        options
    }

    /// The same, changed.
    fn with(&self, change: impl FnOnce(&mut Options)) -> Options {
        let mut options = self.options();
        change(&mut options);
        options
    }

    fn open(&self, options: &Options) -> Result<Connected> {
        open(&Target::Name(self.name.clone()), options)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A monitor that greets, and answers requests with what `answer` makes of each command line of the human monitor.
fn qmp(stream: UnixStream, answer: impl Fn(&str) -> String) {
    let mut to = stream.try_clone().unwrap();
    let _ = writeln!(to, "{GREETING}");
    for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
        let request: serde_json::Value = serde_json::from_str(&line).unwrap();
        let id = &request["id"];
        let _ = writeln!(to, r#"{{"event": "NIC_RX_FILTER_CHANGED", "data": {{}}}}"#);
        let _ = match request["arguments"]["command-line"].as_str() {
            None => writeln!(to, r#"{{"return": {{}}, "id": {id}}}"#),
            Some(command) => {
                let text = serde_json::Value::from(answer(command));
                writeln!(to, r#"{{"return": {text}, "id": {id}}}"#)
            }
        };
    }
}

/// What a QEMU with its memory in this mapping would answer.
fn truthful(first: u64, last: u64) -> impl Fn(&str) -> String {
    move |command| {
        let len = (last - first) & !0xfff;
        match command {
            "info mtree -f" => format!(
                "FlatView #0\n AS \"memory\", root: system\n Root memory region: system\n  {:016x}-{len:016x} (prio 0, ram): pc.ram KVM\n\n",
                0
            ),
            "info status" => "VM status: running\r\n".to_owned(),
            "info registers -a" => "CPU#0\nCR3=0000000000001000\n".to_owned(),
            _ if command.starts_with("gpa2hva") => format!("Host virtual address for 0x0 (pc.ram) is {first:#x}\r\n"),
            _ => String::new(),
        }
    }
}

const SOCKET: &str = "-qmp unix:qmp.sock,server=on,wait=off";

#[test]
fn truthful_monitor_gives_layout_registers_and_state() {
    let fake = Fake::start("truthful", SOCKET);
    let (first, last) = fake.mapping();
    fake.serve("qmp.sock", move |stream| qmp(stream, truthful(first, last)));
    let connected = fake.open(&fake.with(|options| options.map = None)).unwrap();
    assert_eq!((connected.layout.source, connected.memory.access()), (LayoutSource::Monitor, AccessKind::ProcessVm));
    assert_eq!(connected.memory.facts().vcpus.len(), 1);
    assert_eq!(connected.memory.control().unwrap().run_state().unwrap(), RunState::Running);
    let mut bytes = [0; 64];
    connected.memory.read_into(PhysAddr::new(0), &mut bytes).unwrap();
    // A monitor that says it runs has not paused.
    let error = connected.memory.control().unwrap().pause().unwrap_err().to_string();
    assert!(error.contains("`stop` for this guest"), "{error}");
}

#[test]
fn guest_goes_on_and_the_stub_is_closed_whatever_the_stub_does() {
    // A stub that stops the guest and says nothing, garbage, or hangs up; one that nobody listens behind.
    for answer in [Some(&b""[..]), Some(b"$nonsense#00$#00"), Some(b"+$PacketSize=1000#ff"), None] {
        let fake = Fake::start("stubborn", SOCKET);
        let (first, last) = fake.mapping();
        // The path of the stub that is open, and whether the guest runs.
        let state = Arc::new(Mutex::new((None::<String>, true)));
        let (shared, place) = (state.clone(), Arc::new(Mutex::new(None::<PathBuf>)));
        let seen = place.clone();
        fake.serve("qmp.sock", move |stream| {
            let (shared, seen) = (shared.clone(), seen.clone());
            qmp(stream, move |command| {
                let mut state = shared.lock().unwrap();
                match command {
                    "info chardev" => {
                        let line = |path: &String| format!("gdb: filename=disconnected:unix:{path},server=on\r\n");
                        format!("#chr1: filename=gdb\r\n{}", state.0.as_ref().map(line).unwrap_or_default())
                    }
                    "info status" => format!("VM status: {}\r\n", if state.1 { "running" } else { "paused" }),
                    "cont" => {
                        state.1 = true;
                        String::new()
                    }
                    "gdbserver none" => {
                        state.0 = None;
                        "Disabled gdbserver\r\n".to_owned()
                    }
                    _ => match command.strip_prefix("gdbserver unix:") {
                        Some(device) => {
                            let path = device.split(',').next().unwrap().to_owned();
                            *seen.lock().unwrap() = Some(PathBuf::from(&path));
                            if let Some(answer) = answer {
                                let (listener, shared) = (UnixListener::bind(&path).unwrap(), shared.clone());
                                thread::spawn(move || {
                                    let (mut client, _) = listener.accept().unwrap();
                                    shared.lock().unwrap().1 = false;
                                    let _ = client.write_all(answer);
                                    // Held open until the other side has enough, where there was no answer at all.
                                    let _ = answer.is_empty().then(|| client.read_to_end(&mut Vec::new()));
                                });
                            }
                            state.0 = Some(path);
                            String::new()
                        }
                        None => truthful(first, last)(command),
                    },
                }
            });
        });
        let options = fake.with(|options| (options.map, options.registers) = (None, RegisterSource::Stub));
        let connected = fake.open(&options).unwrap();
        assert_eq!(*state.lock().unwrap(), (None, true), "{:?}", connected.notes);
        let notes = connected.notes.join("; ");
        assert!(notes.contains("registers=stub: ") && notes.contains("GDB stub"), "{notes}");
        // What the monitor said is there all the same; who asks again is told.
        assert_eq!(connected.memory.facts().vcpus.len(), 1);
        let error = connected.memory.control().unwrap().registers().unwrap_err().to_string();
        assert!(error.contains("registers=stub"), "{error}");
        assert_eq!(*state.lock().unwrap(), (None, true), "{error}");
        // Nobody else could have reached the socket, and nothing is left of it.
        let socket = place.lock().unwrap().clone().unwrap();
        assert!(!socket.parent().unwrap().exists(), "{}", socket.display());
    }
}

#[test]
fn stub_of_somebody_else_is_left_alone() {
    let fake = Fake::start("theirs", SOCKET);
    let (first, last) = fake.mapping();
    let commands = Arc::new(Mutex::new(Vec::new()));
    let heard = commands.clone();
    fake.serve("qmp.sock", move |stream| {
        let heard = heard.clone();
        qmp(stream, move |command| {
            heard.lock().unwrap().push(command.to_owned());
            match command {
                "info chardev" => "gdb: filename=disconnected:tcp:0.0.0.0:1234,server=on\r\n".to_owned(),
                _ => truthful(first, last)(command),
            }
        });
    });
    let options = fake.with(|options| (options.map, options.registers) = (None, RegisterSource::Stub));
    let connected = fake.open(&options).unwrap();
    let notes = connected.notes.join("; ");
    assert!(notes.contains("has one already") && notes.contains("0.0.0.0:1234"), "{notes}");
    let commands = commands.lock().unwrap();
    assert!(commands.iter().all(|command| !command.starts_with("gdbserver") && command != "cont"), "{commands:?}");
}

#[test]
fn silence_is_given_up_after_the_time_limit() {
    // Connected and never greeted: a monitor with another client. Bound and never accepted. Nobody there at all.
    let fake = Fake::start(
        "silent",
        "-qmp unix:mute.sock,server=on -qmp unix:full.sock,server=on -qmp unix:absent.sock,server=on -monitor unix:human.sock,server=on",
    );
    fake.serve("mute.sock", |stream| {
        thread::sleep(Duration::from_secs(30));
        drop(stream);
    });
    let _bound = UnixListener::bind(fake.socket("full.sock")).unwrap();
    fake.serve("human.sock", |mut stream| {
        // Drips, so that each read returns but nothing is ever whole.
        while stream.write_all(b"(qem").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let started = Instant::now();
    let connected = fake.open(&fake.options()).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let notes = connected.notes.join("\n");
    assert_eq!(notes.matches("waiting longer than 400ms").count(), 3, "{notes}");
    assert!(notes.contains("absent.sock): connecting: No such file"), "{notes}");
    assert!(connected.memory.control().is_none());
    connected.memory.read_into(PhysAddr::new(0), &mut [0; 64]).unwrap();

    // Without a layout by hand, and no RAM of the right size in the process, there is nothing left, and the error says what to do.
    let error = fake.open(&fake.with(|options| options.map = None)).unwrap_err().to_string();
    assert!(
        error.starts_with("layout from command line and mappings: memory backend pc.ram") && error.contains("map="),
        "{error}"
    );
}

#[test]
fn two_clients_share_a_monitor_by_turns() {
    let fake = Fake::start("turns", SOCKET);
    let (first, last) = fake.mapping();
    // One connection at a time, as QEMU serves them.
    fake.serve("qmp.sock", move |stream| qmp(stream, truthful(first, last)));
    let options = fake.with(|options| options.map = None);
    let connected = fake.open(&options).unwrap();
    // Nothing is held while the guest is open: others get their turn.
    let mut other = UnixStream::connect(fake.socket("qmp.sock")).unwrap();
    let mut greeting = [0; 6];
    other.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"{\"QMP\"");
    let error = connected.memory.control().unwrap().run_state().unwrap_err().to_string();
    assert!(error.contains("another client"), "{error}");
    connected.memory.read_into(PhysAddr::new(0), &mut [0; 8]).unwrap();
    drop(other);
    assert_eq!(connected.memory.control().unwrap().run_state().unwrap(), RunState::Running);
}

#[test]
fn garbage_is_refused_whatever_it_is() {
    let long = "x".repeat(40 << 20);
    let answers: Vec<(&str, String)> = vec![
        ("no JSON", "hello\n".to_owned()),
        ("no greeting", "{}\n".to_owned()),
        ("an end without a word", String::new()),
        ("bytes that are no text", "\u{0}\u{1b}\u{fffd}\n".to_owned()),
        ("a line without end", long),
        ("depth", format!("{}\n", "[".repeat(100_000))),
        ("a greeting and the answer to something else", format!("{GREETING}\n{{\"return\": {{}}, \"id\": 77}}\n")),
        ("a greeting and nothing to return", format!("{GREETING}\n{{\"id\": 1}}\n")),
    ];
    for (what, answer) in answers {
        let fake = Fake::start("garbage", SOCKET);
        fake.serve("qmp.sock", move |mut stream| {
            let _ = stream.write_all(answer.as_bytes());
        });
        let started = Instant::now();
        let options = fake.with(|options| options.timeout = Duration::from_secs(5));
        let connected = fake.open(&options).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(started.elapsed() < Duration::from_secs(12), "{what}");
        assert!(
            connected.notes.iter().any(|note| note.starts_with("monitor (QMP at qmp.sock): ")),
            "{what}: {:?}",
            connected.notes
        );
        assert!(connected.notes.iter().all(|note| note.len() < 500), "{what}");
        assert!(connected.memory.control().is_none(), "{what}");
    }
}

#[test]
fn layouts_that_cannot_be_are_not_used() {
    let view = |lines: &str| format!("FlatView #0\n Root memory region: system\n{lines}\n\n");
    let ram = "  0000000000000000-0000000000000fff (prio 0, ram): pc.ram";
    for (what, tree, host) in [
        ("an address that the process has not mapped", view(ram), "0x10000"),
        ("an address outside of any process", view(ram), "0xfffffffffffff000"),
        ("overlapping ranges", view(&format!("{ram}\n  0000000000000800-0000000000001fff (prio 0, ram): x")), ""),
        ("a range that ends before it starts", view("  0000000000001000-0000000000000000 (prio 0, ram): pc.ram"), ""),
        ("no memory at all", view("  0000000000000000-0000000000000fff (prio 0, i/o): x"), ""),
        ("another view only", "FlatView #0\n Root memory region: io\n".to_owned(), ""),
    ] {
        let fake = Fake::start("impossible", SOCKET);
        let (first, last) = fake.mapping();
        let host = if host.is_empty() { format!("{first:#x}") } else { host.to_owned() };
        fake.serve("qmp.sock", move |stream| {
            let (tree, host) = (tree.clone(), host.clone());
            qmp(stream, move |command| match command {
                "info mtree -f" => tree.clone(),
                _ if command.starts_with("gpa2hva") => format!("Host virtual address for 0x0 (pc.ram) is {host}"),
                _ => truthful(first, last)(command),
            });
        });
        let error = fake.open(&fake.with(|options| options.map = None)).unwrap_err().to_string();
        assert!(error.starts_with("layout from command line"), "{what}: {error}");
    }
}

#[test]
fn late_answer_is_not_taken_for_the_next_one() {
    let fake = Fake::start("late", SOCKET);
    let (first, last) = fake.mapping();
    fake.serve("qmp.sock", move |stream| {
        qmp(stream, move |command| {
            if command.starts_with("gpa2hva") {
                thread::sleep(Duration::from_millis(600));
            }
            truthful(first, last)(command)
        });
    });
    let error = fake.open(&fake.with(|options| options.map = None)).unwrap_err();
    assert!(matches!(error, Error::Context { .. }), "{error}");
    // With time enough, the same monitor will do.
    let patient = fake.with(|options| {
        options.map = None;
        options.timeout = Duration::from_secs(10)
    });
    assert_eq!(fake.open(&patient).unwrap().layout.source, LayoutSource::Monitor);
}

#[test]
fn process_that_ends_fails_every_operation_from_then_on() {
    for access in [AccessKind::ProcessVm, AccessKind::Mem] {
        let mut fake = Fake::start("ending", "");
        let memory = fake.open(&fake.with(|options| options.access = access)).unwrap().memory;
        let reader = memory.clone();
        let reading = thread::spawn(move || {
            let mut bytes = vec![0; 4096];
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(20) {
                if let Err(error) = reader.read_into(PhysAddr::new(0), &mut bytes) {
                    return error.to_string();
                }
            }
            "never".to_owned()
        });
        thread::sleep(Duration::from_millis(50));
        fake.child.kill().unwrap();
        let error = reading.join().unwrap();
        assert!(error.contains("No such process"), "{access}: {error}");
        // Also when the pid is free for somebody else.
        fake.child.wait().unwrap();
        let (mut one, mut two) = ([0; 8], [0; 8]);
        let mut ops = [PhysRead::new(PhysAddr::new(0), &mut one), PhysRead::new(PhysAddr::new(8), &mut two)];
        assert!(memory.read_batch(&mut ops).is_err());
        assert!(ops.iter().all(|op| !op.outcome.is_done()), "{access}");
    }
}

/// This test program again, for one test, inside of namespaces of its own.
const APART: &str = "MEMFLOW_QEMU_APART";

#[test]
fn process_whose_pid_was_given_to_another_is_never_read() {
    if std::env::var_os(APART).is_none() {
        // In a namespace of its own, nobody else takes the next pid.
        let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let mut again = Command::new("unshare");
        again.args(user).args(["--pid", "--fork", "--mount-proc"]).arg(std::env::current_exe().unwrap());
        again.args(["--exact", "process_whose_pid_was_given_to_another_is_never_read", "--nocapture"]).env(APART, "1");
        let run = again.output().unwrap();
        let text = String::from_utf8_lossy(&run.stderr);
        if !user.is_empty() && text.starts_with("unshare:") {
            // Some systems let nobody but root have namespaces; a pid cannot be chosen there.
            assert!(
                text.contains("not permitted") || text.contains("denied") || text.contains("No space left"),
                "{text}"
            );
            return;
        }
        assert!(run.status.success(), "{}{text}", String::from_utf8_lossy(&run.stdout));
        return;
    }
    for access in [AccessKind::ProcessVm, AccessKind::Mem] {
        let mut first = Fake::start("reused", SOCKET);
        let (start, last) = first.mapping();
        first.serve("qmp.sock", move |stream| qmp(stream, truthful(start, last)));
        let options = first.with(|options| (options.access, options.writable) = (access, true));
        let memory = first.open(&options).unwrap().memory;
        memory.read_into(PhysAddr::new(0), &mut [0; 64]).unwrap();
        let pid = first.child.id();
        first.child.kill().unwrap();
        first.child.wait().unwrap();

        // Another one of the same program and name, with the same pid, and the same page of it readable.
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let second = Fake::start("reused", SOCKET);
        assert_eq!(second.child.id(), pid);
        let fresh = second.open(&second.with(|options| options.access = access)).unwrap().memory;
        fresh.read_into(PhysAddr::new(0), &mut [0; 64]).unwrap();
        let mut bytes = [0xee; 64];
        let error = memory.read_into(PhysAddr::new(0), &mut bytes).unwrap_err().to_string();
        assert!(error.contains("No such process") && bytes == [0xee; 64], "{access}: {error}");
        assert!(memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(0), b"x")]).is_err(), "{access}");
        // Its monitor is at another place, which is reached through the first process, and that is gone.
        assert!(memory.control().unwrap().run_state().is_err(), "{access}");
    }
}

#[test]
fn missing_permission_is_named() {
    // A process of somebody else, and this test without the right to look into it.
    let Ok(id) = std::env::var("MEMFLOW_QEMU_WITHOUT_RIGHTS") else {
        if rustix::process::geteuid().is_root() {
            let fake = Fake::start("foreign", "");
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", "missing_permission_is_named", "--nocapture"]).uid(65534).gid(65534);
            again.env("MEMFLOW_QEMU_WITHOUT_RIGHTS", fake.child.id().to_string());
            let run = again.output().unwrap();
            assert!(
                run.status.success(),
                "{}{}",
                String::from_utf8_lossy(&run.stdout),
                String::from_utf8_lossy(&run.stderr)
            );
        } else if rustix::fs::stat("/proc/1").unwrap().st_uid != rustix::process::geteuid().as_raw() {
            // Without being root, there are others' processes already; the first one is the system's.
            assert_permission_is_named(1);
        }
        return;
    };
    assert_permission_is_named(id.parse().unwrap());
}

fn assert_permission_is_named(pid: u32) {
    let guest = find(&Target::Pid(pid)).unwrap();
    assert_eq!(guest.pid(), pid);
    let error = open(&Target::Pid(pid), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("CAP_SYS_PTRACE") && error.contains("kernel.yama.ptrace_scope"), "{error}");
}

#[test]
fn guests_of_one_name_are_listed_instead_of_one_chosen() {
    let one = Fake::start("same", "-m 1G -machine q35");
    let two = Fake::start("same", "-m 2G -uuid 0f7a2c3e-6f0e-4d6f-9d1c-2f6a51b0c00f");
    assert_eq!(one.name, two.name);
    let error = find(&Target::Name(one.name.clone())).unwrap_err().to_string();
    for said in [one.child.id().to_string(), two.child.id().to_string(), "1GiB".into(), "2GiB".into(), "q35".into()] {
        assert!(error.contains(&said), "{error}");
    }
    assert_eq!(find(&Target::Pid(two.child.id())).unwrap().pid(), two.child.id());
    assert_eq!(discover().unwrap().iter().filter(|guest| guest.target() == one.name).count(), 2);
    let error = find(&Target::Name("nobody".into())).unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains(&one.name), "{error}");
}

#[test]
fn monitor_can_be_named_instead_of_those_of_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than the address of a socket may be.
    let long = folder.path().join("f".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let path: &Path = &long.join("named.sock");
    let fake = Fake::start("named", SOCKET);
    let (first, last) = fake.mapping();
    let listener = {
        let here = std::fs::File::open(&long).unwrap();
        UnixListener::bind(format!("/proc/self/fd/{}/named.sock", std::os::fd::AsRawFd::as_raw_fd(&here))).unwrap()
    };
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| qmp(stream, truthful(first, last))));
    let monitor = MonitorConfig { protocol: Protocol::Qmp, address: MonitorAddress::Unix(path.to_owned()) };
    let connected = fake
        .open(&fake.with(|options| {
            options.map = None;
            options.monitor = Some(monitor)
        }))
        .unwrap();
    assert_eq!(connected.layout.source, LayoutSource::Monitor);
}

#[test]
fn monitor_that_was_passed_as_a_descriptor_is_found_by_the_path_it_is_bound_to() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("passed.sock")).unwrap();
    // As libvirt does: the socket is made before, and QEMU inherits it.
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&listener);
    let arguments =
        format!("-chardev socket,id=charmonitor,fd={number},server=on -mon chardev=charmonitor,mode=control");
    let fake = Fake::start("passed", &arguments);
    let (first, last) = fake.mapping();
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| qmp(stream, truthful(first, last))));
    let connected = fake.open(&fake.with(|options| options.map = None)).unwrap();
    assert_eq!(connected.layout.source, LayoutSource::Monitor, "{:?}", connected.notes);
}

//! Texts as kernels print them, and what they mean.

use super::*;

struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("memflow-guests-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn record(stream: &mut Vec<u8>, kind: char, path: &str, body: &[u8]) {
    stream.extend(format!("{kind} {} {path}\n", body.len()).bytes());
    stream.extend(body);
}

const STAT: &str =
    "612 (a (b) c) S 1 612 612 0 -1 4194560 93 0 0 0 0 0 0 0 20 0 6 0 345 8523776 400 18446744073709551615 1 1";
const STATUS: &str = "Name:\ta (b) c\nState:\tS (sleeping)\nPPid:\t1\nUid:\t1000\t1001\t1000\t1000\nGid:\t100\t100\t100\t100\nThreads:\t6\n";

fn stream() -> Vec<u8> {
    let mut stream = Vec::new();
    record(&mut stream, 'F', "procs", b"612 1 S 1000 6 a (b) c\n2 0 S 0 1 kthreadd\n");
    record(&mut stream, 'F', "agent", b"99");
    for (name, body) in
        [("stat", STAT.as_bytes()), ("status", STATUS.as_bytes()), ("comm", b"a (b) c\n"), ("cmdline", b"x\0\0y z\0")]
    {
        record(&mut stream, 'F', &format!("proc/612/{name}"), body);
    }
    record(&mut stream, 'L', "proc/612/exe", b"/bin/x");
    record(&mut stream, 'F', "proc/612/environ", b"A=1\0SECRET=\nnewline\0");
    let kthread = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 0 0 0 0";
    for (name, body) in
        [("stat", kthread.as_slice()), ("status", b"Uid:\t0\nGid:\t0\n"), ("comm", b"kthreadd\n"), ("cmdline", b"")]
    {
        record(&mut stream, 'F', &format!("proc/2/{name}"), body);
    }
    stream.extend(b"E 2 proc/2/exe\n");
    stream
}

#[test]
fn a_stream_becomes_a_folder_and_the_folder_processes() {
    let folder = Folder::new("stream");
    unpack(&stream(), &folder.0).unwrap();
    let truth = Truth::load(&folder.0).unwrap();
    assert_eq!(truth.agent_pid().unwrap(), 99);
    let processes = truth.processes().unwrap();
    assert_eq!(processes.iter().map(|process| process.pid).collect::<Vec<_>>(), [2, 612]);
    let (kernel, user) = (&processes[0], &processes[1]);
    assert!(kernel.kernel_thread && kernel.exe.is_none() && kernel.arguments().is_empty());
    assert_eq!(
        (user.ppid, user.uid, user.gid, user.state, user.threads, user.start_ticks),
        (1, 1000, 100, 'S', 6, 345)
    );
    assert_eq!(user.name, "a (b) c");
    assert_eq!(user.arguments(), ["x", "", "y z"]);
    assert_eq!(user.exe.as_deref(), Some("/bin/x"));
    assert!(!user.kernel_thread);
    assert_eq!(truth.environ(612).unwrap(), ["A=1", "SECRET=\nnewline"]);
    assert_eq!(truth.text("errors.txt").unwrap(), "2 proc/2/exe\n");
    assert!(truth.process_named("nobody").is_err());
}

#[test]
fn a_cut_stream_and_a_path_outside_are_errors() {
    let folder = Folder::new("cut");
    let whole = stream();
    assert!(unpack(&whole[..whole.len() - 20], &folder.0).is_err());
    assert!(unpack(b"F 1 ../x\ny", &folder.0).is_err());
    assert!(unpack(b"F 1 /x\ny", &folder.0).is_err());
    assert!(unpack(b"Q 1 x\ny", &folder.0).is_err());
    assert!(Truth::load(folder.0.join("nothing")).is_err());
}

#[test]
fn maps_keep_names_with_spaces_and_deleted_files() {
    let text = "00400000-00401000 r--p 00001000 00:01 34                         /bin/a b (deleted)\n\
                7ffd00000000-7ffd00021000 rw-s 00000000 00:00 0 \n\
                ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";
    let maps = process::parse_maps(text).unwrap();
    assert_eq!(maps[0].name, "/bin/a b (deleted)");
    assert_eq!((maps[0].start, maps[0].end, maps[0].offset, maps[0].inode), (0x40_0000, 0x40_1000, 0x1000, 34));
    assert!(maps[0].read && !maps[0].write && !maps[0].execute && !maps[0].shared);
    assert!(maps[1].write && maps[1].shared && maps[1].name.is_empty());
    assert!(!maps[2].read && maps[2].execute);
    assert!(process::parse_maps("nonsense\n").is_err());
}

#[test]
fn symbols_know_their_module() {
    let symbols = system::parse_kallsyms("ffffffff81000000 T _text\nffffffffc0001000 t probe\t[virtio_net]\n").unwrap();
    assert_eq!((symbols[0].address, symbols[0].kind, symbols[0].name.as_str()), (0xffff_ffff_8100_0000, 'T', "_text"));
    assert_eq!(symbols[0].module, None);
    assert_eq!(symbols[1].module.as_deref(), Some("virtio_net"));
}

#[test]
fn modules_list_their_users() {
    let text = "failover 16384 1 net_failover, Live 0xffffffffc0010000\nloop 40960 0 - Live 0xffffffffc0020000 (E)\n";
    let modules = system::parse_modules(text).unwrap();
    assert_eq!(modules[0].used_by, ["net_failover"]);
    assert_eq!((modules[0].size, modules[0].references), (16384, Some(1)));
    assert!(modules[1].used_by.is_empty());
    assert_eq!(modules[1].base, 0xffff_ffff_c002_0000);
}

#[test]
fn log_records_skip_their_properties() {
    let text = "5,0,0,-;Linux version 6.1\n30,12,1500000,-;systemd; with a semicolon\n SUBSYSTEM=pci\n DEVICE=+pci:0\n";
    let records = system::parse_kmsg(text).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].level, records[0].facility, records[0].text.as_str()), (5, 0, "Linux version 6.1"));
    assert_eq!((records[1].level, records[1].facility, records[1].sequence, records[1].micros), (6, 3, 12, 1_500_000));
    assert_eq!(records[1].text, "systemd; with a semicolon");
}

#[test]
fn physical_ranges_nest() {
    let ranges = system::parse_iomem("00001000-0009fbff : System RAM\n  00002000-00002fff : Kernel code\n").unwrap();
    assert_eq!((ranges[0].start, ranges[0].end, ranges[0].depth), (0x1000, 0x9_fbff, 0));
    assert_eq!((ranges[1].depth, ranges[1].name.as_str()), (1, "Kernel code"));
}

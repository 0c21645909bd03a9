//! The connector `pcileech` with LeechCore itself, on files: a real guest's memory is the same as through the connector for files.

use std::{fs, os::unix::fs::FileExt, process::Command};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory,
    memory::{Liveness, Outcome, PhysRead, PhysWrite, PhysicalMemoryExt},
    os::Os,
};
use memflow_guests::Guests;
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_pcileech::{Options, open, parse_map};
use memflow_tests::{Form, Random, built, guest, leechcore};
use tempfile::TempDir;

/// LeechCore takes nothing smaller for an image.
const SMALLEST: u64 = 16 << 20;

fn options() -> Options {
    Options::default().with_library(leechcore())
}

/// A raw image whose bytes tell their addresses.
fn image() -> (TempDir, String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..SMALLEST + 0x3000).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
    let path = folder.path().join("raw.img");
    fs::write(&path, &bytes).unwrap();
    let path = path.display().to_string();
    (folder, path, bytes)
}

#[test]
fn raw_image_is_read_at_any_address_and_length() {
    let (_folder, path, bytes) = image();
    let opened = open(&format!("file://{path}"), &options()).unwrap();
    let metadata = opened.memory.metadata();
    assert_eq!(metadata.runs.to_string(), "0x0-0x1002fff@0x0");
    assert_eq!((metadata.liveness, metadata.read_only), (Liveness::Frozen, true));
    assert_eq!(opened.format, "LeechCore device file");
    let mut random = Random(7);
    for _ in 0..300 {
        let len = 1 + random.below(0x5000);
        let start = random.below(bytes.len() as u64 - len);
        let mut read = vec![0; len as usize];
        opened.memory.read_into(PhysAddr::new(start), &mut read).unwrap();
        assert!(read == bytes[start as usize..(start + len) as usize], "{start:#x} {len:#x}");
    }
    let mut whole = vec![0; bytes.len()];
    opened.memory.read_into(PhysAddr::new(0), &mut whole).unwrap();
    assert!(whole == bytes);
    assert!(opened.memory.read_into(PhysAddr::new(bytes.len() as u64 - 4), &mut [0; 8]).is_err());
}

#[test]
fn file_that_shrank_fails_by_page() {
    let (_folder, path, bytes) = image();
    let opened = open(&format!("file://{path}"), &options()).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(SMALLEST).unwrap();
    let mut read = vec![0xcc; 0x2000];
    let mut ops = [PhysRead::new(PhysAddr::new(SMALLEST - 0x1000), &mut read)];
    opened.memory.read_batch(&mut ops).unwrap_err();
    assert!(matches!(ops[0].outcome, Outcome::Failed { offset: 0x1000, .. }), "{:?}", ops[0].outcome);
    assert!(read[..0x1000] == bytes[SMALLEST as usize - 0x1000..SMALLEST as usize]);
    assert!(read[0x1000..].iter().all(|byte| *byte == 0xcc));
}

#[test]
fn writes_reach_the_file_and_nothing_beside_them() {
    let (_folder, path, mut bytes) = image();
    let opened = open(&format!("file://file={path},write=1"), &options()).unwrap();
    let metadata = opened.memory.metadata();
    assert_eq!((metadata.liveness, metadata.read_only), (Liveness::Live, false));
    let mut random = Random(11);
    for _ in 0..100 {
        let len = 1 + random.below(0x2100) as usize;
        let start = random.below((bytes.len() - len) as u64) as usize;
        let text: Vec<u8> = (0..len).map(|_| random.next_u64() as u8).collect();
        opened.memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(start as u64), &text)]).unwrap();
        bytes[start..start + len].copy_from_slice(&text);
    }
    // Its writes lie in buffers until then.
    assert!(opened.notes[0].contains("reads may give older bytes until the target is closed"), "{:?}", opened.notes);
    drop(opened);
    assert!(fs::read(&path).unwrap() == bytes);

    let read_only = open(&format!("file://{path}"), &options()).unwrap();
    assert!(read_only.memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(0), b"x")]).is_err());
}

#[test]
fn bytes_of_a_file_that_changes_are_those_of_now() {
    let (_folder, path, _) = image();
    let opened = open(&format!("file://file={path},volatile=1"), &options()).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    for round in 0..50_u64 {
        file.write_all_at(&round.to_le_bytes(), 0x5008).unwrap();
        // Again and again the same page: nothing of it may be kept.
        for address in [0x5008, 0x5000, 0x4ff8] {
            let mut read = [0; 0x18];
            opened.memory.read_into(PhysAddr::new(address), &mut read).unwrap();
            let at = (0x5008 - address) as usize;
            let found = read.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
            assert_eq!(found, Some(round), "{address:#x}");
        }
    }
}

#[test]
fn map_keeps_reads_away_from_what_it_leaves_out() {
    let (_folder, path, bytes) = image();
    let map = parse_map("0x1000-0x9ffff,0x100000-0xffffff,0x100000000-0x100000fff@0x2000").unwrap();
    let opened = open(&format!("file://file={path},volatile=1"), &options().with_map(map)).unwrap();
    assert_eq!(opened.memory.metadata().liveness, Liveness::Live);
    let mut read = vec![0; 0x1000];
    opened.memory.read_into(PhysAddr::new(1 << 32), &mut read).unwrap();
    assert!(read == bytes[0x2000..0x3000]);
    for hole in [0, 0xa_0000, SMALLEST] {
        assert!(opened.memory.read_into(PhysAddr::new(hole), &mut read).is_err(), "{hole:#x}");
    }
}

#[test]
fn device_that_is_not_there_is_refused_with_what_could_be_wrong() {
    for device in ["fpga", "file:///no/such/file", "rawudp://ip=127.0.0.1"] {
        let error = open(device, &options()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("opening LeechCore device {device}: ")), "{error}");
    }
}

#[test]
fn threads_read_through_one_handle() {
    let (_folder, path, bytes) = image();
    let opened = open(&format!("file://{path}"), &options()).unwrap();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (memory, bytes) = (&opened.memory, &bytes);
            scope.spawn(move || {
                let mut random = Random(seed);
                for _ in 0..200 {
                    let start = random.below(SMALLEST) as usize;
                    let mut read = vec![0; 0x1800];
                    memory.read_into(PhysAddr::new(start as u64), &mut read).unwrap();
                    assert!(read == bytes[start..start + 0x1800]);
                }
            });
        }
    });
}

#[test]
fn guest_through_leechcore_is_the_guest() {
    let guest = guest("amd64-6.12-4level-pti");
    for form in Form::ALL {
        let expected = form.memory(&guest);
        let opened = open(&format!("file://{}", form.path(&guest).display()), &options()).unwrap();
        let runs = opened.memory.metadata().runs;
        // Of an ELF core LeechCore leaves out segments that are no whole pages.
        let mut random = Random(3);
        for _ in 0..200 {
            let run = random.pick(runs.runs()).range;
            let start = run.start().wrapping_add(random.below(run.len()));
            let len =
                1 + random.below(run.last().unwrap().offset_from(start).unwrap().min(0x3000) + 1).saturating_sub(1);
            let range = PhysRange::new(start, len).unwrap();
            let (mut one, mut other) = (vec![0; len as usize], vec![0; len as usize]);
            expected.read_into(start, &mut one).unwrap();
            opened.memory.read_into(start, &mut other).unwrap();
            assert!(one == other, "{form:?} {range}");
        }
        let os = LinuxOs::open(std::sync::Arc::new(opened.memory), &LinuxOptions::default()).unwrap();
        let listed = os.processes().unwrap().into_complete().unwrap();
        let truth = guest.truth.processes().unwrap();
        for process in &truth {
            let found = listed.iter().find(|found| found.pid == process.pid);
            assert!(found.is_some(), "{form:?}: {} is missing", process.pid);
        }
        assert_eq!(listed.len(), truth.len());
    }
}

#[test]
fn command_reads_a_live_guest_through_leechcore() {
    let guests = Guests::locate().unwrap();
    let mut guest = guests.boot(Guests::spec("amd64-6.1-4level-pti").unwrap()).unwrap();
    let pid = guest.spawn("newcomer").unwrap();
    let target =
        format!("pcileech:'file://file={},volatile=1':lib={}", guest.ram_path().display(), leechcore().display());
    let run = |target: &str| {
        let output = Command::new(&built().memflow).args(["ps", target, "--user-only", "--no-cache"]).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let listed = run(&target);
    assert!(
        listed.lines().any(|line| line.trim().starts_with(&pid.to_string()) && line.ends_with("newcomer")),
        "{listed}"
    );
    let error = run("pcileech:fpga:lib=/no/such/folder");
    assert!(error.contains("install LeechCore"), "{error}");
}

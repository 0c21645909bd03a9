//! Other people's readers on the files that `memflow dump` writes of a real guest: drgn, volatility3 and LeechCore see the memory and the
//! processes that are in it.
//!
//! Owns: which reader gets which format. The scripts in `readers/` say what a reader saw; none of them knows anything of this library.

use std::{
    fmt::Write as _,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use memflow_core::{PhysAddr, PhysicalMemory, memory::PhysicalMemoryExt};
use memflow_guests::CapturedGuest;
use memflow_pcileech::Options;
use memflow_tests::{Form, Random, built, guest, leechcore, readers};
use tempfile::TempDir;

const GUEST: &str = "amd64-6.1-4level-pti";
/// Reads that are compared.
const READS: usize = 400;

/// A format that `memflow dump` writes, and who else reads it.
struct Written {
    /// As `--format` has it.
    format: &'static str,
    /// The name that volatility3 has for it.
    volatility: Option<&'static str>,
    /// LeechCore opens it.
    leechcore: bool,
    /// drgn finds the kernel in it.
    drgn: bool,
}

const WRITTEN: &[Written] = &[Written { format: "lime", volatility: Some("lime"), leechcore: true, drgn: false }];

/// The guest's memory, written by the command.
fn written(guest: &CapturedGuest, format: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("memory.{format}"));
    let output = Command::new(&built().memflow)
        .arg("dump")
        .arg(guest.core())
        .args(["--format", format, "--output"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
    (folder, path)
}

/// A script with its arguments; what it prints for this input.
fn script(name: &str, args: &[&str], path: &Path, input: &str) -> Vec<u8> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers").join(name);
    let mut command = Command::new(readers());
    command.arg(script).args(args).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Places in the memory, and their bytes as QEMU wrote them: the ends of all runs, and others.
fn places(memory: &dyn PhysicalMemory) -> (Vec<(u64, u64)>, Vec<u8>) {
    let runs = memory.metadata().runs;
    let mut random = Random(17);
    let mut places = Vec::new();
    for run in runs.runs().iter().map(|run| run.range) {
        places.extend([(run.start().as_u64(), 1), (run.last().unwrap().as_u64(), 1)]);
    }
    while places.len() < READS {
        let run = random.pick(runs.runs()).range;
        let inside = random.below(run.len());
        places.push((run.start().as_u64() + inside, 1 + random.below((run.len() - inside).min(0x3000))));
    }
    let mut bytes = Vec::new();
    for (address, len) in &places {
        let mut read = vec![0; *len as usize];
        memory.read_into(PhysAddr::new(*address), &mut read).unwrap();
        bytes.extend(read);
    }
    (places, bytes)
}

#[test]
fn volatility_reads_the_bytes_that_were_written() {
    let guest = guest(GUEST);
    let (places, expected) = places(&*Form::Dump.memory(&guest));
    let mut input = String::new();
    places.iter().for_each(|(address, len)| writeln!(input, "{address} {len}").unwrap());
    // The core that QEMU wrote shows that the script is right.
    assert!(script("volatility_bytes.py", &["elf"], &guest.core(), &input) == expected);
    for written_as in WRITTEN {
        let Some(layer) = written_as.volatility else { continue };
        let (_folder, path) = written(&guest, written_as.format);
        let found = script("volatility_bytes.py", &[layer], &path, &input);
        assert!(found == expected, "{}: {} bytes of {}", written_as.format, found.len(), expected.len());
    }
}

#[test]
fn leechcore_reads_the_bytes_that_were_written() {
    let guest = guest(GUEST);
    let (places, expected) = places(&*Form::Dump.memory(&guest));
    for written_as in WRITTEN.iter().filter(|written| written.leechcore) {
        let (_folder, path) = written(&guest, written_as.format);
        let options = Options::default().with_library(leechcore());
        let opened = memflow_pcileech::open(&format!("file://{}", path.display()), &options).unwrap();
        let mut rest = expected.as_slice();
        for (address, len) in &places {
            let (bytes, behind) = rest.split_at(*len as usize);
            rest = behind;
            let mut read = vec![0; bytes.len()];
            opened.memory.read_into(PhysAddr::new(*address), &mut read).unwrap();
            assert!(read == bytes, "{}: {len:#x} bytes at {address:#x}", written_as.format);
        }
    }
}

#[test]
fn drgn_lists_the_processes_that_the_guest_had() {
    let guest = guest(GUEST);
    let truth = guest.truth.processes().unwrap();
    let mut expected: Vec<u32> = truth.iter().map(|process| process.pid).collect();
    expected.sort_unstable();
    let written: Vec<_> =
        WRITTEN.iter().filter(|written| written.drgn).map(|format| written(&guest, format.format)).collect();
    for path in std::iter::once(guest.core()).chain(written.iter().map(|(_, path)| path.clone())) {
        let listed = String::from_utf8(script("drgn_processes.py", &[], &path, "")).unwrap();
        let mut found: Vec<u32> =
            listed.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{}", path.display());
    }
}

//! Other people's readers on the files that `memflow dump` writes of a real guest: drgn, volatility3 and LeechCore see the memory and the
//! processes that are in it.
//!
//! Owns: which reader gets which format. The scripts in `readers/` say what a reader saw; none of them knows anything of this library.

use std::{
    fmt::Write as _,
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory, Result,
    memory::{MapMode, MappedMemory, PhysicalMemoryExt, Run, RunMap, SourceConfig},
    os::Os,
};
use memflow_guests::CapturedGuest;
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_pcileech::Options;
use memflow_snapshot::{DumpFormat, Sink, WriteOptions};
use memflow_tests::{Form, Random, built, guest, leechcore, readers};
use tempfile::TempDir;

const GUEST: &str = "amd64-6.1-4level-pti";
/// A machine of the other width.
const NARROW: &str = "i386-6.1-pae";
/// Reads that are compared.
const READS: usize = 400;

/// A format that `memflow dump` writes, and who else reads it.
#[derive(Debug)]
struct Written {
    /// As `--format` has it.
    format: &'static str,
    /// As `--compress` has it.
    compress: Option<&'static str>,
    guest: &'static str,
    /// The name that volatility3 has for it.
    volatility: Option<&'static str>,
    /// LeechCore opens it.
    leechcore: bool,
    /// drgn finds the kernel in it.
    drgn: bool,
}

const WRITTEN: &[Written] = &[
    Written { volatility: Some("lime"), leechcore: true, ..of("lime") },
    Written { volatility: Some("elf"), leechcore: true, drgn: true, ..of("elf") },
    // Neither volatility3 nor LeechCore reads the format.
    Written { drgn: true, ..of("kdump") },
    Written { compress: Some("lzo"), drgn: true, ..of("kdump") },
    Written { compress: Some("snappy"), drgn: true, ..of("kdump") },
    Written { compress: Some("zstd"), drgn: true, ..of("kdump") },
    Written { volatility: Some("crash64"), leechcore: true, ..of("windows") },
    Written { guest: NARROW, volatility: Some("crash32"), leechcore: true, ..of("windows") },
];

const fn of(format: &'static str) -> Written {
    Written { format, compress: None, guest: GUEST, volatility: None, leechcore: false, drgn: false }
}

/// The guest's memory, written by the command.
fn written(guest: &CapturedGuest, written: &Written) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let mut command = Command::new(&built().memflow);
    command.arg("dump").arg(guest.core()).args(["--format", written.format, "--output"]).arg(&path);
    written.compress.map(|how| command.args(["--compress", how]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{written:?}: {}", String::from_utf8_lossy(&output.stderr));
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

/// What the scripts take.
fn lines(places: &[(u64, u64)]) -> String {
    let mut input = String::new();
    places.iter().for_each(|(address, len)| writeln!(input, "{address} {len}").unwrap());
    input
}

/// The same bytes through LeechCore.
fn leechcore_reads(path: &Path, places: &[(u64, u64)], expected: &[u8], what: &str) {
    let options = Options::default().with_library(leechcore());
    let opened = memflow_pcileech::open(&format!("file://{}", path.display()), &options).unwrap();
    let mut rest = expected;
    for (address, len) in places {
        let (bytes, behind) = rest.split_at(*len as usize);
        rest = behind;
        let mut read = vec![0; bytes.len()];
        opened.memory.read_into(PhysAddr::new(*address), &mut read).unwrap();
        assert!(read == bytes, "{what}: {len:#x} bytes at {address:#x}");
    }
}

#[test]
fn volatility_reads_the_bytes_that_were_written() {
    // The core that QEMU wrote shows that the script is right.
    let core = guest(GUEST);
    let (core_places, expected) = places(&*Form::Dump.memory(&core));
    assert!(script("volatility_bytes.py", &["elf"], &core.core(), &lines(&core_places)) == expected);
    for dump in WRITTEN {
        let Some(layer) = dump.volatility else { continue };
        let guest = guest(dump.guest);
        let (places, expected) = places(&*Form::Dump.memory(&guest));
        let (_folder, path) = written(&guest, dump);
        let found = script("volatility_bytes.py", &[layer], &path, &lines(&places));
        assert!(found == expected, "{dump:?}: {} bytes of {}", found.len(), expected.len());
    }
}

#[test]
fn leechcore_reads_the_bytes_that_were_written() {
    for dump in WRITTEN.iter().filter(|dump| dump.leechcore) {
        let guest = guest(dump.guest);
        let (places, expected) = places(&*Form::Dump.memory(&guest));
        let (_folder, path) = written(&guest, dump);
        leechcore_reads(&path, &places, &expected, dump.format);
    }
}

/// In what LeechCore reads our library sees the processes that the guest had.
#[test]
fn processes_are_found_in_what_leechcore_reads() {
    let guest = guest(GUEST);
    let truth = guest.truth.processes().unwrap();
    let mut expected: Vec<u32> = truth.iter().map(|process| process.pid).collect();
    expected.sort_unstable();
    for dump in WRITTEN.iter().filter(|dump| dump.leechcore && dump.guest == GUEST) {
        let (_folder, path) = written(&guest, dump);
        let options = Options::default().with_library(leechcore());
        let opened = memflow_pcileech::open(&format!("file://{}", path.display()), &options).unwrap();
        let os = LinuxOs::open(Arc::new(opened.memory), &LinuxOptions::default()).unwrap();
        let processes = os.processes().unwrap().into_complete().unwrap();
        let mut found: Vec<u32> = processes.iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{dump:?}");
    }
}

/// A file as a dump is written to it.
struct FileSink(File, u64);

impl Sink for FileSink {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all_at(bytes, self.1).unwrap();
        self.1 += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        self.1 += len;
        self.0.set_len(self.1).unwrap();
        Ok(())
    }
}

/// A crash dump whose header has no room for the runs: the guest's memory without every fourth page of its kernel's megabytes.
#[test]
fn crash_dump_with_a_bitmap_is_read_by_others() {
    let guest = guest(GUEST);
    let whole = Form::Dump.memory(&guest);
    let first = whole.metadata().runs.runs()[0];
    let piece = |at: u64, len: u64| Run {
        range: PhysRange::new(PhysAddr::new(at), len).unwrap(),
        offset: first.offset + at - first.range.start().as_u64(),
    };
    let mut runs: Vec<Run> = (0x100..0x1100).step_by(4).map(|page| piece(page * 0x1000, 0x3000)).collect();
    runs.push(piece(0x200_0000, 0x100_0000));
    let config = SourceConfig { name: "pieces".into(), runs: RunMap::new(runs).unwrap(), facts: whole.facts().clone() };
    let memory = MappedMemory::new(config, &File::open(guest.core()).unwrap(), MapMode::Private).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory.dmp");
    let mut sink = FileSink(File::create_new(&path).unwrap(), 0);
    memflow_snapshot::write(&memory, &mut sink, &WriteOptions::new(DumpFormat::Windows)).unwrap();
    let mut kind = [0; 4];
    File::open(&path).unwrap().read_exact_at(&mut kind, 0xf98).unwrap();
    assert_eq!(u32::from_le_bytes(kind), 5);
    let (places, expected) = places(&memory);
    assert!(script("volatility_bytes.py", &["crash64"], &path, &lines(&places)) == expected);
    leechcore_reads(&path, &places, &expected, "bitmap");
}

#[test]
fn drgn_reads_the_bytes_that_were_written() {
    let guest = guest(GUEST);
    let (places, expected) = places(&*Form::Dump.memory(&guest));
    assert!(script("drgn_bytes.py", &[], &guest.core(), &lines(&places)) == expected);
    for dump in WRITTEN.iter().filter(|dump| dump.drgn) {
        let (_folder, path) = written(&guest, dump);
        assert!(script("drgn_bytes.py", &[], &path, &lines(&places)) == expected, "{dump:?}");
    }
}

#[test]
fn drgn_lists_the_processes_that_the_guest_had() {
    let guest = guest(GUEST);
    let truth = guest.truth.processes().unwrap();
    let mut expected: Vec<u32> = truth.iter().map(|process| process.pid).collect();
    expected.sort_unstable();
    let written: Vec<_> = WRITTEN.iter().filter(|dump| dump.drgn).map(|dump| written(&guest, dump)).collect();
    for path in std::iter::once(guest.core()).chain(written.iter().map(|(_, path)| path.clone())) {
        let listed = String::from_utf8(script("drgn_processes.py", &[], &path, "")).unwrap();
        let mut found: Vec<u32> =
            listed.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{}", path.display());
    }
}
